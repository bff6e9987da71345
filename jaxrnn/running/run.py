"""A run: a cell, its params and what it reads. Every analysis takes one."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import GetAttrKey

from jaxrnn import _checks
from jaxrnn.cells.contract import Cell, Params, State
from jaxrnn.numerics.tangents import left_out, moving
from jaxrnn.running.unrolling import check, start, unroll

__all__ = [
    "Run",
    "analysis",
    "batch_of",
    "check_run",
    "check_some_state",
    "check_vector_state",
    "first_checked",
    "first_state",
    "precise",
    "step_count",
    "takes_run",
    "until",
]

PARTS = ("params", "xs", "state0", "lengths", "resets")
Result = TypeVar("Result")
P = ParamSpec("P")


# eq=False: a comparison of arrays has no single truth value.
@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A cell driven over a sequence: what goes in, not what comes out.

        sᵢ = step(θ, sᵢ₋₁, xᵢ)             i = 1 … T, s₀ = state0; xᵢ is xs[i-1]

    Every analysis takes a run, as in `jaxrnn.bptt.adjoints(run, loss)`. A run holds no states. So
    the gradient of an analysis with respect to the params is complete:

        jax.grad(lambda params: jaxrnn.regularizers.omega(run.at(params), loss))(run.params)

    JAX refuses `jax.grad` with respect to the run itself if it has lengths, which are integers, or
    resets, which are booleans. A closure over `run.at`, as above, says what is differentiated.

    A run is a pytree with the cell as its structure. It is a valid argument of functions under
    `jax.jit`, `jax.vmap` and `jax.checkpoint`, and equal cells compile once. For `vmap` over params
    write `jax.vmap(lambda params: f(run.at(params)))`, for `vmap` over a batch axis
    `jax.vmap(f, in_axes=(run.axes(xs=1),))(run)`.

    Leaves of the state or the input that are no real floats, such as PRNG keys and counters, have
    no tangents. Every analysis takes them as constants and has None in their place;
    `run.without_tangents()` names them.

    Attributes:
      cell: Any `Cell`.
      params: What `cell.init` gives.
      xs: Inputs, time-major `(T, *batch, D)`, with any number of batch axes.
      state0: The state before the first input, leaves `(*batch, H)`. By default
        `cell.init_state(params, batch)`.
      lengths: Integers `(*batch,)` in [0, T]. Beyond its length a sequence is padding: the state is
        held and xs is not read.
      resets: Booleans `(T, *batch)`. True sets the state to `state0` before that step.

    Raises:
      TypeError: If a part has the wrong type or dtype. The message names the part.
      ValueError: If a part does not fit the others, also under `jit`, where the values of lengths
        are not known and only shapes are checked.

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
        """Check that the parts fit each other; nothing is computed.

        Raises:
          TypeError: If a part has the wrong type or dtype.
          ValueError: If a part does not fit the others.
        """
        check(self.cell, self.params, self.xs, self.state0, self.lengths, self.resets)

    def at(self, params: Params) -> "Run":
        """The same run with other params.

        Args:
          params: The new params.

        Returns:
          A new run.

        Raises:
          TypeError: If `params` are not those of the cell.
          ValueError: If they do not fit the other parts.
        """
        return dataclasses.replace(self, params=params)

    def axes(self, **axes: Any) -> "Run":
        """The axes of the parts that are mapped, for `in_axes` of `jax.vmap`.

        Args:
          **axes: For each part that is mapped, its name and its axis. The names are params, xs,
            state0, lengths and resets.

        Returns:
          A tree like the run, with None for each part that is not named.

        Raises:
          TypeError: If a name is not one of the above.

        >>> import jax, jaxrnn
        >>> cell = jaxrnn.gru()
        >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
        >>> jax.vmap(jaxrnn.jacobians.closed_form, (run.axes(xs=1),), 1)(run).h.h.shape
        (7, 2, 5, 5)
        """
        unknown = sorted(set(axes) - set(PARTS))
        if unknown:
            raise TypeError(f"axes: expected only the names {', '.join(PARTS)}, got {unknown[0]}")
        return _unchecked(self.cell, *[axes.get(part) for part in PARTS])

    def states(self) -> State:
        """The states of the run, by `jaxrnn.unroll`, computed anew at each call.

        Returns:
          The tree of the state, leaves `(T, *batch, H)`.
        """
        # Not kept: a run that held states would have an incomplete gradient.
        masks = {"lengths": self.lengths, "resets": self.resets}
        return unroll(self.cell, self.params, self.xs, self.state0, **masks)

    def without_tangents(self) -> tuple[str, ...]:
        """Which leaves every analysis leaves out, as PRNG keys, counters and tokens.

        Returns:
          Their places, such as `("state.key", "xs")`. Empty if all are real floats.

        >>> import jax, jaxrnn
        >>> cell = jaxrnn.gru()
        >>> params = cell.init(jax.random.key(0), 3, 5)
        >>> jaxrnn.Run(cell, params, jax.numpy.ones((7, 2, 3))).without_tangents()
        ()
        """
        state = jax.eval_shape(first_state, self)
        return tuple(f"state{place}" for place in left_out(state)) + tuple(
            f"xs{place}" for place in left_out(self.xs)
        )

    def __repr__(self) -> str:
        """The cell's name and the parts that are given, without the params."""
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
        """A run of the given parts, unchecked: JAX also puts axes and placeholders there."""
        return _unchecked(cell, *parts)


