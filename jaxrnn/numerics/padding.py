"""Padding: which steps are past the end of their sequence, and what stands there."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn.numerics.tangents import is_key

__all__ = ["flipped", "padded"]


def padded(xs: Any, lengths: Array | None) -> tuple[Any, Array | None]:
    """The inputs with harmless padding, and which steps are held, `(T, *batch)` or None.

    Leaves of xs are `(T, *batch, …)`.

    A held step is past the end of its sequence: the state is carried on unchanged.
    """
    if lengths is None:
        return xs, None
    # NaN in the padding is replaced before it meets a weight. To mask the result is not enough: the
    # backward pass would multiply the masked 0 by NaN, and every gradient would be NaN.
    step, ends = _counted(lengths, jax.tree.leaves(xs)[0].shape[0])
    held = step >= ends

    def leaf(x: Array) -> Array:
        return jnp.where(_over(held, x), _harmless(lengths, x), x)

    return jax.tree.map(leaf, xs), held


def flipped(xs: Array, lengths: Array | None) -> Array:
    """Each sequence turned round within its length, `(T, *batch, ·)`; padding stays where it is.

    A length outside [0, T] acts as if clipped. Only a traced length can be outside: any other was
    refused before.
    """
    if lengths is None:
        return xs[::-1]
    T = xs.shape[0]
    step, ends = _counted(lengths, T)
    index = jnp.where(step < ends, ends - 1 - step, step)
    index = index.reshape(*index.shape, *[1] * (xs.ndim - index.ndim))
    return jnp.take_along_axis(xs, index, axis=0)


def _counted(lengths: Array, T: int) -> tuple[Array, Array]:
    """(number of the step, length of its sequence in [0, T]), each `(T, *batch)`."""
    # A short dtype such as int8 may not hold T. So lengths are clipped to T or the largest number
    # of their own dtype first, and only then cast to int32.
    most = min(T, jnp.iinfo(lengths.dtype).max)
    ends = jnp.clip(lengths, 0, most).astype(jnp.int32)
    step = jnp.arange(T, dtype=jnp.int32).reshape(-1, *[1] * lengths.ndim)
    shape = (T, *lengths.shape)
    return jnp.broadcast_to(step, shape), jnp.broadcast_to(ends[None], shape)


def _harmless(lengths: Array, xs: Array) -> Array:
    """What stands in for padding: each sequence's own first input, or 0 where its length is 0."""
    # Zeros would make gradients NaN for a cell that is not differentiable at 0, such as one that
    # normalises its input. An input of the sequence itself is one that the cell takes anyway; an
    # empty sequence has none.
    # It is a constant: a gradient with respect to padding is exactly 0.
    first = jax.lax.stop_gradient(xs[:1])
    if not is_key(xs):  # there is no key 0
        some = jnp.broadcast_to(_over((lengths > 0)[None], xs), first.shape)
        first = jnp.where(some, first, jnp.zeros((), xs.dtype))
    return jnp.broadcast_to(first, xs.shape)


def _over(mask: Array, x: Array) -> Array:
    """A mask of leading axes with as many axes as x has."""
    return jnp.expand_dims(mask, tuple(range(mask.ndim, x.ndim)))
