"""Backpropagation through time, taken apart.

With λₖ = ∂E/∂sₖ, the adjoint, and sₖ₋₁ held constant in ∂sₖ/∂θ,

    ∂E/∂θ = Σₖ ∂E/∂θ|ₖ        ∂E/∂θ|ₖ = (∂sₖ/∂θ)ᵀ λₖ        λₖ = ∂E/∂sₖ|direct + Jₖ₊₁ᵀ λₖ₊₁

`adjoints` gives λₖ, `temporal_contributions` every ∂E/∂θ|ₖ, `contribution_norms` their sizes
without keeping them, `credit_matrix` the sizes of the adjoints of each step's own loss.

In every function `loss` is a function of the stacked states that `jaxrnn.unroll` returns, leaves
`(T, *batch, H)`; a loss on the last state is `lambda states: f(states.h[-1])`. A step that is held
passes its adjoint on and contributes exactly 0; a reset cuts the adjoint off. `state0` counts as
a constant. A cell may make it from the parameters, as with `from_step(..., init_state=...)`; no
contribution contains that dependence.

Each call traces `loss` anew but compiles the rest once for each cell and shape, `credit_matrix`
excepted; a whole call may stand inside `jax.jit`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn import _checks
from jaxrnn.cells.contract import Loss, Params, State
from jaxrnn.numerics import norms
from jaxrnn.numerics.tangents import moving, whole
from jaxrnn.running.adjoint import (
    direct_adjoints,
    parts_and_total,
    run_back,
    to_drive,
    to_each,
)
from jaxrnn.running.chunks import over_chunks
from jaxrnn.running.run import Run, check_run, precise, step_count, takes_run
from jaxrnn.running.steps import Steps, chunk_of, linearised, trajectory

__all__ = [
    "ContributionNorms",
    "adjoints",
    "contribution_norms",
    "credit_matrix",
    "temporal_contributions",
]


class ContributionNorms(NamedTuple):
    """How large each step's contribution to the gradient is, and what it does to the total.

    Attributes:
      norm: ‖∂E/∂θ|ₖ‖, the Frobenius norm, leaf by leaf: the tree of the params, leaves `(T,)`.
      inner: ⟨∂E/∂θ|ₖ, ∂E/∂θ⟩, leaf by leaf: the tree of the params, leaves `(T,)`. It is below 0
        where step k works against the sum. Over all k it adds up to ‖∂E/∂θ‖².
      total: ∂E/∂θ itself, the tree of the params.
    """

    norm: Any
    inner: Any
    total: Any


@takes_run
def adjoints(run: Run, loss: Loss) -> State:
    """∂E/∂sₖ for every step k, later states following sₖ.

        λₖ = ∂E/∂sₖ|direct + Jₖ₊₁ᵀ λₖ₊₁

    Args:
      run: A `jaxrnn.Run`.
      loss: A function of the states that returns one real number E.

    Returns:
      The tree of the states, leaves `(T, *batch, H)`.

    Raises:
      TypeError: If `run` is not a `jaxrnn.Run`, or `loss` is not a function from the states to a
        real number.
      ValueError: If the parts of `run` do not fit each other, or `loss` does not return a scalar.

    Cost:
      One `unroll`, one recurrent matmul for all steps, one reverse scan of O(T·B·G·H²).

    Source:
      docs/derivations/bptt.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> jaxrnn.bptt.adjoints(run, lambda states: states.h[-1].sum()).c.shape
    (7, 2, 5)
    """
    with precise():
        return _adjoints(run, *direct_adjoints(run, loss))


@takes_run
def temporal_contributions(run: Run, loss: Loss) -> Params:
    """∂E/∂θ|ₖ for every step k: what the use of θ in step k alone adds to the gradient.

        ∂E/∂θ|ₖ = (∂sₖ/∂θ)ᵀ λₖ,  sₖ₋₁ held constant        Σₖ ∂E/∂θ|ₖ = ∂E/∂θ

    Args:
      run: A `jaxrnn.Run`.
      loss: A function of the states that returns one real number E.

    Returns:
      The tree of the params with a leading axis T, summed over the batch. Entry k belongs to
      `states.h[k]`.

    Raises:
      TypeError: As in `adjoints`.
      ValueError: As in `adjoints`.

    Cost:
      That of `adjoints`, then O(T·B·P) time and O(T·P) memory for P parameters.
      `contribution_norms` needs no O(T·P) memory.

    Source:
      docs/derivations/bptt.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.rnn()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> loss = lambda states: (states.h[-1] ** 2).mean()
    >>> jaxrnn.bptt.temporal_contributions(run, loss).w_hh.shape
    (7, 5, 5)
    """
    with precise():
        return _contributions(run, *direct_adjoints(run, loss))


@takes_run
def contribution_norms(run: Run, loss: Loss) -> ContributionNorms:
    """The norm of every ∂E/∂θ|ₖ and its inner product with ∂E/∂θ, leaf by leaf.

        ‖Σ_b δᵇ ⊗ vᵇ‖² = Σ_bc (δᵇ·δᶜ)(vᵇ·vᶜ)        ⟨Σ_b δᵇ ⊗ vᵇ, g⟩ = Σ_b δᵇ·(g vᵇ)

    for a weight W: of example b, δᵇ is the adjoint of W v and vᵇ is v, xₖ or hₖ₋₁.

    Args:
      run: A `jaxrnn.Run`.
      loss: A function of the states that returns one real number E.

    Returns:
      ContributionNorms(norm, inner, total), leaves of the first two `(T,)`.

    Raises:
      TypeError: As in `adjoints`.
      ValueError: As in `adjoints`.
      NotImplementedError: If the batch is split over several devices. A cell from `from_step`
        accepts such a batch.

    Cost:
      A gradient, one more matmul of the forward pass's size, and Gram matrices `(B, B)` at each
      step. O(P + T·B·G·H) memory; the second term is for the adjoints of δu and δa. For a cell
      from `from_step` the steps are measured one by one.

    Accuracy:
      In float32 an adjoint below about 1e-38 becomes 0, and so does its contribution.

    Source:
      docs/derivations/bptt.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.gru()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> sizes = jaxrnn.bptt.contribution_norms(run, lambda s: s.h[-1].sum())
    >>> sizes.norm.b_hn.shape, sizes.inner.w_ih.shape, sizes.total.w_hh.shape
    ((7,), (7,), (15, 5))
    """
    with precise():
        return _norms(run, *direct_adjoints(run, loss))


@takes_run
def credit_matrix(run: Run, losses: Callable[[Any], Array]) -> State:
    """‖∂Eₜ/∂sₖ‖ for every pair of a loss Eₜ and a state sₖ.

        C[t, k] = ‖λₖ‖,  λₖ = ∂Eₜ/∂sₖ = ∂Eₜ/∂sₖ|direct + Jₖ₊₁ᵀ λₖ₊₁

    Args:
      run: A `jaxrnn.Run`.
      losses: A function of the states that returns `(T,)` real numbers, the loss of each step.

    Returns:
      The tree of the states, leaves `(T, T)`: row t, column k holds the norm over batch and units.
      If Eₜ reads no state after sₜ, everything right of the diagonal is 0.

    Raises:
      TypeError: If `run` is not a `jaxrnn.Run`, or `losses` is not a function from the states to
        real numbers.
      ValueError: If the parts of `run` do not fit each other, or `losses` does not return `(T,)`.

    Cost:
      One `unroll`, then T times the reverse scan of `adjoints`: O(T²·B·G·H²). The rows that are
      computed at the same time hold about 2²² numbers. The result takes O(T²) memory. A
      call outside `jax.jit` compiles the rows anew, since `losses` stands among them: put the whole
      call inside `jax.jit` where it is repeated.

    Source:
      docs/derivations/bptt.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.gru()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> credit = jaxrnn.bptt.credit_matrix(run, lambda s: (s.h ** 2).sum((1, 2)))
    >>> credit.h.shape, float(credit.h[2, 4])
    ((7, 7), 0.0)
    """
    check_run(run)
    _checks.check_callable("losses", losses, "(states) -> (T,)")
    with precise():
        states = run.states()
        _checks.check_loss("losses", losses, states, (step_count(run),))
        return _credit(run, states, losses)


def _credit(run: Run, states: State, losses: Callable[[Any], Array]) -> State:
    # Not jitted: with `losses` a static argument, every new lambda would compile all of it again.
    T = step_count(run)
    steps = _linearised(run, states)
    values, pull = jax.vjp(lambda own: losses(whole(own, states)), moving(states))
    # Made of the values, so that it has their dtype and is placed over devices as they are.
    one = jnp.ones_like(values)

    def row(t: Array) -> State:
        (direct,) = pull(jnp.where(jnp.arange(T) == t, one, jnp.zeros_like(one)))
        return jax.tree.map(_norm_of_step, run_back(run, steps, direct))

    # All T rows at once would hold T times the adjoints. A state without entries holds 0 numbers,
    # by which nothing can be divided.
    held = max(1, sum(leaf.size for leaf in jax.tree.leaves(states)))
    rows = max(1, min(T, ROW_NUMBERS // held))
    return jax.lax.map(row, jnp.arange(T), batch_size=rows)


# Numbers in the rows that go back together, 16 MiB in float32: large matmuls, or a small working
# set. benchmarks/results/constants_cpu.json; docs/decisions/numbers-at-once.md
ROW_NUMBERS = 2**22


def _norm_of_step(leaf: Array) -> Array:
    """`(T, *batch, H)` → `(T,)`."""
    return norms.norm(leaf, tuple(range(1, leaf.ndim)))


@jax.jit
def _linearised(run: Run, states: State) -> Steps:
    return linearised(run, trajectory(run, states))


# The states come as an argument: the loss was differentiated at them, so a second unroll would only
# repeat the first.
@jax.jit
def _adjoints(run: Run, states: State, direct: State) -> State:
    return run_back(run, linearised(run, trajectory(run, states)), direct)


@jax.jit
def _contributions(run: Run, states: State, direct: State) -> Params:
    steps = linearised(run, trajectory(run, states))
    return to_each(run, steps, to_drive(run, steps, run_back(run, steps, direct)))


@jax.jit
def _norms(run: Run, states: State, direct: State) -> ContributionNorms:
    steps = trajectory(run, states)
    # Two passes: an inner product with the total must wait until every step has been added to it.
    # Between them the adjoints of δu and δa are kept, not the coefficients.
    parts, total = parts_and_total(run, steps, direct)

    def measure(nothing: None, item: tuple[Any, Steps]) -> tuple[None, Any]:
        parts, steps = item
        at = run.params, parts, steps.before, steps.xs
        return nothing, run.cell.contribution_sizes(*at, total)

    _, (norm, inner) = over_chunks(measure, None, (parts, steps), chunk_of(run))
    return ContributionNorms(norm, inner, total)
