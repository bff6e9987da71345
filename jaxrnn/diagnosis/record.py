"""What a diagnosis has measured, as arrays."""

import dataclasses
from typing import NamedTuple

from jax import Array

from jaxrnn.analysis.certificates import TrajectoryBounds, WeightBound
from jaxrnn.analysis.gate_statistics import GateStatistics
from jaxrnn.analysis.lyapunov import Exponents
from jaxrnn.analysis.paths import CellPaths
from jaxrnn.cells.traits import Gate

__all__ = ["LayerFlow", "Reading", "Record"]


class Reading(NamedTuple):
    """What reaches the inputs from one end at which the net is read; all logs are natural.

    A net is read at its last step, and if its last layer has two directions also at the first step,
    where the backward direction ends. The time of a reading begins at the other end.

    Attributes:
      inputs: log ‖∂E/∂xₖ‖, `(T, B)`.
      horizon_10, horizon_1: The lag from which on no ‖∂E/∂xₖ‖ exceeds 10 % and 1 % of the largest
        in the nearest tenth of the sequence, `(B,)`. At one step by itself, the last, a saturated
        gate may let next to nothing through.
    """

    inputs: Array
    horizon_10: Array
    horizon_1: Array


class LayerFlow(NamedTuple):
    """What was measured of one direction of one layer, in its own time; all logs are natural.

    E is the loss. Without one it is a unit random cotangent on the last output of the net, at each
    end that is read, and norms are means over the draws. Adjoints and contributions are those of
    the whole net: what the layers above pass down is in them.

    A lag is counted from the step that the loss reads. So `bias` needs a loss that reads the last
    step alone. For any other loss it comes from random cotangents, and the curves of these are in
    `random_adjoint` and `random_contribution`.

    What a layer remembers by itself is told by random cotangents on its own last output: that is
    `own_adjoint`, `own_contribution` and the horizons. Of the last layer they are those of E.

    `exponents` to `paths` are measured along M watched examples, `bounds` and `paths` over the last
    S steps of these. They are None, and so is `weights`, if fewer than 2 steps are finite.

    Attributes:
      adjoint: log ‖∂E/∂sₖ‖ of the whole state, `(T, B)`.
      contribution: log ‖∂E/∂θ|ₖ‖ over all leaves of θ, `(T, B)`.
      gradient: log ‖∂E/∂θ‖, `(B,)`.
      bias: The share of the gradient that a window of the last K steps leaves out, `(J, B)`, for
        each K of `example_gradients.windows(T)`.
      random_adjoint: As `adjoint`, of random cotangents; None if `adjoint` is already that, and
        for a loss that reads the last step alone.
      random_contribution: As `contribution`, likewise.
      own_adjoint: As `adjoint`, of cotangents on this layer's own output; None for the last layer.
      own_contribution: As `contribution`, likewise.
      horizon_10, horizon_1: The lag from which on no contribution of the layer's own memory exceeds
        10 % and 1 % of that at lag 0, `(B,)`; see `jaxrnn.memory_horizon`.
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
    bias: Array
    random_adjoint: Array | None
    random_contribution: Array | None
    own_adjoint: Array | None
    own_contribution: Array | None
    horizon_10: Array
    horizon_1: Array
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

    @property
    def own_adjoint_by_lag(self) -> Array:
        """The adjoint of the layer's own memory."""
        return self.adjoint_by_lag if self.own_adjoint is None else self.own_adjoint

    @property
    def own_contribution_by_lag(self) -> Array:
        """The contributions of the layer's own memory."""
        return self.contribution_by_lag if self.own_contribution is None else self.own_contribution


@dataclasses.dataclass(frozen=True)
class Record:
    """What was measured of a net.

    Attributes:
      net: A Reading for each end at which the net is read.
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
      threshold: The share of a sequence that a gradient has to reach.
    """

    net: tuple[Reading, ...]
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
    threshold: float

    @property
    def depth(self) -> int:
        """How many layers there are."""
        return len({name.split(",")[0] for name in self.names})

    @property
    def ends(self) -> tuple[str, ...]:
        """Where the net is read, a name for each reading."""
        return ("at the end", "at the start")[: len(self.net)]
