"""A state as one vector of n entries: its leaves `(*lead, H)` joined in the order of the tree."""

import functools
import itertools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn.numerics import norms
from jaxrnn.numerics.scaled import Scaled, log_of, rescaled

__all__ = ["cast_like", "ends", "joined", "log_norm_of_state", "size", "split", "unit_rows"]

Tree = TypeVar("Tree")


def size(state: Any) -> int:
    """n, the number of entries of one example's state."""
    return sum(leaf.shape[-1] for leaf in jax.tree.leaves(state))


def ends(state: Any) -> list[int]:
    """The positions in that vector at which one leaf ends and the next begins."""
    return list(itertools.accumulate(leaf.shape[-1] for leaf in jax.tree.leaves(state)))[:-1]


def joined(state: Any) -> Array:
    """Leaves `(*lead, H)` → `(*lead, n)`."""
    return jnp.concatenate(jax.tree.leaves(state), axis=-1)


def split(vector: Array, like: Tree) -> Tree:
    """`(*lead, n)` → the tree of `like`, in its dtypes."""
    parts = jnp.split(vector, ends(like), axis=-1)
    return cast_like(like, jax.tree.unflatten(jax.tree.structure(like), parts))


def cast_like(like: Tree, tree: Any) -> Tree:
    """The tree, each leaf in the dtype of that leaf of `like`."""
    return jax.tree.map(lambda leaf, of: leaf.astype(of.dtype), tree, like)


def log_norm_of_state(vector: Scaled) -> Array:
    """The log of ‖v‖ for a state v that is kept as a value and a power of two."""
    # Squares neither overflow nor matter where they underflow: the largest |entry| is in [½, 1).
    squares = [jnp.sum(leaf * leaf, axis=-1) for leaf in jax.tree.leaves(vector.value)]
    return log_of(norms.root(functools.reduce(jnp.add, squares)), vector.exponent)


def unit_rows(state: Any) -> Scaled:
    """The n rows of the identity matrix, each as a state: leaves `(*batch, n, H)`."""
    leaves, n = jax.tree.leaves(state), size(state)
    rows, offset = [], 0
    for leaf in leaves:
        H, batch = leaf.shape[-1], leaf.shape[:-1]
        # Zeros made of the leaf give the rows its sharding: they are the carry of a scan.
        eye = jnp.eye(n, H, -offset, dtype=leaf.dtype)
        rows.append(jnp.broadcast_to(eye, (*batch, n, H)) + jnp.zeros_like(leaf[..., None, :1]))
        offset += H
    zero = jnp.zeros(leaves[0].shape[:-1], jnp.int32)
    return rescaled(jax.tree.unflatten(jax.tree.structure(state), rows), zero)
