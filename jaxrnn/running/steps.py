"""The steps of a run, their coefficients, and how a tangent passes through them."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn.cells.contract import Coefficients, Jacobian, State
from jaxrnn.numerics.padding import padded
from jaxrnn.numerics.tangents import moving, whole
from jaxrnn.numerics.time_axis import entering_states, select
from jaxrnn.running.chunks import plan
from jaxrnn.running.run import Run, first_state

__all__ = ["Steps", "chunk_of", "identity_like", "linearised", "push_through", "trajectory"]


class Steps(NamedTuple):
    """Every step of a run, and its linearisation; all leaves `(T, *batch, ·)`.

    Attributes:
      before: The state that a step starts from.
      xs: Its input, with harmless padding.
      partials: The coefficients of J at (before, xs), or None if they are not formed.
      held: True where a step lies beyond the length of its sequence, `(T, *batch)`, or None.
      resets: True where the step starts from `state0`, `(T, *batch)`, or None.
    """

    before: Any
    xs: Array
    partials: Coefficients
    held: Array | None
    resets: Array | None


def trajectory(run: Run, states: State = None) -> Steps:
    """The steps of a run without coefficients; `states` are those of the run, if at hand."""
    states = run.states() if states is None else states
    xs, held = padded(run.xs, run.lengths)
    before = entering_states(first_state(run), states, run.resets)
    return Steps(before, xs, None, held, run.resets)


def linearised(run: Run, steps: Steps) -> Steps:
    """The same steps with their coefficients, formed for all of them at once."""
    # Without the barrier XLA may fuse the coefficients into the scan that reads them, and form them
    # again at each step.
    u = run.cell.project(run.params, steps.xs)
    partials = run.cell.partials(run.params, steps.before, u)
    fixed = jax.lax.optimization_barrier(moving(partials))
    return steps._replace(partials=whole(fixed, partials))


def chunk_of(run: Run) -> int:
    """How many steps have their coefficients in memory at a time."""
    return plan(run.cell, run.params, run.xs, first_state(run), None).chunk


def push_through(run: Run, step: Steps, tangent: Any) -> State:
    """J v for any leading axes: v itself where the step is held, 0 where it is reset."""
    # `push` wants a drive, and here nothing enters from params or input: zeros of its shape.
    at = run.params, step.partials, step.before, step.xs
    drive = jax.tree.map(
        lambda d: jnp.zeros(d.shape, d.dtype),
        jax.eval_shape(run.cell.drive, *at, run.params, None),
    )
    pushed = run.cell.push(run.params, step.partials, tangent, drive)
    # A step that is held ignores its reset, so `held` comes last.
    if step.resets is not None:
        pushed = select(step.resets, jax.tree.map(jnp.zeros_like, pushed), pushed)
    return pushed if step.held is None else select(step.held, tangent, pushed)


def identity_like(state: State, J: Any, lead: int) -> Jacobian:
    """∂s/∂s: the tree of J, with identity matrices on the diagonal."""
    outs = jax.tree.structure(moving(state))
    rows = [jax.tree.leaves(row) for row in outs.flatten_up_to(J)]

    def block(row: int, column: int, like: Array) -> Array:
        inner = like.shape[lead:]
        if row != column:
            return jnp.zeros_like(like)
        # A leaf of the state may have any number of axes, so its block is a matrix when flattened.
        size = math.isqrt(math.prod(inner))
        eye = jnp.eye(size, dtype=like.dtype).reshape(inner)
        return jnp.broadcast_to(eye, like.shape)

    filled = [[block(j, k, leaf) for k, leaf in enumerate(row)] for j, row in enumerate(rows)]
    return outs.unflatten([outs.unflatten(row) for row in filled])
