"""How far a derivative reaches: the transport ∂sₜ/∂sₖ and its size at every lag.

    ∂sₜ/∂sₖ = Jₜ Jₜ₋₁ ⋯ Jₖ₊₁        Jᵢ = ∂sᵢ/∂sᵢ₋₁        ∂sₜ/∂sₜ = 1

It is that of the full state, (h, c) for the LSTM. Every product is kept as a value and a power of
two (`jaxrnn.scaled`), so that nothing overflows or underflows at any lag. No stack of Jacobians
exists: a product is pushed through the cell's tangent or its transpose, one step at a time.

`transport_norms` and `frobenius_norms` give the size of the whole matrix. `adjoint_norms` and
`tangent_norms` give that of one combination of rows or columns, at a fraction of the cost. Through
a held step the transport is the identity; across a reset it is 0, whose log is -inf.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn import _checks
from jaxrnn.cells.contract import State
from jaxrnn.numerics import norms, state_vectors
from jaxrnn.numerics.scaled import Scaled, log_of, rescaled
from jaxrnn.numerics.tangents import moving
from jaxrnn.running.adjoint import through_step
from jaxrnn.running.chunks import over_chunks
from jaxrnn.running.run import (
    Run,
    batch_of,
    check_vector_state,
    first_state,
    precise,
    step_count,
    takes_run,
    until,
)
from jaxrnn.running.steps import Steps, chunk_of, linearised, push_through, trajectory

__all__ = ["adjoint_norms", "frobenius_norms", "tangent_norms", "transport", "transport_norms"]


@takes_run
def transport(run: Run, k: int, t: int) -> Scaled:
    """∂sₜ/∂sₖ, exact for any k ≤ t.

        ∂sₜ/∂sₖ = Jₜ Jₜ₋₁ ⋯ Jₖ₊₁        1 for k = t

    Args:
      run: A `jaxrnn.Run`.
      k: Index of the earlier state, 0 ≤ k ≤ t.
      t: Index of the later state, t < T.

    Returns:
      A Scaled: a Jacobian's tree, `value.h.c (*batch, H, H)` for ∂hₜ/∂cₖ, and its exponent
      `(*batch,)`. `.unscaled()` gives the plain tree.

    Raises:
      TypeError: If `run` is not a `jaxrnn.Run`, or `k` or `t` is not an integer; else as in
        `jaxrnn.unroll`.
      ValueError: If `k` or `t` is out of range, or a leaf of the state is not a vector; else as in
        `jaxrnn.unroll`.

    Cost:
      One `unroll` to t, then t - k adjoint steps of n rows each: O((t-k)·B·n·G·H²).

    Source:
      docs/derivations/products.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> jaxrnn.products.transport(run, 1, 4).value.h.c.shape
    (2, 5, 5)
    """
    check_vector_state(run)
    _checks.check_integer("t", t, least=0, most=step_count(run) - 1)
    _checks.check_integer("k", k, least=0, most=t)
    with precise():
        return _transport(until(run, t), k)


@takes_run
def transport_norms(run: Run) -> Array:
    """The largest singular value of ∂s_{T-1}/∂sₖ for every k, its log.

        log σ_max(∂s_{T-1}/∂sₖ) = log σ_max(J_{T-1} ⋯ Jₖ₊₁)

    Args:
      run: A `jaxrnn.Run`.

    Returns:
      `(T, *batch)`, in nats. Entry k has lag T-1-k; the last one is log 1 = 0. For another last
      step t make the run of `xs[:t+1]`.

    Raises:
      TypeError: If `run` is not a `jaxrnn.Run`; else as in `jaxrnn.unroll`.
      ValueError: If a leaf of the state is not a vector; else as in `jaxrnn.unroll`.

    Cost:
      That of `frobenius_norms`, and the singular values of T matrices `(n, n)`: O(T·B·n³).

    Source:
      docs/derivations/products.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.rnn(jaxrnn.activations.identity)
    >>> params = cell.init(jax.random.key(0), 1, 4)
    >>> half = params._replace(w_hh=params.w_hh / 2)   # half an orthogonal matrix
    >>> run = jaxrnn.Run(cell, half, jax.numpy.ones((3, 1)))
    >>> [f"{x:.4f}" for x in jaxrnn.products.transport_norms(run)]
    ['-1.3863', '-0.6931', '0.0000']
    """
    check_vector_state(run)
    with precise():
        return of_steps(run)


@takes_run
def frobenius_norms(run: Run) -> Array:
    """The Frobenius norm of ∂s_{T-1}/∂sₖ for every k, its log; cheaper than `transport_norms`.

        log σ_max(∂s_{T-1}/∂sₖ) ≤ log ‖∂s_{T-1}/∂sₖ‖_F ≤ log σ_max(∂s_{T-1}/∂sₖ) + ½ log n

    Args:
      run: A `jaxrnn.Run`.

    Returns:
      As in `transport_norms`, but the last entry is ½ log n.

    Raises:
      TypeError: As in `transport_norms`.
      ValueError: As in `transport_norms`.

    Cost:
      One `unroll`, then T adjoint steps of n rows each: O(T·B·n·G·H²) time, O(B·n²) memory beside
      the trajectory.

    Source:
      docs/derivations/products.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.gru()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> jaxrnn.products.frobenius_norms(run).shape
    (7, 2)
    """
    check_vector_state(run)
    with precise():
        return _norms(_frobenius_of_rows, run)


@takes_run
def adjoint_norms(run: Run, cotangent: State) -> Array:
    """How the gradient of a loss on the last state fades, for every k.

        log ‖(∂s_{T-1}/∂sₖ)ᵀ u‖ = log ‖Jₖ₊₁ᵀ ⋯ J_{T-1}ᵀ u‖

    Args:
      run: A `jaxrnn.Run`.
      cotangent: u, the gradient of the loss with respect to the last state: a state with leaves
        `(*batch, H)`.

    Returns:
      `(T, *batch)`, in nats. Entry k has lag T-1-k; the last one is log ‖u‖.

    Raises:
      TypeError: If `run` is not a `jaxrnn.Run`, or `cotangent` has another tree or dtype than the
        state; else as in `jaxrnn.unroll`.
      ValueError: If `cotangent` has another shape than the state, or a leaf of the state is not a
        vector; else as in `jaxrnn.unroll`.

    Cost:
      That of one adjoint: one `unroll` and O(T·B·G·H²).

    Source:
      docs/derivations/products.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> ones = jaxrnn.LSTMState(*[jax.numpy.ones((2, 5))] * 2)
    >>> jaxrnn.products.adjoint_norms(run, ones).shape
    (7, 2)
    """
    state = check_vector_state(run)
    _checks.check_tree("cotangent", cotangent, state, "the state")
    with precise():
        return _adjoint_norms(run, cotangent)


@takes_run
def tangent_norms(run: Run, tangent: Any) -> Array:
    """How a change of the state after the first step grows, for every t.

        log ‖∂sₜ/∂s₁ v‖ = log ‖Jₜ ⋯ J₂ v‖        s₁ = states[0], the state after xs[0]

    Args:
      run: A `jaxrnn.Run`.
      tangent: v, the change of that state: a state with leaves `(*batch, H)`.

    Returns:
      `(T, *batch)`, in nats. The first entry is log ‖v‖.

    Raises:
      TypeError: If `run` is not a `jaxrnn.Run`, or `tangent` has another tree or dtype than the
        state; else as in `jaxrnn.unroll`.
      ValueError: If `tangent` has another shape than the state, or a leaf of the state is not a
        vector; else as in `jaxrnn.unroll`.

    Cost:
      One `unroll` and one tangent: O(T·B·G·H²).

    Source:
      docs/derivations/products.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.gru()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> ones = jaxrnn.GRUState(jax.numpy.ones((2, 5)))
    >>> jaxrnn.products.tangent_norms(run, ones).shape
    (7, 2)
    """
    state = check_vector_state(run)
    _checks.check_tree("tangent", tangent, state, "the state")
    with precise():
        return _tangent_norms(run, tangent)


# --- a product, row by row ----------------------------------------------------------


# k is static, since it cuts the arrays: every other k compiles anew.
@functools.partial(jax.jit, static_argnums=1)
def _transport(run: Run, k: int) -> Scaled:
    after_k = jax.tree.map(lambda leaf: leaf[k + 1 :], trajectory(run))
    rows = state_vectors.unit_rows(moving(first_state(run)))

    def nothing(rows: Scaled) -> None:
        return None

    rows, _ = _back(run, after_k, rows, _through_rows, nothing)
    return _as_jacobian(rows)


def of_steps(run: Run, steps: Steps | None = None) -> Array:
    """`transport_norms` for a run that is checked and whose steps are known."""
    return _norms(_spectral_of_rows, run, steps)


@functools.partial(jax.jit, static_argnums=0)
def _norms(size: Any, run: Run, steps: Steps | None = None) -> Array:
    rows = state_vectors.unit_rows(moving(first_state(run)))
    return _back(run, trajectory(run) if steps is None else steps, rows, _through_rows, size)[1]


@jax.jit
def _adjoint_norms(run: Run, u: Any) -> Array:
    u = rescaled(u, jnp.zeros(batch_of(run), jnp.int32))
    return _back(run, trajectory(run), u, through_step, state_vectors.log_norm_of_state)[1]


@jax.jit
def _tangent_norms(run: Run, v: Any) -> Array:
    v = rescaled(v, jnp.zeros(batch_of(run), jnp.int32))

    def forward(v: Scaled, step: Steps) -> tuple[Scaled, Array]:
        # A scaled value is never 16-bit; the cell's tangent wants the dtype of the state.
        new = push_through(run, step, state_vectors.cast_like(moving(step.before), v.value))
        return rescaled(new, v.exponent), state_vectors.log_norm_of_state(v)

    def chunk_forward(v: Scaled, steps: Steps) -> tuple[Scaled, Array]:
        return jax.lax.scan(forward, v, linearised(run, steps))

    # The first step leads to s₀, where v starts, and is left out. The sizes are those before each
    # step, so that of the last follows; with no step at all there is none, and it is cut off.
    last, sizes = over_chunks(chunk_forward, v, _without_first(trajectory(run)), chunk_of(run))
    return jnp.concatenate([sizes, state_vectors.log_norm_of_state(last)[None]])[: step_count(run)]


def _back(run: Run, steps: Steps, last: Scaled, through: Any, size: Any) -> tuple[Scaled, Any]:
    """Adjoints from the state after the steps to that before; `size` of each after its step."""

    def back(rows: Scaled, step: Steps) -> tuple[Scaled, Any]:
        new = through(run, step, state_vectors.cast_like(moving(step.before), rows.value))
        return rescaled(new, rows.exponent), size(rows)

    # Coefficients exist for one chunk of steps at a time, so that only the states grow with T.
    def chunk_back(rows: Scaled, steps: Steps) -> tuple[Scaled, Any]:
        return jax.lax.scan(back, rows, linearised(run, steps), reverse=True)

    return over_chunks(chunk_back, last, steps, chunk_of(run), reverse=True)


def _through_rows(run: Run, step: Steps, rows: Any) -> State:
    """Jᵀ of each row; leaves `(*batch, n, H)`."""
    lead = len(run.cell.leading_axes(step.xs))  # the axis of rows, after the batch
    return jax.vmap(functools.partial(through_step, run, step), lead, lead)(rows)


def _as_jacobian(rows: Scaled) -> Scaled:
    """Rows of the whole state, cut into the tree of a Jacobian."""
    state = jax.tree.structure(rows.value)
    ends = state_vectors.ends(rows.value)
    columns = [jnp.split(leaf, ends, axis=-2) for leaf in jax.tree.leaves(rows.value)]
    cut = [state.unflatten(row) for row in zip(*columns, strict=True)]
    return Scaled(state.unflatten(cut), rows.exponent)


def _spectral_of_rows(rows: Scaled) -> Array:
    return log_of(norms.spectral(state_vectors.joined(rows.value)), rows.exponent)


def _frobenius_of_rows(rows: Scaled) -> Array:
    # The largest entry of a scaled value is in [½, 1): no square overflows, and one that underflows
    # is too small to count.
    squares = [jnp.sum(leaf * leaf, axis=(-2, -1)) for leaf in jax.tree.leaves(rows.value)]
    return log_of(norms.root(functools.reduce(jnp.add, squares)), rows.exponent)


def _without_first(steps: Steps) -> Steps:
    return jax.tree.map(lambda leaf: leaf[1:], steps)
