"""Initialisers: the numbers that they promise, measured by NumPy or by other modules."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import initializers, lyapunov
from jaxrnn.cells.activations import identity as linear
from tests.support import drawing, table
from tests.support.modes import WIDEST
from tests.support.profiles import short

CELLS = {name: table.CELLS[name] for name in ("rnn-tanh", "lstm", "gru")}


@functools.cache
def fresh(cell, H=6, D=2, dtype=WIDEST, **options):
    """The params that a cell draws."""
    return cell.init(jax.random.key(0), D, H, dtype=dtype, **options)


def drawn(cell, H=6, seed=1, scale=1.0):
    """Params with every leaf N(0, scale²), biases included."""
    leaves = drawing.leaves(np.random.default_rng(seed), cell.shapes(2, H), scale)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, WIDEST), leaves)


def inputs(shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), WIDEST)


def blocks(cell, leaf):
    return dict(zip(cell.gates, np.split(np.asarray(leaf), len(cell.gates)), strict=True))


@pytest.mark.parametrize("name", CELLS)
def test_each_gate_is_orthogonal_by_itself_and_the_identity_is_one(name):
    cell = CELLS[name]
    for block in blocks(cell, fresh(cell).w_hh).values():
        np.testing.assert_allclose(block @ block.T, np.eye(6), rtol=0, atol=1e-14)
    scaled = fresh(cell, recurrent_init=initializers.identity(0.5))
    for block in blocks(cell, scaled.w_hh).values():
        np.testing.assert_array_equal(block, 0.5 * np.eye(6))


def test_an_irnn_keeps_a_state_that_nothing_changes():
    cell = jaxrnn.rnn(jaxrnn.activations.relu)
    params = fresh(cell, recurrent_init=initializers.identity())
    state = cell.state_type(jnp.asarray(np.arange(6.0)))
    xs = jnp.asarray(np.zeros((1000, 2)))
    states = np.asarray(jaxrnn.unroll(cell, params, xs, state).h)
    np.testing.assert_array_equal(states[-1], state.h)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("jitted", [False, True])
def test_the_bias_of_one_gate_alone_changes(name, jitted):
    cell = CELLS[name]
    params, arange = drawn(cell), jnp.asarray(np.arange(6.0), WIDEST)

    def changed(params):
        f = functools.partial(initializers.with_gate_bias, cell, params)
        return {gate: [f(gate, bias) for bias in (-1.5, arange)] for gate in cell.gates}

    for gate, each in (jax.jit(changed) if jitted else changed)(params).items():
        for new, bias in zip(each, (-1.5, arange), strict=True):
            for other, block in blocks(cell, new.b).items():
                want = np.broadcast_to(bias, 6) if other == gate else blocks(cell, params.b)[other]
                np.testing.assert_array_equal(block, want)
            assert all(
                getattr(new, f) is getattr(params, f) or jitted for f in new._fields if f != "b"
            )


@pytest.mark.parametrize(("name", "keep"), [("lstm", "f"), ("gru", "z")])
def test_chrono_gates_forget_over_lags_in_the_range(name, keep):
    cell = CELLS[name]
    shapes = cell.shapes(2, 500)
    params = type(shapes)(*[jnp.asarray(np.zeros(shape)) for shape in shapes])
    news = [initializers.chrono(cell, params, jax.random.key(seed), longest=100.0, shortest=10.0)
            for seed in range(8)]  # fmt: skip
    # σ(b) = 1 - 1/τ: with nothing else, the state falls by a factor e in about τ steps.
    biases = np.concatenate([blocks(cell, new.b)[keep] for new in news])
    lag = 1 / (1 - 1 / (1 + np.exp(-biases)))
    assert lag.min() >= 10 - 1e-9
    assert lag.max() <= 100 + 1e-9
    # Uniform: the largest distance between both distributions is below 2/√N (Kolmogorov).
    off = np.abs(np.sort((lag - 10) / 90) - (np.arange(4000) + 0.5) / 4000)
    assert off.max() < 2 / np.sqrt(4000)
    new, found = news[0], blocks(cell, news[0].b)
    for other, block in found.items():
        if other == "i":
            np.testing.assert_array_equal(block, -found["f"])
        elif other != keep:
            np.testing.assert_array_equal(block, 0)
    np.testing.assert_array_equal(new.w_hh, params.w_hh)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("name", ["hard_sigmoid", "keras2_hard_sigmoid"])
@pytest.mark.parametrize("jitted", [False, True])
def test_chrono_asks_the_cells_own_gate(kind, name, jitted):
    """A bias that a sigmoid would need holds a hard sigmoid shut or open for good."""
    gate = getattr(jaxrnn.activations, name)
    cell = getattr(jaxrnn, kind)(gate=gate)
    params = fresh(cell, H=50)
    key = jax.random.key(2)
    chrono = functools.partial(initializers.chrono, cell, longest=1000, shortest=200)
    new = (jax.jit(chrono) if jitted else chrono)(params, key)
    slope, found = {"hard_sigmoid": 1 / 6, "keras2_hard_sigmoid": 0.2}[name], blocks(cell, new.b)
    keep = 0.5 + slope * np.asarray(found["f" if kind == "lstm" else "z"])
    lag = 1 / (1 - keep)
    assert 200 - 1e-6 <= lag.min() < lag.max() <= 1000 + 1e-6
    if kind == "lstm":
        np.testing.assert_allclose(
            0.5 + slope * np.asarray(found["i"]), 1 - keep, rtol=0, atol=1e-12
        )


def test_chrono_refuses_gates_that_keep_no_share():
    cell = jaxrnn.lstm(gate=jaxrnn.activations.tanh)
    with pytest.raises(
        ValueError, match=r"^cell: expected forget gates between 0 and 1, got .*-1 and 1"
    ):
        initializers.chrono(cell, fresh(cell), jax.random.key(0), longest=10)


def test_chrono_lstm_remembers_longer():
    cell = CELLS["lstm"]
    short = fresh(cell, H=32, forget_bias=0.0)
    long = initializers.chrono(cell, short, jax.random.key(3), longest=200)
    xs = inputs((200, 4, 2), 4)
    horizon = jax.jit(lambda p: jaxrnn.memory_horizon(
        jaxrnn.products.transport_norms(jaxrnn.Run(cell, p, xs))).mean())  # fmt: skip
    assert float(horizon(long)) > 5 * float(horizon(short))


@pytest.mark.parametrize("name", CELLS)
def test_gates_drawn_anew_are_orthogonal_and_the_others_stay(name):
    cell = CELLS[name]
    params, gates = drawn(cell), cell.gates[-2:]
    new = initializers.redrawn(cell, params, jax.random.key(5), gates)
    for gate in cell.gates:
        old_w, old_b = blocks(cell, params.w_hh)[gate], blocks(cell, params.b)[gate]
        w, b = blocks(cell, new.w_hh)[gate], blocks(cell, new.b)[gate]
        w_ih = blocks(cell, new.w_ih)[gate], blocks(cell, params.w_ih)[gate]
        if gate in gates:
            np.testing.assert_allclose(w @ w.T, np.eye(6), rtol=0, atol=1e-14)
            assert not np.any(b)
            assert np.all(w_ih[0] != w_ih[1])
        else:
            np.testing.assert_array_equal(w, old_w)
            np.testing.assert_array_equal(b, old_b)
            np.testing.assert_array_equal(*w_ih)


def test_the_bias_inside_the_reset_is_that_of_gate_n():
    """As `init` draws a new gate n; the draw of any other gate leaves b_hn."""
    cell = CELLS["gru"]
    params = drawn(cell)
    assert np.all(np.asarray(params.b_hn) != 0)
    np.testing.assert_array_equal(fresh(cell).b_hn, 0)
    for gates, want in ((("n",), 0), (("r", "n"), 0), (("r", "z"), params.b_hn)):
        new = initializers.redrawn(cell, params, jax.random.key(5), gates)
        np.testing.assert_array_equal(new.b_hn, want)
        assert new.b_hn.dtype == params.b_hn.dtype


def test_a_projected_output_and_peepholes_are_known_to_gates():
    """w_hh has P columns, and H is that of a gate's rows."""
    cell, key = table.ALL["projected_lstm"], jax.random.key(5)
    params = drawn(cell)
    new = initializers.with_gate_bias(cell, params, "f", 2.0)
    np.testing.assert_array_equal(blocks(cell, new.b)["f"], np.full(6, 2.0))
    lags = blocks(cell, initializers.chrono(cell, params, key, longest=50.0).b)["f"]
    assert lags.shape == (6,)
    assert np.all(lags > 0)
    new = initializers.redrawn(cell, params, key, ("f",))
    w, old = blocks(cell, new.w_hh), blocks(cell, params.w_hh)
    np.testing.assert_allclose(w["f"].T @ w["f"], np.eye(2), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(w["o"], old["o"])
    cell = table.ALL["peephole_lstm"]
    params = drawn(cell)
    new = initializers.redrawn(cell, params, key, ("f",))
    np.testing.assert_array_equal(new.p_f, 0)
    np.testing.assert_array_equal(new.p_i, params.p_i)


def test_a_weight_that_is_made_of_params_is_not_scaled_to_a_bound():
    cell = table.ALL["antisymmetric"]
    with pytest.raises(ValueError, match=r"cell: expected a cell whose recurrent weight is params"):
        initializers.scaled_to_bound(cell, drawn(cell))


@pytest.mark.parametrize("scale", [1e-30, 0.3, 1.0, 1e30])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu", "identity"])
def test_scaled_to_its_bound_numpy_finds_the_bound(scale, activation):
    cell = jaxrnn.rnn(getattr(jaxrnn.activations, activation))
    params = drawn(cell, scale=scale)
    new = initializers.scaled_to_bound(cell, params, 0.9)
    gamma = 0.25 if activation == "sigmoid" else 1.0
    np.testing.assert_allclose(gamma * np.linalg.norm(new.w_hh, 2), 0.9, rtol=1e-13)
    zero = params._replace(w_hh=jnp.asarray(np.zeros_like(params.w_hh)))
    assert not np.any(initializers.scaled_to_bound(cell, zero).w_hh)


def test_then_the_certificate_excludes_an_explosion():
    cell = CELLS["rnn-tanh"]
    params = drawn(cell, scale=3.0)
    new = initializers.scaled_to_bound(cell, params, 1 - 1e-12)
    verdict = jaxrnn.certificates.of_weights(cell, new).statement().verdict
    assert verdict in (jaxrnn.certificates.EXCLUDED, jaxrnn.certificates.VANISHING)


@pytest.mark.parametrize("target", [-0.7, 0.0, 0.4])
def test_a_linear_net_is_scaled_by_the_difference_of_the_exponents(target):
    cell = jaxrnn.rnn(linear)
    params = drawn(cell, H=5, seed=6, scale=0.5)
    xs = jnp.asarray(np.zeros((400, 1, 2)))
    found = initializers.scaled_to_exponent(jaxrnn.Run(cell, params, xs), target, warmup=50)
    before = lyapunov.exponents(jaxrnn.Run(cell, params, xs), count=1, warmup=50).value
    factor = np.asarray(found.factor)
    np.testing.assert_allclose(found.exponent, target, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.log(factor), target - np.mean(before), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.params.w_hh, factor * np.asarray(params.w_hh), rtol=1e-13)


@pytest.mark.parametrize("name", CELLS)
@short(name="gru")
def test_any_cell_is_brought_to_an_exponent(name):
    cell = CELLS[name]
    params = fresh(cell, H=16)
    xs = inputs((80, 4, 2), 7)
    target = -0.1 if name == "rnn-tanh" else -0.15
    found = initializers.scaled_to_exponent(jaxrnn.Run(cell, params, xs), target, warmup=20)
    again = lyapunov.exponents(jaxrnn.Run(cell, found.params, xs), count=1, warmup=20).value
    np.testing.assert_allclose([found.exponent, np.mean(again)], target, rtol=0, atol=1e-4)


def test_what_the_recurrent_weights_cannot_reach_is_said():
    """Forget gates of σ(6) keep λ₁ above -0.01 whatever W_hh is."""
    cell = CELLS["lstm"]
    params = fresh(cell, H=4, forget_bias=6.0)
    xs = jnp.asarray(np.zeros((60, 1, 2)))
    found = initializers.scaled_to_exponent(jaxrnn.Run(cell, params, xs), -1.0)
    assert found.exponent > -0.1
    assert np.isfinite(found.factor)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@short(dtype=jnp.bfloat16)
def test_the_dtype_stays(dtype):
    cell, rnn = CELLS["lstm"], CELLS["rnn-tanh"]
    params, of_rnn = (
        jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), jax.tree.map(np.asarray, drawn(one)))
        for one in (cell, rnn)
    )
    xs = jnp.asarray(np.ones((20, 1, 2)), dtype)
    for new in (
        initializers.with_gate_bias(cell, params, "f", 1.0),
        initializers.chrono(cell, params, jax.random.key(8), longest=50),
        initializers.redrawn(cell, params, jax.random.key(8), ("o",)),
        initializers.scaled_to_exponent(jaxrnn.Run(cell, params, xs), -0.3).params,
        initializers.scaled_to_bound(rnn, of_rnn),
    ):
        assert {leaf.dtype for leaf in new} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("target", [-1.0, 0.0, 2.0, 50.0])
