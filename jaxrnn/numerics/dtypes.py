"""The 16-bit rule: what is stored in 16 bits is added up in float32."""

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["accumulator", "cast"]


def accumulator(dtype: Any) -> Any:
    """The dtype that sums are kept in: float32 for 16-bit numbers, else their own."""
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize < 4 else jnp.dtype(dtype)


def cast(tree: Any, dtype: Any) -> Any:
    """Every leaf in `dtype`."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)
