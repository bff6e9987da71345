"""Affine maps by gate blocks: applying them, and scaling their rows.

A weight `(G·H, N)` has G blocks of H rows, one block for each gate. The derivative of a unit scales
a row. So a dense Jacobian block of a pointwise cell is `diag(d_g) W[g]`, summed over gates.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn.numerics.dtypes import accumulator

__all__ = [
    "Affine",
    "apply",
    "apply_columns",
    "columns",
    "diagonal",
    "driven",
    "scaled_columns",
    "scaled_rows",
    "side_by_side",
    "times",
]


# Numbers in a weight, 2 MiB in float32, the size of a core's cache. Turned, XLA copies the narrow
# operand of the gradient's matmul; beyond the cache turning costs more than that spares.
# benchmarks/results/constants_cpu.json; docs/decisions/drive-matmul.md
TURNED_BELOW = 2**19


class Affine(NamedTuple):
    """The map v ↦ W v + b.

    Attributes:
      weight: W, `(G·H, N)`.
      bias: b, `(G·H,)`, or None.
    """

    weight: Array
    bias: Array | None


def apply(affine: Affine, v: Array) -> Array:
    """W v + b over leading axes, `(*lead, N)` → `(*lead, G·H)`.

    16-bit products are accumulated and kept in float32.
    """
    # Broadcast by hand, here and elsewhere: users may set `jax_numpy_rank_promotion` to "raise".
    contract = (((v.ndim - 1,), (1,)), ((), ()))
    y = jax.lax.dot_general(v, affine.weight, contract, preferred_element_type=accumulator(v.dtype))
    return y if affine.bias is None else y + jnp.broadcast_to(affine.bias.astype(y.dtype), y.shape)


def driven(affines: Sequence[Affine], vs: Sequence[Array]) -> Array:
    """Σⱼ Wⱼ vⱼ + bⱼ as one matmul, laid out for its transpose: ∂[W b] = Σ ȳ ⊗ [v 1].

    The transpose, which is the gradient of weights and bias, is then one matmul too: it sums over
    all leading axes.
    """
    # Leading axes are merged below, which JAX refuses for axes that an explicit mesh splits.
    if any(any(jax.typeof(v).sharding.spec) for v in vs):
        return functools.reduce(jnp.add, map(apply, affines, vs))
    biases = [affine.bias for affine in affines if affine.bias is not None]
    flat = [v.reshape(math.prod(v.shape[:-1]), v.shape[-1]) for v in vs]
    weights = [affine.weight for affine in affines]
    # A column of ones beside v makes the bias a column of the weight.
    if biases:
        flat.append(jnp.ones_like(flat[0], shape=(flat[0].shape[0], 1)))
        weights.append(functools.reduce(jnp.add, biases)[:, None])
    v, weight = side_by_side(flat), side_by_side(weights)
    contract = ((1,), (1,))
    # For the gradient XLA copies one operand with its axes turned. If the weight comes turned, it
    # copies the narrower one. That is faster until the weight outgrows the cache. The barriers keep
    # XLA from undoing the transposes.
    if weight.size < TURNED_BELOW:
        weight, contract = jax.lax.optimization_barrier(weight.T), ((1,), (0,))
        # Not for 16 bits: with both operands turned, XLA on a CPU refuses bfloat16 where a `vmap`
        # gives the weight one more axis.
        if weight.shape[1] > v.shape[1] and v.dtype == accumulator(v.dtype):
            v, contract = jax.lax.optimization_barrier(v.T), ((0,), (0,))
    y = jax.lax.dot_general(
        v, weight, (contract, ((), ())), preferred_element_type=accumulator(v.dtype)
    )
    return y.reshape(*vs[0].shape[:-1], y.shape[-1])


def columns(affine: Affine, count: int) -> list[Affine]:
    """W in `count` blocks of rows, each transposed to `(N, ·)` in memory, for use in a loop."""
    # A matmul in a loop wants the columns of W contiguous, which is up to twice as fast on a CPU.
    # The barrier keeps XLA from moving the transpose back into every step.
    blocks = jnp.split(affine.weight, count)
    biases = [None] * count if affine.bias is None else jnp.split(affine.bias, count)
    turned = [jax.lax.optimization_barrier(block.T) for block in blocks]
    return [Affine(*pair) for pair in zip(turned, biases, strict=True)]


def apply_columns(blocks: Sequence[Affine], v: Array) -> list[Array]:
    """W v + b, one array for each block that `columns` gave."""
    contract = (((v.ndim - 1,), (0,)), ((), ()))
    kind = accumulator(v.dtype)
    found = []
    for weight, bias in blocks:
        y = jax.lax.dot_general(v, weight, contract, preferred_element_type=kind)
        found.append(y if bias is None else y + jnp.broadcast_to(bias.astype(y.dtype), y.shape))
    return found


def side_by_side(blocks: Sequence[Array]) -> Array:
    """Blocks `(*lead, ·)` side by side."""
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=-1)


def diagonal(d: Array) -> Array:
    """diag(d), `(*lead, H)` → `(*lead, H, H)`."""
    # A select, which XLA fuses into what reads it, so that no matrix of zeros is written.
    H = d.shape[-1]
    on = jnp.broadcast_to(jnp.eye(H, dtype=bool), (*d.shape, H))
    return jnp.where(on, jnp.broadcast_to(d[..., None], on.shape), jnp.zeros((), d.dtype))


def scaled_rows(gates: Sequence[Array], weight: Array) -> Array:
    """Σ_g diag(gates[g]) W[g], G of `(*lead, H)` and `(G·H, N)` → `(*lead, H, N)`."""
    H, N = gates[0].shape[-1], weight.shape[-1]
    blocks = weight.astype(gates[0].dtype).reshape(len(gates), H, N)
    shape = (*gates[0].shape, N)
    # Multiplications, no matmul with a diagonal matrix: O(H N) for each gate, not O(H² N).
    terms = [
        jnp.broadcast_to(d[..., None], shape) * jnp.broadcast_to(block, shape)
        for d, block in zip(gates, blocks, strict=True)
    ]
    return functools.reduce(jnp.add, terms)


def scaled_columns(weight: Array, d: Array) -> Array:
    """W diag(d), `(P, H)` and `(*lead, H)` → `(*lead, P, H)`."""
    shape = (*d.shape[:-1], *weight.shape)
    rows = jnp.broadcast_to(d[..., None, :], shape)
    return jnp.broadcast_to(weight.astype(d.dtype), shape) * rows


def times(weight: Array, block: Array) -> Array:
    """W M, `(P, H)` and `(*lead, H, N)` → `(*lead, P, N)`."""
    return jnp.einsum("ph,...hn->...pn", weight.astype(block.dtype), block)
