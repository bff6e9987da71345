"""A derivative in closed form beside the same by a reference, and sizes of trees of them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Pair", "Pairs", "largest", "total"]


class Pair(NamedTuple):
    """A derivative in closed form and by a reference; like trees.

    `error` is what the reference admits of its own, None if nothing. An error is judged
    relative to `size`: one number a case, or one an entry as a tree like the others.
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
