"""∂cₜ/∂cₖ, its approximations and paths, against NumPy: complex steps and written-out blocks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import paths
from tests.support import reference
from tests.support.memory_paths import PATHS, products, trajectory
from tests.support.modes import tol
from tests.support.profiles import short
from tests.support.untied import H, drawn, masked

CELL = jaxrnn.lstm()


def decompose(*case, **masks):
    """`paths.decompose` of an LSTM, in NumPy."""
    return jax.tree.map(np.asarray, paths.decompose(jaxrnn.Run(CELL, *case, **masks)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def transported(k, t, params, xs, state0, **masks):
    """The three matrices of `paths.transport`, by one program."""
    found = paths.transport(jaxrnn.Run(CELL, params, xs, state0, **masks), k, t)
    return [M.unscaled() for M in (found.exact, found.four_term, found.forget)]


def exact_by_complex_steps(params, xs, state0, k, t, h=1e-200):
    params, xs, steps = trajectory(params, xs, state0)
    *_, o, _, c_k = steps[k]
    columns = []
    for j in range(c_k.shape[-1]):
        c = c_k.astype(complex)
        c[..., j] += 1j * h
        state = o * np.tanh(c), c
        for x in xs[k + 1 : t + 1]:
            state = reference.lstm_step(params, *state, x)
        columns.append(state[1].imag / h)
    return np.stack(columns, axis=-1)


def frobenius(M):
    return np.sqrt((M * M).sum((-2, -1)))  # analytic: complex steps go through it


@pytest.mark.parametrize(("k", "t"), [(3, 3), (3, 4), (3, 5), (0, 11), (5, 11)])
@pytest.mark.parametrize("scale", [0.1, 1.0, 6.0])
@short(k=0, t=11)
@short(k=3, t={3, 5})
def test_the_three_matrices(scale, k, t):
    params, xs, state0 = drawn("lstm", 12, (3,), 0)
    params = jax.tree.map(lambda leaf: jnp.asarray(scale * np.asarray(leaf)), params)
    by_path, of_four, of_forget = transported(k, t, params, xs, state0)
    exact = exact_by_complex_steps(params, xs, state0, k, t)
    numpy_params, _, steps = trajectory(params, xs, state0)
    written, four_term, forget = products(numpy_params, steps, k, t)
    for found, want in ((by_path, exact), (by_path, written),
                        (of_four, four_term), (of_forget, forget)):  # fmt: skip
        atol = 1e-12 * max(np.abs(want).max(), np.abs(exact).max())
        np.testing.assert_allclose(found, want, rtol=0, atol=atol)


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
@short(batch=(2, 2))
def test_norms_and_errors_at_every_lag(batch):
    T = 14
    params, xs, state0 = drawn("lstm", T, batch, 1)
    found = decompose(params, xs, state0)
    numpy_params, _, steps = trajectory(params, xs, state0)
    for k in range(T):
        exact, *approximations = products(numpy_params, steps, k, T - 1)
        np.testing.assert_allclose(np.exp(found.exact[k]), frobenius(exact), rtol=1e-11)
        for name, M in zip(("four_term", "forget"), approximations, strict=True):
            np.testing.assert_allclose(np.exp(getattr(found, name)[k]), frobenius(M), rtol=1e-11)
            want = frobenius(M - exact) / frobenius(exact)
            np.testing.assert_allclose(
                getattr(found, name + "_error")[k], want, rtol=1e-9, atol=1e-12
            )


@pytest.mark.parametrize("scale", [0.2, 1.0, 4.0])
def test_shares_are_derivatives_by_the_weight_of_a_path_and_add_up_to_one(scale):
    T, h = 14, 1e-200
    params, xs, state0 = drawn("lstm", T, (2, 2), 2)
    params = jax.tree.map(lambda leaf: jnp.asarray(scale * np.asarray(leaf)), params)
    found = paths.decompose(jaxrnn.Run(CELL, params, xs, state0))
    assert list(found.shares) == list(PATHS)
    found = jax.tree.map(np.asarray, found)  # which sorts the names
    numpy_params, _, steps = trajectory(params, xs, state0)
    for k in range(T - 1):
        for path in PATHS:
            alpha = {p: 1.0 + (1j * h if p == path else 0) for p in PATHS}
            size = frobenius(products(numpy_params, steps, k, T - 1, alpha)[0])
            want = np.log(size).imag / h / (T - 1 - k)
            np.testing.assert_allclose(found.shares[path][k], want, rtol=1e-9, atol=1e-11)
    total = sum(found.shares.values())
    np.testing.assert_allclose(total[:-1], 1, rtol=0, atol=1e-11)
    np.testing.assert_array_equal(total[-1], 0)


def test_without_output_feedback_four_terms_are_exact():
    params, xs, state0 = drawn("lstm", 60, (4,), 3)
    w_hh = np.array(params.w_hh)
    w_hh[3 * H :] = 0
    found = decompose(params._replace(w_hh=jnp.asarray(w_hh)), xs, state0)
    assert np.max(found.four_term_error) < tol(1e-13)
    assert np.max(np.abs(found.shares["o"])) == 0
    assert np.max(found.forget_error) > 0.1


def test_without_recurrent_weights_the_forget_gates_are_all():
    params, xs, state0 = drawn("lstm", 60, (4,), 3)
    w_hh = jnp.asarray(np.zeros_like(params.w_hh))
    found = decompose(params._replace(w_hh=w_hh), xs, state0)
    assert np.max(found.forget_error) < tol(1e-13)
    np.testing.assert_allclose(found.shares["memory"][:-1], 1, rtol=0, atol=1e-13)


def test_padding_takes_no_path_and_a_reset_cuts_all():
    T = 12
    params, xs, state0 = drawn("lstm", T, (4,), 4)
    lengths = [0, 1, 7, T]
    found = decompose(params, xs, state0, lengths=jnp.array(lengths))
    xs, state0 = jax.tree.map(np.asarray, (xs, state0))
    for b, length in enumerate(lengths):
        at = jax.tree.map(lambda leaf, b=b: leaf[b], state0)
        own = decompose(params, xs[: max(length, 1), b], at)
        for k in range(T):
            lag_from = min(k, max(length - 1, 0))
            for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(own), strict=True):
                np.testing.assert_allclose(got[k, b], want[lag_from], rtol=0, atol=1e-11)
    resets = np.zeros((T, 4), bool)
    resets[5] = True
    found = decompose(params, xs, state0, resets=resets)
    each = [
        decompose(params, xs[5:, b], jax.tree.map(lambda s, b=b: s[b], state0)) for b in range(4)
    ]
    own = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *each)
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(got[5:], want, rtol=0, atol=1e-11)
    assert np.all(found.exact[:5] == -np.inf)
    for name in ("four_term_error", "forget_error"):
        np.testing.assert_array_equal(getattr(found, name)[:5], 0)
    np.testing.assert_array_equal(sum(found.shares.values())[:5], 0)


def test_a_matrix_of_a_masked_sequence():
    params, xs, state0 = drawn("lstm", 9, (3,), 5)
    masks = jax.tree.map(np.asarray, masked(9, (3,), 2))
    cut = {"lengths": np.minimum(masks["lengths"], 8), "resets": masks["resets"][:8]}
    found = decompose(params, np.asarray(xs)[:8], state0, **cut)
    for k in (0, 4, 7):
        got = transported(k, 7, params, xs, state0, **masks)
        for name, M in zip(("exact", "four_term", "forget"), got, strict=True):
            with np.errstate(divide="ignore"):
                size = np.log(np.linalg.norm(M, axis=(-2, -1)))
            np.testing.assert_allclose(size, getattr(found, name)[k], rtol=0, atol=1e-11)


@pytest.mark.parametrize("scale", [0.3, 12.0])
def test_a_long_product_stays_finite_in_float32(scale):
    T = 3000
    params, xs, _ = drawn("lstm", T, (2,), 6)
    params = params._replace(w_hh=jnp.asarray(scale * np.asarray(params.w_hh)))
    found = decompose(params, xs)
    low = decompose(*jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (params, xs)))
    assert low.exact.dtype == jnp.float32
    assert np.abs(found.exact[0]).min() > 300  # far beyond float32
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert np.isfinite(low.exact).all()
    if scale < 1:
        np.testing.assert_allclose(low.exact, found.exact, rtol=1e-4, atol=1e-3)
        for name in PATHS:
            np.testing.assert_allclose(low.shares[name], found.shares[name], rtol=0, atol=1e-3)
    np.testing.assert_allclose(sum(low.shares.values())[:-1], 1, rtol=0, atol=1e-2)


def test_only_the_exact_product_is_right_at_lag_10():
    """Relative errors at lag 10 over random nets, for weights of scale 0.3, 1 and 2.

    The figures of one net of each scale, as measured by jacfwd, lie among the middle four fifths.
    """
    T, n, N = 11, 6, 400
    normal = np.random.default_rng(0).normal
    of_all = jax.jit(jax.vmap(lambda p, x: paths.decompose(jaxrnn.Run(CELL, p, x))))
    for scale, *want in ((0.3, 0.70, 0.009), (1.0, 0.93, 0.11), (2.0, 0.996, 0.35)):
        params = jaxrnn.LSTMParams(
            *(scale * normal(size=(2, N, 4 * n, n)) / np.sqrt(n)),
            np.broadcast_to(np.repeat([0.0, 1.0, 0.0, 0.0], n), (N, 4 * n)))  # fmt: skip
        params, xs = jax.tree.map(jnp.asarray, (params, normal(size=(N, T, n))))
        found = jax.tree.map(np.asarray, of_all(params, xs))
        for error, figure in zip((found.forget_error, found.four_term_error), want, strict=True):
            low, middle, high = np.quantile(error[:, 0], [0.1, 0.5, 0.9])
            assert low < figure < high
            assert 0.6 < middle / figure < 1.1


@pytest.mark.parametrize("f", [paths.decompose, lambda run: paths.transport(run, 0, 1)])
def test_cells_without_a_cell_state_or_a_readout_are_refused(f):
    params, xs, _ = drawn("gru", 3)
    with pytest.raises(TypeError, match=r"cell: expected a cell with a state \(h, c\).*gru"):
        f(jaxrnn.Run(jaxrnn.gru(), params, xs))
    mute = dataclasses.replace(CELL, name="mute", phi=CELL.phi._replace(readout=None))
    params, xs, _ = drawn("lstm", 3)
    with pytest.raises(TypeError, match=r"cell: .*read-out ∂h/∂c.*mute"):
        f(jaxrnn.Run(mute, params, xs))


@pytest.mark.parametrize(("k", "t", "words"), [
    (2, 1, r"k: expected an integer in \[0, 1\], got 2"), (0, 5, "t: "), (-1, 1, "k: "),
    (0.5, 1, "k: "), (0, True, "t: ")])  # fmt: skip
def test_indices_outside_the_sequence_are_refused(k, t, words):
    params, xs, _ = drawn("lstm", 5)
    with pytest.raises((TypeError, ValueError), match=words):
        paths.transport(jaxrnn.Run(CELL, params, xs), k, t)


def test_the_table_shows_lags_errors_and_shares():
    params, xs, _ = drawn("lstm", 30)
    words = str(paths.decompose(jaxrnn.Run(CELL, params, xs)))
    lines = words.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["1", "2", "5", "10", "20"]
    assert lines[1].split()[-5:] == list(PATHS)
    shares = [float(word[:-1]) for word in lines[-1].split()[-5:]]
    assert abs(sum(shares) - 100) < 0.4
    assert max(map(len, lines)) <= 100
