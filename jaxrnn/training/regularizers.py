"""Penalties on how gradients and tangents grow through time, to be added to a loss.

    Ω = Σᵢ (‖Jᵢᵀ λᵢ‖ / ‖λᵢ‖ - 1)²        flossing: Σⱼ (Λⱼ - Λ*)²

with adjoints λᵢ = ∂E/∂sᵢ and Lyapunov exponents Λⱼ, two things that are both written λ elsewhere.
Ω asks that a step keep the length of the one adjoint that the loss sends back through it, flossing
that the leading Lyapunov exponents be where they should. Both are differentiable, in every argument
that is an array, and work for every cell. An adjoint is kept as a value and a power of two, so Ω
still sees the direction of a gradient that has faded below 1e-38.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn import _checks
from jaxrnn.analysis import lyapunov
from jaxrnn.cells.contract import Loss, State
from jaxrnn.numerics.dtypes import accumulator
from jaxrnn.numerics.scaled import Scaled, rescaled, times_power
from jaxrnn.numerics.time_axis import over_chunks
from jaxrnn.running.adjoint import direct_adjoints, scaled_back, scaled_nothing, through_step
from jaxrnn.running.run import Run, check_run, precise
from jaxrnn.running.steps import Steps, chunk_of, linearised, trajectory

__all__ = ["flossing", "omega", "omega_at_fixed_adjoints"]


def omega(run: Run, loss: Loss) -> Array:
    """Ω: how far each step is from keeping the length of the adjoint that passes through it.

        Ω = Σᵢ (‖Jᵢᵀ λᵢ‖ / ‖λᵢ‖ - 1)²        λᵢ = ∂E/∂sᵢ, the whole state

    Args:    as `jaxrnn.bptt.adjoints`.
    Returns: a scalar: the sum over the steps, the mean over the batch. A step that is held, one
             that starts afresh, and one that no gradient reaches (λᵢ = 0) add nothing.
    Raises:  TypeError or ValueError as `jaxrnn.bptt.adjoints`.
    Cost:    an adjoint and one step of it more. Its own gradient goes through the adjoints as
             well, a second derivative through time, which `omega_at_fixed_adjoints` does without.
    Source:  Pascanu, Mikolov & Bengio, ICML 2013, eq. 9, there for the pre-activations of a tanh
             network; tests/training/test_regularizers.py, against Ω from `jax.jacfwd` of each step.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.rnn(jaxrnn.activations.identity)          # with orthogonal weights: Ω = 0
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 4), jax.numpy.ones((50, 2, 3)))
    >>> times = lambda scale: run.at(run.params._replace(w_hh=scale * run.params.w_hh))
    >>> f = lambda scale: jaxrnn.regularizers.omega(times(scale), lambda s: s.h[-1].sum())
    >>> f"{f(1.0):.3f} {f(0.9):.3f}"                               # 50 · (0.9 - 1)²
    '0.000 0.500'
    """
    with precise():
        states, direct = direct_adjoints(run, loss)
        return _omega(run, states, _scaled_adjoints(run, states, direct))


def omega_at_fixed_adjoints(run: Run, loss: Loss) -> Array:
    """Ω again, differentiable in the parameters of each Jᵢ alone: states and adjoints are held.

        ∂⁺Ω/∂θ: sᵢ₋₁ and λᵢ count as constants in Jᵢ(θ)ᵀ λᵢ

    The paper trains with this for the state of pre-activations, where Jᵢ = W diag(σ'(aᵢ₋₁)) has no
    other parameter than W; a `from_step` cell with that state gives its gradient exactly. In the
    state h, Jᵢ = diag(a'(zᵢ(θ))) W, and zᵢ is differentiated as well. No second derivative goes
    through time.

    Args:    as `omega`.
    Returns: as `omega`, and the same value; no gradient but in `params`.
    Raises:  as `omega`.
    Cost:    an adjoint, and one step of it for all i at once, forth and back.
    Source:  Pascanu, Mikolov & Bengio, ICML 2013, section 3.3.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> loss = lambda states: (states.h[-1] ** 2).mean()
    >>> f = lambda params: jaxrnn.regularizers.omega_at_fixed_adjoints(run.at(params), loss)
    >>> jax.grad(f)(run.params).w_hh.shape
    (20, 5)
    """
    check_run(run)
    fixed = jax.lax.stop_gradient(run)
    with precise():
        states, direct = jax.lax.stop_gradient(direct_adjoints(fixed, loss))
        adjoints = jax.lax.stop_gradient(_scaled_adjoints(fixed, states, direct))
        return _omega(fixed.at(run.params), states, adjoints)


def flossing(
    run: Run,
    *,
    target: float | Array = 0.0,
    count: int = 1,
    warmup: int = 0,
    interval: int = 1,
) -> Array:
    """How far the leading Lyapunov exponents are from a target.

        Σⱼ (Λⱼ - Λ*)²,  j = 1 … count        the mean over the batch

    Args:    target: Λ*, nats per step, a number or a scalar array; the others as in
             `jaxrnn.lyapunov.exponents`.
    Returns: a scalar, differentiable where the exponents are distinct; inf where one is -inf.
    Raises:  TypeError or ValueError as `jaxrnn.lyapunov.exponents`, or naming target.
    Cost:    the exponents; its gradient keeps the frames of all T steps, O(T·B·n·count) memory.
    Source:  Engelken, Gradient flossing, NeurIPS 2023.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.rnn(jaxrnn.activations.identity)
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 1, 4), jax.numpy.ones((30, 1)))
    >>> times = lambda scale: run.at(run.params._replace(w_hh=scale * run.params.w_hh))
    >>> f = lambda scale: jaxrnn.regularizers.flossing(times(scale), count=2)    # orthogonal
    >>> f"{f(0.5):.4f}"                                            # 2 (log ½)²
    '0.9609'
    """
    _checks.check_scalar("target", target)
    found = lyapunov.exponents(run, count=count, warmup=warmup, interval=interval)
    off = found.value - jnp.asarray(target, found.value.dtype)
    return jnp.sum(off * off) / max(math.prod(off.shape[:-1]), 1)


@jax.jit
def _scaled_adjoints(run: Run, states: State, direct: State) -> Scaled:
    """λᵢ / 2^eᵢ for every i and example, its largest entry in [½, 1): a direction, or 0."""

    def body(later: Scaled, step: tuple[Any, Steps]) -> tuple[Scaled, Any]:
        before, _, value = scaled_back(run, later, step)
        return before, value

    def back(later: Scaled, item: tuple[Steps, Any]) -> tuple[Scaled, Any]:
        steps, direct = item
        return jax.lax.scan(body, later, (direct, linearised(run, steps)), reverse=True)

    steps, first = trajectory(run, states), scaled_nothing(direct, run.xs.shape[1:-1])
    return over_chunks(back, first, (steps, direct), chunk_of(run), reverse=True)[1]


@jax.jit
def _omega(run: Run, states: State, adjoints: Any) -> Array:
    lead = run.xs.shape[:-1]
    moved = through_step(run, linearised(run, trajectory(run, states)), adjoints)
    # Scaled again: a step may shrink an adjoint beyond what the dtype can square.
    moved = rescaled(moved, jnp.zeros(lead, jnp.int32))
    before, after = _square(adjoints, len(lead)), _square(moved.value, len(lead))
    counted = ~(before == 0)  # NaN is counted: Ω is then NaN
    if run.resets is not None:
        counted &= ~run.resets
    # Where nothing comes through, the root has no derivative: there the ratio is a constant 0.
    some = counted & ~(after == 0)
    one = jnp.ones_like(before)
    ratio = jnp.sqrt(jnp.where(some, after, one) / jnp.where(some, before, one))
    ratio = times_power(ratio, moved.exponent)
    off = jnp.where(some, ratio, 0 * one) - one
    return jnp.sum(jnp.where(counted, off * off, 0 * one)) / max(math.prod(lead[1:]), 1)


def _square(state: State, lead: int) -> Array:
    """‖s‖² over all leaves, `(T, *batch)`."""
    wide = [leaf.astype(accumulator(leaf.dtype)) for leaf in jax.tree.leaves(state)]
    squares = [jnp.sum(leaf * leaf, axis=tuple(range(lead, leaf.ndim))) for leaf in wide]
    return functools.reduce(jnp.add, squares)
