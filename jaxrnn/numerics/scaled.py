"""Numbers too large or too small for their dtype: a value and a power of two.

    x = value · 2^exponent

A power of two changes no digit of the value. So each factor of a product rounds as if nothing were
scaled, however many factors there are. The log norm is an integer times log 2 plus the log of a
number near 1: nothing overflows or underflows, and no sum of logarithms loses digits.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from chex import ArrayTree
from jax import Array

from jaxrnn import _checks
from jaxrnn.numerics import norms
from jaxrnn.numerics.dtypes import accumulator

__all__ = ["Scaled", "added", "log_of", "rescaled", "times_power"]


class Scaled(NamedTuple):
    """The number value · 2^exponent.

    Attributes:
      value: A tree of arrays `(*lead, ·)`. Its largest |entry| is in [½, 1), or 0 if all are 0.
      exponent: int32 `(*lead,)`, the same for all leaves.

    >>> import jax.numpy as jnp
    >>> float(Scaled(jnp.float32(0.75), jnp.int32(3)).unscaled())
    6.0
    """

    value: Any
    exponent: Array

    def unscaled(self) -> ArrayTree:
        """The tree itself.

        Returns:
          The tree of `value`, in its dtypes: inf or 0 where the dtype cannot hold a number.
        """
        return jax.tree.map(lambda leaf: times_power(leaf, self.exponent), self.value)


def rescaled(tree: ArrayTree, exponent: Array) -> Scaled:
    """Tree · 2^exponent as a `Scaled`, the tree's largest |entry| brought into [½, 1).

        tree · 2^e = (tree · 2⁻ᵏ) · 2^(e+k)        2ᵏ⁻¹ ≤ max |entry| < 2ᵏ

    No digit changes, unless an entry is so much smaller than the largest that the dtype cannot hold
    it any more. A tree of zeros, or with NaN or inf in it, stays as it is.

    Args:
      tree: Leaves `(*lead, ·)`, floats.
      exponent: int32 `(*lead,)`.

    Returns:
      Scaled, with 16-bit leaves widened to float32.

    Raises:
      TypeError: If a leaf is not an array of real floats, or `exponent` not one of integers.
      ValueError: If there is no leaf, or one does not begin with the axes of `exponent`.

    Cost:
      A maximum and three multiplications for each entry.

    >>> import jax.numpy as jnp
    >>> rescaled(jnp.float32([3e38, 1e38]), jnp.int32(0)).exponent.tolist()
    128
    """
    _check("tree", tree, exponent)
    lead = exponent.ndim
    tree = jax.tree.map(lambda leaf: leaf.astype(accumulator(leaf.dtype)), tree)
    largest = [
        jnp.max(jnp.abs(leaf), axis=tuple(range(lead, leaf.ndim)), initial=0)
        for leaf in jax.tree.leaves(tree)
    ]
    top = jnp.max(jnp.stack(largest), axis=0)
    # The exponent is a choice of units, so no derivative passes through it. Of an entry that is NaN
    # or inf `frexp` gives no exponent; 0 in its place leaves the tree as it is.
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, jnp.zeros_like(top)))
    by = jnp.frexp(top)[1].astype(jnp.int32)
    return Scaled(jax.tree.map(lambda leaf: times_power(leaf, -by), tree), exponent + by)


def added(a: Scaled, b: Scaled) -> Scaled:
    """The sum a + b, formed at the larger of both exponents.

        a + b = (v_a · 2^(e_a - e) + v_b · 2^(e_b - e)) · 2^e        e = max(e_a, e_b)

    If one of them is 0, e is the exponent of the other.

    Args:
      a: Scaled, leaves `(*lead, ·)`, exponent `(*lead,)`.
      b: Scaled with the same tree and shapes.

    Returns:
      Scaled.

    Raises:
      TypeError: If `a` or `b` is no Scaled, or `b` has another tree or dtype than `a`.
      ValueError: If `b` has other shapes than `a`.

    Cost:
      That of three calls of `rescaled`.

    >>> import jax.numpy as jnp
    >>> one, tiny = Scaled(jnp.float32(0.5), jnp.int32(1)), Scaled(jnp.float32(0.5), jnp.int32(-3))
    >>> float(added(one, tiny).unscaled())
    1.0625
    """
    for name, x in (("a", a), ("b", b)):
        if not isinstance(x, Scaled):
            raise TypeError(f"{name}: expected a jaxrnn.scaled.Scaled, got {_checks.describe(x)}")
    _check("a.value", a.value, a.exponent)
    _checks.check_tree("b.value", b.value, a.value, "a.value")
    top = jnp.maximum(_exponent(a), _exponent(b))
    value = jax.tree.map(
        lambda x, y: times_power(x, a.exponent - top) + times_power(y, b.exponent - top),
        a.value,
        b.value,
    )
    return rescaled(value, top)


# The exponent that stands for the number 0. A product that is halved at each step reaches it after
# 2.7e8 steps. Differences of exponents still stay in int32. Counted, not measured;
# docs/decisions/scaled-products.md
LOWEST = -(2**28)


def _exponent(x: Scaled) -> Array:
    """The exponent, or where x is 0, one below any other."""
    # 0 has any exponent. A large one would push the other summand of `added` below its dtype.
    lead = x.exponent.ndim
    leaves = jax.tree.leaves(x.value)
    some = [jnp.any(leaf != 0, axis=tuple(range(lead, leaf.ndim))) for leaf in leaves]
    anything = jnp.any(jnp.stack(some), axis=0)
    return jnp.where(anything, x.exponent, jnp.full_like(x.exponent, LOWEST))


def times_power(x: Array, exponent: Array) -> Array:
    """Numbers times a power of two.

        x · 2^exponent

    Args:
      x: `(*lead, ·)`, floats.
      exponent: int32 `(*lead,)`.

    Returns:
      An array of the shape and dtype of x. It is exact where x and the result are normal numbers,
      and inf or 0 where the dtype cannot hold the result.

    Raises:
      TypeError: If `x` is not an array of real floats, or `exponent` not one of integers.
      ValueError: If `x` does not begin with the axes of `exponent`.

    Cost:
      Three multiplications for each entry.

    >>> import jax.numpy as jnp
    >>> float(times_power(jnp.float32(2.0**100), jnp.int32(-200))) == 2.0**-100
    True
    """
    _check("x", x, exponent)
    info = jnp.finfo(x.dtype)
    exponent = exponent.reshape(*exponent.shape, *[1] * (x.ndim - exponent.ndim))
    # In several factors, since 2^±k overflows long before x · 2^±k must. Three span the way from
    # the smallest subnormal number to the largest number of a dtype; two do not.
    for _ in range(3):
        part = jnp.clip(exponent, info.minexp, info.maxexp - 1)
        x = x * jnp.broadcast_to(_power(part, x.dtype), x.shape)
        exponent = exponent - part
    return x


def _check(name: str, tree: Any, exponent: Any) -> None:
    """Refuse what is no tree of floats that begin with the axes of an integer exponent."""
    _checks.check_array("exponent", exponent, kind=jnp.integer)
    lead, paths = tuple(exponent.shape), jax.tree_util.tree_leaves_with_path(tree)
    if not paths:
        raise ValueError(f"{name}: expected at least one array, got {_checks.describe(tree)}")
    for path, leaf in paths:
        leaf_name = name + jax.tree_util.keystr(path)
        _checks.check_array(leaf_name, leaf)
        if tuple(leaf.shape[: len(lead)]) != lead:
            raise ValueError(
                f"{leaf_name}: expected an array that begins with the axes {lead} of exponent, got "
                f"shape {tuple(leaf.shape)}"
            )


def _power(exponent: Array, dtype: Any) -> Array:
    """2^exponent, exact, where that is a normal number."""
    # Made from its bits, since `exp2` may round.
    info = jnp.finfo(dtype)
    integer = {16: jnp.int16, 32: jnp.int32, 64: jnp.int64}[info.bits]
    bits = (exponent.astype(integer) - info.minexp + 1) << info.nmant
    return jax.lax.bitcast_convert_type(bits, dtype)


def log_of(size: Array, exponent: Array) -> Array:
    """The natural logarithm of a scaled number.

        log(size · 2^exponent) = exponent · log 2 + log size

    Args:
      size: Floats of at least 0, `(*lead,)`.
      exponent: int32 `(*lead,)`.

    Returns:
      `(*lead,)` in the dtype of size. At size 0 it is -inf and its derivative is 0.

    Raises:
      TypeError: If `size` is not an array of real floats, or `exponent` not one of integers.
      ValueError: If the two have different shapes.

    Cost:
      One logarithm and two multiplications for each entry.

    >>> import jax.numpy as jnp
    >>> float(log_of(jnp.float32(1.0), jnp.int32(1000)))
    693.1471...
    """
    _check("size", size, exponent)
    if size.ndim != exponent.ndim:
        raise ValueError(
            f"size: expected the shape of exponent, {exponent.shape}, got {size.shape}"
        )
    # log 2 = high + low, where `high` has 12 bits: its product with an exponent below 2¹² is exact
    # in float32. With log 2 in one piece, its rounding error would grow with the exponent.
    high = jnp.asarray(np.floor(np.log(2) * 2**12) / 2**12, size.dtype)
    low = jnp.asarray(np.log(2) - np.floor(np.log(2) * 2**12) / 2**12, size.dtype)
    n = exponent.astype(size.dtype)
    high, low = jnp.broadcast_to(high, n.shape), jnp.broadcast_to(low, n.shape)
    return n * high + (n * low + norms.log(size))
