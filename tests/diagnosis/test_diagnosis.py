"""A diagnosis against autodiff and the rest of the library; planted illnesses named rightly.

Nearly every diagnosis is of T steps, B examples and H units: of a cell they share their programs.
"""

import dataclasses
import functools
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import activations, bptt, products
from jaxrnn.diagnosis import GradientFlow, remedies, verdict
from jaxrnn.diagnosis.batches import GivenBatch, chunk_size, chunks
from jaxrnn.diagnosis.figures import plain
from jaxrnn.diagnosis.finite_part import finite_lengths
from jaxrnn.diagnosis.summary import by_lag, median_curve
from jaxrnn.diagnosis.watching import watched_sizes
from jaxrnn.nets.layers import Layer
from tests.support import planted_nets, untied
from tests.support.drawing import leaves
from tests.support.modes import WIDEST, tol
from tests.support.profiles import short
from tests.support.table import CELLS

T, B, D, H = 100, 8, 3, 16
LSTM, GRU = jaxrnn.lstm(), jaxrnn.gru()


def with_nan(x, at):
    x = np.array(x)  # by NumPy, since jax_debug_nans lets nobody make NaN
    x[at] = np.nan
    return x


def normal(*shape, seed=0, dtype=WIDEST):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def orthogonal(H, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(H, H)))[0]


def params_of(cell, D, H, seed=0):
    """N(0, 1/4)."""
    drawn = leaves(np.random.default_rng(seed), cell.shapes(D, H), 0.5)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, WIDEST), drawn)


@functools.cache
def usual(cell, D=D, H=H):
    """The params of `init`, in NumPy: what is changed of them compiles nothing."""
    init = jax.jit(lambda key: cell.init(key, D, H, dtype=WIDEST))
    return jax.tree.map(np.asarray, init(jax.random.key(0)))


@jax.jit
def size_of_last(states):
    """A loss; a loss that is jitted compiles two programs, not one for each of its operations."""
    return (states.h[-1] ** 2).sum()


def on_device(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, WIDEST), tree)


@pytest.fixture(scope="module")
def of_last_loss():
    params, xs = on_device(usual(LSTM)), normal(T, B, D)
    xs = jnp.asarray(xs)
    return LSTM, params, xs, size_of_last, jaxrnn.diagnose(LSTM, params, xs, size_of_last)


def test_curves_of_a_loss_are_those_of_bptt(of_last_loss):
    cell, params, xs, loss, flow = of_last_loss
    (layer,) = flow.layers
    assert flow.loss == "last"
    assert layer.random_adjoint is None
    whole = jax.jit(lambda: bptt.adjoints(jaxrnn.Run(cell, params, xs), loss))()
    np.testing.assert_allclose(np.exp(layer.adjoint), size(whole, -1), rtol=1e-11)

    @jax.jit
    def of_example(own):
        grads = jax.grad(lambda p: loss(jaxrnn.unrolling.by_autodiff(cell, p, own)))(params)
        return bptt.contribution_norms(jaxrnn.Run(cell, params, own), loss).norm, grads

    @jax.jit
    def horizons(sizes):
        return [jaxrnn.memory_horizon(sizes, part) for part in (0.1, 0.01)]

    contribution, gradient = np.asarray(layer.contribution), np.asarray(layer.gradient)
    for b in range(B):
        norms, grads = of_example(np.asarray(xs)[:, b : b + 1])
        want = np.sqrt(sum(np.asarray(leaf) ** 2 for leaf in jax.tree.leaves(norms)))
        np.testing.assert_allclose(np.exp(contribution[:, b]), want, rtol=1e-11)
        np.testing.assert_allclose(np.exp(gradient[b]), size(grads), rtol=1e-11)
        found = [int(np.asarray(each)[b]) for each in (layer.horizon_10, layer.horizon_1)]
        assert found == [int(each) for each in horizons(contribution[:, b])]


