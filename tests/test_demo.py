"""The demo's measurements against plain autodiff of the loss."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import demo
from jaxrnn.numerics.time_axis import previous
from tests.support.profiles import short


@functools.cache
def small_data():
    keys = jax.random.split(jax.random.key(0), 2)
    xs = jax.random.normal(keys[0], (7, 80, 1), jnp.float32)
    labels = jax.random.randint(keys[1], (80,), 0, 10)
    return demo.Data(xs, labels, xs, labels)


@functools.cache
def network_of(cell, seed=1):
    return demo.init_network(cell, jax.random.key(seed))


def flow_of(cell, network):
    return jax.tree.map(np.asarray, demo.measured_flow(cell, network, small_data()))


@pytest.mark.parametrize("cell", [jaxrnn.rnn(), jaxrnn.lstm()], ids=lambda c: c.name)
@short(cell=jaxrnn.lstm())
def test_flow_equals_autodiff_of_the_loss(cell):
    data, network = small_data(), network_of(cell)
    flow = flow_of(cell, network)
    xs, labels = data.test_xs[:, : demo.WATCHED], data.test_labels[: demo.WATCHED]
    T = xs.shape[0]

    def error(nudges, params_of_step):
        """The loss with every state nudged and every step given params of its own."""
        state = cell.init_state(network.cell, (demo.WATCHED,))
        for i in range(T):
            params = jax.tree.map(lambda leaf, i=i: leaf[i], params_of_step)
            state = cell.step(params, state, xs[i])
            state = jax.tree.map(lambda s, n, i=i: s + n[i], state, nudges)
        scores = demo.logits(network, state.h)
        taken = jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], axis=1)
        return -taken.sum()

    states = jax.eval_shape(functools.partial(jaxrnn.unroll, cell), network.cell, xs)
    nudges = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), states)
    copies = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (T, *leaf.shape)), network.cell)
    found = jax.jit(jax.grad(error, argnums=(0, 1)))(nudges, copies)
    adjoints, parts = jax.tree.map(np.asarray, found)
    norm = np.linalg.norm(adjoints.h, axis=-1).mean(1)
    np.testing.assert_allclose(flow.adjoint_h, norm, rtol=1e-4)
    if flow.adjoint_c is not None:
        norm = np.linalg.norm(adjoints.c, axis=-1).mean(1)
        np.testing.assert_allclose(flow.adjoint_c, norm, rtol=1e-4, atol=1e-9)
    squares = sum((leaf.reshape(T, -1) ** 2).sum(1) for leaf in parts)
    np.testing.assert_allclose(flow.contribution, np.sqrt(squares), rtol=1e-4)
    half = np.sqrt(squares)[: T // 2].sum() / np.sqrt(squares).sum()
    np.testing.assert_allclose(flow.first_half_share, half, rtol=1e-4)
    assert (flow.forget is None) == (cell.name != "lstm")


@pytest.mark.parametrize("cell", [jaxrnn.rnn(), jaxrnn.lstm()], ids=lambda c: c.name)
@short(cell=jaxrnn.lstm())
def test_horizon_exponent_and_verdict_are_those_of_the_whole_state(cell):
    data, network = small_data(), network_of(cell)
    b, w_hh = np.asarray(network.cell.b), np.asarray(network.cell.w_hh)
    shut = network.cell._replace(
        b=jax.device_put(b - 1.5), w_hh=jax.device_put(w_hh * np.float32(0.4))
    )
    network = network._replace(cell=shut)  # so that 1 % is reached within 7 steps
    flow = flow_of(cell, network)
    assert 1 < np.max(flow.horizon) < 7
    T, xs = 7, data.test_xs[:, : demo.WATCHED]
    states = jax.tree.map(np.asarray, jaxrnn.unroll(cell, network.cell, xs))

    @jax.jit
    @jax.grad
    def by_last(last, image):
        scores = demo.logits(network, last.h)
        return -jax.nn.log_softmax(scores)[data.test_labels[image]]

    J = np.asarray(jaxrnn.matrix_products.from_tree(
        jaxrnn.jacobians.reverse_mode(jaxrnn.Run(cell, network.cell, xs))), np.float64)  # fmt: skip
    for image in (0, 9, 31):
        last = jax.tree.map(lambda leaf, i=image: leaf[-1, i], states)
        vector = np.concatenate([np.asarray(leaf) for leaf in by_last(last, image)])
        sizes = [np.linalg.norm(vector)]
        for i in range(T - 1, 0, -1):
            vector = vector @ J[i, image]
            sizes.append(np.linalg.norm(vector))
        felt = [lag for lag, size in enumerate(sizes) if size > 0.01 * sizes[0]]
        assert flow.horizon[image] == max(felt) + 1
    assert flow.exponent.shape == (demo.WATCHED,)
    bounds = flow.certificate.trajectory
    most = np.linalg.norm(J, 2, axis=(-2, -1))
    np.testing.assert_allclose(np.exp(bounds.step_upper), most[:, : demo.CERTIFIED], rtol=1e-2)
    summary = flow.summary()
    assert summary["verdict"] == (
        bounds.statement().verdict if flow.certificate.weights is None else flow.verdict
    )
    assert summary["memory_horizon"] == np.median(flow.horizon)


def test_spectral_norm_is_that_of_the_whole_state_jacobian():
    cell, data = jaxrnn.lstm(), small_data()
    network = network_of(cell)
    xs = np.asarray(data.test_xs)[:, : demo.WATCHED]

    @jax.jit
    def by_autodiff(network, xs):
        state0 = cell.init_state(network.cell, (demo.WATCHED,))
        before = previous(state0, jaxrnn.unroll(cell, network.cell, xs))
        state = jax.tree.map(lambda leaf: leaf[3, 2], before)
        flat, unravel = jax.flatten_util.ravel_pytree(state)

        def whole(v):
            return jax.flatten_util.ravel_pytree(cell.step(network.cell, unravel(v), xs[3, 2]))[0]

        return jax.jacrev(whole)(flat)

    expected = np.linalg.norm(by_autodiff(network, xs), 2)
    flow = flow_of(cell, network)
    np.testing.assert_allclose(flow.spectral_norm[3, 2], expected, rtol=1e-5)


def test_training_lowers_the_loss_and_the_same_seed_repeats_it():
    data, cell = small_data(), jaxrnn.rnn()
    network = network_of(cell, 2)

    def trained():
        with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix int and float
            return demo.train(cell, network, data, 100, jax.random.key(3), iter)

    first, steps, accuracy = trained()
    again, _, _ = trained()
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert steps.tolist() == [0, 50, 100]
    assert accuracy.shape == (3,)
    loss = jax.jit(functools.partial(demo.loss, cell))
    before, after = (loss(net, data.train_xs, data.train_labels) for net in (network, first))
    assert float(after) < 0.8 * float(before)


@pytest.mark.parametrize("steps", [0, -50, 30])
def test_steps_must_be_a_positive_multiple_of_fifty(steps):
    with pytest.raises(ValueError, match="steps: expected a positive multiple of 50"):
        demo.run(small_data(), steps=steps)


def test_the_digits_want_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"the digits come with scikit-learn: .*'jaxrnn\[demo\]'"):
        demo.load_digits()
