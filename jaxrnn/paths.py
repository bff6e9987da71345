"""How a cell state reaches a later one: ∂cₜ/∂cₖ through (h, c), its approximations, its paths.

    ∂cₜ/∂cₖ = [0 1] Jₜ ⋯ Jₖ₊₁ [diag(rₖ); 1]      exact; hₖ = oₖ ⊙ tanh(cₖ) moves with cₖ
            ≈ ∏ᵢ (diag(fᵢ) + ∂cᵢ/∂hᵢ₋₁ diag(rᵢ₋₁))   four terms a step: W_o drops out
            ≈ ∏ᵢ diag(fᵢ)                          the forget gates alone

r = o (1 - tanh² c) is the read-out ∂h/∂c. Between k and t a route takes, at each step, either
the memory itself, c₋ → c times f, or one gate's rows of W_hh, h₋ → gate → c or h. So ∂cₜ/∂cₖ is
a sum over sequences of such choices, and each path p has a share of it,

    share_p = ∂ log ‖∂cₜ/∂cₖ‖_F / ∂ log αₚ / (t-k)      αₚ multiplies p in every step; Σₚ = 1

below 0 where p works against the others. In the LSTM the paths are memory, i (through the input
gate), f (through the forget gate's own dependence on h), g (the candidate) and o (the output gate).
Norms are Frobenius norms; products are kept as a value and a power of two.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from chex import ArrayTree
from jax import Array

from jaxrnn import arguments, norms
from jaxrnn.cell import Cell
from jaxrnn.jacobians import check_readout
from jaxrnn.linearisation import Steps, linearised, trajectory
from jaxrnn.projections import accumulator
from jaxrnn.scaling import Scaled, log_of, rescaled, times_power
from jaxrnn.tangent_scan import over_chunks, plan
from jaxrnn.unrolling import checked_state, select, start, unroll

__all__ = ["CellPaths", "CellProducts", "decompose", "transport"]

MEMORY = "memory"
LAGS = (1, 2, 5)  # of each decade that a table shows


class CellPaths(NamedTuple):
    """∂c_{T-1}/∂cₖ for every k; leaves `(T, *batch)`, entry k has lag T-1-k.

    exact, four_term, forget: log ‖·‖_F in nats, of the derivative and its approximations.
    four_term_error, forget_error: ‖approximation - exact‖_F / ‖exact‖_F; 0 where both are 0.
    shares: "memory" and the name of each gate ↦ its share; 0 at lag 0 and where exact is 0.
    """

    exact: Array
    four_term: Array
    forget: Array
    four_term_error: Array
    forget_error: Array
    shares: dict[str, Array]

    def __str__(self) -> str:
        """A table over lags, medians over the batch."""
        names = list(self.shares)
        lines = [
            f"{'':6}{'‖∂c/∂c‖':>10}{'error of':>11}{'':9}   share of each path",
            f"{'lag':>6}{'exact':>10}{'4 terms':>11}{'f alone':>9}   "
            + "".join(f"{name:>8}" for name in names),
        ]
        T = len(self.exact)
        for lag in (m * 10**e for e in range(7) for m in LAGS if m * 10**e < T):
            at = jax.tree.map(lambda leaf, k=T - 1 - lag: np.median(np.asarray(leaf)[k]), self)
            lines.append(
                f"{lag:6d}{np.exp(at.exact):10.2e}{at.four_term_error:11.2g}"
                f"{at.forget_error:9.2g}   " + "".join(f"{at.shares[name]:8.1%}" for name in names)
            )
        return "\n".join(lines)


class CellProducts(NamedTuple):
    """∂cₜ/∂cₖ three ways, each a Scaled with value `(*batch, H, H)`."""

    exact: Scaled
    four_term: Scaled
    forget: Scaled


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


def decompose(
    cell: Cell,
    params: ArrayTree,
    xs: Array,
    state0: Any = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
) -> CellPaths:
    """∂c_{T-1}/∂cₖ for every k: its size, what the approximations miss, which path carries it.

    Args:    a cell with a state (h, c) and a `Pointwise.readout`, such as `jaxrnn.lstm()`; all
             others as in `jaxrnn.unroll`.
    Returns: CellPaths. For another last step t give `xs[:t+1]`.
    Raises:  TypeError for a cell without c or without a read-out; else as `jaxrnn.unroll`.
    Cost:    one `unroll`, then T adjoint steps of 7H + 1 rows: O(T·B·G²·H³) time, O(B·G·H²)
             memory beside the trajectory.
    Source:  tests/test_paths.py, against NumPy products of complex-step Jacobians and autodiff.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> params, xs = cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3))
    >>> found = jaxrnn.paths.decompose(cell, params, xs)
    >>> list(found.shares), found.exact.shape
    (['memory', 'i', 'f', 'g', 'o'], (7, 2))
    """
    checked_state(cell, params, xs, state0, lengths, resets)
    check_readout(cell, params, xs, state0)
    found = _decompose(cell, params, xs, state0, lengths, resets)
    # A dict comes out of jit sorted; a table wants the memory first.
    return found._replace(shares={name: found.shares[name] for name in _names(cell)})


def transport(
    cell: Cell,
    params: ArrayTree,
    xs: Array,
    k: int,
    t: int,
    state0: Any = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
) -> CellProducts:
    """∂cₜ/∂cₖ itself, and its approximations, for any k ≤ t.

    `products.transport(...).value.c.c` is another derivative: of cₜ by cₖ at fixed hₖ.

    Args:    k, t: indices into the states, 0 ≤ k ≤ t < T; all others as `decompose`.
    Returns: CellProducts(exact, four_term, forget); `.exact.unscaled()` is a plain matrix.
    Raises:  as `decompose`, or naming k or t.
    Cost:    as `decompose`.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> params, xs = cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3))
    >>> jaxrnn.paths.transport(cell, params, xs, 1, 4).exact.value.shape
    (2, 5, 5)
    """
    checked_state(cell, params, xs, state0, lengths, resets)
    check_readout(cell, params, xs, state0)
    arguments.check_index("t", t, xs.shape[0])
    arguments.check_index("k", k, t + 1)
    lengths = None if lengths is None else jnp.minimum(lengths, jnp.asarray(t + 1, lengths.dtype))
    resets = None if resets is None else resets[: t + 1]
    return _transport(cell, params, xs[: t + 1], state0, lengths, resets, k)


def _names(cell: Any) -> tuple[str, ...]:
    return (MEMORY, *cell.gates)


@functools.partial(jax.jit, static_argnums=0)
def _decompose(
    cell: Any, params: ArrayTree, xs: Array, state0: Any, lengths: Any, resets: Any
) -> CellPaths:
    steps, readouts, chunk = _steps(cell, params, xs, state0, lengths, resets)
    first = _first(start(cell, params, xs, state0), len(cell.gates) + 1)
    measure = functools.partial(_measured, _names(cell))
    return _back(cell, params, steps, readouts, first, chunk, measure)[1]


@functools.partial(jax.jit, static_argnums=(0, 6))
def _transport(
    cell: Any, params: ArrayTree, xs: Array, state0: Any, lengths: Any, resets: Any, k: int
) -> CellProducts:
    steps, readouts, chunk = _steps(cell, params, xs, state0, lengths, resets)
    first = _first(start(cell, params, xs, state0), 0)
    at, after = readouts[k], readouts[k + 1 :]
    steps = jax.tree.map(lambda leaf: leaf[k + 1 :], steps)
    chains, _ = _back(cell, params, steps, after, first, chunk, lambda chains, readout: None)
    return _matrices(chains, at)


def _steps(
    cell: Any, params: ArrayTree, xs: Array, state0: Any, lengths: Any, resets: Any
) -> tuple[Steps, Array, int]:
    """The steps, and the read-out that made each h out of its c: none where h₀ is held."""
    states = unroll(cell, params, xs, state0, lengths=lengths, resets=resets)
    steps = trajectory(cell, params, xs, state0, states, lengths, resets)
    first = start(cell, params, xs, state0)
    chunk = plan(cell, params, xs, first, None).chunk

    def held_over(last: Array, item: tuple[Array, Array]) -> tuple[Array, Array]:
        last = select(item[1], last, item[0])
        return last, last

    def formed(last: Array, steps: Steps) -> tuple[Array, Array]:
        readout = cell.phi.readout(linearised(cell, params, steps).partials)
        if steps.held is None:
            return last, readout
        return jax.lax.scan(held_over, last, (readout, steps.held))

    nothing = jnp.zeros_like(first.c, dtype=accumulator(first.c.dtype))
    return steps, over_chunks(formed, nothing, steps, chunk)[1], chunk


def _first(state0: Any, paths: int) -> Chains:
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


def _back(
    cell: Any, params: Any, steps: Steps, readouts: Array, first: Chains, chunk: int, measure: Any
) -> tuple[Chains, Any]:
    def back(chains: Chains, item: tuple[Steps, Array]) -> tuple[Chains, Any]:
        return _through(cell, params, item[0], chains, item[1]), measure(chains, item[1])

    def chunk_back(chains: Chains, item: tuple[Steps, Array]) -> tuple[Chains, Any]:
        steps = linearised(cell, params, item[0])
        return jax.lax.scan(back, chains, (steps, item[1]), reverse=True)

    return over_chunks(chunk_back, first, (steps, readouts), chunk, reverse=True)


def _through(cell: Any, params: Any, step: Steps, chains: Chains, readout: Array) -> Chains:
    """All chains from after a step to before it, as one stack of rows."""
    exact, taken = chains.exact.value, chains.taken
    four_term = _c_alone(exact, _by_c(chains.four_term.value, readout))
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
        dv = jax.ShapeDtypeStruct((*row.c.shape[:-1], weight.shape[0]), row.c.dtype)
        tangent = functools.partial(cell.phi.tangent, step.partials)
        direct, dv = jax.linear_transpose(tangent, row, dv)(row)
        return direct, cell.drive_parts(step.partials, dv)[-1]

    direct, da = jax.vmap(through_phi, lead, lead)(rows)
    blocks = zip(jnp.split(da, G, axis=-1), jnp.split(weight, G), strict=True)
    return direct, [jnp.matmul(rows, W) for rows, W in blocks]


def _c_alone(like: Any, c: Array) -> Any:
    """Rows (0, c)."""
    return type(like)(**{**{f: jnp.zeros_like(c) for f in like._fields}, "c": c})


def _by_c(rows: Any, readout: Array) -> Array:
    """Rows by (h, c) as rows by c, of which h is read out."""
    return rows.c + rows.h * jnp.broadcast_to(readout[..., None, :], rows.h.shape)


def _matrices(chains: Chains, readout: Array) -> CellProducts:
    H = readout.shape[-1]
    exact = _by_c(chains.exact.value, readout)[..., :H, :]
    diagonal = chains.forget.value.c[..., 0, :]
    on = jnp.broadcast_to(jnp.eye(H, dtype=exact.dtype), exact.shape)
    forget = on * jnp.broadcast_to(diagonal[..., None], exact.shape)
    return CellProducts(
        rescaled(exact, chains.exact.exponent),
        rescaled(_by_c(chains.four_term.value, readout), chains.four_term.exponent),
        rescaled(forget, chains.forget.exponent),
    )


def _measured(names: tuple[str, ...], chains: Chains, readout: Array) -> CellPaths:
    found = _matrices(chains, readout)
    exact = found.exact
    exact_log, four_term, forget = [
        log_of(norms.norm(P.value, (-2, -1)), P.exponent) for P in found
    ]
    size = norms.norm(exact.value, (-2, -1))
    errors = [_error(P, exact, size) for P in (found.four_term, found.forget)]
    # By path, in the units of `exact`: ⟨P, ∂P/∂log α⟩ / ‖P‖².
    H = readout.shape[-1]
    derivatives = _by_c(chains.exact.value, readout)[..., H:, :]
    derivatives = times_power(derivatives, chains.exact.exponent - exact.exponent)
    by = jnp.where(size > 0, size, jnp.ones_like(size))[..., None, None]
    unit = exact.value / jnp.broadcast_to(by, exact.value.shape)
    taken = jnp.maximum(chains.taken, jnp.ones_like(chains.taken)).astype(unit.dtype)
    shares = {}
    for name, each in zip(names, jnp.split(derivatives, len(names), axis=-2), strict=True):
        inner = jnp.sum(unit * (each / jnp.broadcast_to(by, each.shape)), axis=(-2, -1))
        shares[name] = inner / taken
    return CellPaths(exact_log, four_term, forget, errors[0], errors[1], shares)


def _error(approximation: Scaled, exact: Scaled, size: Array) -> Array:
    """‖A - E‖_F / ‖E‖_F; inf where E alone is 0, or the ratio beyond the dtype."""
    moved = times_power(approximation.value, approximation.exponent - exact.exponent)
    off = norms.norm(moved - exact.value, (-2, -1))
    by = jnp.where(size > 0, size, jnp.ones_like(size))
    beyond = jnp.where(off > 0, jnp.full_like(off, math.inf), off)
    return jnp.where(size > 0, off / by, beyond)
