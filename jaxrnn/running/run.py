"""A cell, its params and what it reads: the one thing that every analysis is asked about."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import GetAttrKey

from jaxrnn import _checks
from jaxrnn.cells.contract import Cell, Params, State
from jaxrnn.running.unrolling import check, start, unroll

__all__ = ["Run", "analysis", "check_run", "check_vector_state", "first_state", "precise", "until"]

PARTS = ("params", "xs", "state0", "lengths", "resets")
Result = TypeVar("Result")


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A cell driven over a sequence: what goes in, not what comes out.

        sᵢ = step(θ, sᵢ₋₁, xᵢ)             i = 1 … T, s₀ = state0; xᵢ is xs[i-1]

    Every analysis takes one, as `jaxrnn.bptt.adjoints(run, loss)` does.
    A run holds no states, so the gradient of an analysis by the params is whole:

        jax.grad(lambda params: jaxrnn.regularizers.omega(run.at(params), loss))(run.params)

    `jax.grad` by a run itself is refused by JAX where lengths are integers or resets booleans;
    a closure over `run.at`, as above, says what is differentiated.

    Args:
        cell: any `Cell`.
        params: what `cell.init` gives.
        xs: inputs, time-major `(T, *batch, D)`, any number of batch axes.
        state0: state before the first input, leaves `(*batch, H)`; by default
            `cell.init_state(params, batch)`.
        lengths: integers `(*batch,)` in [0, T]; beyond one the state is held and xs is not read.
        resets: booleans `(T, *batch)`; True sets the state to `state0` before that step.

    Raises TypeError or ValueError naming the part that does not fit the others, also under `jit`,
    by shape alone there.

    A run is a pytree with the cell as its structure: it goes through `jax.jit`, `jax.vmap` and
    `jax.checkpoint` as an argument, and equal cells compile once. `vmap` over params is
    `jax.vmap(lambda params: f(run.at(params)))`, over a batch axis
    `jax.vmap(f, in_axes=(run.axes(xs=1),))(run)`.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> run
    Run(lstm, xs=float...[7, 2, 3])
    >>> run.states().h.shape
    (7, 2, 5)
    """

    cell: Cell
    params: Params
    xs: Array
    state0: State = None
    _: dataclasses.KW_ONLY
    lengths: Array | None = None
    resets: Array | None = None

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise TypeError or ValueError unless the parts fit; nothing is computed."""
        check(self.cell, self.params, self.xs, self.state0, self.lengths, self.resets)

    def at(self, params: Params) -> "Run":
        """The same run with other params, which are checked."""
        return dataclasses.replace(self, params=params)

    def axes(self, **axes: Any) -> "Run":
        """For `in_axes` of `jax.vmap`: the axis of each named part that is mapped, None for others.

        Raises: TypeError for a name that is none of params, xs, state0, lengths and resets.

        >>> import jax, jaxrnn
        >>> cell = jaxrnn.gru()
        >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
        >>> jax.vmap(jaxrnn.jacobians.closed_form, (run.axes(xs=1),), 1)(run).h.h.shape
        (7, 2, 5, 5)
        """
        unknown = sorted(set(axes) - set(PARTS))
        if unknown:
            raise TypeError(f"axes: expected names of {', '.join(PARTS)}, got {unknown[0]}")
        return _unchecked(self.cell, *[axes.get(part) for part in PARTS])

    def states(self) -> State:
        """`jaxrnn.unroll` of the run, leaves `(T, *batch, H)`; computed anew at each call."""
        masks = {"lengths": self.lengths, "resets": self.resets}
        return unroll(self.cell, self.params, self.xs, self.state0, **masks)

    def __repr__(self) -> str:
        """The cell's name and what is given beside the params."""
        given = [(part, getattr(self, part)) for part in PARTS[1:]]
        parts = [f"{name}={_described(value)}" for name, value in given if value is not None]
        return f"Run({', '.join([getattr(self.cell, 'name', str(self.cell)), *parts])})"

    def tree_flatten_with_keys(self) -> tuple[Any, Cell]:
        """The parts by name; the cell is the structure."""
        return [(GetAttrKey(part), getattr(self, part)) for part in PARTS], self.cell

    def tree_flatten(self) -> tuple[Any, Cell]:
        """The parts; the cell is the structure."""
        return [getattr(self, part) for part in PARTS], self.cell

    @classmethod
    def tree_unflatten(cls, cell: Cell, parts: Any) -> "Run":
        """A run of what JAX puts there: tracers, axes or placeholders, so nothing is checked."""
        return _unchecked(cell, *parts)


def _unchecked(cell: Cell, *parts: Any) -> Run:
    run = object.__new__(Run)
    for name, value in zip(("cell", *PARTS), (cell, *parts), strict=True):
        object.__setattr__(run, name, value)
    return run


def _described(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _checks.describe(value)
    return str(jax.tree.map(_checks.describe, value, is_leaf=lambda leaf: hasattr(leaf, "shape")))


def check_run(run: Any) -> Run:
    """The run, if it is one whose parts fit.

    The parts are looked at again, since `jax.tree.map` and its like make runs that nothing checked.

    Raises: TypeError that says how to make one; else as `Run`.
    """
    if not isinstance(run, Run):
        raise TypeError(
            f"run: expected a jaxrnn.Run, got {_checks.describe(run)}; "
            "make one: jaxrnn.Run(cell, params, xs)"
        )
    run.check()
    return run


def check_vector_state(run: Any) -> State:
    """`check_run`, and the shapes of a state whose leaves are vectors, to be stacked as one."""
    check_run(run)
    state = jax.eval_shape(first_state, run)
    batch = tuple(run.xs.shape[1:-1])
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if leaf.ndim != len(batch) + 1:
            name = "state" + jax.tree_util.keystr(path)
            raise ValueError(
                f"{name}: expected a vector (*batch, H) with batch {batch}, got "
                f"{_checks.describe(leaf)}; give the leaf one axis of its own"
            )
    return state


def first_state(run: Run) -> State:
    """The state before the first input: `state0`, or the cell's own in its place."""
    return start(run.cell, run.params, run.xs, run.state0)


def until(run: Run, t: int) -> Run:
    """The run up to states[t]; a sequence that is longer than t+1 is t+1 long there."""
    lengths, resets = run.lengths, run.resets
    if lengths is not None:
        lengths = jnp.minimum(lengths, jnp.asarray(t + 1, lengths.dtype))
    resets = None if resets is None else resets[: t + 1]
    return _unchecked(run.cell, run.params, run.xs[: t + 1], run.state0, lengths, resets)


def precise() -> contextlib.AbstractContextManager[None]:
    """A context in which matmuls are of the highest precision, unless the user has chosen one.

    On accelerators a float32 matmul is TF32 or bfloat16 by default, and so would be a Jacobian.
    """
    if jax.config.jax_default_matmul_precision is not None:  # type: ignore[missing-attribute]
        return contextlib.nullcontext()
    return jax.default_matmul_precision("highest")


def analysis(f: Callable[[Run], Result]) -> Callable[[Run], Result]:
    """The function f of a checked run, compiled once for each cell, shape and set of masks."""
    compiled = jax.jit(f)

    @functools.wraps(f)
    def checked(run: Run) -> Result:
        check_run(run)
        with precise():
            return compiled(run)

    return checked
