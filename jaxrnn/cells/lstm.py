"""Long short-term memory.

    iᵢ = σ(zᶦ)   fᵢ = σ(zᶠ)   gᵢ = tanh(zᵍ)   oᵢ = σ(zᵒ)      z = W_ih xᵢ + b + W_hh hᵢ₋₁
    cᵢ = fᵢ ⊙ cᵢ₋₁ + iᵢ ⊙ gᵢ
    hᵢ = oᵢ ⊙ tanh(cᵢ)

The state is (h, c), so one step is linearised by four blocks, not by ∂c/∂c alone:

    ∂c/∂c₋ = diag(f)         ∂c/∂h₋ = diag(kᶠ) W_f + diag(kᶦ) W_i + diag(kᵍ) W_g
    ∂h/∂c₋ = diag(r f)       ∂h/∂h₋ = diag(r) ∂c/∂h₋ + diag(kᵒ) W_o
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from chex import PRNGKey
from jax import Array

from jaxrnn import _checks
from jaxrnn.cells.activations import sigmoid, sigmoid_pair, tanh
from jaxrnn.cells.drawing import GLOROT, ORTHOGONAL, Initializer, draw
from jaxrnn.cells.pointwise_cell import PointwiseCell
from jaxrnn.cells.pointwise_map import Pointwise
from jaxrnn.cells.traits import Gate

__all__ = ["LSTMParams", "LSTMState", "lstm"]

GATES = (
    Gate("i", "input", "writes", sigmoid.range),
    Gate("f", "forget", "keeps", sigmoid.range),
    Gate("g", "candidate", "proposes", tanh.range),
    Gate("o", "output", "reads", sigmoid.range),
)
NAMES = tuple(gate.name for gate in GATES)


class LSTMParams(NamedTuple):
    """θ of the LSTM; rows in the gate order i, f, g, o.

    Attributes:
      w_ih: Input weight, `(4H, D)`.
      w_hh: Recurrent weight, `(4H, H)`.
      b: Bias, `(4H,)`.
    """

    w_ih: Array
    w_hh: Array
    b: Array


class LSTMState(NamedTuple):
    """The state of the LSTM.

    Attributes:
      h: Output, `(*batch, H)`.
      c: Cell state, `(*batch, H)`.
    """

    h: Array
    c: Array


class LSTMPartials(NamedTuple):
    """∂φ: six diagonals, each `(*lead, H)`."""

    f: Array  # ∂c/∂c₋
    ki: Array  # ∂c/∂zᶦ = g i(1-i)
    kf: Array  # ∂c/∂zᶠ = c₋ f(1-f)
    kg: Array  # ∂c/∂zᵍ = i (1-g²)
    ko: Array  # ∂h/∂zᵒ = tanh(c) o(1-o)
    r: Array  # ∂h/∂c = o (1-tanh²c), the read-out


def update(state: LSTMState, u: Array, a: Array) -> LSTMState:
    """The step: c = f⊙c₋ + i⊙g, h = o⊙tanh(c)."""
    # One tanh for all gates, σ(z) = ½ + ½ tanh(z/2), makes the scan 1.5 to 2 times faster. It comes
    # before the split, since XLA does not vectorise a tanh over a slice. A gate near 0 is
    # then right to eps, not to eps times itself, so `partials` is not made that way.
    i, f, g, o = jnp.split(jnp.tanh(halving(u + a) * (u + a)), 4, axis=-1)
    c = (f + 1) / 2 * state.c + (i + 1) / 2 * g
    return LSTMState(h=(o + 1) / 2 * jnp.tanh(c), c=c)


def halving(z: Array) -> Array:
    """½ at the gates i, f and o, 1 at the candidate g, in the shape of z."""
    H = z.shape[-1] // 4
    factors = jnp.repeat(jnp.array([0.5, 0.5, 1.0, 0.5], z.dtype), H, total_repeat_length=4 * H)
    return jnp.broadcast_to(factors, z.shape)


def partials(state: LSTMState, u: Array, a: Array) -> LSTMPartials:
    """The six derivatives of `update`, from pre-activations so that saturation loses no digits."""
    zi, zf, zg, zo = jnp.split(u + a, 4, axis=-1)
    (i, di), (f, df), (o, do) = map(sigmoid_pair, (zi, zf, zo))
    g, dg = tanh(zg), tanh.derivative(zg)
    c = f * state.c + i * g
    return LSTMPartials(
        f=f, ki=g * di, kf=state.c * df, kg=i * dg, ko=tanh(c) * do, r=o * tanh.derivative(c)
    )


def tangent(p: LSTMPartials, dstate: LSTMState, dz: Array) -> LSTMState:
    """δc = f⊙δc₋ + kᶦ⊙δzᶦ + kᶠ⊙δzᶠ + kᵍ⊙δzᵍ, δh = r⊙δc + kᵒ⊙δzᵒ, with δz = δu + δa."""
    dzi, dzf, dzg, dzo = jnp.split(dz, 4, axis=-1)
    dc = p.f * dstate.c + p.ki * dzi + p.kf * dzf + p.kg * dzg
    return LSTMState(h=p.r * dc + p.ko * dzo, c=dc)


def gate_values(state: LSTMState, u: Array, a: Array) -> tuple[Array, ...]:
    """(i, f, g, o)."""
    i, f, g, o = jnp.split(u + a, 4, axis=-1)
    return sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)


def readout(p: LSTMPartials) -> Array:
    """∂h/∂c = o (1-tanh²c) at a fixed output gate."""
    return p.r


def lstm() -> PointwiseCell:
    """The LSTM with a forget gate and without peepholes; gate order i, f, g, o; state (h, c).

        iᵢ = σ(zᶦ)   fᵢ = σ(zᶠ)   gᵢ = tanh(zᵍ)   oᵢ = σ(zᵒ)      z = W_ih xᵢ + b + W_hh hᵢ₋₁
        cᵢ = fᵢ ⊙ cᵢ₋₁ + iᵢ ⊙ gᵢ          hᵢ = oᵢ ⊙ tanh(cᵢ)

    Its `init` takes `forget_bias` (default 1, in the f block of b), `input_init` and
    `recurrent_init`. The block of each gate is drawn by itself.

    Returns:
      A cell. Its params are `LSTMParams`, its state is `LSTMState`.

    Cost:
      O(B·4·H·(D + H)) for a step.

    Source:
      Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000;
      docs/derivations/lstm.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> params = cell.init(jax.random.key(0), 2, 3, forget_bias=2.0)
    >>> params.b.reshape(4, 3)[1].tolist()
    [2.0, 2.0, 2.0]
    """
    return LSTM


def shapes(D: int, H: int) -> LSTMParams:
    """Shapes of the params' leaves."""
    return LSTMParams(w_ih=(4 * H, D), w_hh=(4 * H, H), b=(4 * H,))  # type: ignore[arg-type]


def init(
    key: PRNGKey,
    input_size: int,
    hidden_size: int,
    *,
    dtype: Any = None,
    forget_bias: float = 1.0,
    input_init: Initializer = GLOROT,
    recurrent_init: Initializer = ORTHOGONAL,
) -> LSTMParams:
    """Glorot input weights, orthogonal recurrent weights, zero bias but for the forget gate."""
    _checks.check_real("forget_bias", forget_bias)
    w_ih, w_hh = draw(key, len(GATES), input_size, hidden_size, dtype, input_init, recurrent_init)
    b = jnp.zeros((4, hidden_size), w_hh.dtype).at[NAMES.index("f")].set(forget_bias)
    return LSTMParams(w_ih, w_hh, b.ravel())


LSTM = PointwiseCell(
    name="lstm",
    gates=NAMES,
    phi=Pointwise(
        update,
        partials,
        tangent,
        readout=readout,
        gate_values=gate_values,
        gates=GATES,
    ),
    state_type=LSTMState,
    shapes=shapes,
    init=init,
)
