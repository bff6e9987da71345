"""Norms and inner products of sums of outer products over a batch.

At each step, the gradient with respect to a weight is such a sum:

    Cₖ = Σ_b δₖᵇ ⊗ vₖᵇ          δ (T, B, M), v (T, B, N), C (T, M, N)

Only T norms and T inner products are wanted here, so a large C never exists as a whole.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn.numerics import norms

__all__ = ["sizes"]


# What it costs to write an entry of C and read it twice, in multiplications: Gram matrices, or C.
# benchmarks/results/constants_cpu.json; docs/decisions/numbers-at-once.md
ENTRY_COST = 48
# Entries of C for all k that are formed at once: one matmul, or a loop that holds one step.
# docs/decisions/numbers-at-once.md
FORMED_AT_ONCE = 2**20


def sizes(rows: Array, columns: Array, direction: Array) -> tuple[Array, Array]:
    """‖Cₖ‖ and ⟨Cₖ, direction⟩ for every k, where Cₖ = Σ_b rows[k, b] ⊗ columns[k, b].

    Gram matrices are used where B²(M + N) ≤ 48·M·N, that is, for few sequences and large weights.
    Otherwise Cₖ is formed: for all k at once where C has up to 2²⁰ entries, else one k at a time.

    Args:
      rows: δ, `(T, B, M)`.
      columns: v, `(T, B, N)`.
      direction: What the inner products are taken with, `(M, N)`.

    Returns:
      (norms, inner products), each `(T,)`.

    Cost:
      T·B·M·N + T·min(B²(M + N), 48·M·N) operations; O(M·N + T·B·(M + N + B)) memory.

    Accuracy:
      Where Cₖ is formed, a norm is off by a few eps·S, S = Σ_b ‖rows[k, b]‖ ‖columns[k, b]‖. By
      Gram matrices the *square* is off by a few eps·S²: a norm of S/100 has 4 digits fewer, and one
      that cancels to 0 may come out as √eps·S. No norm overflows or underflows that is itself a
      number of the dtype.
    """
    # Every step is divided by its own largest entries before anything is squared.
    direction, by_direction = norms.scaled(direction, (0, 1))
    rows, by_rows = norms.scaled(rows, (1, 2))
    columns, by_columns = norms.scaled(columns, (1, 2))
    (T, B, M), N = rows.shape, columns.shape[2]
    formed = at_once if T * M * N <= FORMED_AT_ONCE else one_by_one
    measure = by_grams if B * B * (M + N) <= ENTRY_COST * M * N else formed
    norm, inner = measure(rows, columns.astype(rows.dtype), direction.astype(rows.dtype))
    by_columns = by_columns.astype(rows.dtype)
    inner = inner * jnp.broadcast_to(by_direction.astype(rows.dtype), inner.shape)
    return norm * by_rows * by_columns, inner * by_rows * by_columns


def by_grams(rows: Array, columns: Array, direction: Array) -> tuple[Array, Array]:
    """‖C‖² = Σ_bc (δᵇ·δᶜ)(vᵇ·vᶜ) and ⟨C, g⟩ = Σ_b δᵇ·(g vᵇ)."""
    gram = jnp.einsum("tbm,tcm->tbc", rows, rows) * jnp.einsum("tbn,tcn->tbc", columns, columns)
    square = gram.sum((1, 2))
    # The wider axis is contracted, so that the narrower array is the one that is written.
    if rows.shape[2] >= columns.shape[2]:
        inner = jnp.einsum("tbm,mn->tbn", rows, direction) * columns
    else:
        inner = jnp.einsum("tbn,mn->tbm", columns, direction) * rows
    # A sum that cancels over the batch may have a square that rounding leaves below 0.
    return norms.root(jnp.maximum(square, jnp.zeros_like(square))), inner.sum((1, 2))


def at_once(rows: Array, columns: Array, direction: Array) -> tuple[Array, Array]:
    """Both from C itself, for all steps at once."""
    product = jnp.einsum("tbm,tbn->tmn", rows, columns)
    inner = product * jnp.broadcast_to(direction, product.shape)
    return norms.root(jnp.sum(product * product, (1, 2))), inner.sum((1, 2))


def one_by_one(rows: Array, columns: Array, direction: Array) -> tuple[Array, Array]:
    """Both from C itself, one step at a time."""

    def measure(step: tuple[Array, Array]) -> tuple[Array, Array]:
        product = jnp.einsum("bm,bn->mn", *step)
        return norms.root(jnp.sum(product * product)), jnp.sum(product * direction)

    return jax.lax.map(measure, (rows, columns))
