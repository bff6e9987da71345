"""The steps of a trajectory, their coefficients, and what they do to a tangent."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from chex import ArrayTree
from jax import Array

from jaxrnn.cell import Cell
from jaxrnn.unrolling import entering_states, padded, select, start

__all__ = ["Steps", "identity", "linearised", "push_through", "trajectory"]


class Steps(NamedTuple):
    """Every step of a trajectory, and its linearisation; all leaves `(T, *batch, ·)`."""

    before: Any  # the state that a step starts from
    xs: Array  # its input, padding made harmless
    partials: Any  # the coefficients of J at (before, xs), None if not formed
    held: Array | None  # (T, *batch): the step lies beyond its sequence's length
    resets: Array | None  # (T, *batch): the step starts afresh


def trajectory(
    cell: Cell, params: ArrayTree, xs: Array, state0: Any, states: Any, lengths: Any, resets: Any
) -> Steps:
    """The steps that led to `states`, no coefficients formed."""
    state0 = start(cell, params, xs, state0)
    xs, held = padded(xs, lengths)
    return Steps(entering_states(state0, states, resets), xs, None, held, resets)


def linearised(cell: Cell, params: ArrayTree, steps: Steps) -> Steps:
    """The same steps with their coefficients, formed for all of them at once."""
    partials = cell.partials(params, steps.before, cell.project(params, steps.xs))
    return steps._replace(partials=jax.lax.optimization_barrier(partials))


def push_through(cell: Cell, params: ArrayTree, step: Steps, tangent: Any) -> Any:
    """J v for any leading axes: v itself where held, 0 where started afresh."""
    at = params, step.partials, step.before, step.xs
    drive = jax.tree.map(
        lambda d: jnp.zeros(d.shape, d.dtype), jax.eval_shape(cell.drive, *at, params, None)
    )
    pushed = cell.push(params, step.partials, tangent, drive)
    if step.resets is not None:
        pushed = select(step.resets, jax.tree.map(jnp.zeros_like, pushed), pushed)
    return pushed if step.held is None else select(step.held, tangent, pushed)


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
