"""The figures of a diagnosis that matter, as plain numbers."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrnn.analysis.example_gradients import windows

if TYPE_CHECKING:
    from jaxrnn.diagnosis.flow import GradientFlow, LayerFlow

__all__ = [
    "by_lag",
    "mean_exponents",
    "median_curve",
    "reached",
    "relative",
    "summarise",
    "window_for",
]

RANKS = {
    "least": 0.0, "lower": 0.25, "median": 0.5, "upper": 0.75, "nine_in_ten": 0.9, "most": 1.0,
}  # fmt: skip
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


def relative(logs: Any, lengths: Any) -> np.ndarray:
    """`by_lag` up to the longest sequence, each example relative to its own value at lag 0.

    NaN if that value is 0: there is nothing to compare with.
    """
    found = by_lag(logs, lengths)[: int(np.max(lengths, initial=0))]
    first = found[:1]
    # The inner where: -inf - -inf would warn, although its result is thrown away.
    return np.where(np.isfinite(first), found - np.where(np.isfinite(first), first, 0.0), np.nan)


def _median(rows: np.ndarray) -> np.ndarray:
    """The median of each row without its NaN; NaN if there is nothing else."""
    # np.nanmedian warns where all is NaN, as at lags that no example has.
    some = [row[~np.isnan(row)] for row in rows]
    return np.array([np.median(row) if row.size else np.nan for row in some])


def reached(layer: "LayerFlow") -> np.ndarray:
    """Which examples have a gradient, `(B,)`; in one without, no lag can be counted."""
    return np.isfinite(np.asarray(layer.gradient))


def window_for(layer: "LayerFlow", T: int) -> int | None:
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


def summarise(flow: "GradientFlow") -> dict[str, Any]:
    """What `GradientFlow.summary` returns: dicts of numbers, strings, lists and None alone."""
    lengths = np.asarray(flow.lengths)
    T = flow.layers[0].adjoint.shape[0]
    bad = np.asarray(flow.nonfinite)
    nonfinite = None
    if (bad >= 0).any():
        first = int(np.where(bad >= 0, bad, T).argmin())
        source = int(np.asarray(flow.source)[first])
        nonfinite = {
            "examples": int((bad >= 0).sum()),
            "first_step": int(bad[first]),
            "example": first,
            "where": "input" if source == 0 else flow.names[source - 1],
        }
    return {
        "cell": flow.cell,
        "loss": flow.loss,
        "steps": T,
        "examples": len(lengths),
        "length": _spread(lengths),
        "watched": list(flow.watched),
        "nonfinite": nonfinite,
        "layers": [
            {"name": name, **_layer(layer, lengths, T)}
            for name, layer in zip(flow.names, flow.layers, strict=True)
        ],
    }


def mean_exponents(layer: "LayerFlow") -> np.ndarray:
    """The mean of each exponent over the watched examples that have it finite; -inf if none has."""
    assert layer.exponents is not None
    rows = np.asarray(layer.exponents.value, np.float64).T
    finite = [row[np.isfinite(row)] for row in rows]
    return np.array([row.mean() if row.size else -np.inf for row in finite])


def _layer(layer: "LayerFlow", lengths: np.ndarray, T: int) -> dict[str, Any]:
    # Each example relative to its own lag 0, or the largest gradients alone would make the curve.
    faded = _median(relative(layer.adjoint_by_lag, lengths))
    found: dict[str, Any] = {
        "horizon_10_percent": _spread(np.asarray(layer.horizon_10)[reached(layer)]),
        "horizon_1_percent": _spread(np.asarray(layer.horizon_1)[reached(layer)]),
        "log_growth": _number(np.nanmax(faded, initial=-np.inf)),
        "log_at_longest_lag": _number(faded[-1]) if faded.size else None,
        "log_gradient": _spread(layer.gradient),
        "bias": {
            str(K): _number(np.median(b))
            for K, b in zip(windows(T), np.asarray(layer.bias), strict=True)
        },
        "window_for_1_percent_bias": window_for(layer, T),
    }
    if layer.exponents is not None:
        error = np.asarray(layer.exponents.error)
        found["exponents"] = [_number(v) for v in mean_exponents(layer)]
        found["exponent_error"] = _number(np.sqrt((error[:, 0] ** 2).mean()))
        found["exponent_steps"] = len(layer.exponents.windows)
    if layer.bounds is not None:
        found["window"] = len(layer.bounds.product)
        found["step_norm"] = _spread(np.exp(np.asarray(layer.bounds.step_upper)))
        statement = layer.bounds.statement()
        found["verdict_these_inputs"] = {"verdict": statement.verdict, "because": _words(statement)}
    if layer.weights is not None:
        statement = layer.weights.statement()
        found["verdict_any_input"] = {"verdict": statement.verdict, "because": _words(statement)}
        found["gamma_sigma_max"] = _number(layer.weights.bound)
        found["spectral_radius"] = _number(layer.weights.spectral_radius)
    if layer.gates is not None:
        found["gates"] = {
            gate: {
                "mean": _number(np.mean(each.mean)),
                "low": _number(np.mean(each.low)),
                "high": _number(np.mean(each.high)),
                "unit_mean": _spread(each.mean),
            }
            for gate, each in layer.gates.items()
        }
    if layer.paths is not None and len(layer.paths.exact) > 1:
        found["path_shares_at_longest_lag"] = {
            name: _number(np.median(np.asarray(share)[0]))
            for name, share in layer.paths.shares.items()
        }
    return found


def _words(statement: Any) -> str:
    return f"{statement.verdict}: {statement.sentence}; by {statement.inequality}"


def _spread(values: Any) -> dict[str, Any]:
    """Least, quartiles, the value that nine in ten do not exceed, and most."""
    values = np.asarray(values, np.float64).ravel()
    values = values[~np.isnan(values)]
    if not values.size:
        return dict.fromkeys(RANKS)
    # The value at the nearest rank, not a mean of two: -inf and inf have no mean.
    ordered = np.sort(values)
    at = {name: round(q * (values.size - 1)) for name, q in RANKS.items()}
    return {name: _number(ordered[index]) for name, index in at.items()}


def _number(value: Any) -> float | None:
    """A finite number, or None: JSON has no NaN or inf."""
    value = float(value)
    return value if np.isfinite(value) else None
