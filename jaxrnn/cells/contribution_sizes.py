"""How large the gradients of what a step reads of the params are, step by step.

W_ih   Cₖ = Σ_b δuₖᵇ ⊗ xₖᵇ        b      Cₖ = Σ_b δuₖᵇ
W_hh   Cₖ = Σ_b δaₖᵇ ⊗ hₖ₋₁ᵇ      b_hh   Cₖ = Σ_b δaₖᵇ
W_hr   Cₖ = Σ_b δhₖᵇ ⊗ mₖᵇ        units  Cₖ = Σ_b δwₖᵇ
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn.cells.affine import Affine
from jaxrnn.cells.contract import Params
from jaxrnn.numerics import norms, outer_products
from jaxrnn.numerics.dtypes import cast
from jaxrnn.numerics.zeros import zeros_of

__all__ = ["Parts", "Reads", "sizes"]


class Reads(NamedTuple):
    """All that a step of a `PointwiseCell` reads of its params."""

    into: Affine  # W_ih and b
    back: Affine  # W_hh and b_hh
    w: tuple[Array, ...] = ()  # the units' own, `(H,)`
    out: Array | None = None  # W_hr, `(P, H)`


class Parts(NamedTuple):
    """The adjoints of what a step makes of its params, leaves `(*lead, ·)`."""

    u: Array
    a: Array | None  # None: the same as u
    w: tuple[Array, ...] = ()
    h: Array | None = None  # of the output, where W_hr made it,
    m: Array | None = None  # and what W_hr was multiplied by


def sizes(
    cell: Any, params: Params, parts: Parts, xs: Array, hs: Array, direction: Any
) -> tuple[Any, Any]:
    """‖Cₖ‖ and ⟨Cₖ, direction⟩ for every step k and every leaf of the params.

    Args:
      cell: A `PointwiseCell`.
      params: θ.
      parts: The adjoints of every step, leaves `(T, *batch, ·)`.
      xs: Inputs, `(T, *batch, D)`.
      hs: The outputs before each step, `(T, *batch, H)`.
      direction: What the inner products are taken with, a tree of the params.

    Returns:
      (norms, inner products), two trees of the params with leaves `(T,)`.

    Raises:
      NotImplementedError: If the batch is split over several devices.

    Cost:
      That of `outer_products.sizes` for each weight, where the weights are leaves of the params.
      `(T, G·H, ·)` is formed only if it is small. Where a weight is made of the params, a gradient
      of the size of the params for each step, one step after the other.
    """
    _check_one_device(params.w_hh, xs)
    parts, xs, hs = jax.tree.map(_flat_batch, (parts, xs, hs))
    parts = parts._replace(a=parts.u if parts.a is None else parts.a)
    of = _of_leaves if _reads_leaves_alone(cell, params) else _of_made
    found = of(cell, params, parts, xs, hs, direction)
    fields = [found[field] for field in params._fields]
    return type(params)(*[f[0] for f in fields]), type(params)(*[f[1] for f in fields])


def _reads_leaves_alone(cell: Any, params: Params) -> bool:
    """Whether each weight is a leaf as it is, which nothing else reads, such as a bias."""
    names = ("w_ih", "w_hh") if cell.output is None else ("w_ih", "w_hh", cell.output)
    # Of a placeholder nothing can be computed: only a leaf that is passed on comes through.
    bare = params._replace(**{name: object() for name in names})
    try:
        reads = cell.reads(bare)
    except Exception:  # whatever a user's function raises for it
        return False
    return reads.into.weight is bare.w_ih and reads.back.weight is bare.w_hh


def _of_leaves(
    cell: Any, params: Params, parts: Parts, xs: Array, hs: Array, direction: Any
) -> dict[str, tuple[Array, Array]]:
    """Of each leaf, where every weight is a leaf itself."""
    weights: dict[str, tuple[Any, Any]] = {"w_ih": (parts.u, xs), "w_hh": (parts.a, hs)}
    if cell.output is not None:
        weights[cell.output] = parts.h, parts.m
    vectors = {f: leaf for f, leaf in params._asdict().items() if f not in weights}

    def read(vectors: dict[str, Array]) -> Any:
        reads = cell.reads(params._replace(**vectors))
        return reads.into.bias, reads.back.bias, reads.w

    # A cell may make b_hh from any leaves, so their gradients come from the transpose of `read`.
    like, pull = jax.vjp(read, cast(vectors, parts.u.dtype))
    du, da, dw = jax.tree.map(lambda leaf: leaf.sum(1), (parts.u, parts.a, parts.w))
    summed = None if like[0] is None else du, None if like[1] is None else da, dw
    (each,) = jax.vmap(pull)(summed)  # (T, ·) for every vector
    measured = jax.vmap(norms.norm_and_inner, (0, None))
    found = {f: measured(leaf, getattr(direction, f)) for f, leaf in each.items()}
    for field, (rows, columns) in weights.items():
        found[field] = outer_products.sizes(rows, columns, getattr(direction, field))
    return found


def _of_made(
    cell: Any, params: Params, parts: Parts, xs: Array, hs: Array, direction: Any
) -> dict[str, tuple[Array, Array]]:
    """Of each leaf, where a weight is made of leaves: by the transpose of how it is made."""
    wide = cast(params, parts.u.dtype)
    like, pull = jax.vjp(cell.reads, wide)

    def measure(step: tuple[Parts, Array, Array]) -> list[tuple[Array, Array]]:
        of, x, h = step

        def affine(rows: Any, columns: Any, has: Affine) -> Affine:
            return Affine(outer(rows, columns), None if has.bias is None else rows.sum(0))

        def outer(rows: Any, columns: Any) -> Array:
            return jnp.einsum("bm,bn->mn", rows, columns.astype(rows.dtype))

        given = Reads(
            affine(of.u, x, like.into),
            affine(of.a, h, like.back),
            tuple(leaf.sum(0) for leaf in of.w),
            None if of.h is None else outer(of.h, of.m),
        )
        (total,) = pull(given)
        return list(map(norms.norm_and_inner, total, cast(direction, parts.u.dtype)))

    measured = jax.lax.map(measure, (parts, xs, hs))
    return dict(zip(params._fields, measured, strict=True))


def _check_one_device(weight: Array, xs: Array) -> None:
    """Refuse a batch that is split over devices."""
    # ‖Σ_b‖² has a term for every two examples, also for two on different devices. Under `shard_map`
    # an array that differs from device to device has another type than one that is the same on all.
    # So the batch is split if adding zeros made of xs changes the type of the weight.
    varied = weight + zeros_of(xs).astype(weight.dtype)
    if any(jax.typeof(xs).sharding.spec) or jax.typeof(varied) != jax.typeof(weight):
        raise NotImplementedError(
            "contribution_norms: expected all examples on one device, got a batch that is split "
            "over several; use temporal_contributions, or under shard_map pass "
            "jax.lax.pcast(params, axis, to='varying') for the norms of each device's own examples"
        )


def _flat_batch(leaf: Array) -> Array:
    """`(T, *batch, ·)` → `(T, B, ·)`."""
    return leaf.reshape(leaf.shape[0], math.prod(leaf.shape[1:-1]), leaf.shape[-1])
