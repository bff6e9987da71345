"""Nets of several layers, in one direction or both, of one kind of cell.

    layer l reads what layer l-1 puts out; a layer of two directions puts out (h→, h←) side by side

The second direction reads each sequence from its own end, whatever its length, and is aligned
with the first: entry i of both follows xs[i].
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn import arguments
from jaxrnn.cell import Cell
from jaxrnn.unrolling import unroll

__all__ = ["Layer", "outputs", "unroll_layers"]


class Layer(NamedTuple):
    """What a layer has for each direction: params, or states; reverse None without a second one."""

    forward: Any
    reverse: Any = None


def unroll_layers(
    cell: Cell,
    layers: Sequence[Layer],
    xs: Array,
    state0: Sequence[Layer] | None = None,
    *,
    lengths: Array | None = None,
) -> tuple[Layer, ...]:
    """The states of every layer.

    Args:    layers: a Layer of params each; D of a layer is H of the one before, 2H if that has two
             directions. xs `(T, *batch, D)`; state0: a Layer of states each, or None; lengths as
             in `jaxrnn.unroll`: beyond them states are held.
    Returns: a Layer of states each, leaves `(T, *batch, H)`.
    Raises:  TypeError or ValueError naming the layer that does not fit.
    Cost:    one `unroll` for each layer and direction.

    >>> import jax, jaxrnn
    >>> cell, (k1, k2) = jaxrnn.gru(), jax.random.split(jax.random.key(0))
    >>> both = jaxrnn.layers.Layer(cell.init(k1, 3, 5), cell.init(k2, 3, 5))
    >>> states = jaxrnn.layers.unroll_layers(cell, [both], jax.numpy.ones((7, 2, 3)))
    >>> jaxrnn.layers.outputs(states).shape
    (7, 2, 10)
    """
    _check_layers("layers", layers)
    if state0 is not None:
        _check_layers("state0", state0)
        if len(state0) != len(layers):
            raise ValueError(f"state0: expected {len(layers)} layers, got {len(state0)}")
    found = []
    for index, layer in enumerate(layers):
        first = Layer(None) if state0 is None else state0[index]
        try:
            forward = unroll(cell, layer.forward, xs, first.forward, lengths=lengths)
            reverse = None
            if layer.reverse is not None:
                turned = flipped(xs, lengths)
                reverse = unroll(cell, layer.reverse, turned, first.reverse, lengths=lengths)
                reverse = jax.tree.map(lambda leaf: flipped(leaf, lengths), reverse)
        except (TypeError, ValueError) as error:
            raise type(error)(f"layers[{index}]: {error}") from error
        found.append(Layer(forward, reverse))
        xs = outputs(found)
    return tuple(found)


def outputs(states: Sequence[Layer]) -> Array:
    """What the last layer puts out, `(T, *batch, H)` or, of two directions, `(T, *batch, 2H)`."""
    forward, reverse = states[-1]
    return forward.h if reverse is None else jnp.concatenate([forward.h, reverse.h], axis=-1)


def flipped(xs: Array, lengths: Array | None) -> Array:
    """Each sequence turned round within its length, `(T, *batch, ·)`; padding stays where it is."""
    if lengths is None:
        return xs[::-1]
    T = xs.shape[0]
    step = jnp.arange(T, dtype=lengths.dtype).reshape(T, *[1] * lengths.ndim)
    step, ends = (
        jnp.broadcast_to(step, (T, *lengths.shape)),
        jnp.broadcast_to(lengths[None], (T, *lengths.shape)),
    )
    index = jnp.where(step < ends, ends - 1 - step, step)
    index = index.reshape(*index.shape, *[1] * (xs.ndim - index.ndim))
    return jnp.take_along_axis(xs, index, axis=0)


def _check_layers(name: str, layers: Any) -> None:
    if not isinstance(layers, list | tuple) or isinstance(layers, Layer) or not layers:
        raise TypeError(f"{name}: expected a list of Layer, got {arguments.describe(layers)}")
    for index, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise TypeError(
                f"{name}[{index}]: expected a Layer(forward, reverse), got "
                f"{arguments.describe(layer)}"
            )
