"""Certificates are never wrong: no product that NumPy measures exceeds its bound."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import certificates
from jaxrnn.numerics.matrix_products import from_tree
from tests.support.profiles import short
from tests.support.table import CELLS
from tests.support.untied import D, H, drawn, masked

NETS = {"rnn-tanh": 24_000, "rnn-sigmoid": 20_000, "rnn-relu": 20_000, "rnn-identity": 12_000,
        "lstm": 12_000, "gru": 12_000}  # fmt: skip
T = 6


@functools.partial(jax.jit, static_argnums=0)
def bounds_and_jacobians(cell, params, xs, state0):
    def one(params, xs, state0):
        J = from_tree(jaxrnn.jacobians.closed_form(jaxrnn.Run(cell, params, xs, state0)))
        return certificates.along(jaxrnn.Run(cell, params, xs, state0)), J

    return jax.vmap(one)(params, xs, state0)


def measured(J):
    """log ‖∂s_{T-1}/∂sₖ‖ by NumPy, `(N, T)`."""
    product, found = np.broadcast_to(np.eye(J.shape[-1]), J[:, 0].shape), []
    for i in range(J.shape[1] - 1, -1, -1):
        found.append(np.linalg.norm(product, 2, axis=(-2, -1)))
        product = product @ J[:, i]
    with np.errstate(divide="ignore"):
        return np.log(np.stack(found[::-1], axis=1))


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("name", NETS)
@short(name="rnn-relu", dtype=jnp.float64)
@short(name="gru", dtype=jnp.float32)
def test_no_product_exceeds_its_bound(name, dtype):
    N = NETS[name] // 2  # in each dtype: 100,000 in all
    cell = CELLS[name]
    params, xs, state0 = drawn(name, T, (), 0, many=(N,))
    scale = 10.0 ** np.random.default_rng(1).uniform(-2, 1, size=N)  # of all weights
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf) * scale.reshape(-1, *[1] * (leaf.ndim - 1)), params
    )
    rounded = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (params, xs, state0))
    bounds, J = bounds_and_jacobians(cell, *rounded)
    bounds = type(bounds)(*[np.asarray(leaf, np.float64) for leaf in bounds])
    exact = measured(np.asarray(J, np.float64))
    assert np.all(exact <= bounds.upper)
    assert np.all(exact >= bounds.lower)
    assert np.all(bounds.product <= bounds.upper)
    if cell.traits.slope is not None:
        found = jax.jit(jax.vmap(functools.partial(certificates.of_weights, cell)))(rounded[0])
        lag = np.arange(T - 1, -1, -1)
        assert np.all(exact <= lag * np.log(np.asarray(found.bound, np.float64))[:, None] + 1e-300)
        eigenvalues = np.abs(np.linalg.eigvals(np.asarray(rounded[0].w_hh, np.float64))).max(-1)
        eps = float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(found.spectral_radius, eigenvalues, rtol=3000 * eps, atol=0)


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [("float64", "float64"), ("float32", "float32"), ("bfloat16", "float32")],
)
def test_a_bound_by_the_weights_has_a_dtype_of_at_least_32_bits(dtype, wide):
    leaves = np.ones((3, 2)), np.eye(3), np.zeros(3)
    params = jaxrnn.RNNParams(*[jnp.asarray(leaf, dtype) for leaf in leaves])
    found = certificates.of_weights(jaxrnn.rnn(), params)
    assert found.linear.dtype == bool
    for leaf in found._replace(linear=found.gamma):
        assert leaf.dtype == wide
        assert not leaf.weak_type


@pytest.mark.parametrize("name", CELLS)
@short(name={"rnn-relu", "lstm"})
def test_the_bounds_are_sums_of_logs_of_singular_values(name):
    """Tight to rounding for what they are; padding is the identity, a reset is 0."""
    run = jaxrnn.Run(CELLS[name], *drawn(name, 9, (2,), 0), **masked(9, (2,), 0))
    bounds = jax.tree.map(np.asarray, certificates.along(run))
    J = np.asarray(jax.jit(lambda run: from_tree(jaxrnn.jacobians.closed_form(run)))(run))
    sigma = np.linalg.svd(J, compute_uv=False)
    with np.errstate(divide="ignore"):
        most, least = np.log(sigma[..., 0]), np.log(sigma[..., -1])
    np.testing.assert_allclose(bounds.step_upper, most, rtol=0, atol=1e-12)
    regular = sigma[..., -1] > 1e-6 * sigma[..., 0]
    np.testing.assert_allclose(bounds.step_lower[regular], least[regular], rtol=0, atol=1e-6)
    for k in range(9):
        np.testing.assert_allclose(bounds.upper[k], most[k + 1 :].sum(0), rtol=0, atol=1e-10)
    product = jaxrnn.products.transport_norms(run)
    np.testing.assert_array_equal(bounds.product, product)


# --- eigenvalue or singular value ------------------------------------------------------

SKEWED = np.array([[8.0, 8.0], [-8.0, -8.0]])


def zeros(*shape):
    return jnp.asarray(np.zeros(shape))


def ones(*shape):
    return jnp.asarray(np.ones(shape))


@functools.cache
def fresh(cell, D, H):
    return cell.init(jax.random.key(0), D, H)


def test_a_net_with_every_eigenvalue_zero_explodes_and_no_certificate_denies_it():
    b = jnp.array([-4.0, 4.549306144334055])
    params = jaxrnn.RNNParams(zeros(2, 1), jnp.asarray(SKEWED), b)
    at_rest = jaxrnn.RNNState(jnp.array([0.0, 0.5]))
    found = certificates.certify(jaxrnn.Run(jaxrnn.rnn(), params, zeros(20, 1), at_rest))
    assert float(found.weights.spectral_radius) == 0.0
    np.testing.assert_allclose(found.weights.sigma_max, 16.0, rtol=1e-14)
    assert found.weights.statement().verdict == "explosion possible"
    eigenvalue = found.weights.by_eigenvalue()
    assert eigenvalue.verdict == "no certificate"
    assert "decides nothing" in eigenvalue.sentence
    lag = np.arange(19, 0, -1)
    want = (lag - 1) * np.log(2) + np.log(14.142135623730951)
    # The fixed point is unstable: rounding leaves it by 1e-16·2ⁿ.
    product = np.asarray(found.trajectory.product)
    np.testing.assert_allclose(product[:-1], want, rtol=1e-6)
    assert found.trajectory.statement().verdict == "explosion possible"


LINEAR = jaxrnn.rnn(jaxrnn.activations.identity)


def linear_params(W):
    n = len(W)
    return jaxrnn.RNNParams(zeros(n, 1), jnp.asarray(W), zeros(n))


def linear(W):
    return certificates.of_weights(LINEAR, linear_params(W)).statement()


def test_for_a_linear_net_the_spectral_radius_decides():
    shear = np.array([[0.5, 1.0], [0.0, 0.5]])
    assert linear(shear).verdict == "vanishing certified"
    assert "after growing by up to 1.207" in linear(shear).sentence
    assert linear(2.5 * shear).verdict == "explosion possible"
    assert "gradients explode" in linear(2.5 * shear).sentence
    assert linear(np.roll(np.eye(3), 1, 0)).verdict == "explosion excluded"
    assert linear(0.9 * np.eye(2)).verdict == "vanishing certified"
    assert linear(np.zeros((2, 2))).verdict == "vanishing certified"


@pytest.mark.parametrize(
    ("activation", "scale", "verdict"),
    [
        ("tanh", 0.99, "vanishing certified"),
        ("tanh", 1.01, "explosion possible"),
        ("sigmoid", 3.99, "vanishing certified"),
        ("sigmoid", 4.01, "explosion possible"),
        ("relu", 1.0, "explosion excluded"),
    ],
)
def test_the_verdict_turns_where_gamma_times_sigma_is_1(activation, scale, verdict):
    cell = jaxrnn.rnn(getattr(jaxrnn.activations, activation))
    W = jnp.asarray(scale * np.roll(np.eye(4), 1, 0))
    params = jaxrnn.RNNParams(zeros(4, 1), W, zeros(4))
    statement = certificates.of_weights(cell, params).statement()
    assert statement.verdict == verdict
    assert "σ_max" in statement.inequality


def test_verdicts_along_a_trajectory():
    cell = jaxrnn.lstm()
    params, xs = fresh(cell, 3, 4), np.ones((8, 2, 3))

    def verdict(params, T=8, **masks):
        run = jaxrnn.Run(cell, params, jnp.asarray(xs[:T]), **masks)
        return certificates.along(run).statement().verdict

    scaled = lambda by: jax.tree.map(lambda leaf: jnp.asarray(by * np.asarray(leaf)), params)  # noqa: E731
    assert verdict(scaled(0)) == "vanishing certified"  # f = ½, nothing fed back
    assert verdict(scaled(6)) == "explosion possible"
    held = verdict(params, lengths=jnp.array([0, 0]))
    assert held in ("explosion excluded", "no certificate")  # identities, 1 to rounding
    for T in (0, 1):
        assert verdict(params, T) == "no certificate"


@pytest.mark.parametrize(("rho", "side"), [(0.75, "0.75 <"), (1.0, "1 ≥"), (1.25, "1.25 ≥")])
def test_an_eigenvalue_decides_nothing_and_its_side_of_1_is_said(rho, side):
    one, two = jnp.asarray(1.0), jnp.asarray(2.0)
    bound = certificates.WeightBound(one, two, jnp.asarray(rho), jnp.asarray(False), two)
    assert bound.by_eigenvalue().verdict == "no certificate"
    assert f"γρ = {side} 1" in str(bound.by_eigenvalue())


@pytest.mark.parametrize(
    ("upper", "product", "verdict"),
    [
        ([-3.0, -1.0, 0.0], [-4.0, -2.0, 0.0], "vanishing certified"),
        ([-3.0, 0.0, 0.0], [-4.0, 0.0, 0.0], "vanishing certified"),
        ([0.0, -1.0, 0.0], [-4.0, -2.0, 0.0], "explosion excluded"),
        ([-3.0, 1.0, 0.0], [-4.0, 0.5, 0.0], "explosion possible"),  # a lag in between grows
        ([-3.0, 1.0, 0.0], [-4.0, 0.0, 0.0], "no certificate"),
        ([2.0, -1.0, 0.0], [1.0, -2.0, 0.0], "explosion possible"),
    ],
)
def test_the_verdict_is_that_of_every_lag_and_of_the_worst_example(upper, product, verdict):
    upper, product = np.array(upper), np.array(product)
    quiet = np.array([-9.0, -8.0, 0.0])
    for beside in (upper, quiet):
        given = np.stack([beside, upper], 1), np.stack([np.minimum(beside, product), product], 1)
        bounds = certificates.TrajectoryBounds(*[given[0]] * 4, given[1])
        assert bounds.statement().verdict == verdict


def test_a_certificate_prints_every_part():
    cell = jaxrnn.rnn()
    words = str(certificates.certify(jaxrnn.Run(cell, fresh(cell, 3, 4), ones(5, 3))))
    for part in ("any input", "by eigenvalue", "these inputs", "γσ_max", "∏ σ_max(Jᵢ)"):
        assert part in words
    cell = jaxrnn.gru()
    gated = certificates.certify(jaxrnn.Run(cell, fresh(cell, 3, 4), ones(5, 3)))
    assert gated.weights is None
    assert "any input" not in str(gated)


def test_certificates_without_a_bound_are_refused_with_the_reason():
    cube = jaxrnn.activations.Activation("cube", lambda z: z**3, lambda z: 3 * z**2)
    params = jaxrnn.RNNParams(zeros(H, D), zeros(H, H), zeros(H))
    f = certificates.of_weights
    with pytest.raises(ValueError, match=r"cell: expected one gate with a bound γ.*without γ"):
        f(jaxrnn.rnn(cube), params)
    with pytest.raises(ValueError, match=r"cell: expected one gate with a bound γ.*gru"):
        f(jaxrnn.gru(), fresh(jaxrnn.gru(), D, H))
    with pytest.raises(TypeError, match="params: "):
        f(jaxrnn.rnn(), {"w": 1})
    with pytest.raises(TypeError, match="cell: expected a cell"):
        f("rnn", params)
    with_inputs = certificates.certify(jaxrnn.Run(jaxrnn.rnn(cube), params, ones(4, D)))
    assert with_inputs.weights is None
    with pytest.raises(TypeError, match=r"phi.slope: expected a real number"):
        jaxrnn.PointwiseCell(
            "x", ("h",), jaxrnn.rnn().phi._replace(slope="1"), jaxrnn.RNNState,
            jaxrnn.rnn().shapes, jaxrnn.rnn().init)  # fmt: skip


def test_for_a_linear_net_the_eigenvalue_is_a_certificate():
    found = certificates.of_weights(LINEAR, linear_params([[0.5, 1.0], [0.0, 0.5]]))
    assert found.by_eigenvalue() == found.statement()
    assert found.by_eigenvalue().verdict == "vanishing certified"


def test_a_trajectory_that_is_not_finite_has_no_certificate():
    bad = np.zeros((3, 2))
    bad[1, 0] = np.nan
    statement = certificates.TrajectoryBounds(*[jnp.asarray(bad)] * 5).statement()
    assert statement.verdict == "no certificate"
    assert statement.sentence == "NaN on these inputs: weights or states not finite"


def test_a_certificate_without_inputs_prints_what_the_weights_say():
    weights = certificates.of_weights(LINEAR, linear_params([[0.5]]))
    found = certificates.Certificate(weights, None)
    assert str(found).startswith("any input      vanishing certified: γσ_max = 0.5 < 1")
    assert "by eigenvalue" in str(found)
    assert "these inputs" not in str(found)


@pytest.mark.parametrize(("W", "slope"), [
    ([[2.0, 1.0], [1.0, 2.0]], [[0.5, 0.5], [0.5, 0.5]]),  # v vᵀ of a symmetric W
    ([[3.0, 1.0], [-2.0, 1.0]], None),  # a complex pair: ρ² = det W, and ∂ρ/∂W = ρ W⁻ᵀ/2
])  # fmt: skip
def test_the_slope_of_the_spectral_radius_is_that_of_the_largest_eigenvalue(W, slope):
    def radius(W):
        return certificates.of_weights(LINEAR, linear_params(W)).spectral_radius

    W = jnp.array(W)
    rho, got = jax.jit(jax.value_and_grad(radius))(W)
    want = np.asarray(rho) / 2 * np.linalg.inv(W).T if slope is None else np.array(slope)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-14)
