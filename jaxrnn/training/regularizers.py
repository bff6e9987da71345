"""Penalties on how gradients and tangents grow through time, to be added to a loss.

    Ω = Σᵢ (‖Jᵢᵀ λᵢ‖ / ‖λᵢ‖ - 1)²        flossing: Σⱼ (Λⱼ - Λ*)²

λᵢ = ∂E/∂sᵢ are adjoints and Λⱼ Lyapunov exponents; both are written λ elsewhere. Ω asks each step
to keep the length of the one adjoint that the loss sends back through it. Flossing asks the leading
Lyapunov exponents to be at a target. Both are differentiable in every argument that is an array,
and work for every cell. An adjoint is kept as a value and a power of two, so Ω still sees the
direction of a gradient that has faded below 1e-38.
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
from jaxrnn.running.adjoint import direct_adjoints, scaled_back, scaled_nothing, through_step
from jaxrnn.running.chunks import over_chunks
from jaxrnn.running.run import Run, batch_of, check_run, precise, step_count, takes_run
from jaxrnn.running.steps import Steps, chunk_of, linearised, trajectory

__all__ = ["flossing", "omega", "omega_at_fixed_adjoints"]


@takes_run
def omega(run: Run, loss: Loss) -> Array:
    """Ω: how far each step is from keeping the length of the adjoint that passes through it.

        Ω = Σᵢ (‖Jᵢᵀ λᵢ‖ / ‖λᵢ‖ - 1)²        λᵢ = ∂E/∂sᵢ, the whole state

    Args:
      run: A `jaxrnn.Run`.
      loss: A function of the states that gives one real number E.

    Returns:
      A scalar, the sum over the steps and the mean over the batch. Three kinds of steps add
      nothing: a step that is held, a step before which the state is reset, and a step that no
      gradient reaches (λᵢ = 0).

    Raises:
      TypeError: If `run` is no run, or `loss` no function of the states to a real number.
      ValueError: If what `loss` gives is not a scalar, or parts of the run do not fit each other.

    Cost:
      That of `jaxrnn.bptt.adjoints`, and one adjoint step more. Its own gradient goes through the
      adjoints as well. That is a second derivative through time, which `omega_at_fixed_adjoints`
      does without.

    Source:
      Pascanu, Mikolov & Bengio, ICML 2013, eq. 9, there for the pre-activations of a tanh network;
      docs/derivations/regularizers.md.

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


@takes_run
def omega_at_fixed_adjoints(run: Run, loss: Loss) -> Array:
    """Ω, differentiable only in the parameters of each Jᵢ: states and adjoints are held fixed.

        ∂⁺Ω/∂θ: sᵢ₋₁ and λᵢ count as constants in Jᵢ(θ)ᵀ λᵢ

    No second derivative goes through time. The paper trains with this for the state of
    pre-activations, where Jᵢ = W diag(σ'(aᵢ₋₁)) has no other parameter than W. A `from_step` cell
    with that state gives the paper's gradient exactly. In the state h, Jᵢ = diag(a'(zᵢ(θ))) W, and
    zᵢ is differentiated as well.

    Args:
      run: A `jaxrnn.Run`.
      loss: A function of the states that gives one real number E. What it closes over is held
        fixed, too.

    Returns:
      The scalar that `omega` returns. It has a gradient in `run.params` alone.

    Raises:
      TypeError: As in `omega`.
      ValueError: As in `omega`.

    Cost:
      That of `jaxrnn.bptt.adjoints`, then one adjoint step for all i at once; its gradient goes
      back through that step alone.

    Source:
      Pascanu, Mikolov & Bengio, ICML 2013, section 3.3; docs/derivations/regularizers.md.

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
    # The run alone is not enough: what the loss closes over, such as a read-out, reaches the
    # adjoints as well.
    with precise():
        states, direct = jax.lax.stop_gradient(direct_adjoints(fixed, loss))
        adjoints = jax.lax.stop_gradient(_scaled_adjoints(fixed, states, direct))
        return _omega(fixed.at(run.params), states, adjoints)


@takes_run
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

    Args:
      run: A `jaxrnn.Run` of at least one step, without lengths and resets.
      target: Λ* in nats per step, a number or a scalar array.
      count: How many exponents, the largest first.
      warmup: Steps at the start that are not counted, as in `jaxrnn.lyapunov.exponents`.
      interval: Steps between two QR factorisations, as in `jaxrnn.lyapunov.exponents`.

    Returns:
      A scalar, differentiable where the exponents are distinct. It is inf where an exponent is
      -inf.

    Raises:
      TypeError: If `run` is no run, `target` neither a real number nor an array of real floats, or
        `count`, `warmup` or `interval` no integer.
      ValueError: If `target` is not finite or not a scalar, the run has no step, has lengths or
        resets, `count` is not in [1, n] for a state of n entries, `warmup` is not in [0, T), or
        `interval` is below 1.
      NotImplementedError: If an explicit mesh splits the inputs.

    Cost:
      That of `jaxrnn.lyapunov.exponents`. Its gradient keeps the frames of all T steps,
      O(T·B·n·count) memory.

    Source:
      Engelken, Gradient flossing, NeurIPS 2023; docs/derivations/regularizers.md.

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
    # A batch of size 0 has a penalty of 0, not 0/0.
    return jnp.sum(off * off) / max(math.prod(off.shape[:-1]), 1)


@jax.jit
def _scaled_adjoints(run: Run, states: State, direct: State) -> Scaled:
    """λᵢ / 2^eᵢ for every i and example, its largest entry in [½, 1): a direction, or 0."""

    def body(later: Scaled, step: tuple[Any, Steps]) -> tuple[Scaled, Any]:
        # Ω is of directions alone, so the exponent of the adjoint is left out.
        before, _, value = scaled_back(run, later, step)
        return before, value

    def back(later: Scaled, item: tuple[Steps, Any]) -> tuple[Scaled, Any]:
        steps, direct = item
        return jax.lax.scan(body, later, (direct, linearised(run, steps)), reverse=True)

    steps, first = trajectory(run, states), scaled_nothing(direct, batch_of(run))
    return over_chunks(back, first, (steps, direct), chunk_of(run), reverse=True)[1]


@jax.jit
def _omega(run: Run, states: State, adjoints: Any) -> Array:
    lead = step_count(run), *batch_of(run)
    moved = through_step(run, linearised(run, trajectory(run, states)), adjoints)
    # Scaled again, since one step may shrink an adjoint below what the dtype can square.
    moved = rescaled(moved, jnp.zeros(lead, jnp.int32))
    before, after = _square(adjoints, len(lead)), _square(moved.value, len(lead))
    # Not `before > 0`, which would drop NaN: where something is NaN, Ω is NaN. A held step is
    # counted and adds 0, for its adjoint passes unchanged.
    counted = ~(before == 0)
    if run.resets is not None:
        counted &= ~run.resets
    # Where nothing comes through, the ratio is a constant 0, since the root has no derivative
    # there. Its argument is set to 1 as well: `where` alone would leave inf · 0 = NaN in the
    # gradient.
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
