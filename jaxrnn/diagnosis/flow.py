"""What a diagnosis has measured, as arrays."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
from jax import Array

from jaxrnn.analysis.certificates import TrajectoryBounds, WeightBound
from jaxrnn.analysis.gate_statistics import GateStatistics
from jaxrnn.analysis.lyapunov import Exponents
from jaxrnn.analysis.paths import CellPaths
from jaxrnn.cells.traits import Gate
from jaxrnn.diagnosis import printing
from jaxrnn.diagnosis.advice import Advice
from jaxrnn.diagnosis.advising import advise
from jaxrnn.diagnosis.summary import summarise

__all__ = ["GradientFlow", "LayerFlow"]


class LayerFlow(NamedTuple):
    """One direction of one layer, in its own time; B examples, all logs natural.

    Of every example, from the loss or, without one, from unit random cotangents on the last output:

        adjoint: log ‖∂E/∂sₖ‖ of the whole state, `(T, B)`.
        contribution: log ‖∂E/∂θ|ₖ‖ over all leaves of θ, `(T, B)`.
        gradient: log ‖∂E/∂θ‖, `(B,)`.
        horizon_10, horizon_1: the lag from which on no contribution exceeds 10 % and 1 % of that
            of lag 0, `(B,)`; see `jaxrnn.memory_horizon`.
        bias: what a window of the last `example_gradients.windows(T)` steps leaves out of the
            gradient, relative, `(J, B)`.

    A lag is counted from what the loss reads. So horizon and bias need one that reads the last step
    alone; for any other they are those of random cotangents, whose own curves are

        random_adjoint, random_contribution: as above, None where those are the random ones.

    Along M watched examples and their last S steps; None where fewer than 2 steps are finite:

        exponents: leading Lyapunov exponents over the whole run, and their standard errors.
        bounds: per-step norms, products and what is certain about them, leaves `(S, M)`.
        spectrum: singular values of the whole-state Jacobians of some steps of the first watched
            example, `(K, n)`, largest first.
        paths: what carries ∂cₜ/∂cₖ, leaves `(S, M)`; None for a cell without a read-out.

    weights: what the weights alone say; None for gated cells.
    gates: statistics of each gate by name; None for a cell that does not show them.
    """

    adjoint: Array
    contribution: Array
    gradient: Array
    horizon_10: Array
    horizon_1: Array
    bias: Array
    random_adjoint: Array | None
    random_contribution: Array | None
    exponents: Exponents | None
    bounds: TrajectoryBounds | None
    spectrum: Array | None
    paths: CellPaths | None
    weights: WeightBound | None
    gates: dict[str, GateStatistics] | None

    @property
    def adjoint_by_lag(self) -> Array:
        """Of the loss, if lags can be counted from what it reads, else of random cotangents."""
        return self.adjoint if self.random_adjoint is None else self.random_adjoint

    @property
    def contribution_by_lag(self) -> Array:
        """Likewise."""
        return self.contribution if self.random_contribution is None else self.random_contribution


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["layers", "lengths", "spans", "nonfinite", "source"],
    meta_fields=["names", "cell", "gates", "loss", "watched"],
)
@dataclasses.dataclass(frozen=True)
class GradientFlow:
    """How the gradients of a net flow back through time. Printed, a summary with advice.

    Fields:
        layers: a LayerFlow for each direction of each layer.
        lengths: of each example, up to the first non-finite step, `(B,)`.
        spans: steps since the last reset before that, `(B,)`: lengths where nothing is reset.
        nonfinite: that step, -1 where all is finite, `(B,)`.
        source: where it was seen: 0 the input, l for layers[l-1], -1 nowhere, `(B,)`.
        names: of the layers, such as "layer 2, reverse".
        cell: its name.
        gates: a `jaxrnn.traits.Gate` for each of its gates; empty for a bare step.
        loss: "last" for a loss that reads the last step alone, "steps" for any other, "random" for
            unit random cotangents.
        watched: the examples whose exponents, bounds, spectra and paths were taken, the longest, up
            to the length of the shortest of them; of a layer with a large state the first alone.
            With resets, one example along its longest stretch without any.
    """

    layers: tuple[LayerFlow, ...]
    lengths: Array
    spans: Array
    nonfinite: Array
    source: Array
    names: tuple[str, ...]
    cell: str
    gates: tuple[Gate, ...]
    loss: str
    watched: tuple[int, ...]

    @property
    def advice(self) -> tuple[Advice, ...]:
        """What to do, each with the measurement behind it; never empty."""
        return advise(self)

    def summary(self) -> dict[str, Any]:
        """The figures that matter, as plain numbers: the tables of the report and its JSON."""
        return summarise(self)

    def __str__(self) -> str:
        """A table of the layers and the advice."""
        return printing.text(self)

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        return printing.html(self)
