"""Closed-form Jacobians against complex steps, forward mode, reverse mode."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import jacobians
from jaxrnn.numerics.time_axis import previous
from tests.support import drawing, reference
from tests.support.jacobian_cases import closed, drawn, worst
from tests.support.modes import WIDEST, tol
from tests.support.profiles import short
from tests.support.table import ALL, CELLS, SCALES, SHAPES

# Of a shape and scale, of which there are 12 × 3 for each cell: 18,000 cases, and 180,000.
CASES, MANY = 500, 5000


@functools.partial(jax.jit, static_argnums=(0, 1))
def autodiff(mode, cell, params, state, x):
    return jax.vmap(mode(cell.step, argnums=1))(params, state, x)


@pytest.mark.parametrize("cases", [CASES, pytest.param(MANY, marks=pytest.mark.long)])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"D{s[0]}H{s[1]}")
@pytest.mark.parametrize("name", ALL)
@short(name={"lstm", "gru"})
@short(name="rnn-tanh", shape={(1, 1), (3, 4)})
@short(name="rnn-sigmoid", shape=(7, 2))
@short(name="rnn-relu", shape=(2, 3))
@short(name="rnn-identity", shape=(1, 5))
@short(name={"cifg", "janet", "mgu", "ugrnn", "peephole_lstm", "projected_lstm"}, shape=(3, 4))
@short(name={"lstm-hard", "lstm-softsign", "gru-hard", "antisymmetric"}, shape=(5, 3))
def test_closed_form_equals_numpy_complex_step_in_every_entry(name, shape, cases):
    cell = ALL[name]
    for index, scale in enumerate(SCALES):
        if scale == 10.0 and WIDEST == "float32":
            continue  # pre-activations of size 30 are rounded by more than saturation forgives
        case = drawn(cell, *shape, index + (cases > CASES) * len(SCALES), scale, cases)
        J = closed(cell, *case)
        params, state, x = jax.tree.map(np.asarray, case)
        expected = reference.complex_step_jacobian(name, tuple(params), tuple(state), x)
        largest = np.max([np.abs(block).max((1, 2)) for row in expected for block in row], axis=0)
        error, allowed = worst(J, expected), tol(2e-14) * (1 + largest)
        if scale == 10.0 and np.any(error > allowed):
            # Pre-activations of size 30, and of the GRU's candidate one of them times r: the
            # rounding of these sums alone moves the Jacobian further than the bound, of the GRU
            # in one case of a thousand, of the LSTM in one of 10⁵, in NumPy's float64 as in
            # ours. Such a case may err by what its sums' rounding does.
            moved = reference.rounded_sums(params, tuple(state), x, np.random.default_rng(index))
            nearby = reference.complex_step_jacobian(name, moved, tuple(state), x)
            # Of 500 cases three are one of 200 by chance alone.
            assert np.mean(error > allowed) <= (0.005 if cases > CASES else 0.01)
            allowed = np.maximum(allowed, 4 * worst(nearby, expected))
        assert np.all(error <= allowed), (scale, (error / allowed).max())


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("name", ALL)
@short(name={"lstm", "gru"})
@short(name="rnn-tanh", mode=jax.jacfwd)
def test_closed_form_equals_both_modes_of_autodiff(name, mode):
    cell = ALL[name]
    for index, scale in enumerate(SCALES):
        case = drawn(cell, 3, 4, index, scale, CASES)
        J, expected = closed(cell, *case), autodiff(mode, cell, *case)
        assert jax.tree.structure(J) == jax.tree.structure(expected)
        for got, want in zip(jax.tree.leaves(J), jax.tree.leaves(expected), strict=True):
            got, want = np.ravel(got), np.ravel(want)
            error = np.linalg.norm(got - want) / np.linalg.norm(want)
            assert error <= tol(1e-13)


def trajectory(cell, T=6, batch=(2,), D=3, H=4):
    return drawing.drawn(cell, T, batch, D, H, scale=0.8, seed=7)


def together(run, *functions):
    """What each function gives of the run, in NumPy: one program rather than one for each."""
    return jax.tree.map(np.asarray, jax.jit(lambda run: [f(run) for f in functions])(run))


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("name", CELLS)
@short(name="lstm", batch={(), (2, 3)})
@short(name="gru", batch=(2,))
@short(name="rnn-tanh", batch=())
def test_stack_entry_i_is_the_derivative_of_state_i_by_state_i_minus_one(name, batch):
    """Against NumPy along the trajectory: a stack shifted by one step would fail."""
    cell = CELLS[name]
    params, xs, state0 = trajectory(cell, batch=batch)
    run = jaxrnn.Run(cell, params, xs, state0)
    stacks = together(run, jacobians.closed_form, jacobians.forward_mode, jacobians.reverse_mode)
    params, xs, state0 = jax.tree.map(np.asarray, (params, xs, state0))
    state = tuple(leaf.reshape(-1, 4) for leaf in state0)
    N = state[0].shape[0]
    repeated = tuple(np.broadcast_to(leaf, (N, *leaf.shape)) for leaf in params)
    for i in range(xs.shape[0]):
        x = xs[i].reshape(N, -1)
        expected = reference.complex_step_jacobian(name, repeated, state, x)
        for J in stacks:
            for out, row in zip(J, expected, strict=True):
                for got, want in zip(out, row, strict=True):
                    assert got.shape == (6, *batch, 4, 4)
                    np.testing.assert_allclose(got[i].reshape(N, 4, 4), want, rtol=0, atol=1e-14)
        state = reference.step(name, repeated, state, x)


@pytest.mark.parametrize("name", CELLS)
@short(name={"rnn-tanh", "lstm", "gru"})
def test_input_and_param_jacobians_equal_autodiff_of_the_step(name):
    cell = CELLS[name]

    def by_autodiff(run):
        before = previous(run.state0, run.states())
        steps = [jax.jacfwd(cell.step, argnums=argnum) for argnum in (2, 0)]
        over = (None, 0, 0)
        return [jax.vmap(jax.vmap(step, over), over)(run.params, before, run.xs) for step in steps]

    run = jaxrnn.Run(cell, *trajectory(cell))
    *got, expected = together(run, jacobians.wrt_inputs, jacobians.wrt_params, by_autodiff)
    for ours, theirs in zip(got, expected, strict=True):
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-14), ours, theirs
        )


def test_default_state0_is_the_cells_own():
    cell = jaxrnn.lstm()
    params, xs, _ = trajectory(cell)
    a = jacobians.closed_form(jaxrnn.Run(cell, params, xs))
    b = jacobians.closed_form(jaxrnn.Run(cell, params, xs, cell.init_state(params, (2,))))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def numpy_lstm_blocks(params, state0, xs):
    """F, B and the read-out of each step, written out in NumPy (facts of the LSTM step)."""
    w_ih, w_hh, b = map(np.asarray, params)
    H = w_hh.shape[1]
    h, c = np.asarray(state0.h), np.asarray(state0.c)
    W = [w_hh[k * H : (k + 1) * H] for k in range(4)]
    blocks = []
    for x in np.asarray(xs):
        z = w_ih @ x + w_hh @ h + b
        i, f, o = (reference.logistic(z[k * H : (k + 1) * H]) for k in (0, 1, 3))
        g = np.tanh(z[2 * H : 3 * H])
        B = (
            np.diag(c * f * (1 - f)) @ W[1]
            + np.diag(g * i * (1 - i)) @ W[0]
            + np.diag(i * (1 - g**2)) @ W[2]
        )
        c = f * c + i * g
        blocks.append((np.diag(f), B, np.diag(o * (1 - np.tanh(c) ** 2))))
        h = o * np.tanh(c)
    return blocks


def test_c_partial_is_the_forget_gate_and_c_path_adds_the_way_through_h():
    cell = jaxrnn.lstm()
    params, xs, state0 = trajectory(cell, batch=())
    blocks = numpy_lstm_blocks(params, state0, xs)
    run = jaxrnn.Run(cell, params, xs, state0)
    partial, path = together(run, jacobians.c_partial, jacobians.c_path)
    for i, (F, B, _) in enumerate(blocks):
        np.testing.assert_allclose(partial[i], F, rtol=0, atol=1e-15)
        readout = blocks[i - 1][2] if i else np.zeros_like(F)
        np.testing.assert_allclose(path[i], F + B @ readout, rtol=0, atol=1e-14)


def test_c_path_is_the_derivative_of_c_when_h_follows_c_at_fixed_output_gate():
    cell = jaxrnn.lstm()
    params, xs, state0 = trajectory(cell, T=2, batch=())
    run = jaxrnn.Run(cell, params, xs, state0)
    first, path = together(run, jaxrnn.Run.states, jacobians.c_path)
    h, c = first.h[0], first.c[0]
    o = h / np.tanh(c)
    weights = tuple(np.asarray(leaf)[None] for leaf in params)
    columns = []
    for k in range(4):
        moved = c.astype(complex)
        moved[k] += 1e-200j
        state = ((o * np.tanh(moved))[None], moved[None])
        columns.append(reference.step("lstm", weights, state, np.asarray(xs)[1:2])[1][0].imag)
    exact = np.stack(columns, axis=-1) / 1e-200
    np.testing.assert_allclose(path[1], exact, rtol=0, atol=1e-14)


def test_product_of_c_path_is_exact_through_lag_two_and_not_beyond():
    """From lag 3 on it drops the way through the output gate, ∂oᵢ/∂hᵢ₋₁."""
    cell = jaxrnn.lstm()
    params, xs, state0 = trajectory(cell, T=3, batch=())
    run = jaxrnn.Run(cell, params, xs, state0)
    path, J = together(run, jacobians.c_path, jacobians.reverse_mode)
    dense = np.block([list(row) for row in J]).reshape(3, 8, 8)
    lag2 = (dense[1] @ dense[0])[4:, 4:]
    lag3 = (dense[2] @ dense[1] @ dense[0])[4:, 4:]
    np.testing.assert_allclose(path[1] @ path[0], lag2, rtol=0, atol=1e-14)
    assert np.linalg.norm(path[2] @ path[1] @ path[0] - lag3) > 1e-3 * np.linalg.norm(lag3)


@pytest.mark.parametrize("name", CELLS)
@short(name="lstm")
def test_lengths_hold_and_resets_cut(name):
    """Against the derivative of the whole unroll: a state held is carried on, one reset is not."""
    cell = CELLS[name]
    params, xs, state0 = jax.tree.map(np.asarray, trajectory(cell))
    lengths, resets = np.array([4, 0]), np.zeros((6, 2), bool)
    resets[2, 0] = True
    xs = np.array(xs)
    xs[4:, 0] = xs[:, 1] = np.nan
    run = jaxrnn.Run(cell, params, xs, state0, lengths=lengths, resets=resets)
    states, J, *others = together(
        run, jaxrnn.Run.states, jacobians.closed_form, jacobians.forward_mode,
        jacobians.reverse_mode, jacobians.wrt_inputs, jacobians.wrt_params,
    )  # fmt: skip
    *others, by_inputs, by_params = others
    before = jax.tree.map(lambda s, r: np.concatenate([r[None], s[:-1]]), states, state0)
    for again in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-13), J, again)

    def one_step(state, x, alive, reset, state0):
        # Started from `state`, reset to state0: two arguments in one step of unroll.
        start = jax.tree.map(lambda s, r: jnp.where(reset, r, s), state, state0)
        out = jaxrnn.unrolling.unroll(cell, params, x[None], start, lengths=alive)
        return jax.tree.map(lambda leaf: leaf[0], out)

    derivative = jax.jit(jax.jacfwd(one_step))
    for i, b in ((0, 0), (2, 0), (3, 0), (4, 0), (5, 0), (0, 1), (5, 1)):
        state, start, got = jax.tree.map(lambda leaf: leaf[b], (  # noqa: B023
            jax.tree.map(lambda leaf: leaf[i], before), state0,  # noqa: B023
            jax.tree.map(lambda leaf: leaf[i], J)))  # fmt: skip  # noqa: B023
        alive = np.array(i < lengths[b], lengths.dtype)
        expected = derivative(state, xs[i, b], alive, resets[i, b], start)
        jax.tree.map(
            lambda a, e: np.testing.assert_allclose(a, e, rtol=0, atol=1e-13), got, expected
        )
    eye = np.eye(4)
    np.testing.assert_array_equal(J.h.h[4:, 0], np.broadcast_to(eye, (2, 4, 4)))
    np.testing.assert_array_equal(J.h.h[2, 0], 0 * eye)
    for leaf in jax.tree.leaves((by_inputs, by_params)):
        assert not leaf[4:, 0].any()
        assert leaf[:4, 0].any() or leaf.size == 0 or not leaf[:, 0].any()
        assert np.isfinite(leaf).all()


def test_c_path_and_c_partial_hold_and_cut_likewise():
    cell = jaxrnn.lstm()
    params, xs, state0 = trajectory(cell)
    resets = np.zeros((6, 2), bool)
    resets[2, 0] = True
    run = jaxrnn.Run(cell, params, xs, state0)
    masked = jaxrnn.Run(cell, params, xs, state0, lengths=np.array([4, 6]), resets=resets)
    both = jacobians.c_path, jacobians.c_partial
    for got, whole in zip(together(masked, *both), together(run, *both), strict=True):
        np.testing.assert_array_equal(got[4:, 0], np.broadcast_to(np.eye(4), (2, 4, 4)))
        np.testing.assert_array_equal(got[2, 0], np.zeros((4, 4)))
        np.testing.assert_allclose(got[:2], whole[:2], rtol=0, atol=1e-15)


def test_c_partial_serves_any_cell_with_c_and_c_path_asks_for_a_readout():
    ours = jaxrnn.lstm()
    params, xs, state0 = trajectory(ours)
    bare = jaxrnn.from_step(ours.step)
    partial = jacobians.c_partial(jaxrnn.Run(bare, params, xs, state0))
    expected = jacobians.c_partial(jaxrnn.Run(ours, params, xs, state0))
    np.testing.assert_allclose(partial, expected, rtol=0, atol=1e-14)
    with pytest.raises(TypeError, match="cell: expected a cell whose phi declares its read-out"):
        jacobians.c_path(jaxrnn.Run(bare, params, xs, state0))


@pytest.mark.parametrize("f", [jacobians.c_partial, jacobians.c_path])
def test_c_derivatives_refuse_a_cell_without_c(f):
    cell = jaxrnn.gru()
    params, xs, _ = trajectory(cell)
    with pytest.raises(TypeError, match=r"cell: expected a cell with a state \(h, c\).*gru"):
        f(jaxrnn.Run(cell, params, xs))


@functools.partial(jax.jit, static_argnums=1)
def scalar_network(w, t):
    """(hₜ, dhₜ/dw, the Jacobians of t steps)."""
    cell = jaxrnn.rnn(activation=jaxrnn.activations.identity)
    xs = jnp.zeros((t, 1))

    def last(w):
        params = jaxrnn.RNNParams(jnp.zeros((1, 1)), w.reshape(1, 1), jnp.zeros(1))
        state0 = jaxrnn.RNNState(h=jnp.full(1, 0.7))
        return jaxrnn.unroll(cell, params, xs, state0).h[-1, 0], params

    (value, params), slope = jax.value_and_grad(last, has_aux=True)(w)
    return value, slope, jacobians.closed_form(jaxrnn.Run(cell, params, xs)).h.h


@pytest.mark.parametrize("w", [0.5, 0.9, 1.0, 1.1, 2.0])
def test_scalar_linear_network_of_the_articles(w):
    """hₜ = wᵗ x and dhₜ/dw = t wᵗ⁻¹ x."""
    for t in (1, 2, 3, 10, 100, 400, 1000):
        value, slope, J = scalar_network(jnp.asarray(w, WIDEST), t)
        np.testing.assert_allclose(value, w**t * 0.7, rtol=1e-12)
        np.testing.assert_allclose(slope, t * w ** (t - 1) * 0.7, rtol=1e-12)
        np.testing.assert_allclose(np.ravel(J), w, rtol=1e-15)
