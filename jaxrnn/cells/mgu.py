"""The minimal gated unit: one gate that forgets and resets, in the form of flax.

fᵢ = σ(uᶠ + aᶠ)   nᵢ = tanh(uⁿ + fᵢ ⊙ aⁿ)
hᵢ = (1 - fᵢ) ⊙ nᵢ + fᵢ ⊙ hᵢ₋₁

u = W_ih xᵢ + b        a = W_hh hᵢ₋₁ + (0, b_hn)

∂h/∂h₋ = diag(f) + diag(kᶠ) W_f + diag(kⁿ f) W_n

kⁿ = (1-f) tanh'(uⁿ + f⊙aⁿ)    kᶠ = (h₋ - n + kⁿ aⁿ) f(1-f)
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from chex import PRNGKey
from jax import Array

from jaxrnn import _checks
from jaxrnn.cells.activations import sigmoid, sigmoid_parts, tanh
from jaxrnn.cells.affine import Affine
from jaxrnn.cells.drawing import GLOROT, ORTHOGONAL, Initializer, bias_of, draw
from jaxrnn.cells.gate_blocks import by_one_tanh
from jaxrnn.cells.pointwise_cell import PointwiseCell
from jaxrnn.cells.pointwise_map import Pointwise
from jaxrnn.cells.traits import Gate

__all__ = ["MGUParams", "MGUState", "mgu"]

GATES = (
    Gate("f", "forget", "keeps", sigmoid.range, sigmoid.value),
    Gate("n", "candidate", "proposes", tanh.range, tanh.value),
)
NAMES = tuple(gate.name for gate in GATES)


class MGUParams(NamedTuple):
    """θ of the minimal gated unit; rows in the gate order f, n.

    Attributes:
      w_ih: Input weight, `(2H, D)`.
      w_hh: Recurrent weight, `(2H, H)`.
      b: Bias, `(2H,)`.
      b_hn: Bias inside the reset, fᵢ ⊙ (W_hn h + b_hn), `(H,)`.
    """

    w_ih: Array
    w_hh: Array
    b: Array
    b_hn: Array


class MGUState(NamedTuple):
    """The state of the minimal gated unit.

    Attributes:
      h: State and output, `(*batch, H)`.
    """

    h: Array


class MGUPartials(NamedTuple):
    """∂φ: three diagonals, each `(*lead, H)`; and the gate."""

    f: Array  # ∂h/∂h₋ at fixed u and a; ∂h/∂aⁿ = kⁿ f
    kf: Array  # ∂h/∂uᶠ = (h₋ - n + kⁿ aⁿ) f(1-f)
    kn: Array  # ∂h/∂uⁿ = (1-f) tanh'(uⁿ + f⊙aⁿ)


def update(state: MGUState, u: Array, a: Array) -> MGUState:
    """The step: h = n + f⊙(h₋ - n), n = tanh(uⁿ + f⊙aⁿ)."""
    H = state.h.shape[-1]
    (f,) = by_one_tanh((u + a)[..., :H], (True,))
    n = jnp.tanh(u[..., H:] + f * a[..., H:])
    return MGUState(h=n + f * (state.h - n))


def partials(state: MGUState, u: Array, a: Array) -> MGUPartials:
    """The derivatives of `update`; 1-f is σ(-zᶠ), which keeps its digits near f = 1."""
    (uf, un), (af, an) = jnp.split(u, 2, axis=-1), jnp.split(a, 2, axis=-1)
    f, closed, df = sigmoid_parts(uf + af)
    pre_n = un + f * an
    kn = closed * tanh.derivative(pre_n)
    return MGUPartials(f=f, kf=(state.h - tanh(pre_n) + kn * an) * df, kn=kn)


def merge(p: MGUPartials, du: Array, da: Array) -> Array:
    """δv = (δuᶠ + δaᶠ, δuⁿ + f⊙δaⁿ)."""
    (duf, dun), (daf, dan) = jnp.split(du, 2, axis=-1), jnp.split(da, 2, axis=-1)
    return jnp.concatenate([duf + daf, dun + p.f * dan], axis=-1)


def tangent(p: MGUPartials, dstate: MGUState, dv: Array) -> MGUState:
    """δh = f⊙δh₋ + kᶠ⊙δvᶠ + kⁿ⊙δvⁿ."""
    dvf, dvn = jnp.split(dv, 2, axis=-1)
    return MGUState(h=p.f * dstate.h + p.kf * dvf + p.kn * dvn)


def gate_values(state: MGUState, u: Array, a: Array) -> tuple[Array, ...]:
    """(f, n)."""
    (uf, un), (af, an) = jnp.split(u, 2, axis=-1), jnp.split(a, 2, axis=-1)
    f = sigmoid(uf + af)
    return f, tanh(un + f * an)


def mgu() -> PointwiseCell:
    """The minimal gated unit that resets after the matmul; gate order f, n; state (h,).

        fᵢ = σ(uᶠ + aᶠ)   nᵢ = tanh(uⁿ + fᵢ ⊙ aⁿ)      u = W_ih xᵢ + b
        hᵢ = (1 - fᵢ) ⊙ nᵢ + fᵢ ⊙ hᵢ₋₁                a = W_hh hᵢ₋₁ + (0, b_hn)

    It is flax's `MGUCell`. The paper resets before the matmul, nᵢ = tanh(uⁿ + W_n (fᵢ ⊙ hᵢ₋₁)),
    and swaps f and 1 - f in h: its weights are not those of this cell.

    Its `init` takes `forget_bias` (default 1, in the f block of b), `input_init` and
    `recurrent_init`. The block of each gate is drawn by itself.

    Returns:
      A cell. Its params are `MGUParams`, its state is `MGUState`.

    Cost:
      O(B·2·H·(D + H)) for a step.

    Source:
      Zhou, Wu, Zhang & Zhou, arXiv:1603.09420; reset after the matmul as in flax;
      docs/derivations/gated.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.mgu()
    >>> jax.tree.map(lambda p: p.shape, cell.init(jax.random.key(0), 2, 3))
    MGUParams(w_ih=(6, 2), w_hh=(6, 3), b=(6,), b_hn=(3,))
    """
    return MGU


def shapes(D: int, H: int) -> MGUParams:
    """Shapes of the params' leaves."""
    return MGUParams(w_ih=(2 * H, D), w_hh=(2 * H, H), b=(2 * H,), b_hn=(H,))  # type: ignore[arg-type]


