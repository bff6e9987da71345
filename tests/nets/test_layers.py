"""Stacked and bidirectional nets: outputs, adjoints and Jacobians against plain scans."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import layers
from jaxrnn.nets.layers import Layer
from tests.support import untied
from tests.support.drawing import leaves
from tests.support.profiles import short
from tests.support.table import CELLS

T, B, D = 6, 3, 2
SIZES = (4, 3)  # H of each layer
LENGTHS = np.array([6, 4, 0])


def net_of(name, both, seed=0):
    """`both`: whether every layer has two directions, or which layers do."""
    cell, rng = CELLS[name], np.random.default_rng(seed)
    net, width = [], D
    for index, H in enumerate(SIZES):
        count = 1 + (both if isinstance(both, bool) else index in both)
        sides = [leaves(rng, cell.shapes(width, H), 0.6) for _ in range(count)]
        net.append(Layer(*sides))
        width = H * count
    return cell, jax.device_put(net), jax.device_put(rng.normal(size=(T, B, D)))


def drawn_states(cell, net):
    """A state to start from for each direction, each its own."""
    return jax.device_put(of_states(cell, net, np.random.default_rng(7).normal))


def of_states(cell, net, entries, lead=()):
    """For each direction a state of what `entries(size=...)` gives."""
    return [
        Layer(*[
            None if params is None
            else cell.state_type(*[
                entries(size=(*lead, B, params.w_hh.shape[1])) for _ in cell.state_type._fields
            ])
            for params in layer
        ])
        for layer in net
    ]  # fmt: skip


def turned(leaf, lengths):
    """Each sequence from its own end; the padding stays where it is. NumPy's arrays or JAX's."""
    steps = [[*reversed(range(n)), *range(n, T)] for n in lengths]
    return leaf[np.array(steps).T, np.arange(B)]


def turned_resets(resets, lengths):
    """Where a sequence begins that is read from its end: after a step that a reset comes before."""
    found = np.zeros(resets.shape, bool)
    for t, b in np.argwhere(resets):
        if 0 < t < lengths[b]:
            found[lengths[b] - t, b] = True
    return found


def plain(cell, net, xs, lengths, nudges, first=None, resets=None):
    """The states of every layer by plain scans, each direction nudged in its own time."""
    found = []
    for index, (layer, nudge) in enumerate(zip(net, nudges, strict=True)):
        sides = []
        for side, (params, more) in enumerate(zip(layer, nudge, strict=True)):
            if params is None:
                sides.append(None)
                continue
            read = turned(xs, lengths) if side else xs
            start = cell.init_state(params, (B,)) if first is None else first[index][side]
            again = turned_resets(resets, lengths) if side and resets is not None else resets
            states = untied.run(
                cell, untied.copies(params, T), read, start, jax.device_put(lengths), again, more
            )
            if side:
                states = jax.tree.map(lambda leaf: turned(leaf, lengths), states)
            sides.append(states)
        found.append(Layer(*sides))
        xs = jnp.concatenate([side.h for side in sides if side is not None], axis=-1)
    return tuple(found)


def no_nudges(cell, net):
    return of_states(cell, net, lambda size: np.zeros(size), (T,))


def loss(states):
    """Reads every leaf of every layer, each step with a weight of its own."""
    total = 0.0
    for number, leaf in enumerate(jax.tree.leaves(states), 1):
        weight = jnp.sin(number + jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape)
        total += jnp.sum(weight * leaf**2)
    return total


def close(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(*map(jax.tree.leaves, map(in_numpy, (got, want))), strict=True):
        np.testing.assert_allclose(
            a, b, rtol=0, atol=1e-13 * max(1.0, float(abs(b).max(initial=0)))
        )


def in_numpy(tree):
    """Arrays of which parts may be taken without a program for each."""
    return jax.tree.map(np.asarray, tree)


def put_out(layer):
    """What the next layer reads, of NumPy's states."""
    return np.concatenate([side.h for side in layer if side is not None], axis=-1)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", ["rnn-tanh", "lstm", "gru"])
