"""How large the gradients of u = W_ih x + b and a = W_hh h + b_hh are at each step.

W_ih   Cₖ = Σ_b δuₖᵇ ⊗ xₖᵇ        b      Cₖ = Σ_b δuₖᵇ
W_hh   Cₖ = Σ_b δaₖᵇ ⊗ hₖ₋₁ᵇ      b_hh   Cₖ = Σ_b δaₖᵇ
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax import Array

from jaxrnn.cells.contract import Params
from jaxrnn.numerics import norms, outer_products
from jaxrnn.numerics.dtypes import cast
from jaxrnn.numerics.zeros import zeros_of

__all__ = ["sizes"]

WEIGHTS = ("w_ih", "w_hh")


def sizes(
    params: Params,
    parts: tuple[Array, ...],
    xs: Array,
    hs: Array,
    direction: Any,
    biases: Callable[[Any], tuple[Array | None, Array | None]],
) -> tuple[Any, Any]:
    """‖Cₖ‖ and ⟨Cₖ, direction⟩ for every step k and every leaf of the params.

    Args:
      params: θ.
      parts: The adjoints of u and a, or one for both, each `(T, *batch, G·H)`.
      xs: Inputs, `(T, *batch, D)`.
      hs: The outputs before each step, `(T, *batch, H)`.
      direction: What the inner products are taken with, a tree of the params.
      biases: params ↦ (b, b_hh), linear.

    Returns:
      (norms, inner products), two trees of the params with leaves `(T,)`.

    Raises:
      NotImplementedError: If the batch is split over several devices.

    Cost:
      That of `outer_products.sizes` for each weight. `(T, G·H, ·)` is formed only if it is small.
    """
    _check_one_device(params.w_hh, xs)
    # One adjoint for both is one entry: its first is also its last.
    du, da, x, h = map(_flat_batch, (parts[0], parts[-1], xs, hs))
    vectors = {f: leaf for f, leaf in params._asdict().items() if f not in WEIGHTS}
    # A cell may make b_hh from any leaves, so their gradients come from the transpose of `biases`.
    like, pull = jax.vjp(lambda v: biases(params._replace(**v)), cast(vectors, du.dtype))
    summed = (du.sum(1), None if like[1] is None else da.sum(1))
    (each,) = jax.vmap(pull)(summed)  # (T, ·) for every vector
    measured = jax.vmap(norms.norm_and_inner, (0, None))
    found = {f: measured(leaf, getattr(direction, f)) for f, leaf in each.items()}
    found["w_ih"] = outer_products.sizes(du, x, direction.w_ih)
    found["w_hh"] = outer_products.sizes(da, h, direction.w_hh)
    fields = [found[f] for f in params._fields]
    return type(params)(*[f[0] for f in fields]), type(params)(*[f[1] for f in fields])


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
