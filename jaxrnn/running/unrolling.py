"""Driving a cell over a sequence with `lax.scan`."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn import _checks
from jaxrnn.cells.contract import Cell, Params, State
from jaxrnn.numerics.padding import padded
from jaxrnn.numerics.tangents import has_tangent, is_key
from jaxrnn.numerics.time_axis import select
from jaxrnn.numerics.zeros import zeros_of
from jaxrnn.running import tangent_scan
from jaxrnn.running.chunks import over_chunks, plan

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
      cell: Any `Cell`.
      params: What `cell.init` gives.
      xs: Inputs, time-major `(T, *batch, D)`, with any number of batch axes.
      state0: The state before the first input, leaves `(*batch, H)`. By default
        `cell.init_state(params, batch)`.
      lengths: Integers `(*batch,)` in [0, T]. Beyond its length a sequence is padding: the state is
        held, xs is not read even if it is NaN, and gradients with respect to it are exactly 0.
        Length 0 gives `state0`.
      resets: Booleans `(T, *batch)`. True sets the state to `state0` before that step.
      chunk: Steps whose projections and coefficients are in memory at a time, by default chosen
        from the sizes. It changes time and memory, and the result by rounding alone.

    Returns:
      The tree of the state with a leading time axis, leaves `(T, *batch, H)`. `states.h[i]` follows
      input `xs[i]`; `state0` itself is not included.

    Raises:
      TypeError: If an argument has the wrong type or dtype, also under `jit`.
      ValueError: If shapes do not fit each other, also under `jit`, or if a length is not in
        [0, T]. Under `jit` the values of lengths are not known and act as if clipped to [0, T].

    Cost:
      O(T·B·G·H·(D + H)) time, O(T·B·H) memory. The input projection is one matmul for each chunk;
      for D = 1 it is part of the step. For a gradient the states are kept, and W_hh h too where
      G·H ≥ 1536 or where a sequence of a one-gate cell is short. A cell from `from_step` is
      differentiated by JAX as it is.

    Source:
      docs/design.md, docs/derivations/bptt.md

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
    """States from `state` on, reset to `state0`."""
    # `push` and `drive` of such a cell differentiate the step, which JAX does as well by itself.
    if not cell.closed_form:
        return _scan(cell, params, xs, state, held, resets, state0)
    cut = plan(cell, params, xs, state, chunk)
    return tangent_scan.states(cell, cut, params, xs, (state, state0), held, resets)


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

    It is equal to the last entry of `jaxrnn.unroll`. Only the states between segments of the
    forward pass are kept. The backward pass runs each segment again before it goes back through it.

    Args:
      cell: As in `jaxrnn.unroll`.
      params: As in `jaxrnn.unroll`.
      xs: As in `jaxrnn.unroll`.
      state0: As in `jaxrnn.unroll`.
      lengths: As in `jaxrnn.unroll`.
      resets: As in `jaxrnn.unroll`.
      segment: Steps in a segment, by default √T rounded up.

    Returns:
      The state, leaves `(*batch, H)`. For T = 0 it is `state0`.

    Raises:
      TypeError: As in `jaxrnn.unroll`, or if `segment` is no integer.
      ValueError: As in `jaxrnn.unroll`, or if `segment` is below 1.

    Cost:
      A gradient takes one more forward pass than that of `jaxrnn.unroll`, and
      O((T/segment + segment)·B·H) memory.

    Source:
      Chen, Xu, Zhang & Guestrin, arXiv:1604.06174, for segments of √T.

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
    T = jax.tree.leaves(xs)[0].shape[0]
    if T == 0:
        return state0
    xs, held = padded(xs, lengths)

    def run(state: State, item: tuple[Array, Array | None, Array | None]) -> tuple[Any, None]:
        x, hold, reset = item
        # A reset goes back to the state before the whole sequence, not to that before the segment.
        after = _driven(cell, params, x, state, hold, reset, None, state0)
        return jax.tree.map(lambda leaf: leaf[-1], after), None

    size = segment or math.ceil(math.sqrt(T))
    # With the checkpoint, the scan over segments keeps its carries, which are the states between
    # segments, and nothing from inside a segment.
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
    """The states as `jaxrnn.unroll` gives them, by a plain `lax.scan` that JAX differentiates.

        sᵢ = step(θ, sᵢ₋₁, xᵢ)             held and reset as in `jaxrnn.unroll`

    It is the reference that `jaxrnn.unroll` and its gradient are compared with.

    Args:
      cell: As in `jaxrnn.unroll`.
      params: As in `jaxrnn.unroll`.
      xs: As in `jaxrnn.unroll`.
      state0: As in `jaxrnn.unroll`.
      lengths: As in `jaxrnn.unroll`.
      resets: As in `jaxrnn.unroll`.

    Returns:
      The tree of the state with a leading time axis, leaves `(T, *batch, H)`.

    Raises:
      TypeError: As in `jaxrnn.unroll`.
      ValueError: As in `jaxrnn.unroll`.

    Cost:
      O(T·B·G·H·(D + H)) time. The input projections of all steps are in memory at once, and for a
      gradient also what JAX keeps of each step: O(T·B·G·H) memory for gated cells.

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
    """Refuse arguments of `unroll` that do not fit each other; nothing is computed.

    Args:
      cell: As in `unroll`.
      params: As in `unroll`.
      xs: As in `unroll`.
      state0: As in `unroll`.
      lengths: As in `unroll`.
      resets: As in `unroll`.

    Raises:
      TypeError: If an argument has the wrong type or dtype.
      ValueError: If shapes do not fit each other, or a length that is known is not in [0, T].
    """
    _checks.check_cell(cell)
    cell.check_params(params)
    outline = cell.check_sequence(params, xs)
    if state0 is None:
        state0 = jax.eval_shape(lambda p: cell.init_state(p, outline.shape[1:-1]), params)
    # Before the cell's own check, which would not say that xs looks batch-first.
    _checks.check_batch_first("state0", state0, outline)
    step = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), xs)
    cell.check_state(params, state0, step, "state0")
    if lengths is not None:
        _checks.check_lengths(lengths, outline)
    if resets is not None:
        _checks.check_resets(resets, outline)


def start(cell: Cell, params: Params, xs: Array, state0: State) -> State:
    """`state0`, or the cell's own state if that is None; arguments are not checked."""
    if state0 is not None:
        return state0
    # The cell's own state knows nothing of xs. Zeros made of xs give it their sharding, without
    # which it fails as the carry of a scan under `shard_map` and on explicit meshes.
    lead = cell.leading_axes(xs)
    state0 = cell.init_state(params, lead[1:])
    numbers = [leaf for leaf in jax.tree.leaves(xs) if not is_key(leaf)]
    if not numbers:
        return state0
    anchor = zeros_of(numbers[0], (0, *range(len(lead), numbers[0].ndim)))
    return jax.tree.map(functools.partial(_placed, anchor), state0)


def _placed(anchor: Array, leaf: Array) -> Array:
    """The leaf, placed over devices as the anchor, which is 0."""
    anchor = anchor.reshape(*anchor.shape, *[1] * (leaf.ndim - anchor.ndim))
    # Nothing can be added to a key, and a boolean would become an integer.
    if has_tangent(leaf):
        return leaf + anchor.astype(leaf.dtype)
    return jnp.where(anchor == 0, leaf, leaf)
