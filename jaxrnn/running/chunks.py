"""Chunks: how many steps have their gate values formed together, and a scan over such pieces."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn.cells.contract import Cell, Params, State

__all__ = ["Plan", "entering", "over_chunks", "plan"]

Tree = TypeVar("Tree")

# Gate values in a chunk, 2 MiB in float32, the size of a core's cache: fewer make matmuls of few
# rows, more leave the cache. benchmarks/results/constants_cpu.json; docs/decisions/chunk-size.md
GATE_NUMBERS = 2**19
# Up to so many gate values the sequence of a one-gate cell is one chunk: more memory, fewer copies.
# benchmarks/results/constants_cpu.json; docs/decisions/chunk-size.md
WHOLE_UP_TO = 2**20
# From so many gate values of one step of one sequence on, W_hh h is kept: more memory, one matmul
# fewer.
# benchmarks/results/constants_cpu.json; docs/decisions/kept-projections.md
KEEP_FROM = 1536


class Plan(NamedTuple):
    """How a sequence is cut. It changes time and memory, never the result.

    Attributes:
      chunk: Steps in a chunk.
      keep: Whether W_hh h is kept from the forward pass rather than formed again.
    """

    chunk: int
    keep: bool


def plan(cell: Cell, params: Params, xs: Array, state: State, chunk: int | None) -> Plan:
    """The chunk that is given, or one of about 2¹⁹ gate values, a divisor of T if one is near.

    W_hh h is kept where its matmul costs more than memory for it, or where nothing is cut.
    """
    T = jax.tree.leaves(xs)[0].shape[0]
    first = jax.tree.map(lambda leaf: leaf[:1] if T else leaf, xs)
    us = jax.tree.leaves(jax.eval_shape(cell.project, params, first))
    numbers = max(sum(math.prod(u.shape[1:]) for u in us), 1)
    # The RNN: it has as many gate values as states.
    one_gate = numbers <= sum(leaf.size for leaf in jax.tree.leaves(state))
    whole = one_gate and T * numbers <= WHOLE_UP_TO
    # At least 8 steps give the matmuls of a chunk enough rows. At most T/8 steps, or 32 if that is
    # more, keep a chunk small beside the states of a long sequence.
    most = max(1, min(max(GATE_NUMBERS // numbers, 8), max(-(-T // 8), 32), T))
    # The states of a one-gate cell are as large as its gate values: chunks would save little.
    if whole:
        most = max(T, 1)
    # A chunk that divides T leaves no shorter last chunk, which would be compiled by itself.
    fits = [size for size in range(most, most // 2, -1) if T % size == 0]
    keep = whole or (cell.closed_form and us[0].shape[-1] >= KEEP_FROM)
    return Plan(chunk or (fits[0] if fits else most), keep)


def over_chunks(
    f: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    items: Any,
    size: int,
    firsts: Any = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """`lax.scan` of f over chunks of `size` steps; the steps that are left are the last chunk.

    `firsts`, if given, has one entry for each chunk: f gets the pair (chunk, its entry). With
    `reverse` the last chunk comes first; the order within a chunk is up to f. What f gives out has
    a leading axis, whose length need not be that of the chunk.
    """
    # All items of a scan have one shape, so the last, shorter chunk is a call of its own. A single
    # chunk needs no scan at all.
    T = jax.tree.leaves(items)[0].shape[0]
    steps = T // size * size if size < T else 0  # in chunks of full size

    def paired(chunk: Any, entry: Any) -> Any:
        return chunk if firsts is None else (chunk, entry)

    def full_chunks(carry: Any) -> tuple[Any, list[Any]]:
        if not steps:
            return carry, []
        cut = jax.tree.map(lambda a: a[:steps].reshape(steps // size, size, *a.shape[1:]), items)
        entries = jax.tree.map(lambda a: a[: steps // size], firsts)
        body = lambda c, item: f(c, paired(*item))  # noqa: E731
        carry, ys = jax.lax.scan(body, carry, (cut, entries), reverse=reverse)
        return carry, [jax.tree.map(lambda a: a.reshape(a.shape[0] * a.shape[1], *a.shape[2:]), ys)]

    def remainder(carry: Any) -> tuple[Any, list[Any]]:
        if steps and steps == T:
            return carry, []
        last = jax.tree.map(lambda a: a[steps:], items)
        carry, ys = f(carry, paired(last, jax.tree.map(lambda a: a[steps // size], firsts)))
        return carry, [ys]

    if reverse:
        carry, end = remainder(carry)
        carry, begin = full_chunks(carry)
    else:
        carry, begin = full_chunks(carry)
        carry, end = remainder(carry)
    parts = begin + end
    return carry, parts[0] if len(parts) == 1 else jax.tree.map(_joined, *parts)


def _joined(*parts: Array) -> Array:
    return jnp.concatenate(parts)


def entering(state0: Tree, states: Tree, size: int) -> Tree:
    """The state before each chunk of `size` steps; the leading axis counts chunks."""

    def leaf(first: Array, rest: Array) -> Array:
        return jnp.concatenate([first[None], rest[size - 1 : -1 : size]])

    return jax.tree.map(leaf, state0, states)
