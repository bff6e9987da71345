"""Where the steps of a trajectory are linearised, and the derivative of a step that is held."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from chex import ArrayTree
from jax import Array

from jaxrnn.cell import Cell
from jaxrnn.unrolling import entering_states, padded, start, unroll

__all__ = ["identity", "points"]


def points(
    cell: Cell, params: ArrayTree, xs: Array, state0: Any, lengths: Any, resets: Any
) -> tuple[Any, Array, Array | None]:
    """Where each step is linearised: the state it starts from, its input, whether it is held."""
    state0 = start(cell, params, xs, state0)
    states = unroll(cell, params, xs, state0, lengths=lengths, resets=resets)
    xs, held = padded(xs, lengths)
    return entering_states(state0, states, resets), xs, held


def identity(state: Any, J: Any, lead: int) -> Any:
    """∂s/∂s: the tree of J, ones where an entry of the state is differentiated by itself."""
    outs = jax.tree.structure(state)
    rows = [jax.tree.leaves(row) for row in outs.flatten_up_to(J)]

    def block(row: int, column: int, like: Array) -> Array:
        inner = like.shape[lead:]
        if row != column:
            return jnp.zeros_like(like)
        size = math.isqrt(math.prod(inner))
        eye = jnp.eye(size, dtype=like.dtype).reshape(inner)
        return jnp.broadcast_to(eye, like.shape)

    filled = [[block(j, k, leaf) for k, leaf in enumerate(row)] for j, row in enumerate(rows)]
    return outs.unflatten([outs.unflatten(row) for row in filled])
