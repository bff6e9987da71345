"""Nets of several layers, in one direction or both, of one kind of cell.

    layer l reads what layer l-1 puts out; a layer of two directions puts out (h→, h←) side by side

The backward direction reads each sequence from its own end, whatever its length. Its results are
aligned with those of the forward direction: entry i of both follows xs[i]. Entry i of its Jacobians
is therefore ∂sᵢ/∂sᵢ₊₁.

`runs` gives each direction of each layer as a `jaxrnn.Run`, in its own time. Every analysis takes
such a run, so `jaxrnn.products`, `jaxrnn.lyapunov` and others work on one layer of many.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from chex import ArrayTree
from jax import Array

from jaxrnn import _checks
from jaxrnn.analysis import bptt, jacobians
from jaxrnn.cells.contract import Cell, Loss, State
from jaxrnn.numerics.padding import flipped
from jaxrnn.running.run import Run, first_checked

__all__ = [
    "Layer",
    "adjoints",
    "direct_adjoints",
    "outputs",
    "runs",
    "state_jacobians",
    "unroll_layers",
]


class Layer(NamedTuple):
    """What a layer has for each direction: params, states, runs or adjoints.

    Attributes:
      forward: That of the forward direction.
      reverse: That of the backward direction, None where the layer has one direction.
    """

    forward: Any
    reverse: Any = None


def unroll_layers(
    cell: Cell,
    layers: Sequence[Layer],
    xs: Array,
    state0: Sequence[Layer] | None = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
) -> tuple[Layer, ...]:
    """The states of every layer.

        sᵢˡ = step(θˡ, sᵢ₋₁ˡ, xᵢˡ)        xˡ = (h→, h←) of layer l-1, x¹ = xs
        sᵢˡ = step(θˡ, sᵢ₊₁ˡ, xᵢˡ)        of the backward direction

    Args:
      cell: Any `Cell`; the same for every layer and direction.
      layers: A list of Layer of params. D of a layer is H of the layer below, or 2H if that has two
        directions.
      xs: Inputs, `(T, *batch, D)`.
      state0: A list of Layer of states, leaves `(*batch, H)`, as long as `layers`. By default each
        direction starts from `cell.init_state`.
      lengths: As in `jaxrnn.unroll`: beyond them states are held.
      resets: As in `jaxrnn.unroll`: True says that a sequence begins at that step. The backward
        direction starts afresh at the step before, where the earlier sequence ends.

    Returns:
      A tuple of Layer of states, leaves `(T, *batch, H)`; entry i of both directions follows xs[i].

    Raises:
      TypeError: If an argument is of the wrong kind; the message names the layer that does not fit.
      ValueError: If a shape or a value does not fit; the message names the layer.

    Cost:
      One `unroll` for each layer and direction.

    Source:
      Schuster & Paliwal, IEEE Trans. Signal Processing 45, 1997, for two directions.

    >>> import jax, jaxrnn
    >>> cell, (k1, k2) = jaxrnn.gru(), jax.random.split(jax.random.key(0))
    >>> both = jaxrnn.layers.Layer(cell.init(k1, 3, 5), cell.init(k2, 3, 5))
    >>> states = jaxrnn.layers.unroll_layers(cell, [both], jax.numpy.ones((7, 2, 3)))
    >>> jaxrnn.layers.outputs(states).shape
    (7, 2, 10)
    """
    made = runs(cell, layers, xs, state0, lengths=lengths, resets=resets)
    return tuple(_states(layer) for layer in made)


def runs(
    cell: Cell,
    layers: Sequence[Layer],
    xs: Array,
    state0: Sequence[Layer] | None = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
) -> tuple[Layer, ...]:
    """A `jaxrnn.Run` for each direction of each layer, given the layers below.

        xˡ = (h→, h←) of layer l-1, x¹ = xs; for the backward direction turned round within lengths

    Args:
      cell: Any `Cell`; the same for every layer and direction.
      layers: A list of Layer of params. D of a layer is H of the layer below, or 2H if that has two
        directions.
      xs: Inputs, `(T, *batch, D)`.
      state0: A list of Layer of states, leaves `(*batch, H)`, as long as `layers`. By default each
        direction starts from `cell.init_state`.
      lengths: As in `jaxrnn.unroll`: beyond them states are held.
      resets: As in `jaxrnn.unroll`: True says that a sequence begins at that step. The backward
        direction starts afresh at the step before, where the earlier sequence ends.

    Returns:
      A tuple of Layer of Run, reverse None where a layer has one direction. Each run is in its own
      time: `layer.reverse.states()` begins at the end of each sequence.

    Raises:
      TypeError: If an argument is of the wrong kind; the message names the layer that does not fit.
      ValueError: If a shape or a value does not fit; the message names the layer.

    Cost:
      One `unroll` for each layer and direction below the last layer.

    Source:
      Schuster & Paliwal, IEEE Trans. Signal Processing 45, 1997, for two directions.

    >>> import jax, jaxrnn
    >>> cell, (k1, k2) = jaxrnn.lstm(), jax.random.split(jax.random.key(0))
    >>> net = [jaxrnn.layers.Layer(cell.init(k1, 3, 5)), jaxrnn.layers.Layer(cell.init(k2, 5, 4))]
    >>> found = jaxrnn.layers.runs(cell, net, jax.numpy.ones((7, 2, 3)))
    >>> jaxrnn.lyapunov.exponents(found[1].forward, count=2).value.shape
    (2, 2)
    """
    _check_layers("layers", layers)
    if state0 is not None:
        _check_layers("state0", state0)
        if len(state0) != len(layers):
            raise ValueError(f"state0: expected {len(layers)} layers, got {len(state0)}")
    masks = {"lengths": lengths, "resets": resets}
    found: list[Layer] = []
    for index, layer in enumerate(layers):
        first = Layer(None) if state0 is None else state0[index]
        try:
            # Unrolled only when a layer above reads it; the last layer is never unrolled here.
            if found:
                xs = outputs([_states(found[-1])])
            forward = Run(cell, layer.forward, xs, first.forward, **masks)
            reverse = None
            if layer.reverse is not None:
                # Turned within the lengths: padding has to stay at the end, where a run holds its
                # state.
                turned = {"lengths": lengths, "resets": _turned_resets(resets, lengths)}
                reverse = Run(cell, layer.reverse, flipped(xs, lengths), first.reverse, **turned)
        except (TypeError, ValueError) as error:
            # The message of the run names the argument. All that it cannot know is the layer's
            # number.
            raise type(error)(f"layers[{index}]: {error}") from error
        found.append(Layer(forward, reverse))
    return tuple(found)


def _states(layer: Layer) -> Layer:
    """States of a Layer of runs, both directions aligned with the inputs."""
    reverse = None
    if layer.reverse is not None:
        reverse = _turned(layer.reverse.states(), layer.reverse.lengths)
    return Layer(layer.forward.states(), reverse)


def _turned_resets(resets: Array | None, lengths: Array | None) -> Array | None:
    """Read from the end, a sequence begins at the step before one where another begins."""
    if resets is None:
        return None
    # A reset at the first step of the padding lands on the first step of the turned sequence. That
    # changes nothing, since the state there is state0 anyway.
    after = jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])])[: resets.shape[0]]
    return flipped(after, lengths)


def _check_runs(made: Any) -> None:
    """Refuse what `runs` cannot have made."""
    whole = isinstance(made, list | tuple) and not isinstance(made, Layer) and len(made) > 0
    if not whole or not all(
        isinstance(layer, Layer)
        and isinstance(layer.forward, Run)
        and (layer.reverse is None or isinstance(layer.reverse, Run))
        for layer in made
    ):
        raise TypeError(
            "runs: expected what jaxrnn.layers.runs(cell, layers, xs) gives, got "
            f"{_checks.describe(made)}"
        )


_takes_runs = first_checked(_check_runs)


@_takes_runs
def adjoints(runs: Sequence[Layer], loss: Loss) -> tuple[Layer, ...]:
    """∂E/∂sₖ of every layer and direction: its later states and all layers above follow sₖ.

        λₖˡ = ∂E/∂sₖˡ|direct + (Jₖ₊₁ˡ)ᵀ λₖ₊₁ˡ + (∂sˡ⁺¹/∂hₖˡ)ᵀ λˡ⁺¹        of layer l

    Args:
      runs: What `jaxrnn.layers.runs` gives. The layers above the first read again what those below
        put out, so that a derivative by any params is whole.
      loss: A function of what `unroll_layers` returns that gives one real number E.

    Returns:
      A tuple of Layer, the tree of the states, each entry aligned with its state.

    Raises:
      TypeError: If `runs` is not what `jaxrnn.layers.runs` gives, or `loss` is no function of the
        states to a real number. As `unroll_layers` where a run does not fit.
      ValueError: If what `loss` gives is not a scalar. As `unroll_layers` where a run does not fit.

    Cost:
      About two gradients of the net.

    >>> import jax, jaxrnn
    >>> cell, (k1, k2) = jaxrnn.gru(), jax.random.split(jax.random.key(0))
    >>> net = [jaxrnn.layers.Layer(cell.init(k1, 3, 5)), jaxrnn.layers.Layer(cell.init(k2, 5, 4))]
    >>> runs = jaxrnn.layers.runs(cell, net, jax.numpy.ones((7, 2, 3)))
    >>> last = lambda states: jaxrnn.layers.outputs(states)[-1].sum()
    >>> [layer.forward.h.shape for layer in jaxrnn.layers.adjoints(runs, last)]
    [(7, 2, 5), (7, 2, 4)]
    """
    found = []
    # `bptt.adjoints` takes a loss of one run; a linear loss hands it the direct adjoints.
    for layer, at in zip(*direct_adjoints(runs, loss), strict=True):
        reverse = None
        if layer.reverse is not None:
            back = bptt.adjoints(layer.reverse, _linear(at.reverse))
            reverse = _turned(back, layer.reverse.lengths)
        found.append(Layer(bptt.adjoints(layer.forward, _linear(at.forward)), reverse))
    return tuple(found)


@_takes_runs
def direct_adjoints(
    runs: Sequence[Layer], loss: Loss
) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """(runs, ∂E/∂sₖ with the other states of the same layer fixed), each direction in its own time.

        ḡₖˡ = ∂E/∂sₖˡ|direct + (∂sˡ⁺¹/∂hₖˡ)ᵀ λˡ⁺¹        λₖˡ = ḡₖˡ + (Jₖ₊₁ˡ)ᵀ λₖ₊₁ˡ

    ḡ is what the loss reads of a layer, and what the layers above pass down to it. With ḡ and the
    runs each layer can be analysed by itself, as if it had a loss of its own.

    Args:
      runs: What `jaxrnn.layers.runs` gives. The layers above the first read again what those below
        put out, so that a derivative by any params is whole.
      loss: As in `adjoints`.

    Returns:
      A pair (the runs, made again from the first layer up; a tuple of Layer of ḡ).

    Raises:
      TypeError: As `adjoints`.
      ValueError: As `adjoints`.

    Cost:
      About a gradient of the net.

    >>> import jax, jaxrnn
    >>> cell, net = jaxrnn.gru(), [Layer(jaxrnn.gru().init(jax.random.key(0), 3, 5))]
    >>> made = runs(cell, net, jax.numpy.ones((7, 3)))
    >>> last = lambda states: outputs(states)[-1].sum()
    >>> direct_adjoints(made, last)[1][0].forward.h.sum(1).tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0]
    """
    runs = _again(runs)
    states = tuple(_states(layer) for layer in runs)
    _checks.check_callable("loss", loss, "(states of every layer) -> scalar")
    _checks.check_loss("loss", loss, states, ())
    direct = list(jax.grad(loss)(states))
    # From the top down: a layer passes on its whole adjoint, so what comes from above it has to be
    # in `direct[index]` first.
    for index in range(len(runs) - 1, 0, -1):
        above = _passed_down(runs[index], direct[index])
        own = direct[index - 1]
        if own.reverse is None:
            parts = [above]
        else:
            # The layer above reads h→ and h← side by side.
            parts = jnp.split(above, [own.forward.h.shape[-1]], axis=-1)
        sides = [
            # Of a state, the layer above reads h alone.
            None if side is None else side._replace(h=side.h + part)
            for side, part in zip(own, [*parts, None], strict=False)
        ]
        direct[index - 1] = Layer(*sides)
    # The loss saw aligned states; a run of the backward direction has its own time.
    lengths = runs[0].forward.lengths
    turned = [
        d if d.reverse is None else d._replace(reverse=_turned(d.reverse, lengths)) for d in direct
    ]
    return runs, tuple(turned)


@_takes_runs
def state_jacobians(runs: Sequence[Layer]) -> tuple[Layer, ...]:
    """∂sᵢ/∂sᵢ₋₁ of every layer, of the backward direction ∂sᵢ/∂sᵢ₊₁, in closed form.

        Jᵢˡ = ∂sᵢˡ/∂sᵢ₋₁ˡ at fixed xᵢˡ, the blocks of `jaxrnn.jacobians.closed_form`

    Args:
      runs: What `jaxrnn.layers.runs` gives. The layers above the first read again what those below
        put out, so that a derivative by any params is whole.

    Returns:
      For each direction of each layer the tree of `jaxrnn.jacobians.closed_form`, aligned with the
      states.

    Raises:
      TypeError: If `runs` is not what `jaxrnn.layers.runs` gives. As `unroll_layers` where a run
        does not fit.
      ValueError: As `unroll_layers`.

    Cost:
      Two `unroll_layers`, then O(T·B·G·H²) for each direction: about one write of the result.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> net = [jaxrnn.layers.Layer(cell.init(jax.random.key(0), 3, 5))]
    >>> runs = jaxrnn.layers.runs(cell, net, jax.numpy.ones((7, 2, 3)))
    >>> jaxrnn.layers.state_jacobians(runs)[0].forward.c.h.shape
    (7, 2, 5, 5)
    """

    def back(run: Run | None) -> State:
        return None if run is None else _turned(jacobians.closed_form(run), run.lengths)

    return tuple(
        Layer(jacobians.closed_form(layer.forward), back(layer.reverse)) for layer in _again(runs)
    )


def _again(made: Any) -> tuple[Layer, ...]:
    """The runs, made again: each layer reads what the layers below put out now.

    A run of an upper layer holds what was below it when it was made. If it were differentiated, or
    given other params, the rest of the net would be left out without a warning.
    """
    _check_runs(made)
    first = made[0].forward

    def each(name: str) -> list[Layer]:
        sides = [[None if run is None else getattr(run, name) for run in layer] for layer in made]
        return [Layer(*pair) for pair in sides]

    # The masks of a forward run are those of the net; `runs` turns them for a backward direction.
    masks = {"lengths": first.lengths, "resets": first.resets}
    return runs(first.cell, each("params"), first.xs, each("state0"), **masks)


def _passed_down(layer: Layer, direct: Layer) -> Array:
    """The adjoint of what a layer reads, `(T, *batch, ·)`; `direct` is aligned with the states."""

    def one(run: Run, direct: State) -> Array:
        def states(xs: Array) -> State:
            return dataclasses.replace(run, xs=xs).states()

        return jax.vjp(states, run.xs)[1](direct)[0]

    found = one(layer.forward, direct.forward)
    if layer.reverse is None:
        return found
    lengths = layer.reverse.lengths
    # Into the time of the backward run and back: its inputs were the turned ones.
    return found + flipped(one(layer.reverse, _turned(direct.reverse, lengths)), lengths)


def _linear(direct: State) -> Callable[[Any], Array]:
    """The loss whose derivative by the states is `direct`."""

    def loss(states: State) -> Array:
        products = jax.tree.map(lambda s, d: jnp.sum(s * d), states, direct)
        return sum(jax.tree.leaves(products), start=jnp.zeros((), jax.tree.leaves(direct)[0].dtype))

    return loss


def _turned(tree: Any, lengths: Any) -> ArrayTree:
    return jax.tree.map(lambda leaf: flipped(leaf, lengths), tree)


def outputs(states: Sequence[Layer]) -> Array:
    """What the last layer puts out.

        hᵢ→, or (hᵢ→, hᵢ←) of two directions

    Args:
      states: A sequence of Layer of states, as `unroll_layers` returns it. It is not checked.

    Returns:
      `(T, *batch, H)`, or `(T, *batch, 2H)` of two directions; entry i follows xs[i].

    Cost:
      None for one direction, one copy of `(T, *batch, 2H)` for two.

    >>> import jax.numpy as jnp, jaxrnn
    >>> states = jaxrnn.RNNState(jnp.zeros((7, 2, 5)))
    >>> outputs([Layer(states, states)]).shape
    (7, 2, 10)
    """
    forward, reverse = states[-1]
    return forward.h if reverse is None else jnp.concatenate([forward.h, reverse.h], axis=-1)


def _check_layers(name: str, layers: Any) -> None:
    if not isinstance(layers, list | tuple) or isinstance(layers, Layer) or not layers:
        came = (
            "an empty list" if isinstance(layers, list) and not layers else _checks.describe(layers)
        )
        raise TypeError(f"{name}: expected a list of Layer, at least one, got {came}")
    for index, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise TypeError(
                f"{name}[{index}]: expected a Layer(forward, reverse), got "
                f"{_checks.describe(layer)}"
            )
