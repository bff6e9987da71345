"""The pointwise part of a cell: a map that acts on each hidden unit alone, and its derivatives."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn import _checks
from jaxrnn.cells.contract import Coefficients, State
from jaxrnn.cells.traits import ROLES, Gate

__all__ = ["Pointwise", "Sensitivities", "add", "check_pointwise", "check_results"]

SIGNATURES = {
    "update": "(s, u, a) -> s",
    "partials": "(s, u, a) -> p",
    "tangent": "(p, ds, dv) -> ds",
    "merge": "(p, du, da) -> dv",
}


def add(partials: Coefficients, du: Array, da: Array) -> Array:
    """δv = δu + δa, for a map that reads u and a only as their sum."""
    # `PointwiseCell` tests for this very function: a sum lets both projections share one matmul.
    return du + da


class Pointwise(NamedTuple):
    """A pointwise map φ and its closed-form tangent; all arrays `(*lead, ·)`.

        s = φ(s₋, u, a)        δs = tangent(p, δs₋, δv),  δv = merge(p, δu, δa)

    In a cell with `units`, leaves of the params that each unit has for itself, such as a peephole,
    φ reads them too, w as a tuple in the order of their names:

        s = φ(s₋, u, a, w)     δs = tangent(p, δs₋, δv) + enter(p, δw)

    In a cell with an `output` projection, `h` is what φ gives times a weight, so that φ's own h₋ is
    not known: it gets None there.

    Attributes:
      update: (s₋, u, a) ↦ s, or (s₋, u, a, w) ↦ s.
      partials: The same arguments ↦ p, the derivatives of φ as a tree of `(*lead, H)`.
      tangent: (p, δs₋, δv) ↦ δs, linear in the last two.
      merge: (p, δu, δa) ↦ δv `(*lead, G·H)`, linear in the last two: what the tangent reads of both
        projections. It is their sum unless φ treats u and a differently, as the GRU does.
      readout: p ↦ ∂h/∂c at fixed gates, `(*lead, H)`, for a state (h, c); None if the map has none.
        `paths` and `jacobians.c_path` use it.
      slope: For a map of one gate with ∂h/∂h₋ = 0 at fixed u and a, a number γ ≥ sup |∂h/∂u|; None
        if no such number is known. `certificates` use it.
      linear: Whether ∂h/∂u is the constant γ.
      gate_values: The arguments of `update` ↦ what each gate lets through, a tuple of `(*lead, H)`
        in the order of the cell's gates; None if the map does not tell.
      gates: A `Gate` for each of the cell's gates, with its role and range. If it is empty, only
        the names of the gates are known.
      enter: (p, δw) ↦ δs at fixed s₋, u and a, linear in δw, for a cell with `units`.

    A cell of your own with a closed form, here a leaky unit with the params of `rnn`:

    >>> import dataclasses, jax.numpy as jnp, jaxrnn
    >>> tanh = jaxrnn.activations.tanh
    >>> leaky = jaxrnn.Pointwise(
    ...     update=lambda s, u, a: jaxrnn.RNNState(0.9 * s.h + tanh(u + a)),
    ...     partials=lambda s, u, a: tanh.derivative(u + a),
    ...     tangent=lambda k, ds, dv: jaxrnn.RNNState(0.9 * ds.h + k * dv))
    >>> cell = dataclasses.replace(jaxrnn.rnn(), name="leaky", phi=leaky)
    >>> jaxrnn.verify(cell, shapes=((2, 3),), cases=8).passed
    True
    """

    update: Callable[..., Any]
    partials: Callable[..., Any]
    tangent: Callable[..., Any]
    merge: Callable[[Any, Array, Array], Array] = add
    readout: Callable[[Any], Array] | None = None
    slope: float | None = None
    linear: bool = False
    gate_values: Callable[..., tuple[Array, ...]] | None = None
    gates: tuple[Gate, ...] = ()
    enter: Callable[..., Any] | None = None


class Sensitivities(NamedTuple):
    """The diagonals of ∂φ: every derivative of a step, before a weight is applied.

    Each field is a state whose leaf l holds the derivative of s.l.

    Attributes:
      state: A state of states: `state.h.c` is diag ∂h/∂c₋ at fixed u and a, `(*lead, H)`.
      u: diag ∂s.l/∂u_g, a tuple over the gates g of `(*lead, H)`: `u.c[0]` is ∂c/∂u of gate 0.
      a: diag ∂s.l/∂a_g, of the same form as `u`.
      w: diag ∂s.l/∂w_k, a tuple over the `units` of the cell.
    """

    state: State
    u: Any
    a: Any
    w: Any


def check_pointwise(phi: Any, gates: tuple[str, ...]) -> None:
    """Raise TypeError or ValueError unless phi is a `Pointwise` whose fields are of their kind."""
    if not isinstance(phi, Pointwise):
        raise TypeError(f"phi: expected a Pointwise, got {_checks.describe(phi)}")
    for field, example in SIGNATURES.items():
        _checks.check_callable(f"phi.{field}", getattr(phi, field), example)
    for field in ("readout", "gate_values", "enter"):
        if getattr(phi, field) is not None:
            _checks.check_callable(f"phi.{field}", getattr(phi, field), "or None")
    if phi.gates:
        _check_gates("phi.gates", phi.gates, gates)
    if phi.slope is not None:
        _checks.check_real("phi.slope", phi.slope, least=0.0)


def _check_gates(name: str, value: Any, names: tuple[str, ...]) -> None:
    """Refuse anything but a tuple of `Gate` with these names in this order, each with its range."""
    if not isinstance(value, tuple) or not all(isinstance(gate, Gate) for gate in value):
        raise TypeError(f"{name}: expected a tuple of jaxrnn.traits.Gate, got {value!r}")
    if tuple(gate.name for gate in value) != names:
        raise ValueError(
            f"{name}: expected one for each of {', '.join(names)}, got "
            f"{', '.join(gate.name for gate in value)}"
        )
    for gate in value:
        _checks.check_range(f"{name} of {gate.name}", gate.range)
        if gate.role not in ("", *ROLES):
            raise ValueError(
                f"{name} of {gate.name}: expected a role of {', '.join(ROLES)}, got {gate.role!r}"
            )


# Cached, since cells call it each time they check params, and it traces φ.
@functools.cache
def check_results(
    phi: Pointwise, gates: int, units: int, state_type: type[Any], projects_output: bool
) -> None:
    """Refuse a φ whose results have another tree or shapes than the state's."""
    H = 3  # any size will do, since φ acts on each unit alone
    unit = jax.ShapeDtypeStruct((H,), jnp.float32)
    blocks = jax.ShapeDtypeStruct((gates * H,), jnp.float32)
    full = state_type(*[unit for _ in state_type._fields])
    state = full._replace(h=None) if projects_output else full
    w = ((unit,) * units,) if units else ()
    source = f"{state_type.__name__} with leaves (H,), here H = {H}"
    new = jax.eval_shape(phi.update, state, blocks, blocks, *w)
    _checks.check_tree("phi.update's result", new, full, source)
    partials = jax.eval_shape(phi.partials, state, blocks, blocks, *w)
    merged = jax.eval_shape(phi.merge, partials, blocks, blocks)
    _checks.check_tree("phi.merge's result", merged, blocks, "u (G·H,)")
    pushed = jax.eval_shape(phi.tangent, partials, state, merged)
    _checks.check_tree("phi.tangent's result", pushed, full, source)
    if phi.enter is not None:
        entered = jax.eval_shape(phi.enter, partials, *w)
        _checks.check_tree("phi.enter's result", entered, full, source)
