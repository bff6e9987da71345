"""Backpropagation through time, taken apart.

With λₖ = ∂E/∂sₖ, the adjoint, and hₖ₋₁ held constant in the last factor,

    ∂E/∂θ = Σₖ ∂E/∂θ|ₖ        ∂E/∂θ|ₖ = (∂sₖ/∂θ)ᵀ λₖ        λₖ = ∂E/∂sₖ|direct + Jₖ₊₁ᵀ λₖ₊₁

`adjoints` gives λₖ, `temporal_contributions` every ∂E/∂θ|ₖ, `contribution_norms` their sizes
without keeping them, `credit_matrix` the adjoints of each step's own loss.

In every function `loss` is a function of the stacked states that `jaxrnn.unroll` returns, leaves
`(T, *batch, H)`; a loss on the last state is `lambda states: f(states.h[-1])`. `lengths` and
`resets` are those of `unroll`: a step that is held passes its adjoint on and contributes exactly
0; a reset cuts the adjoint off. `state0` counts as given: where the cell makes it from the
parameters, as `from_step(..., init_state=...)` may, that dependence is in no contribution.

Each call traces `loss` anew but compiles the rest once for each cell and shape; a whole call
may stand inside `jax.jit`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from chex import ArrayTree
from jax import Array

from jaxrnn import arguments, norms
from jaxrnn.cell import Cell
from jaxrnn.linearisation import Steps, linearised, trajectory
from jaxrnn.tangent_scan import over_chunks, plan
from jaxrnn.transposition import (
    direct_adjoints,
    parts_and_total,
    run_back,
    to_drive,
    to_each,
)
from jaxrnn.unrolling import check, start, unroll

__all__ = [
    "ContributionNorms",
    "adjoints",
    "contribution_norms",
    "credit_matrix",
    "temporal_contributions",
]


class ContributionNorms(NamedTuple):
    """How large each step's contribution to the gradient is, and what it does to the total.

    norm: params whose leaves `(T,)` are ‖∂E/∂θ|ₖ‖, the Frobenius norm of that leaf.
    inner: params whose leaves `(T,)` are ⟨∂E/∂θ|ₖ, ∂E/∂θ⟩: below 0 where step k works against
        the sum; over k they add up to ‖∂E/∂θ‖².
    total: ∂E/∂θ itself.
    """

    norm: Any
    inner: Any
    total: Any


def adjoints(
    cell: Cell,
    params: ArrayTree,
    xs: Array,
    loss: Callable[[Any], Array],
    state0: Any = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
) -> Any:
    """∂E/∂sₖ for every step k, later states following sₖ.

        λₖ = ∂E/∂sₖ|direct + Jₖ₊₁ᵀ λₖ₊₁

    Args:    loss: states ↦ one real scalar E; all others as in `jaxrnn.unroll`.
    Returns: the tree of the states, leaves `(T, *batch, H)`.
    Raises:  TypeError or ValueError as `jaxrnn.unroll`, or naming `loss`.
    Cost:    one `unroll`, one recurrent matmul for all steps, one reverse scan of O(T·B·G·H²).
    Source:  docs/derivations/bptt.md; tests/test_bptt.py, against complex steps and `jax.grad`.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> params, xs = cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3))
    >>> jaxrnn.bptt.adjoints(cell, params, xs, lambda states: states.h[-1].sum()).c.shape
    (7, 2, 5)
    """
    states, direct = direct_adjoints(cell, params, xs, loss, state0, lengths, resets)
    return _adjoints(cell, params, xs, state0, states, direct, lengths, resets)


def temporal_contributions(
    cell: Cell,
    params: ArrayTree,
    xs: Array,
    loss: Callable[[Any], Array],
    state0: Any = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
) -> Any:
    """∂E/∂θ|ₖ for every step k: what the use of θ in step k alone adds to the gradient.

        ∂E/∂θ|ₖ = (∂sₖ/∂θ)ᵀ λₖ,  sₖ₋₁ held constant        Σₖ ∂E/∂θ|ₖ = ∂E/∂θ

    Args:    as `adjoints`.
    Returns: the tree of the params with a leading axis T, summed over the batch; entry k belongs
             to `states.h[k]`.
    Raises:  as `adjoints`.
    Cost:    as `adjoints`, then O(T·B·P) time and O(T·P) memory for P parameters;
             `contribution_norms` does without the latter.
    Source:  docs/derivations/bptt.md; tests/test_bptt.py, against the gradient with one copy of θ
             for each step.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.rnn()
    >>> params, xs = cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3))
    >>> loss = lambda states: (states.h[-1] ** 2).mean()
    >>> jaxrnn.bptt.temporal_contributions(cell, params, xs, loss).w_hh.shape
    (7, 5, 5)
    """
    states, direct = direct_adjoints(cell, params, xs, loss, state0, lengths, resets)
    return _contributions(cell, params, xs, state0, states, direct, lengths, resets)


def contribution_norms(
    cell: Cell,
    params: ArrayTree,
    xs: Array,
    loss: Callable[[Any], Array],
    state0: Any = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
) -> ContributionNorms:
    """The norm of every ∂E/∂θ|ₖ and its inner product with ∂E/∂θ, leaf by leaf.

        ‖Σ_b δᵇ ⊗ vᵇ‖² = Σ_bc (δᵇ·δᶜ)(vᵇ·vᶜ)        ⟨Σ_b δᵇ ⊗ vᵇ, g⟩ = Σ_b δᵇ·(g vᵇ)

    Args:     as `adjoints`.
    Returns:  ContributionNorms(norm, inner, total), leaves of the first two `(T,)`.
    Raises:   as `adjoints`; NotImplementedError for a batch split over several devices, unless the
              cell comes from `from_step`.
    Cost:     a gradient, one more matmul of the forward pass's size, and `outer_products.sizes`;
              O(P + T·B·G·H) memory, the latter for adjoints of δu and δa. A cell from
              `from_step` takes its steps one by one.
    Accuracy: see `outer_products.sizes`. In float32 an adjoint itself ends at 1e-38.
    Source:   docs/derivations/bptt.md; the Gram matrices are this library's.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.gru()
    >>> params, xs = cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3))
    >>> sizes = jaxrnn.bptt.contribution_norms(cell, params, xs, lambda s: s.h[-1].sum())
    >>> sizes.norm.b_hn.shape, sizes.inner.w_ih.shape, sizes.total.w_hh.shape
    ((7,), (7,), (15, 5))
    """
    states, direct = direct_adjoints(cell, params, xs, loss, state0, lengths, resets)
    return _norms(cell, params, xs, state0, states, direct, lengths, resets)


def credit_matrix(
    cell: Cell,
    params: ArrayTree,
    xs: Array,
    losses: Callable[[Any], Array],
    state0: Any = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
) -> Any:
    """‖∂Eₜ/∂sₖ‖ for every pair of a loss Eₜ and a state sₖ.

        C[t, k] = ‖λₖ‖,  λₖ = ∂Eₜ/∂sₖ = ∂Eₜ/∂sₖ|direct + Jₖ₊₁ᵀ λₖ₊₁

    Args:    losses: states ↦ `(T,)`, one real loss a step; all others as in `adjoints`.
    Returns: the tree of the states, leaves `(T, T)`: row t, column k, the norm over batch and
             units. If Eₜ reads no state after sₜ, everything right of the diagonal is 0.
    Raises:  TypeError or ValueError as `adjoints`, naming `losses`.
    Cost:    one `unroll`, then T times the reverse scan of `adjoints`, O(T²·B·G·H²), some rows at
             once so that about 2²² numbers are held; O(T²) result.
    Source:  docs/derivations/bptt.md for λₖ; tests/test_bptt.py, against `adjoints` of each loss.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.gru()
    >>> params, xs = cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3))
    >>> credit = jaxrnn.bptt.credit_matrix(cell, params, xs, lambda s: (s.h ** 2).sum((1, 2)))
    >>> credit.h.shape, float(credit.h[2, 4])
    ((7, 7), 0.0)
    """
    check(cell, params, xs, state0, lengths, resets)
    arguments.check_callable("losses", losses, "(states) -> (T,)")
    states = unroll(cell, params, xs, state0, lengths=lengths, resets=resets)
    T = xs.shape[0]
    arguments.check_loss("losses", losses, states, (T,))
    steps = _linearised(cell, params, xs, state0, states, lengths, resets)
    values, pull = jax.vjp(losses, states)
    one = jnp.ones_like(values)

    def row(t: Array) -> Any:
        (direct,) = pull(jnp.where(jnp.arange(T) == t, one, jnp.zeros_like(one)))
        return jax.tree.map(_norm_of_step, run_back(cell, params, steps, direct))

    held = max(1, sum(leaf.size for leaf in jax.tree.leaves(states)))
    rows = max(1, min(T, ROW_NUMBERS // held))
    return jax.lax.map(row, jnp.arange(T), batch_size=rows)


ROW_NUMBERS = 2**22


def _norm_of_step(leaf: Array) -> Array:
    """`(T, *batch, H)` → `(T,)`."""
    return norms.norm(leaf, tuple(range(1, leaf.ndim)))


@functools.partial(jax.jit, static_argnums=0)
def _linearised(
    cell: Cell, params: ArrayTree, xs: Array, state0: Any, states: Any, *masks: Any
) -> Steps:
    return linearised(cell, params, trajectory(cell, params, xs, state0, states, *masks))


@functools.partial(jax.jit, static_argnums=0)
def _adjoints(
    cell: Cell, params: ArrayTree, xs: Array, state0: Any, states: Any, direct: Any, *masks: Any
) -> Any:
    steps = linearised(cell, params, trajectory(cell, params, xs, state0, states, *masks))
    return run_back(cell, params, steps, direct)


@functools.partial(jax.jit, static_argnums=0)
def _contributions(
    cell: Cell, params: ArrayTree, xs: Array, state0: Any, states: Any, direct: Any, *masks: Any
) -> Any:
    steps = linearised(cell, params, trajectory(cell, params, xs, state0, states, *masks))
    drives = to_drive(cell, params, steps, run_back(cell, params, steps, direct))
    return to_each(cell, params, steps, drives)


@functools.partial(jax.jit, static_argnums=0)
def _norms(
    cell: Cell, params: ArrayTree, xs: Array, state0: Any, states: Any, direct: Any, *masks: Any
) -> ContributionNorms:
    steps = trajectory(cell, params, xs, state0, states, *masks)
    chunk = plan(cell, params, xs, start(cell, params, xs, state0), None).chunk
    parts, total = parts_and_total(cell, params, steps, direct, chunk)

    def measure(nothing: None, item: tuple[Any, Steps]) -> tuple[None, Any]:
        parts, steps = item
        return nothing, cell.contribution_sizes(params, parts, steps.before, steps.xs, total)

    _, (norm, inner) = over_chunks(measure, None, (parts, steps), chunk)
    return ContributionNorms(norm, inner, total)
