"""Cells that are two projections, one pointwise map, and that map's tangent.

    uᵢ = W_ih xᵢ + b              input projection, all steps at once
    aᵢ = W_hh hᵢ₋₁ (+ b_hh)       recurrent projection
    sᵢ = φ(sᵢ₋₁, uᵢ, aᵢ)          acts on each hidden unit alone

Because φ acts on each unit alone, its derivatives are diagonals. A cell writes them down once, as
the linear map (δs₋, δu, δa) ↦ δs. Fed with ones, this map gives the diagonals. A dense Jacobian
block is then a sum of gate rows that are scaled by diagonals,

    ∂h/∂h₋ = Σ_g diag(∂h/∂a_g) W_hh[g] + diag(∂h/∂h₋|ₐ)

That is O(H²) for each step and no matmul, about the cost of writing the block to memory.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn import _checks
from jaxrnn.cells import affine, contribution_sizes
from jaxrnn.cells.affine import Affine
from jaxrnn.cells.contract import Coefficients, Jacobian, Params, State, Stepper, over_leading_axes
from jaxrnn.cells.pointwise_map import (
    Pointwise,
    Sensitivities,
    add,
    check_pointwise,
    check_results,
)
from jaxrnn.cells.traits import Gate, Traits
from jaxrnn.numerics import dtypes

__all__ = ["PointwiseCell"]

SYMBOLS = {"w_ih": "(G·H, D)", "w_hh": "(G·H, H)", "b": "(G·H,)"}


# Not a NamedTuple of functions: that is a pytree, whose leaves `jit` refuses, and two equal
# closures would compile twice.
@jax.tree_util.register_static
@dataclass(frozen=True)
class PointwiseCell:
    """A cell made of two projections and a `Pointwise` map.

    The type of the params is that of `shapes(1, 1)`. φ sees no params: an `(H,)` leaf can enter
    only through `recurrent_bias`. Leading axes are batch axes everywhere, so no method needs
    `vmap`.

    Cells with equal fields are equal and have equal hashes. A cell is a static pytree node, so it
    is a valid argument of functions under `jax.jit` and other transformations.

    Attributes:
      name: For tables.
      gates: Names of the G blocks of rows of W_ih and W_hh, in order.
      phi: The pointwise map with its tangent.
      state_type: NamedTuple of the state, with a field `h`; all leaves are `(*lead, H)`.
      shapes: (D, H) ↦ the shapes of the params, a NamedTuple of tuples.
      init: (key, input_size, hidden_size, *, dtype, …) ↦ params with the leaves w_ih `(G·H, D)`,
        w_hh `(G·H, H)`, b `(G·H,)` and any number of `(H,)`.
      recurrent_bias: params ↦ b_hh `(G·H,)`, or None if the cell has none.
      gatewise: Whether a scan multiplies gate by gate (see `stepper`). It changes speed alone.

    Raises:
      TypeError: If a field has the wrong type.
      ValueError: If a field has a wrong value. What φ gives back is checked against `state_type`
        when the cell first meets params.
    """

    name: str
    gates: tuple[str, ...]
    phi: Pointwise
    state_type: type[Any]
    shapes: Callable[[int, int], Any]
    init: Callable[..., Any]
    recurrent_bias: Callable[[Any], Array] | None = None
    gatewise: bool = False

    def __post_init__(self) -> None:
        _checks.check_names("gates", self.gates)
        _checks.check_record_type("state_type", self.state_type, ("h",))
        check_pointwise(self.phi, self.gates)
        _checks.check_callable("shapes", self.shapes, "(D, H) -> params of shapes")
        _checks.check_callable("init", self.init, "(key, input_size, hidden_size) -> params")
        if self.recurrent_bias is not None:
            _checks.check_callable("recurrent_bias", self.recurrent_bias, "or None")
        _checks.check_record_type("shapes' result", type(self.shapes(1, 1)), tuple(SYMBOLS))

    def __repr__(self) -> str:
        return f"{self.name}(gates={','.join(self.gates)})"

    # --- checks -------------------------------------------------------------------

    def check_params(self, params: Params) -> None:
        """Raise TypeError or ValueError unless every leaf has its shape and one dtype."""
        check_results(self.phi, len(self.gates), self.state_type)
        _checks.check_record("params", params, type(self.shapes(1, 1)))
        for field, leaf in params._asdict().items():
            _checks.check_array(f"params.{field}", leaf)
        for field, leaf in params._asdict().items():
            _checks.check_dtype(f"params.{field}", leaf, params.w_hh.dtype, "params.w_hh")
        _checks.check_shape("params.w_hh", params.w_hh, (None, None), "(G·H, H)")
        _checks.check_shape("params.w_ih", params.w_ih, (None, None), "(G·H, D)")
        expected = self._expected_shapes(params)
        # w_hh first: the shapes expected of the others follow from its H.
        for field in ("w_hh", *params._fields):
            _checks.check_shape(
                f"params.{field}",
                getattr(params, field),
                getattr(expected, field),
                SYMBOLS.get(field, "(H,)"),
            )

    def _expected_shapes(self, params: Params) -> Params:
        """The shapes that params of this kind would have."""
        # A weight of the transposed shape is recognised, so that the error can say so rather than
        # name sizes that nobody meant.
        G = len(self.gates)
        rows, H = params.w_hh.shape
        if G * rows == H:
            H = rows
        rows, D = params.w_ih.shape
        if D == G * H != rows:
            D = rows
        return self.shapes(D, H)

    def check_input(self, params: Params, x: Any, name: str = "x") -> None:
        """Raise unless x is `(*lead, D)` in the dtype of the params."""
        _checks.check_array(name, x)
        D = params.w_ih.shape[1]
        if x.ndim == 0 or x.shape[-1] != D:
            raise ValueError(
                f"{name}: expected last axis D = {D}, the columns of params.w_ih "
                f"{tuple(params.w_ih.shape)}, got shape {tuple(x.shape)}"
            )
        _checks.check_dtype(name, x, params.w_hh.dtype, "params")

    def check_state(self, params: Params, state: State, x: Any, name: str = "state") -> None:
        """Raise unless every leaf is `(*lead, H)` with the leading axes of `x`."""
        _checks.check_record(name, state, self.state_type)
        H = params.w_hh.shape[1]
        for field, leaf in zip(state._fields, state, strict=True):
            _checks.check_array(f"{name}.{field}", leaf)
            if leaf.ndim == 0 or leaf.shape[-1] != H:
                raise ValueError(
                    f"{name}.{field}: expected last axis H = {H}, the columns of params.w_hh, "
                    f"got shape {tuple(leaf.shape)}"
                )
            _checks.check_lead(f"{name}.{field}", leaf.shape[:-1], x)
            _checks.check_dtype(f"{name}.{field}", leaf, params.w_hh.dtype, "params")

    # --- the step -----------------------------------------------------------------

    def input_map(self, params: Params) -> Affine:
        """(W_ih, b)."""
        return Affine(params.w_ih, params.b)

    def recurrent_map(self, params: Params) -> Affine:
        """(W_hh, b_hh)."""
        bias = None if self.recurrent_bias is None else self.recurrent_bias(params)
        return Affine(params.w_hh, bias)

    def init_state(self, params: Params, batch_shape: tuple[int, ...] = ()) -> State:
        """All zeros, in the dtype of the params.

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
        leaf = jnp.zeros((*batch_shape, params.w_hh.shape[1]), params.w_hh.dtype)
        return self.state_type(*[leaf for _ in self.state_type._fields])

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
        return affine.apply(self.input_map(params), xs)

    def recur(self, params: Params, h: Array) -> Array:
        """The projection a = W_hh h (+ b_hh), `(*lead, G·H)`; 16-bit numbers give float32."""
        return affine.apply(self.recurrent_map(params), h)

    def stepper(self, params: Params) -> Stepper:
        """The step with its weights laid out for a scan, on a CPU up to twice as fast."""
        # XLA does not vectorise a map that takes slices of u and a before its first nonlinearity.
        # With `gatewise`, each gate has a matmul and an array of its own instead. φ still gets u
        # and a whole: XLA drops the joining together with the splitting in φ.
        count = len(self.gates) if self.gatewise else 1
        into = affine.columns(self.input_map(params), count)
        back = affine.columns(self.recurrent_map(params), count)
        # For D = 1 the projection is one multiplication. It costs less inside the step than memory
        # for u of all steps.
        inside = params.w_ih.shape[1] == 1

        def prepare(xs: Array) -> Any:
            return xs if inside else affine.apply_columns(into, xs)

        def step(state: State, item: Any) -> tuple[Any, Array]:
            blocks = affine.apply_columns(into, item) if inside else item
            u = affine.side_by_side(blocks)
            a = affine.side_by_side(affine.apply_columns(back, state.h))
            return self.advance(state, u, a), a

        return Stepper(prepare, step)

    def update(self, params: Params, state: State, u: Array) -> State:
        """sᵢ = φ(sᵢ₋₁, uᵢ, W_hh hᵢ₋₁), rounded to the dtype of the state."""
        return self.advance(state, u, self.recur(params, state.h))

    def advance(self, state: State, u: Array, a: Array) -> State:
        """sᵢ = φ(sᵢ₋₁, uᵢ, aᵢ), rounded to the dtype of the state."""
        # With 16-bit weights u and a are float32: φ runs in float32 and rounds once.
        new = self.phi.update(dtypes.cast(state, u.dtype), u, a)
        return dtypes.cast(new, state.h.dtype)

    # --- its linearisation ----------------------------------------------------------

    @property
    def closed_form(self) -> bool:
        """True: `drive` and `push` are closed forms."""
        return True

    def partials(
        self, params: Params, state: State, u: Array, a: Array | None = None
    ) -> Coefficients:
        """The derivatives of φ at (sᵢ₋₁, uᵢ), a tree of `(*lead, H)`; `a` saves a matmul."""
        a = self.recur(params, state.h) if a is None else a
        return self.phi.partials(dtypes.cast(state, u.dtype), u, a)

    def drive(
        self,
        params: Params,
        partials: Coefficients,
        state: State,
        x: Array,
        dparams: Params,
        dx: Array | None,
    ) -> Array:
        """δv = merge(δW_ih x + W_ih δx + δb, δW_hh h + δb_hh), `(*lead, G·H)`.

        None for `dparams` or `dx` stands for zero.
        """
        shape = jax.eval_shape(self.project, params, x)
        du = da = jnp.zeros(shape.shape, shape.dtype)
        if dparams is not None:
            into = jax.jvp(self.input_map, (params,), (dparams,))[1]
            back = jax.jvp(self.recurrent_map, (params,), (dparams,))[1]
            # Where u and a enter as their sum, one matmul of [x, h, 1] gives both, and its
            # transpose is one matmul for the gradient of all weights.
            if self.phi.merge is add:
                du = affine.driven([into, back], [x, state.h])
            else:
                du, da = affine.driven([into], [x]), affine.driven([back], [state.h])
        if dx is not None:
            du = du + affine.apply(self.input_map(params)._replace(bias=None), dx)
        return self.phi.merge(partials, du, da)

    def push(self, params: Params, partials: Coefficients, dstate: State, drive: Array) -> State:
        """δsᵢ: the tangent of φ, fed with W_hh δh₋ and the drive. O(B·G·H²)."""
        linear = self.recurrent_map(params)._replace(bias=None)
        da = affine.apply(linear, dstate.h)
        dv = drive + self.phi.merge(partials, jnp.zeros_like(da), da)
        fed = self.phi.tangent(partials, dtypes.cast(dstate, dv.dtype), dv)
        return dtypes.cast(fed, dstate.h.dtype)

    def drive_parts(self, partials: Coefficients, adjoint: Array) -> tuple[Array, ...]:
        """The adjoints of δu and δa, or one for both where they enter as their sum."""
        if self.phi.merge is add:
            return (adjoint,)
        merge = functools.partial(self.phi.merge, partials)
        return jax.linear_transpose(merge, adjoint, adjoint)(adjoint)

    def contribution_sizes(
        self, params: Params, parts: tuple[Array, ...], states: State, xs: Array, direction: Any
    ) -> tuple[Any, Any]:
        """‖Cₖ‖ and ⟨Cₖ, direction⟩ of each step's Cₖ = (∂dₖ/∂δθ)ᵀ λₖ; see `contribution_sizes`."""
        return contribution_sizes.sizes(params, parts, xs, states.h, direction, self._biases)

    def _biases(self, params: Params) -> tuple[Array | None, Array | None]:
        return self.input_map(params).bias, self.recurrent_map(params).bias

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
        )

    def _gate_values(self, params: Params, state: State, x: Array) -> tuple[Array, ...]:
        u = self.project(params, x)
        assert self.phi.gate_values is not None
        return self.phi.gate_values(dtypes.cast(state, u.dtype), u, self.recur(params, state.h))

    def _recurrent_weight(self, params: Params) -> Array:
        return self.recurrent_map(params).weight

    def pulled_apart(self, partials: Coefficients, adjoint: State) -> tuple[Any, tuple[Array, ...]]:
        """Jᵀ λ in parts: what passes without a weight, and what enters each gate's rows of W_hh."""
        G = len(self.gates)
        # Made of the adjoint, so that it varies as the adjoint does under `shard_map`.
        dv = jnp.zeros_like(jnp.concatenate([adjoint.h] * G, axis=-1))
        tangent = functools.partial(self.phi.tangent, partials)
        direct, dv = jax.linear_transpose(tangent, adjoint, dv)(adjoint)
        return direct, tuple(jnp.split(self.drive_parts(partials, dv)[-1], G, axis=-1))

    def sensitivities(self, params: Params, state: State, u: Array) -> Sensitivities:
        """Every diagonal of ∂φ, from the tangent fed with ones. O(B·G·H)."""
        p = self.partials(params, state, u)
        S, G = self.state_type, len(self.gates)
        zero_s = dtypes.cast(jax.tree.map(jnp.zeros_like, state), u.dtype)
        zero_u, one = jnp.zeros_like(u), jnp.ones_like(zero_s.h)

        def fed(dv: Array) -> State:
            return self.phi.tangent(p, zero_s, dv)

        def from_leaf(leaf: str) -> State:
            return self.phi.tangent(p, zero_s._replace(**{leaf: one}), zero_u)

        # Gate by gate rather than mapped over a stack of unit vectors: XLA then sees which inputs
        # are constant zeros, and drops what is multiplied by them.
        def from_gates(feed: Callable[[Array], Any]) -> Jacobian:
            blocks = [[one if g == k else zero_s.h for k in range(G)] for g in range(G)]
            fed = [feed(jnp.concatenate(row, axis=-1)) for row in blocks]
            return S(*[tuple(getattr(gate, leaf) for gate in fed) for leaf in S._fields])

        columns = {leaf: from_leaf(leaf) for leaf in S._fields}
        direct = S(*[S(*[getattr(columns[k], j) for k in S._fields]) for j in S._fields])
        return Sensitivities(
            state=direct,
            u=from_gates(lambda ones: fed(self.phi.merge(p, ones, zero_u))),
            a=from_gates(lambda ones: fed(self.phi.merge(p, zero_u, ones))),
        )

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
        # Rows of W_hh are scaled, rather than the tangent mapped over its columns: the results are
        # equal, and scaling was 2 to 4 times faster on a CPU, since feeding zeros costs
        # multiplications. Without the barrier XLA would fuse the O(G·H) diagonals into the O(H²)
        # loops and compute them again for every row.
        s = jax.lax.optimization_barrier(self.sensitivities(params, state, self.project(params, x)))
        weight = self.recurrent_map(params).weight
        S = self.state_type

        def block(out: str, into: str) -> Array:
            dense = affine.diagonal(getattr(getattr(s.state, out), into))
            if into == "h":
                dense = affine.scaled_rows(getattr(s.a, out), weight) + dense
            return dense.astype(state.h.dtype)

        return S(*[S(*[block(j, k) for k in S._fields]) for j in S._fields])

    def input_jacobian(self, params: Params, state: State, x: Array) -> Jacobian:
        """∂sᵢ/∂xᵢ = Σ_g diag(∂s/∂u_g) W_ih[g].

        Args:
          params: The params of the cell.
          state: sᵢ₋₁, leaves `(*lead, H)`.
          x: xᵢ, `(*lead, D)`.

        Returns:
          The tree of `jax.jacfwd(step, argnums=2)`, leaves `(*lead, H, D)`.
        """
        s = self.sensitivities(params, state, self.project(params, x))
        weight = self.input_map(params).weight
        return self.state_type(
            *[affine.scaled_rows(gates, weight).astype(x.dtype) for gates in s.u]
        )

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
        s = self.sensitivities(params, state, self.project(params, x))
        H = state.h.shape[-1]

        def one(h: Array, x: Array, du: tuple[Array, ...], da: tuple[Array, ...]) -> Jacobian:
            # The diagonals go back through the transpose of both projections, so that every leaf
            # that `recurrent_bias` reads gets its derivative.
            _, transpose = jax.vjp(lambda p: (self.project(p, x), self.recur(p, h)), params)
            unit = jnp.eye(H, dtype=du[0].dtype)[:, None, :]  # (H, 1, H): one output at a time
            u, a = jnp.stack(du), jnp.stack(da)  # (G, H)
            return jax.vmap(lambda e: transpose(((e * u).ravel(), (e * a).ravel()))[0])(unit)

        mapped = over_leading_axes(one, x.ndim - 1)
        fields = [mapped(state.h, x, u, a) for u, a in zip(s.u, s.a, strict=True)]
        return self.state_type(*fields)
