"""The cells beside rnn, lstm and gru: their coefficients to 50 digits, what they are made of."""

import dataclasses
import functools
import pickle

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import jaxrnn
from jaxrnn import activations, bptt, jacobians, unrolling
from jaxrnn.numerics.matrix_products import from_tree
from tests.support import drawing
from tests.support.profiles import short
from tests.support.table import ALL

NEW = [name for name in ALL if name not in ("lstm", "gru") and not name.startswith("rnn-")]

# --- coefficients in float32 ----------------------------------------------------------
# Of each coefficient its value and the sum of the absolute values of its terms, by the textbook's
# formulas: with 120 digits 1 - tanh² and 1 - σ lose none that count.


def logistic(z):
    return 1 / (1 + mpmath.exp(-z))


def slope(s):
    return s * (1 - s)


def pair(value, terms=None):
    return value, abs(value) if terms is None else terms


def lstm_like(i, f, g, o, c, di, df, dg, do):
    """What LSTMs share: the new c, its terms, and the coefficients that read it."""
    new, terms = f * c + i * g, abs(f * c) + abs(i * g)
    read = o * (1 - mpmath.tanh(new) ** 2)
    return {
        "f": pair(f), "ki": pair(g * di), "kf": pair(c * df), "kg": pair(i * dg),
        "ko": (mpmath.tanh(new) * do, terms * do), "r": pair(read, read * (1 + terms)),
    }  # fmt: skip


def plain_lstm(s, z, w):
    i, f, o = map(logistic, (z[0], z[1], z[3]))
    g = mpmath.tanh(z[2])
    return lstm_like(i, f, g, o, s[-1], slope(i), slope(f), 1 - g * g, slope(o))


def cifg(s, z, w):
    f, o, g, c = logistic(z[0]), logistic(z[2]), mpmath.tanh(z[1]), s[-1]
    found = lstm_like(1 - f, f, g, o, c, slope(f), slope(f), 1 - g * g, slope(o))
    del found["ki"]
    return found | {"kf": ((c - g) * slope(f), (abs(c) + abs(g)) * slope(f))}


def janet(s, z, w):
    f, late, n, h = logistic(z[0]), logistic(1 - z[0]), mpmath.tanh(z[1]), s[0]
    terms = h * slope(f), -n * slope(late)
    return {"f": pair(f), "kf": (sum(terms), sum(map(abs, terms))), "kc": pair(late * (1 - n * n))}


def ugrnn(s, z, w):
    g, n, h = logistic(z[0]), mpmath.tanh(z[1]), s[0]
    return {"g": pair(g), "kg": ((h - n) * slope(g), (abs(h) + abs(n)) * slope(g)),
            "kc": pair((1 - g) * (1 - n * n))}  # fmt: skip


def mgu(s, z, w):
    """a is 1 for the candidate, so that the reset is seen."""
    f, h = logistic(z[0]), s[0]
    n = mpmath.tanh(z[1] + f)
    kn = (1 - f) * (1 - n * n)
    terms = abs(h) + abs(n) + kn
    # The sum inside the tanh is rounded, and moves tanh' by its own size.
    inside = 1 + abs(z[1] + f)
    return {
        "f": pair(f),
        "kf": ((h - n + kn) * slope(f), terms * slope(f) * inside),
        "kn": (kn, kn * inside),
    }


def peephole_lstm(s, z, w):
    c = s[-1]
    i, f, g = logistic(z[0] + w[0] * c), logistic(z[1] + w[1] * c), mpmath.tanh(z[2])
    o = logistic(z[3] + w[2] * (f * c + i * g))
    found = lstm_like(i, f, g, o, c, slope(i), slope(f), 1 - g * g, slope(o))
    ki, kf, (ko, ko_terms), (read, read_terms) = (found[k] for k in ("ki", "kf", "ko", "r"))
    q = found.pop("f")[0], ki[0] * w[0], kf[0] * w[1]
    new = abs(f * c) + abs(i * g)
    # The sum inside the output gate is rounded, and moves σ' by its own size.
    inside = 1 + new + abs(z[3] + w[2] * (f * c + i * g))
    return {name: (value, terms * inside) for name, (value, terms) in found.items()} | {
        "q": (sum(q), sum(map(abs, q)) * inside),
        "r": (read + ko * w[2], (read_terms + ko_terms * abs(w[2])) * inside),
        "before": pair(c),
        "c": (f * c + i * g, new),
    }


