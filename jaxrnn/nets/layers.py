"""Nets of several layers, in one direction or both, of one kind of cell.

    layer l reads what layer l-1 puts out; a layer of two directions puts out (h→, h←) side by side

The second direction reads each sequence from its own end, whatever its length, and is aligned
with the first: entry i of both follows xs[i]. So is what belongs to it: its Jacobian i is
∂sᵢ/∂sᵢ₊₁.

`runs` gives each direction of each layer as a `jaxrnn.Run`, in its own time. With it all else of
the library serves: `jaxrnn.products`, `jaxrnn.lyapunov` and others of one layer of many.
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
from jaxrnn.numerics.time_axis import flipped
from jaxrnn.running.run import Run

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
    """What a layer has for each direction: params, or states; reverse None without a second one."""

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
        sᵢˡ = step(θˡ, sᵢ₊₁ˡ, xᵢˡ)        of the second direction

    Args:    cell: any `Cell`, of every layer and direction.
             layers: a Layer of params each; D of a layer is H of the one before, 2H if that has two
             directions.
             xs: `(T, *batch, D)`.
             state0: a Layer of states each, leaves `(*batch, H)`, or None.
             lengths: as in `jaxrnn.unroll`: beyond them states are held.
             resets: as in `jaxrnn.unroll`: True says that a sequence begins at that step. The
             second direction starts afresh where one ends, at the step before.
    Returns: a Layer of states each, leaves `(T, *batch, H)`; entry i of both directions follows
             xs[i].
    Raises:  TypeError or ValueError naming the layer that does not fit.
    Cost:    one `unroll` for each layer and direction.
    Source:  Schuster & Paliwal, IEEE Trans. Signal Processing 45, 1997, for two directions.

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

        xˡ = (h→, h←) of layer l-1, x¹ = xs; for the second direction turned round within lengths

    Args:    as `unroll_layers`.
    Returns: a Layer of Run each, reverse None without a second direction; each in its own time, so
             that `layer.reverse.states()` begins at the end of each sequence.
    Raises:  as `unroll_layers`.
    Cost:    as `unroll_layers` without the last layer.
    Source:  as `unroll_layers`.

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
            if found:
                xs = outputs([_states(found[-1])])
            forward = Run(cell, layer.forward, xs, first.forward, **masks)
            reverse = None
            if layer.reverse is not None:
                turned = {"lengths": lengths, "resets": _turned_resets(resets, lengths)}
                reverse = Run(cell, layer.reverse, flipped(xs, lengths), first.reverse, **turned)
        except (TypeError, ValueError) as error:
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
    after = jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])])[: resets.shape[0]]
    return flipped(after, lengths)


def adjoints(runs: Sequence[Layer], loss: Loss) -> tuple[Layer, ...]:
    """∂E/∂sₖ of every layer and direction: later states of its own follow, and all layers above.

        λₖˡ = ∂E/∂sₖˡ|direct + (Jₖ₊₁ˡ)ᵀ λₖ₊₁ˡ + (∂sˡ⁺¹/∂hₖˡ)ᵀ λˡ⁺¹        of layer l

    Args:    runs: what `jaxrnn.layers.runs` gives; the layers above the first read again what those
             below put out, so that a derivative by any params is whole.
             loss: what `unroll_layers` returns ↦ one real scalar E.
    Returns: the tree of the states, each aligned with them.
    Raises:  as `unroll_layers`, or naming `runs` or `loss`.
    Cost:    about two gradients of the net.
    Source:  tests/nets/test_layers.py, against autodiff of a copy of every state.

    >>> import jax, jaxrnn
    >>> cell, (k1, k2) = jaxrnn.gru(), jax.random.split(jax.random.key(0))
    >>> net = [jaxrnn.layers.Layer(cell.init(k1, 3, 5)), jaxrnn.layers.Layer(cell.init(k2, 5, 4))]
    >>> runs = jaxrnn.layers.runs(cell, net, jax.numpy.ones((7, 2, 3)))
    >>> last = lambda states: jaxrnn.layers.outputs(states)[-1].sum()
    >>> [layer.forward.h.shape for layer in jaxrnn.layers.adjoints(runs, last)]
    [(7, 2, 5), (7, 2, 4)]
    """
    found = []
    for layer, at in zip(*direct_adjoints(runs, loss), strict=True):
        reverse = None
        if layer.reverse is not None:
            back = bptt.adjoints(layer.reverse, _linear(at.reverse))
            reverse = _turned(back, layer.reverse.lengths)
        found.append(Layer(bptt.adjoints(layer.forward, _linear(at.forward)), reverse))
    return tuple(found)


def direct_adjoints(
    runs: Sequence[Layer], loss: Loss
) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """(runs, ∂E/∂sₖ at fixed other states of its own layer), both in each direction's own time.

        ḡₖˡ = ∂E/∂sₖˡ|direct + (∂sˡ⁺¹/∂hₖˡ)ᵀ λˡ⁺¹        λₖˡ = ḡₖˡ + (Jₖ₊₁ˡ)ᵀ λₖ₊₁ˡ

    What the loss reads of a layer, and what the layers above pass on: with the runs, a loss on each
    layer alone.

    Args:    as `adjoints`.
    Returns: (the runs, made again from the first layer on; a Layer of ḡ each).
    Raises:  as `adjoints`.
    Cost:    about a gradient of the net.
    Source:  as `adjoints`.

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
    for index in range(len(runs) - 1, 0, -1):
        above = _passed_down(runs[index], direct[index])
        own = direct[index - 1]
        if own.reverse is None:
            parts = [above]
        else:
            parts = jnp.split(above, [own.forward.h.shape[-1]], axis=-1)
        sides = [
            None if side is None else side._replace(h=side.h + part)
            for side, part in zip(own, [*parts, None], strict=False)
        ]
        direct[index - 1] = Layer(*sides)
    lengths = runs[0].forward.lengths
    turned = [
        d if d.reverse is None else d._replace(reverse=_turned(d.reverse, lengths)) for d in direct
    ]
    return runs, tuple(turned)


