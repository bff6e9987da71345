"""The part of a diagnosis that takes every example: cotangents go back through the whole net.

A cotangent is put on what a reader of the net would read: on the last output of the forward
direction, or on that of the backward direction, which stands at the first step. From there it goes
down through all layers to the inputs. A cotangent on the last output of a layer below, by itself,
tells what that layer remembers alone.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from chex import PRNGKey
from jax import Array

from jaxrnn.analysis import example_gradients
from jaxrnn.analysis.example_gradients import Swept
from jaxrnn.analysis.gate_statistics import sums
from jaxrnn.analysis.horizon import memory_horizon
from jaxrnn.cells.contract import State
from jaxrnn.diagnosis.record import Reading
from jaxrnn.nets.layers import Layer
from jaxrnn.numerics.padding import flipped
from jaxrnn.numerics.scaled import Scaled, added, rescaled
from jaxrnn.numerics.tangents import moving
from jaxrnn.running.run import Run
from jaxrnn.running.steps import Steps, linearised, trajectory

__all__ = ["Part", "measure", "reach", "sides_of"]

LOSS, END, START = range(3)  # where a cotangent is put: by the loss, or at one end


class Part(NamedTuple):
    """What a chunk of examples gives for one direction of one layer; see `LayerFlow`."""

    adjoint: Array
    contribution: Array
    gradient: Array
    bias: Array
    random_adjoint: Array | None
    random_contribution: Array | None
    own_adjoint: Array | None
    own_contribution: Array | None
    horizon_10: Array
    horizon_1: Array
    gate_sums: Any


class Taken(NamedTuple):
    """A run taken apart: its states, and its steps with their coefficients."""

    run: Run
    states: State
    steps: Steps


@functools.partial(jax.jit, static_argnums=4)
def measure(
    net: tuple[Layer, ...],
    direct: tuple[Layer, ...] | None,
    examples: Array,
    keys: Array,
    probed: bool,
) -> tuple[list[Part], tuple[Reading, ...]]:
    """A Part for each direction of each layer, and a Reading for each end that is read.

    Args:
      net: The runs that `layers.runs` gives.
      direct: ∂E/∂sₖ of each layer with all other states of the net fixed, in the time of each
        direction; None without a loss.
      examples: The numbers of the examples, `(B,)`; each number draws its own cotangents.
      keys: One key for each draw.
      probed: Whether there are random cotangents beside a loss.

    Returns:
      (a list of Part, a second direction after the first; a Reading for each end).
    """
    taken = _taken(net)
    gates = [sums(part.run, part.steps) for part in sides_of(taken)]
    taken = [Layer(*[_linearised(side) for side in layer]) for layer in taken]
    ends = _ends(net)
    kinds = [LOSS] * (direct is not None) + [end for end in ends for _ in keys] * probed
    drawn = jnp.concatenate([keys[:1]] * (direct is not None) + [keys] * len(ends) * probed)

    def one(item: tuple[Array, PRNGKey]) -> Any:
        found, inputs = _down(taken, _cotangents(taken, direct, examples, *item))
        sizes = []
        for side, swept in zip(sides_of(taken), found, strict=True):
            at = side.run, side.steps, swept
            gradient, bias = example_gradients.totals(*at)
            sizes.append((swept.adjoint, example_gradients.contributions(*at), gradient, bias))
        return sizes, inputs

    # One cotangent after the other, so that more draws take no more memory.
    items, inputs = jax.lax.map(one, (jnp.array(kinds, jnp.int32), drawn))
    own = _own(taken, examples, keys)
    parts = []
    for number, found in enumerate(items):
        end = ends[number - len(items)] if number >= len(items) - len(ends) else None
        parts.append(_part(found, kinds, end, own[number], net, gates[number]))
    by_end = [[k for k, kind in enumerate(kinds) if kind in (end, LOSS) and (
        kind == end or not probed)] for end in ends]  # fmt: skip
    lengths = net[0].forward.lengths
    readings = [_reading(_mean(inputs[jnp.array(rows)]), end, lengths)
                for rows, end in zip(by_end, ends, strict=True)]  # fmt: skip
    return parts, tuple(readings)


@jax.jit
def reach(
    net: tuple[Layer, ...], direct: tuple[Layer, ...] | None, examples: Array, keys: Array
) -> tuple[Reading, ...]:
    """The readings of `measure` alone: of the loss if `direct` is given, else at random."""
    taken = [Layer(*[_linearised(side) for side in layer]) for layer in _taken(net)]
    lengths = net[0].forward.lengths

    def one(item: tuple[Array, PRNGKey]) -> Array:
        return _down(taken, _cotangents(taken, direct, examples, *item))[1]

    if direct is not None:
        return (_reading(one((jnp.array(LOSS, jnp.int32), keys[0])), END, lengths),)
    ends = jnp.repeat(jnp.array(_ends(net), jnp.int32), len(keys))
    drawn = jnp.concatenate([keys] * len(_ends(net)))
    logs = jax.lax.map(one, (ends, drawn)).reshape(len(_ends(net)), len(keys), -1, len(examples))
    return tuple(
        _reading(_mean(own), end, lengths) for own, end in zip(logs, _ends(net), strict=True)
    )


def _reading(logs: Array, end: int, lengths: Any) -> Reading:
    """Of log ‖∂E/∂xₖ‖ in the time of the net."""
    logs = logs if end == END else flipped(logs, lengths)
    # Against the largest of the nearest tenth: the last step by itself may be one at which a
    # saturated gate lets next to nothing through, and everything would seem to reach.
    T, B = logs.shape
    ends = jnp.broadcast_to(jnp.asarray(T if lengths is None else lengths, jnp.int32), (B,))
    step = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32)[:, None], (T, B))
    near = (step < ends[None]) & (step >= (ends - -(-ends // 10))[None])
    top = jnp.where(near, logs, jnp.full_like(logs, -jnp.inf)).max(0)
    last = step == jnp.maximum(ends - 1, 0)[None]
    against = jnp.where(last, jnp.broadcast_to(top[None], (T, B)), logs)
    found = [memory_horizon(against, part, lengths=lengths) for part in (0.1, 0.01)]
    return Reading(logs, *found)


def sides_of(layers: Any) -> list[Any]:
    """What a list of Layer holds for each direction, a second one after the first."""
    return [side for layer in layers for side in layer if side is not None]


def _ends(net: tuple[Layer, ...]) -> list[int]:
    return [END] if net[-1].reverse is None else [END, START]


def _taken(net: tuple[Layer, ...]) -> list[Layer]:
    def one(run: Run | None) -> Taken | None:
        if run is None:
            return None
        states = run.states()
        return Taken(run, states, trajectory(run, states))

    return [Layer(*map(one, layer)) for layer in net]


def _linearised(side: Taken | None) -> Taken | None:
    return None if side is None else side._replace(steps=linearised(side.run, side.steps))


def _cotangents(
    taken: list[Layer], direct: Any, examples: Array, kind: Array, key: PRNGKey
) -> list[Layer]:
    """What is put on the states of each direction: ∂loss/∂sₖ, or a probe of one end; else 0."""
    top = len(taken) - 1
    found = []
    for index, layer in enumerate(taken):
        sides = []
        for number, side in enumerate(layer):
            if side is None:
                sides.append(None)
                continue
            zero = jax.tree.map(jnp.zeros_like, moving(side.states))
            cotangent = zero
            if index == top:
                own = jax.random.fold_in(key, 2 * index + number)
                probe = probes(side.states, own, examples)
                cotangent = _where(kind == (END, START)[number], probe, zero)
            if direct is not None:
                cotangent = _where(kind == LOSS, direct[index][number], cotangent)
            sides.append(cotangent)
        found.append(Layer(*sides))
    return found


def _where(mask: Array, a: Any, b: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(mask, x, y), a, b)


def _down(taken: list[Layer], direct: list[Layer]) -> tuple[list[Swept], Array]:
    """Every direction's adjoints, layers above included, and log ‖∂E/∂xₖ‖ in the net's time."""
    found: list[Swept] = []
    passed: Any = None  # ∂E/∂ of what the layer above reads
    lengths = taken[0].forward.run.lengths
    for layer, at in reversed(list(zip(taken, direct, strict=True))):
        sides, inputs = [], []
        for side, own, more in zip(layer, at, _shares(layer, passed, lengths), strict=True):
            if side is not None:
                swept = example_gradients.swept(side.run, side.steps, _with(own, more))
                sides.append(swept)
                inputs.append(example_gradients.to_each_input(side.run, side.steps, swept))
        found = sides + found
        passed = inputs[0]
        if layer.reverse is not None:
            passed = added(passed, jax.tree.map(lambda leaf: flipped(leaf, lengths), inputs[1]))
    return found, example_gradients.log_size(passed)


def _shares(layer: Layer, passed: Scaled | None, lengths: Any) -> list[Scaled | None]:
    """What of the adjoint passed down goes to each direction's output, in that one's time."""
    if passed is None or layer.reverse is None:
        return [passed, None]
    size = layer.forward.states.h.shape[-1]
    forward, reverse = passed.value[..., :size], passed.value[..., size:]
    turned = [flipped(leaf, lengths) for leaf in (reverse, passed.exponent)]
    return [Scaled(forward, passed.exponent), Scaled(*turned)]


def _with(own: State, more: Scaled | None) -> Any:
    """A cotangent, and what the layer above passes down to the output."""
    if more is None:
        return own
    first = rescaled(own, jnp.zeros_like(more.exponent))
    rest = jax.tree.map(jnp.zeros_like, first.value)
    return added(first, Scaled(rest._replace(h=more.value), more.exponent))


def _own(taken: list[Layer], examples: Array, keys: Array) -> list[Any]:
    """(adjoint, contribution) of each direction below the last layer, probed by itself."""
    sides = [(2 * index + number, side) for index, layer in enumerate(taken)
             for number, side in enumerate(layer) if side is not None]  # fmt: skip
    lower = [(number, side) for number, side in sides if number < 2 * (len(taken) - 1)]
    if not lower:
        return [None] * len(sides)

    def one(key: PRNGKey) -> Any:
        found = []
        for number, side in lower:
            probe = probes(side.states, jax.random.fold_in(key, number), examples)
            swept = example_gradients.swept(side.run, side.steps, probe)
            sizes = example_gradients.contributions(side.run, side.steps, swept)
            found.append((swept.adjoint, sizes))
        return found

    found = [(_mean(a), _mean(c)) for a, c in jax.lax.map(one, keys)]
    return found + [None] * (len(sides) - len(lower))


def _part(
    items: Any, kinds: list[int], end: int | None, own: Any, net: tuple[Layer, ...], gates: Any
) -> Part:
    """One direction; `end` is where it is read, if it is of the last layer."""
    probed = kinds[-1] != LOSS
    of_loss = [leaf[0] for leaf in items] if kinds[0] == LOSS else None
    at_random = None
    if probed:
        # A direction of the last layer has a gradient only from the end where it is read.
        rows = [k for k, kind in enumerate(kinds) if kind != LOSS and end in (None, kind)]
        drawn = [leaf[jnp.array(rows)] for leaf in items]
        at_random = [*map(_mean, drawn[:3]), drawn[3].mean(0)]
    first: Any = at_random if of_loss is None else of_loss
    last: Any = of_loss if at_random is None else at_random
    apart = last[:2] if first is not last else (None, None)
    alone = last[1] if own is None else own[1]
    lengths = net[0].forward.lengths
    horizons = [memory_horizon(alone, part, lengths=lengths) for part in (0.1, 0.01)]
    return Part(
        adjoint=first[0],
        contribution=first[1],
        gradient=first[2],
        bias=last[3],
        random_adjoint=apart[0],
        random_contribution=apart[1],
        own_adjoint=None if own is None else own[0],
        own_contribution=None if own is None else own[1],
        horizon_10=horizons[0],
        horizon_1=horizons[1],
        gate_sums=gates,
    )


def probes(states: State, key: PRNGKey, examples: Array) -> State:
    """Unit random cotangents on the last output, 0 on all else; each example has its own.

    The output is the leaf h. A state without one is its own output.
    """
    zero = jax.tree.map(jnp.zeros_like, moving(states))
    named = hasattr(states, "h")
    outputs = [zero.h] if named else jax.tree.leaves(zero)

    # By the number of the example, so that it gets the same cotangent in whatever chunk it is.
    def one(example: Array) -> list[Array]:
        own = jax.random.fold_in(key, example)
        keys = [own] if named else list(jax.random.split(own, len(outputs)))
        drawn = [jax.random.normal(k, leaf.shape[2:], leaf.dtype)
                 for k, leaf in zip(keys, outputs, strict=True)]  # fmt: skip
        size = jnp.linalg.norm(jnp.concatenate([leaf.ravel() for leaf in drawn]))
        return [leaf / size for leaf in drawn]

    # States are held through padding: the last row of each example is its own last output.
    made = [leaf.at[-1].set(last) for leaf, last in zip(outputs, jax.vmap(one)(examples),
                                                        strict=True)]  # fmt: skip
    return zero._replace(h=made[0]) if named else jax.tree.structure(zero).unflatten(made)


def _mean(logs: Array) -> Array:
    """The mean of the norms over the draws, as a log."""
    # A norm itself may be beyond the dtype, so its exp is never taken; and a mean of the logs would
    # be -inf if a single draw fades to 0.
    count = jnp.asarray(logs.shape[0], logs.dtype)
    return jax.scipy.special.logsumexp(logs, axis=0) - jnp.log(count)
