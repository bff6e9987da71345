"""Transports and log norms against products of complex-step Jacobians, and known systems."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import matrix_products, products
from jaxrnn.numerics import norms
from jaxrnn.numerics.scaled import Scaled, log_of, rescaled, times_power
from tests.support.products import case, companion
from tests.support.profiles import short
from tests.support.table import CELLS
from tests.support.untied import NORMED, D, H, drawn, masked

each_cell = pytest.mark.parametrize("name", CELLS)


def together(run, *functions):
    """What each function gives of the run, in NumPy: one program rather than one for each."""
    return jax.tree.map(np.asarray, jax.jit(lambda run: [f(run) for f in functions])(run))


def dense(run):
    """Every Jacobian as one matrix."""
    return matrix_products.from_tree(jaxrnn.jacobians.closed_form(run))


def moved(k, t):
    """The transport from k to t as one matrix."""
    return lambda run: matrix_products.from_tree(products.transport(run, k, t).unscaled())


def exact_transports(J):
    """∂s_{T-1}/∂sₖ for every k."""
    found = [np.eye(J.shape[-1])]
    for step in J[:0:-1]:
        found.append(found[-1] @ step)
    return np.stack(found[::-1])


# --- against the reference ----------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def both_norms(cell, *parts):
    run = jaxrnn.Run(cell, *parts)
    return products.transport_norms(run), products.frobenius_norms(run)


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@each_cell
@short(name={"rnn-relu", "lstm"})
def test_norms_of_every_lag_are_those_of_the_product(name, scale):
    for seed in range(8):
        params, xs, state0, J = case(name, 9, seed, scale)
        exact = exact_transports(J)
        spectral, frobenius = both_norms(CELLS[name], params, xs, state0)
        with np.errstate(divide="ignore"):
            want = np.log(np.linalg.norm(exact, 2, axis=(1, 2)))
            want_frobenius = np.log(np.linalg.norm(exact, axis=(1, 2)))
        np.testing.assert_allclose(spectral, want, rtol=0, atol=1e-10)
        np.testing.assert_allclose(frobenius, want_frobenius, rtol=0, atol=1e-10)


@each_cell
@short(name="lstm")
def test_the_transport_of_every_pair_is_the_product(name):
    params, xs, state0, J = case(name, 4, 3)
    pairs = [(k, t) for t in range(4) for k in range(t + 1)]
    run = jaxrnn.Run(CELLS[name], params, xs, state0)
    for (k, t), got in zip(pairs, together(run, *[moved(*pair) for pair in pairs]), strict=True):
        exact = np.eye(J.shape[-1])
        for i in range(t, k, -1):
            exact = exact @ J[i]
        np.testing.assert_allclose(got, exact, rtol=0, atol=1e-13)


@each_cell
@short(name={"lstm", "gru"})
def test_one_adjoint_and_one_tangent(name):
    params, xs, state0, J = case(name, 9, 5)
    _, _, vector = drawn(name, 1, (), 11)
    flat = np.concatenate([np.asarray(leaf) for leaf in vector])
    adjoint, tangent = together(
        jaxrnn.Run(CELLS[name], params, xs, state0),
        lambda run: products.adjoint_norms(run, vector),
        lambda run: products.tangent_norms(run, vector),
    )
    want = [np.linalg.norm(flat @ M) for M in exact_transports(J)]
    np.testing.assert_allclose(np.exp(adjoint), want, rtol=1e-11, atol=1e-14)
    forward = [flat]
    for step in J[1:]:
        forward.append(step @ forward[-1])
    want = [np.linalg.norm(v) for v in forward]
    np.testing.assert_allclose(np.exp(tangent), want, rtol=1e-11, atol=1e-14)


@each_cell
@short(name="lstm")
def test_padding_is_the_identity_and_a_reset_cuts_off(name):
    params, xs, state0 = drawn(name, 9, (2, 3), 1)
    run = jaxrnn.Run(CELLS[name], params, xs, state0, **masked(9, (2, 3), 1))
    J, norms_of_lags, transport = together(run, dense, products.transport_norms, moved(2, 6))
    exact = np.broadcast_to(np.eye(J.shape[-1]), J.shape).copy()
    for i in range(8, 0, -1):
        exact[i - 1] = exact[i] @ J[i]
    with np.errstate(divide="ignore"):
        want = np.log(np.linalg.norm(exact, 2, axis=(-2, -1)))
    np.testing.assert_allclose(norms_of_lags, want, rtol=0, atol=1e-12)
    assert np.isneginf(norms_of_lags).any()
    want = np.eye(J.shape[-1])
    for i in range(6, 2, -1):
        want = want @ J[i]
    np.testing.assert_allclose(transport, want, rtol=0, atol=1e-13)


@each_cell
@short(name="lstm")
def test_vectors_pass_held_steps_and_stop_at_resets(name):
    params, xs, state0 = drawn(name, 9, (2, 3), 1)
    _, _, vector = drawn(name, 1, (2, 3), 11)
    J, tangent, adjoint = together(
        jaxrnn.Run(CELLS[name], params, xs, state0, **masked(9, (2, 3), 1)),
        dense,
        lambda run: products.tangent_norms(run, vector),
        lambda run: products.adjoint_norms(run, vector),
    )
    forward = [np.concatenate([np.asarray(leaf) for leaf in vector], axis=-1)]
    back = [forward[0]]
    for i in range(1, 9):
        forward.append(np.einsum("abij,abj->abi", J[i], forward[-1]))
        back.append(np.einsum("abj,abji->abi", back[-1], J[9 - i]))
    want = np.linalg.norm(np.stack(forward), axis=-1)
    np.testing.assert_allclose(np.exp(tangent), want, rtol=1e-11, atol=1e-14)
    want = np.linalg.norm(np.stack(back[::-1]), axis=-1)
    np.testing.assert_allclose(np.exp(adjoint), want, rtol=1e-11, atol=1e-14)


def test_a_cell_from_a_step_has_transports_of_its_whole_state():
    params, xs, state0 = drawn("step", 6, (2,), 1)
    J, got, exponents = together(
        jaxrnn.Run(NORMED, params, xs, state0),
        lambda run: matrix_products.from_tree(jaxrnn.jacobians.reverse_mode(run)),
        products.transport_norms,
        lambda run: jaxrnn.lyapunov.exponents(run).value,
    )
    exact = [np.broadcast_to(np.eye(2 * H), J[0].shape)]
    for step in J[:0:-1]:
        exact.append(exact[-1] @ step)
    want = np.log(np.linalg.norm(np.stack(exact[::-1]), 2, axis=(-2, -1)))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-11)
    assert exponents.shape == (2, 2 * H)


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
    spectral, frobenius, got, upper, found = together(
        run,
        products.transport_norms,
        products.frobenius_norms,
        lambda run: products.transport(run, 2, 6).unscaled(),
        lambda run: jaxrnn.certificates.along(run).step_upper,
        lambda run: jaxrnn.lyapunov.exponents(run).value,
    )
    want = np.log(np.linalg.norm(exact, 2, axis=(1, 2)))
    np.testing.assert_allclose(spectral, want, rtol=0, atol=1e-11)
    want = np.log(np.linalg.norm(exact, axis=(1, 2)))
    np.testing.assert_allclose(frobenius, want, rtol=0, atol=1e-11)
    parts = {"p": slice(0, 2), "q": slice(2, 5), "r": slice(5, 6)}
    for of, rows in parts.items():
        for by, columns in parts.items():
            np.testing.assert_allclose(got[of][by], exact[2][rows, columns], rtol=0, atol=1e-13)
    want = np.log(np.linalg.norm(np.stack(J), 2, axis=(1, 2)))
    np.testing.assert_allclose(upper, want, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.sum(), np.linalg.slogdet(J)[1].mean(), rtol=0, atol=1e-11)


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


@pytest.mark.parametrize("k", [0, 1, 17, 38, 39])
@each_cell
@short(name="gru", k={0, 17})
def test_products_split_at_any_point_agree(name, k):
    params, xs, state0 = drawn(name, 40, (2,), 2)
    run = jaxrnn.Run(CELLS[name], params, xs, state0)
    whole, early, late = (
        (np.asarray(matrix_products.from_tree(P.value)), np.asarray(P.exponent))
        for P in (products.transport(run, *ends) for ends in ((0, 39), (0, k), (k, 39)))
    )
    by = late[1] + early[1] - whole[1]
    got = np.ldexp(late[0] @ early[0], by[:, None, None])
    np.testing.assert_allclose(got, whole[0], rtol=0, atol=1e-12)


@each_cell
@short(name={"lstm", "gru"})
def test_float32_and_chunks_of_a_long_sequence(name):
    """600 steps in float32, which the products leave downward or upward."""
    cell = CELLS[name]
    params, xs, state0 = drawn(name, 600, (), 4)
    exact = products.frobenius_norms(jaxrnn.Run(cell, params, xs, state0))
    narrow = jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float32), (params, xs, state0)
    )
    got = products.frobenius_norms(jaxrnn.Run(cell, *narrow))
    assert np.abs(np.asarray(exact)[0]) > 90  # e⁹⁰ is no float32
    np.testing.assert_allclose(got, exact, rtol=1e-4, atol=1e-3)


# --- a million steps of systems whose answer is known --------------------------------

a, b = 0.8125, 0.59375  # dyadic, so that each dtype has them exactly
ROTATION = np.kron(np.eye(2), [[a, -b], [b, a]])
SHIFT = np.roll(np.eye(4), 1, 0)
SIGNS = np.diag([1.0, -1.0, -1.0, 1.0])
HADAMARD = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
SHEAR = np.kron(np.eye(2), [[1.0, 1.0], [0.0, 1.0]])


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
@pytest.mark.parametrize("T", [10**4, 10**5, 10**6])
@short(T=10_000)
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


@functools.partial(jax.jit, static_argnums=0)
def stack(algorithm, J):
    P = algorithm(J)
    return P, matrix_products.log_norm(P), matrix_products.product(J)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("algorithm", [matrix_products.sequential, matrix_products.associative])
@short(scale=0.001)
@short(algorithm=matrix_products.associative, scale=1000.0)
def test_products_of_a_stack_are_those_of_numpy(algorithm, scale):
    J = scale * np.random.default_rng(0).normal(size=(50, 2, 4, 4))
    P, log_norms, total = jax.tree.map(np.asarray, stack(algorithm, jnp.asarray(J)))
    exact, exponent = np.broadcast_to(np.eye(4), (2, 4, 4)), np.zeros(2, int)
    for i in range(50):
        exact = J[i] @ exact
        _, by = np.frexp(np.abs(exact).max(axis=(1, 2)))
        exact, exponent = exact / 2.0 ** by[:, None, None], exponent + by
        np.testing.assert_array_equal(P.exponent[i], exponent)
        np.testing.assert_allclose(P.value[i], exact, rtol=0, atol=1e-12)
        want = np.log(np.linalg.norm(exact, 2, axis=(1, 2))) + exponent * np.log(2)
        np.testing.assert_allclose(log_norms[i], want, rtol=1e-12)
    np.testing.assert_allclose(total.value, exact, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(total.exponent, exponent)


@pytest.mark.parametrize(
    "f", [matrix_products.sequential, matrix_products.associative, matrix_products.product]
)
def test_products_of_a_float32_stack_stay_float32(f):
    J = np.random.default_rng(2).normal(size=(6, 3, 3)).astype("float32")
    P, unscaled = jax.jit(lambda J: (f(J), f(J).unscaled()))(jnp.asarray(J))
    assert P.value.dtype == "float32"
    exact = np.linalg.multi_dot(np.asarray(J, float)[::-1])
    last = unscaled if f is matrix_products.product else np.asarray(unscaled)[-1]
    np.testing.assert_allclose(last, exact, rtol=0, atol=1e-6 * np.abs(exact).max())


@pytest.mark.parametrize("T", [60, 1000])
@short(T=60)
def test_sequential_and_associative_agree_over_many_steps(T):
    J = jnp.asarray(np.random.default_rng(1).normal(size=(T, 3, 3)))
    both = matrix_products.sequential, matrix_products.associative
    found = jax.jit(lambda J: [matrix_products.log_norm(f(J)) for f in both])(J)
    np.testing.assert_allclose(*found, rtol=1e-10)


def test_an_empty_stack_and_a_singular_step():
    @jax.jit
    def of_nothing(empty):
        return matrix_products.product(empty).unscaled(), matrix_products.sequential(empty)

    none, stacked = of_nothing(np.zeros((0, 2, 2)))
    assert none.tolist() == np.eye(2).tolist()
    assert stacked.value.shape == (0, 2, 2)
    singular = jax.jit(lambda J: matrix_products.log_norm(matrix_products.product(J)))
    assert np.isneginf(singular(np.zeros((3, 2, 2))))


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_jacobian_as_one_matrix_has_the_states_leaves_in_order(name):
    params, xs, state0, J = case(name, 3, 0)
    run = jaxrnn.Run(CELLS[name], params, xs, state0)
    tree, matrix = together(run, jaxrnn.jacobians.closed_form, dense)
    np.testing.assert_allclose(matrix, J, rtol=0, atol=1e-13)
    if name == "lstm":
        np.testing.assert_allclose(tree.h.c, J[:, :H, H:], rtol=0, atol=1e-13)


# --- scaled numbers --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_power_of_two_changes_no_digit(dtype):
    info = jnp.finfo(dtype)
    x = np.random.default_rng(0).normal(size=2000).astype(dtype)
    times = jax.jit(times_power)
    for power in (-40, -1, 0, 3, 40, info.maxexp - 3, info.minexp + 16):
        got = times(x, np.full(2000, power, np.int32))
        np.testing.assert_array_equal(got, np.ldexp(x, power))
    far = times(np.array([info.tiny, 1.0], dtype), np.array([2 * info.maxexp - 3, 0], np.int32))
    np.testing.assert_array_equal(far, [np.ldexp(np.array(info.tiny), 2 * info.maxexp - 3), 1.0])
    gone = times(np.array([1.0, -1.0], dtype), np.array([10**7, -(10**7)], np.int32))
    np.testing.assert_array_equal(gone, [np.inf, -0.0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_rescaled_numbers_of_every_magnitude(dtype):
    @jax.jit
    def both(x, exponent):
        scaled = rescaled(x, exponent)
        return scaled, scaled.unscaled()

    info = jnp.finfo(dtype)
    power = np.arange(info.minexp + 1, info.maxexp)
    x = np.ldexp(np.full(power.size, 0.8125), power).astype(dtype)
    odd = np.array([0.0, np.inf, np.nan], dtype)
    every = np.concatenate([x, odd])
    got, back = jax.tree.map(np.asarray, both(every[:, None], np.zeros(every.size, np.int32)))
    np.testing.assert_array_equal(got.value[:-3, 0], np.full(power.size, 0.8125))
    np.testing.assert_array_equal(got.exponent[:-3], power)
    np.testing.assert_array_equal(back[:-3, 0], x)
    np.testing.assert_array_equal(got.value[-3:, 0], odd)
    assert got.exponent[-3:].tolist() == [0, 0, 0]


def test_logs_keep_their_digits_at_large_exponents():
    n = np.array([0, 1, -1, 1000, -123_456, 9_999_999, -16_000_000])
    want = n * np.log(np.longdouble(2)) + np.log(np.longdouble(0.75))
    log = jax.jit(log_of)
    got = log(np.full(n.size, 0.75, np.float32), n.astype(np.int32))
    np.testing.assert_allclose(got, want.astype(float), rtol=3e-7)
    got = log(np.full(n.size, 0.75, np.float64), n.astype(np.int32))
    np.testing.assert_allclose(got, want.astype(float), rtol=4e-16)


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2), (1, 1), (4, 1)])
def test_spectral_norm_is_the_largest_singular_value_at_any_scale(shape):
    spectral = jax.jit(norms.spectral)
    for scale in (1e-300, 1e-20, 1.0, 1e200):
        x = scale * np.random.default_rng(0).normal(size=(6, *shape))
        want = np.linalg.norm(x, 2, axis=(1, 2))
        np.testing.assert_allclose(spectral(x), want, rtol=1e-14)
    assert spectral(np.zeros((6, *shape))).tolist() == [0.0] * 6


def test_a_scaled_tree_is_a_pytree_and_gives_itself_back():
    tree = {"a": jnp.asarray([3.0, 4.0]), "b": jnp.asarray([0.5, 0.25])}
    scaled = jax.jit(rescaled)(tree, jnp.int32(5))
    assert isinstance(scaled, Scaled)
    back = jax.jit(Scaled.unscaled)(scaled)
    for leaf, want in zip(jax.tree.leaves(back), jax.tree.leaves(tree), strict=True):
        np.testing.assert_array_equal(leaf, 32 * np.asarray(want))


# --- shapes and refusals ---------------------------------------------------------------


@each_cell
@short(name="gru")
def test_no_step_one_step_and_no_batch(name):
    for T, batch in ((0, ()), (1, (2,)), (0, (0,))):
        params, xs, state0 = drawn(name, T, batch, 0)
        found = together(
            jaxrnn.Run(CELLS[name], params, xs, state0),
            products.transport_norms,
            lambda run: products.tangent_norms(run, run.state0),
            lambda run: products.adjoint_norms(run, run.state0),
        )
        assert [each.shape for each in found] == [(T, *batch)] * 3
    params, xs, state0 = drawn(name, 1, (), 0)
    run = jaxrnn.Run(CELLS[name], params, xs, state0)
    assert np.asarray(products.transport_norms(run)).tolist() == [0.0]


PARAMS = jaxrnn.RNNParams(jnp.zeros((H, D)), jnp.zeros((H, H)), jnp.zeros(H))
XS = jnp.zeros((6, D))


@pytest.mark.parametrize("t", [5, 199])
def test_lengths_of_eight_bits_reach_beyond_127_steps(t):
    params, xs, _ = drawn("gru", 200, (2,))
    found = [
        together(
            jaxrnn.Run(CELLS["gru"], params, xs, lengths=np.array([100, 3], dtype)), moved(0, t)
        )
        for dtype in ("int32", "int8")
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12)


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
