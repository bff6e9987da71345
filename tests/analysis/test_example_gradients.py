"""Sizes of each example's gradient: against autodiff of each by itself, and beyond any dtype."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import bptt, truncation
from jaxrnn.analysis.example_gradients import example_gradients, windows
from jaxrnn.running.steps import linearised, trajectory
from tests.support import untied
from tests.support.profiles import short

T = 11


@functools.partial(jax.jit, static_argnums=(0, 3))
def sizes(cell, params, xs, loss, lengths=None, state0=None, weights=None):
    """Of a loss, whatever it is; `weights` is given to it if it wants any."""
    run = jaxrnn.Run(cell, params, xs, state0, lengths=lengths)
    more = () if weights is None else (weights,)
    direct = jax.grad(loss)(run.states(), *more)
    return example_gradients(run, linearised(run, trajectory(run)), direct)


def weighted(states, weights):
    """The sum of every h, each step's times its weight."""
    return (weights * states.h.sum((1, 2))).sum()


def tree_norms(tree, axes):
    """Over all leaves and over the axes that are not kept."""
    squares = [np.sum(np.asarray(leaf) ** 2, axis=tuple(range(axes, leaf.ndim)))
               for leaf in jax.tree.leaves(tree)]  # fmt: skip
    return np.sqrt(sum(squares))


def close(logs, norms, tolerance=1e-11):
    """Logs of norms, -inf for 0."""
    got = np.exp(np.asarray(logs))
    np.testing.assert_allclose(
        got, norms, rtol=tolerance, atol=tolerance * np.max(norms, initial=0)
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", untied.KINDS)
@short(name="lstm", masked=True)
def test_every_size_is_that_of_the_example_alone(name, masked):
    cell = untied.ALL[name]
    params, xs, state0 = untied.drawn(name, T, (4,))
    lengths = np.array([T, 3, 0, 1]) if masked else None
    found = sizes(cell, params, xs, untied.loss, lengths, state0)
    weights = [np.cos(np.arange(leaf.size * T) + j).reshape(T, *leaf.shape)
               for j, leaf in enumerate(jax.tree.leaves(state0))]  # fmt: skip

    @jax.jit
    def derivative(params, xs, state0, lengths):
        return jax.grad(untied.loss)(jaxrnn.unroll(cell, params, xs, state0, lengths=lengths))

    direct = derivative(params, xs, state0, lengths)
    assert len(weights) == len(jax.tree.leaves(direct))

    @jax.jit
    def alone(xs, state0, direct, lengths):
        """By autodiff of a plain scan with a copy of θ for each step, linear in the states."""

        def linear(each, nudges):
            states = untied.run(cell, each, xs, state0, lengths, nudges=nudges)
            parts = jax.tree.map(lambda s, d: jnp.sum(s * d), states, direct)
            return sum(jax.tree.leaves(parts))

        nudges = jax.tree.map(lambda s: jnp.zeros((T, *s.shape)), state0)
        return jax.grad(linear, (0, 1))(untied.copies(params, T), nudges)

    xs, direct, state0, found = jax.tree.map(np.asarray, (xs, direct, state0, found))
    for b in range(4):
        own = jax.tree.map(lambda leaf, b=b: leaf[:, b : b + 1], (xs, direct))
        start = jax.tree.map(lambda leaf, b=b: leaf[b : b + 1], state0)
        n = T if lengths is None else int(lengths[b])
        each, adjoints = jax.tree.map(np.asarray, alone(own[0], start, own[1], np.array([n])))
        close(found.adjoint[:, b], tree_norms(adjoints, 1))
        close(found.contribution[:, b], tree_norms(each, 1))
        whole = jax.tree.map(lambda leaf: leaf.sum(0), each)
        close(found.gradient[b], tree_norms(whole, 0))
        for K, bias in zip(windows(T), found.bias[:, b], strict=True):
            kept = jax.tree.map(lambda leaf, n=n, K=K: leaf[max(n - K, 0) : n].sum(0), each)
            off = tree_norms(jax.tree.map(np.subtract, whole, kept), 0)
            size = tree_norms(whole, 0)
            np.testing.assert_allclose(bias, off / size if size else 0.0, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["rnn-tanh", "lstm", "gru"])
@short(name="lstm")
def test_one_example_has_the_figures_of_bptt_and_truncation(name):
    cell = untied.ALL[name]
    params, xs, _ = untied.drawn(name, T, (1,))

    @jax.jit
    def by_others(run):
        norms = bptt.contribution_norms(run, lambda states: (states.h[-1] ** 2).sum())
        curve = truncation.curve_of_last(run, lambda state: (state.h**2).sum())
        return norms.norm, norms.total, curve.bias

    found = sizes(cell, params, xs, lambda states: (states.h[-1] ** 2).sum())
    run = jaxrnn.Run(cell, params, xs)
    found, (norm, total, curve) = jax.tree.map(np.asarray, (found, by_others(run)))
    close(found.contribution[:, 0], np.sqrt(sum(leaf**2 for leaf in jax.tree.leaves(norm))))
    close(found.gradient[0], tree_norms(total, 0))
    for K, bias in zip(windows(T), found.bias[:, 0], strict=True):
        np.testing.assert_allclose(bias, curve[K - 1], rtol=0, atol=1e-11)


@pytest.mark.parametrize("scale", [0.05, 20.0])
def test_what_float32_cannot_hold_still_has_its_logarithm(scale):
    """200 steps of 1/20 or of 20 lead beyond 1e-38 and 1e38; a linear net tells the answer."""
    steps, H = 200, 4
    cell = jaxrnn.rnn(jaxrnn.activations.identity)
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(H, H)))[0].astype("float32")
    params = jaxrnn.RNNParams(np.ones((H, 1), "float32"), scale * Q, np.zeros(H, "float32"))
    xs = np.zeros((steps, 1, 1), "float32")
    state0 = jaxrnn.RNNState(np.zeros((1, H), "float32"))
    last = np.arange(steps) == steps - 1
    found = sizes(cell, params, xs, weighted, None, state0, last.astype("float32"))
    found = jax.tree.map(np.asarray, found)
    want = np.log(2.0) + np.arange(steps)[::-1] * np.log(scale)
    np.testing.assert_allclose(found.adjoint[:, 0], want, rtol=2e-6, atol=1e-5)
    # With no input the states are 0: only b has a gradient, the adjoint itself.
    np.testing.assert_allclose(found.contribution[:, 0], want, rtol=2e-6, atol=1e-5)
    assert np.isfinite(found.gradient).all()
    assert np.isfinite(found.bias).all()
    if scale > 1:
        np.testing.assert_allclose(found.bias[:, 0], 1.0, rtol=0, atol=1e-6)


