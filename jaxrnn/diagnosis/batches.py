"""A batch taken in chunks of examples."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.cells.contract import Cell, State
from jaxrnn.nets.layers import Layer, runs

__all__ = [
    "GivenBatch",
    "chunk_size",
    "chunks",
    "joined",
    "lengths_of",
    "made",
    "taken",
]

Tree = TypeVar("Tree")

# Numbers that a chunk of examples may hold, 1 GiB in float32: memory, or calls. 2.0 GB at its peak
# in benchmarks/results/diagnosis_cpu.json, 2026-11-21; docs/decisions/diagnosis-examples.md
EXAMPLE_NUMBERS = 2**28


def chunk_size(net: tuple[Layer, ...], xs: Any, chunk: int | None) -> int:
    """How many examples are taken at a time. All chunks have this size: one compilation serves."""
    T, B, _ = xs.shape
    if chunk is None:
        # The leading axis of a weight matrix is G·H: what a step makes for one example.
        widths = [leaf.shape[0] for leaf in jax.tree.leaves(net) if leaf.ndim == 2]
        numbers = T * (xs.shape[2] + 12 * max(widths, default=1))  # coefficients, drives, states
        chunk = max(EXAMPLE_NUMBERS // numbers, 1)
    # As many chunks as `chunk` asks for, of even size: the last has few repeated examples then.
    return math.ceil(B / math.ceil(B / chunk))


def chunks(B: int, size: int) -> list[Any]:
    """The numbers of the examples in each chunk. In the last chunk some may be B or more."""
    return [np.arange(first, first + size) for first in range(0, B, size)]


def taken(rows: Any, tree: Tree, axis: int) -> Tree:
    """The examples of a chunk. For a number of B or more it repeats the last example."""
    # Data that the command maps from a file are read here, chunk by chunk, and not before.
    return jax.tree.map(
        lambda leaf: jnp.asarray(
            leaf.take(np.minimum(rows, leaf.shape[axis] - 1), axis)
            if rows[-1] >= leaf.shape[axis]
            else leaf[(slice(None),) * axis + (slice(rows[0], rows[-1] + 1),)]
        ),
        tree,
    )


def joined(B: int) -> Callable[..., Any]:
    """Chunks put together along the last axis, that of the examples in every leaf."""
    # The last chunk has repeated examples, which are cut off.
    return lambda *chunks: jnp.concatenate(chunks, axis=-1)[..., :B]


def lengths_of(rows: Any, lengths: Any) -> Any:
    """The lengths of the examples of a chunk; 0 for a number of B or more."""
    # A repeated example of length 0 adds nothing to the statistics of gates, which sum over all.
    if lengths is None:
        return None
    own = lengths[np.minimum(rows, len(lengths) - 1)]
    return jnp.asarray(np.where(rows < len(lengths), own, 0), jnp.int32)


class GivenBatch(NamedTuple):
    """What a net reads, with one batch axis.

    Attributes:
      xs: `(T, B, D)`.
      state0: A tuple of Layer, leaves `(B, H)`, or None.
      lengths: `(B,)` or None.
      resets: `(T, B)` or None.
    """

    xs: Any
    state0: State = None
    lengths: Any = None
    resets: Any = None

    def part(self, rows: Any) -> "GivenBatch":
        """The examples of a chunk."""
        xs, resets = taken(rows, (self.xs, self.resets), 1)
        return GivenBatch(xs, taken(rows, self.state0, 0), lengths_of(rows, self.lengths), resets)


@functools.partial(jax.jit, static_argnums=0)
def made(cell: Cell, net: tuple[Layer, ...], batch: GivenBatch) -> tuple[Layer, ...]:
    """`layers.runs`, compiled once for all chunks."""
    masks = {"lengths": batch.lengths, "resets": batch.resets}
    return runs(cell, net, batch.xs, batch.state0, **masks)
