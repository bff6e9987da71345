"""The figures of a diagnosis that matter, as plain numbers."""

import math
from typing import Any

import numpy as np

from jaxrnn.analysis.example_gradients import windows
from jaxrnn.diagnosis.figures import (
    GateSummary,
    LayerSummary,
    Nonfinite,
    ReadingSummary,
    Spread,
    Summary,
    number,
)
from jaxrnn.diagnosis.record import LayerFlow, Reading, Record
from jaxrnn.diagnosis.verdict import certainty, course, grade

__all__ = [
    "by_lag",
    "mean_exponents",
    "median_curve",
    "paths_of",
    "reached",
    "reading_summary",
    "relative",
    "summarise",
    "window_for",
]


RANKS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
POINTS = 65  # of a curve that is kept: as many as a small picture keeps apart


# The share of the gradient that a window may miss: shorter windows, or exact ones. The share of
# `memory_horizon` too; not measured; docs/decisions/advice-thresholds.md
BIAS = 0.01


def by_lag(logs: Any, lengths: Any) -> np.ndarray:
    """`(T, B)` by lag instead of by step; NaN where a sequence is shorter than the lag.

    >>> by_lag(np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 0.0]]), np.array([3, 2]))
    array([[ 3.,  2.],
           [ 2.,  1.],
           [ 1., nan]])
    """
    logs, lengths = np.asarray(logs, np.float64), np.asarray(lengths)
    # Lag 0 is the last step of each sequence, and padding follows it: not the rows turned round.
    index = lengths[None] - 1 - np.arange(len(logs))[:, None]
    taken = np.take_along_axis(logs, np.maximum(index, 0), axis=0)
    return np.where(index >= 0, taken, np.nan)


def median_curve(logs: Any, lengths: Any) -> np.ndarray:
    """The median over the examples at each lag, up to the longest sequence; natural logs."""
    return _median(by_lag(logs, lengths)[: int(np.max(lengths, initial=0))])