def test_what_is_watched_is_what_the_library_says(of_last_loss):
    cell, params, xs, _, flow = of_last_loss
    (layer,) = flow.layers
    own = jnp.asarray(np.asarray(xs)[:, list(flow.watched)])
    run = jaxrnn.Run(cell, params, own)
    exponents = jaxrnn.lyapunov.exponents(run, count=8, warmup=T // 10)
    np.testing.assert_allclose(layer.exponents.value, exponents.value, rtol=0, atol=1e-12)
    assert len(layer.bounds.product) == T  # of a small state the window is the whole run
    bounds = jaxrnn.certificates.along(run)
    np.testing.assert_allclose(layer.bounds.product, bounds.product, rtol=0, atol=1e-11)
    paths = jaxrnn.paths.decompose(run)
    np.testing.assert_allclose(layer.paths.exact, paths.exact, rtol=0, atol=1e-11)
    first = jnp.asarray(np.asarray(own)[:, :1])
    J = jax.tree.map(np.asarray, jaxrnn.jacobians.closed_form(jaxrnn.Run(cell, params, first)))
    dense = np.block([[J.h.h, J.h.c], [J.c.h, J.c.c]])[:, 0]
    sigma = np.linalg.svd(dense, compute_uv=False)
    at = np.linspace(0, T - 1, len(layer.spectrum)).astype(int)
    np.testing.assert_allclose(layer.spectrum, sigma[at], rtol=1e-10, atol=1e-14)


def test_a_loss_on_many_steps_has_its_curves_and_random_ones_for_the_lags():
    params, xs = on_device(usual(GRU)), normal(T, B, D)
    flow = jaxrnn.diagnose(GRU, params, xs, jax.jit(lambda states: states.h.sum()))
    random = jaxrnn.diagnose(GRU, params, xs)
    (layer,), (alone,) = flow.layers, random.layers
    assert (flow.loss, random.loss) == ("steps", "random")
    run = jaxrnn.Run(GRU, params, jnp.asarray(xs))
    whole = jax.jit(lambda: bptt.adjoints(run, lambda states: states.h.sum()))()
    np.testing.assert_allclose(np.exp(layer.adjoint), np.linalg.norm(whole.h, axis=-1), rtol=1e-11)
    for field in ("adjoint", "contribution"):
        got, want = getattr(layer, f"random_{field}"), getattr(alone, field)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
        np.testing.assert_allclose(getattr(layer, f"{field}_by_lag"), want, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(layer.horizon_1, alone.horizon_1)
    np.testing.assert_allclose(layer.bias, alone.bias, rtol=0, atol=1e-12)


@functools.cache
def of_one_draw(n):
    return jaxrnn.diagnose(
        LSTM, on_device(usual(LSTM)), normal(T, B, D), draws=1, key=jax.random.key(n)
    )


def test_random_cotangents_are_unit_vectors_on_the_output():
    """Of a linear orthogonal net each keeps its length 1; mean of norms, whatever the draws."""
    cell, params = rnn_with(Q, activations.identity, 1.0)
    flow = jaxrnn.diagnose(cell, params, normal(T, B, D))
    np.testing.assert_allclose(flow.layers[0].adjoint, 0.0, rtol=0, atol=tol(1e-12))
    last = np.asarray(of_one_draw(0).layers[0].adjoint)[-1]
    np.testing.assert_allclose(last, 0.0, rtol=0, atol=tol(1e-12))


def test_one_draw_is_the_adjoint_norm_of_that_cotangent():
    many = [np.asarray(of_one_draw(n).layers[0].adjoint) for n in range(3)]
    assert not np.allclose(many[0], many[1])
    # Between σ_min and σ_max of the transport, whatever the cotangent.
    run = jaxrnn.Run(LSTM, on_device(usual(LSTM)), jnp.asarray(normal(T, B, D)))
    top = np.asarray(products.transport_norms(run))
    assert all((each <= top + 1e-9).all() for each in many)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("kind", ["random", "last", "steps"])
@pytest.mark.parametrize("masked", [False, "lengths", "all"])
@short(masked=False, kind="last", depth=1)
def test_chunks_give_what_the_whole_gives(masked, kind, depth):
    cell, H = CELLS["rnn-tanh"], 5
    net = [
        Layer(params_of(cell, D, H, 0), params_of(cell, D, H, 1)),
        Layer(params_of(cell, 2 * H, 4, 2)),
    ][:depth]
    xs = normal(13, 7, D)
    given = {
        "lengths": jnp.array([13, 2, 5, 13, 0, 1, 9]),
        "resets": jnp.asarray(np.random.default_rng(3).random((13, 7)) < 0.2),
        "state0": [
            Layer(*[jaxrnn.RNNState(jnp.asarray(normal(7, H, seed=n))) for n in (1, 2)]),
            Layer(jaxrnn.RNNState(jnp.asarray(normal(7, 4, seed=3)))),
        ][:depth],
    }
    given = {name: given[name] for name in given if masked in (name, "all")}
    loss = {
        "random": None,
        "last": jax.jit(lambda s: (s[-1].forward.h[-1] ** 2).sum() + s[0].reverse.h[0].sum()),
        "steps": jax.jit(lambda s: (jaxrnn.layers.outputs(s) ** 2).sum()),
    }[kind]
    whole = jaxrnn.diagnose(cell, net, xs, loss, **given, chunk=7)
    parts = jaxrnn.diagnose(cell, net, xs, loss, **given, chunk=3)
    assert whole.loss == parts.loss == kind
    # The advice is part of the structure, and its numbers are those of other sums.
    flows = [dataclasses.replace(flow, advice=()) for flow in (whole, parts)]
    assert jax.tree.structure(flows[0]) == jax.tree.structure(flows[1])
    for a, b in zip(*map(jax.tree.leaves, flows), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
    assert [advice.illness for advice in whole.advice] == [a.illness for a in parts.advice]


def stack():
    """A linear net of two layers."""
    cell, params = rnn_with(Q, activations.identity, 0.1)
    top = usual(cell, H, 4)
    return cell, [Layer(params), Layer(on_device(top._replace(b=top.b + 0.1)))]


def test_layers_have_the_curves_of_their_adjoints():
    (cell, net), xs = stack(), jnp.asarray(normal(T, B, D))
    loss = jax.jit(lambda states: (states[-1].forward.h[-1] ** 2).sum())
    flow = jaxrnn.diagnose(cell, net, xs, loss)
    assert flow.names == ("layer 1", "layer 2")
    whole = jax.jit(lambda: jaxrnn.layers.adjoints(jaxrnn.layers.runs(cell, net, xs), loss))()
    for layer, want in zip(flow.layers, whole, strict=True):
        norms = np.linalg.norm(want.forward.h, axis=-1)
        np.testing.assert_allclose(np.exp(layer.adjoint), norms, rtol=1e-10)


def test_batch_axes_are_flattened_and_none_is_one():
    params, xs = params_of(GRU, D, 5), normal(9, 2, 3, D)
    lengths = np.array([[9, 2, 3], [4, 4, 1]])
    # Chunks of one example, and one that is watched: the last diagnosis has the same programs.
    diagnose = functools.partial(jaxrnn.diagnose, GRU, params, loss=size_of_last, chunk=1)
    both = diagnose(xs, lengths=lengths)
    flat = diagnose(xs.reshape(9, 6, D), lengths=lengths.ravel())
    for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(flat), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    one = diagnose(xs[:, 0, 0], lengths=np.asarray(lengths[0, 0]))
    (alone,), (layer,) = one.layers, both.layers
    np.testing.assert_allclose(
        np.asarray(alone.adjoint)[:, 0], np.asarray(layer.adjoint)[:, 0], rtol=0, atol=1e-12
    )


def test_a_cell_of_your_own_is_diagnosed_by_its_step():
    step = lambda p, s, x: jaxrnn.RNNState(jnp.tanh(p.w_ih @ x + p.w_hh @ s.h + p.b))  # noqa: E731
    ours = jaxrnn.rnn()
    cell = jaxrnn.from_step(step, init=ours.init, init_state=ours.init_state)
    params, xs = on_device(usual(ours)), normal(T, B, D)
    mine, theirs = jaxrnn.diagnose(cell, params, xs), jaxrnn.diagnose(ours, params, xs)
    assert mine.layers[0].gates is None
    assert mine.summary().layers[0].gates is None
    assert not any("gates" in each.illness for each in mine.advice)
    np.testing.assert_allclose(mine.layers[0].adjoint, theirs.layers[0].adjoint, rtol=0, atol=1e-11)
    np.testing.assert_allclose(
        mine.layers[0].gradient, theirs.layers[0].gradient, rtol=0, atol=1e-11
    )


def test_the_record_is_a_pytree_and_prints(of_last_loss):
    *_, flow = of_last_loss
    again = jax.jit(lambda flow: flow)(flow)
    assert isinstance(again, GradientFlow)
    assert again.names == flow.names
    lines = str(flow).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("horizon 10 %" in line for line in lines)
    assert "A gradient reaches back" in str(flow)
    page = flow._repr_html_()
    assert page.count("<tr>") == 1 + len(flow.layers)
    assert "polyline" in page
    json.dumps(plain(flow.summary()), allow_nan=False)
    lengths = np.sort(np.asarray(flow.lengths))
    ranks = [round(q * (len(lengths) - 1)) for q in (0, 0.25, 0.5, 0.75, 0.9, 1)]
    assert flow.summary().length == tuple(lengths[ranks])


# --- resets and states that are given ---------------------------------------------------

EDGES = [(3, 11), (5,), (2, 8), (0, 9)]  # resets of each example; the last one is beyond its length
ENDS = [12, 12, 12, 7]


def size(tree, axes=None):
    return np.sqrt(sum((np.asarray(leaf) ** 2).sum(axes) for leaf in jax.tree.leaves(tree)))


def size_of_steps(tree):
    rows = [np.asarray(leaf).reshape(len(leaf), -1) for leaf in jax.tree.leaves(tree)]
    return np.linalg.norm(np.concatenate(rows, 1), axis=1)


def of_one(*example):
    """Of one example and each direction, in its own time, by `jax.grad` of plain scans.

    (‖∂E/∂sₖ‖, ‖∂E/∂θ|ₖ‖, ‖∂E/∂θ‖)
    """
    for layer, sides in zip(*grads_of_one(*example), strict=True):
        for terms, adjoint in zip(layer, sides, strict=True):
            if terms is not None:
                whole = jax.tree.map(lambda leaf: np.asarray(leaf).sum(0), terms)
                yield size_of_steps(adjoint), size_of_steps(terms), size(whole)


@functools.partial(jax.jit, static_argnums=(0, 5))
def grads_of_one(cell, net, xs, first, resets, loss):
    steps = len(xs)
    # Read from the end, a sequence begins where the next one ended.
    turned = jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])])[::-1]
    each = [untied.copies(layer, steps) for layer in net]
    nudges = jax.tree.map(jnp.zeros_like, [untied.copies(layer, steps) for layer in first])

    @jax.grad
    def grads(both):
        found, read = [], xs
        for copies, start, nudge in zip(*both[:1], first, *both[1:], strict=True):
            states = untied.run(
                cell, copies.forward, read, start.forward, resets=resets, nudges=nudge.forward
            )
            layer = Layer(states)
            if copies.reverse is not None:
                back = untied.run(
                    cell, copies.reverse, read[::-1], start.reverse,
                    resets=turned, nudges=nudge.reverse,
                )  # fmt: skip
                layer = Layer(states, jax.tree.map(lambda leaf: leaf[::-1], back))
            found.append(layer)
            read = jaxrnn.layers.outputs(found)
        return loss(found)

    return grads((each, nudges))


