"""The 16-bit rule: numbers that are stored in 16 bits are summed in float32."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["accumulator", "cast"]

Tree = TypeVar("Tree")


def accumulator(dtype: Any) -> np.dtype:
    """The dtype that sums are kept in: float32 for 16-bit numbers, else their own."""
    # By size, not by name, so that it holds for float16 and bfloat16 alike.
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize < 4 else jnp.dtype(dtype)


def cast(tree: Tree, dtype: Any) -> Tree:
    """Every leaf in `dtype`."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)
