"""The LSTM whose output is projected to fewer entries than its cell state has.

    i, f, o = σ(z)   g = tanh(zᵍ)      z = W_ih xᵢ + b + W_hh hᵢ₋₁
    cᵢ = fᵢ ⊙ cᵢ₋₁ + iᵢ ⊙ gᵢ           mᵢ = oᵢ ⊙ tanh(cᵢ)           hᵢ = W_hr mᵢ

h has P entries, c and m have H > P. φ gives (m, c) of the LSTM:

    ∂c/∂c₋ = diag(f)          ∂c/∂h₋ = B = diag(kᶠ) W_f + diag(kᶦ) W_i + diag(kᵍ) W_g
    ∂h/∂c₋ = W_hr diag(r f)   ∂h/∂h₋ = W_hr (diag(r) B + diag(kᵒ) W_o)

With m in place of h and W_hh W_hr in place of W_hh it is a plain LSTM, whose Jacobian has the same
eigenvalues and H - P zeros more.
"""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from chex import PRNGKey
from jax import Array

from jaxrnn import _checks
from jaxrnn.cells.activations import Given, sigmoid, sigmoid_pair, tanh
from jaxrnn.cells.drawing import GLOROT, ORTHOGONAL, Initializer, bias_of, draw, drawn_blocks
from jaxrnn.cells.gate_blocks import by_one_tanh
from jaxrnn.cells.pointwise_cell import PointwiseCell
from jaxrnn.cells.pointwise_map import Pointwise
from jaxrnn.cells.traits import Gate

__all__ = ["ProjectedLSTMParams", "ProjectedLSTMState", "projected_lstm"]

GATES = (
    Gate("i", "input", "writes", sigmoid.range, sigmoid.value),
    Gate("f", "forget", "keeps", sigmoid.range, sigmoid.value),
    Gate("g", "candidate", "proposes", tanh.range, tanh.value),
    Gate("o", "output", "reads", sigmoid.range, sigmoid.value),
)
NAMES = tuple(gate.name for gate in GATES)


class ProjectedLSTMParams(NamedTuple):
    """θ of the projected LSTM; rows in the gate order i, f, g, o.

    Attributes:
      w_ih: Input weight, `(4H, D)`.
      w_hh: Recurrent weight, `(4H, P)`.
      b: Bias, `(4H,)`.
      w_hr: Output weight, `(P, H)`.
    """

    w_ih: Array
    w_hh: Array
    b: Array
    w_hr: Array


class ProjectedLSTMState(NamedTuple):
    """The state of the projected LSTM.

    Attributes:
      h: Output, `(*batch, P)`.
      c: Cell state, `(*batch, H)`.
    """

    h: Array
    c: Array


class ProjectedLSTMPartials(NamedTuple):
    """∂φ: six diagonals, each `(*lead, H)`."""

    f: Array  # ∂c/∂c₋
    ki: Array  # ∂c/∂zᶦ = g i(1-i)
    kf: Array  # ∂c/∂zᶠ = c₋ f(1-f)
    kg: Array  # ∂c/∂zᵍ = i (1-g²)
    ko: Array  # ∂m/∂zᵒ = tanh(c) o(1-o)
    r: Array  # ∂m/∂c = o (1-tanh²c)


def update(state: ProjectedLSTMState, u: Array, a: Array) -> ProjectedLSTMState:
    """(m, c), what comes before the projection: c = f⊙c₋ + i⊙g, m = o⊙tanh(c)."""
    i, f, g, o = by_one_tanh(u + a, (True, True, False, True))
    c = f * state.c + i * g
    return ProjectedLSTMState(h=o * jnp.tanh(c), c=c)


def partials(state: ProjectedLSTMState, u: Array, a: Array) -> ProjectedLSTMPartials:
    """The six derivatives of `update`."""
    zi, zf, zg, zo = jnp.split(u + a, 4, axis=-1)
    (i, di), (f, df), (o, do) = map(sigmoid_pair, (zi, zf, zo))
    g, dg = tanh(zg), tanh.derivative(zg)
    c = f * state.c + i * g
    return ProjectedLSTMPartials(
        f=f, ki=g * di, kf=state.c * df, kg=i * dg, ko=tanh(c) * do, r=o * tanh.derivative(c)
    )


