"""The vanilla (Elman) recurrent network.

    zᵢ = W_ih xᵢ + b + W_hh hᵢ₋₁
    hᵢ = a(zᵢ)

Its tangent is δh = a'(z) ⊙ δz, hence ∂hᵢ/∂hᵢ₋₁ = diag(a'(zᵢ)) W_hh.
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from chex import PRNGKey
from jax import Array

from jaxrnn.cells.activations import Activation, Given, check_activation, tanh
from jaxrnn.cells.drawing import GLOROT, ORTHOGONAL, Initializer, draw
from jaxrnn.cells.pointwise_cell import PointwiseCell
from jaxrnn.cells.pointwise_map import Pointwise
from jaxrnn.cells.traits import Gate

__all__ = ["RNNParams", "RNNState", "rnn"]

NAMES = ("h",)


class RNNParams(NamedTuple):
    """θ of the vanilla network.

    Attributes:
      w_ih: Input weight, `(H, D)`.
      w_hh: Recurrent weight, `(H, H)`.
      b: Bias, `(H,)`.
    """

    w_ih: Array
    w_hh: Array
    b: Array


class RNNState(NamedTuple):
    """The state of the vanilla network.

    Attributes:
      h: State and output, `(*batch, H)`.
    """

    h: Array


class RNNPartials(NamedTuple):
    """∂φ: one diagonal."""

    k: Array  # (*lead, H)   a'(z)


def rnn(activation: Activation = tanh) -> PointwiseCell:
    """The vanilla network: one gate, one activation.

        hᵢ = a(W_ih xᵢ + b + W_hh hᵢ₋₁)

    With `activations.identity` it is the linear network of the classical analysis, with
    `activations.sigmoid` the LSTM without its cell state.

    Args:
      activation: The `Activation` a, with its derivative and γ.

    Returns:
      A cell. Its params are `RNNParams`, its state is `RNNState`. Equal activations give the same
      cell, so `jax.jit` compiles once.

    Raises:
      TypeError: If `activation` is no `Activation`, such as a bare function.

    Cost:
      O(B·H·(D + H)) for a step.

    Source:
      Elman, Finding structure in time, Cognitive Science 14, 1990; docs/derivations/rnn.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.rnn(activation=jaxrnn.activations.relu)
    >>> jax.tree.map(lambda p: p.shape, cell.init(jax.random.key(0), 2, 3))
    RNNParams(w_ih=(3, 2), w_hh=(3, 3), b=(3,))
    """
    check_activation("activation", activation)
    return _rnn(activation)


def update(activation: Activation, state: RNNState, u: Array, a: Array) -> RNNState:
    """The step, h = a(z)."""
    return RNNState(h=activation.value(u + a))


def partials(activation: Activation, state: RNNState, u: Array, a: Array) -> RNNPartials:
    """The derivative of `update`, k = a'(z)."""
    return RNNPartials(k=activation.derivative(u + a))


def gate_values(activation: Activation, state: RNNState, u: Array, a: Array) -> tuple[Array, ...]:
    """(a(z),): what the one gate lets through."""
    return (activation.value(u + a),)


@functools.cache
def _rnn(activation: Activation) -> PointwiseCell:
    phi = Pointwise(
        Given(update, (activation,)),
        Given(partials, (activation,)),
        tangent,
        slope=activation.gamma,
        linear=activation.linear,
        gate_values=Given(gate_values, (activation,)),
        gates=(Gate("h", "output", "proposes", activation.range, activation.value),),
    )
    return PointwiseCell(
        name=f"rnn[{activation.name}]",
        gates=NAMES,
        phi=phi,
        state_type=RNNState,
        shapes=shapes,
        init=init,
    )


def tangent(p: RNNPartials, dstate: RNNState, dz: Array) -> RNNState:
    """δh = a'(z) ⊙ δz, with δz = δu + δa."""
    return RNNState(h=p.k * dz)


def shapes(D: int, H: int) -> RNNParams:
    """Shapes of the params' leaves."""
    return RNNParams(w_ih=(H, D), w_hh=(H, H), b=(H,))  # type: ignore[arg-type]


def init(
    key: PRNGKey,
    input_size: int,
    hidden_size: int,
    *,
    dtype: Any = None,
    input_init: Initializer = GLOROT,
    recurrent_init: Initializer = ORTHOGONAL,
) -> RNNParams:
    """Glorot input weights, orthogonal recurrent weights, zero bias."""
    w_ih, w_hh = draw(key, len(NAMES), input_size, hidden_size, dtype, input_init, recurrent_init)
    return RNNParams(w_ih, w_hh, jnp.zeros(hidden_size, w_hh.dtype))
