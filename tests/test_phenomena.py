"""Each claim holds by its numbers, and the numbers are those of the net."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import phenomena
from jaxrnn.running.unrolling import by_autodiff
from tests.support.modes import tol
from tests.support.profiles import short


@functools.cache
def found_of(case):
    """A phenomenon as it is by itself, in 64 bits, measured once for all tests."""
    return case()


@pytest.mark.parametrize("case", phenomena.ALL, ids=lambda case: case.__name__)
@short(case={phenomena.exploding_lstm, phenomena.vanishing})
def test_norms_are_those_of_autodiff_and_the_record_prints(case):
    """σ_max of jacrev through the last steps of a plain scan, from where `unroll` has come.

    A chaotic net would take two programs that round differently to different states.
    """
    found = found_of(case)
    for name, run in found.runs.items():
        T, states = run.xs.shape[0], run.states()

        @jax.jit
        def transports(run, states, T=T):
            each = []
            for lag in (1, 12):
                at = jax.tree.map(lambda leaf, k=T - 1 - lag: leaf[k], states)
                flat, unravel = jax.flatten_util.ravel_pytree(at)

                def last(v, lag=lag, unravel=unravel):
                    xs = run.xs[T - lag :]
                    states = by_autodiff(run.cell, run.params, xs, unravel(v))
                    return jax.flatten_util.ravel_pytree(jax.tree.map(lambda s: s[-1], states))[0]

                each.append(jax.jacrev(last)(flat))
            return each

        norms = np.asarray(found.log_norms[name])
        for lag, J in zip((1, 12), transports(run, states), strict=True):
            want = np.linalg.norm(J, 2)
            np.testing.assert_allclose(np.exp(norms[T - 1 - lag]), want, rtol=1e-9)
    words = str(found)
    assert words.startswith(found.claim)
    assert all(name in words for name in found.numbers)
    assert max(map(len, words.splitlines())) <= 100


def number(found, name):
    return float(found.numbers[name])


def test_vanishing():
    found = found_of(phenomena.vanishing)
    assert found.numbers["verdict"] == "vanishing certified"
    np.testing.assert_allclose(number(found, "γσ_max"), 0.9, rtol=1e-12)
    measured, bound = number(found, "measured at lag 100"), number(found, "bound at lag 100")
    assert 0 < measured <= bound < 3e-5
    assert number(found, "horizon, lag of 1 %") <= np.ceil(np.log(0.01) / np.log(0.9))


def test_exploding():
    found = found_of(phenomena.exploding)
    assert found.numbers["from the weights"] == found.numbers["along the inputs"]
    assert found.numbers["along the inputs"] == "explosion possible"
    rate, error = (number(found, n) for n in ("leading exponent, nats per step",
                                              "its standard error"))  # fmt: skip
    assert rate > 5 * error > 0
    assert number(found, "measured at lag 200") > 1e3
    assert "explodes" in found.claim


def test_a_gain_at_which_the_net_does_not_explode_is_not_said_to():
    found = phenomena.exploding(1.1)
    assert number(found, "leading exponent, nats per step") < 0
    assert number(found, "measured at lag 200") < 1
    assert "explodes" not in found.claim


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("steps", [3, 21, 100])
@short(steps=3, wide=True)
@short(steps=100, wide=False)
def test_exploding_without_eigenvalues(steps, wide):
    """In every dtype and over any number of steps, although the fixed point is unstable."""
    with jax.enable_x64(wide):
        found = phenomena.exploding_without_eigenvalues(steps)
        run = found.runs["tanh RNN"]
        h, w_hh = np.asarray(run.states().h), np.asarray(run.params.w_hh)
        again = np.asarray(jaxrnn.products.transport_norms(run))
        norms = np.asarray(found.log_norms["tanh RNN"])
        eps = float(jnp.finfo(h.dtype).eps)
    assert eps == (2.0**-52 if wide else 2.0**-23)
    np.testing.assert_array_equal(h, np.broadcast_to([0.0, 1.0], h.shape))
    np.testing.assert_array_equal(again, norms)
    assert number(found, "ρ(W_hh)") == 0
    np.testing.assert_array_equal(np.linalg.matrix_power(w_hh, 2), 0)
    assert found.numbers["from the weights"] == "explosion possible"
    K = np.diag(1 - np.tanh([0.0, 40.0]) ** 2) @ w_hh.astype(np.float64)
    for lag in range(1, steps):
        want = np.log(np.linalg.norm(np.linalg.matrix_power(K, lag), 2))
        got = norms[steps - 1 - lag]
        np.testing.assert_allclose(got, want, rtol=8 * eps, atol=8 * lag * eps)
    np.testing.assert_allclose(number(found, "growth per step"), 2, rtol=8 * eps * steps)


def test_remembering():
    found = found_of(phenomena.remembering)
    assert number(found, "LSTM, ‖∂s/∂s‖ at lag 200") > 0.1
    assert number(found, "tanh RNN, ‖∂h/∂h‖ at lag 200") < 1e-6
    assert number(found, "share of the memory path at lag 200") > 0.9


def test_a_bias_that_does_not_hold_is_not_said_to():
    found = phenomena.remembering(1.0)
    assert number(found, "LSTM, ‖∂s/∂s‖ at lag 200") < 0.01
    assert found.claim == "With forget bias 1 an LSTM's cell state does not hold for 200 steps."


def test_a_scale_at_which_the_lstm_does_not_explode_is_not_said_to():
    found = phenomena.exploding_lstm(0.5)
    assert number(found, "leading exponent, nats per step") < 0
    assert number(found, "measured at lag 20") < 1
    assert "does not explode" in found.claim


def test_the_lstm_explodes_although_every_forget_gate_is_small():
    found = found_of(phenomena.exploding_lstm)
    assert number(found, "largest forget gate") < 0.5
    assert number(found, "measured at lag 20") > 1e3
    assert number(found, "leading exponent, nats per step") > 0
    assert found.numbers["verdict"] == "explosion possible"
    assert found.numbers["the path that does it"] == "g"
    assert number(found, "its share at lag 20") > 0.5
    run = found.runs["LSTM"]
    h, params, xs = jax.tree.map(np.asarray, (run.states().h, run.params, run.xs))
    before = np.concatenate([np.zeros_like(h[:1]), h[:-1]])
    z = xs @ params.w_ih.T + before @ params.w_hh.T + params.b
    gate = (1 / (1 + np.exp(-np.split(z, 4, axis=-1)[1]))).max()
    np.testing.assert_allclose(number(found, "largest forget gate"), gate, rtol=1e-12)


def test_without_its_cell_state_the_lstm_is_a_plain_rnn():
    found = found_of(phenomena.without_cell_state)
    np.testing.assert_allclose(
        number(found, "largest difference of log norms to the RNN"), 0, rtol=0, atol=tol(1e-10)
    )
    stripped, plain = found.runs["hₜ = oₜ"], found.runs["sigmoid RNN"]
    np.testing.assert_allclose(stripped.states().h, plain.states().h, rtol=0, atol=1e-14)
    assert found.numbers["verdict"] == "vanishing certified"
    assert number(found, "hₜ = oₜ, ‖∂h/∂h‖ at lag 20") < 1e-9
    assert number(found, "LSTM, ‖∂s/∂s‖ at lag 20") > 1e-4


@pytest.mark.parametrize("biases", [(), (-1.0, 0.0, 4.0)], ids=["its own", "three"])
@short(biases=(-1.0, 0.0, 4.0))
def test_the_horizon_grows_with_the_forget_bias(biases):
    found = phenomena.forget_bias(biases) if biases else found_of(phenomena.forget_bias)
    steps = [int(value.split()[0]) for value in found.numbers.values()]
    assert steps == sorted(set(steps))
    assert steps[-1] > 10 * steps[1]