def test_relu_units_that_die_or_overflow_leave_the_nearest_that_was_seen(target):
    """λ₁ jumps where a unit dies and is inf where the state is; own weights are on the grid."""
    cell = jaxrnn.rnn(jaxrnn.activations.relu)
    params, xs = fresh(cell, H=8), inputs((50, 3, 2), 9)
    params = params._replace(b=jnp.asarray(np.asarray(params.b) + 0.3))
    found = initializers.scaled_to_exponent(jaxrnn.Run(cell, params, xs), target)
    assert np.isfinite([found.factor, found.exponent]).all()
    each = np.asarray(lyapunov.exponents(jaxrnn.Run(cell, params, xs), count=1).value)
    own = np.mean(each[each != -np.inf])
    assert abs(found.exponent - target) <= abs(own - target) + 1e-9


def test_an_example_through_which_no_gradient_comes_is_left_out():
    """Its exponent is -inf: all its relus are below 0, whatever the factor."""
    cell = jaxrnn.rnn(jaxrnn.activations.relu)
    params = jax.tree.map(lambda leaf: jnp.asarray(np.abs(leaf)), drawn(cell, scale=0.3))
    alive = np.abs(np.random.default_rng(2).normal(size=(40, 1, 2)))
    both = np.concatenate([alive, np.full((40, 1, 2), -1e6)], 1)
    alive, both = jnp.asarray(alive, WIDEST), jnp.asarray(both, WIDEST)
    want = initializers.scaled_to_exponent(jaxrnn.Run(cell, params, alive), -0.1)
    found = initializers.scaled_to_exponent(jaxrnn.Run(cell, params, both), -0.1)
    np.testing.assert_allclose(want.exponent, -0.1, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.exponent, want.exponent, rtol=1e-12)
    np.testing.assert_allclose(found.factor, want.factor, rtol=1e-12)


