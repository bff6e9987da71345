"""Driving a cell over a sequence with `lax.scan`."""

import functools
import math
from typing import Any

import jax
from jax import Array

from jaxrnn import _checks
from jaxrnn.cells.contract import Cell, Params, State
from jaxrnn.numerics.time_axis import over_chunks, padded, select
from jaxrnn.numerics.zeros import zeros_of
from jaxrnn.running import tangent_scan

__all__ = ["by_autodiff", "last_state", "unroll"]


def unroll(
    cell: Cell,
    params: Params,
    xs: Array,
    state0: State = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
    chunk: int | None = None,
) -> State:
    """The states of a whole sequence.

        sᵢ = step(θ, sᵢ₋₁, xᵢ)             i = 1 … T, s₀ = state0; xᵢ is xs[i-1]
        sᵢ = sᵢ₋₁                          where i > lengths
        sᵢ = step(θ, state0, xᵢ)           where resets[i-1], unless held

    Args:
        cell: any `Cell`.
        params: what `cell.init` gives.
        xs: inputs, time-major `(T, *batch, D)`, any number of batch axes.
        state0: state before the first input, leaves `(*batch, H)`; by default
            `cell.init_state(params, batch)`.
        lengths: integers `(*batch,)` in [0, T]. Beyond a length the state is held, what xs
            contains there (NaN too) is never read, and gradients with respect to it are
            exactly 0; length 0 gives back `state0`.
        resets: booleans `(T, *batch)`; True sets the state to `state0` before that step.
        chunk: steps whose projections and coefficients exist at a time, by default from the
            sizes; it changes time and memory, never the result.
    Returns: the tree of the state with a leading time axis, leaves `(T, *batch, H)`;
        `states.h[i]` follows input `xs[i]`; `state0` itself is not included.
    Raises: TypeError or ValueError naming the argument, also under `jit`. The values of
        `lengths` can be checked only outside a trace; inside one they act as if clipped to [0, T].
    Cost: O(T·B·G·H·(D + H)) time, O(T·B·H) memory; the input projection is a matmul of each chunk,
        for D = 1 part of the step. For a gradient the states are kept, and W_hh h where G·H ≥ 1536
        or a sequence of one gate is short. JAX differentiates cells from `from_step` as they are.
    Source: docs/design.md, the gradient of a sequence; docs/derivations/bptt.md.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> params = cell.init(jax.random.key(0), 3, 5)
    >>> jaxrnn.unroll(cell, params, jax.numpy.ones((7, 2, 3))).h.shape
    (7, 2, 5)
    """
    check(cell, params, xs, state0, lengths, resets)
    if chunk is not None:
        _checks.check_integer("chunk", chunk, least=1)
    return _unroll(cell, params, xs, state0, lengths, resets, chunk)


@functools.partial(jax.jit, static_argnums=(0, 6))
def _unroll(
    cell: Cell,
    params: Params,
    xs: Array,
    state0: State,
    lengths: Array | None,
    resets: Array | None,
    chunk: int | None,
) -> State:
    state0 = start(cell, params, xs, state0)
    xs, held = padded(xs, lengths)
    return _driven(cell, params, xs, state0, held, resets, chunk, state0)


def _driven(
    cell: Cell,
    params: Params,
    xs: Array,
    state: State,
    held: Array | None,
    resets: Array | None,
    chunk: int | None,
    state0: State,
) -> State:
    """States from `state` on, reset to `state0`; by the closed-form tangent if there is one."""
    if not cell.closed_form:
        return _scan(cell, params, xs, state, held, resets, state0)
    plan = tangent_scan.plan(cell, params, xs, state, chunk)
    return tangent_scan.states(cell, plan, params, xs, (state, state0), held, resets)


def last_state(
    cell: Cell,
    params: Params,
    xs: Array,
    state0: State = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
    segment: int | None = None,
) -> State:
    """The state after the last step, for sequences whose states do not fit into memory.

        s_T,  sᵢ = step(θ, sᵢ₋₁, xᵢ)       held and reset as in `jaxrnn.unroll`

    Equal to the last entry of `jaxrnn.unroll`. Of the forward pass only the states between
    segments are kept; the backward pass runs a segment again before it goes back through it.

    Args:    as `jaxrnn.unroll`, without chunk.
             segment: steps in a segment, by default √T rounded up.
    Returns: the state, leaves `(*batch, H)`; with T = 0 it is `state0`.
    Raises:  as `jaxrnn.unroll`; TypeError or ValueError for a segment that is no positive integer.
    Cost:    a gradient costs one more forward pass, O((T/segment + segment)·B·H) memory.
    Source:  Chen, Xu, Zhang & Guestrin, arXiv:1604.06174, for segments of √T.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> params = cell.init(jax.random.key(0), 3, 5)
    >>> jaxrnn.unrolling.last_state(cell, params, jax.numpy.ones((700, 2, 3))).h.shape
    (2, 5)
    """
    check(cell, params, xs, state0, lengths, resets)
    if segment is not None:
        _checks.check_integer("segment", segment, least=1)
    return _last_state(cell, params, xs, state0, lengths, resets, segment)


