"""Any step function as a cell; its linearisation comes from `jax.jvp`.

Layer norm, peepholes through a matrix, a reset before the matmul, a framework's
own cell: what does not split into two projections and a pointwise map enters here.
The linearisation point (sᵢ₋₁, xᵢ) takes the place of the closed form's coefficients.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from chex import ArrayTree
from jax import Array

from jaxrnn import _checks
from jaxrnn.cells.contract import (
    Coefficients,
    Drive,
    Jacobian,
    Params,
    State,
    Stepper,
    over_leading_axes,
)
from jaxrnn.cells.traits import Traits
from jaxrnn.numerics import norms

__all__ = ["StepCell", "from_step"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class StepCell:
    """A cell around `step(params, state, x) -> state`, written for one example.

    Fields:
        apply: the step; x `(D,)`, state leaves without batch axes.
        init_params: (key, input_size, hidden_size, *, dtype, …) ↦ params, or None.
        init_example: params ↦ the state before the first input, for one example, or None.
        jacobian: (params, state, x) ↦ ∂s/∂s₋ written by hand for one example, or None.
        name: for tables.
    """

    apply: Callable[[Any, Any, Array], Any]
    init_params: Callable[..., Any] | None = None
    init_example: Callable[[Any], Any] | None = None
    jacobian: Callable[[Any, Any, Array], Any] | None = None
    name: str = "step"

    @property
    def gates(self) -> tuple[str, ...]:
        """Unknown for a bare step."""
        return ()

    @property
    def init(self) -> Callable[..., Any]:
        """The given initialiser. Raises ValueError if the cell was made without one."""
        if self.init_params is None:
            raise ValueError(
                f"init: cell '{self.name}' was made without an initialiser; "
                "pass from_step(step, init=...) or bring your own params"
            )
        return self.init_params

    # --- checks -------------------------------------------------------------------

    def check_params(self, params: Params) -> None:
        """Raise TypeError unless every leaf is a real floating array."""
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            _checks.check_array("params" + jax.tree_util.keystr(path), leaf)

    def check_input(self, params: Params, x: Any, name: str = "x") -> None:
        """Raise unless x is a real floating array `(*lead, D)`."""
        _checks.check_array(name, x)
        if x.ndim == 0:
            raise ValueError(f"{name}: expected shape (*lead, D), got a scalar")

    def check_state(self, params: Params, state: State, x: Any, name: str = "state") -> None:
        """Raise unless the leading axes are those of x and the step gives back a like state."""
        lead = x.shape[:-1]
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            leaf_name = name + jax.tree_util.keystr(path)
            _checks.check_array(leaf_name, leaf)
            _checks.check_lead(leaf_name, leaf.shape[: len(lead)], x)

        def example(leaf: Array) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape[len(lead) :], leaf.dtype)

        given = jax.tree.map(example, state)
        got = self._stepped(params, given, jax.ShapeDtypeStruct(x.shape[-1:], x.dtype))
        _checks.check_tree("step's result", got, given, name)

    def _stepped(self, params: Params, state: State, x: Any) -> State:
        """The shapes that the step gives; what it refuses is told with what it was given."""
        try:
            return jax.eval_shape(self.apply, params, state, x)
        except (TypeError, ValueError) as error:
            params, state = (
                jax.tree.map(_checks.describe, tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))
                for tree in (params, state)
            )
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(
                f"step: expected a function that takes params {params}, state {state} and x "
                f"{_checks.describe(x)} of one example, got an error from '{self.name}': {error}"
            ) from error

    # --- the step -----------------------------------------------------------------

    def init_state(self, params: Params, batch_shape: tuple[int, ...] = ()) -> State:
        """The given initial state repeated over the batch.

        Raises: ValueError if the cell was made without one.
        """
        if self.init_example is None:
            raise ValueError(
                f"state0: cell '{self.name}' was made without an initial state; "
                "pass state0=..., or from_step(step, init_state=...)"
            )
        self.check_params(params)
        _checks.check_batch_shape(batch_shape)
        example = self.init_example(params)
        for path, leaf in jax.tree_util.tree_leaves_with_path(example):
            _checks.check_array("init_state's result" + jax.tree_util.keystr(path), leaf)
        return jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (*batch_shape, *leaf.shape)), example
        )

    def step(self, params: Params, state: State, x: Array) -> State:
        """The step mapped over the leading axes of `x (*lead, D)`, arguments checked."""
        self.check_params(params)
        self.check_input(params, x)
        self.check_state(params, state, x)
        return self.update(params, state, x)

    def project(self, params: Params, xs: Array) -> Array:
        """The input itself: nothing can be taken out of the step."""
        return xs

    def update(self, params: Params, state: State, u: Array) -> State:
        """The step, mapped over the leading axes."""
        return over_leading_axes(self.apply, u.ndim - 1, (None, 0, 0))(params, state, u)

    # --- its linearisation ----------------------------------------------------------

    @property
    def traits(self) -> Traits:
        """None: of a bare step nothing is known."""
        return Traits()

    def pulled_apart(self, partials: Coefficients, adjoint: State) -> tuple[Any, tuple[Array, ...]]:
        """Refused: a bare step has no gates to tell apart."""
        raise TypeError(f"cell: expected one with gates, got {self.name}")

    @property
    def closed_form(self) -> bool:
        """False: `drive` and `push` differentiate the step."""
        return False

    def stepper(self, params: Params) -> Stepper:
        """The step as it is: nothing can be taken out of it."""
        return Stepper(lambda xs: xs, lambda state, x: (self.update(params, state, x), None))

    def partials(self, params: Params, state: State, u: Array, a: Any = None) -> Coefficients:
        """The point at which to linearise."""
        return state, u

    def drive(
        self,
        params: Params,
        partials: Coefficients,
        state: State,
        x: Array,
        dparams: Params | None,
        dx: Array | None,
    ) -> Any:
        """∂s/∂θ δθ + ∂s/∂x δx; None is zero."""
        dparams = jax.tree.map(jnp.zeros_like, params) if dparams is None else dparams
        dx = jnp.zeros_like(x) if dx is None else dx
        return jax.jvp(lambda p, x: self.update(p, state, x), (params, x), (dparams, dx))[1]

    def push(self, params: Params, partials: Coefficients, dstate: State, drive: Drive) -> State:
        """∂s/∂s₋ δs₋ + drive. One step's cost."""
        state, x = partials
        pushed = jax.jvp(lambda s: self.update(params, s, x), (state,), (dstate,))[1]
        return jax.tree.map(jnp.add, pushed, drive)

    def drive_parts(self, partials: Coefficients, adjoint: State) -> Drive:
        """The adjoint itself."""
        return adjoint

    def contribution_sizes(
        self, params: Params, parts: Any, states: State, xs: Array, direction: ArrayTree
    ) -> tuple[ArrayTree, ArrayTree]:
        """‖Cₖ‖ and ⟨Cₖ, direction⟩ of Cₖ = (∂sₖ/∂θ)ᵀ parts[k], leaf by leaf.

        Returns: (norms, inner products), two trees of the params with leaves `(T,)`.
        Cost:    one reverse step and O(P) for each k, one after the other.
        """

        def measure(step: tuple[Any, Array, Any]) -> tuple[ArrayTree, ArrayTree]:
            state, x, adjoint = step
            _, pull = jax.vjp(lambda p: self.update(p, state, x), params)
            (each,) = pull(adjoint)
            sizes = jax.tree.map(norms.norm_and_inner, each, direction)
            return jax.tree.transpose(jax.tree.structure(each), jax.tree.structure((0, 0)), sizes)

        return jax.lax.map(measure, (states, xs, parts))

    def state_jacobian(self, params: Params, state: State, x: Array) -> Jacobian:
        """The hand-written `jacobian` where there is one, else `jax.jacfwd` of the step."""
        by_autodiff = jax.jacfwd(self.apply, argnums=1)
        f = self.jacobian or by_autodiff
        J = over_leading_axes(f, x.ndim - 1, (None, 0, 0))(params, state, x)
        if self.jacobian is not None:
            like = over_leading_axes(by_autodiff, x.ndim - 1, (None, 0, 0))
            expected = jax.eval_shape(like, params, state, x)
            _checks.check_tree("jacobian's result", J, expected, "jax.jacfwd of the step")
        return J

    def input_jacobian(self, params: Params, state: State, x: Array) -> Jacobian:
        """`jax.jacfwd` of the step in x."""
        f = jax.jacfwd(self.apply, argnums=2)
        return over_leading_axes(f, x.ndim - 1, (None, 0, 0))(params, state, x)

    def param_jacobian(self, params: Params, state: State, x: Array) -> Jacobian:
        """`jax.jacrev` of the step in θ."""
        f = jax.jacrev(self.apply, argnums=0)
        return over_leading_axes(f, x.ndim - 1, (None, 0, 0))(params, state, x)


