"""The cells: initialisation, the step, its linearisation, and cells as static values."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import activations, jacobians
from tests.support import drawing, reference
from tests.support.modes import WIDEST, tol
from tests.support.profiles import short
from tests.support.table import ALL, CELLS

GATES = {"rnn": ("h",), "lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n")}
KINDS = {"rnn": jaxrnn.rnn(), "lstm": jaxrnn.lstm(), "gru": jaxrnn.gru()}
each_kind = pytest.mark.parametrize("kind", KINDS)


def each_cell(test):
    """The short profile leaves out three activations, which share all else with tanh."""
    return short(name={"rnn-tanh", "lstm", "gru"})(pytest.mark.parametrize("name", CELLS)(test))


def blocks(kind, matrix):
    """The rows of each gate, (G, H, ·)."""
    return np.split(np.asarray(matrix, np.float64), len(GATES[kind]))


def drawn(cell, batch=(2, 3), D=3, H=4, seed=0):
    """(params, state, x), what a step takes."""
    params, xs, state = drawing.drawn(cell, 1, batch, D, H, scale=0.8, seed=seed)
    return params, state, jax.device_put(np.asarray(xs)[0])


def in_dtype(dtype, tree):
    """Cast by NumPy, which compiles nothing."""
    return jax.tree.map(
        lambda leaf: jax.device_put(np.asarray(leaf).astype(jnp.dtype(dtype))), tree
    )


# --- initialisation ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16", "float32", "float64"])
@each_kind
def test_init_gives_the_documented_shapes_in_the_requested_dtype(kind, dtype):
    cell, G = KINDS[kind], len(GATES[kind])
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), 3, 4, dtype=dtype))
    shapes = {"w_ih": (G * 4, 3), "w_hh": (G * 4, 4), "b": (G * 4,)}
    if kind == "gru":
        shapes["b_hn"] = (4,)
    assert {field: leaf.shape for field, leaf in params._asdict().items()} == shapes
    assert {leaf.dtype for leaf in params} == {jnp.dtype(dtype or WIDEST)}
    assert not any(leaf.weak_type for leaf in params)
    assert cell.gates == GATES[kind]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_params_may_be_drawn_in_a_short_dtype(dtype):
    params = jaxrnn.lstm().init(jax.random.key(0), 3, 4, dtype=dtype)
    assert all(np.all(np.isfinite(np.asarray(leaf, np.float64))) for leaf in params)
    assert all(leaf.dtype == jnp.dtype(dtype) for leaf in params)
    for block in blocks("lstm", params.w_hh):
        np.testing.assert_allclose(
            block @ block.T, np.eye(4), rtol=0, atol=4 * float(jnp.finfo(dtype).eps)
        )


@each_kind
def test_default_dtype_is_jaxs_default_float(kind):
    with jax.enable_x64(False):
        params = jax.eval_shape(lambda: KINDS[kind].init(jax.random.key(0), 2, 3))
        assert {leaf.dtype for leaf in params} == {jnp.dtype("float32")}


@pytest.mark.parametrize("H", [1, 5])
@each_kind
def test_each_gate_block_of_w_hh_is_orthogonal_by_itself(kind, H):
    params = KINDS[kind].init(jax.random.key(3), 2, H)
    for block in blocks(kind, params.w_hh):
        np.testing.assert_allclose(block @ block.T, np.eye(H), rtol=0, atol=1e-14)


@each_kind
def test_each_gate_block_of_w_ih_is_drawn_for_its_own_fan(kind):
    """Glorot: uniform within √(6/(D + H)), where a fused draw would take D + G·H."""
    bound = np.sqrt(6 / (30 + 50))
    for block in blocks(kind, KINDS[kind].init(jax.random.key(3), 30, 50).w_ih):
        assert 0.98 * bound < np.abs(block).max() <= bound
        assert abs(block.std() / (bound / np.sqrt(3)) - 1) < 0.05


@pytest.mark.parametrize("leaf", ["w_ih", "w_hh"])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_different_gates_get_different_draws(kind, leaf):
    params = KINDS[kind].init(jax.random.key(0), 5, 5)
    drawn = [*blocks(kind, params.w_ih), *blocks(kind, params.w_hh)]
    for i, one in enumerate(drawn):
        assert not any(np.allclose(one, other) for other in drawn[:i])


@each_kind
def test_the_same_key_gives_the_same_params_and_another_key_others(kind):
    first, again, other = [KINDS[kind].init(jax.random.key(s), 2, 3) for s in (0, 0, 1)]
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.any(np.asarray(first.w_ih) == np.asarray(other.w_ih))
    assert not np.allclose(first.w_hh, other.w_hh)


def test_init_runs_under_jit_and_vmap():
    init = jax.jit(functools.partial(jaxrnn.lstm().init, input_size=2, hidden_size=3))
    keys = jax.random.split(jax.random.key(0), 3)
    stacked = jax.vmap(init)(keys)
    for i, key in enumerate(keys):
        for leaf, alone in zip(map(np.asarray, stacked), init(key), strict=True):
            np.testing.assert_allclose(leaf[i], alone, rtol=0, atol=1e-14)


@pytest.mark.parametrize("bias", [1.0, 0, -2.5])
def test_forget_bias_lands_in_the_f_block_alone(bias):
    options = {} if bias == 1.0 else {"forget_bias": bias}  # 1 is the default
    params = jaxrnn.lstm().init(jax.random.key(0), 2, 3, **options)
    expected = np.zeros((4, 3))
    expected[GATES["lstm"].index("f")] = bias
    np.testing.assert_array_equal(np.asarray(params.b).reshape(4, 3), expected)


@pytest.mark.parametrize("kind", ["rnn", "gru"])
def test_biases_start_at_zero(kind):
    params = KINDS[kind].init(jax.random.key(0), 2, 3)
    assert all(not np.any(np.asarray(leaf)) for leaf in params[2:])


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.bfloat16])
def test_the_gru_that_resets_first_starts_as_the_gru_does(dtype):
    cell, given = jaxrnn.reset_first_gru(), (jax.random.key(0), 2, 3)
    params, other = cell.init(*given, dtype=dtype), jaxrnn.gru().init(*given, dtype=dtype)
    np.testing.assert_array_equal(params.w_ih, other.w_ih)
    np.testing.assert_array_equal(params.w_hh, other.w_hh)
    for zeros, size in ((params.b, 9), (cell.init_state(params).h, 3)):
        assert zeros.dtype == dtype
        assert not zeros.weak_type
        np.testing.assert_array_equal(zeros, np.zeros(size))


@each_kind
def test_custom_initialisers_are_called_once_for_each_gate_with_its_own_key(kind):
    calls = []

    def recording(label, value):
        def init(key, shape, dtype):
            calls.append((label, shape, jnp.dtype(dtype).name, jax.random.key_data(key).tolist()))
            return jnp.full(shape, value, dtype) * (1 + len(calls))

        return init

    params = KINDS[kind].init(
        jax.random.key(0), 2, 3, dtype="float32",
        input_init=recording("input", 1.0), recurrent_init=recording("recurrent", 10.0),
    )  # fmt: skip
    G = len(GATES[kind])
    assert [call[:3] for call in calls] == (
        [("input", (3, 2), "float32")] * G + [("recurrent", (3, 3), "float32")] * G
    )
    assert len({tuple(call[3]) for call in calls}) == 2 * G
    for g in range(G):
        assert np.all(blocks(kind, params.w_ih)[g] == 2 + g)
        assert np.all(blocks(kind, params.w_hh)[g] == 10 * (2 + G + g))


@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)])
@each_kind
def test_init_state_is_zero_with_the_batch_shape_and_dtype_of_the_params(kind, batch):
    cell = KINDS[kind]
    params = in_dtype("bfloat16", drawn(cell)[0])
    state = cell.init_state(params, batch)
    assert type(state) is cell.state_type
    for leaf in state:
        assert (leaf.shape, leaf.dtype, leaf.weak_type) == ((*batch, 4), jnp.bfloat16, False)
        assert not np.any(np.asarray(leaf))


def test_init_state_without_a_batch_shape_has_no_batch_axes():
    params = drawn(jaxrnn.lstm())[0]
    assert jaxrnn.lstm().init_state(params).c.shape == (4,)


# --- the step ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@short(name=set(ALL) - {"rnn-sigmoid", "rnn-relu", "rnn-identity"})
def test_step_equals_numpys(name):
    """500 cases a shape, each with its own params."""
    cell = ALL[name]
    for index, (D, H) in enumerate(((1, 1), (2, 5), (5, 3))):
        normal = np.random.default_rng(index).normal
        params, state = drawing.shapes_of(cell, D, H)
        params = type(params)(*[normal(size=(500, *shape)) for shape in params])
        state = type(state)(*[normal(size=(500, *shape)) for shape in state])
        x = normal(size=(500, D))
        got = jax.jit(jax.vmap(cell.step))(params, state, x)
        expected = reference.step(name, tuple(params), tuple(state), x)
        for leaf, want in zip(got, expected, strict=True):
            np.testing.assert_allclose(leaf, want, rtol=0, atol=1e-14 * (1 + np.abs(want).max()))


@pytest.mark.parametrize("batch", [(), (2, 3), (0,)])
@each_cell
def test_step_takes_any_leading_axes(name, batch):
    params, state, x = drawn(CELLS[name], batch)
    got = jax.jit(CELLS[name].step)(params, state, x)
    expected = reference.step(name, *jax.tree.map(np.asarray, (tuple(params), tuple(state), x)))
    assert type(got) is CELLS[name].state_type
    for leaf, want in zip(got, expected, strict=True):
        assert leaf.shape == (*batch, 4)
        np.testing.assert_allclose(leaf, want, rtol=0, atol=1e-14)


@each_kind
def test_params_of_a_network_without_inputs_may_be_drawn(kind):
    params = KINDS[kind].init(jax.random.key(0), 0, 4)
    assert params.w_ih.shape == (len(GATES[kind]) * 4, 0)
    assert np.all(np.isfinite(params.w_hh))


@each_kind
def test_a_network_without_inputs_runs_end_to_end(kind):
    """D = 0: the state drives itself."""
    cell, name = KINDS[kind], "rnn-tanh" if kind == "rnn" else kind
    params, state0, _ = drawn(cell, (2,), D=0)
    nothing = jnp.zeros((5, 2, 0))
    states = jaxrnn.unroll(cell, params, nothing, state0)
    plain, state = tuple(map(np.asarray, params)), tuple(map(np.asarray, state0))
    for i in range(5):
        state = reference.step(name, plain, state, np.zeros((2, 0)))
        for leaf, want in zip(map(np.asarray, states), state, strict=True):
            np.testing.assert_allclose(leaf[i], want, rtol=0, atol=1e-14)
    assert jaxrnn.unroll(cell, params, nothing).h.shape == (5, 2, 4)
    start = tuple(map(np.asarray, state0))
    first = reference.complex_step_jacobian(name, plain, start, np.zeros((2, 0)))
    closed = jacobians.closed_form(jaxrnn.Run(cell, params, nothing, state0))
    np.testing.assert_allclose(np.asarray(closed.h.h)[0], first[0][0], rtol=0, atol=1e-14)
    by_inputs = jax.eval_shape(jacobians.wrt_inputs, jaxrnn.Run(cell, params, nothing))
    assert by_inputs.h.shape == (5, 2, 4, 0)
    gradient = jax.jit(jax.grad(lambda p: jaxrnn.unroll(cell, p, nothing, state0).h.sum()))(params)
    assert gradient.w_ih.shape == params.w_ih.shape
    assert np.all(np.asarray(gradient.w_hh) != 0)


# --- the linearisation ------------------------------------------------------------


def linearised(cell, case, direction):
    """δs by the cell's own verbs: coefficients, drive, push."""
    (params, state, x), (dparams, dstate, dx) = case, direction
    partials = cell.partials(params, state, cell.project(params, x))
    drive = cell.drive(params, partials, state, x, dparams, dx)
    return cell.push(params, partials, dstate, drive)


