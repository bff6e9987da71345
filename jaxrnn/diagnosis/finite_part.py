"""The part of each sequence before its first NaN or inf."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrnn.cells.contract import Cell
from jaxrnn.diagnosis.batches import GivenBatch, chunks, made
from jaxrnn.nets.layers import Layer
from jaxrnn.numerics.tangents import moving

__all__ = ["finite_lengths"]


def finite_lengths(
    cell: Cell, net: tuple[Layer, ...], batch: GivenBatch, size: int
) -> tuple[Any, Any, Any]:
    """Lengths up to the first NaN or inf, the step of it, and where it was seen; -1 for none.

    A backward direction starts at the last step. Once a sequence is cut, it starts elsewhere and
    may meet another NaN or inf. So the search is repeated until it finds none.
    """
    T, B, _ = batch.xs.shape
    step, source = np.full(B, -1, np.int32), np.full(B, -1, np.int32)
    # The last chunk repeats an example, and only a length of 0 says that it does not count.
    if B % size and batch.lengths is None:
        batch = batch._replace(lengths=np.full(B, T, np.int32))
    while True:
        seen = [first_nonfinite(made(cell, net, batch.part(rows))) for rows in chunks(B, size)]
        now, where = (np.concatenate([np.asarray(s[i]) for s in seen])[:B] for i in (0, 1))
        if (where < 0).all():
            return batch.lengths, step, source
        step, source = np.where(where < 0, step, now), np.where(where < 0, source, where)
        # Every pass shortens at least one sequence, so that the loop ends.
        full = np.full(B, T, np.int32) if batch.lengths is None else batch.lengths
        batch = batch._replace(lengths=np.where(where < 0, full, now))


@jax.jit
def first_nonfinite(net: tuple[Layer, ...]) -> tuple[Array, Array]:
    """(step, where) of the first NaN or inf, `(B,)` each; -1 for none.

    where: 0 for the input, else 1 + the number of the direction; `step` is in the time of that
    direction. NaN or inf that comes from the input or from a layer below is not counted again.
    """
    xs, lengths = net[0].forward.xs, net[0].forward.lengths
    T = xs.shape[0]
    seen = [_first(xs, lengths)]
    for layer in net:
        for run in layer:
            if run is not None:
                steps = [_first(leaf, lengths) for leaf in jax.tree.leaves(moving(run.states()))]
                seen.append(jnp.min(jnp.stack(steps), axis=0))
    where, step = jnp.full_like(seen[0], -1), jnp.full_like(seen[0], -1)
    # Backward, so that the input and lower layers, which cause what is above, overwrite the rest.
    for index, at in reversed(list(enumerate(seen))):
        where = jnp.where(at < T, jnp.full_like(where, index), where)
        step = jnp.where(at < T, at, step)
    return step, where


def _first(leaf: Array, lengths: Array | None) -> Array:
    """The first step with NaN or inf, T if there is none; padding does not count."""
    T = leaf.shape[0]
    bad = ~jnp.isfinite(leaf).all(-1)
    step = jnp.arange(T, dtype=jnp.int32)[:, None]
    # A held state repeats the last one, and inputs in the padding may well be NaN.
    if lengths is not None:
        bad &= step < lengths[None].astype(jnp.int32)
    none = jnp.full(bad.shape, T, jnp.int32)
    return jnp.where(bad, jnp.broadcast_to(step, bad.shape), none).min(0, initial=T)