@jax.jit
def of_a_stack(states):
    top = states[-1].forward
    return (top.c[-1] ** 2).sum() + top.h[-1].sum() + (states[0].reverse.h[0] ** 2).sum()


@jax.jit
def of_many_steps(states):
    return of_a_stack(states) + jnp.sin(states[0].forward.h[3]).sum()


@jax.jit
def of_one_layer(states):
    return (states.c[-1] ** 2).sum() + states.h[-1].sum()


@pytest.mark.parametrize("loss", [of_one_layer, of_a_stack, of_many_steps])
@short(loss=of_a_stack)
def test_resets_and_given_states_have_the_sizes_that_autodiff_finds_for_each_example(loss):
    # The second layer reads as many numbers as the first: what is watched is one program.
    cell, many, H = LSTM, len(ENDS), 4
    D = 2 * H
    state = lambda n: jaxrnn.LSTMState(*map(jnp.asarray, normal(2, many, H, seed=n)))  # noqa: E731
    below, back = params_of(cell, D, H, 0), params_of(cell, D, H, 1)
    net = [Layer(below, back), Layer(params_of(cell, 2 * H, H, 2))]
    first = [Layer(state(3), state(4)), Layer(state(5))]
    if loss is of_one_layer:
        net, first = [Layer(below)], [Layer(first[0].forward)]
    xs, resets = normal(12, many, D), np.zeros((12, many), bool)
    for b, steps in enumerate(EDGES):
        resets[list(steps), b] = True
    masks = {"lengths": jnp.array(ENDS), "resets": jnp.asarray(resets), "chunk": 3}
    if loss is of_one_layer:
        flow = jaxrnn.diagnose(cell, below, xs, loss, state0=first[0].forward, **masks)
    else:
        flow = jaxrnn.diagnose(cell, net, xs, loss, state0=first, **masks)
    assert flow.loss == ("steps" if loss is of_many_steps else "last")
    np.testing.assert_array_equal(flow.lengths, ENDS)
    np.testing.assert_array_equal(flow.spans, [1, 7, 4, 7])
    whole = (lambda states: loss(states[0].forward)) if loss is of_one_layer else loss
    found = jax.tree.map(np.asarray, flow.layers)
    for b, n in enumerate(ENDS):
        own = jax.tree.map(lambda s, b=b: np.asarray(s)[b], first)
        want = of_one(cell, net, np.asarray(xs)[:n, b], own, resets[:n, b], whole)
        for layer, (adjoint, terms, gradient) in zip(found, want, strict=True):
            np.testing.assert_allclose(np.exp(layer.adjoint[:n, b]), adjoint, rtol=1e-11)
            np.testing.assert_allclose(np.exp(layer.contribution[:n, b]), terms, rtol=1e-11)
            np.testing.assert_allclose(np.exp(layer.gradient[b]), gradient, rtol=1e-11)

    # What is watched is the longest stretch without a reset, which starts from the given state.
    assert flow.watched == (0,)
    start = jax.tree.map(lambda s: jnp.asarray(np.asarray(s)[:1]), first)
    runs = jaxrnn.layers.runs(cell, net, jnp.asarray(np.asarray(xs)[3:11, :1]), start)
    sides = [run for layer in runs for run in layer if run is not None]
    for layer, run in zip(flow.layers, sides, strict=True):
        exponents = jaxrnn.lyapunov.exponents(run, count=8).value
        np.testing.assert_allclose(layer.exponents.value, exponents, rtol=0, atol=1e-12)
        bounds = jaxrnn.certificates.along(run)
        np.testing.assert_allclose(layer.bounds.product, bounds.product, rtol=0, atol=1e-11)