@functools.partial(jax.jit, static_argnums=(0, 6))
def _last_state(
    cell: Cell,
    params: Params,
    xs: Array,
    state0: State,
    lengths: Array | None,
    resets: Array | None,
    segment: int | None,
) -> State:
    state0 = start(cell, params, xs, state0)
    if xs.shape[0] == 0:
        return state0
    xs, held = padded(xs, lengths)

    def run(state: State, item: tuple[Array, Array | None, Array | None]) -> tuple[Any, None]:
        x, hold, reset = item
        # A reset goes back to the state before the whole sequence, not before the segment.
        after = _driven(cell, params, x, state, hold, reset, None, state0)
        return jax.tree.map(lambda leaf: leaf[-1], after), None

    size = segment or math.ceil(math.sqrt(xs.shape[0]))
    # A scan keeps its carries, the states between segments, and nothing of a segment.
    run = jax.checkpoint(run, prevent_cse=False)
    return over_chunks(run, state0, (xs, held, resets), size)[0]


def by_autodiff(
    cell: Cell,
    params: Params,
    xs: Array,
    state0: State = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
) -> State:
    """`jaxrnn.unroll` as a plain `lax.scan` that JAX differentiates: what it is held against.

        sᵢ = step(θ, sᵢ₋₁, xᵢ)             held and reset as in `jaxrnn.unroll`

    Args:    as `jaxrnn.unroll`, without chunk.
    Returns: as `jaxrnn.unroll`.
    Raises:  as `jaxrnn.unroll`.
    Cost:    O(T·B·G·H·(D + H)) time; the input projections of all steps exist at once, and for a
             gradient what JAX keeps of each step, O(T·B·G·H) memory for gated cells.
    Source:  `jax.lax.scan`, and JAX's rules for it.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> params = cell.init(jax.random.key(0), 3, 5)
    >>> jaxrnn.unrolling.by_autodiff(cell, params, jax.numpy.ones((7, 2, 3))).h.shape
    (7, 2, 5)
    """
    check(cell, params, xs, state0, lengths, resets)
    return _by_autodiff(cell, params, xs, state0, lengths, resets)


@functools.partial(jax.jit, static_argnums=0)
def _by_autodiff(
    cell: Cell, params: Params, xs: Array, state0: State, lengths: Any, resets: Any
) -> State:
    state0 = start(cell, params, xs, state0)
    xs, held = padded(xs, lengths)
    return _scan(cell, params, xs, state0, held, resets, state0)


def _scan(
    cell: Cell, params: Params, xs: Array, state: State, held: Any, resets: Any, state0: State
) -> State:
    def body(state: State, step: tuple[Array, Array | None, Array | None]) -> tuple[Any, Any]:
        u, hold, reset = step
        begin = state if reset is None else select(reset, state0, state)
        new = cell.update(params, begin, u)
        new = new if hold is None else select(hold, state, new)
        return new, new

    return jax.lax.scan(body, state, (cell.project(params, xs), held, resets))[1]


def check(
    cell: Cell,
    params: Params,
    xs: Array,
    state0: State = None,
    lengths: Array | None = None,
    resets: Array | None = None,
) -> None:
    """Refuse arguments of an unroll that do not fit each other; nothing is computed.

    Raises: TypeError or ValueError naming the argument that does not fit.
    """
    _checks.check_cell(cell)
    batch = _checks.check_sequence("xs", xs)
    cell.check_params(params)
    cell.check_input(params, xs, "xs")
    if state0 is None:
        state0 = jax.eval_shape(lambda p: cell.init_state(p, batch), params)
    _checks.check_batch_first("state0", state0, xs)
    cell.check_state(params, state0, jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype), "state0")
    if lengths is not None:
        _checks.check_lengths(lengths, xs)
    if resets is not None:
        _checks.check_resets(resets, xs)


def start(cell: Cell, params: Params, xs: Array, state0: State) -> State:
    """state0, or the cell's own in its place; arguments unchecked."""
    if state0 is not None:
        return state0
    anchor = zeros_of(xs, (0, -1))
    state0 = cell.init_state(params, xs.shape[1:-1])
    return jax.tree.map(lambda leaf: leaf + _like_batch(anchor, leaf), state0)


def _like_batch(anchor: Array, leaf: Array) -> Array:
    return anchor.astype(leaf.dtype).reshape(*anchor.shape, *[1] * (leaf.ndim - anchor.ndim))