def init(
    key: PRNGKey,
    input_size: int,
    hidden_size: int,
    *,
    dtype: Any = None,
    forget_bias: float = 1.0,
    input_init: Initializer = GLOROT,
    recurrent_init: Initializer = ORTHOGONAL,
) -> MGUParams:
    """Glorot input weights, orthogonal recurrent weights, zero bias but for the forget gate."""
    _checks.check_real("forget_bias", forget_bias)
    w_ih, w_hh = draw(key, len(NAMES), input_size, hidden_size, dtype, input_init, recurrent_init)
    return MGUParams(
        w_ih, w_hh, bias_of(NAMES, "f", forget_bias, w_hh), jnp.zeros(hidden_size, w_hh.dtype)
    )


def projections(params: MGUParams) -> tuple[Affine, Affine]:
    """b_hh is (0, b_hn): only the candidate has a bias inside the reset."""
    inner = jnp.concatenate([jnp.zeros_like(params.b_hn), params.b_hn])
    return Affine(params.w_ih, params.b), Affine(params.w_hh, inner)


MGU = PointwiseCell(
    name="mgu",
    gates=NAMES,
    phi=Pointwise(update, partials, tangent, merge, gate_values=gate_values, gates=GATES),
    state_type=MGUState,
    shapes=shapes,
    init=init,
    projections=projections,
    gatewise=True,  # f ⊙ aⁿ takes a slice before its tanh, which XLA does not vectorise
)