# --- planted illnesses ----------------------------------------------------------------


def rnn_with(W, activation=activations.tanh, inputs=0.5):
    w_ih = inputs * np.random.default_rng(1).normal(size=(len(W), D))
    return jaxrnn.rnn(activation), on_device(jaxrnn.RNNParams(w_ih, W, np.zeros(len(W))))


def gated(cell, scale=1.0, recurrent=1.0, **biases):
    """Usual weights, the named blocks of b at a value."""
    params = jax.tree.map(lambda leaf: scale * leaf, usual(cell))
    b = params.b.copy()
    for gate, value in biases.items():
        b[rows_of(cell, gate)] = value
    return cell, on_device(params._replace(w_hh=recurrent * params.w_hh, b=b))


def rows_of(cell, gate):
    at = cell.gates.index(gate) * H
    return slice(at, at + H)


Q = orthogonal(H)
CHAOTIC = 3 * np.random.default_rng(0).normal(size=(H, H)) / 4
ILL = {
    "forget gates shut": (gated(LSTM, f=-5.0), {"forget gates shut"}),
    "forget gates shut, GRU": (gated(GRU, z=-5.0), {"update gates shut"}),
    "half forgotten": (gated(LSTM, scale=0.3, f=0.0), {"vanishing"}),
    "input gates shut": (gated(LSTM, i=-6.0, f=5.0), {"input gates shut"}),
    "input and forget gates shut": (
        gated(LSTM, i=-6.0, f=-6.0), {"input gates shut", "forget gates shut"},
    ),
    "output gates shut": (gated(LSTM, o=-6.0, f=5.0), {"output gates shut"}),
    "nothing new taken in": (gated(GRU, z=6.0), {"update gates open"}),
    "exploding tanh RNN": (rnn_with(CHAOTIC, inputs=0.05), {"exploding"}),
    "exploding relu RNN": (rnn_with(1.5 * Q, activations.identity, 0.1), {"exploding"}),
    "exploding LSTM": (gated(LSTM, recurrent=20.0, f=1.0), {"exploding"}),
    "saturated tanh RNN": (rnn_with(0.5 * Q, inputs=20.0), {"inputs out of scale"}),
    "dead relu RNN": (
        (rnn_with(Q, activations.relu)[0],
         rnn_with(Q, activations.relu)[1]._replace(b=jnp.full(H, -20.0, WIDEST))),
        {"dead units"},
    ),
    "contracting tanh RNN": (rnn_with(0.3 * Q), {"vanishing"}),
    "healthy orthogonal RNN": (rnn_with(Q, activations.identity, 0.1), set()),
    "healthy tanh RNN": (rnn_with(Q, inputs=0.02), set()),
    "healthy LSTM": (gated(LSTM, scale=0.3, f=5.0), set()),
}  # fmt: skip


@pytest.mark.parametrize("loss", [None, size_of_last])
@pytest.mark.parametrize("case", ILL)
@short(loss=None)
@short(case={"forget gates shut", "exploding LSTM"})
def test_a_planted_illness_is_named_and_no_other(case, loss):
    (cell, params), want = ILL[case]
    flow = jaxrnn.diagnose(cell, params, normal(T, B, D), loss)
    advice = flow.advice
    assert {each.illness for each in advice if each.illness} == want, flow
    assert all(each.finding and each.remedy for each in advice)
    cures = re.findall(r"(initializers|regularizers|clipping)\.(\w+)", str(advice))
    assert all(hasattr(getattr(jaxrnn, module), name) for module, name in cures)
    assert cures or not want - {"inputs out of scale"}
    assert all(any(c.isdigit() for c in each.finding) for each in advice)
    if not want:
        assert advice[0].remedy == "Nothing to do."
        assert len(advice) == 1


@pytest.mark.parametrize("name", ["forget gates shut", "forget gates shut, GRU", "input gates shut",
                                  "output gates shut", "half forgotten"])  # fmt: skip
def test_the_number_of_the_remedy_cures_the_gate(name):
    (cell, params), (illness,) = ILL[name]
    xs = normal(T, B, D)
    flow = jaxrnn.diagnose(cell, params, xs)
    advice = flow.advice[0]
    assert advice.illness == illness
    gate = {"f": "f", "u": "z", "i": "i", "o": "o", "v": "f"}[illness[0]]
    b = np.array(params.b)
    b[rows_of(cell, gate)] += advice.value
    cured = params._replace(b=jnp.asarray(b))
    again = jaxrnn.diagnose(cell, cured, xs)
    assert illness not in {each.illness for each in again.advice}
    if gate in "fz":
        before, after = (np.median(each.layers[0].horizon_1) for each in (flow, again))
        assert after > 3 * before


@pytest.mark.parametrize("name", ["exploding tanh RNN", "exploding relu RNN", "exploding LSTM"])
@short(name="exploding relu RNN")
def test_the_factor_against_an_explosion_ends_it(name):
    (cell, params), _ = ILL[name]
    xs = normal(T, B, D)
    advice = jaxrnn.diagnose(cell, params, xs).advice[0]
    assert advice.illness == "exploding"
    scaled = params._replace(w_hh=jnp.asarray(advice.value * np.asarray(params.w_hh)))
    if "no input can make" in advice.remedy:
        verdict = jaxrnn.certificates.of_weights(cell, scaled).statement().verdict
        assert verdict in ("explosion excluded", "vanishing certified")
    again = jaxrnn.diagnose(cell, scaled, xs)
    assert not [each.illness for each in again.advice if each.illness]
    assert math.isclose(again.summary().net[0].log_growth, advice.after.growth, abs_tol=1e-9)


