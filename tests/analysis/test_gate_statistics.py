"""Statistics of gates against NumPy's equations of each cell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import activations
from jaxrnn.analysis.gate_statistics import of_sums, sums
from jaxrnn.running.steps import trajectory
from tests.support import untied
from tests.support.profiles import short
from tests.support.reference import logistic

T, B = 9, 4


def statistics(cell, params, xs, lengths=None, parts=1):
    """By parts of the batch, as a diagnosis takes them."""

    @jax.jit
    def of_parts(params, xs, lengths):
        total = None
        for rows in np.array_split(np.arange(B), parts):
            own = None if lengths is None else lengths[rows]
            run = jaxrnn.Run(cell, params, xs[:, rows], lengths=own)
            found = sums(run, trajectory(run))
            total = found if total is None else jax.tree.map(jnp.add, total, found)
        return of_sums(total)

    return jax.tree.map(np.asarray, of_parts(params, xs, lengths))


def gates(name, params, before, x):
    """The gates of a step by NumPy."""
    u, a = np.split(params.w_ih @ x + params.b, 1)[0], params.w_hh @ before
    if name == "lstm":
        i, f, g, o = np.split(u + a, 4)
        return {"i": logistic(i), "f": logistic(f), "g": np.tanh(g), "o": logistic(o)}
    if name == "gru":
        (ur, uz, un), (ar, az, an) = np.split(u, 3), np.split(a, 3)
        r = logistic(ur + ar)
        return {"r": r, "z": logistic(uz + az), "n": np.tanh(un + r * (an + params.b_hn))}
    return {"h": {"tanh": np.tanh, "relu": lambda z: np.maximum(z, 0)}[name[4:]](u + a)}


ENDS = {"g": (-0.8, 0.8), "n": (-0.8, 0.8)}


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["rnn-tanh", "rnn-relu", "lstm", "gru"])
@short(name={"rnn-tanh", "rnn-relu", "gru"}, masked=True, parts=3)
@short(name="lstm", masked=False, parts=1)
def test_statistics_are_those_of_every_live_step(name, masked, parts):
    cell = untied.CELLS[name]
    params, xs, _ = untied.drawn(name, T, (B,))
    params = jax.tree.map(
        lambda leaf: 4 * np.asarray(leaf), params
    )  # so that some gates reach their ends
    lengths = np.array([T - 1, 3, 0, 1]) if masked else None
    found = statistics(cell, params, xs, lengths, parts)
    assert set(found) == set(cell.gates)

    h = np.asarray(jaxrnn.unroll(cell, params, xs, lengths=lengths).h)
    xs = np.asarray(xs)
    ends = [T] * B if lengths is None else [int(n) for n in lengths]
    values = {gate: np.full((T, B, untied.H), np.nan) for gate in cell.gates}
    for b, n in enumerate(ends):
        for k in range(n):
            before = h[k - 1, b] if k else np.zeros(untied.H)
            for gate, value in gates(name, params, before, xs[k, b]).items():
                values[gate][k, b] = value
    for gate, value in values.items():
        low, high = ENDS.get(gate, (-0.8, 0.8) if name == "rnn-tanh" else (0.1, 0.9))
        flat = value[~np.isnan(value).any(-1)]
        is_low, is_high = flat < low, flat > high
        if name == "rnn-relu":
            is_low, is_high = flat <= 0, np.zeros(flat.shape, bool)
        got = found[gate]
        np.testing.assert_allclose(got.mean, flat.mean(0), rtol=0, atol=1e-12)
        np.testing.assert_allclose(got.low, is_low.mean(0), rtol=0, atol=1e-12)
        np.testing.assert_allclose(got.high, is_high.mean(0), rtol=0, atol=1e-12)
        for k in range(T):
            live = value[k][~np.isnan(value[k]).any(-1)]
            want = live.mean(0) if len(live) else np.full(untied.H, np.nan)
            np.testing.assert_allclose(got.over_time[k], want, rtol=0, atol=1e-12)


def test_a_cell_that_does_not_show_its_gates_has_none():
    params, xs, state0 = untied.drawn("step", T, (B,))
    run = jaxrnn.Run(untied.NORMED, params, xs, state0)
    assert sums(run, trajectory(run)) is None


def test_an_activation_without_ends_saturates_nowhere():
    cell = jaxrnn.rnn(activations.identity)
    params, xs, _ = untied.drawn("rnn-identity", T, (B,))
    (found,) = statistics(cell, params, 100 * np.asarray(xs)).values()
    assert not found.low.any()
    assert not found.high.any()