@short(name="lstm", both=True, padded=True)
@short(name="rnn-tanh", both=False, padded=True)
def test_states_and_adjoints_are_those_of_plain_scans(name, padded, both):
    cell, net, xs = net_of(name, both)
    ends = LENGTHS if padded else np.full(B, T)
    given = jax.device_put(LENGTHS) if padded else None

    @jax.jit
    def wanted(nudges):
        def energy(nudges):
            states = plain(cell, net, xs, ends, nudges)
            return loss(states), states

        return jax.grad(energy, has_aux=True)(nudges)

    want, states = wanted(no_nudges(cell, net))
    close(layers.unroll_layers(cell, net, xs, lengths=given), states)
    runs = lambda net, xs: layers.runs(cell, net, xs, lengths=given)  # noqa: E731
    got = in_numpy(jax.jit(lambda net, xs: layers.adjoints(runs(net, xs), loss))(net, xs))
    for index, layer in enumerate(want):
        own = [got[index].forward]
        if both:
            own.append(jax.tree.map(lambda leaf: turned(leaf, ends), got[index].reverse))
        for mine, theirs in zip(own, layer, strict=False):
            close(mine, theirs)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_jacobians_are_aligned_with_the_states_in_both_directions(lengths):
    cell, net, xs = net_of("lstm", True)
    given = None if lengths is None else jax.device_put(lengths)
    ends = np.full(B, T) if lengths is None else lengths
    states = layers.unroll_layers(cell, net, xs, lengths=given)
    found = in_numpy(layers.state_jacobians(layers.runs(cell, net, xs, lengths=given)))
    one = jax.jit(jax.jacfwd(cell.step, argnums=1))
    net, xs, states = in_numpy((net, xs, states))
    for index, layer in enumerate(net):
        read = xs if index == 0 else put_out(states[index - 1])
        for side, (params, own) in enumerate(zip(layer, states[index], strict=True)):
            step = -1 if side == 0 else 1  # where the state comes from
            zero = jax.tree.map(lambda s: np.zeros(s.shape[2:]), own)
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


def test_a_run_is_a_net_of_one_layer():
    cell, net, xs = net_of("gru", True)
    lengths = jax.device_put(LENGTHS)
    states = layers.unroll_layers(cell, net, xs, lengths=lengths)
    for own, layer in zip(states, layers.runs(cell, net, xs, lengths=lengths), strict=True):
        for side in (0, 1):
            alone = layer[side].states()
            if side:
                alone = jax.tree.map(lambda leaf: turned(leaf, LENGTHS), in_numpy(alone))
            close(alone, own[side])


@pytest.mark.parametrize("name", ["rnn-tanh", "lstm"])
def test_states_that_are_given_are_where_each_direction_starts(name):
    cell, net, xs = net_of(name, True)
    first = of_states(cell, net, lambda size: np.full(size, 0.3))
    states = in_numpy(layers.unroll_layers(cell, net, xs, first))
    step, xs = jax.jit(cell.step), np.asarray(xs)
    for index, layer in enumerate(net):
        read = xs if index == 0 else put_out(states[index - 1])
        close(
            jax.tree.map(lambda s: s[0], states[index].forward),
            step(layer.forward, first[index].forward, read[0]),
        )
        close(
            jax.tree.map(lambda s: s[-1], states[index].reverse),
            step(layer.reverse, first[index].reverse, read[-1]),
        )


def refused(words, error, *arguments, **more):
    with pytest.raises(error, match=words):
        layers.unroll_layers(*arguments, **more)


