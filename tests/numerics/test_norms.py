"""Norms at the edges of a dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.numerics import norms


@pytest.mark.parametrize("size", [1e-36, 1e-25, 1.0, 1e25, 1e37])
def test_no_norm_is_lost_that_float32_can_hold(size):
    x = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32) * np.float32(size)
    one, x = x[0], jnp.asarray(x)
    exact = np.linalg.norm(np.asarray(x, np.float64), axis=1)
    np.testing.assert_allclose(norms.norm(x, (1,)), exact, rtol=1e-6)
    np.testing.assert_allclose(norms.tree_norm({"a": x, "b": jnp.asarray(one)}),
        np.sqrt(np.sum(exact**2) + exact[0] ** 2), rtol=1e-6)  # fmt: skip
    other = np.ones(50, np.float32) / np.float32(size)
    norm, inner = norms.norm_and_inner(jnp.asarray(one), jnp.asarray(other))
    np.testing.assert_allclose(norm, exact[0], rtol=1e-6)
    np.testing.assert_allclose(inner, np.sum(one.astype(np.float64)) / size, rtol=1e-5)
    np.testing.assert_allclose(norms.cosine({"a": x}, {"a": x}), 1, rtol=1e-6)


def test_what_is_zero_empty_or_not_finite():
    assert norms.norm(jnp.zeros((2, 3)), (1,)).tolist() == [0, 0]
    assert norms.norm(jnp.zeros((2, 0)), (1,)).tolist() == [0, 0]
    assert norms.tree_norm(jnp.zeros(())) == 0
    for shape in ((2, 0, 3), (2, 3, 0)):
        assert norms.spectral(jnp.zeros(shape)).tolist() == [0, 0]
    assert norms.norm(jnp.array([1.0, jnp.inf]), (0,)) == jnp.inf
    assert np.isnan(norms.norm(jnp.array([1.0, jnp.nan]), (0,)))
    zero, one = jnp.zeros(2), jnp.ones(2)
    assert norms.cosine(zero, zero) == 1
    assert norms.cosine(zero, one) == norms.cosine(one, zero) == 0


def test_leaves_of_several_dtypes_are_measured_in_the_widest():
    tree = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.float64), "c": jnp.float32(0)}
    got = norms.tree_norm(tree)
    assert got.dtype == jnp.float64
    np.testing.assert_allclose(got, 2)
    np.testing.assert_allclose(norms.cosine(tree, jax.tree.map(lambda x: -x, tree)), -1)
