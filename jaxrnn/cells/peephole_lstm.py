"""The LSTM whose gates look at the cell state through a weight of their own for each unit.

    iᵢ = σ(zᶦ + pᶦ ⊙ cᵢ₋₁)   fᵢ = σ(zᶠ + pᶠ ⊙ cᵢ₋₁)   gᵢ = tanh(zᵍ)      z = W_ih xᵢ + b + W_hh hᵢ₋₁
    cᵢ = fᵢ ⊙ cᵢ₋₁ + iᵢ ⊙ gᵢ
    oᵢ = σ(zᵒ + pᵒ ⊙ cᵢ)     hᵢ = oᵢ ⊙ tanh(cᵢ)

The cell state acts on itself through two gates, so ∂c/∂c₋ is no longer the forget gate:

    ∂c/∂c₋ = diag(q), q = f + kᶦ pᶦ + kᶠ pᶠ     ∂c/∂h₋ = diag(kᶦ) W_i + diag(kᶠ) W_f + diag(kᵍ) W_g
    ∂h/∂c₋ = diag(r q), r = o tanh'(c) + kᵒ pᵒ  ∂h/∂h₋ = diag(r) ∂c/∂h₋ + diag(kᵒ) W_o
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from chex import PRNGKey
from jax import Array

from jaxrnn import _checks
from jaxrnn.cells.activations import sigmoid, sigmoid_pair, tanh
from jaxrnn.cells.drawing import GLOROT, ORTHOGONAL, Initializer, bias_of, draw
from jaxrnn.cells.gate_blocks import by_one_tanh
from jaxrnn.cells.pointwise_cell import PointwiseCell
from jaxrnn.cells.pointwise_map import Pointwise
from jaxrnn.cells.traits import Gate

__all__ = ["PeepholeLSTMParams", "PeepholeLSTMState", "peephole_lstm"]

GATES = (
    Gate("i", "input", "writes", sigmoid.range, sigmoid.value),
    Gate("f", "forget", "keeps", sigmoid.range, sigmoid.value),
    Gate("g", "candidate", "proposes", tanh.range, tanh.value),
    Gate("o", "output", "reads", sigmoid.range, sigmoid.value),
)
NAMES = tuple(gate.name for gate in GATES)
PEEPHOLES = ("p_i", "p_f", "p_o")


class PeepholeLSTMParams(NamedTuple):
    """θ of the peephole LSTM; rows in the gate order i, f, g, o.

    Attributes:
      w_ih: Input weight, `(4H, D)`.
      w_hh: Recurrent weight, `(4H, H)`.
      b: Bias, `(4H,)`.
      p_i: Peephole of the input gate, which looks at cᵢ₋₁, `(H,)`.
      p_f: Peephole of the forget gate, which looks at cᵢ₋₁, `(H,)`.
      p_o: Peephole of the output gate, which looks at cᵢ, `(H,)`.
    """

    w_ih: Array
    w_hh: Array
    b: Array
    p_i: Array
    p_f: Array
    p_o: Array


class PeepholeLSTMState(NamedTuple):
    """The state of the peephole LSTM.

    Attributes:
      h: Output, `(*batch, H)`.
      c: Cell state, `(*batch, H)`.
    """

    h: Array
    c: Array


class PeepholeLSTMPartials(NamedTuple):
    """∂φ: six diagonals, each `(*lead, H)`, and what the peepholes look at."""

    q: Array  # ∂c/∂c₋ = f + kᶦ pᶦ + kᶠ pᶠ
    ki: Array  # ∂c/∂zᶦ = g i(1-i)
    kf: Array  # ∂c/∂zᶠ = c₋ f(1-f)
    kg: Array  # ∂c/∂zᵍ = i (1-g²)
    ko: Array  # ∂h/∂zᵒ = tanh(c) o(1-o)
    r: Array  # ∂h/∂c = o (1-tanh²c) + kᵒ pᵒ, the read-out
    before: Array  # c₋: ∂c/∂pᶦ = kᶦ c₋, ∂c/∂pᶠ = kᶠ c₋
    c: Array  # ∂h/∂pᵒ = kᵒ c, beside what comes through c


Peepholes = tuple[Array, Array, Array]  # pᶦ, pᶠ, pᵒ


def update(state: PeepholeLSTMState, u: Array, a: Array, w: Peepholes) -> PeepholeLSTMState:
    """The step: c = f⊙c₋ + i⊙g, h = o⊙tanh(c)."""
    p_i, p_f, p_o = w
    H = state.c.shape[-1]
    z = u + a
    seen = jnp.concatenate([p_i * state.c, p_f * state.c, jnp.zeros_like(state.c)], axis=-1)
    i, f, g = by_one_tanh(z[..., : 3 * H] + seen, (True, True, False))
    c = f * state.c + i * g
    (o,) = by_one_tanh(z[..., 3 * H :] + p_o * c, (True,))
    return PeepholeLSTMState(h=o * jnp.tanh(c), c=c)


def partials(state: PeepholeLSTMState, u: Array, a: Array, w: Peepholes) -> PeepholeLSTMPartials:
    """The derivatives of `update`."""
    p_i, p_f, p_o = w
    zi, zf, zg, zo = jnp.split(u + a, 4, axis=-1)
    (i, di), (f, df) = sigmoid_pair(zi + p_i * state.c), sigmoid_pair(zf + p_f * state.c)
    g, dg = tanh(zg), tanh.derivative(zg)
    c = f * state.c + i * g
    o, do = sigmoid_pair(zo + p_o * c)
    ki, kf, ko = g * di, state.c * df, tanh(c) * do
    return PeepholeLSTMPartials(
        q=f + ki * p_i + kf * p_f,
        ki=ki,
        kf=kf,
        kg=i * dg,
        ko=ko,
        r=o * tanh.derivative(c) + ko * p_o,
        before=state.c,
        c=c,
    )


def tangent(p: PeepholeLSTMPartials, dstate: PeepholeLSTMState, dz: Array) -> PeepholeLSTMState:
    """δc = q⊙δc₋ + kᶦ⊙δzᶦ + kᶠ⊙δzᶠ + kᵍ⊙δzᵍ, δh = r⊙δc + kᵒ⊙δzᵒ, with δz = δu + δa."""
    dzi, dzf, dzg, dzo = jnp.split(dz, 4, axis=-1)
    dc = p.q * dstate.c + p.ki * dzi + p.kf * dzf + p.kg * dzg
    return PeepholeLSTMState(h=p.r * dc + p.ko * dzo, c=dc)


def enter(p: PeepholeLSTMPartials, dw: Peepholes) -> PeepholeLSTMState:
    """δc = kᶦ c₋⊙δpᶦ + kᶠ c₋⊙δpᶠ, δh = r⊙δc + kᵒ c⊙δpᵒ."""
    dpi, dpf, dpo = dw
    dc = p.before * (p.ki * dpi + p.kf * dpf)
    return PeepholeLSTMState(h=p.r * dc + p.ko * p.c * dpo, c=dc)


def gate_values(state: PeepholeLSTMState, u: Array, a: Array, w: Peepholes) -> tuple[Array, ...]:
    """(i, f, g, o)."""
    p_i, p_f, p_o = w
    zi, zf, zg, zo = jnp.split(u + a, 4, axis=-1)
    i, f, g = sigmoid(zi + p_i * state.c), sigmoid(zf + p_f * state.c), tanh(zg)
    return i, f, g, sigmoid(zo + p_o * (f * state.c + i * g))


def readout(p: PeepholeLSTMPartials) -> Array:
    """∂h/∂c = o (1-tanh²c) + kᵒ pᵒ at fixed projections."""
    return p.r


def peephole_lstm() -> PointwiseCell:
    """The LSTM with peepholes; gate order i, f, g, o; state (h, c).

        iᵢ = σ(zᶦ + pᶦ ⊙ cᵢ₋₁)   fᵢ = σ(zᶠ + pᶠ ⊙ cᵢ₋₁)   gᵢ = tanh(zᵍ)   oᵢ = σ(zᵒ + pᵒ ⊙ cᵢ)
        cᵢ = fᵢ ⊙ cᵢ₋₁ + iᵢ ⊙ gᵢ          hᵢ = oᵢ ⊙ tanh(cᵢ)          z = W_ih xᵢ + b + W_hh hᵢ₋₁

    ONNX has its rows in the order i, o, f, c and its peepholes in the order i, o, f. TensorFlow's
    old cells have i, c, f, o, and add a forget bias of 1 that is not in the file.

    Its `init` takes `forget_bias` (default 1, in the f block of b), `input_init` and
    `recurrent_init`. The block of each gate is drawn by itself. Peepholes start at 0.

    Returns:
      A cell. Its params are `PeepholeLSTMParams`, its state is `PeepholeLSTMState`.

    Cost:
      O(B·4·H·(D + H)) for a step.

    Source:
      Gers, Schraudolph & Schmidhuber, JMLR 3, 2002; docs/derivations/gated.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.peephole_lstm()
    >>> cell.init(jax.random.key(0), 2, 3).p_o.tolist()
    [0.0, 0.0, 0.0]
    """
    return PEEPHOLE_LSTM


def shapes(D: int, H: int) -> PeepholeLSTMParams:
    """Shapes of the params' leaves."""
    return PeepholeLSTMParams((4 * H, D), (4 * H, H), (4 * H,), (H,), (H,), (H,))  # type: ignore[arg-type]


def init(
    key: PRNGKey,
    input_size: int,
    hidden_size: int,
    *,
    dtype: Any = None,
    forget_bias: float = 1.0,
    input_init: Initializer = GLOROT,
    recurrent_init: Initializer = ORTHOGONAL,
) -> PeepholeLSTMParams:
    """As the LSTM, with peepholes of 0."""
    _checks.check_real("forget_bias", forget_bias)
    w_ih, w_hh = draw(key, len(NAMES), input_size, hidden_size, dtype, input_init, recurrent_init)
    zeros = jnp.zeros(hidden_size, w_hh.dtype)
    b = bias_of(NAMES, "f", forget_bias, w_hh)
    return PeepholeLSTMParams(w_ih, w_hh, b, zeros, zeros, zeros)


PEEPHOLE_LSTM = PointwiseCell(
    name="peephole_lstm",
    gates=NAMES,
    phi=Pointwise(
        update,
        partials,
        tangent,
        readout=readout,
        gate_values=gate_values,
        gates=GATES,
        enter=enter,
    ),
    state_type=PeepholeLSTMState,
    shapes=shapes,
    init=init,
    units=PEEPHOLES,
)