def _unchecked(cell: Cell, *parts: Any) -> Run:
    # Past `__post_init__`, which checks, and past `__setattr__`, which a frozen dataclass refuses.
    run = object.__new__(Run)
    for name, value in zip(("cell", *PARTS), (cell, *parts), strict=True):
        object.__setattr__(run, name, value)
    return run


def _described(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _checks.describe(value)
    return str(jax.tree.map(_checks.describe, value, is_leaf=lambda leaf: hasattr(leaf, "shape")))


def check_run(run: Any) -> Run:
    """The run itself, after a check.

    Args:
      run: What should be a `jaxrnn.Run`.

    Returns:
      The same run.

    Raises:
      TypeError: If `run` is no run, or a part of it has the wrong type or dtype.
      ValueError: If a part does not fit the others.
    """
    if not isinstance(run, Run):
        raise TypeError(
            f"run: expected a jaxrnn.Run, got {_checks.describe(run)}; "
            "make one: jaxrnn.Run(cell, params, xs)"
        )
    # Checked again, although `Run` checks itself: `jax.tree.map` and the like make unchecked runs.
    run.check()
    return run


def check_vector_state(run: Any) -> State:
    """`check_run`, for analyses that join the state into one vector; the shapes of the state.

    Args:
      run: What should be a `jaxrnn.Run`.

    Returns:
      The tree of the state, leaves `jax.ShapeDtypeStruct` of `(*batch, H)`; None for a leaf without
      tangents.

    Raises:
      TypeError: As in `check_run`.
      ValueError: As in `check_run`, or if a leaf of the state is no vector.
    """
    check_run(run)
    state = jax.eval_shape(lambda run: moving(first_state(run)), run)
    batch = batch_of(run)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if leaf.ndim != len(batch) + 1:
            name = "state" + jax.tree_util.keystr(path)
            raise ValueError(
                f"{name}: expected a vector (*batch, H) with batch {batch}, got "
                f"{_checks.describe(leaf)}; give the leaf one axis of its own"
            )
    return state


def check_some_state(run: Any) -> State:
    """`check_vector_state`, for analyses that ask for a largest singular value.

    Args:
      run: What should be a `jaxrnn.Run`.

    Returns:
      As `check_vector_state`.

    Raises:
      TypeError: As in `check_run`.
      ValueError: As in `check_vector_state`, or if the state has no entry.
    """
    state = check_vector_state(run)
    if not sum(leaf.shape[-1] for leaf in jax.tree.leaves(state)):
        raise ValueError(
            "state: expected at least one number to differentiate by, got none; give the cell a "
            "hidden size of 1 or more"
        )
    return state


def step_count(run: Run) -> int:
    """T."""
    return run.cell.leading_axes(run.xs)[0]


def batch_of(run: Run) -> tuple[int, ...]:
    """The batch shape."""
    return run.cell.leading_axes(run.xs)[1:]


def first_state(run: Run) -> State:
    """The state before the first input: `state0`, or the cell's own if that is None."""
    return start(run.cell, run.params, run.xs, run.state0)


def until(run: Run, t: int) -> Run:
    """The run up to states[t]; longer sequences are cut to t+1 steps."""
    lengths, resets = run.lengths, run.resets
    if lengths is not None:
        # In the dtype of the lengths, since strict promotion refuses int32 beside another. A length
        # of int8 is below t + 1 = 200 anyway, which int8 cannot hold.
        most = min(t + 1, jnp.iinfo(lengths.dtype).max)
        lengths = jnp.minimum(lengths, jnp.asarray(most, lengths.dtype))
    resets = None if resets is None else resets[: t + 1]
    xs = jax.tree.map(lambda leaf: leaf[: t + 1], run.xs)
    return _unchecked(run.cell, run.params, xs, run.state0, lengths, resets)


def precise() -> contextlib.AbstractContextManager[None]:
    """A context in which matmuls have the highest precision, unless the user has chosen one."""
    # On accelerators a float32 matmul is TF32 or bfloat16 by default. A Jacobian would have three
    # digits, and the bounds of a certificate allow for rounding in float32 only.
    if jax.config.jax_default_matmul_precision is not None:  # type: ignore[missing-attribute]
        return contextlib.nullcontext()
    return jax.default_matmul_precision("highest")


def first_checked(
    check: Callable[[Any], Any],
) -> Callable[[Callable[P, Result]], Callable[P, Result]]:
    """A decorator: the first argument is checked before Python counts the arguments.

    Analyses once took (cell, params, xs, …). Code that still calls them so is told what to write,
    not how many arguments there are.
    """

    def decorated(f: Callable[P, Result]) -> Callable[P, Result]:
        @functools.wraps(f)
        def told(*args: P.args, **kwargs: P.kwargs) -> Result:
            if args or "cell" in kwargs:
                check(args[0] if args else None)
            return f(*args, **kwargs)

        return told

    return decorated


def takes_run(f: Callable[P, Result]) -> Callable[P, Result]:
    """An analysis f, which says how to make a run if its first argument is none."""
    return first_checked(_check_is_run)(f)


def _check_is_run(run: Any) -> None:
    if not isinstance(run, Run):
        check_run(run)  # refuses it


def analysis(f: Callable[[Run], Result]) -> Callable[[Run], Result]:
    """The function f of a run, which is checked first.

    It is compiled once for each cell, shape and set of masks.
    """
    compiled = jax.jit(f)

    @takes_run
    @functools.wraps(f)
    def checked(run: Run) -> Result:
        check_run(run)
        with precise():
            return compiled(run)

    return checked
