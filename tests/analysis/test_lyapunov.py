"""Lyapunov exponents against linear systems, random products and QR over complex-step Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import digamma

import jaxrnn
from jaxrnn import lyapunov
from jaxrnn.numerics.matrix_products import from_tree
from tests.support.products import case, companion
from tests.support.profiles import short
from tests.support.table import CELLS, split
from tests.support.untied import drawn

LINEAR = jaxrnn.rnn(jaxrnn.activations.identity)


def zeros(*shape):
    return jnp.asarray(np.zeros(shape))


def linear(W):
    n = len(W)
    return jaxrnn.RNNParams(zeros(n, 1), jnp.asarray(W), zeros(n))


def brute_force(J, count, warmup=0, seed=99):
    """QR of every Jacobian in NumPy; seed 0 gives the library's first columns."""
    Q = np.linalg.qr(np.random.default_rng(seed).normal(size=(J.shape[-1], count)))[0]
    logs = []
    for step in J:
        Q, R = np.linalg.qr(step @ Q)
        logs.append(np.log(np.abs(np.diag(R))))
    return np.array(logs[warmup:])


@pytest.mark.parametrize("interval", [1, 4])
@pytest.mark.parametrize("name", [name for name in CELLS if name != "rnn-relu"])
@short(name="lstm", interval=4)
@short(name="rnn-tanh", interval=1)
def test_exponents_are_those_of_a_qr_over_complex_step_jacobians(name, interval):
    """From the same first columns, so that no warm-up need bring both frames together."""
    params, xs, state0, J = case(name, 60, 1)
    for count in (1, 3, J.shape[-1]):
        want = np.sort(brute_force(J, count, 20, seed=0).mean(0))[::-1]
        got = lyapunov.exponents(
            jaxrnn.Run(CELLS[name], params, xs, state0),
            count=count,
            warmup=20,
            interval=interval,
        )
        np.testing.assert_allclose(got.value, want, rtol=0, atol=1e-9)
        assert got.windows.shape == (40 // interval, count)
        mean = np.mean(got.windows, axis=0)
        np.testing.assert_allclose(np.sort(mean)[::-1], want, rtol=0, atol=1e-9)


def test_units_at_rest_have_exponents_of_minus_infinity():
    params, xs, state0 = drawn("rnn-relu", 30, (), 0)
    params = params._replace(b=jnp.asarray(np.full_like(params.b, -100.0)))
    got = lyapunov.exponents(jaxrnn.Run(CELLS["rnn-relu"], params, xs, state0))
    assert np.isneginf(got.value).all()
    assert np.isposinf(got.error).all()  # 30 windows, and none tells an error


@pytest.mark.parametrize("interval", [1, 5])
@pytest.mark.parametrize("count", [1, 3, 7])
@short(count=1, interval=1)
@short(count=3, interval=5)
@short(count=7, interval=1)
def test_a_frame_that_dies_in_the_warm_up_is_no_exponent_of_what_follows(count, interval):
    """Step 3 kills all units, step 30 only the first, whose unit vector a QR would have put in
    place of the dead frame."""
    n = 8
    xs = np.ones((40, n))
    xs[3], xs[30, 0] = -100, -1000
    params = jaxrnn.RNNParams(*[jnp.asarray(leaf) for leaf in (np.eye(n), np.eye(n), np.zeros(n))])
    run = jaxrnn.Run(CELLS["rnn-relu"], params, jnp.asarray(xs))
    first = np.linalg.qr(np.random.default_rng(0).normal(size=(n, count)))[0]
    R = np.linalg.qr(first * (np.arange(n) > 0)[:, None])[1]
    want = np.sort(np.log(np.abs(np.diag(R))) / 20)[::-1]
    got = lyapunov.exponents(run, warmup=20, interval=interval, count=count).value
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
    whole = lyapunov.exponents(run, interval=interval, count=count)
    assert np.isneginf(whole.value).all()


@pytest.mark.parametrize("interval", [1, 5])
def test_linear_systems_have_the_logs_of_their_eigenvalues(interval):
    generator = np.random.default_rng(0)
    systems = [np.diag([2.0, 1.0, 0.5, 1e-3]), companion(0.4), companion(3.0)]
    for _ in range(3):  # with real and complex eigenvalues, none normal
        V = generator.normal(size=(4, 4))
        block = np.diag([1.7, 0.9, 0.0, 0.0])
        block[2:, 2:] = [[0.3, -0.2], [0.2, 0.3]]
        systems.append(V @ block @ np.linalg.inv(V))
    for W in systems:
        got = lyapunov.exponents(
            jaxrnn.Run(LINEAR, linear(W), zeros(4000, 1)), warmup=2000, interval=interval
        )
        value = np.asarray(got.value)
        want = np.sort(np.log(np.abs(np.linalg.eigvals(W))))[::-1]
        if len(set(np.round(want, 6))) == 4 or np.ptp(want) < 1e-9:
            np.testing.assert_allclose(value, want, rtol=0, atol=1e-6)
        else:  # the pair of complex ones turns: its mean is exact, each of both to 1/T
            np.testing.assert_allclose(value, want, rtol=0, atol=2e-3)
            np.testing.assert_allclose(value[2:].sum(), want[2:].sum(), rtol=0, atol=1e-6)


def test_products_of_gaussian_matrices_have_newmans_exponents():
    """λⱼ = ½[log(2/N) + ψ((N-j+1)/2)], entries N(0, 1/N); each input picks a matrix of its own."""
    N, T = 3, 4000

    def step(params, state, x):
        return {"h": x.reshape(N, N) @ state["h"]}

    cell = jaxrnn.from_step(step, init_state=lambda p: {"h": jnp.ones(N)})
    xs = jnp.asarray(np.random.default_rng(3).normal(size=(T, 4, N * N)) / np.sqrt(N))
    got = lyapunov.exponents(jaxrnn.Run(cell, jnp.asarray(0.0), xs), warmup=50)
    want = 0.5 * (np.log(2 / N) + digamma((N - np.arange(N)) / 2))
    assert got.value.shape == got.error.shape == (4, N)
    value, error = np.asarray(got.value), np.asarray(got.error)
    assert np.all(np.abs(value - want) < 4 * error)  # 12 draws
    mean, of_mean = value.mean(0), np.sqrt((error**2).sum(0)) / 4
    assert np.all(np.abs(mean - want) < 3 * of_mean)
    # The error itself: as the spread over the four trajectories, within what four can tell.
    ratio = value.std(0, ddof=1) / error.mean(0)
    assert np.all((ratio > 0.2) & (ratio < 4))


@pytest.mark.parametrize("name", ["rnn-tanh", "lstm", "gru"])
def test_their_sum_is_the_mean_log_volume(name):
    params, xs, state0, J = case(name, 60, 2)
    got = lyapunov.exponents(jaxrnn.Run(CELLS[name], params, xs, state0))
    want = np.linalg.slogdet(J)[1].mean()
    np.testing.assert_allclose(np.sum(got.value), want, rtol=1e-10)


def test_batches_windows_and_a_shorter_last_window():
    cell = CELLS["gru"]
    params, xs, state0 = drawn("gru", 23, (2, 3), 0)
    many = lyapunov.exponents(jaxrnn.Run(cell, params, xs, state0), count=2, warmup=3, interval=6)
    many, xs, state0 = jax.tree.map(np.asarray, (many, xs, state0))
    assert many.value.shape == (2, 3, 2)
    assert many.windows.shape == (4, 2, 3, 2)  # 6 + 6 + 6 + 2 steps
    weights = np.array([6, 6, 6, 2])[:, None, None, None]
    mean = (many.windows * weights).sum(0) / 20
    np.testing.assert_allclose(np.sort(mean)[..., ::-1], many.value, rtol=1e-12)
    one = jax.tree.map(lambda leaf: jnp.asarray(leaf[1, 2]), state0)
    alone = lyapunov.exponents(
        jaxrnn.Run(cell, params, jnp.asarray(xs[:, 1, 2]), one), count=2, warmup=3, interval=6
    )
    np.testing.assert_allclose(alone.value, many.value[1, 2], rtol=1e-12)
    assert np.isinf(alone.error).all()  # 3 whole windows tell no error


def test_a_window_longer_than_the_range_of_float32():
    W = np.diag([1e3, 2e3]).astype(np.float32)
    given = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (linear(W), zeros(200, 1)))
    got = lyapunov.exponents(jaxrnn.Run(LINEAR, *given), warmup=50, interval=50)
    np.testing.assert_allclose(np.asarray(got.value)[0], np.log(2e3), rtol=1e-6)


