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
    """What was measured of one direction of one layer, in its own time; all logs are natural.

    `adjoint` to `bias` are of each of the B examples, from the loss or, without a loss, from unit
    random cotangents on the last output.

    A lag is counted from the step that the loss reads. So horizons and bias need a loss that reads
    the last step alone. For any other loss they come from random cotangents, and the curves of
    these are in `random_adjoint` and `random_contribution`.

    `exponents` to `paths` are measured along M watched examples, `bounds` and `paths` over the last
    S steps of these. They are None, and so is `weights`, if fewer than 2 steps are finite.

    Attributes:
      adjoint: log ‖∂E/∂sₖ‖ of the whole state, `(T, B)`.
      contribution: log ‖∂E/∂θ|ₖ‖ over all leaves of θ, `(T, B)`.
      gradient: log ‖∂E/∂θ‖, `(B,)`.
      horizon_10, horizon_1: The lag from which on no contribution exceeds 10 % and 1 % of that at
        lag 0, `(B,)`; see `jaxrnn.memory_horizon`.
      bias: The share of the gradient that a window of the last K steps leaves out, `(J, B)`, for
        each K of `example_gradients.windows(T)`.
      random_adjoint: As `adjoint`, of random cotangents; None if `adjoint` is already that, and
        for a loss that reads the last step alone.
      random_contribution: As `contribution`, likewise.
      exponents: The leading Lyapunov exponents over the whole run and their standard errors.
      bounds: Norms of each step and of products, and what is certain about them, leaves `(S, M)`.
      spectrum: Singular values of the whole-state Jacobians at some steps of the first watched
        example, `(K, n)`, largest first.
      paths: What carries ∂cₜ/∂cₖ, leaves `(S, M)`; None for a cell without a read-out.
      weights: What the weights alone say about any input; None for gated cells.
      gates: Statistics of each gate by name; None for a cell that does not show its gates.
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
        """`adjoint` if lags can be counted from what the loss reads, else `random_adjoint`."""
        return self.adjoint if self.random_adjoint is None else self.random_adjoint

    @property
    def contribution_by_lag(self) -> Array:
        """The contributions, chosen as in `adjoint_by_lag`."""
        return self.contribution if self.random_contribution is None else self.random_contribution


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["layers", "lengths", "spans", "nonfinite", "source"],
    meta_fields=["names", "cell", "gates", "loss", "watched"],
)
@dataclasses.dataclass(frozen=True)
class GradientFlow:
    """How the gradients of a net flow back through time. Printed, it is a summary with advice.

    Attributes:
      layers: A LayerFlow for each direction of each layer.
      lengths: The length of each example up to its first NaN or inf, `(B,)`.
      spans: How many of these steps follow the last reset, `(B,)`; `lengths` if there is none.
      nonfinite: The step of the first NaN or inf, `(B,)`; -1 if all is finite.
      source: Where it was seen, `(B,)`: 0 for the input, l for layers[l-1], -1 for nowhere.
      names: The names of the layers, such as "layer 2, reverse".
      cell: The name of the cell.
      gates: A `jaxrnn.traits.Gate` for each gate of the cell; empty for a bare step.
      loss: "last" for a loss that reads the last step alone, "steps" for any other, "random" for
        unit random cotangents.
      watched: The numbers of the examples whose exponents, bounds, spectra and paths were taken:
        the longest ones, cut to the length of the shortest of them. Of a layer with a large state
        the first ones of them alone. With resets it is one example, along its longest stretch
        without a reset.
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
        """What to do, each piece with the measurement behind it; never empty."""
        return advise(self)

    def summary(self) -> dict[str, Any]:
        """The figures that matter, as plain numbers: the tables and the JSON of the report."""
        return summarise(self)

    def __str__(self) -> str:
        """A table of the layers and the advice."""
        return printing.text(self)

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        return printing.table_html(self)
