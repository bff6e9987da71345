"""The gated recurrent unit that resets before the matmul, as in the first papers.

    rᵢ = σ(W_r xᵢ + U_r hᵢ₋₁ + b_r)    zᵢ = σ(W_z xᵢ + U_z hᵢ₋₁ + b_z)
    nᵢ = tanh(W_n xᵢ + U_n (rᵢ ⊙ hᵢ₋₁) + b_n)
    hᵢ = (1 - zᵢ) ⊙ nᵢ + zᵢ ⊙ hᵢ₋₁

U_n mixes the units after the reset, so the step is no pointwise map of one recurrent projection.
It has no closed form here: `from_step` has JAX differentiate the step.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from chex import PRNGKey
from jax import Array

from jaxrnn.cells.activations import sigmoid, tanh
from jaxrnn.cells.drawing import GLOROT, ORTHOGONAL, Initializer, draw
from jaxrnn.cells.step_cell import StepCell, from_step

__all__ = ["ResetFirstParams", "ResetFirstState", "reset_first_gru"]


class ResetFirstParams(NamedTuple):
    """θ of this GRU; rows in the gate order r, z, n.

    Attributes:
      w_ih: Input weight, `(3H, D)`.
      w_hh: Recurrent weight, `(3H, H)`.
      b: Bias, `(3H,)`.
    """

    w_ih: Array
    w_hh: Array
    b: Array


class ResetFirstState(NamedTuple):
    """The state of this GRU.

    Attributes:
      h: State and output, `(*batch, H)`.
    """

    h: Array


def step(params: ResetFirstParams, state: ResetFirstState, x: Array) -> ResetFirstState:
    """The next state, h = n + z⊙(h₋ - n), of one example."""
    H = state.h.shape[-1]
    u = params.w_ih @ x + params.b
    reset, keep = jnp.split(sigmoid(u[: 2 * H] + params.w_hh[: 2 * H] @ state.h), 2)
    n = tanh(u[2 * H :] + params.w_hh[2 * H :] @ (reset * state.h))
    return ResetFirstState(h=n + keep * (state.h - n))


def init(
    key: PRNGKey,
    input_size: int,
    hidden_size: int,
    *,
    dtype: Any = None,
    input_init: Initializer = GLOROT,
    recurrent_init: Initializer = ORTHOGONAL,
) -> ResetFirstParams:
    """Glorot input weights, orthogonal recurrent weights, zero biases."""
    w_ih, w_hh = draw(key, 3, input_size, hidden_size, dtype, input_init, recurrent_init)
    return ResetFirstParams(w_ih, w_hh, jnp.zeros(3 * hidden_size, w_hh.dtype))


def init_state(params: ResetFirstParams) -> ResetFirstState:
    """Zeros for one example."""
    # Made of the params, so that they have their dtype and their sharding.
    return ResetFirstState(jnp.zeros_like(params.b, shape=params.w_hh.shape[1]))


def reset_first_gru() -> StepCell:
    """The GRU of haiku, and of keras with `reset_after=False`; gate order r, z, n.

        rᵢ = σ(W_r xᵢ + U_r hᵢ₋₁ + b_r)    zᵢ = σ(W_z xᵢ + U_z hᵢ₋₁ + b_z)
        nᵢ = tanh(W_n xᵢ + U_n (rᵢ ⊙ hᵢ₋₁) + b_n)
        hᵢ = (1 - zᵢ) ⊙ nᵢ + zᵢ ⊙ hᵢ₋₁

    Returns:
      A cell. Its params are `ResetFirstParams`, its state is `ResetFirstState`.

    Cost:
      O(B·3·H·(D + H)) for a step; one tangent step for each unit for ∂h/∂h₋. Its gradient is made
      by JAX, at the cost of autodiff: `jaxrnn.gru` is faster.

    Source:
      Cho et al., EMNLP 2014

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.reset_first_gru()
    >>> params = cell.init(jax.random.key(0), 2, 3)
    >>> jaxrnn.unroll(cell, params, jax.numpy.ones((7, 4, 2))).h.shape
    (7, 4, 3)
    """
    return RESET_FIRST


RESET_FIRST = from_step(step, init=init, init_state=init_state, name="reset_first_gru")
