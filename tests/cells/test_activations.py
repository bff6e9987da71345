"""Activations: derivatives that keep their digits where the unit saturates."""

import dataclasses

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from jaxrnn import activations
from tests.support.modes import tol
from tests.support.profiles import short

RAMPS = ("hard_sigmoid", "keras2_hard_sigmoid", "hard_tanh")
ALL = ("tanh", "sigmoid", "relu", "identity", "softsign", "softplus", *RAMPS)
SATURATING = ("tanh", "sigmoid")
# The largest |z| whose derivative is a normal number.
NORMAL = {
    ("tanh", "float32"): 43.0,
    ("sigmoid", "float32"): 87.0,
    ("tanh", "float64"): 354.0,
    ("sigmoid", "float64"): 708.0,
}


def exact(name, z):
    """The derivative in float64 from exp(-|z|): nothing is subtracted."""
    if name == "tanh":
        e = np.exp(-2.0 * np.abs(z))
        return 4.0 * e / (1.0 + e) ** 2
    e = np.exp(-np.abs(z))
    return e / (1.0 + e) ** 2


def fifty_digits(name, z):
    """The derivative of tanh or σ by mpmath, an exact rational of doubles as argument."""
    with mpmath.workdps(50):
        z = mpmath.mpf(float(z))
        return mpmath.sech(z) ** 2 if name == "tanh" else mpmath.sech(z / 2) ** 2 / 4


def ulps(got, want):
    """Errors of `got` in units of the last place of `want`, rounded to the dtype of `got`."""
    with mpmath.workdps(50):
        pairs = zip(got, want, strict=True)
        off = [float(abs(mpmath.mpf(float(g)) - w) / float(np.spacing(got.dtype.type(float(w)))))
               for g, w in pairs]  # fmt: skip
    return np.array(off)


@pytest.mark.parametrize("name", SATURATING)
def test_float32_derivative_is_within_4_ulp_over_the_normal_range(name):
    limit = NORMAL[name, "float32"]
    z = np.linspace(-limit, limit, 2_000_001).astype(np.float32)
    got = np.asarray(jax.jit(getattr(activations, name).derivative)(z))
    want = exact(name, z.astype(np.float64))
    rounded = want.astype(np.float32)
    assert rounded.min() >= np.finfo(np.float32).tiny
    assert got.dtype == np.float32
    assert not np.any(got == 0)
    error = np.abs(got - want) / np.spacing(rounded)
    assert error.max() <= 4, z[error.argmax()]


@pytest.mark.parametrize("name", SATURATING)
def test_float64_derivative_is_within_a_few_ulp_over_the_normal_range(name):
    """The reference has a few roundings of its own."""
    limit = NORMAL[name, "float64"]
    z = np.linspace(-limit, limit, 200_001)
    got, want = np.asarray(getattr(activations, name).derivative(z)), exact(name, z)
    assert want.min() >= np.finfo(np.float64).tiny
    assert not np.any(got == 0)
    error = np.abs(got - want) / np.spacing(want)
    assert error.max() <= 8, z[error.argmax()]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SATURATING)
def test_derivative_is_within_4_ulp_of_50_digits(name, dtype):
    limit = NORMAL[name, dtype]
    uniform = np.linspace(-limit, limit, 401)
    near_zero = np.geomspace(1e-12, limit, 200)
    z = np.concatenate([uniform, near_zero, -near_zero]).astype(dtype)
    z = z[np.abs(z) <= limit]
    got = np.asarray(getattr(activations, name).derivative(z))
    error = ulps(got, [fifty_digits(name, point) for point in z])
    assert z.size >= 700
    assert error.max() <= 4, z[error.argmax()]


def by_autodiff(name, z):
    """The derivative as `jax.grad` of the value gives it."""
    return np.asarray(jax.vmap(jax.grad(getattr(activations, name).value))(z))


@pytest.mark.parametrize("start", [9.2, 20.0, 43.0])
@short(start={20.0, 43.0})
def test_float32_autodiff_of_tanh_is_exactly_zero_where_the_closed_form_is_not(start):
    z = np.linspace(start, 43, 1000, dtype=np.float32)
    assert np.all(by_autodiff("tanh", z) == 0)
    assert np.all(np.asarray(1 - jnp.tanh(z) ** 2) == 0)
    assert np.all(np.asarray(activations.tanh.derivative(z)) > 0)