def far_layers(kind):
    """Two layers of which one forgets: as a net they carry."""
    short, long = (gated(LSTM, f=-1.0)[1], gated(LSTM, f=5.0, scale=0.3)[1])
    wide = lambda p: p._replace(w_ih=jnp.asarray(normal(4 * H, H) / 8))  # noqa: E731
    return (
        [Layer(short), Layer(wide(long))] if kind == "below" else [Layer(long), Layer(wide(short))]
    )


@pytest.mark.parametrize("kind", ["below", "above"])
@short(kind="below")
def test_a_layer_that_forgets_is_no_illness_of_a_net_that_carries(kind):
    net, xs = far_layers(kind), normal(T, B, D)
    flow = jaxrnn.diagnose(LSTM, net, xs)
    assert [each.illness for each in flow.advice if each.illness] == []
    own = [layer.share.median for layer in flow.summary().layers]
    assert min(own) < 0.2 < 0.9 < max(own)
    assert str(flow).count("alone") == 2
    # What reaches the inputs is ∂E/∂x by autodiff, of each random cotangent.
    (reading,) = flow.net
    keys = jax.random.split(jax.random.key(0), 4)

    @jax.jit
    def of_one(key):
        def output(xs):
            states = jaxrnn.layers.unroll_layers(LSTM, net, xs)
            return states[-1].forward.h[-1]

        own = jax.random.fold_in(key, 2)
        draw = lambda b: jax.random.normal(jax.random.fold_in(own, b), (H,), WIDEST)  # noqa: E731
        u = jax.vmap(draw)(jnp.arange(B, dtype=jnp.uint32))
        u = u / jnp.linalg.norm(u, axis=-1, keepdims=True)
        return jnp.linalg.norm(jax.vjp(output, jnp.asarray(xs))[1](u)[0], axis=-1)

    want = np.mean([np.asarray(of_one(key)) for key in keys], 0)
    np.testing.assert_allclose(np.exp(reading.inputs), want, rtol=1e-10)


def test_what_a_loss_sends_to_the_inputs_is_its_derivative_by_them(of_last_loss):
    cell, params, xs, loss, flow = of_last_loss
    (reading,) = flow.net
    of = jax.jit(jax.grad(lambda xs: loss(jaxrnn.unrolling.by_autodiff(cell, params, xs))))
    want = np.linalg.norm(of(xs), axis=-1)
    np.testing.assert_allclose(np.exp(reading.inputs), want, rtol=1e-11)
    assert flow.ends == ("at the end",)


def test_two_directions_are_read_at_both_ends():
    long, short = gated(LSTM, f=5.0, scale=0.3)[1], gated(LSTM, f=-5.0)[1]
    flow = jaxrnn.diagnose(LSTM, [Layer(long, short)], normal(T, B, D))
    assert flow.ends == ("at the end", "at the start")
    end, start = flow.summary().net
    assert (end.grade, start.grade) == ("reaches", "falls short")
    (advice,) = [each for each in flow.advice if each.illness]
    assert (advice.after.read, advice.changes[0].layer) == ("at the start", "layer 1, reverse")
    assert "read at the start" in advice.finding


def test_a_state_of_any_tree_is_diagnosed():
    """Of a dict without h the whole state is the output."""
    W = jnp.asarray(0.9 * Q)

    def step(params, state, x):
        return {"a": jnp.tanh(params @ state["a"] + x.sum()), "b": 0.5 * state["b"] + x.sum()}

    first = lambda params: {"a": jnp.zeros(H, WIDEST), "b": jnp.zeros((), WIDEST)}  # noqa: E731
    cell = jaxrnn.from_step(step, init_state=first)
    xs = normal(T, B, D)
    with pytest.raises(ValueError, match=r"^state\['b'\]: expected a vector"):
        jaxrnn.diagnose(cell, W, xs)
    named = lambda p, s, x: {"a": jnp.tanh(p @ s["a"] + x.sum())}  # noqa: E731
    cell = jaxrnn.from_step(named, init_state=lambda p: {"a": jnp.zeros(H, WIDEST)})
    flow = jaxrnn.diagnose(cell, W, xs)
    theirs = jaxrnn.from_step(
        lambda p, s, x: jaxrnn.RNNState(jnp.tanh(p @ s.h + x.sum())),
        init_state=lambda p: jaxrnn.RNNState(jnp.zeros(H, WIDEST)),
    )
    want = jaxrnn.diagnose(theirs, W, xs)
    shape = np.shape(want.net[0].inputs)
    assert np.shape(flow.net[0].inputs) == shape
    assert abs(np.mean(np.asarray(flow.net[0].inputs) - np.asarray(want.net[0].inputs))) < 0.2


def test_an_illness_of_one_layer_is_not_that_of_another():
    both = [Layer(gated(LSTM, f=5.0, scale=0.3)[1], gated(LSTM, f=-5.0)[1])]
    flow = jaxrnn.diagnose(LSTM, both, normal(T, B, D))
    ill = {(each.illness, each.layer) for each in flow.advice if each.illness}
    assert ill == {("forget gates shut", "layer 1, reverse")}


