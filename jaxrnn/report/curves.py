"""The curves of a report: what reaches an input, a state, the weights, by lag."""

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxrnn.diagnosis import GradientFlow
from jaxrnn.diagnosis.summary import relative
from jaxrnn.plot import PATHS

__all__ = [
    "INK",
    "LN10",
    "QUARTILES",
    "STYLE",
    "STYLES",
    "Titled",
    "adjoints",
    "contributions",
    "drawn",
    "reach",
    "remedies",
]

# Stands for the page's own text colour, dark or light. Matplotlib knows no `currentColor`, so this
# one, which nothing else uses, is replaced in the SVG.
INK = "#010203"
STYLES = ("-", "--", ":", "-.")
LN10 = np.log(10)
QUARTILES = (0.25, 0.5, 0.75)
STYLE = {
    "svg.fonttype": "none",  # text stays text, in the font of the page
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}

Titled = tuple[str, str, Figure]


def drawn(draw: Callable[[Any], None], height: float = 3.0) -> Figure:
    """A figure with one pair of axes."""
    # Not by pyplot, which would keep every figure open and touch the user's backend.
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.subplots())
    return figure


def _curves(flow: GradientFlow, field: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name, median, quartiles) by lag; log₁₀, each example relative to its own lag 0."""
    if field == "inputs":
        names = [f"read {name}" for name in flow.ends] if len(flow.net) > 1 else ["net"]
        curves = [reading.inputs for reading in flow.net]
    else:
        names = list(flow.names)
        curves = [getattr(layer, f"{field}_by_lag") for layer in flow.layers]
    found = []
    for name, own in zip(names, curves, strict=True):
        logs = relative(own, flow.lengths) / LN10
        low, middle, high = (np.array([_quantile(row, q) for row in logs]) for q in QUARTILES)
        found.append((name, middle, np.stack([low, high])))
    return found


def _quantile(row: np.ndarray, q: float) -> float:
    """A quantile of what is not NaN; NaN if nothing is left, or if it is -inf, the log of 0."""
    row = row[~np.isnan(row)]
    # "nearest" takes a value as it is: between -inf and another there is no mean.
    value = np.quantile(row, q, method="nearest") if row.size else np.nan
    return float(value) if np.isfinite(value) else np.nan


def _lines(flow: GradientFlow, field: str, what: str) -> Figure:
    def draw(axes: Any) -> None:
        # Five colours can be told apart; a net of more layers goes on with other kinds of line.
        for number, (name, middle, band) in enumerate(_curves(flow, field)):
            color, style = PATHS[number % 5], STYLES[number // 5 % 4]
            lag = np.arange(len(middle))
            axes.plot(lag, middle, color=color, linestyle=style, label=name)
            axes.fill_between(lag, *band, color=color, alpha=0.2, linewidth=0)
        # 10 % and 1 % of lag 0, the levels of the two horizons.
        for level in (-1, -2):
            axes.axhline(level, color=INK, linewidth=0.6, alpha=0.4)
        axes.set(xlabel="lag, steps back", ylabel=what)
        axes.legend()

    return drawn(draw)


def _ends(flow: GradientFlow, field: str) -> str:
    parts = []
    for name, middle, _ in _curves(flow, field):
        shown = middle[~np.isnan(middle)]
        last = f"10^{shown[-1]:.2g}" if shown.size else "0"
        parts.append(f"{name}: {last} of lag 0 at lag {max(shown.size - 1, 0)}")
    return "; ".join(parts)


def reach(flow: GradientFlow) -> Titled:
    """What reaches an input."""
    figure = _lines(flow, "inputs", "log₁₀ ‖∂E/∂xₖ‖, lag 0 = 0")
    caption = "How much of the error reaches an input; lines at 10 % and 1 %"
    return caption, f"Reach by lag. {_ends(flow, 'inputs')}", figure


def remedies(flow: GradientFlow) -> list[Titled]:
    """For each remedy that was tried: what reaches the inputs, before and after."""
    found = []
    for advice in flow.advice:
        if advice.before is None or advice.after is None:
            continue
        pairs = {"before": advice.before.curve, "after": advice.after.curve}

        def draw(axes: Any, pairs: dict[str, Any] = pairs) -> None:
            for number, (name, curve) in enumerate(pairs.items()):
                lag, logs = np.array(curve, float).reshape(-1, 2).T
                logs = np.where(np.isfinite(logs), logs, np.nan) / LN10
                axes.plot(lag, logs, color=PATHS[number], linestyle=STYLES[1 - number], label=name)
            for level in (-1, -2):
                axes.axhline(level, color=INK, linewidth=0.6, alpha=0.4)
            axes.set(xlabel="lag, steps back", ylabel="log₁₀ ‖∂E/∂xₖ‖, lag 0 = 0")
            axes.legend()

        ends = [
            f"{name}: 1 % of lag 0 at lag {each.horizon:.0f}"
            for name, each in (("before", advice.before), ("after", advice.after))
            if each.horizon is not None
        ]
        where = f", {advice.layer}" if advice.layer else ""
        caption = f"What the remedy did, tried on this batch: {advice.illness}{where}"
        found.append((caption, f"{caption}. {'; '.join(ends)}", drawn(draw)))
    return found


def adjoints(flow: GradientFlow) -> Titled:
    """What each layer remembers by itself."""
    figure = _lines(flow, "own_adjoint", "log₁₀ ‖∂E/∂sₖ‖, lag 0 = 0")
    return (
        "What each layer remembers by itself: how much of an error reaches a state",
        f"Adjoint by lag. {_ends(flow, 'own_adjoint')}",
        figure,
    )


def contributions(flow: GradientFlow) -> Titled:
    """What a step adds to the gradient."""
    figure = _lines(flow, "contribution", "log₁₀ ‖∂E/∂θ|ₖ‖, lag 0 = 0")
    caption = "What a step adds to the gradient of the weights; lines at 10 % and 1 %"
    return caption, f"Contribution by lag. {_ends(flow, 'contribution')}", figure
