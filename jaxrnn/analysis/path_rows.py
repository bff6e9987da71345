"""Rows of ∂cₜ/∂sₖ, carried back from cₜ: the exact ones, two approximations, each path by itself.

    Rᵢ₋₁ = Rᵢ Jᵢ        R Jᵢ = direct + Σ_g (rows at gate g) W_hh[g]

`direct` is what passes without a weight. αₚ is a factor on path p at every step, taken at 1.

One step takes all of them through the pointwise map's transposed tangent. What passes without a
weight belongs to the path of the memory. What passes through a gate's rows of W_hh belongs to the
path of that gate.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn.cells.contract import State
from jaxrnn.numerics.dtypes import accumulator
from jaxrnn.numerics.scaled import Scaled, rescaled
from jaxrnn.numerics.time_axis import select
from jaxrnn.running.chunks import over_chunks
from jaxrnn.running.run import Run
from jaxrnn.running.steps import Steps, chunk_of, linearised

__all__ = ["Chains", "by_c", "first_rows", "readouts", "rows_back"]


class Chains(NamedTuple):
    """Rows on their way back from cₜ: states with leaves `(*batch, rows, H)`.

    Attributes:
      exact: H rows of ∂cₜ/∂sₖ, then for each path H rows of its derivative by log αₚ.
      four_term: H rows (0, M), where M is the product over the steps of the sum of four terms.
      forget: One row (0, ∏ f), the diagonal of the product of forget gates.
      taken: The number of steps taken so far, `(*batch,)`.
    """

    exact: Scaled
    four_term: Scaled
    forget: Scaled
    taken: Array


def first_rows(state0: State, paths: int) -> Chains:
    """Lag 0: the rows of ∂cₜ/∂cₜ = 1, which depend on no path yet."""
    c = state0.c.astype(accumulator(state0.c.dtype))
    H = c.shape[-1]
    none = jnp.zeros_like(c[..., None, :])  # made of the state, to have its sharding
    one = none + jnp.broadcast_to(jnp.eye(H, dtype=c.dtype), (*c.shape, H))
    taken = jnp.zeros(c.shape[:-1], jnp.int32)

    def rows(value: Array) -> Scaled:
        fields = {field: jnp.zeros_like(value) for field in state0._fields}
        return rescaled(type(state0)(**{**fields, "c": value}), taken)

    exact = jnp.concatenate([one] + [jnp.zeros_like(one)] * paths, axis=-2)
    return Chains(rows(exact), rows(one), rows(none + 1), taken)


def rows_back(run: Run, steps: Steps, first: Chains, measure: Any) -> tuple[Chains, Any]:
    """The chains before the steps, and measure(chains, read-out) after each step."""

    def back(chains: Chains, item: tuple[Steps, Array]) -> tuple[Chains, Any]:
        return _through(run, item[0], chains, item[1]), measure(chains, item[1])

    def chunk_back(chains: Chains, steps: Steps) -> tuple[Chains, Any]:
        steps = linearised(run, steps)
        return jax.lax.scan(back, chains, (steps, readouts(run, steps)), reverse=True)

    return over_chunks(chunk_back, first, steps, chunk_of(run), reverse=True)


def readouts(run: Run, steps: Steps) -> Array:
    """∂h/∂c after each step. At a held step the rows are 0 for h: its read-out changes nothing."""
    traits: Any = run.cell.traits
    return traits.readout(steps.partials)


def _through(run: Run, step: Steps, chains: Chains, readout: Array) -> Chains:
    """All chains from after a step to before it, as one stack of rows."""
    exact, taken = chains.exact.value, chains.taken
    # The four terms have ∂h/∂c at fixed gates in place of ∂h at every step. What reaches h through
    # the output gate's rows of W_hh is dropped.
    four_term = _c_alone(exact, by_c(chains.four_term.value, readout))
    forget = _c_alone(exact, chains.forget.value.c)
    counts = [rows.c.shape[-2] for rows in (exact, four_term, forget)]
    stacked = jax.tree.map(lambda *rows: jnp.concatenate(rows, -2), exact, four_term, forget)
    direct, gated = _apart(run, step, stacked)
    moved = direct._replace(h=direct.h + sum(gated))
    H = moved.c.shape[-1]
    if counts[0] > H:
        # The product rule: the derivative by log αₚ goes through the whole step, and to it comes
        # what the exact rows pass through path p alone. The memory's path ends in h and c, a gate's
        # in h.
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
    # `held` comes after `resets`, since a held step ignores its reset. `taken` does not count held
    # steps: a share is per step that the sequence has, not per step of padding.
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


def _apart(run: Run, step: Steps, rows: Any) -> tuple[Any, list[Array]]:
    """Jᵀ of each row: what passes without a weight, and what each gate's rows of W_hh pass to h."""
    lead = step.xs.ndim - 1  # the axis of rows, after the batch
    pulled = functools.partial(run.cell.pulled_apart, step.partials)
    direct, gates = jax.vmap(pulled, lead, lead)(rows)
    traits: Any = run.cell.traits
    weight = traits.recurrent_weight(run.params).astype(rows.c.dtype)
    blocks = zip(gates, jnp.split(weight, len(gates)), strict=True)
    return direct, [jnp.matmul(rows, W) for rows, W in blocks]


def _c_alone(like: Any, c: Array) -> State:
    """Rows (0, c)."""
    return type(like)(**{**{f: jnp.zeros_like(c) for f in like._fields}, "c": c})


def by_c(rows: Any, readout: Array) -> Array:
    """Rows with respect to (h, c) as rows with respect to c alone, from which h is read out."""
    return rows.c + rows.h * jnp.broadcast_to(readout[..., None, :], rows.h.shape)