@pytest.mark.parametrize("loss", [None, size_of_last])
@short(loss=None)
def test_nan_from_a_step_on_is_named_and_the_rest_measured_before_it(loss):
    cell, params = gated(LSTM, f=-5.0)
    xs = normal(T, B, D)
    bad = with_nan(xs, (slice(37, None), 2))
    bad[60, 5, 1] = np.inf
    flow = jaxrnn.diagnose(cell, params, bad, loss)
    want = np.full(B, -1)
    want[[2, 5]] = 37, 60
    np.testing.assert_array_equal(flow.nonfinite, want)
    np.testing.assert_array_equal(flow.source, np.where(want < 0, -1, 0))
    first, *rest = flow.advice
    assert (first.illness, first.value) == ("not finite", 37.0)
    assert "step 37 of example 2" in first.finding
    assert "forget gates shut" in {each.illness for each in rest}
    cut = np.where(want < 0, T, want)
    clean = jaxrnn.diagnose(cell, params, xs, loss, lengths=jnp.asarray(cut))
    for field in ("adjoint", "contribution", "gradient", "horizon_1", "bias"):
        got, own = getattr(flow.layers[0], field), getattr(clean.layers[0], field)
        np.testing.assert_allclose(got, own, rtol=0, atol=1e-12)


def test_a_state_that_overflows_is_named_with_its_layer_and_step():
    cell, params = rnn_with(1e3 * Q, activations.relu)
    params = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float32), params)
    xs = jnp.asarray(np.abs(normal(T, B, D)), jnp.float32)
    states = jaxrnn.unroll(cell, params, xs)
    finite = np.isfinite(np.asarray(states.h)).all((1, 2))
    flow = jaxrnn.diagnose(cell, params, xs)
    assert flow.advice[0].illness == "not finite"
    assert flow.advice[0].layer == "layer 1"
    assert int(np.asarray(flow.nonfinite).min()) == int(np.flatnonzero(~finite)[0])
    assert "exploding" in {each.illness for each in flow.advice}


@pytest.mark.parametrize("debug", [False, True])
def test_nothing_finite_at_all_is_said_and_nothing_else(debug):
    cell, params = gated(LSTM)
    with jax.debug_nans(debug):  # NaN is what is asked for
        flow = jaxrnn.diagnose(cell, params, np.full((T, B, D), np.nan, WIDEST))
    assert [each.illness for each in flow.advice] == ["not finite"]
    assert flow.layers[0].exponents is None
    assert "–" in str(flow)
    flow._repr_html_()


@pytest.mark.parametrize("read", [0, 1])
def test_a_layer_that_the_loss_does_not_reach_is_said_to_have_no_gradient(read):
    cell, net = stack()
    loss = [
        lambda states: states[0].forward.h[-1].sum(),
        lambda states: 0 * states[1].forward.h.sum(),
    ]
    flow = jaxrnn.diagnose(cell, net, normal(T, B, D), loss[read])
    ill = [(each.illness, each.layer) for each in flow.advice]
    assert ill == [("no gradient", "layer 1"), ("no gradient", "layer 2")][1 - read :]
    assert "–" not in str(flow).splitlines()[-1]


def test_products_that_are_all_0_are_said_to_be():
    """Every unit is off at every other step, and none throughout."""
    cell, params = rnn_with(0.1 * Q, activations.relu, inputs=1.0)
    xs = jnp.asarray(np.where(np.arange(T) % 2, 3.0, -3.0)[:, None, None] * np.ones((B, D)), WIDEST)
    params = params._replace(w_ih=jnp.ones((H, D), WIDEST))
    (advice, *_) = jaxrnn.diagnose(cell, params, xs).advice
    assert advice.illness == "vanishing"
    assert "exactly 0" in advice.remedy


def test_advice_counts_steps_from_the_last_reset():
    """A reset is no illness: what a gradient could reach is what it is held against."""
    cell, params = rnn_with(1.06 * Q, activations.identity, 0.1)
    resets = np.zeros((T, B), bool)
    resets[::10] = True
    xs = normal(T, B, D)
    flow = jaxrnn.diagnose(cell, params, xs, resets=jnp.asarray(resets))
    (advice,) = flow.advice  # over 100 steps it would explode; no window of it is shorter
    assert not advice.illness
    assert "10 steps of 10 and do not grow" in advice.finding
    alone = jaxrnn.diagnose(cell, params, xs)
    assert "exploding" in {each.illness for each in alone.advice}
    # One late reset hides no explosion before it.
    resets[:90] = False
    late = jaxrnn.diagnose(cell, params, xs, resets=jnp.asarray(resets))
    assert "exploding" in {each.illness for each in late.advice}


def test_a_relu_of_ones_own_is_told_by_its_range():
    """Neither the name nor the object: what rests at its only end is dead, and not saturated."""
    relu = activations.relu
    own = activations.Activation("ReLU", relu.value, relu.derivative, 1.0, range=(0.0, math.inf))
    xs = normal(T, B, D)
    for share in (4, 16):
        told = []
        for activation in (relu, own):
            cell, params = rnn_with(Q, activation)
            b = np.where(np.arange(H) < share, -20.0, 0.0)
            params = params._replace(b=jnp.asarray(b, WIDEST))
            flow = jaxrnn.diagnose(cell, params, xs)
            told.append([each for each in flow.advice if each.illness])
        assert "dead units" in {each.illness for each in told[1]}
        assert "saturated" not in {each.illness for each in told[1]}
        assert [str(each) for each in told[0]] == [str(each) for each in told[1]]


def test_one_short_sequence_hides_nothing():
    cell, params = gated(LSTM, f=-5.0)
    xs = normal(T, B, D)
    flow = jaxrnn.diagnose(cell, params, xs, lengths=jnp.array([100, 80, 60, 49, 49, 49, 49, 1]))
    assert "forget gates shut" in {each.illness for each in flow.advice}
    assert flow.watched == (0, 1, 2)
    assert len(flow.layers[0].exponents.windows) == 60 - 6
    one = normal(1, B, D)
    short = jaxrnn.diagnose(cell, params, one)
    assert short.layers[0].exponents is None
    assert "input gates shut" in {
        each.illness for each in jaxrnn.diagnose(*gated(LSTM, i=-6.0), one).advice
    }


def test_no_truncation_is_advised_for_two_directions():
    both = [Layer(gated(LSTM, f=-5.0)[1], gated(LSTM, f=-5.0)[1])]
    xs = normal(T, B, D)
    assert not any("Trunc" in a.finding for a in jaxrnn.diagnose(LSTM, both, xs).advice)
    one = jaxrnn.diagnose(LSTM, [Layer(both[0].forward)], xs).advice
    assert any("Trunc" in a.finding for a in one)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@short(dtype="bfloat16")
