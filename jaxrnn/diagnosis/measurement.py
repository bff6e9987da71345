"""The part of a diagnosis that takes every example: one jitted pass over a chunk of a batch."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from chex import PRNGKey
from jax import Array

from jaxrnn.cell import Cell
from jaxrnn.example_gradients import ExampleGradients, example_gradients
from jaxrnn.gate_statistics import sums
from jaxrnn.horizon import memory_horizon
from jaxrnn.layers import Layer, Reading, readings
from jaxrnn.linearisation import linearised, trajectory
from jaxrnn.unrolling import unroll

__all__ = ["Part", "first_nonfinite", "measure"]


class Part(NamedTuple):
    """What a chunk of examples gives for one direction of one layer; see `LayerFlow`."""

    adjoint: Array
    contribution: Array
    gradient: Array
    horizon_10: Array
    horizon_1: Array
    bias: Array
    random_adjoint: Array | None
    random_contribution: Array | None
    gate_sums: Any


@functools.partial(jax.jit, static_argnums=(0, 6))
def measure(
    cell: Cell,
    net: tuple[Layer, ...],
    xs: Array,
    lengths: Array | None,
    direct: tuple[Layer, ...] | None,
    examples: Array,
    probed: bool,
    keys: Array,
) -> list[Part]:
    """Every direction of every layer.

    Args: direct: ∂E/∂sₖ at fixed other states of its layer, in own time, or None; probed: whether
          horizon and bias are those of random cotangents; examples: the numbers `(B,)` that make
          each example's cotangents its own; keys: one for each draw.
    """
    read = readings(cell, net, xs, lengths=lengths)
    found = []
    for index, (layer, at) in enumerate(
        zip(read, direct or [Layer(None)] * len(read), strict=True)
    ):
        for side, reading in enumerate(layer):
            if reading is not None:
                own = jax.vmap(lambda key, n=2 * index + side: jax.random.fold_in(key, n))(keys)
                found.append(_measured(cell, reading, lengths, at[side], examples, probed, own))
    return found


def _measured(
    cell: Cell,
    reading: Reading,
    lengths: Array | None,
    direct: Any,
    examples: Array,
    probed: bool,
    keys: Array,
) -> Part:
    states = unroll(cell, *reading, lengths=lengths)
    steps = trajectory(cell, reading.params, reading.xs, reading.state0, states, lengths, None)
    gate_sums = sums(cell, reading.params, steps)
    steps = linearised(cell, reading.params, steps)
    of_loss = by_probes = None
    if direct is not None:
        of_loss = example_gradients(cell, reading.params, steps, direct, lengths)
    if probed:
        by_probes = _averaged(
            jax.lax.map(
                lambda key: example_gradients(
                    cell, reading.params, steps, _probes(states, key, examples), lengths
                ),
                keys,
            )
        )
    first: Any = by_probes if of_loss is None else of_loss
    last: Any = of_loss if by_probes is None else by_probes
    horizons = [memory_horizon(last.contribution, part, lengths=lengths) for part in (0.1, 0.01)]
    apart = (None, None) if first is last else (last.adjoint, last.contribution)
    return Part(
        first.adjoint,
        first.contribution,
        first.gradient,
        horizons[0],
        horizons[1],
        last.bias,
        apart[0],
        apart[1],
        gate_sums,
    )


def _probes(states: Any, key: PRNGKey, examples: Array) -> Any:
    """Unit random cotangents on the last output, 0 on all else; each example has its own."""

    def one(example: Array) -> Array:
        u = jax.random.normal(jax.random.fold_in(key, example), states.h.shape[2:], states.h.dtype)
        return u / jnp.linalg.norm(u)

    zero = jax.tree.map(jnp.zeros_like, states)
    return zero._replace(h=zero.h.at[-1].set(jax.vmap(one)(examples)))


def _averaged(draws: ExampleGradients) -> ExampleGradients:
    """Mean of the norms, not of their logs."""

    def mean(logs: Array) -> Array:
        count = jnp.asarray(logs.shape[0], logs.dtype)
        return jax.scipy.special.logsumexp(logs, axis=0) - jnp.log(count)

    return ExampleGradients(
        mean(draws.adjoint), mean(draws.contribution), mean(draws.gradient), draws.bias.mean(0)
    )


@functools.partial(jax.jit, static_argnums=0)
def first_nonfinite(
    cell: Cell, net: tuple[Layer, ...], xs: Array, lengths: Array | None
) -> tuple[Array, Array]:
    """(step, where) of the first number that is none, `(B,)` each; -1 for none.

    where: 0 for the input, else 1 + the number of the direction, whose own step it is. What the
    input or a layer below has caused is not counted again.
    """
    T = xs.shape[0]
    read = readings(cell, net, xs, lengths=lengths)
    seen = [_first(xs, lengths)]
    for layer in read:
        for reading in layer:
            if reading is not None:
                states = unroll(cell, *reading, lengths=lengths)
                steps = [_first(leaf, lengths) for leaf in jax.tree.leaves(states)]
                seen.append(jnp.min(jnp.stack(steps), axis=0))
    where, step = jnp.full_like(seen[0], -1), jnp.full_like(seen[0], -1)
    for index, at in reversed(list(enumerate(seen))):
        where = jnp.where(at < T, jnp.full_like(where, index), where)
        step = jnp.where(at < T, at, step)
    return step, where


def _first(leaf: Array, lengths: Array | None) -> Array:
    """The first step that is not finite, T if all are; padding does not count."""
    T = leaf.shape[0]
    bad = ~jnp.isfinite(leaf).all(-1)
    step = jnp.arange(T, dtype=jnp.int32)[:, None]
    if lengths is not None:
        bad &= step < lengths[None].astype(jnp.int32)
    none = jnp.full(bad.shape, T, jnp.int32)
    return jnp.where(bad, jnp.broadcast_to(step, bad.shape), none).min(0, initial=T)
