"""The gated recurrent unit that resets after the matmul, as torch and cuDNN do.

    rᵢ = σ(uʳ + aʳ)   zᵢ = σ(uᶻ + aᶻ)   nᵢ = tanh(uⁿ + rᵢ ⊙ aⁿ)
    hᵢ = (1 - zᵢ) ⊙ nᵢ + zᵢ ⊙ hᵢ₋₁

    u = W_ih xᵢ + b        a = W_hh hᵢ₋₁ + (0, 0, b_hn)

z is the gate, never a pre-activation. With kʳ = ∂h/∂uʳ, kᶻ = ∂h/∂uᶻ, kⁿ = ∂h/∂uⁿ,

    ∂h/∂h₋ = diag(z) + diag(kʳ) W_r + diag(kᶻ) W_z + diag(kⁿ r) W_n

    kʳ = kⁿ aⁿ r(1-r)    kᶻ = (h₋-n) z(1-z)    kⁿ = (1-z) tanh'(uⁿ + r⊙aⁿ)

The reset gate multiplies aⁿ, so ∂h/∂aⁿ = r ⊙ ∂h/∂uⁿ: here u and a differ.
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from chex import PRNGKey
from jax import Array

from jaxrnn.cells.activations import Activation, Given, check_activation, sigmoid, tanh
from jaxrnn.cells.affine import Affine
from jaxrnn.cells.drawing import GLOROT, ORTHOGONAL, Initializer, draw
from jaxrnn.cells.gate_blocks import by_one_tanh
from jaxrnn.cells.pointwise_cell import PointwiseCell
from jaxrnn.cells.pointwise_map import Pointwise
from jaxrnn.cells.traits import Gate

__all__ = ["GRUParams", "GRUState", "gru"]

NAMES = ("r", "z", "n")


class GRUParams(NamedTuple):
    """θ of the GRU; rows in the gate order r, z, n.

    Attributes:
      w_ih: Input weight, `(3H, D)`.
      w_hh: Recurrent weight, `(3H, H)`.
      b: Bias, `(3H,)`.
      b_hn: Bias inside the reset, rᵢ ⊙ (W_hn h + b_hn), `(H,)`.
    """

    w_ih: Array
    w_hh: Array
    b: Array
    b_hn: Array


class GRUState(NamedTuple):
    """The state of the GRU.

    Attributes:
      h: State and output, `(*batch, H)`.
    """

    h: Array


class GRUPartials(NamedTuple):
    """∂φ: five diagonals, each `(*lead, H)`."""

    z: Array  # ∂h/∂h₋ at fixed u and a
    kr: Array  # ∂h/∂uʳ = kⁿ aⁿ r(1-r)
    kz: Array  # ∂h/∂uᶻ = (h₋-n) z(1-z)
    kn: Array  # ∂h/∂uⁿ = (1-z) tanh'(uⁿ + r⊙aⁿ)
    r: Array  # the reset gate: ∂h/∂aⁿ = kⁿ r


def update(state: GRUState, u: Array, a: Array) -> GRUState:
    """The step of sigmoid and tanh: h = n + z⊙(h₋ - n), n = tanh(uⁿ + r⊙aⁿ)."""
    H = state.h.shape[-1]
    r, z = by_one_tanh((u + a)[..., : 2 * H], (True, True))
    n = jnp.tanh(u[..., 2 * H :] + r * a[..., 2 * H :])
    return GRUState(h=n + z * (state.h - n))


def update_by(
    gate: Activation, candidate: Activation, state: GRUState, u: Array, a: Array
) -> GRUState:
    """The step of any activations."""
    _, z, n = gate_values(gate, candidate, state, u, a)
    return GRUState(h=n + z * (state.h - n))


def partials(
    gate: Activation, candidate: Activation, state: GRUState, u: Array, a: Array
) -> GRUPartials:
    """The derivatives of the step."""
    ur, uz, un = jnp.split(u, 3, axis=-1)
    ar, az, an = jnp.split(a, 3, axis=-1)
    (r, dr), (z, dz) = gate.pair(ur + ar), gate.pair(uz + az)
    pre_n = un + r * an
    # σ(-·) for 1-z: 1 minus z loses its digits near z = 1, which is how a GRU remembers.
    kn = gate.one_minus(uz + az) * candidate.derivative(pre_n)
    return GRUPartials(z=z, kr=kn * an * dr, kz=(state.h - candidate(pre_n)) * dz, kn=kn, r=r)


def merge(p: GRUPartials, du: Array, da: Array) -> Array:
    """δv = (δuʳ + δaʳ, δuᶻ + δaᶻ, δuⁿ + r⊙δaⁿ)."""
    dur, duz, dun = jnp.split(du, 3, axis=-1)
    dar, daz, dan = jnp.split(da, 3, axis=-1)
    return jnp.concatenate([dur + dar, duz + daz, dun + p.r * dan], axis=-1)


def tangent(p: GRUPartials, dstate: GRUState, dv: Array) -> GRUState:
    """δh = z⊙δh₋ + kʳ⊙δvʳ + kᶻ⊙δvᶻ + kⁿ⊙δvⁿ."""
    dvr, dvz, dvn = jnp.split(dv, 3, axis=-1)
    return GRUState(h=p.z * dstate.h + p.kr * dvr + p.kz * dvz + p.kn * dvn)


def gate_values(
    gate: Activation, candidate: Activation, state: GRUState, u: Array, a: Array
) -> tuple[Array, ...]:
    """(r, z, n)."""
    (ur, uz, un), (ar, az, an) = jnp.split(u, 3, axis=-1), jnp.split(a, 3, axis=-1)
    r = gate(ur + ar)
    return r, gate(uz + az), candidate(un + r * an)


def gru(gate: Activation = sigmoid, candidate: Activation = tanh) -> PointwiseCell:
    """The GRU with the reset gate applied after the recurrent matmul; gate order r, z, n.

        rᵢ = σ(uʳ + aʳ)   zᵢ = σ(uᶻ + aᶻ)   nᵢ = tanh(uⁿ + rᵢ ⊙ aⁿ)      u = W_ih xᵢ + b
        hᵢ = (1 - zᵢ) ⊙ nᵢ + zᵢ ⊙ hᵢ₋₁                      a = W_hh hᵢ₋₁ + (0, 0, b_hn)

    Args:
      gate: The `Activation` of r and z, in keras `recurrent_activation`. Its `complement` gives
        1 - z.
      candidate: The `Activation` of n, in keras `activation`.

    Returns:
      A cell. Its params are `GRUParams`, its state is `GRUState`. Equal activations give the same
      cell, so `jax.jit` compiles once.

    Raises:
      TypeError: If an argument is no `Activation`, such as a bare function.

    Cost:
      O(B·3·H·(D + H)) for a step.

    Source:
      Cho et al. 2014; reset after the matmul as in torch and cuDNN; docs/derivations/gru.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.gru()
    >>> jax.tree.map(lambda p: p.shape, cell.init(jax.random.key(0), 2, 3))
    GRUParams(w_ih=(9, 2), w_hh=(9, 3), b=(9,), b_hn=(3,))
    >>> jaxrnn.gru(gate=jaxrnn.activations.hard_sigmoid)
    gru[hard_sigmoid,tanh](gates=r,z,n)
    """
    check_activation("gate", gate)
    check_activation("candidate", candidate)
    return _gru(gate, candidate)


def shapes(D: int, H: int) -> GRUParams:
    """Shapes of the params' leaves."""
    return GRUParams(w_ih=(3 * H, D), w_hh=(3 * H, H), b=(3 * H,), b_hn=(H,))  # type: ignore[arg-type]


