"""Norms at the edges of a dtype."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.numerics import norms


def all_of(x, one, other):
    return (norms.norm(x, (1,)), norms.tree_norm({"a": x, "b": one}),
            norms.norm_and_inner(one, other), norms.cosine({"a": x}, {"a": x}))  # fmt: skip


@pytest.mark.parametrize("size", [1e-36, 1e-25, 1.0, 1e25, 1e37])
def test_no_norm_is_lost_that_float32_can_hold(size):
    x = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32) * np.float32(size)
    one, x = x[0], jax.device_put(x)
    exact = np.linalg.norm(np.asarray(x, np.float64), axis=1)
    other = np.ones(50, np.float32) / np.float32(size)
    each, whole, (norm, inner), cosine = all_of(x, jax.device_put(one), jax.device_put(other))
    np.testing.assert_allclose(each, exact, rtol=1e-6)
    np.testing.assert_allclose(whole, np.sqrt(np.sum(exact**2) + exact[0] ** 2), rtol=1e-6)
    np.testing.assert_allclose(norm, exact[0], rtol=1e-6)
    np.testing.assert_allclose(inner, np.sum(one.astype(np.float64)) / size, rtol=1e-5)
    np.testing.assert_allclose(cosine, 1, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("by", [jax.jit, lambda f: f], ids=["jit", "eager"])
def test_no_norm_is_lost_next_to_the_largest_number(dtype, by):
    """The reciprocal of an entry beyond 1/tiny is below the normal numbers, and XLA makes it 0."""
    if jnp.zeros((), dtype).dtype != dtype:
        pytest.skip("float64 wants JAX's 64-bit mode")
    unit = float(jnp.finfo(dtype).max) / 16
    x = jax.device_put((unit * np.array([[9.0, -5.0], [2.0, -11.0]])).astype(jnp.dtype(dtype)))
    exact = np.asarray(x, np.float64) / unit
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    close(np.float64(by(lambda x: norms.norm(x, (1,)))(x)) / unit, np.linalg.norm(exact, axis=1))
    close(float(by(norms.tree_norm)({"a": x})) / unit, np.linalg.norm(exact))
    close(float(by(norms.spectral)(x)) / unit, np.linalg.norm(exact, 2))
    norm, inner = by(norms.norm_and_inner)(x, jnp.ones_like(x))
    close([float(norm) / unit, float(inner) / unit], [np.linalg.norm(exact), exact.sum()])
    turned = np.stack([exact[0], -exact[1]])
    cosine = np.sum(exact * turned) / np.sum(exact * exact)
    close(by(norms.cosine)(x, x * jnp.array([[1], [-1]], dtype)), cosine)


def test_what_is_zero_empty_or_not_finite():
    norm = jax.jit(norms.norm, static_argnums=1)
    tree_norm, cosine, spectral = map(jax.jit, (norms.tree_norm, norms.cosine, norms.spectral))
    assert norm(np.zeros((2, 3)), (1,)).tolist() == [0, 0]
    assert norm(np.zeros((2, 0)), (1,)).tolist() == [0, 0]
    assert float(tree_norm(np.zeros(()))) == 0
    for shape in ((2, 0, 3), (2, 3, 0)):
        assert spectral(np.zeros(shape)).tolist() == [0, 0]
    assert float(norm(np.array([1.0, np.inf]), (0,))) == np.inf
    assert np.isnan(float(norm(np.array([1.0, np.nan]), (0,))))
    zero, one = np.zeros(2), np.ones(2)
    assert float(cosine(zero, zero)) == 1
    assert float(cosine(zero, one)) == float(cosine(one, zero)) == 0


def test_leaves_of_several_dtypes_are_measured_in_the_widest():
    tree = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.float64), "c": jnp.float32(0)}
    got = jax.jit(norms.tree_norm)(tree)
    assert got.dtype == jnp.float64
    eps = np.finfo(np.float32).eps  # each leaf by itself is measured in its own dtype or float32
    np.testing.assert_allclose(got, 2, rtol=eps)
    other = jax.tree.map(lambda x: -x, tree)
    np.testing.assert_allclose(jax.jit(norms.cosine)(tree, other), -1, rtol=eps)
