"""A derivative in closed form beside that of a reference, and sizes of their trees."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Pair", "Pairs", "largest", "total"]


class Pair(NamedTuple):
    """A derivative in closed form and by a reference.

    Attributes:
      closed: The cell's own derivative, a tree.
      reference: The same by the reference, a tree like it.
      error: The error that the reference admits, a tree like it, or None if it admits none.
      size: What an error is relative to: one number for a case, or a tree like the others with one
        number for each entry.
    """

    closed: Any
    reference: Any
    error: Any
    size: Any


Pairs = dict[str, Pair]


def largest(tree: Any) -> Array:
    """The largest magnitude in a tree, 0 if it is empty."""
    leaves = [jnp.max(jnp.abs(leaf), initial=0.0) for leaf in jax.tree.leaves(tree)]
    return jnp.max(jnp.stack([jnp.zeros(()), *leaves]))


def total(tree: Any) -> Array:
    """The sum of all magnitudes in a tree."""
    return sum((jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)), start=jnp.zeros(()))
