"""Euclidean norms that neither overflow nor underflow before their result does.

In float32 the square of 1e-25 is 0 and that of 1e25 is inf. So each array is divided by its largest
entry first. Its norm is then right whenever that norm is itself a float32 number.

XLA divides an array by a number as x · (1/m). From m = 1/tiny on, 8.5e37 in float32, 1/m is below
the normal numbers and becomes 0, and so would every norm: nothing is divided by more than that.
"""

import functools

import jax
import jax.numpy as jnp
from chex import ArrayTree
from jax import Array

from jaxrnn.numerics import dtypes, factorizations

__all__ = ["cosine", "log", "norm", "norm_and_inner", "root", "scaled", "spectral", "tree_norm"]


def root(square: Array) -> Array:
    """√square with derivative 0 at 0, so that one entry of 0 does not make all gradients NaN.

    >>> import jax, jax.numpy as jnp
    >>> jax.grad(lambda x: root(x * x).sum())(jnp.float32([0.0, -2.0])).tolist()
    [0.0, -1.0]
    """
    # Two of `where`: with the outer one alone, √'(0) = inf meets the 0 of the branch not taken, and
    # the derivative is 0 · inf = NaN. `log` does the same.
    zero = square == 0
    return jnp.where(zero, square, jnp.sqrt(jnp.where(zero, jnp.ones_like(square), square)))


def log(x: Array) -> Array:
    """The natural logarithm, which is -inf at 0 and has derivative 0 there.

    >>> import jax, jax.numpy as jnp
    >>> jax.grad(lambda x: log(x)[1])(jnp.float32([0.0, 2.0])).tolist()
    [0.0, 0.5]
    """
    zero = x == 0
    known = jnp.log(jnp.where(zero, jnp.ones_like(x), x))
    return jnp.where(zero, jnp.full_like(x, -jnp.inf), known)


def scaled(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """(x / m, m), where m is the largest |entry| over `axes`, or 1 if that is 0, NaN or inf.

    16-bit numbers are widened to float32. m has the remaining axes, and is at most 1/tiny; beyond
    that the largest |entry| of x / m is up to 4.

    >>> import jax.numpy as jnp
    >>> [v.tolist() for v in scaled(jnp.float32([[0.0, 0.0], [2.0, -4.0]]), (1,))]
    [[[0.0, 0.0], [0.5, -1.0]], [1.0, 4.0]]
    """
    x = x.astype(dtypes.accumulator(x.dtype))
    # m is a choice of units and needs no derivative. With one, gradients were NaN where XLA forms x
    # twice, once with another rounding: no entry is then equal to the maximum.
    m = jnp.max(jnp.abs(jax.lax.stop_gradient(x)), axis=axes, keepdims=True, initial=0)
    m = jnp.where((m > 0) & jnp.isfinite(m), m, jnp.ones_like(m))
    m = jnp.minimum(m, jnp.asarray(1 / jnp.finfo(m.dtype).tiny, m.dtype))
    return x / jnp.broadcast_to(m, x.shape), m.squeeze(axes)


def norm(x: Array, axes: tuple[int, ...]) -> Array:
    """√Σ x² over `axes`.

    >>> import jax.numpy as jnp
    >>> f"{norm(jnp.float32([3e-25, 4e-25]), (0,)):.2g}"
    '5e-25'
    """
    x, m = scaled(x, axes)
    return m * root(jnp.sum(x * x, axis=axes))


def norm_and_inner(x: Array, direction: Array) -> tuple[Array, Array]:
    """(‖x‖, ⟨x, direction⟩) over every entry.

    >>> import jax.numpy as jnp
    >>> [float(v) for v in norm_and_inner(jnp.float32([3.0, 4.0]), jnp.float32([1.0, -1.0]))]
    [5.0, -1.0]
    """
    (x, by_x), (direction, by_direction) = scaled(x.ravel(), (0,)), scaled(direction.ravel(), (0,))
    inner = jnp.sum(x * direction.astype(x.dtype)) * by_direction.astype(x.dtype)
    return by_x * root(jnp.sum(x * x)), by_x * inner


def spectral(x: Array) -> Array:
    """σ_max(x), `(*lead, m, n)` → `(*lead,)`.

    It is the root of the largest eigenvalue of x xᵀ. Its relative error is a few eps·m. It is NaN
    where an entry is NaN or inf.

    >>> import jax.numpy as jnp
    >>> f"{spectral(jnp.float32([[3e-25, 4e-25]])):.2g}"
    '5e-25'
    """
    x, m = scaled(x, (-2, -1))
    if min(x.shape[-2:]) == 0:
        return jnp.zeros_like(m)
    # x xᵀ and xᵀ x have the same largest eigenvalue; the smaller of the two is formed.
    x = x if x.shape[-2] <= x.shape[-1] else jnp.swapaxes(x, -1, -2)
    gram = jnp.matmul(x, jnp.swapaxes(x, -1, -2), precision=jax.lax.Precision.HIGHEST)
    top = factorizations.symmetric_eigenvalues(gram)[..., -1]
    # Rounding may leave the eigenvalue below 0. NaN is not < 0 and stays: a norm of 0 in its place
    # would say that the gradient has vanished.
    return m * root(jnp.where(top < 0, jnp.zeros_like(top), top))


def tree_norm(tree: ArrayTree) -> Array:
    """√Σ x² over every entry of every leaf."""
    each = [norm(leaf.ravel(), (0,)) for leaf in jax.tree.leaves(tree)]
    # Leaves may differ in dtype, and `jnp.stack` refuses to promote under strict promotion.
    widest = max((size.dtype for size in each), key=lambda dtype: dtype.itemsize)
    return norm(jnp.stack([size.astype(widest) for size in each]), (0,))


def cosine(a: ArrayTree, b: ArrayTree) -> Array:
    """⟨a, b⟩ / (‖a‖ ‖b‖) over every entry of every leaf.

    It is 0 where one of the two is 0, and 1 where both are 0, since they are then equal.
    """
    # Each is divided by its norm before they are multiplied: ‖a‖ ‖b‖ alone might overflow.
    (a, zero_a), (b, zero_b) = _unit(a), _unit(b)
    products = [jnp.sum(x * y) for x, y in zip(a, b, strict=True)]
    both = jnp.ones_like(products[0])
    return jnp.where(zero_a & zero_b, both, functools.reduce(jnp.add, products))


def _unit(tree: ArrayTree) -> tuple[list[Array], Array]:
    """The leaves divided by their common norm, and whether that is 0."""
    size = tree_norm(tree)
    by = jnp.where(size > 0, size, jnp.ones_like(size))
    # Both a quarter of what they are where `by` alone has no reciprocal; exact, as is 1 elsewhere.
    large = by > jnp.asarray(1 / jnp.finfo(by.dtype).tiny, by.dtype)
    units = jnp.where(large, jnp.asarray(0.25, by.dtype), jnp.ones_like(by))
    leaves = [leaf.astype(by.dtype) for leaf in jax.tree.leaves(tree)]
    leaves = [leaf * jnp.broadcast_to(units, leaf.shape) for leaf in leaves]
    by = by * units
    return [leaf / jnp.broadcast_to(by, leaf.shape) for leaf in leaves], size == 0