def test_the_adjoint_at_its_place_among_losses_of_any_size():
    """A loss of 1e-30 on the last step and of 1e30 on the first: neither drowns."""
    params, xs, _ = untied.drawn("lstm", T, (2,))
    weights = np.zeros(T)
    weights[[0, -1]] = 1e30, 1e-30
    found = sizes(untied.ALL["lstm"], params, xs, weighted, weights=weights)
    adjoint, H = np.asarray(found.adjoint), params.w_hh.shape[1]
    np.testing.assert_allclose(adjoint[-1], np.log(1e-30 * np.sqrt(H)), rtol=1e-12)
    np.testing.assert_allclose(adjoint[0], np.log(1e30 * np.sqrt(H)), rtol=1e-12)


def test_no_loss_no_gradient():
    params, xs, _ = untied.drawn("lstm", T, (2,))
    found = sizes(untied.ALL["lstm"], params, xs, weighted, weights=np.zeros(T))
    found = jax.tree.map(np.asarray, found)
    assert (found.adjoint == -np.inf).all()
    assert (found.contribution == -np.inf).all()
    assert (found.gradient == -np.inf).all()
    assert (found.bias == 0).all()


@pytest.mark.parametrize(
    ("T", "want"), [(0, ()), (1, ()), (2, (1,)), (8, (1, 2, 4)), (9, (1, 2, 4, 8))]
)
def test_windows_are_the_powers_of_two_below_the_length(T, want):
    assert windows(T) == want
