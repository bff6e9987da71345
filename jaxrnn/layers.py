"""Nets of several layers, in one direction or both, of one kind of cell.

    layer l reads what layer l-1 puts out; a layer of two directions puts out (h→, h←) side by side

The second direction reads each sequence from its own end, whatever its length, and is aligned
with the first: entry i of both follows xs[i]. So is what belongs to it: its Jacobian i is
∂sᵢ/∂sᵢ₊₁.

`readings` gives each direction of each layer as a net of one layer, in its own time. With it all
else of the library serves: `jaxrnn.products`, `jaxrnn.lyapunov` and others of one layer of many.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn import arguments, bptt, jacobians
from jaxrnn.cell import Cell
from jaxrnn.unrolling import unroll

__all__ = [
    "Layer",
    "Reading",
    "adjoints",
    "direct_adjoints",
    "outputs",
    "readings",
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
    _check_layers("layers", layers)
    if state0 is not None:
        _check_layers("state0", state0)
        if len(state0) != len(layers):
            raise ValueError(f"state0: expected {len(layers)} layers, got {len(state0)}")
    found = []
    for index, layer in enumerate(layers):
        first = Layer(None) if state0 is None else state0[index]
        try:
            forward = unroll(cell, layer.forward, xs, first.forward, lengths=lengths)
            reverse = None
            if layer.reverse is not None:
                turned = flipped(xs, lengths)
                reverse = unroll(cell, layer.reverse, turned, first.reverse, lengths=lengths)
                reverse = _turned(reverse, lengths)
        except (TypeError, ValueError) as error:
            raise type(error)(f"layers[{index}]: {error}") from error
        found.append(Layer(forward, reverse))
        xs = outputs(found)
    return tuple(found)


class Reading(NamedTuple):
    """One direction of one layer in its own time, a net of one layer: `unroll(cell, *reading)`.

    params: its own. xs: what it reads, turned round for the second direction, `(T, *batch, ·)`.
    state0: where it starts, or None.
    """

    params: Any
    xs: Array
    state0: Any


def readings(
    cell: Cell,
    layers: Sequence[Layer],
    xs: Array,
    state0: Sequence[Layer] | None = None,
    *,
    lengths: Array | None = None,
) -> tuple[Layer, ...]:
    """What each direction of each layer reads, given the layers below.

        xˡ = (h→, h←) of layer l-1, x¹ = xs; for the second direction turned round within lengths

    Args:    as `unroll_layers`.
    Returns: a Layer of `Reading` each, reverse None without a second direction; each in its own
             time, so that `unroll(cell, *reading, lengths=lengths)` gives its states.
    Raises:  as `unroll_layers`.
    Cost:    as `unroll_layers`.
    Source:  this library.

    >>> import jax, jaxrnn
    >>> cell, (k1, k2) = jaxrnn.lstm(), jax.random.split(jax.random.key(0))
    >>> net = [jaxrnn.layers.Layer(cell.init(k1, 3, 5)), jaxrnn.layers.Layer(cell.init(k2, 5, 4))]
    >>> found = jaxrnn.layers.readings(cell, net, jax.numpy.ones((7, 2, 3)))
    >>> jaxrnn.lyapunov.exponents(cell, *found[1].forward, count=2).value.shape
    (2, 2)
    """
    states = unroll_layers(cell, layers, xs, state0, lengths=lengths)
    return _readings(layers, xs, state0, states, lengths)


def _readings(
    layers: Sequence[Layer], xs: Array, state0: Any, states: Sequence[Layer], lengths: Any
) -> tuple[Layer, ...]:
    found = []
    for index, layer in enumerate(layers):
        read = xs if index == 0 else outputs(states[:index])
        first = Layer(None) if state0 is None else state0[index]
        reverse = None
        if layer.reverse is not None:
            reverse = Reading(layer.reverse, flipped(read, lengths), first.reverse)
        found.append(Layer(Reading(layer.forward, read, first.forward), reverse))
    return tuple(found)


def adjoints(
    cell: Cell,
    layers: Sequence[Layer],
    xs: Array,
    loss: Callable[[Any], Array],
    state0: Sequence[Layer] | None = None,
    *,
    lengths: Array | None = None,
) -> tuple[Layer, ...]:
    """∂E/∂sₖ of every layer and direction: later states of its own follow, and all layers above.

        λₖˡ = ∂E/∂sₖˡ|direct + (Jₖ₊₁ˡ)ᵀ λₖ₊₁ˡ + (∂sˡ⁺¹/∂hₖˡ)ᵀ λˡ⁺¹        of layer l

    Args:    loss: what `unroll_layers` returns ↦ one real scalar E; all others as there.
    Returns: the tree of the states, each aligned with them.
    Raises:  as `unroll_layers`, or naming `loss`.
    Cost:    about two gradients of the net.
    Source:  tests/test_layers.py, against autodiff of a copy of every state.

    >>> import jax, jaxrnn
    >>> cell, (k1, k2) = jaxrnn.gru(), jax.random.split(jax.random.key(0))
    >>> net = [jaxrnn.layers.Layer(cell.init(k1, 3, 5)), jaxrnn.layers.Layer(cell.init(k2, 5, 4))]
    >>> last = lambda states: jaxrnn.layers.outputs(states)[-1].sum()
    >>> found = jaxrnn.layers.adjoints(cell, net, jax.numpy.ones((7, 2, 3)), last)
    >>> [layer.forward.h.shape for layer in found]
    [(7, 2, 5), (7, 2, 4)]
    """
    read, direct = direct_adjoints(cell, layers, xs, loss, state0, lengths=lengths)

    def one(reading: Reading, direct: Any) -> Any:
        return bptt.adjoints(
            cell, reading.params, reading.xs, _linear(direct), reading.state0, lengths=lengths
        )

    found = []
    for reading, at in zip(read, direct, strict=True):
        reverse = None
        if reading.reverse is not None:
            reverse = _turned(one(reading.reverse, at.reverse), lengths)
        found.append(Layer(one(reading.forward, at.forward), reverse))
    return tuple(found)


def direct_adjoints(
    cell: Cell,
    layers: Sequence[Layer],
    xs: Array,
    loss: Callable[[Any], Array],
    state0: Sequence[Layer] | None = None,
    *,
    lengths: Array | None = None,
) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """(readings, ∂E/∂sₖ at fixed other states of its own layer), both in each direction's own time.

        ḡₖˡ = ∂E/∂sₖˡ|direct + (∂sˡ⁺¹/∂hₖˡ)ᵀ λˡ⁺¹        λₖˡ = ḡₖˡ + (Jₖ₊₁ˡ)ᵀ λₖ₊₁ˡ

    What the loss reads of a layer, and what the layers above pass on: with the readings, a loss on
    each layer alone.

    Args:    as `adjoints`.
    Returns: (the Layers of `readings`, a Layer of ḡ each with the leaves of the states).
    Raises:  as `adjoints`.
    Cost:    about a gradient of the net.
    Source:  as `adjoints`.

    >>> import jax, jaxrnn
    >>> cell, net = jaxrnn.gru(), [Layer(jaxrnn.gru().init(jax.random.key(0), 3, 5))]
    >>> last = lambda states: outputs(states)[-1].sum()
    >>> direct_adjoints(cell, net, jax.numpy.ones((7, 3)), last)[1][0].forward.h.sum(1).tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0]
    """
    states = unroll_layers(cell, layers, xs, state0, lengths=lengths)
    arguments.check_callable("loss", loss, "(states of every layer) -> scalar")
    arguments.check_loss("loss", loss, states, ())
    read = _readings(layers, xs, state0, states, lengths)
    direct = list(jax.grad(loss)(states))
    for index in range(len(layers) - 1, 0, -1):
        above = _passed_down(cell, read[index], direct[index], lengths)
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
    turned = [
        d if d.reverse is None else d._replace(reverse=_turned(d.reverse, lengths)) for d in direct
    ]
    return read, tuple(turned)


def state_jacobians(
    cell: Cell,
    layers: Sequence[Layer],
    xs: Array,
    state0: Sequence[Layer] | None = None,
    *,
    lengths: Array | None = None,
) -> tuple[Layer, ...]:
    """Every layer's ∂sᵢ/∂sᵢ₋₁, of the second direction ∂sᵢ/∂sᵢ₊₁, in closed form.

        Jᵢˡ = ∂sᵢˡ/∂sᵢ₋₁ˡ at fixed xᵢˡ, the blocks of `jaxrnn.jacobians.closed_form`

    Args:    as `unroll_layers`.
    Returns: for each direction the tree of `jaxrnn.jacobians.closed_form`, aligned with the states.
    Raises:  as `unroll_layers`.
    Cost:    two `unroll_layers`, then O(T·B·G·H²) a direction: about one write of the result.
    Source:  as `jaxrnn.jacobians.closed_form`; tests/test_layers.py.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> net = [jaxrnn.layers.Layer(cell.init(jax.random.key(0), 3, 5))]
    >>> jaxrnn.layers.state_jacobians(cell, net, jax.numpy.ones((7, 2, 3)))[0].forward.c.h.shape
    (7, 2, 5, 5)
    """

    def one(reading: Reading) -> Any:
        return jacobians.closed_form(cell, *reading, lengths=lengths)

    return tuple(
        Layer(one(forward), None if reverse is None else _turned(one(reverse), lengths))
        for forward, reverse in readings(cell, layers, xs, state0, lengths=lengths)
    )


def _passed_down(cell: Cell, read: Layer, direct: Layer, lengths: Any) -> Array:
    """The adjoint of what a layer reads, `(T, *batch, ·)`; direct is aligned with the states."""

    def one(reading: Reading, direct: Any) -> Array:
        run = lambda xs: unroll(cell, reading.params, xs, reading.state0, lengths=lengths)  # noqa: E731
        return jax.vjp(run, reading.xs)[1](direct)[0]

    found = one(read.forward, direct.forward)
    if read.reverse is None:
        return found
    back = one(read.reverse, _turned(direct.reverse, lengths))
    return found + flipped(back, lengths)


def _linear(direct: Any) -> Callable[[Any], Array]:
    """The loss whose derivative by the states is `direct`."""

    def loss(states: Any) -> Array:
        products = jax.tree.map(lambda s, d: jnp.sum(s * d), states, direct)
        return sum(jax.tree.leaves(products), start=jnp.zeros((), jax.tree.leaves(direct)[0].dtype))

    return loss


def _turned(tree: Any, lengths: Any) -> Any:
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


def flipped(xs: Array, lengths: Array | None) -> Array:
    """Each sequence turned round within its length, `(T, *batch, ·)`; padding stays where it is."""
    if lengths is None:
        return xs[::-1]
    T = xs.shape[0]
    step = jnp.arange(T, dtype=lengths.dtype).reshape(T, *[1] * lengths.ndim)
    step, ends = (
        jnp.broadcast_to(step, (T, *lengths.shape)),
        jnp.broadcast_to(lengths[None], (T, *lengths.shape)),
    )
    index = jnp.where(step < ends, ends - 1 - step, step)
    index = index.reshape(*index.shape, *[1] * (xs.ndim - index.ndim))
    return jnp.take_along_axis(xs, index, axis=0)


def _check_layers(name: str, layers: Any) -> None:
    if not isinstance(layers, list | tuple) or isinstance(layers, Layer) or not layers:
        raise TypeError(f"{name}: expected a list of Layer, got {arguments.describe(layers)}")
    for index, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise TypeError(
                f"{name}[{index}]: expected a Layer(forward, reverse), got "
                f"{arguments.describe(layer)}"
            )