def leaky(params, state, x):
    moved = jnp.tanh(params["w"] @ state["h"] + params["v"] @ x) * state["gain"]
    return {"h": moved, "gain": 0.9 * state["gain"] + jnp.sin(moved)}


def bare_case(seed):
    normal = np.random.default_rng(seed).normal
    params = {"w": normal(size=(4, 4)), "v": normal(size=(4, 3))}
    state = {"h": normal(size=(2, 3, 4)), "gain": normal(size=(2, 3, 4))}
    return jax.device_put((params, state, normal(size=(2, 3, 3))))


@pytest.mark.parametrize("name", [*CELLS, "bare step"])
@short(name={"rnn-tanh", "lstm", "gru", "bare step"})
def test_partials_drive_and_push_together_are_the_tangent_of_the_step(name):
    """By params, state and input at once, and by each alone."""
    bare = name == "bare step"
    cell = jaxrnn.from_step(leaky) if bare else CELLS[name]
    own = jax.jit(functools.partial(linearised, cell))
    exact = jax.jit(functools.partial(jax.jvp, cell.step))
    for seed in range(3):
        case, all_three = [bare_case(s) if bare else drawn(cell, seed=s) for s in (seed, seed + 9)]
        zero = jax.tree.map(np.zeros_like, all_three)
        each = [tuple(all_three[k] if k == j else zero[k] for k in range(3)) for j in range(3)]
        for direction in (all_three, *each):
            got, want = jax.tree.map(np.asarray, (own(case, direction), exact(case, direction)[1]))
            assert jax.tree.structure(got) == jax.tree.structure(want)
            for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
                assert np.linalg.norm(np.ravel(a - b)) <= tol(1e-13) * np.linalg.norm(np.ravel(b))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@each_kind