def test_layers_that_do_not_fit_are_refused_by_number():
    cell, net, xs = net_of("lstm", False)
    refused(r"^layers: expected a list of Layer", TypeError, cell, net[0], xs)
    refused(r"^layers: expected a list of Layer", TypeError, cell, [], xs)
    refused(r"^layers\[1\]: expected a Layer", TypeError, cell, [net[0], net[1].forward], xs)
    refused(r"^layers\[1\]: xs: expected last axis D = 2", ValueError, cell, [net[0], net[0]], xs)
    refused(r"^layers\[0\]: xs: expected last axis", ValueError, cell, net, xs[..., :1])
    refused(r"^state0: expected 2 layers, got 1", ValueError, cell, net, xs, [Layer(None)])
    refused(r"lengths: expected", ValueError, cell, net, xs, lengths=jnp.array([1, 2]))
    with pytest.raises(ValueError, match=r"^loss: expected a function that returns one"):
        layers.adjoints(layers.runs(cell, net, xs), lambda states: layers.outputs(states))
    for value in (net, layers.runs(cell, net, xs)[0], None):
        with pytest.raises(TypeError, match=r"^runs: expected what jaxrnn.layers.runs"):
            layers.adjoints(value, loss)


# --- resets, states that are given, lengths ------------------------------------------


RESETS = np.zeros((T, B), bool)
RESETS[3, 0] = RESETS[1, 1] = RESETS[2, 1] = RESETS[0, 2] = True
SHORTER = np.array([6, 4, 5])
stacks = pytest.mark.parametrize(
    ("name", "both", "lengths"),
    [("lstm", [1], None), ("gru", [1], SHORTER), ("gru", [0], None), ("lstm", [0, 1], SHORTER)],
)


@stacks
@short(name="lstm", both=[0, 1])
@short(name="gru", both=[0])
def test_resets_make_sequences_of_their_own_in_both_directions(name, both, lengths):
    cell, net, xs = net_of(name, both)
    first = drawn_states(cell, net)
    given = None if lengths is None else jax.device_put(lengths)
    found = layers.unroll_layers(cell, net, xs, first, lengths=given, resets=jax.device_put(RESETS))
    found, xs, first = in_numpy((found, xs, first))
    for b, n in enumerate([T] * B if lengths is None else lengths):
        edges = [0, *[t for t in range(1, n) if RESETS[t, b]], n]
        own = jax.tree.map(lambda s, b=b: s[b], first)
        for begin, end in itertools.pairwise(edges):
            alone = layers.unroll_layers(cell, net, xs[begin:end, b], own)
            here = jax.tree.map(lambda s, b=b, at=slice(begin, end): s[at, b], found)
            close(here, alone)


@stacks
@short(name="lstm", both=[0, 1])
@short(name="gru", both=[0])
def test_adjoints_of_stacks_with_resets_and_given_states_are_those_of_plain_scans(
    name, both, lengths
):
    cell, net, xs = net_of(name, both)
    first, zero = drawn_states(cell, net), no_nudges(cell, net)
    ends = np.full(B, T) if lengths is None else lengths
    given = None if lengths is None else jax.device_put(lengths)

    @jax.jit
    def found(net, xs, first):
        runs = layers.runs(cell, net, xs, first, lengths=given, resets=jax.device_put(RESETS))
        return tuple(layers._states(layer) for layer in runs), layers.adjoints(runs, loss)

    def energy(nudges):
        states = plain(cell, net, xs, ends, nudges, first, RESETS)
        return loss(states), states

    states, got = in_numpy(found(net, xs, first))
    want, expected = in_numpy(jax.jit(jax.grad(energy, has_aux=True))(zero))
    close(states, expected)
    for mine, theirs in zip(got, want, strict=True):
        close(mine.forward, theirs.forward)
        if theirs.reverse is not None:
            close(jax.tree.map(lambda leaf: turned(leaf, ends), mine.reverse), theirs.reverse)


