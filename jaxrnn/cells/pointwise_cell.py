"""Cells that are two projections, one pointwise map, and that map's tangent.

    uᵢ = W_ih xᵢ + b              input projection, all steps at once
    aᵢ = W_hh hᵢ₋₁ (+ b_hh)       recurrent projection
    sᵢ = φ(sᵢ₋₁, uᵢ, aᵢ)          acts on each hidden unit alone

Because φ acts on each unit alone, its derivatives are diagonals. A cell writes them down once, as
the linear map (δs₋, δu, δa) ↦ δs. Fed with ones, this map gives the diagonals. A dense Jacobian
block is then a sum of gate rows that are scaled by diagonals,

    ∂h/∂h₋ = Σ_g diag(∂h/∂a_g) W_hh[g] + diag(∂h/∂h₋|ₐ)

That is O(H²) for each step and no matmul, about the cost of writing the block to memory.

Three things may come to it, each a field of its own. `projections` makes both affine maps of the
params, such as an antisymmetric W_hh. `units` are leaves that φ reads, one number for each unit,
such as peepholes. `output` is a weight W_hr: φ gives m, and h = W_hr m.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn import _checks
from jaxrnn.cells import affine, contribution_sizes, pointwise_checks, pointwise_jacobians
from jaxrnn.cells.affine import Affine
from jaxrnn.cells.contract import Coefficients, Jacobian, Params, State, Stepper
from jaxrnn.cells.contribution_sizes import Parts, Reads
from jaxrnn.cells.pointwise_map import Pointwise, Sensitivities, add
from jaxrnn.cells.traits import Gate, Traits
from jaxrnn.numerics import dtypes

__all__ = ["PointwiseCell"]


class Projected(NamedTuple):
    """Coefficients of a cell with an output projection."""

    phi: Any  # p, those of φ
    m: Array  # what φ gave for h, `(*lead, H)`: δW_hr meets it


class Entering(NamedTuple):
    """What enters a step's tangent from params and input; None stands for 0."""

    v: Array  # δv, `(*lead, G·H)`
    s: Any = None  # what enters φ's result from `units`, a state
    h: Array | None = None  # δW_hr m


