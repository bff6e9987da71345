"""The part of a diagnosis that takes every example: one jitted pass over a chunk of a batch."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from chex import PRNGKey
from jax import Array

from jaxrnn.analysis.example_gradients import ExampleGradients, example_gradients
from jaxrnn.analysis.gate_statistics import sums
from jaxrnn.analysis.horizon import memory_horizon
from jaxrnn.cells.contract import State
from jaxrnn.nets.layers import Layer
from jaxrnn.running.run import Run
from jaxrnn.running.steps import linearised, trajectory

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


@functools.partial(jax.jit, static_argnums=4)
def measure(
    net: tuple[Layer, ...],
    direct: tuple[Layer, ...] | None,
    examples: Array,
    keys: Array,
    probed: bool,
) -> list[Part]:
    """A Part for each direction of each layer.

    Args:
      net: The runs that `layers.runs` gives.
      direct: ∂E/∂sₖ of each layer, the other states of that layer fixed, in the time of each
        direction; None without a loss.
      examples: The numbers of the examples, `(B,)`; each number draws its own cotangents.
      keys: One key for each draw.
      probed: Whether horizon and bias are those of random cotangents.

    Returns:
      A list of Part, a second direction after the first.
    """
    found = []
    for index, (layer, at) in enumerate(zip(net, direct or [Layer(None)] * len(net), strict=True)):
        for side, run in enumerate(layer):
            if run is not None:
                # A number for each direction, or all would be probed with the same cotangents.
                own = jax.vmap(lambda key, n=2 * index + side: jax.random.fold_in(key, n))(keys)
                found.append(_measured(run, at[side], examples, own, probed))
    return found


def _measured(run: Run, direct: State, examples: Array, keys: Array, probed: bool) -> Part:
    states = run.states()
    steps = trajectory(run, states)
    gate_sums = sums(run, steps)
    steps = linearised(run, steps)
    of_loss = by_probes = None
    if direct is not None:
        of_loss = example_gradients(run, steps, direct)
    if probed:
        probe = lambda key: example_gradients(run, steps, _probes(states, key, examples))  # noqa: E731
        # One draw after the other, so that more draws take no more memory.
        by_probes = _averaged(jax.lax.map(probe, keys))
    # `first` is what was asked for; `last` is what lags, horizons and biases can be counted from.
    first: Any = by_probes if of_loss is None else of_loss
    last: Any = of_loss if by_probes is None else by_probes
    lengths = run.lengths
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


def _probes(states: State, key: PRNGKey, examples: Array) -> State:
    """Unit random cotangents on the last output, 0 on all else; each example has its own."""

    # By the number of the example, so that it gets the same cotangent in whatever chunk it is.
    def one(example: Array) -> Array:
        u = jax.random.normal(jax.random.fold_in(key, example), states.h.shape[2:], states.h.dtype)
        return u / jnp.linalg.norm(u)

    # States are held through padding: the last row of each example is its own last output.
    zero = jax.tree.map(jnp.zeros_like, states)
    return zero._replace(h=zero.h.at[-1].set(jax.vmap(one)(examples)))


def _averaged(draws: ExampleGradients) -> ExampleGradients:
    """The mean of the norms over the draws, as a log."""

    # A norm itself may be beyond the dtype, so its exp is never taken; and a mean of the logs would
    # be -inf if a single draw fades to 0.
    def mean(logs: Array) -> Array:
        count = jnp.asarray(logs.shape[0], logs.dtype)
        return jax.scipy.special.logsumexp(logs, axis=0) - jnp.log(count)

    return ExampleGradients(
        mean(draws.adjoint), mean(draws.contribution), mean(draws.gradient), draws.bias.mean(0)
    )


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
                steps = [_first(leaf, lengths) for leaf in jax.tree.leaves(run.states())]
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