TEXTBOOK = {
    "cifg": cifg, "janet": janet, "mgu": mgu, "ugrnn": ugrnn, "peephole_lstm": peephole_lstm,
    "projected_lstm": plain_lstm,
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTBOOK)
def test_coefficients_in_float32_are_right_to_8_ulp_and_none_is_0_in_saturation(name):
    """Pre-activations up to 80, where σ' is 1e-35 and 1 - tanh² of float32 is 0 since long."""
    cell, rng, n = ALL[name], np.random.default_rng(0), 400
    G, L, K = len(cell.gates), len(cell.state_type._fields), len(cell.units)
    # Multiples of 1/8, and peepholes and states of few bits: sums and products in the gates are
    # exact, so that nothing but the derivative itself is judged.
    z = np.round(8 * rng.uniform(-1, 1, (G, n)) * rng.choice([1, 10, 40, 80], (G, n))) / 8
    tenth = lambda *shape: rng.integers(-8, 9, shape) / 8  # noqa: E731
    s, w = tenth(L, n), tenth(K, n)
    a = np.zeros((G, n))
    if name == "mgu":
        a[1] = 1
    f32 = lambda leaf: jnp.asarray(leaf, jnp.float32)  # noqa: E731
    state = cell.state_type(*map(f32, s))
    state = state if cell.output is None else state._replace(h=None)
    units = (tuple(map(f32, w)),) if K else ()
    # One unit for each point: blocks side by side are the gates.
    partials = jax.jit(cell.phi.partials)(state, f32(z.ravel()), f32(a.ravel()), *units)
    for point in range(n):
        with mpmath.workdps(120):
            at = [[mpmath.mpf(float(v)) for v in part[:, point]] for part in (s, z, w)]
            want = TEXTBOOK[name](*at)
            assert set(want) == set(partials._fields)
            for field, (value, terms) in want.items():
                got = float(getattr(partials, field)[point])
                off = abs(mpmath.mpf(got) - value)
                # Beside 8 ulp of the terms, what is lost below the smallest normal number: so that
                # nothing above 1e-37 comes out as 0 unless its terms cancel.
                allowed = 8 * 2.0**-23 * terms + 4e-38
                assert off <= allowed, (field, at, got, float(value))


# --- params ----------------------------------------------------------------------------

BIASED = {"cifg": "f", "janet": "f", "mgu": "f", "ugrnn": "g", "peephole_lstm": "f",
          "projected_lstm": "f"}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", BIASED)
@short(dtype="bfloat16")
@short(dtype="float32", name="projected_lstm")
def test_init_draws_each_gate_by_itself_and_opens_the_gate_that_keeps(name, dtype):
    cell, G = ALL[name], len(ALL[name].gates)
    params = cell.init(jax.random.key(0), 3, 6, dtype=dtype, forget_bias=2.5)
    assert {leaf.dtype for leaf in params} == {jnp.dtype(dtype)}
    assert {f: leaf.shape for f, leaf in params._asdict().items()} == cell.shapes(3, 6)._asdict()
    biases = np.asarray(params.b, "float64").reshape(G, 6)
    at = cell.gates.index(BIASED[name])
    np.testing.assert_array_equal(biases[at], 2.5)
    assert not np.any(np.delete(biases, at, axis=0))
    columns = params.w_hh.shape[1]
    for block in np.asarray(params.w_hh, "float64").reshape(G, 6, columns):
        allowed = 4 * float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(block.T @ block, np.eye(columns), rtol=0, atol=allowed)
    for field in cell.units:
        assert not np.any(np.asarray(getattr(params, field), "float64"))
    state = cell.init_state(params, (2,))
    assert state.h.shape == (2, columns)
    assert all(leaf.dtype == jnp.dtype(dtype) for leaf in state)


def test_a_cell_of_other_activations_pickles_and_stays_equal():
    for cell in (ALL["lstm-hard"], ALL["gru-hard"], ALL["projected_lstm"], ALL["peephole_lstm"]):
        again = pickle.loads(pickle.dumps(cell))
        assert again == cell
        assert hash(again) == hash(cell)