# Not a NamedTuple of functions: that is a pytree, whose leaves `jit` refuses, and two equal
# closures would compile twice.
@jax.tree_util.register_static
@dataclass(frozen=True)
class PointwiseCell:
    """A cell made of two projections and a `Pointwise` map.

    The type of the params is that of `shapes(1, 1)`. Leading axes are batch axes everywhere, so no
    method needs `vmap`.

    Cells with equal fields are equal and have equal hashes. A cell is a static pytree node, so it
    is a valid argument of functions under `jax.jit` and other transformations.

    Attributes:
      name: For tables.
      gates: Names of the G blocks of rows of W_ih and W_hh, in order.
      phi: The pointwise map with its tangent.
      state_type: NamedTuple of the state, with a field `h`. Leaves are `(*lead, H)`; with `output`
        the leaf h is `(*lead, P)`.
      shapes: (D, H) ↦ the shapes of the params, a NamedTuple of tuples.
      init: (key, input_size, hidden_size, *, dtype, …) ↦ params with the leaves w_ih `(G·H, D)`,
        w_hh `(G·H, H)`, b `(G·H,)` and any others.
      projections: params ↦ (input, recurrent), each an `Affine` with a weight of the shape of w_ih
        or w_hh and a bias `(G·H,)` or None. By default (w_ih, b) and (w_hh, None).
      units: Names of leaves `(H,)` of the params that φ reads; `phi.enter` is their tangent.
      output: The name of the leaf `(P, H)` of the params that makes h of what φ gives, or None.
        w_hh is `(G·H, P)` then.
      gatewise: Whether a scan multiplies gate by gate (see `stepper`). It changes speed alone.

    Raises:
      TypeError: If a field has the wrong type.
      ValueError: If a field has a wrong value. What φ and `projections` give back is checked when
        the cell first meets params.
    """

    name: str
    gates: tuple[str, ...]
    phi: Pointwise
    state_type: type[Any]
    shapes: Callable[[int, int], Any]
    init: Callable[..., Any]
    projections: Callable[[Any], tuple[Affine, Affine]] | None = None
    units: tuple[str, ...] = ()
    output: str | None = None
    gatewise: bool = False

    def __post_init__(self) -> None:
        pointwise_checks.check_fields(self)

    def __repr__(self) -> str:
        return f"{self.name}(gates={','.join(self.gates)})"

    # --- checks -------------------------------------------------------------------

    def check_params(self, params: Params) -> None:
        """Raise TypeError or ValueError unless every leaf has its shape and one dtype."""
        pointwise_checks.check_params(self, params)

    def check_sequence(self, params: Params, xs: Any) -> Any:
        """Raise unless xs is time-major `(T, *batch, D)`; xs itself."""
        _checks.check_sequence("xs", xs)
        self.check_input(params, xs, "xs")
        return xs

    def leading_axes(self, x: Any) -> tuple[int, ...]:
        """All axes of x but the last."""
        return tuple(x.shape[:-1])

    def check_input(self, params: Params, x: Any, name: str = "x") -> None:
        """Raise unless x is `(*lead, D)` in the dtype of the params."""
        pointwise_checks.check_input(params, x, name)

    def check_state(self, params: Params, state: State, x: Any, name: str = "state") -> None:
        """Raise unless every leaf has its size, and the leading axes of `x`."""
        pointwise_checks.check_state(self, params, state, x, name)

    # --- what a step reads of the params ------------------------------------------------

    def reads(self, params: Params) -> Reads:
        """Both affine maps, the leaves of `units`, and the output weight."""
        into, back = Affine(params.w_ih, params.b), Affine(params.w_hh, None)
        if self.projections is not None:
            into, back = self.projections(params)
        w = tuple(getattr(params, field) for field in self.units)
        return Reads(into, back, w, None if self.output is None else getattr(params, self.output))

    def sizes(self, params: Params) -> dict[str, int]:
        """How many entries each leaf of a state has for one example."""
        H = params.w_hh.shape[0] // len(self.gates)
        return dict.fromkeys(self.state_type._fields, H) | {"h": params.w_hh.shape[1]}

    def init_state(self, params: Params, batch_shape: tuple[int, ...] = ()) -> State:
        """The zero state in the dtype of the params.

        Args:
          params: The params of the cell.
          batch_shape: The sizes of the batch axes.

        Returns:
          The state, leaves `(*batch_shape, H)`.

        Raises:
          TypeError: If `params` are not those of the cell, or `batch_shape` no tuple of integers.
          ValueError: If the shapes of the params do not fit, or a size is below 0.
        """
        self.check_params(params)
        _checks.check_batch_shape(batch_shape)
        sizes, dtype = self.sizes(params), params.w_hh.dtype
        # Leaves of one size are one array: eager code then makes one.
        made = {size: jnp.zeros((*batch_shape, size), dtype) for size in set(sizes.values())}
        return self.state_type(*[made[sizes[field]] for field in self.state_type._fields])

    # --- the step -----------------------------------------------------------------

    def step(self, params: Params, state: State, x: Array) -> State:
        """sᵢ = φ(sᵢ₋₁, W_ih xᵢ + b, W_hh hᵢ₋₁).

        Args:
          params: The params of the cell.
          state: sᵢ₋₁, leaves `(*lead, H)`, in the dtype of the params.
          x: xᵢ, `(*lead, D)`, in the same dtype.

        Returns:
          sᵢ, leaves `(*lead, H)`.

        Raises:
          TypeError: If an argument has the wrong type or dtype.
          ValueError: If shapes do not fit each other.

        Cost:
          O(B·G·H·(D + H)).
        """
        self.check_params(params)
        self.check_input(params, x)
        self.check_state(params, state, x)
        return self.update(params, state, self.project(params, x))

    def project(self, params: Params, xs: Array) -> Array:
        """The projection u = W_ih x + b, `(*lead, G·H)`; 16-bit numbers give float32."""
        return affine.apply(self.reads(params).into, xs)

    def recur(self, params: Params, h: Array) -> Array:
        """The projection a = W_hh h (+ b_hh), `(*lead, G·H)`; 16-bit numbers give float32."""
        return affine.apply(self.reads(params).back, h)

    def stepper(self, params: Params) -> Stepper:
        """The step with its weights laid out for a scan, on a CPU up to twice as fast."""
        # XLA does not vectorise a map that takes slices of u and a before its first nonlinearity.
        # With `gatewise`, each gate has a matmul and an array of its own instead. φ still gets u
        # and a whole: XLA drops the joining together with the splitting in φ.
        count = len(self.gates) if self.gatewise else 1
        reads = self.reads(params)
        into, back = affine.columns(reads.into, count), affine.columns(reads.back, count)
        out = None if reads.out is None else affine.columns(Affine(reads.out, None), 1)
        # For D = 1 the projection is one multiplication. It costs less inside the step than memory
        # for u of all steps.
        inside = params.w_ih.shape[1] == 1

        def prepare(xs: Array) -> Any:
            return xs if inside else affine.apply_columns(into, xs)

        def step(state: State, item: Any) -> tuple[Any, Array]:
            blocks = affine.apply_columns(into, item) if inside else item
            u = affine.side_by_side(blocks)
            a = affine.side_by_side(affine.apply_columns(back, state.h))
            new = self.phi.update(*self.point(params, state, u, a))
            if out is not None:
                (h,) = affine.apply_columns(out, new.h.astype(state.h.dtype))
                new = new._replace(h=h)
            return dtypes.cast(new, state.h.dtype), a

        return Stepper(prepare, step)

    def update(self, params: Params, state: State, u: Array) -> State:
        """sᵢ = φ(sᵢ₋₁, uᵢ, W_hh hᵢ₋₁), rounded to the dtype of the state."""
        new = self.phi.update(*self.point(params, state, u))
        return dtypes.cast(self._projected(params, new, state.h.dtype), state.h.dtype)

    def point(self, params: Params, state: State, u: Array, a: Array | None = None) -> Any:
        """What φ is evaluated at: (s₋, u, a), with `units` also w; `a` saves a matmul."""
        a = self.recur(params, state.h) if a is None else a
        # With 16-bit weights u and a are float32: φ runs in float32 and rounds once.
        inner = dtypes.cast(self.inner(state), u.dtype)
        return inner, u, a, *self.each(self.reads(params).w, u)

    def inner(self, state: State) -> State:
        """The state as φ sees it: without h, if h is no longer what φ gave."""
        return state if self.output is None else state._replace(h=None)

    def each(self, w: tuple[Array, ...], u: Array) -> tuple[tuple[Array, ...], ...]:
        """The leaves of `units` for every example, as the last argument of φ; () without any."""
        if not w:
            return ()
        shape = (*u.shape[:-1], w[0].shape[-1])
        return (tuple(jnp.broadcast_to(leaf.astype(u.dtype), shape) for leaf in w),)

    def _projected(self, params: Params, new: State, dtype: Any) -> State:
        """φ's result, or its tangent, with h = W_hr m."""
        weight = self.reads(params).out
        if weight is None:
            return new
        return new._replace(h=affine.apply(Affine(weight, None), new.h.astype(dtype)))

    # --- its linearisation ----------------------------------------------------------

    @property
    def closed_form(self) -> bool:
        """True: `drive` and `push` are closed forms."""
        return True

    def partials(
        self, params: Params, state: State, u: Array, a: Array | None = None
    ) -> Coefficients:
        """The derivatives of φ at (sᵢ₋₁, uᵢ), a tree of `(*lead, H)`; `a` saves a matmul."""
        point = self.point(params, state, u, a)
        p = self.phi.partials(*point)
        return p if self.output is None else Projected(p, self.phi.update(*point).h)

    def of_phi(self, partials: Coefficients) -> Coefficients:
        """The coefficients of φ alone."""
        return partials if self.output is None else partials.phi

    def drive(
        self,
        params: Params,
        partials: Coefficients,
        state: State,
        x: Array,
        dparams: Params,
        dx: Array | None,
    ) -> Entering:
        """δv = merge(δW_ih x + W_ih δx + δb, δW_hh h + δb_hh), and what `units` and `output` add.

        None for `dparams` or `dx` stands for zero.
        """
        p, shape = self.of_phi(partials), jax.eval_shape(self.project, params, x)
        du = da = jnp.zeros(shape.shape, shape.dtype)
        s = h = None
        if dparams is not None:
            d = jax.jvp(self.reads, (params,), (dparams,))[1]
            # Where u and a enter as their sum, one matmul of [x, h, 1] gives both, and its
            # transpose is one matmul for the gradient of all weights.
            if self.phi.merge is add:
                du = affine.driven([d.into, d.back], [x, state.h])
            else:
                du, da = affine.driven([d.into], [x]), affine.driven([d.back], [state.h])
            if self.phi.enter is not None:
                s = self.phi.enter(p, *self.each(d.w, da))
            if self.output is not None:
                h = affine.driven([Affine(d.out, None)], [partials.m.astype(state.h.dtype)])
        if dx is not None:
            du = du + affine.apply(self.reads(params).into._replace(bias=None), dx)
        return Entering(self.phi.merge(p, du, da), s, h)

    def push(self, params: Params, partials: Coefficients, dstate: State, drive: Entering) -> State:
        """δsᵢ: the tangent of φ, fed with W_hh δh₋ and the drive. O(B·G·H²)."""
        p, kind = self.of_phi(partials), dstate.h.dtype
        da = affine.apply(self.reads(params).back._replace(bias=None), dstate.h)
        dv = drive.v + self.phi.merge(p, jnp.zeros_like(da), da)
        fed = self.phi.tangent(p, dtypes.cast(self.inner(dstate), dv.dtype), dv)
        if drive.s is not None:
            fed = jax.tree.map(jnp.add, fed, drive.s)
        fed = self._projected(params, fed, kind)
        return dtypes.cast(fed if drive.h is None else fed._replace(h=fed.h + drive.h), kind)

    def drive_parts(self, partials: Coefficients, adjoint: Entering) -> Parts:
        """The adjoints of δu, δa, the units and the output weight."""
        p, da = self.of_phi(partials), None
        du, w = adjoint.v, ()
        if self.phi.merge is not add:
            merge = functools.partial(self.phi.merge, p)
            du, da = jax.linear_transpose(merge, du, du)(du)
        if self.phi.enter is not None:
            one = jnp.zeros_like(du[..., : du.shape[-1] // len(self.gates)])
            enter = functools.partial(self.phi.enter, p)
            (w,) = jax.linear_transpose(enter, (one,) * len(self.units))(adjoint.s)
        return Parts(du, da, w, adjoint.h, None if self.output is None else partials.m)

    def contribution_sizes(
        self, params: Params, parts: Parts, states: State, xs: Array, direction: Any
    ) -> tuple[Any, Any]:
        """‖Cₖ‖ and ⟨Cₖ, direction⟩ of each step's Cₖ = (∂dₖ/∂δθ)ᵀ λₖ; see `contribution_sizes`."""
        return contribution_sizes.sizes(self, params, parts, xs, states.h, direction)

    @property
    def traits(self) -> Traits:
        """What the pointwise map says of itself, and W_hh."""
        unsaid = [Gate(name, name, "", (-math.inf, math.inf)) for name in self.gates]
        return Traits(
            slope=self.phi.slope,
            linear=self.phi.linear,
            readout=self.phi.readout,
            gates=self.phi.gates or tuple(unsaid),
            gate_values=None if self.phi.gate_values is None else self._gate_values,
            recurrent_weight=self._recurrent_weight,
            output_size=None if self.output is None else self.shapes(1, 1).w_hh[1],
        )

    def _gate_values(self, params: Params, state: State, x: Array) -> tuple[Array, ...]:
        assert self.phi.gate_values is not None
        return self.phi.gate_values(*self.point(params, state, self.project(params, x)))

    def _recurrent_weight(self, params: Params) -> Array:
        return self.reads(params).back.weight

    def pulled_apart(self, partials: Coefficients, adjoint: State) -> tuple[Any, tuple[Array, ...]]:
        """Jᵀ λ in parts: what passes without a weight, and what enters each gate's rows of W_hh."""
        G = len(self.gates)
        # Made of the adjoint, so that it varies as the adjoint does under `shard_map`.
        dv = jnp.zeros_like(jnp.concatenate([adjoint.h] * G, axis=-1))
        tangent = functools.partial(self.phi.tangent, partials)
        direct, dv = jax.linear_transpose(tangent, adjoint, dv)(adjoint)
        parts = self.drive_parts(partials, Entering(dv, adjoint))
        return direct, tuple(jnp.split(parts.u if parts.a is None else parts.a, G, axis=-1))

    # --- its Jacobians ----------------------------------------------------------------

    def sensitivities(self, params: Params, state: State, u: Array) -> Sensitivities:
        """Every diagonal of ∂φ, from the tangent fed with ones. O(B·G·H)."""
        return pointwise_jacobians.sensitivities(self, params, state, u)

    def state_jacobian(self, params: Params, state: State, x: Array) -> Jacobian:
        """∂sᵢ/∂sᵢ₋₁ in closed form.

            ∂s.l/∂h₋ = Σ_g diag(∂s.l/∂a_g) W_hh[g] + diag(∂s.l/∂h₋|ₐ)
            ∂s.l/∂m₋ = diag(∂s.l/∂m₋|ₐ)                    for every other leaf m

        Args:
          params: The params of the cell.
          state: sᵢ₋₁, leaves `(*lead, H)`.
          x: xᵢ, `(*lead, D)`.

        Returns:
          The tree of `jax.jacfwd(step, argnums=1)`, leaves `(*lead, H, H)`.

        Cost:
          O(H²) for each step and block: about one write of the result.
        """
        return pointwise_jacobians.state_jacobian(self, params, state, x)

    def input_jacobian(self, params: Params, state: State, x: Array) -> Jacobian:
        """∂sᵢ/∂xᵢ = Σ_g diag(∂s/∂u_g) W_ih[g].

        Args:
          params: The params of the cell.
          state: sᵢ₋₁, leaves `(*lead, H)`.
          x: xᵢ, `(*lead, D)`.

        Returns:
          The tree of `jax.jacfwd(step, argnums=2)`, leaves `(*lead, H, D)`.
        """
        return pointwise_jacobians.input_jacobian(self, params, state, x)

    def param_jacobian(self, params: Params, state: State, x: Array) -> Jacobian:
        """∂sᵢ/∂θ with sᵢ₋₁ held constant: ∂s[j]/∂W_ih[g·H + j, d] = ∂s/∂u_g[j] x[d], else 0.

        Args:
          params: The params of the cell.
          state: sᵢ₋₁, leaves `(*lead, H)`.
          x: xᵢ, `(*lead, D)`.

        Returns:
          The tree of `jax.jacfwd(step, argnums=0)`, leaves `(*lead, H, *leaf shape)`.

        Cost:
          O(H·P) memory for each step and P parameters. `sensitivities` is the O(G·H) form.
        """
        return pointwise_jacobians.param_jacobian(self, params, state, x)
