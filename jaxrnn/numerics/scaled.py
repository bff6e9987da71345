"""Numbers too large or too small for their dtype: a value and a power of two.

    x = value · 2^exponent

A power of two changes no digit of the value, so a product of a million matrices rounds as one of
ten does, and its log norm is an integer times log 2 plus the log of a number near 1: nothing
overflows, underflows or is summed up.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from chex import ArrayTree
from jax import Array

from jaxrnn.numerics import norms
from jaxrnn.numerics.dtypes import accumulator

__all__ = ["Scaled", "added", "log_of", "rescaled", "times_power"]


class Scaled(NamedTuple):
    """value · 2^exponent.

    value: a tree of arrays `(*lead, ·)` whose largest |entry| is in [½, 1), or 0 if all are.
    exponent: int32 `(*lead,)`, one for all leaves.

    >>> import jax.numpy as jnp
    >>> float(Scaled(jnp.float32(0.75), jnp.int32(3)).unscaled())
    6.0
    """

    value: Any
    exponent: Array

    def unscaled(self) -> ArrayTree:
        """The tree itself: inf or 0 where its dtype cannot hold it."""
        return jax.tree.map(lambda leaf: times_power(leaf, self.exponent), self.value)


def rescaled(tree: ArrayTree, exponent: Array) -> Scaled:
    """Tree · 2^exponent with the tree's largest |entry| brought into [½, 1), digits unchanged.

        tree · 2^e = (tree · 2⁻ᵏ) · 2^(e+k)        2ᵏ⁻¹ ≤ max |entry| < 2ᵏ

    All zeros and anything not finite stay as they are.

    Args:    tree: leaves `(*lead, ·)`, floats; exponent: int32 `(*lead,)`.
    Returns: Scaled; 16-bit leaves are widened to float32.
    Raises:  nothing of its own; arguments are not checked.
    Cost:    a maximum and three multiplications an entry.
    Source:  this library.

    >>> import jax.numpy as jnp
    >>> rescaled(jnp.float32([3e38, 1e38]), jnp.int32(0)).exponent.tolist()
    128
    """
    lead = exponent.ndim
    tree = jax.tree.map(lambda leaf: leaf.astype(accumulator(leaf.dtype)), tree)
    largest = [
        jnp.max(jnp.abs(leaf), axis=tuple(range(lead, leaf.ndim)), initial=0)
        for leaf in jax.tree.leaves(tree)
    ]
    top = jnp.max(jnp.stack(largest), axis=0)
    # The exponent is a choice of units: no derivative passes through it.
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, jnp.zeros_like(top)))
    by = jnp.frexp(top)[1].astype(jnp.int32)
    return Scaled(jax.tree.map(lambda leaf: times_power(leaf, -by), tree), exponent + by)


def added(a: Scaled, b: Scaled) -> Scaled:
    """A + b, formed at the larger of both exponents.

        a + b = (v_a · 2^(e_a - e) + v_b · 2^(e_b - e)) · 2^e        e = max(e_a, e_b)

    Args:    a, b: Scaled with like trees, leaves `(*lead, ·)`, exponents `(*lead,)`; one that is 0
             has no say in e.
    Returns: Scaled.
    Raises:  nothing of its own; arguments are not checked.
    Cost:    as three of `rescaled`.
    Source:  this library.

    >>> import jax.numpy as jnp
    >>> one, tiny = Scaled(jnp.float32(0.5), jnp.int32(1)), Scaled(jnp.float32(0.5), jnp.int32(-3))
    >>> float(added(one, tiny).unscaled())
    1.0625
    """
    top = jnp.maximum(_exponent(a), _exponent(b))
    value = jax.tree.map(
        lambda x, y: times_power(x, a.exponent - top) + times_power(y, b.exponent - top),
        a.value,
        b.value,
    )
    return rescaled(value, top)


# The exponent of 0: below any that 2.7e8 steps that halve can reach, and so near that differences
# stay in int32. Counted, not measured; docs/decisions/scaled-products.md
LOWEST = -(2**28)


def _exponent(x: Scaled) -> Array:
    """Its exponent, or one below any other where it is 0."""
    lead = x.exponent.ndim
    leaves = jax.tree.leaves(x.value)
    some = [jnp.any(leaf != 0, axis=tuple(range(lead, leaf.ndim))) for leaf in leaves]
    anything = jnp.any(jnp.stack(some), axis=0)
    return jnp.where(anything, x.exponent, jnp.full_like(x.exponent, LOWEST))


def times_power(x: Array, exponent: Array) -> Array:
    """A number times a power of two.

        x · 2^exponent

    Args:    x: `(*lead, ·)`, floats; exponent: int32 `(*lead,)`.
    Returns: the shape and dtype of x: exact where x and the result are normal numbers; inf or 0
             where the dtype cannot hold it.
    Raises:  nothing of its own; arguments are not checked.
    Cost:    three multiplications an entry.
    Source:  this library.

    >>> import jax.numpy as jnp
    >>> float(times_power(jnp.float32(2.0**100), jnp.int32(-200))) == 2.0**-100
    True
    """
    info = jnp.finfo(x.dtype)
    exponent = exponent.reshape(*exponent.shape, *[1] * (x.ndim - exponent.ndim))
    # In three factors: 2^±k itself overflows long before x · 2^±k must.
    for _ in range(3):
        part = jnp.clip(exponent, info.minexp, info.maxexp - 1)
        x = x * jnp.broadcast_to(_power(part, x.dtype), x.shape)
        exponent = exponent - part
    return x


def _power(exponent: Array, dtype: Any) -> Array:
    """2^exponent from its bits: exact, for a normal result."""
    info = jnp.finfo(dtype)
    integer = {16: jnp.int16, 32: jnp.int32, 64: jnp.int64}[info.bits]
    bits = (exponent.astype(integer) - info.minexp + 1) << info.nmant
    return jax.lax.bitcast_convert_type(bits, dtype)


def log_of(size: Array, exponent: Array) -> Array:
    """The logarithm of a scaled number, natural, -inf for 0.

        log(size · 2^exponent) = exponent · log 2 + log size

    The integer is split so that its product with log 2 keeps every digit of the dtype.

    Args:    size: floats of at least 0, `(*lead,)`; exponent: int32 `(*lead,)`.
    Returns: `(*lead,)` in the dtype of size; its derivative at 0 is 0.
    Raises:  nothing of its own; arguments are not checked.
    Cost:    one logarithm and two multiplications an entry.
    Source:  this library.

    >>> import jax.numpy as jnp
    >>> float(log_of(jnp.float32(1.0), jnp.int32(1000)))
    693.1471...
    """
    high = jnp.asarray(np.floor(np.log(2) * 2**12) / 2**12, size.dtype)
    low = jnp.asarray(np.log(2) - np.floor(np.log(2) * 2**12) / 2**12, size.dtype)
    n = exponent.astype(size.dtype)
    high, low = jnp.broadcast_to(high, n.shape), jnp.broadcast_to(low, n.shape)
    return n * high + (n * low + norms.log(size))