@stacks
@short(name="lstm", both=[0, 1])
@short(name="gru", both=[0])
def test_jacobians_of_stacks_start_from_given_states_and_are_0_through_a_reset(name, both, lengths):
    cell, net, xs = net_of(name, both)
    first = drawn_states(cell, net)
    ends = np.full(B, T) if lengths is None else lengths
    given = None if lengths is None else jax.device_put(lengths)
    runs = layers.runs(cell, net, xs, first, lengths=given, resets=jax.device_put(RESETS))
    states = layers.unroll_layers(
        cell, net, xs, first, lengths=given, resets=jax.device_put(RESETS)
    )
    one = jax.jit(jax.jacfwd(cell.step, argnums=1))
    jacobians = in_numpy(layers.state_jacobians(runs))
    net, xs, first, states = in_numpy((net, xs, first, states))
    for index, found in enumerate(jacobians):
        read = xs if index == 0 else put_out(states[index - 1])
        for side, J in enumerate(found):
            if J is None:
                continue
            for b, n in enumerate(ends):
                # A step of the second direction is cut off from the one before it in its own time.
                cut = {t - 1 for t in range(1, n) if RESETS[t, b]} if side else set()
                cut = cut if side else {t for t in range(n) if RESETS[t, b]}
                for i in range(n):
                    got = jax.tree.map(lambda leaf, i=i, b=b: leaf[i, b], J)
                    before = i + 1 if side else i - 1
                    own = jax.tree.map(lambda s, b=b: s[b], first[index][side])
                    if 0 <= before < n:
                        own = jax.tree.map(
                            lambda leaf, i=before, b=b: leaf[i, b], states[index][side]
                        )
                    want = one(net[index][side], own, read[i, b])
                    close(got, jax.tree.map(np.zeros_like, want) if i in cut else want)


@pytest.mark.parametrize("most", [9, 300])
def test_lengths_out_of_range_in_a_trace_act_as_clipped_in_both_directions(most):
    cell, net, xs = net_of("gru", True)
    f = jax.jit(lambda lengths: layers.unroll_layers(cell, net, xs, lengths=lengths))
    found = f(jnp.array([most, -2, 4]))
    close(found, layers.unroll_layers(cell, net, xs, lengths=jnp.array([T, 0, 4])))


def test_short_integers_count_more_steps_than_they_can_name():
    """uint8 cannot hold T = 300, nor a step beyond 255."""
    cell = CELLS["rnn-tanh"]
    rng = np.random.default_rng(0)
    params = jax.device_put(leaves(rng, cell.shapes(1, 2), 0.6))
    xs, both = jax.device_put(rng.normal(size=(300, 2, 1))), [Layer(params, params)]
    found = layers.unroll_layers(cell, both, xs, lengths=jnp.array([255, 7], jnp.uint8))
    close(found, layers.unroll_layers(cell, both, xs, lengths=jnp.array([255, 7], jnp.int32)))


def test_numpy_lengths_are_lengths():
    with jax.enable_x64(False):  # where JAX would warn that int64 is cut to int32
        cell = jaxrnn.gru()
        both = [Layer(*[cell.init(jax.random.key(k), 3, 5) for k in (0, 1)])]
        xs = jnp.ones((7, 2, 3))
        found = layers.unroll_layers(cell, both, xs, lengths=np.array([7, 4]))
        close(found, layers.unroll_layers(cell, both, xs, lengths=jnp.array([7, 4])))


@stacks
@short(name="gru", both=[0])
def test_a_derivative_by_the_params_below_is_whole(name, both, lengths):
    """The runs were made outside, the upper ones of what the lower ones put out then."""
    cell, net, xs = net_of(name, both)
    first, zero = drawn_states(cell, net), no_nudges(cell, net)
    ends = np.full(B, T) if lengths is None else lengths
    given = None if lengths is None else jax.device_put(lengths)
    runs = layers.runs(cell, net, xs, first, lengths=given, resets=jax.device_put(RESETS))

    def summed(adjoints):
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(adjoints))

    def f(lower):
        sides = [None if run is None else run.at(p) for run, p in zip(runs[0], lower, strict=True)]
        return summed(layers.adjoints([Layer(*sides), *runs[1:]], loss))

    def want(lower):
        energy = lambda n: loss(plain(cell, [lower, *net[1:]], xs, ends, n, first, RESETS))  # noqa: E731
        return summed(jax.grad(energy)(zero))

    lower = jax.tree.map(lambda leaf: jax.device_put(0.8 * np.asarray(leaf)), net[0])
    (got, slope), (value, exact) = (jax.jit(jax.value_and_grad(g))(lower) for g in (f, want))
    np.testing.assert_allclose(got, value, rtol=1e-12)
    for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * float(np.abs(b).max()))