def tangent(p: ProjectedLSTMPartials, dstate: ProjectedLSTMState, dz: Array) -> ProjectedLSTMState:
    """δc = f⊙δc₋ + kᶦ⊙δzᶦ + kᶠ⊙δzᶠ + kᵍ⊙δzᵍ, δm = r⊙δc + kᵒ⊙δzᵒ, with δz = δu + δa."""
    dzi, dzf, dzg, dzo = jnp.split(dz, 4, axis=-1)
    dc = p.f * dstate.c + p.ki * dzi + p.kf * dzf + p.kg * dzg
    return ProjectedLSTMState(h=p.r * dc + p.ko * dzo, c=dc)


def gate_values(state: ProjectedLSTMState, u: Array, a: Array) -> tuple[Array, ...]:
    """(i, f, g, o)."""
    i, f, g, o = jnp.split(u + a, 4, axis=-1)
    return sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)


def projected_lstm(projection_size: int) -> PointwiseCell:
    """The LSTM with an output projection; gate order i, f, g, o; state (h, c).

        iᵢ = σ(zᶦ)   fᵢ = σ(zᶠ)   gᵢ = tanh(zᵍ)   oᵢ = σ(zᵒ)      z = W_ih xᵢ + b + W_hh hᵢ₋₁
        cᵢ = fᵢ ⊙ cᵢ₋₁ + iᵢ ⊙ gᵢ          hᵢ = W_hr (oᵢ ⊙ tanh(cᵢ))

    It is torch's `LSTM(proj_size=P)`: w_hh is `weight_hh`, w_hr is `weight_hr`. The output h has P
    entries, the cell state c has H.

    Its `init` takes `forget_bias` (default 1, in the f block of b), `input_init`, which draws w_hr
    as well, and `recurrent_init`. The block of each gate is drawn by itself.

    Args:
      projection_size: P, below H.

    Returns:
      A cell. Its params are `ProjectedLSTMParams`, its state is `ProjectedLSTMState`.

    Raises:
      TypeError: If `projection_size` is no integer.
      ValueError: If it is below 1; its `init`, if it is not below the hidden size.

    Cost:
      O(B·4·H·(D + P)) for a step.

    Source:
      Sak, Senior & Beaufays, arXiv:1402.1128; docs/derivations/gated.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.projected_lstm(2)
    >>> params = cell.init(jax.random.key(0), 3, 5)
    >>> jax.tree.map(lambda p: p.shape, params)
    ProjectedLSTMParams(w_ih=(20, 3), w_hh=(20, 2), b=(20,), w_hr=(2, 5))
    >>> jax.tree.map(lambda s: s.shape, cell.init_state(params))
    ProjectedLSTMState(h=(2,), c=(5,))
    """
    _checks.check_integer("projection_size", projection_size, least=1)
    return _projected_lstm(operator.index(projection_size))


# Cached, so that equal sizes give one cell.
@functools.cache
def _projected_lstm(projection_size: int) -> PointwiseCell:
    return PointwiseCell(
        name=f"projected_lstm[{projection_size}]",
        gates=NAMES,
        phi=Pointwise(update, partials, tangent, gate_values=gate_values, gates=GATES),
        state_type=ProjectedLSTMState,
        shapes=Given(shapes, (projection_size,)),
        init=Given(init, (projection_size,)),
        output="w_hr",
    )


def shapes(P: int, D: int, H: int) -> ProjectedLSTMParams:
    """Shapes of the params' leaves."""
    return ProjectedLSTMParams((4 * H, D), (4 * H, P), (4 * H,), (P, H))  # type: ignore[arg-type]


def init(
    projection_size: int,
    key: PRNGKey,
    input_size: int,
    hidden_size: int,
    *,
    dtype: Any = None,
    forget_bias: float = 1.0,
    input_init: Initializer = GLOROT,
    recurrent_init: Initializer = ORTHOGONAL,
) -> ProjectedLSTMParams:
    """As the LSTM, with an output weight of `input_init`."""
    _checks.check_real("forget_bias", forget_bias)
    _checks.check_key(key)
    _checks.check_integer("hidden_size", hidden_size, least=1)
    if projection_size >= hidden_size:
        raise ValueError(
            f"hidden_size: expected more than projection_size = {projection_size}, since an output "
            f"is projected to fewer entries, got {hidden_size}; jaxrnn.lstm() projects nothing"
        )
    by_gates, by_output = jax.random.split(key)
    w_ih, w_hh = draw(
        by_gates, len(NAMES), input_size, hidden_size, dtype, input_init, recurrent_init,
        projection_size,
    )  # fmt: skip
    shape = projection_size, hidden_size
    w_hr = drawn_blocks("input_init", by_output, input_init, 1, shape, dtype)
    return ProjectedLSTMParams(w_ih, w_hh, bias_of(NAMES, "f", forget_bias, w_hh), w_hr)
