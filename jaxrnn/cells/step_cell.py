"""Any step function as a cell; its linearisation comes from `jax.jvp`.

This is for steps that do not split into two projections and a pointwise map: layer norm, peepholes
through a matrix, a reset before the matmul, the cell of another framework. The linearisation point
(sᵢ₋₁, xᵢ) takes the place of the coefficients of a closed form.
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
from jaxrnn.cells.input_axes import VECTOR, InputAxes, check_vector
from jaxrnn.cells.input_axes import input_axes as axes_of
from jaxrnn.cells.traits import Traits
from jaxrnn.numerics import norms, tangents
from jaxrnn.numerics.tangents import moving, whole

__all__ = ["StepCell", "from_step"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class StepCell:
    """A cell around `step(params, state, x) -> state`, written for one example.

    Attributes:
      apply: The step; x `(D,)`, state leaves without batch axes.
      init_params: (key, input_size, hidden_size, *, dtype, …) ↦ params, or None.
      init_example: params ↦ the state before the first input, for one example, or None.
      jacobian: (params, state, x) ↦ ∂s/∂s₋ written by hand for one example, or None.
      name: For tables.
      input_axes: How many axes an example's input has, leaf by leaf; None for `(D,)` real floats.
    """

    apply: Callable[[Any, Any, Array], Any]
    init_params: Callable[..., Any] | None = None
    init_example: Callable[[Any], Any] | None = None
    jacobian: Callable[[Any, Any, Array], Any] | None = None
    name: str = "step"
    input_axes: InputAxes | None = None

    @property
    def gates(self) -> tuple[str, ...]:
        """Empty: the gates of a bare step are not known."""
        return ()

    @property
    def init(self) -> Callable[..., Any]:
        """The given initialiser.

        Raises:
          ValueError: If the cell was made without one.
        """
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

    def leading_axes(self, x: Any) -> tuple[int, ...]:
        """The axes before those of one example."""
        return (self.input_axes or VECTOR).lead(x)

    def check_sequence(self, params: Params, xs: Any) -> Any:
        """Raise unless every leaf of xs is `(T, *batch, …)`; an array with their leading axes."""
        if self.input_axes is None:
            check_vector("xs", xs)
            _checks.check_sequence("xs", xs)
            return xs
        self.check_input(params, xs, "xs")
        lead = self.leading_axes(xs)
        if not lead:
            raise ValueError(
                "xs: expected a time axis and batch axes before those of one example, got "
                f"{jax.tree.map(_checks.describe, xs)}"
            )
        return jax.ShapeDtypeStruct((*lead, 1), jnp.float32)

    def check_input(self, params: Params, x: Any, name: str = "x") -> None:
        """Raise unless x is `(*lead, D)` of real floats, or what `input_axes` says."""
        if self.input_axes is not None:
            self.input_axes.check(x, name)
            return
        check_vector(name, x)
        _checks.check_array(name, x)
        if x.ndim == 0:
            raise ValueError(f"{name}: expected shape (*lead, D), got a scalar")

    def check_state(self, params: Params, state: State, x: Any, name: str = "state") -> None:
        """Raise unless the leading axes are those of x and the step returns a state of its form."""
        lead = self.leading_axes(x)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            leaf_name = name + jax.tree_util.keystr(path)
            _checks.check_array(leaf_name, leaf, kind=None)
            if tangents.is_key(leaf) and leaf.shape[: len(lead)] != lead:
                raise ValueError(
                    f"{leaf_name}: expected a key for each example, {lead}, got "
                    f"{tuple(leaf.shape)}; jax.random.split(key, {lead}) makes them"
                )
            _checks.check_lead(leaf_name, leaf.shape[: len(lead)], lead, x)

        def example(leaf: Array) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape[len(lead) :], leaf.dtype)

        given = jax.tree.map(example, state)
        self._check_kinds(params, state, name)
        got = self._stepped(params, given, jax.tree.map(example, x))
        _checks.check_tree("step's result", got, given, name, kind=None)

    def _check_kinds(self, params: Params, state: State, name: str) -> None:
        """Refuse a leaf without tangents where `init_state` has none of that kind.

        Integers in place of floats would make a state that no gradient reaches, without a word.
        """
        own: Any = None if self.init_example is None else jax.eval_shape(self.init_example, params)
        same = jax.tree.structure(own) == jax.tree.structure(state)
        if own is not None and not same:
            want, came = (_checks.form(tree) for tree in (own, state))
            raise TypeError(f"{name}: expected {want}, as init_state gives, got {came}")
        paths = jax.tree_util.tree_leaves_with_path(state)
        for k, (path, leaf) in enumerate(paths):
            mine = jax.tree.leaves(own)[k] if same else None
            leaf_name = name + jax.tree_util.keystr(path)
            if mine is None or tangents.has_tangent(mine):
                _checks.check_array(leaf_name, leaf)
            elif leaf.dtype != mine.dtype:
                key = "a PRNG key, as jax.random.key makes"
                want = key if tangents.is_key(mine) else jnp.dtype(mine.dtype).name
                raise TypeError(
                    f"{leaf_name}: expected {want}, as init_state gives, got "
                    f"{_checks.describe(leaf)}"
                )

    def _stepped(self, params: Params, state: State, x: Any) -> State:
        """The shapes that the step returns; if it fails, the error says what it was given."""
        try:
            return jax.eval_shape(self.apply, params, state, x)
        except (TypeError, ValueError) as error:
            params, state = (
                jax.tree.map(_checks.describe, tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))
                for tree in (params, state)
            )
            # JAX's errors are subclasses, some with a constructor of their own: the base is raised.
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(
                f"step: expected a function that takes params {params}, state {state} and x "
                f"{_checks.describe(x)} of one example, got an error from '{self.name}': {error}"
            ) from error

    # --- the step -----------------------------------------------------------------

    def init_state(self, params: Params, batch_shape: tuple[int, ...] = ()) -> State:
        """The given initial state, repeated over the batch; a key is split for its examples.

        Args:
          params: The params of the cell.
          batch_shape: The sizes of the batch axes.

        Returns:
          The state, each leaf with `batch_shape` before its own axes.

        Raises:
          TypeError: If a leaf of the params is no real floating array, a leaf of the state no
            array, or `batch_shape` no tuple of integers.
          ValueError: If the cell was made without an initial state, or a size is below 0.
        """
        if self.init_example is None:
            raise ValueError(
                f"state0: cell '{self.name}' was made without an initial state; "
                "pass state0=..., or from_step(step, init_state=...)"
            )
        self.check_params(params)
        _checks.check_batch_shape(batch_shape)
        example = self.init_example(params)
        named = [("init_state's result" + jax.tree_util.keystr(path), leaf)
                 for path, leaf in jax.tree_util.tree_leaves_with_path(example)]  # fmt: skip
        for label, leaf in named:
            _checks.check_array(label, leaf, kind=None)
        # Of a state in which nothing has a tangent, the first leaf is meant to have one.
        if named and not jax.tree.leaves(moving(example)):
            _checks.check_array(*named[0])

        def repeated(leaf: Array) -> Array:
            # One key for a whole batch would drop the same units of every example.
            if tangents.is_key(leaf) and batch_shape:
                keys = over_leading_axes(lambda k: jax.random.split(k, batch_shape), leaf.ndim)
                return jnp.moveaxis(keys(leaf), range(leaf.ndim), range(-leaf.ndim, 0))
            return jnp.broadcast_to(leaf, (*batch_shape, *leaf.shape))

        return jax.tree.map(repeated, example)

    def step(self, params: Params, state: State, x: Array) -> State:
        """The step mapped over the leading axes of x, after a check of the arguments."""
        self.check_params(params)
        self.check_input(params, x)
        self.check_state(params, state, x)
        return self.update(params, state, x)

    def project(self, params: Params, xs: Array) -> Array:
        """The input itself, since no part of a bare step is known to do without the state."""
        return xs

    def update(self, params: Params, state: State, u: Array) -> State:
        """The step, mapped over the leading axes."""
        return self._mapped(self.apply, u)(params, state, u)

    def _mapped(self, f: Callable[..., Any], x: Any) -> Callable[..., Any]:
        """f(params, state, x) of one example, over the leading axes of x."""
        return over_leading_axes(f, len(self.leading_axes(x)), (None, 0, 0))

    # --- its linearisation ----------------------------------------------------------

    @property
    def traits(self) -> Traits:
        """Empty: nothing is known of a bare step."""
        return Traits()

    def pulled_apart(self, partials: Coefficients, adjoint: State) -> tuple[Any, tuple[Array, ...]]:
        """Always a TypeError: a bare step has no gates."""
        raise TypeError(f"cell: expected a cell with gates, got {self.name}")

    @property
    def closed_form(self) -> bool:
        """False: `drive` and `push` differentiate the step."""
        return False

    def stepper(self, params: Params) -> Stepper:
        """The step as it is, with nothing done before the scan."""
        return Stepper(lambda xs: xs, lambda state, x: (self.update(params, state, x), None))

    def partials(self, params: Params, state: State, u: Array, a: Any = None) -> Coefficients:
        """The point at which to linearise."""
        return state, u

    def drive(
        self,
        params: Params,
        partials: Coefficients,
        state: State,
        x: Any,
        dparams: Params | None,
        dx: Any,
    ) -> Any:
        """∂s/∂θ δθ + ∂s/∂x δx; None stands for zero, also for a leaf of x without a tangent."""
        own = moving(x)
        dparams = jax.tree.map(jnp.zeros_like, params) if dparams is None else dparams
        dx = jax.tree.map(jnp.zeros_like, own) if dx is None else dx

        def step(params: Params, own: Any) -> State:
            return moving(self.update(params, state, whole(own, x)))

        return jax.jvp(step, (params, own), (dparams, dx))[1]

    def push(self, params: Params, partials: Coefficients, dstate: State, drive: Drive) -> State:
        """∂s/∂s₋ δs₋ + drive, at the cost of one step."""
        state, x = partials

        def step(own: State) -> State:
            return moving(self.update(params, whole(own, state), x))

        pushed = jax.jvp(step, (moving(state),), (dstate,))[1]
        return jax.tree.map(jnp.add, pushed, drive)

    def drive_parts(self, partials: Coefficients, adjoint: State) -> Drive:
        """The adjoint itself: a bare step has no parts."""
        return adjoint

    def contribution_sizes(
        self, params: Params, parts: Any, states: State, xs: Array, direction: ArrayTree
    ) -> tuple[ArrayTree, ArrayTree]:
        """‖Cₖ‖ and ⟨Cₖ, direction⟩ of Cₖ = (∂sₖ/∂θ)ᵀ parts[k], leaf by leaf.

        Args:
          params: The params of the cell.
          parts: Adjoints of the states, leaves `(T, *batch, ·)`.
          states: The state before each step, leaves `(T, *batch, ·)`.
          xs: Inputs, `(T, *batch, D)`.
          direction: What the inner products are taken with, a tree of the params.

        Returns:
          (norms, inner products), two trees of the params with leaves `(T,)`.

        Cost:
          One reverse step and O(P) for each k, one k after the other.
        """

        def measure(step: tuple[Any, Array, Any]) -> tuple[ArrayTree, ArrayTree]:
            state, x, adjoint = step
            _, pull = jax.vjp(lambda p: moving(self.update(p, state, x)), params)
            (each,) = pull(adjoint)
            sizes = jax.tree.map(norms.norm_and_inner, each, direction)
            return jax.tree.transpose(jax.tree.structure(each), jax.tree.structure((0, 0)), sizes)

        # One k at a time: Cₖ has the size of the params, and for all k there may be no memory.
        return jax.lax.map(measure, (states, xs, parts))

    def state_jacobian(self, params: Params, state: State, x: Any) -> Jacobian:
        """The hand-written `jacobian` if there is one, else `jax.jacfwd` of the step."""

        def by_autodiff(params: Params, state: State, x: Any) -> Jacobian:
            return jax.jacfwd(lambda own: moving(self.apply(params, whole(own, state), x)))(
                moving(state)
            )

        J = self._mapped(self.jacobian or by_autodiff, x)(params, state, x)
        if self.jacobian is not None:
            # A Jacobian with another tree than JAX's would be read wrongly, block by block.
            expected = jax.eval_shape(self._mapped(by_autodiff, x), params, state, x)
            _checks.check_tree("jacobian's result", J, expected, "jax.jacfwd of the step")
        return J

    def input_jacobian(self, params: Params, state: State, x: Any) -> Jacobian:
        """`jax.jacfwd` of the step in x."""
        if not jax.tree.leaves(moving(x)):
            raise TypeError(
                "xs: expected an input with a leaf of real floats, got "
                f"{jax.tree.map(_checks.describe, x)}"
            )

        def one(params: Params, state: State, x: Any) -> Jacobian:
            return jax.jacfwd(lambda own: moving(self.apply(params, state, whole(own, x))))(
                moving(x)
            )

        return self._mapped(one, x)(params, state, x)

    def param_jacobian(self, params: Params, state: State, x: Any) -> Jacobian:
        """`jax.jacrev` of the step in θ."""

        def one(params: Params, state: State, x: Any) -> Jacobian:
            return jax.jacrev(lambda p: moving(self.apply(p, state, x)))(params)

        return self._mapped(one, x)(params, state, x)


def from_step(
    step: Callable[[Any, Any, Array], Any],
    *,
    init: Callable[..., Any] | None = None,
    init_state: Callable[[Any], Any] | None = None,
    jacobian: Callable[[Any, Any, Array], Any] | None = None,
    name: str | None = None,
    input_axes: Any = None,
) -> StepCell:
    """A cell from a pure step function written for one example.

        sᵢ = step(params, sᵢ₋₁, xᵢ)        x (D,), state leaves without batch axes

    Batch axes are added with `jax.vmap`; derivatives come from `jax.jvp`. Leaves of the state may
    be of any dtype, PRNG keys among them, where `init_state` says so. Those that are no real floats
    have no tangents: derivatives have None in their place.

    Args:
      step: A pure function that returns a state of the same form as the one it takes.
      init: (key, input_size, hidden_size, *, dtype=None) ↦ params.
      init_state: params ↦ the initial state of one example.
      jacobian: Your own ∂s/∂s₋, with the tree of `jax.jacfwd(step, argnums=1)`. It is used by
        `jacobians.closed_form`, and `verify` compares it with the references.
      name: For tables. By default the name of `step`.
      input_axes: How many axes an example's input has: 1 for a vector, 0 for a token, 3 for an
        image with channels. A tree of such numbers for an input that is a tree, such as (1, 0) for
        (x, Δt). The input may then be of any dtype; by default it is a vector of real floats.

    Returns:
      A cell. Equal arguments give equal cells.

    Raises:
      TypeError: If an argument is not callable or not hashable, or `input_axes` no tree of
        integers. Later, if the step fails for the shapes it is given, a TypeError or ValueError
        says what these were.
      ValueError: If a number of axes is below 0.

    Cost:
      ∂s/∂s₋ takes one tangent step for each entry of the state.

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
    axes = None if input_axes is None else axes_of(input_axes)
    label = name or getattr(step, "__name__", "step")
    return StepCell(step, init, init_state, jacobian, label, axes)


def _check_hashable(name: str, value: Any) -> None:
    """Refuse a function that cannot be the key of a compiled program."""
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"{name}: expected a hashable function, got {_checks.describe(value)}; "
            "pass arrays through params instead of keeping them inside it"
        ) from None