@pytest.mark.parametrize("value", [jnp.nan, 0.0])
def test_where_no_exponent_is_finite_the_weights_stay(value):
    cell = CELLS["rnn-tanh"]
    params = fresh(cell)
    params = params._replace(w_hh=jnp.asarray(value * np.asarray(params.w_hh)))
    xs = jnp.asarray(np.ones((20, 2, 2)))
    found = initializers.scaled_to_exponent(jaxrnn.Run(cell, params, xs), 0.0)
    assert found.factor == 1
    assert not np.isfinite(found.exponent)


@pytest.mark.parametrize("size", [3e38, 1e-37])
def test_a_bound_is_reached_from_either_end_of_float32(size):
    cell = CELLS["rnn-tanh"]
    params = fresh(cell, dtype=jnp.float32)
    params = params._replace(w_hh=jnp.asarray(np.full((6, 6), size, np.float32)))
    new = initializers.scaled_to_bound(cell, params, 0.5)
    np.testing.assert_allclose(np.linalg.norm(new.w_hh, 2), 0.5, rtol=1e-6)


def test_a_bias_may_be_a_scalar_array_and_mapped():
    cell = CELLS["lstm"]
    params = fresh(cell)
    f = lambda bias: initializers.with_gate_bias(cell, params, "f", bias).b  # noqa: E731
    want = f(2.0)
    for bias in (np.float32(2), jnp.asarray(2.0)):
        np.testing.assert_array_equal(f(bias), want)
    np.testing.assert_array_equal(np.asarray(jax.vmap(f)(jnp.array([1.0, 2.0])))[1], want)


def test_params_of_numpy_as_they_come_from_a_file_will_do():
    cell, key = jaxrnn.gru(), jax.random.key(1)
    params = fresh(cell, H=3)
    for f in (
        lambda p: initializers.with_gate_bias(cell, p, "z", 2.0),
        lambda p: initializers.chrono(cell, p, key, longest=50),
        lambda p: initializers.redrawn(cell, p, key, ("n",)),
    ):
        got, want = f(jax.tree.map(np.asarray, params)), f(params)
        jax.tree.map(np.testing.assert_array_equal, got, want)
