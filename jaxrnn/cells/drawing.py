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

__all__ = ["Initializer", "bias_of", "draw", "drawn_blocks", "gate_params", "gate_shapes"]

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
    output_size: int | None = None,
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
      output_size: The columns of W_hh, by default H.

    Returns:
      (W_ih, W_hh), `(G·H, D)` and `(G·H, H)`.

    Raises:
      TypeError: If an argument, or what an initialiser returns, has the wrong type or dtype.
      ValueError: If a size is too small, or an initialiser returns another shape.
    """
    _checks.check_key(key)
    _checks.check_integer("input_size", input_size, least=0)
    _checks.check_integer("hidden_size", hidden_size, least=1)
    k_ih, k_hh = jax.random.split(key)
    shape = hidden_size, input_size
    w_ih = drawn_blocks("input_init", k_ih, input_init, gates, shape, dtype)
    shape = hidden_size, output_size or hidden_size
    return w_ih, drawn_blocks("recurrent_init", k_hh, recurrent_init, gates, shape, dtype)


def drawn_blocks(
    name: str, key: PRNGKey, init: Initializer, count: int, shape: tuple[int, int], dtype: Any
) -> Array:
    """`count` blocks of rows, each drawn by itself; `name` is what errors call the initialiser."""
    _checks.check_callable(name, init, "(key, shape, dtype) -> array")
    dtype = _checks.floating_dtype(dtype)
    # A fan-in of 0 would make the initialiser divide by zero.
    if shape[1] == 0:
        return jnp.zeros((count * shape[0], 0), dtype)
    # QR, which an orthogonal initialiser needs, does not exist in 16 bits.
    wide = accumulator(dtype)
    # Of an orthogonal matrix `(G·H, H)` drawn as a whole, the blocks are not orthogonal: their
    # singular values lie anywhere between 0 and 1.
    drawn = [init(k, shape, wide) for k in jax.random.split(key, count)]
    for block in drawn:
        _checks.check_array(name, block)
        _checks.check_shape(name, block, shape, "of a gate block")
        _checks.check_dtype(name, block, wide, "the call")
    return jnp.concatenate(drawn).astype(dtype)


def bias_of(gates: tuple[str, ...], gate: str, value: float, w_hh: Array) -> Array:
    """A bias `(G·H,)` that is `value` in the block of one gate and 0 elsewhere."""
    H = w_hh.shape[0] // len(gates)
    b = jnp.zeros((len(gates), H), w_hh.dtype).at[gates.index(gate)].set(value)
    return b.ravel()


def gate_shapes(kind: Callable[..., Any], gates: tuple[str, ...], D: int, H: int) -> Any:
    """The shapes of params w_ih, w_hh and b with a block for each gate."""
    rows = len(gates) * H
    return kind(w_ih=(rows, D), w_hh=(rows, H), b=(rows,))


def gate_params(
    kind: Callable[..., Any],
    gates: tuple[str, ...],
    keeps: str,
    key: PRNGKey,
    input_size: int,
    hidden_size: int,
    *,
    dtype: Any = None,
    forget_bias: float = 1.0,
    input_init: Initializer = GLOROT,
    recurrent_init: Initializer = ORTHOGONAL,
) -> Any:
    """Such params: Glorot input weights, orthogonal recurrent ones, zero bias but for `keeps`."""
    _checks.check_real("forget_bias", forget_bias)
    w_ih, w_hh = draw(key, len(gates), input_size, hidden_size, dtype, input_init, recurrent_init)
    return kind(w_ih=w_ih, w_hh=w_hh, b=bias_of(gates, keeps, forget_bias, w_hh))