def test_half_precision_is_diagnosed_about_as_wide_numbers(dtype):
    cell = jaxrnn.rnn()
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), usual(cell))
    xs = jnp.asarray(normal(T, B, D), dtype)
    found = jaxrnn.diagnose(cell, half, xs)
    want = jaxrnn.diagnose(cell, on_device(half), on_device(xs))
    (got,), (of,) = found.layers, want.layers
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(got.gates["h"].mean, of.gates["h"].mean, rtol=0, atol=20 * eps)
    np.testing.assert_allclose(
        np.asarray(got.exponents.value, float)[:, 0],
        np.asarray(of.exponents.value)[:, 0],
        rtol=0,
        atol=20 * eps,
    )
    assert np.isfinite(np.asarray(got.spectrum, np.float32)).all()
    str(found)


def weighted(*weights):
    """A diagnosis of as many examples, each with a weight of its own in the loss."""
    cell, params = rnn_with(Q, activations.identity, 0.1)
    weights = jnp.asarray(weights, WIDEST)
    loss = jax.jit(lambda states: (weights[:, None] * states.h[-1]).sum())
    return jaxrnn.diagnose(cell, params, normal(T, len(weights), D), loss)


def test_clipping_is_advised_where_the_norms_spread_and_with_their_quantile():
    flow = weighted(1000.0, *[1.0] * 39)
    (advice,) = [each for each in flow.advice if "Clip" in each.remedy]
    norms = np.sort(np.exp(np.asarray(flow.layers[0].gradient)))
    want = np.minimum(norms, norms[35]).sum()  # as if no example exceeded what nine in ten do not
    assert math.isclose(advice.value, want, rel_tol=tol(1e-9))
    assert f"{want:.3g}" in advice.remedy


def test_examples_without_a_gradient_say_nothing_about_a_threshold():
    flow = weighted(1000.0, *[1.0] * 19, *[0.0] * 20)
    (advice,) = [each for each in flow.advice if "Clip" in each.remedy]
    norms = np.sort(np.exp(np.asarray(flow.layers[0].gradient)))[20:]
    want = np.minimum(norms, norms[17]).sum()
    assert math.isclose(advice.value, want, rel_tol=tol(1e-9))
    assert f"{norms[9]:.3g} in the median" in advice.finding
    assert "inf" not in str(advice)


def test_examples_that_the_loss_does_not_read_say_nothing_about_a_horizon():
    flow = weighted(*[1.0] * 15, *[0.0] * 25)
    assert [each.illness for each in flow.advice] == [""]
    for figures in (flow.summary().layers[0], flow.summary().net[0]):
        assert set(figures.horizon_1_percent) == {100}
        assert figures.horizon_10_percent.least == 100


# --- the pieces ------------------------------------------------------------------------


@pytest.mark.parametrize(("growth", "last", "share", "course"), [
    (math.log(500), math.log(400), 1.0, "grows"), (math.log(500), 0.0, 1.0, "transient"),
    (math.log(20), math.log(1.0), 1.0, "transient"), (math.log(20), math.log(15), 1.0, "holds"),
    (0.0, -1.0, 0.6, "holds"), (0.0, None, 0.4, "fades"), (None, None, None, "fades"),
])  # fmt: skip
def test_a_course_is_one_of_four(growth, last, share, course):
    assert verdict.course(growth, last, share, 0.5) == course


@pytest.mark.parametrize(("share", "threshold", "grade"), [
    (8 / 17, 0.5, "borderline"), (9 / 17, 0.5, "borderline"), (0.39, 0.5, "falls short"),
    (0.61, 0.5, "reaches"), (1.0, 1.0, "reaches"), (0.95, 1.0, "borderline"), (None, 0.5, None),
])  # fmt: skip
def test_shares_have_grades_and_no_cliff(share, threshold, grade):
    assert verdict.grade(share, threshold) == grade


def test_a_share_near_the_threshold_is_borderline_and_no_illness():
    """Horizons of 44 of 100 steps: log(100) / 44 nats a step."""
    cell, params = rnn_with(math.exp(-math.log(100) / 44) * Q, activations.identity, 0.1)
    xs = normal(T, B, D)
    flow = jaxrnn.diagnose(cell, params, xs)
    assert [each.illness for each in flow.advice if each.illness] == []
    assert re.match(r"Borderline: nothing from 4[3-6] steps back", flow.advice[0].finding)
    strict = jaxrnn.diagnose(cell, params, xs, reach=0.9)
    assert strict.advice[0].illness == "vanishing"
    assert strict.advice[0].after.share > 0.9


@pytest.mark.parametrize("at", [-9.5, -3.0, 0.0, 0.7, 9.5, 12.0, -12.0])
@pytest.mark.parametrize("f", [lambda x: x, lambda x: x**3, lambda x: np.arctan(20 * x),
                               lambda x: np.expm1(x)])  # fmt: skip
def test_a_root_is_found_within_the_bracket_or_none(at, f):
    calls = []

    def off(x):
        calls.append(x)
        return float(f(x - at))

    found = remedies.root(off, 10.0, 1e-6)
    if abs(at) > 10:
        assert found is None
    else:
        assert abs(f(found - at)) <= 1e-6
    assert all(abs(x) <= 10 for x in calls)


def test_a_shift_brings_the_mean_gate_to_its_goal():
    v = 1.5 * normal(2000)
    mean_at = lambda shift: float(np.mean(1 / (1 + np.exp(-(v + shift)))))  # noqa: E731
    for goal in (0.5, 0.9, 1 - 1 / 500):
        shift = remedies.shift_for(mean_at, goal)
        assert abs((1 - mean_at(shift)) / (1 - goal) - 1) < 0.01
    assert remedies.shift_for(lambda shift: float(np.mean(v + 1e3 * shift > 3e4)), 0.9) is None


@pytest.mark.parametrize("name", planted_nets.ill())
@short(name={"lstm, 2 layers both ways: f shut", "lstm, 1 layer: prices unscaled",
             "rnn: contracting", "rnn[relu]: 6 units dead"})  # fmt: skip
