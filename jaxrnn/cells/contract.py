"""The contract that every recurrent cell keeps, and that every algorithm relies on.

A cell maps a state and an input to the next state,

    sᵢ = step(θ, sᵢ₋₁, xᵢ)

and knows its own linearisation. Algorithms take a `Cell` and ask it only what is told here. Two
classes keep the contract: `PointwiseCell`, with a closed form (rnn, lstm, gru), and `StepCell`, for
any step function, whose linearisation `jax.jvp` makes.

Index convention: a derivative has the tree of `jax.jacfwd`. `J.h.c[..., j, k]` is ∂h[j]/∂c[k]: the
first name and index are those of the output, the second those of the input.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
from chex import ArrayTree
from jax import Array

from jaxrnn.cells.traits import Traits

__all__ = [
    "Cell",
    "Coefficients",
    "Drive",
    "Jacobian",
    "Loss",
    "Params",
    "State",
    "Stepper",
    "over_leading_axes",
]

# Each cell has its own trees, so their types are Any; these names say which tree is meant.
Params: TypeAlias = Any  # what `init` gives
State: TypeAlias = Any  # has a leaf `.h`, the output; also adjoints and tangents of one, and stacks
Coefficients: TypeAlias = Any  # of Jᵢ, what `partials` gives
Drive: TypeAlias = Any  # what enters a tangent from params and input
Jacobian: TypeAlias = Any  # a tree of the output whose leaves are trees of the input, as `jacfwd`'s
Loss: TypeAlias = Callable[[State], Array]  # states ↦ one real scalar


class Stepper(NamedTuple):
    """A cell's step taken apart for a scan.

    Attributes:
      prepare: xs `(T, *batch, D)` ↦ a tree to scan over, with a leading axis T.
      step: (sᵢ₋₁, an entry of that tree) ↦ (sᵢ, aᵢ). `partials` may reuse aᵢ.
    """

    prepare: Callable[[Array], Any]
    step: Callable[[Any, Any], tuple[Any, Any]]


class Cell(Protocol):
    """What an algorithm may ask of a cell. `*lead` stands for any leading axes, time included.

    Params and states are pytrees. Every state has a leaf `.h`, the output. Leaves of a state that
    are no real floats, such as PRNG keys and counters, have no tangents: derivatives have None in
    their place. A step is split in two,
    so that work that does not wait for the state is done before the scan:
    `step(θ, s, x) = update(θ, s, project(θ, x))`.

    Its linearisation is split too,

        δsᵢ = Jᵢ δsᵢ₋₁ + dᵢ

    `partials` are the coefficients of Jᵢ. `drive` is dᵢ, what enters from the parameters and the
    input. Both can be formed for all steps at once.
    """

    @property
    def name(self) -> str:
        """A short name for tables."""
        ...

    @property
    def gates(self) -> tuple[str, ...]:
        """Names of the gate blocks in the order of the rows of W; empty for a bare step."""
        ...

    @property
    def traits(self) -> Traits:
        """What an algorithm may want to know."""
        ...

    @property
    def init(self) -> Callable[..., Any]:
        """Draws params: `init(key, input_size, hidden_size, *, dtype=None, …)`."""
        ...

    def init_state(self, params: Params, batch_shape: tuple[int, ...] = ()) -> State:
        """The state before the first input, leaves `(*batch_shape, H)`."""
        ...

    def step(self, params: Params, state: State, x: Array) -> State:
        """The next state, after a check of the arguments; x `(*lead, D)`."""
        ...

    def check_params(self, params: Params) -> None:
        """Raise TypeError or ValueError unless `params` belong to this cell."""
        ...

    def check_sequence(self, params: Params, xs: Any) -> Any:
        """Raise unless xs `(T, *batch, …)` fits checked params; an array with its leading axes."""
        ...

    def leading_axes(self, x: Any) -> tuple[int, ...]:
        """`lead` of a checked input x: `(T, *batch)` of a sequence."""
        ...

    def check_input(self, params: Params, x: Any, name: str = "x") -> None:
        """Raise unless x `(*lead, D)` fits checked params."""
        ...

    def check_state(self, params: Params, state: State, x: Any, name: str = "state") -> None:
        """Raise unless `state` fits checked params and has the leading axes of `x`."""
        ...

    def project(self, params: Params, xs: Array) -> Array:
        """uᵢ: the part of a step that needs no state; xs `(*lead, D)`."""
        ...

    def update(self, params: Params, state: State, u: Array) -> State:
        """The rest of the step, unchecked: sᵢ from sᵢ₋₁ and uᵢ."""
        ...

    def stepper(self, params: Params) -> "Stepper":
        """The step for a scan: weights are laid out once, and many inputs projected at once."""
        ...

    @property
    def closed_form(self) -> bool:
        """Whether `drive` and `push` are closed forms, so that `unroll` differentiates by them."""
        ...

    def partials(self, params: Params, state: State, u: Array, a: Any = None) -> Coefficients:
        """Coefficients of Jᵢ at (sᵢ₋₁, uᵢ), a tree of arrays with the axes `*lead`.

        `a` is what the stepper gave for this step, if it is at hand.
        """
        ...

    def drive(
        self,
        params: Params,
        partials: Coefficients,
        state: State,
        x: Array,
        dparams: Params | None,
        dx: Array | None,
    ) -> Any:
        """What enters at fixed sᵢ₋₁ from δθ and δx; linear in both. None stands for zero."""
        ...

    def push(self, params: Params, partials: Coefficients, dstate: State, drive: Drive) -> State:
        """δsᵢ = Jᵢ δsᵢ₋₁ + dᵢ, linear in (dstate, drive)."""
        ...

    def pulled_apart(self, partials: Coefficients, adjoint: State) -> tuple[Any, tuple[Array, ...]]:
        """Jᵀ λ in parts: what passes without a weight, and what enters each gate's rows of W_hh.

        Only cells with a `Traits.readout` need it.
        """
        ...

    def drive_parts(self, partials: Coefficients, adjoint: State) -> Drive:
        """What `contribution_sizes` needs of an adjoint of dᵢ."""
        ...

    def contribution_sizes(
        self, params: Params, parts: Any, states: State, xs: Array, direction: ArrayTree
    ) -> tuple[ArrayTree, ArrayTree]:
        """‖Cₖ‖ and ⟨Cₖ, direction⟩ of Cₖ = (∂dₖ/∂δθ)ᵀ λₖ, leaf by leaf.

        `parts` are the `drive_parts` of λₖ, an adjoint of dₖ. The first axis of all arrays is time;
        Cₖ sums over the batch. Returns two trees of the params with leaves `(T,)`. Cₖ is never in
        memory for all k.
        """
        ...

    def state_jacobian(self, params: Params, state: State, x: Array) -> Jacobian:
        """∂sᵢ/∂sᵢ₋₁, the tree of `jax.jacfwd(step, argnums=1)`, leaves `(*lead, H, H)`."""
        ...

    def input_jacobian(self, params: Params, state: State, x: Array) -> Jacobian:
        """∂sᵢ/∂xᵢ, the tree of `jax.jacfwd(step, argnums=2)`, leaves `(*lead, H, D)`."""
        ...

    def param_jacobian(self, params: Params, state: State, x: Array) -> Jacobian:
        """∂sᵢ/∂θ at fixed sᵢ₋₁, the tree of `jax.jacfwd(step)`, leaves `(*lead, H, *leaf)`."""
        ...


def over_leading_axes(f: Callable[..., Any], count: int, in_axes: Any = 0) -> Callable[..., Any]:
    """`f` mapped over `count` leading axes of the arguments whose entry in `in_axes` is 0."""
    for _ in range(count):
        f = jax.vmap(f, in_axes=in_axes)
    return f