@pytest.mark.parametrize(("name", "lowest", "highest"), [("tanh", 6.5, 9.2), ("sigmoid", 12, 17)])
def test_float32_autodiff_is_off_by_more_than_a_percent_where_the_closed_form_is_not(
    name, lowest, highest
):
    z = np.linspace(lowest, highest, 10_001, dtype=np.float32)
    want = exact(name, z.astype(np.float64))
    assert np.max(np.abs(by_autodiff(name, z) - want) / want) > 0.01
    closed = np.asarray(getattr(activations, name).derivative(z))
    assert np.max(np.abs(closed - want) / want) < 1e-6


def test_float32_difference_loses_the_digits_that_the_derivative_keeps():
    """The numbers of the module's docstring: 1 - tanh² is 0.2 % off by |z| = 5."""
    z = np.linspace(4.5, 5.5, 10_001, dtype=np.float32)
    want = exact("tanh", z.astype(np.float64))
    difference = np.asarray(1 - jnp.tanh(z) ** 2)
    assert 1e-3 < np.max(np.abs(difference - want) / want) < 1e-2
    assert np.max(np.abs(np.asarray(activations.tanh.derivative(z)) - want) / want) < 1e-6


@pytest.mark.parametrize("name", ALL)
def test_gamma_is_the_supremum_of_the_derivative(name):
    activation = getattr(activations, name)
    grid = np.linspace(-40, 40, 800_001)
    assert abs(np.max(np.abs(activation.derivative(grid))) - activation.gamma) <= tol(1e-12)


def test_gammas_are_those_of_the_literature():
    found = {name: getattr(activations, name).gamma for name in ALL}
    assert found == {
        "tanh": 1.0, "sigmoid": 0.25, "relu": 1.0, "identity": 1.0, "softsign": 1.0,
        "softplus": 1.0, "hard_sigmoid": 1 / 6, "keras2_hard_sigmoid": 0.2, "hard_tanh": 1.0,
    }  # fmt: skip


