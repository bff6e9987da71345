"""Sums of outer products measured by Gram matrices, and formed, against NumPy."""

import jax
import numpy as np
import pytest

from jaxrnn.numerics import outer_products
from tests.support.modes import WIDEST

SHAPES = ((3, 1, 8, 5), (3, 4, 8, 5), (3, 4, 5, 8), (2, 30, 4, 3), (2, 30, 1, 1), (0, 2, 3, 4),
          (2, 0, 3, 4), (2, 3, 4, 0), (2, 3, 0, 4))  # fmt: skip


def factors(T, B, M, N, dtype=WIDEST):
    normal = np.random.default_rng(B).normal
    shapes = ((T, B, M), (T, B, N), (M, N))
    return jax.device_put([normal(size=shape).astype(dtype) for shape in shapes])


def by_numpy(rows, columns, direction):
    C = np.einsum("tbm,tbn->tmn", *(np.asarray(v, np.float64) for v in (rows, columns)))
    return np.sqrt((C * C).sum((1, 2))), (C * np.asarray(direction, np.float64)).sum((1, 2))


def lengths(v):
    return np.linalg.norm(np.asarray(v, np.float64), axis=2)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("f", [outer_products.sizes, outer_products.by_grams,
                               outer_products.one_by_one, outer_products.at_once])  # fmt: skip
def test_norms_and_inner_products(f, shape):
    rows, columns, direction = factors(*shape)
    norm, inner = map(np.asarray, jax.jit(f)(rows, columns, direction))
    assert norm.shape == inner.shape == (shape[0],)
    S = (lengths(rows) * lengths(columns)).sum(1)
    exact_norm, exact_inner = by_numpy(rows, columns, direction)
    eps = np.finfo(WIDEST).eps
    # The bounds that the docstring names, with a sum of B + M + N terms' rounding for "a few".
    few = sum(shape[1:]) * eps
    assert np.all(abs(np.square(norm) - exact_norm**2) <= few * S**2)
    assert np.all(abs(inner - exact_inner) <= few * S * np.linalg.norm(direction))


def test_grams_serve_few_sequences_and_large_weights(monkeypatch):
    asked = []
    for name in ("by_grams", "one_by_one", "at_once"):
        f = getattr(outer_products, name)
        monkeypatch.setattr(
            outer_products, name, lambda *v, f=f, name=name: asked.append(name) or f(*v)
        )

    def asked_of(shape):  # traced alone, by a function that was not traced before
        jax.eval_shape(lambda *v: outer_products.sizes(*v), *factors(*shape))

    for shape in ((2, 1, 64, 64), (2, 39, 64, 64), (2, 6, 64, 1), (2, 40, 64, 64), (2, 8, 64, 1)):
        asked_of(shape)
    assert asked == ["by_grams"] * 3 + ["at_once"] * 2
    asked.clear()
    for shape in ((256, 40, 64, 64), (257, 40, 64, 64)):
        asked_of(shape)
    assert asked == ["at_once", "one_by_one"]


@pytest.mark.parametrize(
    "f", [outer_products.by_grams, outer_products.one_by_one, outer_products.at_once]
)
def test_what_cancels_over_the_batch_comes_out_as_small_as_the_docstring_says(f):
    rows, columns, direction = map(np.array, factors(3, 2, 8, 5))
    rows[:, 1] = -rows[:, 0]
    columns[:, 1] = columns[:, 0]
    rows, columns, direction = jax.device_put((rows, columns, direction))
    norm, inner = map(np.asarray, jax.jit(f)(rows, columns, direction))
    S = (lengths(rows) * lengths(columns)).sum(1)
    eps = np.finfo(WIDEST).eps
    assert np.all(norm <= S * (np.sqrt(15 * eps) if f is outer_products.by_grams else 15 * eps))
    assert np.all(abs(inner) <= 15 * eps * S * np.linalg.norm(direction))


@pytest.mark.parametrize("B", [2, 40])
@pytest.mark.parametrize(("r", "c", "g"), [(1e-25, 1, 1), (1, 1e-25, 1), (1e-30, 1e20, 1e-5),
                                           (1e25, 1e-3, 1), (1e-36, 1, 1e25)])  # fmt: skip
def test_sizes_survive_float32(B, r, c, g):
    rows, columns, direction = factors(4, B, 8, 5, "float32")
    # By XLA, which makes 0 of what is no normal number, as the library's own operations do.
    times = jax.jit(lambda leaves, sizes: [x * by for x, by in zip(leaves, sizes, strict=True)])
    big = times([rows, columns, direction], [np.float32(size) for size in (r, c, g)])
    norm, inner = jax.jit(outer_products.sizes)(*big)
    exact_norm, exact_inner = by_numpy(*big)
    np.testing.assert_allclose(norm, exact_norm, rtol=1e-5)
    np.testing.assert_allclose(inner, exact_inner, rtol=0, atol=1e-5 * abs(exact_inner).max())


def test_each_step_has_its_own_scale():
    rows, columns, direction = factors(4, 2, 8, 5, "float32")
    rows = jax.device_put(
        np.asarray(rows) * (10.0 ** -np.array([0, 12, 24, 36], np.float32)).reshape(4, 1, 1)
    )
    np.testing.assert_allclose(
        jax.jit(outer_products.sizes)(rows, columns, direction)[0],
        by_numpy(rows, columns, direction)[0], rtol=1e-5)  # fmt: skip
