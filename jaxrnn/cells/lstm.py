"""Long short-term memory.

    iᵢ = σ(zᶦ)   fᵢ = σ(zᶠ)   gᵢ = tanh(zᵍ)   oᵢ = σ(zᵒ)      z = W_ih xᵢ + b + W_hh hᵢ₋₁
    cᵢ = fᵢ ⊙ cᵢ₋₁ + iᵢ ⊙ gᵢ
    hᵢ = oᵢ ⊙ tanh(cᵢ)

The state is (h, c), so one step is linearised by four blocks, not by ∂c/∂c alone:

    ∂c/∂c₋ = diag(f)         ∂c/∂h₋ = diag(kᶠ) W_f + diag(kᶦ) W_i + diag(kᵍ) W_g
    ∂h/∂c₋ = diag(r f)       ∂h/∂h₋ = diag(r) ∂c/∂h₋ + diag(kᵒ) W_o
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from chex import PRNGKey
from jax import Array

from jaxrnn import _checks
from jaxrnn.cells.activations import Activation, Given, check_activation, sigmoid, tanh
from jaxrnn.cells.drawing import GLOROT, ORTHOGONAL, Initializer, bias_of, draw
from jaxrnn.cells.gate_blocks import by_one_tanh
from jaxrnn.cells.pointwise_cell import PointwiseCell
from jaxrnn.cells.pointwise_map import Pointwise
from jaxrnn.cells.traits import Gate

__all__ = ["LSTMParams", "LSTMState", "lstm"]

NAMES = ("i", "f", "g", "o")


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
    """The step of sigmoid and tanh: c = f⊙c₋ + i⊙g, h = o⊙tanh(c)."""
    i, f, g, o = by_one_tanh(u + a, (True, True, False, True))
    c = f * state.c + i * g
    return LSTMState(h=o * jnp.tanh(c), c=c)


def update_by(
    gate: Activation,
    candidate: Activation,
    output: Activation,
    state: LSTMState,
    u: Array,
    a: Array,
) -> LSTMState:
    """The step of any activations: c = f⊙c₋ + i⊙g, h = o⊙output(c)."""
    i, f, g, o = gate_values(gate, candidate, state, u, a)
    c = f * state.c + i * g
    return LSTMState(h=o * output(c), c=c)


def partials(
    gate: Activation,
    candidate: Activation,
    output: Activation,
    state: LSTMState,
    u: Array,
    a: Array,
) -> LSTMPartials:
    """The six derivatives of the step, from pre-activations so that saturation loses no digits."""
    zi, zf, zg, zo = jnp.split(u + a, 4, axis=-1)
    (i, di), (f, df), (g, dg), (o, do) = map(
        Activation.pair, (gate, gate, candidate, gate), (zi, zf, zg, zo)
    )
    c = f * state.c + i * g
    y, dy = output.pair(c)
    return LSTMPartials(f=f, ki=g * di, kf=state.c * df, kg=i * dg, ko=y * do, r=o * dy)


def tangent(p: LSTMPartials, dstate: LSTMState, dz: Array) -> LSTMState:
    """δc = f⊙δc₋ + kᶦ⊙δzᶦ + kᶠ⊙δzᶠ + kᵍ⊙δzᵍ, δh = r⊙δc + kᵒ⊙δzᵒ, with δz = δu + δa."""
    dzi, dzf, dzg, dzo = jnp.split(dz, 4, axis=-1)
    dc = p.f * dstate.c + p.ki * dzi + p.kf * dzf + p.kg * dzg
    return LSTMState(h=p.r * dc + p.ko * dzo, c=dc)


def gate_values(
    gate: Activation, candidate: Activation, state: LSTMState, u: Array, a: Array
) -> tuple[Array, ...]:
    """(i, f, g, o)."""
    i, f, g, o = jnp.split(u + a, 4, axis=-1)
    return gate(i), gate(f), candidate(g), gate(o)


def readout(p: LSTMPartials) -> Array:
    """∂h/∂c = o (1-tanh²c) at a fixed output gate."""
    return p.r


def lstm(
    gate: Activation = sigmoid, candidate: Activation = tanh, output: Activation | None = None
) -> PointwiseCell:
    """The LSTM with a forget gate and without peepholes; gate order i, f, g, o; state (h, c).

        iᵢ = σ(zᶦ)   fᵢ = σ(zᶠ)   gᵢ = tanh(zᵍ)   oᵢ = σ(zᵒ)      z = W_ih xᵢ + b + W_hh hᵢ₋₁
        cᵢ = fᵢ ⊙ cᵢ₋₁ + iᵢ ⊙ gᵢ          hᵢ = oᵢ ⊙ tanh(cᵢ)

    Its `init` takes `forget_bias` (default 1, in the f block of b), `input_init` and
    `recurrent_init`. The block of each gate is drawn by itself.

    Args:
      gate: The `Activation` of i, f and o, in keras `recurrent_activation`.
      candidate: The `Activation` of g, in keras `activation`.
      output: The `Activation` of c in h; None for that of the candidate, as in keras.

    Returns:
      A cell. Its params are `LSTMParams`, its state is `LSTMState`. Equal activations give the same
      cell, so `jax.jit` compiles once.

    Raises:
      TypeError: If an argument is no `Activation`, such as a bare function.

    Cost:
      O(B·4·H·(D + H)) for a step. Sigmoid and tanh together are one tanh for all gates; other
      activations are made gate by gate.

    Source:
      Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000;
      docs/derivations/lstm.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> params = cell.init(jax.random.key(0), 2, 3, forget_bias=2.0)
    >>> params.b.reshape(4, 3)[1].tolist()
    [2.0, 2.0, 2.0]
    >>> jaxrnn.lstm(gate=jaxrnn.activations.hard_sigmoid)
    lstm[hard_sigmoid,tanh,tanh](gates=i,f,g,o)
    """
    output = candidate if output is None else output
    for name, given in (("gate", gate), ("candidate", candidate), ("output", output)):
        check_activation(name, given)
    return _lstm(gate, candidate, output)


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
    w_ih, w_hh = draw(key, len(NAMES), input_size, hidden_size, dtype, input_init, recurrent_init)
    return LSTMParams(w_ih, w_hh, bias_of(NAMES, "f", forget_bias, w_hh))


# Cached, so that equal activations give one cell.
@functools.cache
def _lstm(gate: Activation, candidate: Activation, output: Activation) -> PointwiseCell:
    three = gate, candidate, output
    usual = three == (sigmoid, tanh, tanh)
    phi = Pointwise(
        update if usual else Given(update_by, three),
        Given(partials, three),
        tangent,
        readout=readout,
        gate_values=Given(gate_values, (gate, candidate)),
        gates=(
            Gate("i", "input", "writes", gate.range, gate.value),
            Gate("f", "forget", "keeps", gate.range, gate.value),
            Gate("g", "candidate", "proposes", candidate.range, candidate.value),
            Gate("o", "output", "reads", gate.range, gate.value),
        ),
    )
    return PointwiseCell(
        name="lstm" if usual else f"lstm[{','.join(each.name for each in three)}]",
        gates=NAMES,
        phi=phi,
        state_type=LSTMState,
        shapes=shapes,
        init=init,
        gatewise=not usual,  # a nonlinearity of a slice is not vectorised by XLA
    )