def test_an_ill_net_is_named_and_its_remedy_keeps_what_it_promises(name):
    planted = planted_nets.ill()[name]
    found = planted_nets.tried(planted)
    assert planted_nets.judged(planted, found), found


@pytest.mark.parametrize("name", planted_nets.healthy())
@short(name="lstm, 3 layers: short, short, long")
def test_of_a_healthy_net_there_is_nothing_to_do(name):
    planted = planted_nets.healthy()[name]
    found = planted_nets.tried(planted)
    assert planted_nets.judged(planted, found), found


def test_lag_is_counted_from_each_sequences_own_end():
    logs = np.arange(12.0).reshape(4, 3)
    got = by_lag(logs, np.array([4, 2, 0]))
    want = np.array([[9, 4, np.nan], [6, 1, np.nan], [3, np.nan, np.nan], [0, np.nan, np.nan]])
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(median_curve(logs, np.array([2, 2, 1])), [3.0, 1.0 - 0.5])


@pytest.mark.parametrize(("at", "left"), [(2, 0), (1, 1)])
def test_what_is_not_finite_is_looked_for_again_in_what_is_left(at, left):
    """The second direction overflows where it reads step 2, its own step 6, then 3, then 0."""
    cell = jaxrnn.rnn(activations.identity)
    usual = jaxrnn.RNNParams(jnp.ones((1, 1)), jnp.zeros((1, 1)), jnp.zeros(1))
    net = (Layer(usual, usual._replace(w_ih=jnp.full((1, 1), 1e200))),)
    xs = np.ones((9, 2, 1))
    xs[at, 0] = 1e200
    lengths, step, source = finite_lengths(cell, net, GivenBatch(jnp.asarray(xs)), 2)
    np.testing.assert_array_equal(lengths, [left, 9])
    np.testing.assert_array_equal(step, [left, -1])
    np.testing.assert_array_equal(source, [2, -1])


@pytest.mark.parametrize(("B", "chunk"), [(1, 4), (7, 3), (8, 3), (9, 4), (32, 16)])
def test_chunks_are_of_one_size_and_cover_every_example_once(B, chunk):
    xs = np.zeros((3, B, 2))
    size = chunk_size([Layer(jaxrnn.RNNParams(*map(np.zeros, ((4, 2), (4, 4), (4,)))))], xs, chunk)
    rows = np.concatenate(chunks(B, size))
    assert size <= max(chunk, 1)
    assert set(rows[rows < B]) == set(range(B))
    assert len(rows) - B < size
    assert {len(each) for each in chunks(B, size)} == {size}


@pytest.mark.parametrize("n", [2, 64, 512, 4096])
def test_less_is_watched_of_a_larger_state(n):
    found = watched_sizes(1000, 32, n)
    assert 1 <= found.examples <= 4
    assert 2 <= found.window <= 1000
    assert found.examples * found.window * n**3 <= max(1e10, 4 * n**3)


# --- bad input -------------------------------------------------------------------------


PARAMS = params_of(LSTM, D, 5)


def spoilt(**changes):
    cell = changes.pop("cell", LSTM)
    given = {"params": PARAMS, "xs": normal(7, 4, D)} | changes
    return lambda: jaxrnn.diagnose(cell, given.pop("params"), given.pop("xs"), **given)


BAD = {
    "cell": (spoilt(cell=3), TypeError, "^cell: expected a cell"),
    "params of another": (spoilt(params=(1, 2)), TypeError, r"^layers\[0\]: expected a Layer"),
    "no layers": (spoilt(params=[]), TypeError, "^layers: expected a list of Layer"),
    "xs width": (spoilt(xs=normal(7, 4, D + 1)), ValueError, "^xs: expected last axis D = 3"),
    "xs rank": (spoilt(xs=normal(7)), ValueError, r"^xs: expected shape \(T, \*batch, D\)"),
    "xs dtype": (spoilt(xs=jnp.ones((7, 4, D), int)), TypeError, "^xs: expected .*float"),
    "no unit": (
        spoilt(params=type(PARAMS)(*[jnp.zeros(shape, WIDEST) for shape in LSTM.shapes(D, 0)])),
        ValueError, "^state: expected at least one number to differentiate by, got none",
    ),
    "no example": (spoilt(xs=normal(7, 0, D)), ValueError, "^xs: expected at least one step"),
    "no step": (spoilt(xs=normal(0, 4, D)), ValueError, "^xs: expected at least one step"),
    "lengths": (spoilt(lengths=jnp.array([8, 1, 1, 1])), ValueError, r"^lengths: .*\[0, T\].*8"),
    "lengths of 0": (
        spoilt(lengths=jnp.zeros(4, int)), ValueError, "^lengths: expected at least one above 0",
    ),
    "lengths shape": (spoilt(lengths=jnp.array([8])), ValueError, "^lengths: expected the batch"),
    "loss": (spoilt(loss=lambda s: s.h), ValueError, "^loss: expected .* one real scalar"),
    "no loss": (spoilt(loss=3), TypeError, "^loss: expected"),
    "draws": (spoilt(draws=0), ValueError, "^draws: expected an integer of at least 1, got 0"),
    "chunk": (spoilt(chunk=-1), ValueError, "^chunk: expected an integer of at least 1, got -1"),
    "key": (spoilt(key=7), TypeError, "^key: expected"),
    "reach": (spoilt(reach=1.5), ValueError, "^reach: expected 0 < reach <= 1, got 1.5"),
    "no reach": (spoilt(reach="far"), TypeError, "^reach: expected"),
    "progress": (spoilt(progress=True), TypeError, "^progress: expected"),
    "weights": (
        spoilt(params=PARAMS._replace(w_hh=with_nan(PARAMS.w_hh, (3, 1)))),
        ValueError, r"^params.w_hh: expected finite numbers, got nan at \(3, 1\)",
    ),
    "traced": (
        lambda: jax.jit(lambda xs: jaxrnn.diagnose(LSTM, PARAMS, xs).lengths)(normal(7, 4, D)),
        TypeError, "^xs: expected an array outside of jax.jit",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name(case):
    call, error, words = BAD[case]
    with pytest.raises(error, match=words):
        call()