def init(
    key: PRNGKey,
    input_size: int,
    hidden_size: int,
    *,
    dtype: Any = None,
    input_init: Initializer = GLOROT,
    recurrent_init: Initializer = ORTHOGONAL,
) -> GRUParams:
    """Glorot input weights, orthogonal recurrent weights, zero biases."""
    w_ih, w_hh = draw(key, len(NAMES), input_size, hidden_size, dtype, input_init, recurrent_init)
    return GRUParams(
        w_ih, w_hh, jnp.zeros(3 * hidden_size, w_hh.dtype), jnp.zeros(hidden_size, w_hh.dtype)
    )


def projections(params: GRUParams) -> tuple[Affine, Affine]:
    """b_hh is (0, 0, b_hn): only the candidate has a bias inside the reset."""
    zeros = jnp.zeros(2 * params.b_hn.shape[0], params.b_hn.dtype)
    inner = jnp.concatenate([zeros, params.b_hn])
    return Affine(params.w_ih, params.b), Affine(params.w_hh, inner)


# Cached, so that equal activations give one cell.
@functools.cache
def _gru(gate: Activation, candidate: Activation) -> PointwiseCell:
    both = gate, candidate
    usual = both == (sigmoid, tanh)
    phi = Pointwise(
        update if usual else Given(update_by, both),
        Given(partials, both),
        tangent,
        merge,
        gate_values=Given(gate_values, both),
        gates=(
            Gate("r", "reset", "resets", gate.range, gate.value),
            Gate("z", "update", "keeps", gate.range, gate.value),
            Gate("n", "candidate", "proposes", candidate.range, candidate.value),
        ),
    )
    return PointwiseCell(
        name="gru" if usual else f"gru[{gate.name},{candidate.name}]",
        gates=NAMES,
        phi=phi,
        state_type=GRUState,
        shapes=shapes,
        init=init,
        projections=projections,
        gatewise=True,  # r ⊙ aⁿ takes a slice before its tanh, which XLA does not vectorise
    )
