"""The update gate RNN: a vanilla network behind one gate.

gᵢ = σ(zᵍ)   c̃ᵢ = tanh(zᶜ)      z = W_ih xᵢ + b + W_hh hᵢ₋₁
hᵢ = gᵢ ⊙ hᵢ₋₁ + (1 - gᵢ) ⊙ c̃ᵢ

∂h/∂h₋ = diag(g) + diag(kᵍ) W_g + diag(kᶜ) W_c

kᵍ = (h₋ - c̃) g(1-g)        kᶜ = (1-g) (1-c̃²)
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrnn.cells.activations import Given, sigmoid, sigmoid_parts, tanh
from jaxrnn.cells.drawing import gate_params, gate_shapes
from jaxrnn.cells.gate_blocks import by_one_tanh
from jaxrnn.cells.pointwise_cell import PointwiseCell
from jaxrnn.cells.pointwise_map import Pointwise
from jaxrnn.cells.traits import Gate

__all__ = ["UGRNNParams", "UGRNNState", "ugrnn"]

GATES = (
    Gate("g", "update", "keeps", sigmoid.range, sigmoid.value),
    Gate("c", "candidate", "proposes", tanh.range, tanh.value),
)
NAMES = tuple(gate.name for gate in GATES)


class UGRNNParams(NamedTuple):
    """θ of the update gate RNN; rows in the gate order g, c.

    Attributes:
      w_ih: Input weight, `(2H, D)`.
      w_hh: Recurrent weight, `(2H, H)`.
      b: Bias, `(2H,)`.
    """

    w_ih: Array
    w_hh: Array
    b: Array


class UGRNNState(NamedTuple):
    """The state of the update gate RNN.

    Attributes:
      h: State and output, `(*batch, H)`.
    """

    h: Array


class UGRNNPartials(NamedTuple):
    """∂φ: three diagonals, each `(*lead, H)`."""

    g: Array  # ∂h/∂h₋ at fixed gates
    kg: Array  # ∂h/∂zᵍ = (h₋ - c̃) g(1-g)
    kc: Array  # ∂h/∂zᶜ = (1-g) (1-c̃²)


def update(state: UGRNNState, u: Array, a: Array) -> UGRNNState:
    """The step: h = c̃ + g⊙(h₋ - c̃)."""
    g, c = by_one_tanh(u + a, (True, False))
    return UGRNNState(h=c + g * (state.h - c))


def partials(state: UGRNNState, u: Array, a: Array) -> UGRNNPartials:
    """The derivatives of `update`; 1-g is σ(-zᵍ), which keeps its digits near g = 1."""
    zg, zc = jnp.split(u + a, 2, axis=-1)
    g, closed, dg = sigmoid_parts(zg)
    return UGRNNPartials(g=g, kg=(state.h - tanh(zc)) * dg, kc=closed * tanh.derivative(zc))


def tangent(p: UGRNNPartials, dstate: UGRNNState, dz: Array) -> UGRNNState:
    """δh = g⊙δh₋ + kᵍ⊙δzᵍ + kᶜ⊙δzᶜ, with δz = δu + δa."""
    dzg, dzc = jnp.split(dz, 2, axis=-1)
    return UGRNNState(h=p.g * dstate.h + p.kg * dzg + p.kc * dzc)


def gate_values(state: UGRNNState, u: Array, a: Array) -> tuple[Array, ...]:
    """(g, c̃)."""
    g, c = jnp.split(u + a, 2, axis=-1)
    return sigmoid(g), tanh(c)


def ugrnn() -> PointwiseCell:
    """The update gate RNN; gate order g, c; state (h,).

        gᵢ = σ(zᵍ)   c̃ᵢ = tanh(zᶜ)      z = W_ih xᵢ + b + W_hh hᵢ₋₁
        hᵢ = gᵢ ⊙ hᵢ₋₁ + (1 - gᵢ) ⊙ c̃ᵢ

    Its `init` takes `forget_bias` (default 1, in the g block of b), `input_init` and
    `recurrent_init`. The block of each gate is drawn by itself.

    Returns:
      A cell. Its params are `UGRNNParams`, its state is `UGRNNState`.

    Cost:
      O(B·2·H·(D + H)) for a step.

    Source:
      Collins, Sohl-Dickstein & Sussillo, arXiv:1611.09913; docs/derivations/gated.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.ugrnn()
    >>> jax.tree.map(lambda p: p.shape, cell.init(jax.random.key(0), 2, 3))
    UGRNNParams(w_ih=(6, 2), w_hh=(6, 3), b=(6,))
    """
    return UGRNN


UGRNN = PointwiseCell(
    name="ugrnn",
    gates=NAMES,
    phi=Pointwise(update, partials, tangent, gate_values=gate_values, gates=GATES),
    state_type=UGRNNState,
    shapes=Given(gate_shapes, (UGRNNParams, NAMES)),
    init=Given(gate_params, (UGRNNParams, NAMES, "g")),
)
