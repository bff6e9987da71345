"""The LSTM whose input gate is coupled to its forget gate.

    fᵢ = σ(zᶠ)   gᵢ = tanh(zᵍ)   oᵢ = σ(zᵒ)      z = W_ih xᵢ + b + W_hh hᵢ₋₁
    cᵢ = fᵢ ⊙ cᵢ₋₁ + (1 - fᵢ) ⊙ gᵢ
    hᵢ = oᵢ ⊙ tanh(cᵢ)

c is an average of what was proposed, so |c| ≤ 1 once it was. The forget gate writes as well, and
its path has the difference of what it keeps and what it writes:

    ∂c/∂c₋ = diag(f)         ∂c/∂h₋ = diag(kᶠ) W_f + diag(kᵍ) W_g
    ∂h/∂c₋ = diag(r f)       ∂h/∂h₋ = diag(r) ∂c/∂h₋ + diag(kᵒ) W_o
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrnn.cells.activations import Given, sigmoid, sigmoid_pair, sigmoid_parts, tanh
from jaxrnn.cells.drawing import gate_params, gate_shapes
from jaxrnn.cells.gate_blocks import by_one_tanh
from jaxrnn.cells.pointwise_cell import PointwiseCell
from jaxrnn.cells.pointwise_map import Pointwise
from jaxrnn.cells.traits import Gate

__all__ = ["CIFGParams", "CIFGState", "cifg"]

GATES = (
    Gate("f", "forget", "keeps", sigmoid.range, sigmoid.value),
    Gate("g", "candidate", "proposes", tanh.range, tanh.value),
    Gate("o", "output", "reads", sigmoid.range, sigmoid.value),
)
NAMES = tuple(gate.name for gate in GATES)


class CIFGParams(NamedTuple):
    """θ of the LSTM with a coupled input gate; rows in the gate order f, g, o.

    Attributes:
      w_ih: Input weight, `(3H, D)`.
      w_hh: Recurrent weight, `(3H, H)`.
      b: Bias, `(3H,)`.
    """

    w_ih: Array
    w_hh: Array
    b: Array


class CIFGState(NamedTuple):
    """The state of the LSTM with a coupled input gate.

    Attributes:
      h: Output, `(*batch, H)`.
      c: Cell state, `(*batch, H)`.
    """

    h: Array
    c: Array


class CIFGPartials(NamedTuple):
    """∂φ: five diagonals, each `(*lead, H)`."""

    f: Array  # ∂c/∂c₋
    kf: Array  # ∂c/∂zᶠ = (c₋ - g) f(1-f)
    kg: Array  # ∂c/∂zᵍ = (1-f) (1-g²)
    ko: Array  # ∂h/∂zᵒ = tanh(c) o(1-o)
    r: Array  # ∂h/∂c = o (1-tanh²c), the read-out


def update(state: CIFGState, u: Array, a: Array) -> CIFGState:
    """The step: c = g + f⊙(c₋ - g), h = o⊙tanh(c)."""
    f, g, o = by_one_tanh(u + a, (True, False, True))
    c = g + f * (state.c - g)
    return CIFGState(h=o * jnp.tanh(c), c=c)


def partials(state: CIFGState, u: Array, a: Array) -> CIFGPartials:
    """The five derivatives of `update`; 1-f is σ(-zᶠ), which keeps its digits near f = 1."""
    zf, zg, zo = jnp.split(u + a, 3, axis=-1)
    (f, i, df), (o, do) = sigmoid_parts(zf), sigmoid_pair(zo)
    g, dg = tanh(zg), tanh.derivative(zg)
    c = f * state.c + i * g
    return CIFGPartials(
        f=f, kf=(state.c - g) * df, kg=i * dg, ko=tanh(c) * do, r=o * tanh.derivative(c)
    )


def tangent(p: CIFGPartials, dstate: CIFGState, dz: Array) -> CIFGState:
    """δc = f⊙δc₋ + kᶠ⊙δzᶠ + kᵍ⊙δzᵍ, δh = r⊙δc + kᵒ⊙δzᵒ, with δz = δu + δa."""
    dzf, dzg, dzo = jnp.split(dz, 3, axis=-1)
    dc = p.f * dstate.c + p.kf * dzf + p.kg * dzg
    return CIFGState(h=p.r * dc + p.ko * dzo, c=dc)


def gate_values(state: CIFGState, u: Array, a: Array) -> tuple[Array, ...]:
    """(f, g, o)."""
    f, g, o = jnp.split(u + a, 3, axis=-1)
    return sigmoid(f), tanh(g), sigmoid(o)


def readout(p: CIFGPartials) -> Array:
    """∂h/∂c = o (1-tanh²c) at a fixed output gate."""
    return p.r


def cifg() -> PointwiseCell:
    """The LSTM with a coupled input and forget gate; gate order f, g, o; state (h, c).

        fᵢ = σ(zᶠ)   gᵢ = tanh(zᵍ)   oᵢ = σ(zᵒ)      z = W_ih xᵢ + b + W_hh hᵢ₋₁
        cᵢ = fᵢ ⊙ cᵢ₋₁ + (1 - fᵢ) ⊙ gᵢ          hᵢ = oᵢ ⊙ tanh(cᵢ)

    Its `init` takes `forget_bias` (default 1, in the f block of b), `input_init` and
    `recurrent_init`. The block of each gate is drawn by itself.

    Returns:
      A cell. Its params are `CIFGParams`, its state is `CIFGState`.

    Cost:
      O(B·3·H·(D + H)) for a step.

    Source:
      Greff, Srivastava, Koutník, Steunebrink & Schmidhuber, arXiv:1503.04069;
      docs/derivations/gated.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.cifg()
    >>> jax.tree.map(lambda p: p.shape, cell.init(jax.random.key(0), 2, 3))
    CIFGParams(w_ih=(9, 2), w_hh=(9, 3), b=(9,))
    """
    return CIFG


CIFG = PointwiseCell(
    name="cifg",
    gates=NAMES,
    phi=Pointwise(update, partials, tangent, readout=readout, gate_values=gate_values, gates=GATES),
    state_type=CIFGState,
    shapes=Given(gate_shapes, (CIFGParams, NAMES)),
    init=Given(gate_params, (CIFGParams, NAMES, "f")),
)