def relative(logs: Any, lengths: Any, near: bool = False) -> np.ndarray:
    """`by_lag` up to the longest sequence, each example relative to its own value at lag 0.

    With `near` relative to its largest in the nearest tenth, as in `Reading`. NaN if that value is
    0: there is nothing to compare with.
    """
    found = by_lag(logs, lengths)[: int(np.max(lengths, initial=0))]
    first = found[:1]
    if near and len(found):
        lag = np.arange(len(found))[:, None]
        within = (lag < -(-np.asarray(lengths) // 10)) & ~np.isnan(found)
        first = np.max(np.where(within, found, -np.inf), 0, keepdims=True)
    # The inner where: -inf - -inf would warn, although its result is thrown away.
    return np.where(np.isfinite(first), found - np.where(np.isfinite(first), first, 0.0), np.nan)


def _median(rows: np.ndarray) -> np.ndarray:
    """The median of each row without its NaN; NaN if there is nothing else."""
    # np.nanmedian warns where all is NaN, as at lags that no example has.
    some = [row[~np.isnan(row)] for row in rows]
    return np.array([np.median(row) if row.size else np.nan for row in some])


def reached(layer: LayerFlow) -> np.ndarray:
    """Which examples have a gradient, `(B,)`; in one without, no lag can be counted."""
    return np.isfinite(np.asarray(layer.gradient))


def window_for(layer: LayerFlow, T: int) -> int | None:
    """The smallest measured window whose median bias, and that of all longer ones, is under 1 %."""
    # Examples without a gradient have bias 0 in every window, and would pull the median down.
    bias = np.asarray(layer.bias)[:, reached(layer)]
    if not bias.size:
        return None
    bias = np.median(bias, axis=1)
    # A window may do by chance, where what it leaves out cancels: longer ones must do as well. A
    # bias of NaN counts as too large, hence `not b <= BIAS`.
    good = [K for K, b in zip(windows(T), bias, strict=True) if b <= BIAS]
    failing = [K for K, b in zip(windows(T), bias, strict=True) if not b <= BIAS]
    return min((K for K in good if max(failing, default=0) < K), default=None)


def summarise(record: Record) -> Summary:
    """The figures that matter."""
    lengths = np.asarray(record.lengths)
    T = record.layers[0].adjoint.shape[0]
    bad = np.asarray(record.nonfinite)
    nonfinite = None
    if (bad >= 0).any():
        first = int(np.where(bad >= 0, bad, T).argmin())
        source = int(np.asarray(record.source)[first])
        where = "input" if source == 0 else record.names[source - 1]
        nonfinite = Nonfinite(int((bad >= 0).sum()), int(bad[first]), first, where)
    return Summary(
        cell=record.cell,
        loss=record.loss,
        steps=T,
        examples=len(lengths),
        length=_spread(lengths),
        watched=list(record.watched),
        threshold=record.threshold,
        nonfinite=nonfinite,
        net=[
            reading_summary(name, reading, record)
            for name, reading in zip(record.ends, record.net, strict=True)
        ],
        layers=[
            _layer(name, layer, record)
            for name, layer in zip(record.names, record.layers, strict=True)
        ],
    )


def reading_summary(name: str, reading: Reading, record: Record) -> ReadingSummary:
    """What reaches the inputs; of `record` the lengths, the spans and the threshold are read."""
    live = np.asarray(np.isfinite(np.asarray(reading.inputs)).any(0))
    share = _share(reading.horizon_1, record.spans, live)
    curve = _median(relative(reading.inputs, record.lengths, near=True))
    growth, last = _ends(curve)
    return ReadingSummary(
        name,
        _spread(np.asarray(reading.horizon_10)[live]),
        _spread(np.asarray(reading.horizon_1)[live]),
        share,
        growth,
        last,
        grade(share.median, record.threshold),
        course(growth, last, share.median, record.threshold, paths_of(record)),
        _thinned(curve),
    )


def _thinned(curve: np.ndarray) -> tuple[tuple[int, float], ...]:
    """At most POINTS of a curve, the first and the last among them; without NaN."""
    at = np.unique(np.linspace(0, len(curve) - 1, POINTS).round().astype(int)) if len(curve) else []
    return tuple((int(k), float(curve[k])) for k in at if not np.isnan(curve[k]))


def _share(horizon: Any, spans: Any, live: np.ndarray) -> Spread:
    """Each example is compared with its own length, so that short ones do not look forgetful."""
    spans = np.maximum(np.asarray(spans, np.float64), 1)[live]
    return _spread(np.minimum(np.asarray(horizon)[live] / spans, 1.0))


def paths_of(record: Record) -> float:
    """Log of how many ways lead through all layers over the longest lag: C(T - 1 + L - 1, L - 1).

    A stack of layers that keep everything grows so much without any step that grows: it adds up.
    """
    T, L = int(np.max(record.spans, initial=1)), record.depth
    return math.log(math.comb(max(T, 1) - 1 + L - 1, L - 1))


def _ends(curve: np.ndarray) -> tuple[float | None, float | None]:
    """(the largest rise, the value at the longest lag) of a median curve."""
    growth = number(np.nanmax(curve, initial=-np.inf))
    return growth, number(curve[-1]) if curve.size else None


def mean_exponents(layer: LayerFlow) -> np.ndarray:
    """The mean of each exponent over the watched examples that have it finite; -inf if none has."""
    assert layer.exponents is not None
    rows = np.asarray(layer.exponents.value, np.float64).T
    finite = [row[np.isfinite(row)] for row in rows]
    return np.array([row.mean() if row.size else -np.inf for row in finite])


def _layer(name: str, layer: LayerFlow, record: Record) -> LayerSummary:
    lengths, T, live = record.lengths, layer.adjoint.shape[0], reached(layer)
    share = _share(layer.horizon_1, record.spans, live)
    # Each example relative to its own lag 0, or the largest gradients alone would make the curve.
    growth, last = _ends(_median(relative(layer.own_adjoint_by_lag, lengths)))
    found: dict[str, Any] = {}
    verdicts: dict[str, str | None] = {"any_input": None, "these_inputs": None}
    if layer.exponents is not None:
        error = np.asarray(layer.exponents.error)
        found["exponents"] = [number(v) for v in mean_exponents(layer)]
        found["exponent_error"] = number(np.sqrt((error[:, 0] ** 2).mean()))
        found["exponent_steps"] = len(layer.exponents.windows)
    if layer.bounds is not None:
        found["window"] = len(layer.bounds.product)
        found["step_norm"] = _spread(np.exp(np.asarray(layer.bounds.step_upper)))
        statement = layer.bounds.statement()
        verdicts["these_inputs"], found["because_these_inputs"] = (
            statement.verdict,
            _words(statement),
        )
    if layer.weights is not None:
        statement = layer.weights.statement()
        verdicts["any_input"], found["because_any_input"] = statement.verdict, _words(statement)
        found["gamma_sigma_max"] = number(layer.weights.bound)
        found["spectral_radius"] = number(layer.weights.spectral_radius)
    if layer.gates is not None:
        found["gates"] = {
            gate: GateSummary(
                number(np.mean(each.mean)),
                number(np.mean(each.low)),
                number(np.mean(each.high)),
                _spread(each.mean),
            )
            for gate, each in layer.gates.items()
        }
    if layer.paths is not None and len(layer.paths.exact) > 1:
        found["path_shares_at_longest_lag"] = {
            each: number(np.median(np.asarray(part)[0]))
            for each, part in layer.paths.shares.items()
        }
    return LayerSummary(
        name=name,
        horizon_10_percent=_spread(np.asarray(layer.horizon_10)[live]),
        horizon_1_percent=_spread(np.asarray(layer.horizon_1)[live]),
        share=share,
        log_growth=growth,
        log_at_longest_lag=last,
        course=course(growth, last, share.median, record.threshold),
        log_gradient=_spread(layer.gradient),
        bias={
            str(K): number(np.median(b))
            for K, b in zip(windows(T), np.asarray(layer.bias), strict=True)
        },
        window_for_1_percent_bias=window_for(layer, T),
        explosion=certainty(**verdicts),
        **found,
    )


def _words(statement: Any) -> str:
    return f"{statement.verdict}: {statement.sentence}; by {statement.inequality}"


def _spread(values: Any) -> Spread:
    values = np.asarray(values, np.float64).ravel()
    values = values[~np.isnan(values)]
    if not values.size:
        return Spread(*[None] * len(RANKS))
    # The value at the nearest rank, not a mean of two: -inf and inf have no mean.
    ordered = np.sort(values)
    return Spread(*[number(ordered[round(q * (values.size - 1))]) for q in RANKS])
