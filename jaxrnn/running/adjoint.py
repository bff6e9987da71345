"""The linearisation of a trajectory, transposed: an adjoint goes back to states and parameters.

    δsᵢ = Jᵢ δsᵢ₋₁ + dᵢ        forward: `Cell.push` along time, `Cell.drive` from δθ
    λᵢ₋₁ = ḡᵢ₋₁ + Jᵢᵀ λᵢ       backward along time; ḡᵢ is ∂E/∂sᵢ at fixed other states
    ∂E/∂θ|ᵢ = (∂sᵢ/∂θ)ᵀ λᵢ     backward from a step to the parameters

JAX makes every transpose from the cell's two linear maps, so no cell writes one.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from chex import ArrayTree

from jaxrnn import _checks
from jaxrnn.cells.contract import Drive, Loss, Params, State
from jaxrnn.numerics.dtypes import accumulator
from jaxrnn.numerics.scaled import Scaled, added, rescaled
from jaxrnn.numerics.tangents import moving, whole
from jaxrnn.numerics.time_axis import select
from jaxrnn.numerics.zeros import zeros_of
from jaxrnn.running.chunks import over_chunks
from jaxrnn.running.run import Run, check_run
from jaxrnn.running.steps import Steps, chunk_of, linearised

__all__ = [
    "direct_adjoints",
    "gradient_of",
    "parts_and_total",
    "run_back",
    "scaled_back",
    "scaled_nothing",
    "through_step",
    "to_drive",
    "to_each",
    "to_inputs",
    "to_params",
]


def direct_adjoints(run: Run, loss: Loss) -> tuple[Any, Any]:
    """(states, ḡ) of a run, ḡ being ∂loss/∂states at fixed other states.

    Args:
      run: A `jaxrnn.Run`.
      loss: A function of the states that gives one real number.

    Returns:
      (states, ḡ), two trees with leaves `(T, *batch, ·)`.

    Raises:
      TypeError: If `run` is no run, or `loss` no function to a real number.
      ValueError: If parts of the run do not fit each other, or `loss` gives no scalar.
    """
    # Not under `jit`: the loss would be a static argument, and every new lambda would compile the
    # whole analysis again.
    check_run(run)
    _checks.check_callable("loss", loss, "(states) -> scalar")
    states = run.states()
    _checks.check_loss("loss", loss, states, ())
    return states, gradient_of(loss, states)


def gradient_of(loss: Loss, states: State) -> State:
    """∂loss/∂states, None for leaves without tangents."""
    return jax.grad(lambda own: loss(whole(own, states)))(moving(states))


def run_back(run: Run, steps: Steps, direct: State) -> State:
    """λᵢ = ḡᵢ + Jᵢ₊₁ᵀ λᵢ₊₁ for every i, leaves `(T, *batch, ·)`."""

    def body(later: Any, step: tuple[Any, Steps]) -> tuple[Any, Any]:
        adjoint = jax.tree.map(jnp.add, step[0], later)
        return through_step(run, step[1], adjoint), adjoint

    return jax.lax.scan(body, _nothing(direct), (direct, steps), reverse=True)[1]


def scaled_back(run: Run, later: Scaled, step: tuple[Any, Steps]) -> tuple[Scaled, Scaled, Any]:
    """(Jᵀ λ, λ, λ's value in the state's dtype) of one step, λ = ḡ + later, of any size."""
    direct, at = step
    # What comes from layers above may be of any size too, and is a `Scaled` already.
    if not isinstance(direct, Scaled):
        direct = rescaled(direct, jnp.zeros_like(later.exponent))
    # Jᵀ is linear, so it is applied to the value alone and the exponent is put back afterwards.
    adjoint = added(later, direct)
    value = jax.tree.map(lambda a, s: a.astype(s.dtype), adjoint.value, moving(at.before))
    return rescaled(through_step(run, at, value), adjoint.exponent), adjoint, value


def scaled_nothing(direct: State, batch: tuple[int, ...]) -> Scaled:
    """0, the adjoint after the last step, for `scaled_back`; `direct` is `(T, *batch, ·)`."""
    return rescaled(_nothing(direct), jnp.zeros(batch, jnp.int32))


def parts_and_total(run: Run, steps: Steps, direct: State) -> tuple[Any, ArrayTree]:
    """`drive_parts` of every step, and ∂E/∂θ."""

    def body(later: Any, step: tuple[Any, Steps]) -> tuple[Any, Any]:
        adjoint = jax.tree.map(jnp.add, step[0], later)
        return through_step(run, step[1], adjoint), to_drive(run, step[1], adjoint)

    def back(carry: Any, item: tuple[Steps, Any]) -> tuple[Any, Any]:
        (later, total), (steps, direct) = carry, item
        # Coefficients are formed once, and exist for one chunk of steps at a time.
        steps = linearised(run, steps)
        later, drives = jax.lax.scan(body, later, (direct, steps), reverse=True)
        more = to_params(run, steps, drives)
        total = jax.tree.map(lambda t, m: t + m.astype(t.dtype), total, more)
        return (later, total), run.cell.drive_parts(steps.partials, drives)

    # 16-bit gradients are summed over chunks in float32 and rounded once, at the end.
    wide = jax.tree.map(lambda p: jnp.zeros_like(p, accumulator(p.dtype)), run.params)
    carry = _nothing(direct), wide
    (_, total), parts = over_chunks(back, carry, (steps, direct), chunk_of(run), reverse=True)
    return parts, jax.tree.map(lambda t, p: t.astype(p.dtype), total, run.params)


def _nothing(direct: State) -> State:
    # Made of `direct`, since the carry of a scan must have the sharding of what is added to it.
    return jax.tree.map(lambda g: zeros_of(g, 0), direct)


def through_step(run: Run, step: Steps, adjoint: State) -> State:
    """Jᵀ λ for any leading axes: λ itself where the step is held, 0 where it is reset."""
    # A step that is held ignores its reset, so `held` comes last.
    back, _ = _pushed_back(run, step, adjoint)
    if step.resets is not None:
        back = select(step.resets, jax.tree.map(jnp.zeros_like, back), back)
    return back if step.held is None else select(step.held, adjoint, back)


def to_drive(run: Run, step: Steps, adjoint: State) -> Drive:
    """The adjoint of the drive d for any leading axes; 0 where the step is held."""
    _, drive = _pushed_back(run, step, adjoint)
    if step.held is None:
        return drive
    return select(step.held, jax.tree.map(jnp.zeros_like, drive), drive)


def _pushed_back(run: Run, step: Steps, adjoint: State) -> tuple[Any, Any]:
    at = run.params, step.partials, step.before, step.xs
    drive = jax.eval_shape(run.cell.drive, *at, run.params, None)
    push = functools.partial(run.cell.push, run.params, step.partials)
    return jax.linear_transpose(push, adjoint, drive)(adjoint)


def to_params(run: Run, step: Steps, drive: Drive) -> ArrayTree:
    """(∂s/∂θ)ᵀ λ summed over all leading axes, from the adjoint of the drive."""
    # Transposing the drive of all steps at once makes the sum one matmul for each weight.

    def driven(dparams: Params) -> State:
        at = run.params, step.partials, step.before, step.xs
        return run.cell.drive(*at, dparams, None)

    (total,) = jax.linear_transpose(driven, run.params)(drive)
    return total


def to_inputs(run: Run, step: Steps, drive: Drive) -> Any:
    """(∂s/∂x)ᵀ λ of each step, a tree of xs, from the adjoint of the drive."""

    def driven(dxs: Any) -> State:
        at = run.params, step.partials, step.before, step.xs
        return run.cell.drive(*at, None, dxs)

    xs = moving(step.xs)
    # Of a drive only that part comes from inputs which `drive` gives for them.
    enters = jax.eval_shape(driven, xs)
    own = jax.tree.map(
        lambda like, part: None if like is None else part,
        enters,
        drive,
        is_leaf=lambda like: like is None,
    )
    (found,) = jax.linear_transpose(driven, xs)(own)
    return found


def to_each(run: Run, steps: Steps, drives: Any) -> ArrayTree:
    """`to_params` of each step by itself, leaves `(T, *leaf)`."""
    return jax.vmap(functools.partial(to_params, run))(steps, drives)
