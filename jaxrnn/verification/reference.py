"""Derivatives from the values of a step alone, with no differentiation rule involved.

Complex step:  f'(z) = Im f(z + ih)/h with h = 1e-200, exact to the last bits because nothing is
subtracted (Squire & Trapp 1998). The step must be analytic, and must trace with complex numbers.

Central differences, extrapolated (Richardson, Romberg), serve any other step. They estimate their
own error, and the caller adds that to the tolerance.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from chex import ArrayTree
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxrnn.cells.contract import over_leading_axes

__all__ = ["Reference", "complex_step", "differences", "is_analytic", "jacobian"]

Function = Callable[[Any], Any]

# Its square is 0 in float64, so that no digit of a derivative is lost.
IMAGINARY_STEP = 1e-200
# Step sizes of differences: rounding, or truncation. 2026-11-30, tanh: off by 3.3e-10 with 2,
# 5.4e-14 with 3, 2.4e-13 with 5; docs/decisions/verification-tolerance.md
LEVELS = 5


class Reference(NamedTuple):
    """A derivative and the error that the method admits, two trees alike.

    Attributes:
      value: The derivative.
      error: The error of each entry, 0 of a complex step.
    """

    value: Any
    error: Any


ReferenceMethod = Callable[[Function, Any, Any], Reference]


def complex_step(f: Function, point: Any, direction: Any) -> Reference:
    """The derivative of `f` at `point` along `direction`, Im f(point + ih direction)/h."""

    def shift(p: Array, d: Array) -> Array:
        return jax.lax.complex(p, IMAGINARY_STEP * d)

    out = f(jax.tree.map(shift, point, direction))
    value = jax.tree.map(lambda leaf: jnp.imag(leaf) / IMAGINARY_STEP, out)
    return Reference(value, jax.tree.map(jnp.zeros_like, value))


def differences(f: Function, point: Any, direction: Any) -> Reference:
    """The derivative of `f` along `direction` by central differences h, h/2, … extrapolated.

    h = 0.01 / max(1, largest entry of the point) / max(1, largest entry of the direction).
    """
    # Large weights make a step steep, and a large direction goes far: either way h has to be small.
    first = 0.01 / jnp.maximum(_largest(point), 1.0) / jnp.maximum(_largest(direction), 1.0)
    steps = first * jnp.asarray([0.5**level for level in range(LEVELS)], first.dtype)

    def central(h: Array) -> ArrayTree:
        up = f(jax.tree.map(lambda p, d: p + h * d, point, direction))
        down = f(jax.tree.map(lambda p, d: p - h * d, point, direction))
        return jax.tree.map(lambda a, b: (a - b) / (2 * h), up, down)

    rows = jax.vmap(central)(steps)
    found = jax.tree.map(_extrapolate, rows)
    return Reference(*jax.tree.transpose(jax.tree.structure(rows), None, found))


def _extrapolate(row: Array) -> tuple[Array, Array]:
    """The last entry of Romberg's tableau over the leading axis of step sizes, and its error.

    The error is how far the levels after the first moved, all added up; at a kink they move a lot.
    At a kink of the derivative, as that of |z| z at 0, they settle on a number that depends on h:
    how far it moves when all step sizes are halved, in the last levels but one, is added.
    """
    corner, halved = [], []
    for level in range(row.shape[0]):
        corner.append(row[-1])  # of this level, the entry from the finest steps
        # The error of central differences is a series in h²; each level takes out its next term.
        if 1 < row.shape[0] < 4:
            halved.extend(jnp.abs(jnp.diff(row, axis=0)))
        weight = 4.0 ** (level + 1)
        row = (weight * row[1:] - row[:-1]) / (weight - 1)
    moved = [jnp.abs(b - a) for a, b in itertools.pairwise(corner[1:])]
    return corner[-1], functools.reduce(jnp.add, [*moved, *halved])


def _largest(tree: Any) -> Array:
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0.0) for x in jax.tree.leaves(tree)]))


def is_analytic(f: Function, point: Any, direction: Any) -> bool:
    """Whether the complex step may be used for `f`: it traces, and agrees with differences.

    `abs`, `real` and the like trace and are not analytic; the comparison finds them. Leaves of
    `point` and `direction` have a leading axis of cases.
    """

    def both(p: Any, d: Any) -> tuple[Reference, Reference]:
        return complex_step(f, p, d), differences(f, p, d)

    try:
        # Traced first: a step that refuses complex numbers does so here, before anything is
        # compiled.
        jax.eval_shape(jax.vmap(lambda p, d: complex_step(f, p, d)), point, direction)
    except (TypeError, ValueError, NotImplementedError, AttributeError):
        return False
    stepped, other = jax.jit(jax.vmap(both))(point, direction)
    leaves = map(jax.tree.leaves, (stepped.value, other.value, other.error))
    for a, b, e in zip(*leaves, strict=True):
        judged = jnp.isfinite(b) & jnp.isfinite(e)
        close = jnp.abs(a - b) <= 10 * e + 1e-6 * (1 + jnp.abs(b))
        # relu is analytic but for its kink, which spoils the few differences that reach over it. A
        # step that is not analytic disagrees in many entries.
        if float(jnp.mean(jnp.where(judged, close, True))) < 0.95:
            return False
    return True


def jacobian(method: ReferenceMethod, f: Function, point: Any) -> Reference:
    """The dense Jacobian of `f` at `point`, with the tree of `jax.jacfwd`.

    One column at a time: every direction moves a single entry. The columns are mapped, so `f` is
    traced once.
    """
    flat, unravel = ravel_pytree(point)
    columns = jax.vmap(lambda e: method(f, point, unravel(e)))(jnp.eye(flat.size))  # (n, *out)

    def blocks(leaf: Array) -> ArrayTree:
        rows = jnp.moveaxis(leaf, 0, -1)  # (*out, n)
        return over_leading_axes(unravel, rows.ndim - 1)(rows)

    return Reference(*[jax.tree.map(blocks, part) for part in columns])
