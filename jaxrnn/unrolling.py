"""Driving a cell over a sequence with `lax.scan`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from chex import ArrayTree
from jax import Array

from jaxrnn import arguments
from jaxrnn.cell import Cell

__all__ = ["check", "entering_states", "padded", "previous_states", "select", "start", "unroll"]


def unroll(
    cell: Cell,
    params: ArrayTree,
    xs: Array,
    state0: Any = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
) -> Any:
    """The states of a whole sequence.

        sᵢ = step(θ, sᵢ₋₁, xᵢ)             i = 1 … T, s₀ = state0; xᵢ is xs[i-1]
        sᵢ = sᵢ₋₁                          where i > lengths
        sᵢ = step(θ, state0, xᵢ)           where resets[i-1], unless held

    Args:
        cell: any `Cell`.
        params: what `cell.init` gives.
        xs: inputs, time-major `(T, *batch, D)`, any number of batch axes.
        state0: state before the first input, leaves `(*batch, H)`; by default
            `cell.init_state(params, batch)`.
        lengths: integers `(*batch,)` in [0, T]. Beyond a length the state is held, what xs
            contains there (NaN too) is never read, and gradients with respect to it are
            exactly 0; length 0 gives back `state0`.
        resets: booleans `(T, *batch)`; True sets the state to `state0` before that step.
    Returns: the tree of the state with a leading time axis, leaves `(T, *batch, H)`;
        `states.h[i]` follows input `xs[i]`; `state0` itself is not included.
    Raises: TypeError or ValueError naming the argument, also under `jit`. The values of
        `lengths` can be checked only outside a trace; inside one they act as if clipped to [0, T].
    Cost: O(T·B·G·H·(D + H)) time; the input projection is one matmul before the scan.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> params = cell.init(jax.random.key(0), 3, 5)
    >>> jaxrnn.unroll(cell, params, jax.numpy.ones((7, 2, 3))).h.shape
    (7, 2, 5)
    """
    check(cell, params, xs, state0, lengths, resets)
    return _unroll(cell, params, xs, state0, lengths, resets)


@functools.partial(jax.jit, static_argnums=0)
def _unroll(
    cell: Cell,
    params: ArrayTree,
    xs: Array,
    state0: Any,
    lengths: Array | None,
    resets: Array | None,
) -> Any:
    state0 = start(cell, params, xs, state0)
    xs, held = padded(xs, lengths)
    us = cell.project(params, xs)  # (T, *batch, G·H)

    def body(state: Any, step: tuple[Array, Array | None, Array | None]) -> tuple[Any, Any]:
        u, hold, reset = step
        begin = state if reset is None else select(reset, state0, state)
        new = cell.update(params, begin, u)
        new = new if hold is None else select(hold, state, new)
        return new, new

    return jax.lax.scan(body, state0, (us, held, resets))[1]


def padded(xs: Array, lengths: Array | None) -> tuple[Array, Array | None]:
    """Xs with its padding made harmless, and where a step is held, `(T, *batch)` or None.

    The padding is made safe before it meets a weight: 0 · NaN in a backward pass would
    otherwise poison every gradient.
    """
    if lengths is None:
        return xs, None
    held = _beyond(lengths, xs)
    return jnp.where(held[..., None], _harmless(lengths, xs), xs), held


def _beyond(lengths: Array, xs: Array) -> Array:
    """Whether a step lies beyond the length of its sequence, `(T, *batch)`."""
    signed = jnp.issubdtype(lengths.dtype, jnp.signedinteger)
    # A dtype that holds both T and every length, so that a short one cannot wrap around.
    wide = lengths.dtype if lengths.dtype.itemsize > 4 else jnp.int32 if signed else jnp.uint32
    step = jnp.arange(xs.shape[0], dtype=wide).reshape(-1, *[1] * lengths.ndim)
    return step >= jnp.broadcast_to(lengths.astype(wide), xs.shape[:-1])


def _harmless(lengths: Array, xs: Array) -> Array:
    """Each sequence's own first input, as a constant, for its padding; 0 if it has none.

    A step that is not differentiable at 0, such as one that normalises its input, would
    turn padding with zeros into NaN gradients.
    """
    some = jnp.broadcast_to((lengths > 0)[..., None], xs[:1].shape)
    first = jnp.where(some, jax.lax.stop_gradient(xs[:1]), jnp.zeros((), xs.dtype))
    return jnp.broadcast_to(first, xs.shape)


def select(where: Array, chosen: Any, other: Any) -> Any:
    """`chosen` where True, by whole examples: `where (*batch,)`, leaves `(*batch, ·)`."""

    def leaf(a: Array, b: Array) -> Array:
        return jnp.where(where.reshape(*where.shape, *[1] * (a.ndim - where.ndim)), a, b)

    return jax.tree.map(leaf, chosen, other)


def check(
    cell: Cell,
    params: ArrayTree,
    xs: Array,
    state0: Any = None,
    lengths: Array | None = None,
    resets: Array | None = None,
) -> None:
    """Refuse arguments of an unroll that do not fit each other; nothing is computed.

    Raises: TypeError or ValueError naming the argument that does not fit.
    """
    arguments.check_cell(cell)
    batch = arguments.check_sequence("xs", xs)
    cell.check_params(params)
    cell.check_input(params, xs, "xs")
    if state0 is None:
        state0 = jax.eval_shape(lambda p: cell.init_state(p, batch), params)
    arguments.check_batch_first("state0", state0, xs)
    cell.check_state(params, state0, jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype), "state0")
    if lengths is not None:
        arguments.check_lengths(lengths, xs)
    if resets is not None:
        arguments.check_resets(resets, xs)


def start(cell: Cell, params: ArrayTree, xs: Array, state0: Any) -> Any:
    """state0, or the cell's own in its place; arguments unchecked."""
    if state0 is not None:
        return state0
    # Zeros made from xs carry its sharding; plain ones fail as a carry under `shard_map`
    # and on explicit meshes. Their values are never read, so NaN in xs does not matter.
    anchor = jnp.zeros_like(xs.sum((0, -1)))
    state0 = cell.init_state(params, xs.shape[1:-1])
    return jax.tree.map(lambda leaf: leaf + _like_batch(anchor, leaf), state0)


def _like_batch(anchor: Array, leaf: Array) -> Array:
    return anchor.astype(leaf.dtype).reshape(*anchor.shape, *[1] * (leaf.ndim - anchor.ndim))


def previous_states(state0: Any, states: Any) -> Any:
    """s₀ … s_{T-1} from s₀ and s₁ … s_T, leaves `(T, *batch, H)`.

    >>> import jax.numpy as jnp
    >>> previous_states(jnp.float32([0.0]), jnp.float32([[1.0], [2.0]])).ravel().tolist()
    [0.0, 1.0]
    """
    return jax.tree.map(
        lambda first, rest: jnp.concatenate([first[None], rest])[: rest.shape[0]], state0, states
    )


def entering_states(state0: Any, states: Any, resets: Array | None = None) -> Any:
    """The state that each step starts from: the one before, or `state0` where reset."""
    before = previous_states(state0, states)
    if resets is None:
        return before
    again = jax.tree.map(lambda s, b: jnp.broadcast_to(s, b.shape), state0, before)
    return select(resets, again, before)
