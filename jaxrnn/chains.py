"""Rows of ∂cₜ/∂sₖ on their way back from cₜ: the whole, its approximations, its paths.

    Rᵢ₋₁ = Rᵢ Jᵢ        R Jᵢ = direct + Σ_g (rows at gate g) W_hh[g]

One step takes all of them through φ's transposed tangent at once. What passes without a weight is
the memory's; what a gate's rows of W_hh pass is that gate's.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn.linearisation import Steps, linearised
from jaxrnn.projections import accumulator
from jaxrnn.scaling import Scaled, rescaled
from jaxrnn.tangent_scan import over_chunks
from jaxrnn.unrolling import select

__all__ = ["Chains", "by_c", "first_rows", "readouts", "run_back"]


class Chains(NamedTuple):
    """Rows on their way back from cₜ, states with leaves `(*batch, rows, H)`.

    exact: H rows of ∂cₜ/∂sₖ, then H rows of its derivative by each log αₚ.
    four_term, forget: H rows (0, M), M a product of four terms; one row (0, ∏ f).
    taken: steps behind, `(*batch,)`.
    """

    exact: Scaled
    four_term: Scaled
    forget: Scaled
    taken: Array


def first_rows(state0: Any, paths: int) -> Chains:
    """Lag 0: the rows of ∂cₜ/∂cₜ = 1, which owe nothing to any path yet."""
    c = state0.c.astype(accumulator(state0.c.dtype))
    H = c.shape[-1]
    # Made of the state, so that it has its sharding.
    none = 0 * c[..., None, :]
    one = none + jnp.broadcast_to(jnp.eye(H, dtype=c.dtype), (*c.shape, H))
    taken = jnp.zeros(c.shape[:-1], jnp.int32)

    def rows(value: Array) -> Scaled:
        fields = {field: jnp.zeros_like(value) for field in state0._fields}
        return rescaled(type(state0)(**{**fields, "c": value}), taken)

    exact = jnp.concatenate([one] + [jnp.zeros_like(one)] * paths, axis=-2)
    return Chains(rows(exact), rows(one), rows(none + 1), taken)


def run_back(
    cell: Any, params: Any, steps: Steps, first: Chains, chunk: int, measure: Any
) -> tuple[Chains, Any]:
    """The chains before the steps, and measure(chains, read-out) after each of them."""

    def back(chains: Chains, item: tuple[Steps, Array]) -> tuple[Chains, Any]:
        return _through(cell, params, item[0], chains, item[1]), measure(chains, item[1])

    def chunk_back(chains: Chains, steps: Steps) -> tuple[Chains, Any]:
        steps = linearised(cell, params, steps)
        return jax.lax.scan(back, chains, (steps, readouts(cell, steps)), reverse=True)

    return over_chunks(chunk_back, first, steps, chunk, reverse=True)


def readouts(cell: Any, steps: Steps) -> Array:
    """∂h/∂c after each step. That of a held step meets rows (0, ·) alone, and changes nothing."""
    return cell.phi.readout(steps.partials)


def _through(cell: Any, params: Any, step: Steps, chains: Chains, readout: Array) -> Chains:
    """All chains from after a step to before it, as one stack of rows."""
    exact, taken = chains.exact.value, chains.taken
    four_term = _c_alone(exact, by_c(chains.four_term.value, readout))
    forget = _c_alone(exact, chains.forget.value.c)
    counts = [rows.c.shape[-2] for rows in (exact, four_term, forget)]
    stacked = jax.tree.map(lambda *rows: jnp.concatenate(rows, -2), exact, four_term, forget)
    direct, gated = _apart(cell, params, step, stacked)
    moved = direct._replace(h=direct.h + sum(gated))
    H = moved.c.shape[-1]
    if counts[0] > H:  # what each path adds in this step, to the derivative by its weight
        own = [rows[..., :H, :] for rows in gated]
        nothing = jnp.zeros_like(own[0])
        through_h = jnp.concatenate([nothing, direct.h[..., :H, :], *own], axis=-2)
        through_c = jnp.concatenate([nothing, direct.c[..., :H, :], *[nothing] * len(own)], -2)
        added = counts[0]
        moved = moved._replace(
            h=moved.h.at[..., :added, :].add(through_h), c=moved.c.at[..., :added, :].add(through_c)
        )
    if step.resets is not None:
        moved = select(step.resets, jax.tree.map(jnp.zeros_like, moved), moved)
    one = jnp.ones_like(taken)
    if step.held is not None:
        moved = select(step.held, stacked, moved)
        one = jnp.where(step.held, 0 * one, one)
    ends = [counts[0], counts[0] + counts[1]]
    cut = [jnp.split(leaf, ends, axis=-2) for leaf in moved]
    parts = [type(moved)(*[leaf[j] for leaf in cut]) for j in range(3)]
    return Chains(
        rescaled(parts[0], chains.exact.exponent),
        rescaled(parts[1], chains.four_term.exponent),
        rescaled(parts[2], chains.forget.exponent),
        taken + one,
    )


def _apart(cell: Any, params: Any, step: Steps, rows: Any) -> tuple[Any, list[Array]]:
    """Jᵀ of each row: what passes without a weight, and what each gate's rows of W_hh pass to h."""
    lead = step.xs.ndim - 1
    weight = cell.recurrent_map(params).weight.astype(rows.c.dtype)
    G = len(cell.gates)

    def through_phi(row: Any) -> tuple[Any, Array]:
        # Made of the row, so that it varies as the row does under `shard_map`.
        dv = jnp.zeros_like(jnp.concatenate([row.c] * G, axis=-1))
        tangent = functools.partial(cell.phi.tangent, step.partials)
        direct, dv = jax.linear_transpose(tangent, row, dv)(row)
        return direct, cell.drive_parts(step.partials, dv)[-1]

    direct, da = jax.vmap(through_phi, lead, lead)(rows)
    blocks = zip(jnp.split(da, G, axis=-1), jnp.split(weight, G), strict=True)
    return direct, [jnp.matmul(rows, W) for rows, W in blocks]


def _c_alone(like: Any, c: Array) -> Any:
    """Rows (0, c)."""
    return type(like)(**{**{f: jnp.zeros_like(c) for f in like._fields}, "c": c})


def by_c(rows: Any, readout: Array) -> Array:
    """Rows by (h, c) as rows by c, of which h is read out."""
    return rows.c + rows.h * jnp.broadcast_to(readout[..., None, :], rows.h.shape)