def test_the_leading_exponent_has_the_derivative_of_a_difference_quotient():
    cell = CELLS["rnn-tanh"]
    params, xs, state0 = drawn("rnn-tanh", 30, (), 0)

    def leading(scale):
        moved = params._replace(w_hh=scale * params.w_hh)
        return lyapunov.exponents(jaxrnn.Run(cell, moved, xs, state0), count=2, warmup=5).value[0]

    both = jax.jit(jax.value_and_grad(leading))
    above, below = (np.asarray(both(at)[0]) for at in (1 + 1e-5, 1 - 1e-5))
    np.testing.assert_allclose(both(1.0)[1], (above - below) / 2e-5, rtol=1e-6)


def test_the_lstm_without_its_cell_state_would_have_other_exponents():
    """The block ∂h/∂h alone, as some codes take it, is not the LSTM's linearisation."""
    params, xs, state0, J = case("lstm", 300, 1)
    run = jaxrnn.Run(CELLS["lstm"], params, xs, state0)
    full = np.asarray(lyapunov.exponents(run, count=1, warmup=100).value)[0]
    half = brute_force(J[:, :4, :4], 1, 100).mean()
    matrices = jax.jit(lambda run: from_tree(jaxrnn.jacobians.closed_form(run)))(run)
    np.testing.assert_allclose(full, brute_force(np.asarray(matrices), 1, 100).mean(), rtol=1e-9)
    assert full - half > 0.3