def state_jacobians(runs: Sequence[Layer]) -> tuple[Layer, ...]:
    """Every layer's ∂sᵢ/∂sᵢ₋₁, of the second direction ∂sᵢ/∂sᵢ₊₁, in closed form.

        Jᵢˡ = ∂sᵢˡ/∂sᵢ₋₁ˡ at fixed xᵢˡ, the blocks of `jaxrnn.jacobians.closed_form`

    Args:    runs: what `jaxrnn.layers.runs` gives.
    Returns: for each direction the tree of `jaxrnn.jacobians.closed_form`, aligned with the states.
    Raises:  as `unroll_layers`, or naming `runs`.
    Cost:    two `unroll_layers`, then O(T·B·G·H²) a direction: about one write of the result.
    Source:  as `jaxrnn.jacobians.closed_form`; tests/nets/test_layers.py.

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
    """The runs, each layer reading what those below put out now.

    A run of an upper layer holds what was below when it was made: differentiated, or given other
    params, it would leave out the rest of the net in silence.
    """
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
    first = made[0].forward

    def each(name: str) -> list[Layer]:
        sides = [[None if run is None else getattr(run, name) for run in layer] for layer in made]
        return [Layer(*pair) for pair in sides]

    masks = {"lengths": first.lengths, "resets": first.resets}
    return runs(first.cell, each("params"), first.xs, each("state0"), **masks)


def _passed_down(layer: Layer, direct: Layer) -> Array:
    """The adjoint of what a layer reads, `(T, *batch, ·)`; direct is aligned with the states."""

    def one(run: Run, direct: State) -> Array:
        def states(xs: Array) -> State:
            return dataclasses.replace(run, xs=xs).states()

        return jax.vjp(states, run.xs)[1](direct)[0]

    found = one(layer.forward, direct.forward)
    if layer.reverse is None:
        return found
    lengths = layer.reverse.lengths
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

    Args:    states: a Layer of states each, as `unroll_layers` returns them.
    Returns: `(T, *batch, H)` or, of two directions, `(T, *batch, 2H)`; entry i follows xs[i].
    Raises:  nothing of its own; states are not checked.
    Cost:    none for one direction, one copy of `(T, *batch, 2H)` for two.
    Source:  this library.

    >>> import jax.numpy as jnp, jaxrnn
    >>> states = jaxrnn.RNNState(jnp.zeros((7, 2, 5)))
    >>> outputs([Layer(states, states)]).shape
    (7, 2, 10)
    """
    forward, reverse = states[-1]
    return forward.h if reverse is None else jnp.concatenate([forward.h, reverse.h], axis=-1)


def _check_layers(name: str, layers: Any) -> None:
    if not isinstance(layers, list | tuple) or isinstance(layers, Layer) or not layers:
        raise TypeError(f"{name}: expected a list of Layer, got {_checks.describe(layers)}")
    for index, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise TypeError(
                f"{name}[{index}]: expected a Layer(forward, reverse), got "
                f"{_checks.describe(layer)}"
            )