# --- through time --------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 1))
def derivatives(unrolled, cell, at, along, masks):
    """Gradient, Hessian times `along`, and the tangent of the loss and states along it."""

    def loss(params, xs, state0):
        states = unrolled(cell, params, xs, state0, **masks)
        return sum(jnp.sum(jnp.sin(leaf) * leaf) for leaf in states)

    gradient = jax.grad(loss, argnums=(0, 1, 2))
    hessian = jax.jvp(gradient, at, along)
    _, tangent = jax.jvp(lambda *at: unrolled(cell, *at, **masks), at, along)
    return hessian, tangent


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", NEW)
@short(masked=True, name={"peephole_lstm", "projected_lstm", "mgu", "antisymmetric"})
@short(masked=False, name={"cifg", "lstm-hard"})
def test_gradient_hessian_and_tangent_equal_those_of_a_plain_scan(name, masked):
    cell, T = ALL[name], 6
    at = drawing.drawn(cell, T, (3,), 2, 4, scale=0.7, seed=1)
    along = drawing.drawn(cell, T, (3,), 2, 4, scale=1.0, seed=2)
    masks = {"lengths": jnp.array([6, 0, 3]), "resets": jnp.arange(18).reshape(6, 3) % 7 == 2}
    masks = masks if masked else {}
    ours = derivatives(jaxrnn.unroll, cell, at, along, masks)
    plain = derivatives(unrolling.by_autodiff, cell, at, along, masks)
    for part, allowed in ((lambda d: d[0][0], 1e-12), (lambda d: d[0][1], 1e-11),
                          (lambda d: d[1], 1e-12)):  # fmt: skip
        for got, want in zip(*map(jax.tree.leaves, (part(ours), part(plain))), strict=True):
            got, want = np.asarray(got), np.asarray(want)
            assert np.linalg.norm(got - want) <= allowed * max(np.linalg.norm(want), 1e-3)


@pytest.mark.parametrize("name", NEW)
@short(name={"projected_lstm", "peephole_lstm"})
def test_vmap_over_params_equals_one_after_another(name):
    cell = ALL[name]
    params, xs, state0 = drawing.drawn(cell, 5, (2,), 2, 4, scale=0.7, many=(3,))

    def gradient(params, xs, state0):
        return jax.grad(lambda p: jnp.sum(jnp.square(jaxrnn.unroll(cell, p, xs, state0).h)))(params)

    together = jax.jit(jax.vmap(gradient))(params, xs, state0)
    alone = jax.jit(gradient)
    for k in range(3):
        each = alone(*jax.tree.map(lambda leaf, k=k: leaf[k], (params, xs, state0)))
        for got, want in zip(jax.tree.leaves(together), jax.tree.leaves(each), strict=True):
            np.testing.assert_allclose(got[k], want, rtol=1e-12, atol=1e-13)


# --- what they are made of --------------------------------------------------------------


def folded(params):
    """W_hh W_hr of a projected LSTM in place of W_hh."""
    return (
        jaxrnn.Affine(params.w_ih, params.b),
        jaxrnn.Affine(params.w_hh @ params.w_hr, None),
    )


def test_the_projected_lstm_folded_is_a_plain_one_with_the_same_spectrum():
    """(m, c) with W_hh W_hr: the same states, the same eigenvalues, and H - P zeros more."""
    cell, H, P = ALL["projected_lstm"], 5, 2
    params, xs, _ = drawing.drawn(cell, 7, (3,), 4, H, scale=0.7)

    def by_lstm(params):
        w_hh = params.w_hh @ params.w_hr
        return jaxrnn.LSTMParams(params.w_ih, w_hh, params.b)

    states = jaxrnn.unroll(cell, params, xs)
    plain = jaxrnn.unroll(jaxrnn.lstm(), by_lstm(params), xs)
    np.testing.assert_allclose(states.c, plain.c, rtol=0, atol=1e-14)
    np.testing.assert_allclose(states.h, plain.h @ params.w_hr.T, rtol=0, atol=1e-14)
    small = np.linalg.eigvals(from_tree(jacobians.closed_form(jaxrnn.Run(cell, params, xs)))[3:])
    run = jaxrnn.Run(jaxrnn.lstm(), by_lstm(params), xs)
    large = np.linalg.eigvals(from_tree(jacobians.closed_form(run))[3:])
    order = lambda values: np.sort_complex(np.round(values, 9))  # noqa: E731
    assert (small.shape[-1], large.shape[-1]) == (P + H, 2 * H)
    for few, many in zip(small.reshape(-1, P + H), large.reshape(-1, 2 * H), strict=True):
        many = many[np.argsort(-np.abs(many))]
        np.testing.assert_allclose(np.abs(many[P + H :]), 0, rtol=0, atol=1e-7)
        np.testing.assert_allclose(
            order(few[np.argsort(-np.abs(few))]), order(many[: P + H]), rtol=0, atol=1e-8
        )


