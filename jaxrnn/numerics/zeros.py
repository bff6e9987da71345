"""Zeros that are placed over devices as another array is."""

from typing import Any

import jax.numpy as jnp
from jax import Array

__all__ = ["zeros_of"]


def zeros_of(x: Array, axes: Any = None) -> Array:
    """Zeros of the shape of x summed over `axes`, by default all.

    Made of x, they have its sharding, and vary over the devices where x does: plain zeros fail as a
    carry under `shard_map` and on explicit meshes. The numbers of x are not read.
    """
    return jnp.zeros_like(x.sum(axes))
