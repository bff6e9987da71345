"""A trajectory's linearisation, transposed: how an adjoint goes back to states and parameters.

    δsᵢ = Jᵢ δsᵢ₋₁ + dᵢ        forward: `Cell.push` along time, `Cell.drive` from δθ
    λᵢ₋₁ = ḡᵢ₋₁ + Jᵢᵀ λᵢ       backward along time; ḡᵢ is ∂E/∂sᵢ at fixed other states
    ∂E/∂θ|ᵢ = (∂sᵢ/∂θ)ᵀ λᵢ     backward from a step to the parameters

Every transpose is JAX's own of the cell's two linear maps, so no cell writes one.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from chex import ArrayTree
from jax import Array

from jaxrnn import arguments
from jaxrnn.cell import Cell
from jaxrnn.unrolling import check, entering_states, padded, select, start, unroll

__all__ = [
    "Steps",
    "direct_adjoints",
    "linearised",
    "run_back",
    "through_step",
    "to_drive",
    "to_each",
    "to_params",
]


class Steps(NamedTuple):
    """Every step of a trajectory, and its linearisation; all leaves `(T, *batch, ·)`."""

    before: Any  # the state that a step starts from
    xs: Array  # its input, padding made harmless
    partials: Any  # the coefficients of J at (before, xs)
    held: Array | None  # (T, *batch): the step lies beyond its sequence's length
    resets: Array | None  # (T, *batch): the step starts afresh


def direct_adjoints(
    cell: Cell,
    params: ArrayTree,
    xs: Array,
    loss: Callable[[Any], Array],
    state0: Any,
    lengths: Array | None,
    resets: Array | None,
) -> tuple[Any, Any]:
    """(states, ḡ): the checked unroll, and ∂loss/∂states at fixed other states.

    Not jitted: with the loss a static argument, every new lambda would compile everything again.

    Raises: TypeError or ValueError as `unroll`, or naming `loss`.
    """
    check(cell, params, xs, state0, lengths, resets)
    arguments.check_callable("loss", loss, "(states) -> scalar")
    states = unroll(cell, params, xs, state0, lengths=lengths, resets=resets)
    arguments.check_loss("loss", loss, states, ())
    return states, jax.grad(loss)(states)


def linearised(
    cell: Cell, params: ArrayTree, xs: Array, state0: Any, states: Any, lengths: Any, resets: Any
) -> Steps:
    """The steps that led to `states`, their coefficients formed for all of them at once."""
    state0 = start(cell, params, xs, state0)
    xs, held = padded(xs, lengths)
    before = entering_states(state0, states, resets)
    return Steps(before, xs, cell.partials(params, before, cell.project(params, xs)), held, resets)


def run_back(cell: Cell, params: ArrayTree, steps: Steps, direct: Any) -> Any:
    """λᵢ = ḡᵢ + Jᵢ₊₁ᵀ λᵢ₊₁ for every i, leaves `(T, *batch, ·)`."""
    nothing = jax.tree.map(lambda g: jnp.zeros_like(g.sum(0)), direct)
    body = functools.partial(_step_back, cell, params)
    return jax.lax.scan(body, nothing, (direct, steps), reverse=True)[1]


def _step_back(cell: Cell, params: ArrayTree, later: Any, step: tuple[Any, Steps]) -> Any:
    """λᵢ from Jᵢ₊₁ᵀ λᵢ₊₁, and Jᵢᵀ λᵢ for the step before."""
    direct, here = step
    adjoint = jax.tree.map(jnp.add, direct, later)
    return through_step(cell, params, here, adjoint), adjoint


def through_step(cell: Cell, params: ArrayTree, step: Steps, adjoint: Any) -> Any:
    """Jᵀ λ for any leading axes: λ itself where held, 0 where started afresh."""
    back, _ = _pushed_back(cell, params, step, adjoint)
    if step.resets is not None:
        back = select(step.resets, jax.tree.map(jnp.zeros_like, back), back)
    return back if step.held is None else select(step.held, adjoint, back)


def to_drive(cell: Cell, params: ArrayTree, step: Steps, adjoint: Any) -> Any:
    """The adjoint of the drive d for any leading axes; 0 where held."""
    _, drive = _pushed_back(cell, params, step, adjoint)
    if step.held is None:
        return drive
    return select(step.held, jax.tree.map(jnp.zeros_like, drive), drive)


def _pushed_back(cell: Cell, params: ArrayTree, step: Steps, adjoint: Any) -> tuple[Any, Any]:
    at = params, step.partials, step.before, step.xs
    drive = jax.eval_shape(cell.drive, *at, params, None)
    push = functools.partial(cell.push, params, step.partials)
    return jax.linear_transpose(push, adjoint, drive)(adjoint)


def to_params(cell: Cell, params: ArrayTree, step: Steps, drive: Any) -> ArrayTree:
    """(∂s/∂θ)ᵀ λ summed over all leading axes, from the drive's adjoint: a matmul for a matrix."""

    def driven(dparams: ArrayTree) -> Any:
        return cell.drive(params, step.partials, step.before, step.xs, dparams, None)

    (total,) = jax.linear_transpose(driven, params)(drive)
    return total


def to_each(cell: Cell, params: ArrayTree, steps: Steps, drives: Any) -> ArrayTree:
    """`to_params` of each step by itself, leaves `(T, *leaf)`."""
    return jax.vmap(functools.partial(to_params, cell, params))(steps, drives)
