"""Zeros that are placed over devices as another array is placed."""

from typing import Any

import jax.numpy as jnp
from jax import Array

__all__ = ["zeros_of"]


def zeros_of(x: Array, axes: Any = None) -> Array:
    """Zeros of the shape of x summed over `axes`, by default all.

    They are made of x, so they have its sharding and vary over the devices where x does. Plain
    zeros fail as the carry of a scan under `shard_map` and on explicit meshes. The numbers of x are
    not read, so NaN in x does no harm.
    """
    return jnp.zeros_like(x.sum(axes))
