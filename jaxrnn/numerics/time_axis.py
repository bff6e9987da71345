"""The first axis of every array: its steps in chunks, turned round, held back, one step before."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

__all__ = [
    "entering",
    "entering_states",
    "flipped",
    "over_chunks",
    "padded",
    "previous",
    "select",
]

Tree = TypeVar("Tree")


def over_chunks(
    f: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    items: Any,
    size: int,
    firsts: Any = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """`lax.scan` of f over chunks of `size` steps, the rest of the sequence as a last one.

    With `firsts`, leaves with an entry for each chunk, f gets the pair (chunk, its entry).
    With `reverse`, the last chunk comes first; within a chunk, the order is f's own matter.
    What f gives out may be as long for a chunk as f likes.
    """
    T = jax.tree.leaves(items)[0].shape[0]
    whole = T // size * size if size < T else 0

    def paired(chunk: Any, entry: Any) -> Any:
        return chunk if firsts is None else (chunk, entry)

    def most(carry: Any) -> tuple[Any, list[Any]]:
        if not whole:
            return carry, []
        cut = jax.tree.map(lambda a: a[:whole].reshape(whole // size, size, *a.shape[1:]), items)
        entries = jax.tree.map(lambda a: a[: whole // size], firsts)
        body = lambda c, item: f(c, paired(*item))  # noqa: E731
        carry, ys = jax.lax.scan(body, carry, (cut, entries), reverse=reverse)
        return carry, [jax.tree.map(lambda a: a.reshape(a.shape[0] * a.shape[1], *a.shape[2:]), ys)]

    def rest(carry: Any) -> tuple[Any, list[Any]]:
        if whole and whole == T:
            return carry, []
        last = jax.tree.map(lambda a: a[whole:], items)
        carry, ys = f(carry, paired(last, jax.tree.map(lambda a: a[whole // size], firsts)))
        return carry, [ys]

    if reverse:
        carry, end = rest(carry)
        carry, begin = most(carry)
    else:
        carry, begin = most(carry)
        carry, end = rest(carry)
    parts = begin + end
    return carry, parts[0] if len(parts) == 1 else jax.tree.map(_joined, *parts)


def _joined(*parts: Array) -> Array:
    return jnp.concatenate(parts)


def entering(state0: Tree, states: Tree, size: int) -> Tree:
    """The state before each chunk of `size` steps, a leading axis of chunks."""

    def leaf(first: Array, rest: Array) -> Array:
        return jnp.concatenate([first[None], rest[size - 1 : -1 : size]])

    return jax.tree.map(leaf, state0, states)


def previous(state0: Tree, states: Tree) -> Tree:
    """s₀ … s_{T-1} from s₀ and s₁ … s_T."""
    return jax.tree.map(
        lambda first, rest: jnp.concatenate([first[None], rest])[: rest.shape[0]], state0, states
    )


def entering_states(state0: Tree, states: Tree, resets: Array | None = None) -> Tree:
    """The state that each step starts from: the one before, or `state0` where reset."""
    before = previous(state0, states)
    if resets is None:
        return before
    again = jax.tree.map(lambda s, b: jnp.broadcast_to(s, b.shape), state0, before)
    return select(resets, again, before)


def select(where: Array, chosen: Tree, other: Tree) -> Tree:
    """`chosen` where True, by whole examples: `where (*batch,)`, leaves `(*batch, ·)`."""

    def leaf(a: Array, b: Array) -> Array:
        return jnp.where(where.reshape(*where.shape, *[1] * (a.ndim - where.ndim)), a, b)

    return jax.tree.map(leaf, chosen, other)


def padded(xs: Array, lengths: Array | None) -> tuple[Array, Array | None]:
    """The inputs with their padding made harmless, and where a step is held, `(T, *batch)` or None.

    The padding is made safe before it meets a weight: 0 · NaN in a backward pass would
    otherwise poison every gradient.
    """
    if lengths is None:
        return xs, None
    step, ends = _counted(lengths, xs.shape[0])
    held = step >= ends
    return jnp.where(held[..., None], _harmless(lengths, xs), xs), held


def _counted(lengths: Array, T: int) -> tuple[Array, Array]:
    """(each step's number, its sequence's length in [0, T]), `(T, *batch)` each."""
    # Clipped in its own dtype, where T may not be a number, then in one that holds both.
    most = min(T, jnp.iinfo(lengths.dtype).max)
    ends = jnp.clip(lengths, 0, most).astype(jnp.int32)
    step = jnp.arange(T, dtype=jnp.int32).reshape(-1, *[1] * lengths.ndim)
    shape = (T, *lengths.shape)
    return jnp.broadcast_to(step, shape), jnp.broadcast_to(ends[None], shape)


def _harmless(lengths: Array, xs: Array) -> Array:
    """Each sequence's own first input, as a constant, for its padding; 0 if it has none.

    A step that is not differentiable at 0, such as one that normalises its input, would
    turn padding with zeros into NaN gradients.
    """
    some = jnp.broadcast_to((lengths > 0)[..., None], xs[:1].shape)
    first = jnp.where(some, jax.lax.stop_gradient(xs[:1]), jnp.zeros((), xs.dtype))
    return jnp.broadcast_to(first, xs.shape)


def flipped(xs: Array, lengths: Array | None) -> Array:
    """Each sequence turned round within its length, `(T, *batch, ·)`; padding stays where it is.

    A length outside [0, T], which only a trace can hide, acts as if clipped.
    """
    if lengths is None:
        return xs[::-1]
    T = xs.shape[0]
    step, ends = _counted(lengths, T)
    index = jnp.where(step < ends, ends - 1 - step, step)
    index = index.reshape(*index.shape, *[1] * (xs.ndim - index.ndim))
    return jnp.take_along_axis(xs, index, axis=0)
