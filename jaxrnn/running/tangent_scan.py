"""A cell driven over a sequence, and the derivative of that: the tangent scan.

    sᵢ  = φ(sᵢ₋₁, uᵢ, aᵢ)              uᵢ = W_ih xᵢ + b,  aᵢ = W_hh hᵢ₋₁
    δsᵢ = Jᵢ δsᵢ₋₁ + dᵢ                dᵢ = what enters from δθ and δxᵢ at fixed sᵢ₋₁

The second line is the rule of a `jax.custom_jvp`, so every transformation uses it. The drive d of
many steps is one matmul before the scan. JAX transposes the rule, which gives back-propagation
through time: the gradient of a weight is then one matmul after the scan.

Both scans run in chunks of steps. Only the states of the forward pass are kept. Projections and
the coefficients of J are formed again, for one chunk at a time and for all its steps at once. This
saves memory, and time too: fresh memory for all of them would take longer. The recurrence itself
is never run twice.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from chex import ArrayTree
from jax import Array
from jax.custom_derivatives import SymbolicZero

from jaxrnn.cells.contract import Cell, Params, State
from jaxrnn.numerics.time_axis import previous, select
from jaxrnn.running.chunks import Plan, entering, over_chunks

__all__ = ["states"]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def states(
    cell: Cell,
    plan: Plan,
    params: Params,
    xs: Array,
    begin: tuple[Any, Any],
    held: Array | None,
    resets: Array | None,
) -> State:
    """The states of a sequence; arguments are not checked and padding must be harmless.

    `begin` has two states: the one before the sequence, and the one that a reset goes back to.
    """
    return _forward(cell, plan, params, xs, begin, held, resets, keep=False)[0]


def _forward(
    cell: Any, plan: Plan, params: Params, xs: Array, begin: Any, held: Any, resets: Any, keep: bool
) -> tuple[Any, Any]:
    """States and, if `keep`, recurrent projections; both have the leading axis T."""
    first, state0 = begin
    stepper = cell.stepper(params)

    def step(state: State, item: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        prepared, hold, reset = item
        before = state if reset is None else select(reset, state0, state)
        # A held step is computed and thrown away: examples of a batch end at different steps.
        new, a = stepper.step(before, prepared)
        new = new if hold is None else select(hold, state, new)
        return new, (new, a if keep else None)

    def chunk(state: State, item: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        x, hold, reset = item
        return jax.lax.scan(step, state, (stepper.prepare(x), hold, reset))

    # Chunks bound the memory of the projected inputs. Where nothing is projected before the scan
    # they would only cost a copy.
    if stepper.prepare(xs) is xs:
        return jax.lax.scan(step, first, (xs, held, resets))[1]
    return over_chunks(chunk, first, (xs, held, resets), plan.chunk)[1]


@functools.partial(states.defjvp, symbolic_zeros=True)
def _tangent(cell: Any, plan: Plan, primals: Any, tangents: Any) -> tuple[Any, Any]:
    params, xs, begin, held, resets = primals
    first, state0 = begin
    dparams, dxs = map(_or_none, primals[:2], tangents[:2])
    dfirst, dstate0 = jax.tree.map(_instantiate, begin, tangents[2])
    after, kept = _forward(cell, plan, params, xs, begin, held, resets, keep=plan.keep)

    def chunk(dstate: State, item: Any) -> tuple[Any, Any]:
        return _tangent_chunk(cell, params, dparams, state0, dstate0, dstate, item)

    firsts = entering(first, after, plan.chunk)
    items = (xs, dxs, after, kept, held, resets)
    # The checkpoint keeps nothing of a chunk but its arguments for the backward pass. Inside a scan
    # JAX needs no guard against merging the second computation with the first.
    linear = jax.checkpoint(chunk, prevent_cse=False)
    return after, over_chunks(linear, dfirst, items, plan.chunk, firsts)[1]


def _tangent_chunk(
    cell: Any,
    params: Params,
    dparams: Params,
    state0: State,
    dstate0: Any,
    dstate: State,
    item: Any,
) -> tuple[Any, Any]:
    (x, dx, after, a, hold, reset), first = item
    before = previous(first, after)
    if reset is not None:
        again = jax.tree.map(lambda s, b: jnp.broadcast_to(s, b.shape), state0, before)
        before = select(reset, again, before)
    partials = cell.partials(params, before, cell.project(params, x), a)
    # The barrier makes XLA form the coefficients once, for all steps of the chunk. Fused into the
    # scan below, they would be formed step by step.
    partials = jax.lax.optimization_barrier(partials)
    drive = cell.drive(params, partials, before, x, dparams, dx)

    def step(dstate: State, item: Any) -> tuple[Any, Any]:
        partials, drive, hold, reset = item
        begin = dstate if reset is None else select(reset, dstate0, dstate)
        new = cell.push(params, partials, begin, drive)
        new = new if hold is None else select(hold, dstate, new)
        return new, new

    return jax.lax.scan(step, dstate, (partials, drive, hold, reset))


def _is_symbolic(leaf: Any) -> bool:
    return isinstance(leaf, SymbolicZero)


def _or_none(primal: Any, tangent: Any) -> ArrayTree | None:
    """A tangent as arrays, or None if all of it is 0, so that nothing is computed for it."""
    if all(map(_is_symbolic, jax.tree.leaves(tangent, is_leaf=_is_symbolic))):
        return None
    return jax.tree.map(_instantiate, primal, tangent)


def _instantiate(primal: Array, tangent: Any) -> Array:
    # Zeros are made of the primal, so that they have its sharding.
    return jnp.zeros_like(primal) if _is_symbolic(tangent) else tangent