def from_step(
    step: Callable[[Any, Any, Array], Any],
    *,
    init: Callable[..., Any] | None = None,
    init_state: Callable[[Any], Any] | None = None,
    jacobian: Callable[[Any, Any, Array], Any] | None = None,
    name: str | None = None,
) -> StepCell:
    """A cell from a pure step function written for one example.

        sᵢ = step(params, sᵢ₋₁, xᵢ)        x (D,), state leaves without batch axes

    Batch axes are added with `jax.vmap`; derivatives come from `jax.jvp`.

    Args:
        step: the pure function; returns a state like the one it takes.
        init: (key, input_size, hidden_size, *, dtype=None) ↦ params.
        init_state: params ↦ the initial state of one example.
        jacobian: your own ∂s/∂s₋ with the tree of `jax.jacfwd(step, argnums=1)`, used by
            `jacobians.closed_form` and held against the references by `verify`.
        name: for tables; by default the name of `step`.
    Returns: a cell. Equal arguments give equal cells.
    Raises:  TypeError if an argument is not callable or not hashable; later, where the step
             refuses the shapes it is given, TypeError or ValueError that names them.
    Cost:    ∂s/∂s₋ takes one tangent step for each state entry.
    Source:  this library; derivatives are `jax.jvp`'s.

    >>> import jax.numpy as jnp, jaxrnn
    >>> def leaky(params, state, x):
    ...     return {"h": 0.9 * state["h"] + jnp.tanh(params @ x)}
    >>> cell = jaxrnn.from_step(leaky, init_state=lambda p: {"h": jnp.zeros(p.shape[0])})
    >>> run = jaxrnn.Run(cell, jnp.ones((2, 1)), jnp.ones((4, 1)))
    >>> jaxrnn.jacobians.closed_form(run)["h"]["h"].shape
    (4, 2, 2)
    """
    _checks.check_callable("step", step, "(params, state, x) -> state")
    _check_hashable("step", step)
    for label, f in (("init", init), ("init_state", init_state), ("jacobian", jacobian)):
        if f is not None:
            _checks.check_callable(label, f, "or None")
            _check_hashable(label, f)
    return StepCell(step, init, init_state, jacobian, name or getattr(step, "__name__", "step"))


def _check_hashable(name: str, value: Any) -> None:
    """Refuse a function that cannot be the key of a compiled program."""
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"{name}: expected a hashable function, got {_checks.describe(value)}; "
            "pass arrays through params instead of keeping them inside it"
        ) from None
