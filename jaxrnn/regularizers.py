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
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from chex import ArrayTree
from jax import Array

from jaxrnn import arguments, lyapunov
from jaxrnn.cell import Cell
from jaxrnn.linearisation import Steps, linearised, trajectory
from jaxrnn.projections import accumulator
from jaxrnn.scaling import Scaled, rescaled, times_power
from jaxrnn.tangent_scan import over_chunks, plan
from jaxrnn.transposition import direct_adjoints, scaled_back, scaled_nothing, through_step
from jaxrnn.unrolling import start

__all__ = ["flossing", "omega", "omega_at_fixed_adjoints"]


def omega(
    cell: Cell,
    params: ArrayTree,
    xs: Array,
    loss: Callable[[Any], Array],
    state0: Any = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
) -> Array:
    """Ω: how far each step is from keeping the length of the adjoint that passes through it.

        Ω = Σᵢ (‖Jᵢᵀ λᵢ‖ / ‖λᵢ‖ - 1)²        λᵢ = ∂E/∂sᵢ, the whole state

    Args:    as `jaxrnn.bptt.adjoints`.
    Returns: a scalar: the sum over the steps, the mean over the batch. A step that is held, one
             that starts afresh, and one that no gradient reaches (λᵢ = 0) add nothing.
    Raises:  TypeError or ValueError as `jaxrnn.bptt.adjoints`.
    Cost:    an adjoint and one step of it more. Its own gradient goes through the adjoints as
             well, a second derivative through time, which `omega_at_fixed_adjoints` does without.
    Source:  Pascanu, Mikolov & Bengio, ICML 2013, eq. 9, there for the pre-activations of a tanh
             network; tests/test_regularizers.py, against Ω from `jax.jacfwd` of each step.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.rnn(jaxrnn.activations.identity)          # with orthogonal weights: Ω = 0
    >>> params, xs = cell.init(jax.random.key(0), 3, 4), jax.numpy.ones((50, 2, 3))
    >>> f = lambda scale: jaxrnn.regularizers.omega(
    ...     cell, params._replace(w_hh=scale * params.w_hh), xs, lambda states: states.h[-1].sum())
    >>> f"{f(1.0):.3f} {f(0.9):.3f}"                               # 50 · (0.9 - 1)²
    '0.000 0.500'
    """
    states, direct = direct_adjoints(cell, params, xs, loss, state0, lengths, resets)
    adjoints = _scaled_adjoints(cell, params, xs, state0, states, direct, lengths, resets)
    return _omega(cell, params, xs, state0, states, adjoints, lengths, resets)


def omega_at_fixed_adjoints(
    cell: Cell,
    params: ArrayTree,
    xs: Array,
    loss: Callable[[Any], Array],
    state0: Any = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
) -> Array:
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
    >>> params, xs = cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3))
    >>> loss = lambda states: (states.h[-1] ** 2).mean()
    >>> f = lambda params: jaxrnn.regularizers.omega_at_fixed_adjoints(cell, params, xs, loss)
    >>> jax.grad(f)(params).w_hh.shape
    (20, 5)
    """
    at = jax.lax.stop_gradient((params, xs, state0))
    states, direct = direct_adjoints(cell, *at[:2], loss, at[2], lengths, resets)
    held = jax.lax.stop_gradient((states, direct))
    adjoints = _scaled_adjoints(cell, *at, *held, lengths, resets)
    return _omega(cell, params, *at[1:], held[0], jax.lax.stop_gradient(adjoints), lengths, resets)


def flossing(
    cell: Cell,
    params: ArrayTree,
    xs: Array,
    state0: Any = None,
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
    >>> params = cell.init(jax.random.key(0), 1, 4)                # orthogonal: all exponents 0
    >>> f = lambda scale: jaxrnn.regularizers.flossing(
    ...     cell, params._replace(w_hh=scale * params.w_hh), jax.numpy.ones((30, 1)), count=2)
    >>> f"{f(0.5):.4f}"                                            # 2 (log ½)²
    '0.9609'
    """
    arguments.check_scalar("target", target)
    found = lyapunov.exponents(
        cell, params, xs, state0, count=count, warmup=warmup, interval=interval
    )
    off = found.value - jnp.asarray(target, found.value.dtype)
    return jnp.sum(off * off) / max(math.prod(off.shape[:-1]), 1)


@functools.partial(jax.jit, static_argnums=0)
def _scaled_adjoints(
    cell: Cell,
    params: ArrayTree,
    xs: Array,
    state0: Any,
    states: Any,
    direct: Any,
    lengths: Array | None,
    resets: Array | None,
) -> Any:
    """λᵢ / 2^eᵢ for every i and example, its largest entry in [½, 1): a direction, or 0."""

    def body(later: Scaled, step: tuple[Any, Steps]) -> tuple[Scaled, Any]:
        before, _, value = scaled_back(cell, params, later, step)
        return before, value

    def back(later: Scaled, item: tuple[Steps, Any]) -> tuple[Scaled, Any]:
        steps, direct = item
        steps = linearised(cell, params, steps)
        return jax.lax.scan(body, later, (direct, steps), reverse=True)

    steps = trajectory(cell, params, xs, state0, states, lengths, resets)
    first = scaled_nothing(direct, xs.shape[1:-1])
    chunk = plan(cell, params, xs, start(cell, params, xs, state0), None).chunk
    return over_chunks(back, first, (steps, direct), chunk, reverse=True)[1]


@functools.partial(jax.jit, static_argnums=0)
def _omega(
    cell: Cell,
    params: ArrayTree,
    xs: Array,
    state0: Any,
    states: Any,
    adjoints: Any,
    lengths: Array | None,
    resets: Array | None,
) -> Array:
    steps = trajectory(cell, params, xs, state0, states, lengths, resets)
    moved = through_step(cell, params, linearised(cell, params, steps), adjoints)
    # Scaled again: a step may shrink an adjoint beyond what the dtype can square.
    moved = rescaled(moved, jnp.zeros(xs.shape[:-1], jnp.int32))
    before, after = _square(adjoints, xs.ndim - 1), _square(moved.value, xs.ndim - 1)
    counted = ~(before == 0)  # NaN is counted: Ω is then NaN
    if resets is not None:
        counted &= ~resets
    # Where nothing comes through, the root has no derivative: there the ratio is a constant 0.
    some = counted & ~(after == 0)
    one = jnp.ones_like(before)
    ratio = jnp.sqrt(jnp.where(some, after, one) / jnp.where(some, before, one))
    ratio = times_power(ratio, moved.exponent)
    off = jnp.where(some, ratio, 0 * one) - one
    return jnp.sum(jnp.where(counted, off * off, 0 * one)) / max(math.prod(xs.shape[1:-1]), 1)


def _square(state: Any, lead: int) -> Array:
    """‖s‖² over all leaves, `(T, *batch)`."""
    wide = [leaf.astype(accumulator(leaf.dtype)) for leaf in jax.tree.leaves(state)]
    squares = [jnp.sum(leaf * leaf, axis=tuple(range(lead, leaf.ndim))) for leaf in wide]
    return functools.reduce(jnp.add, squares)