def test_exponents_print_as_a_table():
    params, xs, state0 = drawn("gru", 40, (2,), 0)
    lines = str(
        lyapunov.exponents(jaxrnn.Run(CELLS["gru"], params, xs, state0), count=2)
    ).splitlines()
    assert lines[0].split() == ["j", "nats", "per", "step"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2"]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"count": 5}, ValueError, "count: expected at most n = 4"),
        ({"count": 0}, ValueError, "count: expected an integer of at least 1"),
        ({"count": 2.0}, TypeError, "count: expected an integer"),
        ({"warmup": 6}, ValueError, "warmup: expected fewer steps than T = 6, got 6"),
        ({"warmup": -1}, ValueError, "warmup: expected an integer of at least 0"),
        ({"interval": 0}, ValueError, "interval: expected an integer of at least 1"),
        ({"interval": True}, TypeError, "interval: expected an integer"),
    ],
)
def test_bad_options_are_refused_by_name(given, error, words):
    params, xs, state0 = drawn("gru", 6, (), 0)
    with pytest.raises(error, match=words):
        lyapunov.exponents(jaxrnn.Run(CELLS["gru"], params, xs, state0), **given)
    with pytest.raises(error, match=words):
        jax.jit(
            lambda xs: lyapunov.exponents(jaxrnn.Run(CELLS["gru"], params, xs, state0), **given)
        )(xs)


def test_a_batch_that_an_explicit_mesh_splits_is_refused():
    params, xs, _ = drawn("rnn-tanh", 4, (2,))
    across, mesh = split(xs)
    words = r"^xs: expected an array that no explicit mesh splits, got float64\[4,2@batch,"
    with (
        jax.sharding.use_abstract_mesh(mesh),
        pytest.raises(NotImplementedError, match=words),
    ):
        jax.eval_shape(lyapunov.exponents, jaxrnn.Run(CELLS["rnn-tanh"], params, across))
