"""How weights are drawn: the block of each gate by itself."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from chex import PRNGKey
from jax import Array
from jax.nn import initializers

from jaxrnn import _checks
from jaxrnn.numerics import factorizations
from jaxrnn.numerics.dtypes import accumulator

__all__ = ["Initializer", "draw"]

Initializer = Callable[..., Array]  # (key, shape, dtype) -> array, as in jax.nn.initializers

# A weight `(rows, columns)` maps columns to rows, so its fan-in is the last axis. JAX's default is
# the other way round.
GLOROT = initializers.glorot_uniform(in_axis=-1, out_axis=-2)
ORTHOGONAL = factorizations.orthogonal


def draw(
    key: PRNGKey,
    gates: int,
    input_size: int,
    hidden_size: int,
    dtype: Any,
    input_init: Initializer,
    recurrent_init: Initializer,
) -> tuple[Array, Array]:
    """(W_ih, W_hh), with each of the G blocks drawn by itself.

    Args:
      key: A PRNG key.
      gates: G.
      input_size: D.
      hidden_size: H.
      dtype: Of the weights, or None for JAX's default float.
      input_init: Draws a block of W_ih, `(H, D)`.
      recurrent_init: Draws a block of W_hh, `(H, H)`.

    Returns:
      (W_ih, W_hh), `(G·H, D)` and `(G·H, H)`.

    Raises:
      TypeError: If an argument, or what an initialiser returns, has the wrong type or dtype.
      ValueError: If a size is too small, or an initialiser returns another shape.
    """
    _checks.check_key(key)
    _checks.check_integer("input_size", input_size, least=0)
    _checks.check_integer("hidden_size", hidden_size, least=1)
    _checks.check_callable("input_init", input_init, "(key, shape, dtype) -> array")
    _checks.check_callable("recurrent_init", recurrent_init, "(key, shape, dtype) -> array")
    dtype = _checks.floating_dtype(dtype)

    # QR, which an orthogonal initialiser needs, does not exist in 16 bits.
    wide = accumulator(dtype)

    def blocks(name: str, key: PRNGKey, init: Initializer, columns: int) -> Array:
        # A fan-in of 0 would make the initialiser divide by zero.
        if columns == 0:
            return jnp.zeros((gates * hidden_size, 0), dtype)
        # Of an orthogonal matrix `(G·H, H)` drawn as a whole, the blocks are not orthogonal: their
        # singular values lie anywhere between 0 and 1.
        drawn = [init(k, (hidden_size, columns), wide) for k in jax.random.split(key, gates)]
        for block in drawn:
            _checks.check_array(name, block)
            _checks.check_shape(name, block, (hidden_size, columns), "of a gate block")
            _checks.check_dtype(name, block, wide, "the call")
        return jnp.concatenate(drawn).astype(dtype)

    k_ih, k_hh = jax.random.split(key)
    w_ih = blocks("input_init", k_ih, input_init, input_size)
    w_hh = blocks("recurrent_init", k_hh, recurrent_init, hidden_size)
    return w_ih, w_hh
