"""The derivative of `unroll`, its own rule, against plain autodiff of a scan written here."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn.cells import affine
from jaxrnn.running import tangent_scan
from jaxrnn.running.chunks import Plan
from jaxrnn.running.unrolling import by_autodiff, last_state
from tests.support import drawing
from tests.support.modes import tol
from tests.support.profiles import short
from tests.support.table import CELLS

GENERAL = ("rnn-tanh", "lstm", "gru")
SIZES = ((7, (2,), 3, 4), (33, (3,), 1, 2), (64, (), 2, 3), (5, (2, 2), 2, 1), (1, (1,), 1, 1))


def relative(got, want):
    """The largest relative Frobenius error of any leaf."""
    assert jax.tree.map(jnp.shape, got) == jax.tree.map(jnp.shape, want)
    got, want = jax.tree.map(np.asarray, (got, want))
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    norms = [(np.linalg.norm(np.ravel(a - b)), np.linalg.norm(np.ravel(b))) for a, b in pairs]
    return max(error / size if size else error for error, size in norms)


def by_hand(cell, params, xs, state0):
    """Nothing but the step and `lax.scan`."""

    def body(state, x):
        new = cell.update(params, state, cell.project(params, x))
        return new, new

    return jax.lax.scan(body, state0, xs)[1]


def drawn(cell, T, batch, D, H, seed=0, scale=0.7):
    """(params, xs, state0), and weights for a loss."""
    point = drawing.drawn(cell, T, batch, D, H, seed=seed, scale=scale)
    weights = drawing.leaves(
        np.random.default_rng(seed + 100), jax.tree.map(jnp.shape, point[2]), lead=(T,)
    )
    return point, jax.device_put(weights)


def loss_of(unroll, cell, weights):
    """A loss that reads every state, and is not linear in them."""

    def loss(params, xs, state0):
        states = unroll(cell, params, xs, state0)
        terms = jax.tree.map(lambda s, w: jnp.sum(w * (s + jnp.sin(s))), states, weights)
        return sum(jax.tree.leaves(terms))

    return loss


@functools.cache
def gradient_by_hand(name, *size):
    """Of one point for all that is compared with it."""
    point, weights = drawn(CELLS[name], *size)
    return jax.jit(jax.grad(loss_of(by_hand, CELLS[name], weights), argnums=(0, 1, 2)))(*point)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 11])
@pytest.mark.parametrize("name", GENERAL)
@short(name="gru", chunk=4, keep=True)
@short(name="rnn-tanh", chunk=11, keep=False)
@short(name="lstm", chunk={1, 4}, keep=False)
@short(name="lstm", chunk=11, keep=True)
def test_no_plan_changes_the_gradient(name, chunk, keep):
    """Chunks that divide T = 11 or not, W_hh h kept or formed again."""
    cell = CELLS[name]
    point, weights = drawn(cell, 11, (2,), 3, 4)

    def planned(cell, params, xs, state0):
        plan = Plan(chunk, keep)
        return tangent_scan.states(cell, plan, params, xs, (state0, state0), None, None)

    got = jax.jit(jax.grad(loss_of(planned, cell, weights), argnums=(0, 1, 2)))(*point)
    assert relative(got, gradient_by_hand(name, 11, (2,), 3, 4)) < tol(1e-12)


@pytest.mark.parametrize("turned_below", [0, 2**19])
@pytest.mark.parametrize(("rows", "biased"), [(3, 1), (12, 2), (12, 0)])
def test_the_drive_and_its_transpose_are_sums_over_steps(monkeypatch, turned_below, rows, biased):
    """In each layout: against NumPy's Σ ȳ⊗v, and Σ ȳ for a bias."""
    monkeypatch.setattr(affine, "TURNED_BELOW", turned_below)
    draw = np.random.default_rng(0).normal
    vs = [draw(size=(7, 2, n)) for n in (3, 4)]
    affines = [
        affine.Affine(draw(size=(rows, n)), draw(size=rows) if i < biased else None)
        for i, n in enumerate((3, 4))
    ]
    zero = np.zeros(rows)
    want = sum(v @ a.weight.T + (zero if a.bias is None else a.bias)
               for v, a in zip(vs, affines, strict=True))  # fmt: skip
    arrays = jax.device_put((affines, vs))
    value, pull = jax.vjp(lambda affines: affine.driven(affines, arrays[1]), arrays[0])
    np.testing.assert_allclose(value, want, rtol=0, atol=1e-13)
    cotangent = draw(size=want.shape)
    (got,) = pull(jax.device_put(cotangent))
    for moved, v in zip(got, vs, strict=True):
        np.testing.assert_allclose(
            moved.weight, np.einsum("tbi,tbj->ij", cotangent, v), rtol=0, atol=1e-12
        )
        if moved.bias is not None:
            np.testing.assert_allclose(moved.bias, cotangent.sum((0, 1)), rtol=0, atol=1e-12)


