"""Dense Jacobians of a `PointwiseCell`: rows of its weights scaled by the diagonals of ∂φ.

With an output projection h = W_hr m, the blocks of h are W_hr times those of m.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn.cells import affine
from jaxrnn.cells.contract import Jacobian, Params, State, over_leading_axes
from jaxrnn.cells.pointwise_map import Sensitivities
from jaxrnn.numerics import dtypes

__all__ = ["input_jacobian", "param_jacobian", "sensitivities", "state_jacobian"]


def sensitivities(cell: Any, params: Params, state: State, u: Array) -> Sensitivities:
    """Every diagonal of ∂φ, from its tangent fed with ones; of m where h = W_hr m."""
    p = cell.of_phi(cell.partials(params, state, u))
    S, G, K = cell.state_type, len(cell.gates), len(cell.units)
    merge = cell.phi.merge
    zero_u = jnp.zeros_like(u)
    zero = jnp.zeros_like(u[..., : u.shape[-1] // G])
    one = jnp.ones_like(zero)
    zero_s = dtypes.cast(jax.tree.map(jnp.zeros_like, cell.inner(state)), u.dtype)
    nothing = S(*[zero for _ in S._fields])

    def from_leaf(leaf: str) -> State:
        if getattr(zero_s, leaf) is None:
            return nothing
        return cell.phi.tangent(p, zero_s._replace(**{leaf: one}), zero_u)

    # Gate by gate rather than mapped over a stack of unit vectors: XLA then sees which inputs are
    # constant zeros, and drops what is multiplied by them.
    def from_each(count: int, feed: Callable[[list[Array]], Any]) -> Jacobian:
        fed = [feed([one if g == k else zero for k in range(count)]) for g in range(count)]
        return S(*[tuple(getattr(of_gate, leaf) for of_gate in fed) for leaf in S._fields])

    def gates(merged: Callable[[Array], Array]) -> Jacobian:
        return from_each(
            G, lambda row: cell.phi.tangent(p, zero_s, merged(jnp.concatenate(row, axis=-1)))
        )

    columns = {leaf: from_leaf(leaf) for leaf in S._fields}
    direct = S(*[S(*[getattr(columns[k], j) for k in S._fields]) for j in S._fields])
    return Sensitivities(
        state=direct,
        u=gates(lambda ones: merge(p, ones, zero_u)),
        a=gates(lambda ones: merge(p, zero_u, ones)),
        w=from_each(K, lambda row: cell.phi.enter(p, tuple(row))),
    )


def state_jacobian(cell: Any, params: Params, state: State, x: Array) -> Jacobian:
    """∂sᵢ/∂sᵢ₋₁, leaves `(*lead, H, H)`."""
    # Rows of W_hh are scaled, rather than the tangent mapped over its columns: the results are
    # equal, and scaling was 2 to 4 times faster on a CPU, since feeding zeros costs
    # multiplications. Without the barrier XLA would fuse the O(G·H) diagonals into the O(H²) loops
    # and compute them again for every row.
    s = jax.lax.optimization_barrier(sensitivities(cell, params, state, cell.project(params, x)))
    reads, S = cell.reads(params), cell.state_type

    def block(out: str, into: str) -> Array:
        diagonal = getattr(getattr(s.state, out), into)
        projects = out == "h" and reads.out is not None
        if into != "h":
            dense = (
                affine.scaled_columns(reads.out, diagonal)
                if projects
                else (affine.diagonal(diagonal))
            )
        else:
            dense = affine.scaled_rows(getattr(s.a, out), reads.back.weight)
            if reads.out is None:
                dense = dense + affine.diagonal(diagonal)
            elif projects:
                dense = affine.times(reads.out, dense)
        return dense.astype(state.h.dtype)

    return S(*[S(*[block(j, k) for k in S._fields]) for j in S._fields])


def input_jacobian(cell: Any, params: Params, state: State, x: Array) -> Jacobian:
    """∂sᵢ/∂xᵢ = Σ_g diag(∂s/∂u_g) W_ih[g], leaves `(*lead, H, D)`."""
    s = sensitivities(cell, params, state, cell.project(params, x))
    reads = cell.reads(params)
    rows = [affine.scaled_rows(gates, reads.into.weight) for gates in s.u]
    found = cell.state_type(*rows)
    if reads.out is not None:
        found = found._replace(h=affine.times(reads.out, found.h))
    return dtypes.cast(found, x.dtype)


def param_jacobian(cell: Any, params: Params, state: State, x: Array) -> Jacobian:
    """∂sᵢ/∂θ with sᵢ₋₁ held constant, leaves `(*lead, H, *leaf shape)`."""
    u = cell.project(params, x)
    s = sensitivities(cell, params, state, u)
    H = params.w_hh.shape[0] // len(cell.gates)
    reads = cell.reads(params)
    m = None if reads.out is None else cell.partials(params, state, u).m

    def one(h: Array, x: Array, m: Any, rows: Array, out: Any, diagonals: Any) -> Jacobian:
        # The diagonals go back through the transpose of all that a step reads of the params, so
        # that every leaf gets its derivative. `rows` `(n, H)` weights the units of φ for each of
        # the n entries of a leaf of the state, `out` `(n, P)` says which row of W_hr makes it.
        def read(p: Params) -> Any:
            r = cell.reads(p)
            made = cell.project(p, x), cell.recur(p, h), r.w
            return (*made, None if r.out is None else affine.apply(affine.Affine(r.out, None), m))

        of, transpose = jax.vjp(read, params)
        du, da, dw = diagonals

        def entry(row: Array, e: Any) -> Params:
            u, a = (jnp.concatenate([row * d for d in side]) for side in (du, da))
            w = tuple((row * d).astype(like.dtype) for d, like in zip(dw, of[2], strict=True))
            return transpose((u, a, w, e))[0]

        return jax.vmap(entry)(rows, out)

    fields = []
    for field in cell.state_type._fields:
        diagonals = [getattr(part, field) for part in (s.u, s.a, s.w)]
        rows, out = jnp.eye(H, dtype=u.dtype), None
        if reads.out is not None:
            kind = jax.eval_shape(affine.apply, affine.Affine(reads.out, None), m).dtype
            projects = field == "h"
            n = reads.out.shape[0]
            rows = reads.out.astype(u.dtype) if projects else rows
            out = jnp.eye(n, dtype=kind) if projects else jnp.zeros((H, n), kind)
        over = (0, 0, None if m is None else 0, None, None, 0)
        mapped = over_leading_axes(one, x.ndim - 1, over)
        fields.append(mapped(state.h, x, m, rows, out, diagonals))
    return cell.state_type(*fields)