def test_a_weight_that_is_made_of_params_gives_its_parts_their_contributions():
    """The folded LSTM: contributions of w_hh and w_hr, which no projection has as its weight."""
    cell = dataclasses.replace(
        jaxrnn.lstm(), name="folded", projections=folded, shapes=folded_shapes
    )
    params, xs, state0 = drawing.drawn(cell, 5, (3,), 2, 4, scale=0.7)
    run = jaxrnn.Run(cell, params, xs, state0)
    loss = lambda states: jnp.sum(jnp.sin(states.h))  # noqa: E731
    found = bptt.contribution_norms(run, loss)
    each = bptt.temporal_contributions(run, loss)
    whole = jax.tree.map(lambda leaf: np.asarray(leaf).sum(0), each)
    for field in params._fields:
        rows = np.asarray(getattr(each, field)).reshape(5, -1)
        np.testing.assert_allclose(
            getattr(found.norm, field), np.linalg.norm(rows, axis=1), rtol=1e-12
        )
        np.testing.assert_allclose(
            getattr(found.inner, field),
            rows @ getattr(whole, field).ravel(),
            rtol=1e-10,
            atol=1e-13,
        )


def folded_shapes(D, H):
    return FoldedParams((4 * H, D), (4 * H, H), (4 * H,), (H, H))


FoldedParams = type(jaxrnn.ProjectedLSTMParams(0, 0, 0, 0))


def test_a_bias_that_is_made_of_a_weight_counts_for_the_weight():
    """b + W_ih 1: the contributions of w_ih have both ways."""

    def projections(params):
        shifted = params.b + params.w_ih.sum(1)
        return jaxrnn.Affine(params.w_ih, shifted), jaxrnn.Affine(params.w_hh, None)

    cell = dataclasses.replace(jaxrnn.rnn(), name="shifted", projections=projections)
    params, xs, state0 = drawing.drawn(cell, 5, (3,), 2, 4, scale=0.7)
    run = jaxrnn.Run(cell, params, xs, state0)
    loss = lambda states: jnp.sum(jnp.sin(states.h))  # noqa: E731
    found = bptt.contribution_norms(run, loss)
    # The same network: every input one more.
    same = jaxrnn.Run(jaxrnn.rnn(), params, xs + 1, state0)
    for field in params._fields:
        rows = np.asarray(getattr(bptt.temporal_contributions(same, loss), field)).reshape(5, -1)
        np.testing.assert_allclose(
            getattr(found.norm, field), np.linalg.norm(rows, axis=1), rtol=1e-11
        )


def test_peepholes_of_0_make_the_lstm():
    params, xs, state0 = drawing.drawn(jaxrnn.lstm(), 6, (2,), 3, 4)
    zeros = jnp.zeros(4, params.b.dtype)
    other = jaxrnn.PeepholeLSTMParams(*params, zeros, zeros, zeros)
    begin = jaxrnn.PeepholeLSTMState(*state0)
    ours = jaxrnn.unroll(jaxrnn.peephole_lstm(), other, xs, begin)
    for got, want in zip(ours, jaxrnn.unroll(jaxrnn.lstm(), params, xs, state0), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-15)


def test_activations_that_are_the_usual_ones_make_the_usual_cell():
    a = activations
    assert jaxrnn.lstm(a.sigmoid, a.tanh, a.tanh) is jaxrnn.lstm()
    assert jaxrnn.gru(a.sigmoid, a.tanh) is jaxrnn.gru()
    hard = jaxrnn.lstm(gate=a.hard_sigmoid)
    assert hard is jaxrnn.lstm(a.hard_sigmoid, a.tanh)
    assert hard != jaxrnn.lstm()
    assert hard.name == "lstm[hard_sigmoid,tanh,tanh]"
    assert jaxrnn.projected_lstm(3) is jaxrnn.projected_lstm(np.int64(3))
    assert jaxrnn.projected_lstm(3) != jaxrnn.projected_lstm(2)
