"""The time axis, the first one of every array: chunks, padding, resets, sequences turned round."""

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
    """`lax.scan` of f over chunks of `size` steps; the steps that are left are the last chunk.

    `firsts`, if given, has one entry for each chunk: f gets the pair (chunk, its entry). With
    `reverse` the last chunk comes first; the order within a chunk is up to f. What f gives out for
    a chunk may have any length.
    """
    # All items of a scan have one shape, so the last, shorter chunk is a call of its own. A single
    # chunk needs no scan at all.
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
    """The state before each chunk of `size` steps; the leading axis counts chunks."""

    def leaf(first: Array, rest: Array) -> Array:
        return jnp.concatenate([first[None], rest[size - 1 : -1 : size]])

    return jax.tree.map(leaf, state0, states)


def previous(state0: Tree, states: Tree) -> Tree:
    """s₀ … s_{T-1} from s₀ and s₁ … s_T."""
    return jax.tree.map(
        lambda first, rest: jnp.concatenate([first[None], rest])[: rest.shape[0]], state0, states
    )


def entering_states(state0: Tree, states: Tree, resets: Array | None = None) -> Tree:
    """The state that each step starts from: the state before it, or `state0` where reset."""
    before = previous(state0, states)
    if resets is None:
        return before
    again = jax.tree.map(lambda s, b: jnp.broadcast_to(s, b.shape), state0, before)
    return select(resets, again, before)


def select(where: Array, chosen: Tree, other: Tree) -> Tree:
    """`chosen` where True, by whole examples, else `other`.

    `where` is `(*batch,)`, leaves are `(*batch, ·)`.
    """

    def leaf(a: Array, b: Array) -> Array:
        return jnp.where(where.reshape(*where.shape, *[1] * (a.ndim - where.ndim)), a, b)

    return jax.tree.map(leaf, chosen, other)


def padded(xs: Array, lengths: Array | None) -> tuple[Array, Array | None]:
    """The inputs with harmless padding, and True where a step is held, `(T, *batch)` or None."""
    if lengths is None:
        return xs, None
    # NaN in the padding is replaced before it meets a weight. To mask the result is not enough: the
    # backward pass would multiply the masked 0 by NaN, and every gradient would be NaN.
    step, ends = _counted(lengths, xs.shape[0])
    held = step >= ends
    return jnp.where(held[..., None], _harmless(lengths, xs), xs), held


def _counted(lengths: Array, T: int) -> tuple[Array, Array]:
    """(number of the step, length of its sequence in [0, T]), each `(T, *batch)`."""
    # A short dtype such as int8 may not hold T. So lengths are clipped in their own dtype, to what
    # it can hold, and only then cast to one that holds both.
    most = min(T, jnp.iinfo(lengths.dtype).max)
    ends = jnp.clip(lengths, 0, most).astype(jnp.int32)
    step = jnp.arange(T, dtype=jnp.int32).reshape(-1, *[1] * lengths.ndim)
    shape = (T, *lengths.shape)
    return jnp.broadcast_to(step, shape), jnp.broadcast_to(ends[None], shape)


def _harmless(lengths: Array, xs: Array) -> Array:
    """What stands in for padding: each sequence's own first input, or 0 where its length is 0."""
    # Zeros would make gradients NaN for a step that is not differentiable at 0, such as one that
    # normalises its input. An input of the sequence itself is one that the step takes anyway.
    # It is a constant: a gradient with respect to padding is exactly 0.
    some = jnp.broadcast_to((lengths > 0)[..., None], xs[:1].shape)
    first = jnp.where(some, jax.lax.stop_gradient(xs[:1]), jnp.zeros((), xs.dtype))
    return jnp.broadcast_to(first, xs.shape)


def flipped(xs: Array, lengths: Array | None) -> Array:
    """Each sequence turned round within its length, `(T, *batch, ·)`; padding stays where it is.

    A length outside [0, T] acts as if clipped. Only under a trace can there be one, since values
    are checked everywhere else.
    """
    if lengths is None:
        return xs[::-1]
    T = xs.shape[0]
    step, ends = _counted(lengths, T)
    index = jnp.where(step < ends, ends - 1 - step, step)
    index = index.reshape(*index.shape, *[1] * (xs.ndim - index.ndim))
    return jnp.take_along_axis(xs, index, axis=0)