EVERY = (0, 1, 2)  # params, xs, state0


def derivatives(loss, point, direction):
    """Gradient, directional derivative, and the Hessian times the direction in both nestings."""

    def directional(*at):
        pairs = zip(
            jax.tree.leaves(jax.grad(loss, EVERY)(*at)), jax.tree.leaves(direction), strict=True
        )
        return sum(jnp.sum(g * d) for g, d in pairs)

    value, pushed = jax.jvp(jax.grad(loss, EVERY), point, direction)
    return value, jax.jvp(loss, point, direction)[1], pushed, jax.grad(directional, EVERY)(*point)


@pytest.mark.parametrize(
    ("name", "size"),
    [(name, size) for name in CELLS for size in (SIZES if name in GENERAL else SIZES[:2])],
    ids=str,
)
@short(name="lstm", size=(33, (3,), 1, 2))
@short(name="gru", size=(5, (2, 2), 2, 1))
@short(name="rnn-tanh", size=(1, (1,), 1, 1))
def test_gradients_and_hessian_products_equal_plain_autodiff(name, size):
    """One-gate cells differ by their activation alone: two sizes for each but tanh."""
    cell = CELLS[name]
    point, weights = drawn(cell, *size)
    direction, _ = drawn(cell, *size, seed=1)
    got, want = (
        jax.jit(functools.partial(derivatives, loss_of(f, cell, weights)))(point, direction)
        for f in (jaxrnn.unroll, by_hand)
    )
    assert relative(got[0], want[0]) <= tol(1e-12)
    assert relative(got[1], want[1]) <= tol(1e-12)
    assert relative(got[2], want[2]) <= tol(1e-11)
    assert relative(got[3], want[2]) <= tol(1e-11)


@pytest.mark.parametrize("name", GENERAL)
@short(name="lstm")
def test_every_mode_and_the_hessian_of_a_small_case(name):
    cell = CELLS[name]
    (params, xs, state0), weights = drawn(cell, 3, (), 1, 2)
    ours, plain = (loss_of(f, cell, weights) for f in (jaxrnn.unroll, by_hand))

    def modes(f):
        return jax.jit(lambda p: [by(f)(p, xs, state0)
                                  for by in (jax.jacfwd, jax.jacrev, jax.hessian)])  # fmt: skip

    for got, want in zip(modes(ours)(params), modes(plain)(params), strict=True):
        assert relative(got, want) <= tol(1e-11)


@pytest.mark.parametrize("name", GENERAL)
@short(name={"lstm", "gru"})
def test_vmap_and_checkpoint_keep_the_gradient(name):
    cell = CELLS[name]
    cases = [drawn(cell, 9, (2,), 3, 4, seed) for seed in range(3)]
    points = jax.tree.map(lambda *leaves: np.stack(leaves), *[point for point, _ in cases])
    weights = cases[0][1]
    ours, plain = (loss_of(f, cell, weights) for f in (jaxrnn.unroll, by_hand))
    expected = jax.jit(jax.vmap(jax.grad(plain)))(*points)
    for loss in (ours, jax.checkpoint(ours)):
        assert relative(jax.jit(jax.vmap(jax.grad(loss)))(*points), expected) <= tol(1e-12)