@short(kind="lstm")
@short(kind={"rnn", "gru"}, dtype="bfloat16")
def test_the_tangent_has_the_dtype_of_the_state(kind, dtype):
    cell = KINDS[kind]
    case, direction = drawn(cell, seed=1), drawn(cell, seed=2)
    own = jax.jit(functools.partial(linearised, cell))
    got = own(in_dtype(dtype, case), in_dtype(dtype, direction))
    for leaf, exact in zip(got, jax.tree.map(np.asarray, own(case, direction)), strict=True):
        assert leaf.dtype == jnp.dtype(dtype)
        allowed = 32 * float(jnp.finfo(dtype).eps) * (1 + np.abs(exact).max())
        assert np.abs(np.asarray(leaf, np.float64) - exact).max() <= allowed


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@each_kind
def test_sensitivities_are_diagonals_of_the_documented_shapes(kind, batch):
    cell, G = KINDS[kind], len(GATES[kind])
    params, state, x = drawn(cell, batch)
    u = jax.eval_shape(cell.project, params, x)
    s = jax.eval_shape(cell.sensitivities, params, state, u)
    for out in cell.state_type._fields:
        for gates in (getattr(s.u, out), getattr(s.a, out)):
            assert [d.shape for d in gates] == G * [(*batch, 4)]
        for into in cell.state_type._fields:
            assert getattr(getattr(s.state, out), into).shape == (*batch, 4)


