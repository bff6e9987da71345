"""The LSTM that has only its forget gate left.

    fᵢ = σ(zᶠ)   wᵢ = σ(β - zᶠ)   c̃ᵢ = tanh(zᶜ)      z = W_ih xᵢ + b + W_hh hᵢ₋₁
    hᵢ = fᵢ ⊙ hᵢ₋₁ + wᵢ ⊙ c̃ᵢ

With β = 1 it writes more than it forgets, w > 1 - f. So h is not an average, and may leave [-1, 1].

    ∂h/∂h₋ = diag(f) + diag(kᶠ) W_f + diag(kᶜ) W_c

    kᶠ = h₋ f(1-f) - c̃ w(1-w)        kᶜ = w (1-c̃²)
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrnn.cells.activations import Given, sigmoid, sigmoid_pair, tanh
from jaxrnn.cells.drawing import gate_params, gate_shapes
from jaxrnn.cells.gate_blocks import by_one_tanh
from jaxrnn.cells.pointwise_cell import PointwiseCell
from jaxrnn.cells.pointwise_map import Pointwise
from jaxrnn.cells.traits import Gate

__all__ = ["JANETParams", "JANETState", "janet"]

GATES = (
    Gate("f", "forget", "keeps", sigmoid.range, sigmoid.value),
    Gate("c", "candidate", "proposes", tanh.range, tanh.value),
)
BETA = 1.0
NAMES = tuple(gate.name for gate in GATES)


class JANETParams(NamedTuple):
    """θ of the LSTM with a forget gate alone; rows in the gate order f, c.

    Attributes:
      w_ih: Input weight, `(2H, D)`.
      w_hh: Recurrent weight, `(2H, H)`.
      b: Bias, `(2H,)`.
    """

    w_ih: Array
    w_hh: Array
    b: Array


class JANETState(NamedTuple):
    """The state of the LSTM with a forget gate alone.

    Attributes:
      h: State and output, `(*batch, H)`.
    """

    h: Array


class JANETPartials(NamedTuple):
    """∂φ: three diagonals, each `(*lead, H)`."""

    f: Array  # ∂h/∂h₋ at fixed gates
    kf: Array  # ∂h/∂zᶠ = h₋ f(1-f) - c̃ w(1-w)
    kc: Array  # ∂h/∂zᶜ = w (1-c̃²)


def update(state: JANETState, u: Array, a: Array) -> JANETState:
    """The step: h = f⊙h₋ + w⊙c̃."""
    f, c = by_one_tanh(u + a, (True, False))
    # σ(β - z) from σ(z): a division costs less than another exponential of a slice.
    w = (1 - f) / ((1 - f) + math.exp(-BETA) * f)
    return JANETState(h=f * state.h + w * c)


def partials(state: JANETState, u: Array, a: Array) -> JANETPartials:
    """The derivatives of `update`."""
    zf, zc = jnp.split(u + a, 2, axis=-1)
    (f, df), (w, dw) = sigmoid_pair(zf), sigmoid_pair(BETA - zf)
    return JANETPartials(f=f, kf=state.h * df - tanh(zc) * dw, kc=w * tanh.derivative(zc))


def tangent(p: JANETPartials, dstate: JANETState, dz: Array) -> JANETState:
    """δh = f⊙δh₋ + kᶠ⊙δzᶠ + kᶜ⊙δzᶜ, with δz = δu + δa."""
    dzf, dzc = jnp.split(dz, 2, axis=-1)
    return JANETState(h=p.f * dstate.h + p.kf * dzf + p.kc * dzc)


def gate_values(state: JANETState, u: Array, a: Array) -> tuple[Array, ...]:
    """(f, c̃)."""
    f, c = jnp.split(u + a, 2, axis=-1)
    return sigmoid(f), tanh(c)


def janet() -> PointwiseCell:
    """The LSTM with a forget gate alone; gate order f, c; state (h,).

        fᵢ = σ(zᶠ)   c̃ᵢ = tanh(zᶜ)      z = W_ih xᵢ + b + W_hh hᵢ₋₁
        hᵢ = fᵢ ⊙ hᵢ₋₁ + σ(β - zᶠ) ⊙ c̃ᵢ          β = 1

    Its `init` takes `forget_bias` (default 1, in the f block of b), `input_init` and
    `recurrent_init`. The block of each gate is drawn by itself.

    Returns:
      A cell. Its params are `JANETParams`, its state is `JANETState`.

    Cost:
      O(B·2·H·(D + H)) for a step.

    Source:
      van der Westhuizen & Lasenby, arXiv:1804.04849; docs/derivations/gated.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.janet()
    >>> jax.tree.map(lambda p: p.shape, cell.init(jax.random.key(0), 2, 3))
    JANETParams(w_ih=(6, 2), w_hh=(6, 3), b=(6,))
    """
    return JANET


JANET = PointwiseCell(
    name="janet",
    gates=NAMES,
    phi=Pointwise(update, partials, tangent, gate_values=gate_values, gates=GATES),
    state_type=JANETState,
    shapes=Given(gate_shapes, (JANETParams, NAMES)),
    init=Given(gate_params, (JANETParams, NAMES, "f")),
)
