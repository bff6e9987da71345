"""Pictures of gradient flow. Needs matplotlib: `pip install 'jaxrnn[plot]'`."""

import io
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxrnn import _checks
from jaxrnn.analysis.paths import CellPaths
from jaxrnn.demo import Flow, Trained

__all__ = ["cell_paths", "contributions", "forget_gates", "gradient_flow", "norms", "save"]

COLORS = ("#0072B2", "#D55E00", "#009E73")  # Okabe & Ito: told apart by every eye
PATHS = (*COLORS, "#CC79A7", "#56B4E9")
EXACT = 1e-12  # an approximation that is off by less is drawn as exact
# One colour for one network, one style for one time.
BEFORE = {"linestyle": ":", "linewidth": 1.6}
AFTER = {"linestyle": "-", "linewidth": 2.0}


class Picture(Figure):
    """A figure that a notebook shows without pyplot."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def gradient_flow(runs: Sequence[Trained]) -> Figure:
    """Four panels: adjoints against lag, share of the gradient, Jacobian norms, accuracy.

    All runs are drawn. Five colours are used in turn. Of the last run ∂E/∂cₖ is drawn as well, if
    it has a cell state.

    Args:
      runs: A list or tuple of the `Trained` that `jaxrnn demo` makes, at least one.

    Returns:
      A matplotlib Figure, 11 by 7.6 inches.

    Raises:
      TypeError: If `runs` is not a list or tuple, is empty, or has an entry that is no `Trained`.

    Cost:
      A picture of O(T·M) numbers of each run, M images.
    """
    if not isinstance(runs, list | tuple) or not runs:
        raise TypeError(
            f"runs: expected a list of at least one Trained, got {_checks.describe(runs)}"
        )
    for run in runs:
        _checks.check_instance("runs", run, Trained, "the Trained of jaxrnn demo")
    figure = Picture(figsize=(11, 7.6), layout="constrained")
    axes = figure.subplots(2, 2)
    colors = itertools.cycle(PATHS)
    for run, color in zip(runs, colors, strict=False):
        for flow, style, when in ((run.before, BEFORE, "before"), (run.after, AFTER, "after")):
            label = f"{run.name}, {when} training"
            _adjoints(axes[0, 0], flow, label, color, style)
            _cumulative(axes[0, 1], flow, label, color, style)
            _norms(axes[1, 0], flow, label, color, style)
        axes[1, 1].plot(run.steps, run.accuracy, color=color, label=run.name)
    flow = runs[-1].after
    if flow.adjoint_c is not None:
        # Lag 0 is left out: the loss reads hₙ alone, so ∂E/∂cₙ at fixed hₙ is 0, which a
        # logarithmic scale cannot show. It is drawn over ‖∂E/∂hₙ‖ for the same reason.
        lag = np.arange(flow.adjoint_c.shape[0])[:0:-1]
        relative = flow.adjoint_c[:-1] / flow.adjoint_h[-1]
        color, label = PATHS[len(runs) % len(PATHS)], f"{runs[-1].name}, ∂E/∂cₖ after training"
        axes[0, 0].plot(lag, relative, color=color, label=label)
    _label(
        axes[0, 0],
        "How much of the error reaches step k",
        "lag n - k",
        "‖∂E/∂hₖ‖ / ‖∂E/∂hₙ‖",
        "log",
    )
    _label(
        axes[0, 1],
        "Where the gradient of the weights comes from",
        "lag n - k",
        "share from within this lag",
    )
    axes[0, 1].set_ylim(0, 1.02)
    _label(
        axes[1, 0],
        "Largest singular value of one step, quartiles over images",
        "step",
        "σ_max(∂sᵢ/∂sᵢ₋₁)",
    )
    axes[1, 0].axhline(1.0, color="0.5", linewidth=0.8)
    _label(axes[1, 1], "Digits read pixel by pixel", "training step", "test accuracy")
    axes[1, 1].set_ylim(0, 1)
    return figure


def contributions(norms: Mapping[str, Any]) -> Figure:
    """‖∂E/∂θ|ₖ‖ against the lag n - k, one line for each entry.

    Each line is divided by its largest value, and the scale is logarithmic; a value of 0 is left
    out.

    Args:
      norms: A dict from names to `(T,)`, real floats, in the order of the steps, such as
        `jaxrnn.bptt.contribution_norms(...).norm._asdict()`.

    Returns:
      A matplotlib Figure, 7 by 4.2 inches.

    Raises:
      TypeError: If `norms` is not a mapping, or a curve is not an array of real floats.
      ValueError: If `norms` is empty, or a curve has not one axis or has a number below 0.
    """
    _check_curves("norms", norms)
    for name, leaf in norms.items():
        if (np.asarray(leaf) < 0).any():
            raise ValueError(
                f"norms[{name!r}]: expected norms, got numbers below 0; "
                "if they are logs, pass their exp"
            )
    figure = Picture(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for (name, leaf), color in zip(norms.items(), itertools.cycle(PATHS), strict=False):
        norm = np.asarray(leaf)
        # A logarithmic scale has no 0; NaN leaves a gap. W_hh contributes 0 at the first step,
        # which reads h₀ = 0.
        norm = np.where(norm > 0, norm, np.nan)
        axes.plot(np.arange(norm.size)[::-1], norm / np.nanmax(norm), color=color, label=name)
    _label(
        axes,
        "What each step contributes to the gradient",
        "lag n - k",
        "‖∂E/∂θ|ₖ‖ over the largest",
        "log",
    )
    return figure


def _adjoints(axes: Any, flow: Flow, label: str, color: str, style: dict[str, Any]) -> None:
    lag = np.arange(flow.adjoint_h.shape[0])[::-1]
    axes.plot(lag, flow.adjoint_h / flow.adjoint_h[-1], color=color, label=label, **style)


def _cumulative(axes: Any, flow: Flow, label: str, color: str, style: dict[str, Any]) -> None:
    share = np.cumsum(np.asarray(flow.contribution)[::-1])
    axes.plot(np.arange(share.size), share / share[-1], color=color, label=label, **style)


def _norms(axes: Any, flow: Flow, label: str, color: str, style: dict[str, Any]) -> None:
    low, middle, high = np.quantile(flow.spectral_norm, [0.25, 0.5, 0.75], axis=1)
    steps = np.arange(1, middle.size + 1)
    axes.plot(steps, middle, color=color, label=label, **style)
    axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)


def _label(axes: Any, title: str, x: str, y: str, scale: str = "linear") -> None:
    axes.set(title=title, xlabel=x, ylabel=y, yscale=scale)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False, fontsize=8)


def norms(log_norms: Mapping[str, Any]) -> Figure:
    """‖∂s_{T-1}/∂sₖ‖ against lag, in log₁₀, a line for each curve, whatever its size.

    Args:
      log_norms: A dict from names to `(T,)`, natural logarithms, in the order of the steps, as
        `jaxrnn.products.transport_norms` gives them.

    Returns:
      A matplotlib Figure, 7 by 4.4 inches.

    Raises:
      TypeError: If `log_norms` is not a mapping, or a curve is not an array of real floats.
      ValueError: If `log_norms` is empty, or a curve has not one axis.
    """
    _check_curves("log_norms", log_norms)
    figure = Picture(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    for (name, curve), color in zip(log_norms.items(), itertools.cycle(COLORS), strict=False):
        logs = np.asarray(curve) / np.log(10)
        axes.plot(np.arange(len(logs))[::-1], logs, color=color, label=name)
    axes.axhline(0.0, color="0.5", linewidth=0.8)
    _label(axes, "How far a derivative reaches", "lag", "log₁₀ ‖∂s_T/∂s_k‖")
    return figure


def cell_paths(found: CellPaths) -> Figure:
    """What the approximations of ∂cₜ/∂cₖ miss, and which path carries it; medians over a batch.

    Args:
      found: The CellPaths of `jaxrnn.paths.decompose`.

    Returns:
      A matplotlib Figure, 11 by 4.2 inches.

    Raises:
      TypeError: If `found` is no CellPaths.
    """
    _checks.check_instance("found", found, CellPaths, "the CellPaths of paths.decompose")
    figure = Picture(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    lag = np.arange(len(found.exact))[::-1]

    def median(leaf: Any) -> np.ndarray:
        flat = np.asarray(leaf).reshape(len(lag), -1)
        return np.median(flat, axis=1)

    errors = {"forget gates alone": found.forget_error, "four terms": found.four_term_error}
    for (name, error), color in zip(errors.items(), COLORS, strict=False):
        # At lag 0 nothing is missed. A logarithmic scale has no 0; NaN leaves a gap.
        missed = median(error)[:-1]
        missed = np.where(missed > EXACT, missed, np.nan)
        axes[0].plot(lag[:-1], missed, color=color, label=name)
    _label(axes[0], "What the approximations of ∂c_t/∂c_k miss", "lag", "relative error", "log")
    for (name, share), color in zip(found.shares.items(), itertools.cycle(PATHS), strict=False):
        axes[1].plot(lag[:-1], median(share)[:-1], color=color, label=name)
    axes[1].axhline(0.0, color="0.5", linewidth=0.8)
    _label(axes[1], "Which path carries it", "lag", "share")
    return figure


def forget_gates(run: Trained) -> Figure:
    """Heat maps of the forget gate over time and unit, before and after training.

    The units are sorted by their mean, in each map by itself.

    Args:
      run: A `Trained` of `jaxrnn demo`.

    Returns:
      A matplotlib Figure, 11 by 4.2 inches.

    Raises:
      TypeError: If `run` is no `Trained`.
      ValueError: If its network has no forget gate.

    Cost:
      A picture of O(T·H) numbers.
    """
    _checks.check_instance("run", run, Trained, "the Trained of jaxrnn demo")
    figure = Picture(figsize=(11, 4.2), layout="constrained")
    axes, images = figure.subplots(1, 2, sharey=True), []
    for axis, flow, when in zip(axes, (run.before, run.after), ("before", "after"), strict=True):
        if flow.forget is None:
            raise ValueError(f"run: expected a network with a forget gate, got {run.name}")
        gate = np.asarray(flow.forget)
        gate = gate[:, np.argsort(gate.mean(0))]
        images.append(axis.imshow(
            gate.T, aspect="auto", origin="lower", vmin=0, vmax=1, cmap="cividis",
            extent=(1, gate.shape[0], 1, gate.shape[1]),
        ))  # fmt: skip
        axis.set(title=f"{run.name}, {when} training: mean {gate.mean():.2f}", xlabel="step")
    axes[0].set_ylabel("unit, sorted")
    figure.colorbar(images[-1], ax=axes, label="forget gate, mean over images")
    return figure


def save(figure: Figure, path: pathlib.Path) -> None:
    """Write a picture at 150 dots an inch.

    The path's suffix says which kind of file, without one a PNG. What matplotlib raises for a path
    is raised here.

    Args:
      figure: A matplotlib Figure.
      path: The path of the file, in a folder that exists.

    Returns:
      None.

    Raises:
      TypeError: If `figure` is no Figure.
    """
    _checks.check_instance("figure", figure, Figure, "the Figure of jaxrnn.plot")
    figure.savefig(path, dpi=150)


def _check_curves(name: str, value: Any) -> None:
    """Refuse anything but a mapping from names to arrays `(T,)`, at least one."""
    if not isinstance(value, Mapping):
        raise TypeError(
            f"{name}: expected a dict from names to (T,), got {_checks.describe(value)}"
        )
    if not value:
        raise ValueError(f"{name}: expected at least one curve, got none")
    for key, leaf in value.items():
        # A curve is drawn, not computed with, so NumPy's float64 is welcome without 64-bit mode.
        if not (isinstance(leaf, np.ndarray) and np.issubdtype(leaf.dtype, np.floating)):
            _checks.check_array(f"{name}[{key!r}]", leaf)
        if len(leaf.shape) != 1:
            raise ValueError(f"{name}[{key!r}]: expected (T,), got {_checks.describe(leaf)}")
