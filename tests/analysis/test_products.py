"""Transports and log norms against products of complex-step Jacobians, and known systems."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import matrix_products, products
from jaxrnn.numerics import norms
from jaxrnn.numerics.scaled import Scaled, log_of, rescaled, times_power
from tests.support import reference
from tests.support.profiles import short
from tests.support.table import CELLS
from tests.support.untied import NORMED, D, H, drawn, masked

each_cell = pytest.mark.parametrize("name", CELLS)


def exact_jacobians(name, params, states, state0, xs):
    """∂sᵢ/∂sᵢ₋₁ of the whole state by complex steps, `(T, n, n)`, for one sequence."""
    before = [np.concatenate([np.asarray(a)[None], np.asarray(s)[:-1]]) for a, s in
              zip(state0, states, strict=True)]  # fmt: skip
    T = len(xs)
    wide = [np.broadcast_to(leaf, (T, *leaf.shape)) for leaf in map(np.asarray, params)]
    return np.block(reference.complex_step_jacobian(name, wide, tuple(before), np.asarray(xs)))


def case(name, T, seed, scale=1.0):
    params, xs, state0 = drawn(name, T, (), seed)
    params = params._replace(w_hh=scale * params.w_hh)
    states = jaxrnn.unroll(CELLS[name], params, xs, state0)
    return params, xs, state0, exact_jacobians(name, params, states, state0, xs)


def exact_transports(J):
    """∂s_{T-1}/∂sₖ for every k."""
    found = [np.eye(J.shape[-1])]
    for step in J[:0:-1]:
        found.append(found[-1] @ step)
    return np.stack(found[::-1])


# --- against the reference ----------------------------------------------------------


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@each_cell
def test_norms_of_every_lag_are_those_of_the_product(name, scale):
    for seed in range(8):
        params, xs, state0, J = case(name, 9, seed, scale)
        exact = exact_transports(J)
        got = products.transport_norms(jaxrnn.Run(CELLS[name], params, xs, state0))
        with np.errstate(divide="ignore"):
            want = np.log(np.linalg.norm(exact, 2, axis=(1, 2)))
            frobenius = np.log(np.linalg.norm(exact, axis=(1, 2)))
        np.testing.assert_allclose(got, want, atol=1e-10)
        got = products.frobenius_norms(jaxrnn.Run(CELLS[name], params, xs, state0))
        np.testing.assert_allclose(got, frobenius, atol=1e-10)


@each_cell
@short(name={"lstm", "rnn-relu"})
def test_the_transport_of_every_pair_is_the_product(name):
    params, xs, state0, J = case(name, 5, 3)
    for t in range(5):
        for k in range(t + 1):
            exact = np.eye(J.shape[-1])
            for i in range(t, k, -1):
                exact = exact @ J[i]
            got = products.transport(jaxrnn.Run(CELLS[name], params, xs, state0), k, t).unscaled()
            np.testing.assert_allclose(matrix_products.from_tree(got), exact, atol=1e-13)


@each_cell
def test_one_adjoint_and_one_tangent(name):
    params, xs, state0, J = case(name, 9, 5)
    _, _, vector = drawn(name, 1, (), 11)
    flat = np.concatenate([np.asarray(leaf) for leaf in vector])
    want = [np.linalg.norm(flat @ M) for M in exact_transports(J)]
    got = products.adjoint_norms(jaxrnn.Run(CELLS[name], params, xs, state0), vector)
    np.testing.assert_allclose(np.exp(got), want, rtol=1e-11, atol=1e-14)
    moved = [flat]
    for step in J[1:]:
        moved.append(step @ moved[-1])
    got = products.tangent_norms(jaxrnn.Run(CELLS[name], params, xs, state0), vector)
    want = [np.linalg.norm(v) for v in moved]
    np.testing.assert_allclose(np.exp(got), want, rtol=1e-11, atol=1e-14)


@each_cell
@short(name={"rnn-tanh", "lstm", "gru"})
def test_padding_is_the_identity_and_a_reset_cuts_off(name):
    params, xs, state0 = drawn(name, 9, (2, 3), 1)
    masks = masked(9, (2, 3), 1)
    J = matrix_products.from_tree(
        jaxrnn.jacobians.closed_form(jaxrnn.Run(CELLS[name], params, xs, state0, **masks))
    )
    exact = np.broadcast_to(np.eye(J.shape[-1]), J.shape).copy()
    for i in range(8, 0, -1):
        exact[i - 1] = exact[i] @ np.asarray(J[i])
    with np.errstate(divide="ignore"):
        want = np.log(np.linalg.norm(exact, 2, axis=(-2, -1)))
    got = products.transport_norms(jaxrnn.Run(CELLS[name], params, xs, state0, **masks))
    np.testing.assert_allclose(got, want, atol=1e-12)
    assert np.isneginf(got).any()
    got = products.transport(jaxrnn.Run(CELLS[name], params, xs, state0, **masks), 2, 6).unscaled()
    want = np.eye(J.shape[-1])
    for i in range(6, 2, -1):
        want = want @ np.asarray(J[i])
    np.testing.assert_allclose(matrix_products.from_tree(got), want, atol=1e-13)


@each_cell
@short(name={"rnn-tanh", "lstm", "gru"})
def test_vectors_pass_held_steps_and_stop_at_resets(name):
    params, xs, state0 = drawn(name, 9, (2, 3), 1)
    masks = masked(9, (2, 3), 1)
    stack = jaxrnn.jacobians.closed_form(jaxrnn.Run(CELLS[name], params, xs, state0, **masks))
    J = np.asarray(matrix_products.from_tree(stack))
    _, _, vector = drawn(name, 1, (2, 3), 11)
    forward = [np.concatenate([np.asarray(leaf) for leaf in vector], axis=-1)]
    back = [forward[0]]
    for i in range(1, 9):
        forward.append(np.einsum("abij,abj->abi", J[i], forward[-1]))
        back.append(np.einsum("abj,abji->abi", back[-1], J[9 - i]))
    got = products.tangent_norms(jaxrnn.Run(CELLS[name], params, xs, state0, **masks), vector)
    want = np.linalg.norm(np.stack(forward), axis=-1)
    np.testing.assert_allclose(np.exp(got), want, rtol=1e-11, atol=1e-14)
    got = products.adjoint_norms(jaxrnn.Run(CELLS[name], params, xs, state0, **masks), vector)
    want = np.linalg.norm(np.stack(back[::-1]), axis=-1)
    np.testing.assert_allclose(np.exp(got), want, rtol=1e-11, atol=1e-14)


def test_a_cell_from_a_step_has_transports_of_its_whole_state():
    params, xs, state0 = drawn("step", 6, (2,), 1)
    J = np.asarray(
        matrix_products.from_tree(
            jaxrnn.jacobians.reverse_mode(jaxrnn.Run(NORMED, params, xs, state0))
        )
    )
    exact = [np.broadcast_to(np.eye(2 * H), J[0].shape)]
    for step in J[:0:-1]:
        exact.append(exact[-1] @ step)
    want = np.log(np.linalg.norm(np.stack(exact[::-1]), 2, axis=(-2, -1)))
    got = products.transport_norms(jaxrnn.Run(NORMED, params, xs, state0))
    np.testing.assert_allclose(got, want, atol=1e-11)
    assert jaxrnn.lyapunov.exponents(jaxrnn.Run(NORMED, params, xs, state0)).value.shape == (
        2,
        2 * H,
    )


def test_a_state_of_three_leaves_of_different_sizes():
    """s' = tanh(W s + x), of which the Jacobian is diag(1 - s'²) W, in leaves of 2, 3 and 1."""

    def step(W, state, x):
        new = jnp.tanh(W @ jnp.concatenate([state["p"], state["q"], state["r"]]) + x)
        return dict(zip("pqr", jnp.split(new, [2, 5]), strict=True))

    def rest(W):
        return {"p": jnp.zeros(2), "q": jnp.zeros(3), "r": jnp.zeros(1)}

    cell = jaxrnn.from_step(step, init_state=rest)
    generator = np.random.default_rng(0)
    W, xs = generator.normal(size=(6, 6)), generator.normal(size=(7, 6))
    s, J = np.zeros(6), []
    for x in xs:
        s = np.tanh(W @ s + x)
        J.append((1 - s**2)[:, None] * W)
    exact = exact_transports(np.stack(J))
    run = jaxrnn.Run(cell, jnp.asarray(W), jnp.asarray(xs))
    want = np.log(np.linalg.norm(exact, 2, axis=(1, 2)))
    np.testing.assert_allclose(products.transport_norms(run), want, atol=1e-11)
    want = np.log(np.linalg.norm(exact, axis=(1, 2)))
    np.testing.assert_allclose(products.frobenius_norms(run), want, atol=1e-11)
    got = products.transport(run, 2, 6).unscaled()
    parts = {"p": slice(0, 2), "q": slice(2, 5), "r": slice(5, 6)}
    for of, rows in parts.items():
        for by, columns in parts.items():
            np.testing.assert_allclose(got[of][by], exact[2][rows, columns], atol=1e-13)
    want = np.log(np.linalg.norm(np.stack(J), 2, axis=(1, 2)))
    got = jaxrnn.certificates.along(run).step_upper
    np.testing.assert_allclose(got, want, atol=1e-11)
    found = jaxrnn.lyapunov.exponents(run).value
    np.testing.assert_allclose(found.sum(), np.linalg.slogdet(J)[1].mean(), atol=1e-11)


@pytest.mark.parametrize(
    "f", [products.transport_norms, jaxrnn.lyapunov.exponents, jaxrnn.certificates.along]
)
@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_state_with_a_leaf_that_is_no_vector_is_refused(f, batch):
    def step(params, state, x):
        return {"h": jnp.tanh(params * state["h"]), "count": state["count"] + x[0]}

    cell = jaxrnn.from_step(step)
    state0 = {"h": jnp.zeros((*batch, 2)), "count": jnp.zeros(batch)}
    with pytest.raises(ValueError, match=r"state\['count'\]: expected a vector .* got"):
        f(jaxrnn.Run(cell, jnp.ones(2), jnp.ones((4, *batch, 1)), state0))


@each_cell
@short(name="gru")
def test_products_split_at_any_point_agree(name):
    params, xs, state0 = drawn(name, 40, (2,), 2)
    whole = products.transport(jaxrnn.Run(CELLS[name], params, xs, state0), 0, 39)
    for k in (0, 1, 17, 38, 39):
        early = products.transport(jaxrnn.Run(CELLS[name], params, xs, state0), 0, k)
        late = products.transport(jaxrnn.Run(CELLS[name], params, xs, state0), k, 39)
        value = matrix_products.from_tree(late.value) @ matrix_products.from_tree(early.value)
        joined = rescaled(value, late.exponent + early.exponent)
        by = (joined.exponent - whole.exponent).astype(float)
        got = joined.value * 2.0 ** by[:, None, None]
        np.testing.assert_allclose(got, matrix_products.from_tree(whole.value), atol=1e-12)


@each_cell
def test_float32_and_chunks_of_a_long_sequence(name):
    """600 steps in float32, which the products leave downward or upward."""
    cell = CELLS[name]
    params, xs, state0 = drawn(name, 600, (), 4)
    exact = products.frobenius_norms(jaxrnn.Run(cell, params, xs, state0))
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, xs, state0))
    got = products.frobenius_norms(jaxrnn.Run(cell, *narrow))
    assert np.abs(exact[0]) > 90  # e⁹⁰ is no float32
    np.testing.assert_allclose(got, exact, rtol=1e-4, atol=1e-3)


# --- a million steps of systems whose answer is known --------------------------------

a, b = 0.8125, 0.59375  # dyadic, so that each dtype has them exactly
ROTATION = np.kron(np.eye(2), [[a, -b], [b, a]])
SHIFT = np.roll(np.eye(4), 1, 0)
SIGNS = np.diag([1.0, -1.0, -1.0, 1.0])
HADAMARD = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
SHEAR = np.kron(np.eye(2), [[1.0, 1.0], [0.0, 1.0]])


def companion(c):
    """Of x⁴ - c: its fourth power is c."""
    W = SHIFT.copy()
    W[0, 3] = c
    return W


def of_companion(c):
    def log_norm(lag):
        whole, rest = np.divmod(lag, 4)  # `rest` entries are c^(whole+1), the others c^whole
        return np.log(c) * (whole + (rest > 0) * (c > 1))

    return log_norm


def rate(value):
    return lambda lag: lag * np.log(value)


def of_shear(lag):
    return np.arcsinh(lag / 2)  # σ_max of [[1, l], [0, 1]]


SYSTEMS = {
    "identity": (np.eye(4), rate(1.0)),
    "shift": (SHIFT, rate(1.0)),
    "signed shift": (SIGNS @ SHIFT, rate(1.0)),
    "reflections": (HADAMARD, rate(1.0)),
    "orthogonal": (HADAMARD @ SHIFT, rate(1.0)),
    "diagonal of length 1": (SIGNS, rate(1.0)),
    "shear": (SHEAR, of_shear),
    "rotation": (ROTATION, rate(np.hypot(a, b))),
    "rotation, grown": (2 * ROTATION, rate(2 * np.hypot(a, b))),
    "companion 2": (companion(2.0), of_companion(2.0)),
    "companion 1/2": (companion(0.5), of_companion(0.5)),
    "companion 3": (companion(3.0), of_companion(3.0)),
    "diagonal": (np.diag([0.875, 0.5, -0.25, 0.125]), rate(0.875)),
    "diagonal, both ways": (np.diag([1024.0, 1.0, 0.5, 0.0625]), rate(1024.0)),
    "one entry": (np.diag([0.0, 0.0, 0.75, 0.0]), rate(0.75)),
    **{f"{s} × shift": (s * SHIFT, rate(s)) for s in (0.5, 1.5, 0.9375, 1.0625)},
    **{f"{s} × orthogonal": (s * HADAMARD @ SHIFT, rate(s)) for s in (0.75, 1.25)},
    "contraction": (1e-3 * SHIFT, rate(1e-3)),
    "expansion": (1e3 * SHIFT, rate(1e3)),
}


@pytest.mark.parametrize(
    ("dtype", "relative", "at_zero"), [(jnp.float32, 1e-5, 1e-4), (jnp.float64, 1e-12, 1e-11)]
)
@pytest.mark.parametrize("T", [10**5, 10**6])
@short(T=100_000)
def test_a_million_steps_of_known_systems(T, dtype, relative, at_zero):
    assert len(SYSTEMS) >= 20
    W = jnp.asarray(np.stack([W for W, _ in SYSTEMS.values()]), dtype)
    cell = jaxrnn.rnn(jaxrnn.activations.identity)
    xs = jnp.zeros((T, 1), dtype)

    def log_norms(W):
        params = jaxrnn.RNNParams(jnp.zeros((4, 1), dtype), W, jnp.zeros(4, dtype))
        return products.transport_norms(jaxrnn.Run(cell, params, xs))

    found = np.asarray(jax.vmap(log_norms)(W), np.float64)
    assert np.all(np.isfinite(found))
    lag = np.arange(T - 1.0, -1.0, -1.0)
    for (name, (matrix, log_norm)), got in zip(SYSTEMS.items(), found, strict=True):
        if name in ("contraction", "expansion"):  # 10^±3 as the dtype has it
            log_norm = rate(float(jnp.asarray(np.abs(matrix).max(), dtype)))
        want = log_norm(lag)
        error = np.abs(got - want)
        # One norm near 1 is itself rounded, a few eps, where the answer is near 0.
        allowed = np.where(want == 0, at_zero, relative * np.abs(want) + 8 * jnp.finfo(dtype).eps)
        assert np.all(error <= allowed), (name, error.max(), np.argmax(error / allowed))


# --- stacks of matrices ---------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("algorithm", [matrix_products.sequential, matrix_products.associative])
@short(scale=0.001)
@short(algorithm=matrix_products.associative, scale=1000.0)
def test_products_of_a_stack_are_those_of_numpy(algorithm, scale):
    J = scale * np.random.default_rng(0).normal(size=(50, 2, 4, 4))
    P = algorithm(jnp.asarray(J))
    exact, exponent = np.broadcast_to(np.eye(4), (2, 4, 4)), np.zeros(2, int)
    for i in range(50):
        exact = J[i] @ exact
        _, by = np.frexp(np.abs(exact).max(axis=(1, 2)))
        exact, exponent = exact / 2.0 ** by[:, None, None], exponent + by
        np.testing.assert_array_equal(P.exponent[i], exponent)
        np.testing.assert_allclose(P.value[i], exact, atol=1e-12)
        want = np.log(np.linalg.norm(exact, 2, axis=(1, 2))) + exponent * np.log(2)
        np.testing.assert_allclose(matrix_products.log_norm(P)[i], want, rtol=1e-12)
    total = matrix_products.product(jnp.asarray(J))
    np.testing.assert_allclose(total.value, exact, atol=1e-12)
    np.testing.assert_array_equal(total.exponent, exponent)


@pytest.mark.parametrize(
    "f", [matrix_products.sequential, matrix_products.associative, matrix_products.product]
)
def test_products_of_a_float32_stack_stay_float32(f):
    J = np.random.default_rng(2).normal(size=(6, 3, 3)).astype("float32")
    P = f(jnp.asarray(J))
    assert P.value.dtype == "float32"
    exact = np.linalg.multi_dot(np.asarray(J, float)[::-1])
    last = P.unscaled() if f is matrix_products.product else P.unscaled()[-1]
    np.testing.assert_allclose(last, exact, atol=1e-6 * np.abs(exact).max())


@pytest.mark.parametrize("T", [60, 1000])
@short(T=60)
def test_sequential_and_associative_agree_over_many_steps(T):
    J = jnp.asarray(np.random.default_rng(1).normal(size=(T, 3, 3)))
    found = [matrix_products.log_norm(f(J)) for f in
             (matrix_products.sequential, matrix_products.associative)]  # fmt: skip
    np.testing.assert_allclose(*found, rtol=1e-10)


def test_an_empty_stack_and_a_singular_step():
    assert matrix_products.product(jnp.zeros((0, 2, 2))).unscaled().tolist() == np.eye(2).tolist()
    assert matrix_products.sequential(jnp.zeros((0, 2, 2))).value.shape == (0, 2, 2)
    assert np.isneginf(matrix_products.log_norm(matrix_products.product(jnp.zeros((3, 2, 2)))))


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_jacobian_as_one_matrix_has_the_states_leaves_in_order(name):
    params, xs, state0, J = case(name, 3, 0)
    tree = jaxrnn.jacobians.closed_form(jaxrnn.Run(CELLS[name], params, xs, state0))
    np.testing.assert_allclose(matrix_products.from_tree(tree), J, atol=1e-13)
    if name == "lstm":
        np.testing.assert_allclose(tree.h.c, J[:, :H, H:], atol=1e-13)


# --- scaled numbers --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_power_of_two_changes_no_digit(dtype):
    info = jnp.finfo(dtype)
    x = np.random.default_rng(0).normal(size=2000).astype(dtype)
    for power in (-40, -1, 0, 3, 40, info.maxexp - 3, info.minexp + 16):
        got = times_power(jnp.asarray(x), jnp.full(2000, power, jnp.int32))
        np.testing.assert_array_equal(got, np.ldexp(x, power))
    far = times_power(jnp.asarray([info.tiny, 1.0], dtype), jnp.asarray([2 * info.maxexp - 3, 0]))
    np.testing.assert_array_equal(far, [np.ldexp(np.array(info.tiny), 2 * info.maxexp - 3), 1.0])
    gone = times_power(jnp.asarray([1.0, -1.0], dtype), jnp.asarray([10**7, -(10**7)]))
    np.testing.assert_array_equal(gone, [np.inf, -0.0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_rescaled_numbers_of_every_magnitude(dtype):
    info = jnp.finfo(dtype)
    power = np.arange(info.minexp + 1, info.maxexp)
    x = np.ldexp(np.full(power.size, 0.8125), power).astype(dtype)
    got = rescaled(jnp.asarray(x)[:, None], jnp.zeros(power.size, jnp.int32))
    np.testing.assert_array_equal(got.value[:, 0], np.full(power.size, 0.8125))
    np.testing.assert_array_equal(got.exponent, power)
    np.testing.assert_array_equal(got.unscaled()[:, 0], x)
    odd = rescaled(jnp.asarray([[0.0], [np.inf], [np.nan]], dtype), jnp.zeros(3, jnp.int32))
    np.testing.assert_array_equal(odd.value[:, 0], [0.0, np.inf, np.nan])
    assert odd.exponent.tolist() == [0, 0, 0]


def test_logs_keep_their_digits_at_large_exponents():
    n = np.array([0, 1, -1, 1000, -123_456, 9_999_999, -16_000_000])
    want = n * np.log(np.longdouble(2)) + np.log(np.longdouble(0.75))
    got = log_of(jnp.full(n.size, 0.75, jnp.float32), jnp.asarray(n, jnp.int32))
    np.testing.assert_allclose(got, want.astype(float), rtol=3e-7)
    got = log_of(jnp.full(n.size, 0.75, jnp.float64), jnp.asarray(n, jnp.int32))
    np.testing.assert_allclose(got, want.astype(float), rtol=4e-16)


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2), (1, 1), (4, 1)])
def test_spectral_norm_is_the_largest_singular_value_at_any_scale(shape):
    for scale in (1e-300, 1e-20, 1.0, 1e200):
        x = scale * np.random.default_rng(0).normal(size=(6, *shape))
        want = np.linalg.norm(x, 2, axis=(1, 2))
        np.testing.assert_allclose(norms.spectral(jnp.asarray(x)), want, rtol=1e-14)
    assert norms.spectral(jnp.zeros((2, *shape))).tolist() == [0.0, 0.0]


def test_a_scaled_tree_is_a_pytree_and_gives_itself_back():
    tree = {"a": jnp.asarray([3.0, 4.0]), "b": jnp.asarray([0.5, 0.25])}
    scaled = rescaled(tree, jnp.int32(5))
    assert isinstance(scaled, Scaled)
    for leaf, want in zip(jax.tree.leaves(scaled.unscaled()), jax.tree.leaves(tree), strict=True):
        np.testing.assert_array_equal(leaf, 32 * np.asarray(want))


# --- shapes and refusals ---------------------------------------------------------------


@each_cell
@short(name={"rnn-relu", "lstm", "gru"})
def test_no_step_one_step_and_no_batch(name):
    cell = CELLS[name]
    for T, batch in ((0, ()), (1, (2,)), (0, (0,))):
        params, xs, state0 = drawn(name, T, batch, 0)
        assert products.transport_norms(jaxrnn.Run(cell, params, xs, state0)).shape == (T, *batch)
        assert products.tangent_norms(jaxrnn.Run(cell, params, xs, state0), state0).shape == (
            T,
            *batch,
        )
        assert products.adjoint_norms(jaxrnn.Run(cell, params, xs, state0), state0).shape == (
            T,
            *batch,
        )
    params, xs, state0 = drawn(name, 1, (), 0)
    assert float(products.transport_norms(jaxrnn.Run(cell, params, xs, state0))[0]) == 0.0


PARAMS = jaxrnn.RNNParams(jnp.zeros((H, D)), jnp.zeros((H, H)), jnp.zeros(H))
XS = jnp.zeros((6, D))


@pytest.mark.parametrize("t", [5, 199])
def test_lengths_of_eight_bits_reach_beyond_127_steps(t):
    params, xs, _ = drawn("gru", 200, (2,))
    wide = jaxrnn.Run(CELLS["gru"], params, xs, lengths=jnp.array([100, 3]))
    want = products.transport(wide, 0, t).unscaled()
    run = jaxrnn.Run(CELLS["gru"], params, xs, lengths=jnp.array([100, 3], "int8"))
    np.testing.assert_allclose(products.transport(run, 0, t).unscaled(), want, rtol=1e-12)


@pytest.mark.parametrize(
    ("k", "t", "words"),
    [
        (4, 3, r"k: expected an integer in \[0, 3\], got 4"),
        (0, 6, r"t: expected an integer in \[0, 5\], got 6"),
        (-1, 3, "k: expected an integer in \\[0, 3\\], got -1"),
        (1.0, 3, "k: expected an integer, got 1.0"),
        (1, "3", "t: expected an integer, got '3'"),
    ],
)
def test_indices_outside_the_sequence_are_refused(k, t, words):
    error = ValueError if isinstance(k, int) and isinstance(t, int) else TypeError
    with pytest.raises(error, match=words):
        products.transport(jaxrnn.Run(jaxrnn.rnn(), PARAMS, XS), k, t)
    with pytest.raises(error, match=words):
        jax.jit(lambda xs: products.transport(jaxrnn.Run(jaxrnn.rnn(), PARAMS, xs), k, t))(XS)


@pytest.mark.parametrize("f", [products.adjoint_norms, products.tangent_norms])
def test_a_vector_that_is_no_state_is_refused(f):
    name = "cotangent" if f is products.adjoint_norms else "tangent"
    with pytest.raises(TypeError, match=f"{name}: expected the tree of the state"):
        f(jaxrnn.Run(jaxrnn.rnn(), PARAMS, XS), jnp.zeros(H))
    with pytest.raises(ValueError, match=rf"{name}.h: expected .*\[{H}\].* got .*\[{H + 1}\]"):
        f(jaxrnn.Run(jaxrnn.rnn(), PARAMS, XS), jaxrnn.RNNState(jnp.zeros(H + 1)))


@pytest.mark.parametrize(
    "f", [matrix_products.sequential, matrix_products.associative, matrix_products.product]
)
def test_matrices_that_are_not_square_or_not_finite_are_refused(f):
    with pytest.raises(ValueError, match=r"matrices: expected square .*got float64\[3, 2, 4\]"):
        f(np.zeros((3, 2, 4)))
    with pytest.raises(ValueError, match=r"matrices: expected square matrices"):
        jax.jit(f)(np.zeros((2, 2)))
    bad = np.zeros((5, 3, 2, 2))
    bad[2, 1, 0, 0] = np.nan
    bad[4] = np.inf
    with pytest.raises(ValueError, match=r"matrices: expected finite entries.* first in step 2"):
        f(bad)
    with pytest.raises(TypeError, match="matrices: expected an array"):
        f([[1.0]])