@each_cell
def test_sensitivities_are_the_diagonals_of_the_pointwise_map(name):
    """By `jax.jacfwd` of φ, whose off-diagonal entries are zero."""
    cell, H = CELLS[name], 4
    params, state, x = drawn(cell, ())
    u = cell.project(params, x)
    s = jax.jit(cell.sensitivities)(params, state, u)
    by_autodiff = jax.jit(jax.jacfwd(cell.phi.update, argnums=(0, 1, 2)))
    by = by_autodiff(*cell.point(params, state, u))
    for j, out in enumerate(cell.state_type._fields):
        by_state, by_u, by_a = by[j]
        for into in cell.state_type._fields:
            diagonal = getattr(getattr(s.state, out), into)
            np.testing.assert_allclose(
                np.diag(diagonal), getattr(by_state, into), rtol=0, atol=1e-15
            )
        for found, exact in ((getattr(s.u, out), by_u), (getattr(s.a, out), by_a)):
            gates = np.asarray(exact).reshape(H, -1, H).swapaxes(0, 1)
            np.testing.assert_allclose([np.diag(d) for d in found], gates, rtol=0, atol=1e-15)


# --- cells as values --------------------------------------------------------------


def test_equal_activations_give_the_identical_cell():
    assert jaxrnn.rnn() is jaxrnn.rnn(activations.tanh) is jaxrnn.rnn(activation=activations.tanh)
    assert jaxrnn.rnn(activations.relu) is jaxrnn.rnn(activation=activations.relu)
    assert jaxrnn.rnn(activations.relu) != jaxrnn.rnn(activations.tanh)
    assert jaxrnn.lstm() is jaxrnn.lstm()
    assert jaxrnn.gru() is jaxrnn.gru()
    tanh = activations.tanh
    rebuilt = dataclasses.replace(tanh)
    assert jaxrnn.rnn(rebuilt) is jaxrnn.rnn()