@pytest.mark.parametrize("name", CELLS)
@short(name=set(GENERAL))
def test_lengths_and_resets_keep_the_gradient(name):
    cell = CELLS[name]
    (params, xs, state0), weights = drawn(cell, 11, (4,), 2, 3)
    options = {
        "lengths": jnp.array([11, 0, 5, 1]),
        "resets": np.random.default_rng(3).random((11, 4)) < 0.3,
    }
    point = (params, xs, state0)
    ours, plain = (
        loss_of(functools.partial(f, **options), cell, weights)
        for f in (jaxrnn.unroll, by_autodiff)
    )
    got, want = (jax.jit(jax.grad(f, EVERY))(*point) for f in (ours, plain))
    assert relative(got, want) <= tol(1e-12)
    by_xs = np.asarray(got[1])
    assert not by_xs[5:, 2].any()
    assert not by_xs[:, 1].any()


@pytest.mark.parametrize("chunk", [2, 11, 100])
@pytest.mark.parametrize("name", GENERAL)
@short(name="lstm")
@short(name={"rnn-tanh", "gru"}, chunk=2)
def test_the_chunk_changes_nothing(name, chunk):
    cell = CELLS[name]
    point, weights = drawn(cell, 11, (2,), 2, 3)
    cut = functools.partial(jaxrnn.unroll, chunk=chunk)
    got = jax.jit(jax.grad(loss_of(cut, cell, weights), EVERY))(*point)
    assert relative(got, gradient_by_hand(name, 11, (2,), 2, 3)) <= tol(1e-13)


@pytest.mark.parametrize("segment", [None, 1, 4, 13, 99])
@pytest.mark.parametrize("name", GENERAL)
@short(name="lstm", segment=4)
@short(name="rnn-tanh", segment=None)
@short(name="gru", segment=13)
def test_last_state_is_the_last_of_unroll_with_its_gradient(name, segment):
    cell = CELLS[name]
    (params, xs, state0), weights = drawn(cell, 13, (3,), 2, 3)
    options = {
        "lengths": jnp.array([13, 7, 0]),
        "resets": np.random.default_rng(3).random((13, 3)) < 0.2,
    }

    def loss(unroll):
        def of(params, xs, state0):
            last = unroll(params, xs, state0)
            return sum(jnp.sum(jnp.sin(s) * w[0]) for s, w in zip(last, weights, strict=True))

        return of

    def ours(params, xs, state0):
        return last_state(cell, params, xs, state0, segment=segment, **options)

    def plain(params, xs, state0):
        states = by_autodiff(cell, params, xs, state0, **options)
        return jax.tree.map(lambda leaf: leaf[-1], states)

    got, expected = (
        jax.jit(jax.value_and_grad(loss(f), EVERY))(params, xs, state0) for f in (ours, plain)
    )
    assert relative(got, expected) <= tol(1e-12)


def test_last_state_of_nothing_is_state0():
    cell = jaxrnn.lstm()
    (params, xs, state0), _ = drawn(cell, 1, (2,), 2, 3)
    jax.tree.map(np.testing.assert_array_equal, last_state(cell, params, xs[:0], state0), state0)


def test_what_is_not_asked_for_is_not_computed():
    """Without a gradient of xs there is one matmul less of their size."""
    cell = jaxrnn.lstm()
    (params, xs, state0), weights = drawn(cell, 8, (2,), 5, 3)
    loss = loss_of(jaxrnn.unroll, cell, weights)

    def matmuls(argnums):
        compiled = jax.jit(jax.grad(loss, argnums)).lower(params, xs, state0).compile()
        return compiled.cost_analysis()["flops"]

    assert matmuls(0) < matmuls((0, 1))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", GENERAL)
@short(name="lstm", dtype={"bfloat16", "float32"})
@short(name="gru", dtype="float16")
def test_short_dtypes_have_the_gradient_of_long_ones_nearly(name, dtype):
    cell = CELLS[name]
    point, weights = drawn(cell, 9, (2,), 3, 4, scale=0.4)

    def to(dtype, tree):
        return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf).astype(dtype)), tree)

    short, weights = to(jnp.dtype(dtype), (point, weights))
    got = jax.jit(jax.grad(loss_of(jaxrnn.unroll, cell, weights)))(*short)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(got)} == {dtype}
    wide = to("float64", (short, weights))
    expected = jax.jit(jax.grad(loss_of(by_hand, cell, wide[1])))(*wide[0])
    got = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), got)
    assert relative(got, expected) <= 40 * float(jnp.finfo(dtype).eps)