# name ↦ (slope, lowest, highest); the line goes through half-way at 0.
LINES = {
    "hard_sigmoid": (1 / 6, 0, 1), "keras2_hard_sigmoid": (0.2, 0, 1), "hard_tanh": (1, -1, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", RAMPS)
def test_a_ramp_is_a_line_between_its_ends(name):
    """The derivative is 0 at an end and beyond; autodiff of the value agrees everywhere."""
    (slope, low, high), activation = LINES[name], getattr(activations, name)
    end = (high - low) / 2 / slope
    z = np.concatenate([np.linspace(-2 * end, 2 * end, 4001), [-end, end, 0, -np.inf, np.inf]])
    expected = np.clip(slope * z + (low + high) / 2, low, high)
    np.testing.assert_allclose(activation(z), expected, rtol=0, atol=1e-15)
    off_the_ends = np.abs(np.abs(z) - end) > 1e-9
    inside = slope * (np.abs(z) < end)
    np.testing.assert_array_equal(activation.derivative(z)[off_the_ends], inside[off_the_ends])
    finite = off_the_ends & np.isfinite(z)
    np.testing.assert_array_equal(by_autodiff(name, z[finite]), inside[finite])


@pytest.mark.parametrize("name", ["softsign", "softplus"])
def test_softsign_and_softplus_are_right_to_4_ulp_of_50_digits(name):
    z = np.concatenate([np.linspace(-80, 80, 401), np.geomspace(1e-12, 80, 100)]).astype("float32")
    activation = getattr(activations, name)
    with mpmath.workdps(50):
        points = [mpmath.mpf(float(point)) for point in z]
        if name == "softsign":
            values = [p / (1 + abs(p)) for p in points]
            slopes = [(1 + abs(p)) ** -2 for p in points]
        else:
            values = [mpmath.log1p(mpmath.exp(p)) for p in points]
            slopes = [1 / (1 + mpmath.exp(-p)) for p in points]
    assert ulps(np.asarray(activation(z)), values).max() <= 4
    assert ulps(np.asarray(activation.derivative(z)), slopes).max() <= 4


@pytest.mark.parametrize("name", ["sigmoid", "hard_sigmoid", "keras2_hard_sigmoid"])
def test_the_complement_of_a_gate_keeps_its_digits_where_the_gate_is_open(name):
    activation, z = getattr(activations, name), np.linspace(-30, 30, 2001)
    exact = 1 - np.asarray(activation(z))
    np.testing.assert_allclose(activation.one_minus(z), exact, rtol=0, atol=1e-15)
    if name == "sigmoid":
        single = np.asarray(activation.one_minus(np.float32(30.0)))
        np.testing.assert_allclose(single, np.exp(-30.0), rtol=1e-6)
    by_default = dataclasses.replace(activation, complement=None)
    np.testing.assert_allclose(by_default.one_minus(z), exact, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ALL)
def test_both_are_value_and_derivative(name):
    activation, z = getattr(activations, name), np.linspace(-8.05, 8, 401)
    value, slope = activation.pair(z)
    np.testing.assert_allclose(value, activation(z), rtol=1e-15, atol=1e-16)
    np.testing.assert_allclose(slope, activation.derivative(z), rtol=1e-15, atol=1e-16)


def test_relu_derivative_is_1_above_0_and_0_from_0_down():
    z = np.array([-np.inf, -1.0, -1e-300, -0.0, 0.0, 1e-300, 1.0, np.inf])
    expected = [0, 0, 0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(activations.relu.derivative(z), expected)
    np.testing.assert_array_equal(by_autodiff("relu", z), expected)


def test_identity_derivative_is_1_everywhere():
    z = np.array([-np.inf, -1.0, 0.0, 1.0, np.inf])
    np.testing.assert_array_equal(activations.identity.derivative(z), np.ones(5))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", sorted(set(ALL) - {"identity"}))
def test_nan_stays_visible_in_value_and_derivative(name, dtype):
    activation = getattr(activations, name)
    z = jnp.asarray([0.5, jnp.nan], dtype)
    for f in (activation.value, activation.derivative):
        np.testing.assert_array_equal(np.isnan(np.asarray(f(z), np.float64)), [False, True])


@pytest.mark.parametrize("name", SATURATING)
def test_derivative_is_0_at_infinity_and_beyond_the_smallest_number(name):
    z = np.array([-np.inf, -1e6, 1e6, np.inf], np.float32)
    np.testing.assert_array_equal(getattr(activations, name).derivative(z), np.zeros(4))


@pytest.mark.parametrize("name", SATURATING)
def test_derivative_is_even_to_the_last_bit(name):
    z = np.linspace(0, 40, 1001, dtype=np.float32)
    derivative = getattr(activations, name).derivative
    np.testing.assert_array_equal(derivative(z), derivative(-z))


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", ALL)
def test_value_and_derivative_keep_dtype_and_shape(name, dtype, shape):
    activation = getattr(activations, name)
    z = jax.ShapeDtypeStruct(shape, dtype)
    for f in (activation.value, activation.derivative):
        out = jax.eval_shape(f, z)
        assert (out.shape, out.dtype, out.weak_type) == (shape, z.dtype, False)


NUMPY = {
    "tanh": np.tanh,
    "sigmoid": lambda z: np.where(z > 0, 1 / (1 + np.exp(-abs(z))), 1 - 1 / (1 + np.exp(-abs(z)))),
    "relu": lambda z: np.maximum(z, 0),
    "identity": np.array,
    "softsign": lambda z: z / (1 + np.abs(z)),
    "softplus": lambda z: np.logaddexp(z, 0),
    "hard_sigmoid": lambda z: np.clip(z / 6 + 0.5, 0, 1),
    "keras2_hard_sigmoid": lambda z: np.clip(0.2 * z + 0.5, 0, 1),
    "hard_tanh": lambda z: np.clip(z, -1, 1),
}


@pytest.mark.parametrize("name", ALL)
def test_value_equals_numpys(name):
    z = np.linspace(-30, 30, 10_001)
    np.testing.assert_allclose(
        getattr(activations, name).value(z), NUMPY[name](z), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("name", ALL)
def test_derivative_is_that_of_the_value(name):
    """In float64 within |z| ≤ 5, where autodiff still has its digits."""
    z = np.linspace(-5, 5, 1000)
    np.testing.assert_allclose(
        getattr(activations, name).derivative(z), by_autodiff(name, z), rtol=1e-10, atol=1e-15
    )


def test_calling_an_activation_gives_its_value():
    z = jnp.linspace(-2, 2, 9)
    for name in ALL:
        activation = getattr(activations, name)
        np.testing.assert_array_equal(activation(z), activation.value(z))


def test_an_activation_can_be_jitted_and_mapped_like_a_function():
    z = jnp.linspace(-2, 2, 9)
    np.testing.assert_array_equal(jax.vmap(activations.sigmoid)(z), activations.sigmoid.value(z))
    np.testing.assert_array_equal(jax.jit(activations.sigmoid)(z), activations.sigmoid.value(z))


def test_activation_prints_its_name_and_gamma():
    assert repr(activations.sigmoid) == "Activation(sigmoid, γ=0.25)"


def test_a_custom_activation_has_no_gamma_unless_given_one():
    assert activations.Activation("square", jnp.square, lambda z: 2 * z).gamma is None