def test_cells_from_equal_steps_are_equal():
    assert jaxrnn.from_step(leaky) == jaxrnn.from_step(leaky)
    assert hash(jaxrnn.from_step(leaky)) == hash(jaxrnn.from_step(leaky))
    assert jaxrnn.from_step(leaky) != jaxrnn.from_step(leaky, init_state=leaky)


def test_cells_are_hashable_and_differ():
    cells = [*ALL.values(), jaxrnn.from_step(leaky)]
    assert len(set(cells)) == len(cells) == len(ALL) + 1


@pytest.mark.parametrize("name", [*CELLS, "bare step"])
@short(name={"rnn-tanh", "lstm", "gru", "bare step"})
def test_a_cell_is_a_static_pytree_that_passes_through_jit(name):
    bare = name == "bare step"
    cell = jaxrnn.from_step(leaky) if bare else CELLS[name]
    params, state0, x = bare_case(0) if bare else drawn(cell)
    assert jax.tree.leaves(cell) == []
    assert jax.tree.map(lambda leaf: leaf, cell) is cell
    xs = np.stack([x, 2 * np.asarray(x)])
    through = jax.jit(jaxrnn.unroll)(cell, params, xs, state0)
    for a, b in zip(jax.tree.leaves(through),
                    jax.tree.leaves(jaxrnn.unroll(cell, params, xs, state0)),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-15)


def test_unroll_passes_through_jit_with_its_default_state():
    params, _, x = drawn(jaxrnn.lstm())
    states = jax.jit(jaxrnn.unroll)(jaxrnn.lstm(), params, x)
    np.testing.assert_allclose(
        states.h, jaxrnn.unroll(jaxrnn.lstm(), params, x).h, rtol=0, atol=1e-15
    )


@each_cell
def test_a_cell_prints_its_name_and_gates(name):
    cell = CELLS[name]
    assert repr(cell) == f"{cell.name}(gates={','.join(cell.gates)})"
    assert cell.name == (f"rnn[{name[4:]}]" if name.startswith("rnn-") else name)


