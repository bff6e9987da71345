"""Stacked and bidirectional nets: outputs, adjoints and Jacobians against plain scans."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import layers
from jaxrnn.layers import Layer
from tests import untied
from tests.table import CELLS, draw_params

T, B, D = 6, 3, 2
SIZES = (4, 3)  # H of each layer
LENGTHS = np.array([6, 4, 0])


def drawn(name, both, seed=0):
    cell = CELLS[name]
    keys = iter(jax.random.split(jax.random.key(seed), 5))
    net, width = [], D
    for H in SIZES:
        sides = [draw_params(cell, width, H, next(keys), 0.6) for _ in range(1 + both)]
        net.append(Layer(*sides))
        width = H * (1 + both)
    return cell, net, jax.random.normal(next(keys), (T, B, D))


def turned(leaf, lengths):
    """Each sequence from its own end, by a loop over the examples."""
    rows = [jnp.concatenate([leaf[:n, b][::-1], leaf[n:, b]]) for b, n in enumerate(lengths)]
    return jnp.stack(rows, axis=1)


def plain(cell, net, xs, lengths, nudges):
    """The states of every layer by plain scans, each direction nudged in its own time."""
    found = []
    for layer, nudge in zip(net, nudges, strict=True):
        sides = []
        for side, (params, more) in enumerate(zip(layer, nudge, strict=True)):
            if params is None:
                sides.append(None)
                continue
            read = turned(xs, lengths) if side else xs
            zero = cell.init_state(params, (B,))
            states = untied.run(
                cell, untied.copies(params, T), read, zero, jnp.asarray(lengths), nudges=more
            )
            if side:
                states = jax.tree.map(lambda leaf: turned(leaf, lengths), states)
            sides.append(states)
        found.append(Layer(*sides))
        xs = jnp.concatenate([side.h for side in sides if side is not None], axis=-1)
    return tuple(found)


def no_nudges(cell, net):
    return [
        Layer(*[
            None if params is None
            else jax.tree.map(lambda s: jnp.zeros((T, *s.shape)), cell.init_state(params, (B,)))
            for params in layer
        ])
        for layer in net
    ]  # fmt: skip


def loss(states):
    """Reads every leaf of every layer, each step with a weight of its own."""
    total = 0.0
    for number, leaf in enumerate(jax.tree.leaves(states), 1):
        weight = jnp.sin(number + jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape)
        total += jnp.sum(weight * leaf**2)
    return total


def close(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(
            a, b, rtol=0, atol=1e-13 * max(1.0, float(abs(b).max(initial=0)))
        )


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("name", ["rnn-tanh", "lstm", "gru"])
def test_states_and_adjoints_are_those_of_plain_scans(name, lengths, both):
    cell, net, xs = drawn(name, both)
    ends = np.full(B, T) if lengths is None else lengths
    given = None if lengths is None else jnp.asarray(lengths)
    zero = no_nudges(cell, net)
    states = jax.jit(lambda nudges: plain(cell, net, xs, ends, nudges))(zero)
    close(layers.unroll_layers(cell, net, xs, lengths=given), states)

    @jax.jit
    def wanted(nudges):
        return jax.grad(lambda nudges: loss(plain(cell, net, xs, ends, nudges)))(nudges)

    want = wanted(zero)
    got = jax.jit(lambda net, xs: layers.adjoints(cell, net, xs, loss, lengths=given))(net, xs)
    for index, layer in enumerate(want):
        own = [got[index].forward]
        if both:
            own.append(jax.tree.map(lambda leaf: turned(leaf, ends), got[index].reverse))
        for mine, theirs in zip(own, layer, strict=False):
            close(mine, theirs)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_jacobians_are_aligned_with_the_states_in_both_directions(lengths):
    cell, net, xs = drawn("lstm", True)
    given = None if lengths is None else jnp.asarray(lengths)
    ends = np.full(B, T) if lengths is None else lengths
    states = layers.unroll_layers(cell, net, xs, lengths=given)
    found = layers.state_jacobians(cell, net, xs, lengths=given)
    one = jax.jit(jax.jacfwd(cell.step, argnums=1))
    for index, layer in enumerate(net):
        read = xs if index == 0 else layers.outputs(states[:index])
        for side, (params, own) in enumerate(zip(layer, states[index], strict=True)):
            step = -1 if side == 0 else 1  # where the state comes from
            zero = cell.init_state(params)
            for b, n in enumerate(ends):
                for i in range(n):
                    inside = 0 <= i + step < n
                    before = (
                        jax.tree.map(lambda s, b=b, k=i + step: s[k, b], own) if inside else zero
                    )
                    want = one(params, before, read[i, b])
                    close(jax.tree.map(lambda J, i=i, b=b: J[i, b], found[index][side]), want)
                for i in range(n, T):
                    held = found[index][side].c.c[i, b]
                    np.testing.assert_array_equal(held, np.eye(SIZES[index]))


def test_a_reading_is_a_net_of_one_layer():
    cell, net, xs = drawn("gru", True)
    lengths = jnp.asarray(LENGTHS)
    states = layers.unroll_layers(cell, net, xs, lengths=lengths)
    for own, layer in zip(states, layers.readings(cell, net, xs, lengths=lengths), strict=True):
        for side in (0, 1):
            alone = jaxrnn.unroll(cell, *layer[side], lengths=lengths)
            if side:
                alone = jax.tree.map(lambda leaf: turned(leaf, LENGTHS), alone)
            close(alone, own[side])


@pytest.mark.parametrize("name", ["rnn-tanh", "lstm"])
def test_states_that_are_given_are_where_each_direction_starts(name):
    cell, net, xs = drawn(name, True)
    first = [
        Layer(*[jax.tree.map(lambda s: s + 0.3, cell.init_state(p, (B,))) for p in layer])
        for layer in net
    ]
    states = layers.unroll_layers(cell, net, xs, first)
    for index, layer in enumerate(net):
        read = xs if index == 0 else layers.outputs(states[:index])
        close(
            jax.tree.map(lambda s: s[0], states[index].forward),
            cell.step(layer.forward, first[index].forward, read[0]),
        )
        close(
            jax.tree.map(lambda s: s[-1], states[index].reverse),
            cell.step(layer.reverse, first[index].reverse, read[-1]),
        )


def refused(words, error, *arguments, **more):
    with pytest.raises(error, match=words):
        layers.unroll_layers(*arguments, **more)


def test_layers_that_do_not_fit_are_refused_by_number():
    cell, net, xs = drawn("lstm", False)
    refused(r"^layers: expected a list of Layer", TypeError, cell, net[0], xs)
    refused(r"^layers: expected a list of Layer", TypeError, cell, [], xs)
    refused(r"^layers\[1\]: expected a Layer", TypeError, cell, [net[0], net[1].forward], xs)
    refused(r"^layers\[1\]: xs: expected last axis D = 2", ValueError, cell, [net[0], net[0]], xs)
    refused(r"^layers\[0\]: xs: expected last axis", ValueError, cell, net, xs[..., :1])
    refused(r"^state0: expected 2 layers, got 1", ValueError, cell, net, xs, [Layer(None)])
    refused(r"lengths: expected", ValueError, cell, net, xs, lengths=jnp.array([1, 2]))
    with pytest.raises(ValueError, match=r"^loss: expected a function that returns one"):
        layers.adjoints(cell, net, xs, lambda states: layers.outputs(states))
