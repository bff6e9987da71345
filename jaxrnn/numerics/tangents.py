"""Which leaves of a tree have tangents: real floats do, counters, tokens, masks and PRNG keys not.

A tangent, an adjoint or a Jacobian has None in place of a leaf without one. None is an empty tree
to JAX, so that arithmetic by `jax.tree.map` passes over it.
"""

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["has_tangent", "is_key", "left_out", "moving", "whole"]


def has_tangent(leaf: Any) -> bool:
    """Whether a leaf is of real floats."""
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is of PRNG keys, as `jax.random.key` makes them."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def moving(tree: Any) -> Any:
    """The tree with None in place of leaves without tangents."""
    return jax.tree.map(lambda leaf: leaf if has_tangent(leaf) else None, tree)


def whole(part: Any, tree: Any) -> Any:
    """The tree with the leaves of `moving(tree)` replaced by those of `part`."""
    leaves, structure = jax.tree.flatten(tree)
    new = iter(jax.tree.leaves(part))
    return structure.unflatten([next(new) if has_tangent(leaf) else leaf for leaf in leaves])


def left_out(tree: Any) -> list[str]:
    """Where the leaves without tangents are, such as ".key"."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path) for path, leaf in paths if not has_tangent(leaf)]