def test_a_bare_step_has_a_name_and_no_gates():
    assert (jaxrnn.from_step(leaky).name, jaxrnn.from_step(leaky).gates) == ("leaky", ())
    assert jaxrnn.from_step(leaky, name="mine").name == "mine"
    partial = functools.partial(leaky)
    assert jaxrnn.from_step(partial).name == "step"


def test_the_stepper_of_a_bare_step_is_the_step():
    """`unroll` scans such a cell by itself; who scans any cell by its stepper may have this one."""
    cell = jaxrnn.from_step(lambda p, s, x: {"h": jnp.tanh(p @ x + s["h"])})
    normal = np.random.default_rng(0).normal
    params, x, state = normal(size=(4, 3)), normal(size=(2, 3)), {"h": normal(size=(2, 4))}
    stepper = cell.stepper(params)
    new, kept = stepper.step(state, stepper.prepare(x))
    assert kept is None
    np.testing.assert_allclose(new["h"], np.tanh(x @ params.T + state["h"]), rtol=1e-14)


def test_from_step_uses_the_given_initialiser_state_and_jacobian():
    def init(key, input_size, hidden_size, *, dtype=None):
        return {"w": jnp.ones((hidden_size, hidden_size)), "v": jnp.ones((hidden_size, input_size))}

    def init_state(params):
        return {"h": jnp.full(4, 0.5), "gain": jnp.full(4, 2.0)}

    def jacobian(params, state, x):
        sevens = jnp.full((4, 4), 7.0)
        return {out: {"gain": sevens, "h": sevens} for out in ("gain", "h")}

    cell = jaxrnn.from_step(leaky, init=init, init_state=init_state, jacobian=jacobian)
    params = cell.init(jax.random.key(0), 3, 4)
    assert params["v"].shape == (4, 3)
    state = cell.init_state(params, (5, 2))
    assert state["h"].shape == (5, 2, 4)
    np.testing.assert_array_equal(state["gain"], np.full((5, 2, 4), 2.0))
    own = jacobians.closed_form(jaxrnn.Run(cell, params, jnp.ones((6, 2, 3))))
    np.testing.assert_array_equal(own["h"]["gain"], np.full((6, 2, 4, 4), 7.0))


SOFTPLUS = activations.Activation("softplus", jax.nn.softplus, jax.nn.sigmoid, gamma=1.0)


def test_a_custom_activation_works_in_rnn():
    cell = jaxrnn.rnn(SOFTPLUS)
    params, state, x = drawn(cell)
    p, h = jax.tree.map(np.asarray, (params, state.h))
    z = np.asarray(x) @ p.w_ih.T + h @ p.w_hh.T + p.b
    step, jacobian = jax.jit(cell.step), jax.jit(cell.state_jacobian)
    np.testing.assert_allclose(step(params, state, x).h, np.log1p(np.exp(z)), rtol=0, atol=1e-14)
    closed = jacobian(params, state, x).h.h
    expected = reference.logistic(z)[..., None] * np.asarray(params.w_hh)
    np.testing.assert_allclose(closed, expected, rtol=0, atol=1e-14)
    assert cell.name == "rnn[softplus]"


def test_the_derivative_of_an_activation_is_the_one_that_was_given():
    """Not one that autodiff finds: a planted factor of 2 shows in the closed form alone."""
    planted = activations.Activation(
        "softplus", jax.nn.softplus, lambda z: 2 * jax.nn.sigmoid(z), gamma=1.0
    )
    params, state, x = drawn(jaxrnn.rnn(planted), (2,))
    run = jaxrnn.Run(jaxrnn.rnn(planted), params, np.asarray(x)[None], state)
    closed, forward = jacobians.closed_form(run).h.h, jacobians.forward_mode(run).h.h
    np.testing.assert_allclose(closed, 2 * np.asarray(forward), rtol=0, atol=1e-14)
