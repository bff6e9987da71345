"""Clipping: optax bit for bit where optax is right, float64's numbers everywhere else."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrnn import clipping
from tests.support.profiles import short

CASES = 100_000
SHAPES = {"a": (3,), "b": {"c": (2, 2), "d": ()}}
COUNT = 8


def many_trees(low, high, dtype, seed=0, cases=CASES, spread=3):
    """Trees with a magnitude of their own each, and entries `spread` powers of ten apart."""
    generator = np.random.default_rng(seed)
    sizes = 10.0 ** generator.uniform(low, high, (cases, 1))
    entries = sizes * 10.0 ** generator.uniform(-spread, 0, (cases, COUNT))
    entries[:, :1] = sizes
    entries = np.abs(entries) * generator.choice([-1.0, 1.0], entries.shape)
    info = jnp.finfo(dtype)
    entries = np.clip(entries, -float(info.max), float(info.max))
    small = np.abs(entries) < float(info.tiny)
    entries = np.where(small, np.copysign(float(info.tiny), entries), entries)
    flat = entries.astype(dtype)
    tree = {"a": flat[:, :3], "b": {"c": flat[:, 3:7].reshape(-1, 2, 2), "d": flat[:, 7]}}
    return jax.tree.map(jnp.asarray, tree)


def flat(tree):
    """`(cases, 8)` in float64."""
    tree = jax.tree.map(lambda leaf: np.asarray(leaf).astype(np.float64), tree)
    parts = [tree["a"], tree["b"]["c"].reshape(-1, 4), tree["b"]["d"][:, None]]
    return np.concatenate(parts, axis=1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def run(transformation, c, trees):
    clip = transformation(c)
    return jax.vmap(lambda tree: clip.update(tree, clip.init(tree)))(trees)


@functools.partial(jax.jit, static_argnums=0)
def first(clip, tree):
    """The first update, by one program."""
    return clip.update(tree, clip.init(tree))


def within(got, want, dtype, ulps):
    eps, tiny = float(jnp.finfo(dtype).eps), float(jnp.finfo(dtype).tiny)
    allowed = ulps * eps * np.maximum(np.abs(want), tiny)
    assert (np.abs(got - want) <= allowed).all(), np.max(np.abs(got - want) / allowed)


@pytest.mark.parametrize("c", [1.0, 0.37, 1e-16, 1e6])
@pytest.mark.parametrize(("dtype", "spread"), [("float32", 3), ("float32", 9), ("float64", 3)])
@short(c={1.0, 1e-16})
@short(c=0.37, spread=9)
@short(c=1e6, dtype="float64")
def test_bit_for_bit_what_optax_gives_where_optax_is_right(dtype, spread, c):
    # Nine powers of ten apart, some squares vanish that may turn the last bit of the norm.
    trees = many_trees(
        -15, 15 if c > 1e-15 else -14, dtype, spread=spread
    )  # at 1e-16 all are clipped
    got, _ = run(clipping.clip_by_global_norm, c, trees)
    want, _ = run(optax.clip_by_global_norm, c, trees)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("dtype", "low", "high"), [
    ("float32", -38, 38.6), ("float64", -307, 308.2), ("float16", -4, 4.9), ("bfloat16", -38, 38.6),
])  # fmt: skip
def test_right_to_4_ulp_at_every_magnitude(dtype, low, high):
    trees = many_trees(low, high, dtype)
    got, state = run(clipping.clip_by_global_norm, 1.0, trees)
    x = flat(trees)
    top = np.abs(x).max(1, keepdims=True)
    size = np.sqrt(((x / top) ** 2).sum(1, keepdims=True))  # of x / top: no square overflows
    with np.errstate(over="ignore"):  # the norm itself may be beyond float64
        whole = (top * size)[:, 0]
    clipped = whole[:, None] >= 1
    want = np.where(clipped, x / top / size, x)
    within(flat(got), want, dtype, 4)
    assert not np.any(state.nonfinite)
    wide = np.float64 if dtype == "float64" else np.float32
    with np.errstate(over="ignore"):
        norm = whole.astype(wide)
    known = np.isfinite(norm) & (norm > np.finfo(wide).tiny)
    within(np.asarray(state.norm)[known], norm[known], wide, 4)
    edge = np.abs(whole - 1) < 1e-2
    np.testing.assert_array_equal(np.asarray(state.clipped)[~edge], clipped[~edge, 0])
    factor = np.where(clipped, 1 / top / size, 1.0)[:, 0]
    fits = factor > np.finfo(wide).tiny
    within(np.asarray(state.factor)[fits], factor[fits], wide, 8)


@given(
    st.sampled_from(["float16", "bfloat16", "float32", "float64"]),
    st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=4),
    st.floats(-1, 1), st.floats(-2, 2), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_trees_of_any_shape_and_size(dtype, shapes, size, threshold, seed):
    """A norm of any magnitude, a threshold within 1e±2 of it, and what faults would give."""
    info, generator = jnp.finfo(dtype), np.random.default_rng(seed)
    power = math.log10(float(info.max)) - 2 if size > 0 else -math.log10(float(info.tiny)) - 2
    scale = 10.0 ** (power * size)
    c = float(np.clip(scale * 10.0**threshold, float(info.tiny), float(info.max)))
    tree = [jnp.asarray(scale * generator.normal(size=shape), dtype) for shape in shapes]
    got, state = first(clipping.clip_by_global_norm(c), tree)
    tree, got = jax.tree.map(np.asarray, (tree, got))
    x = np.concatenate([np.ravel(leaf).astype(np.longdouble) for leaf in tree])
    norm = np.sqrt((x * x).sum())
    if norm and abs(norm / c - 1) < 1e-6:
        return  # clipped or not: both are right
    factor = min(1, c / norm) if norm else 1
    found = np.concatenate([np.ravel(leaf).astype(np.longdouble) for leaf in got])
    within(found, factor * x, dtype, 4)
    assert bool(state.clipped) == (norm > c)
    if np.abs(x).max(initial=0) > float(info.tiny) / min(factor, 0.5):
        for wrong in (0.5 * factor * x, factor * x * (1 + 8 * float(info.eps)), 0 * x):
            with pytest.raises(AssertionError):
                within(found, wrong, dtype, 4)


def test_what_optax_gets_wrong():
    clip = clipping.clip_by_global_norm(1.0)
    for entries, want in (
        (np.float32([3e38, 3e38]), [2**-0.5, 2**-0.5]),
        (np.float32([3e25, 4e25]), [0.6, 0.8]),
        (np.float32([3e-25, 4e-25]), [3e-25, 4e-25]),
        (np.full(300, 300, np.float16), np.full(300, 300**-0.5)),
    ):
        got, _ = first(clip, {"w": jnp.asarray(entries)})
        np.testing.assert_allclose(np.asarray(got["w"], float), want, rtol=1e-3)


@jax.jit
def slopes_of_the_norm(tree):
    """The norm, its gradient and its derivative along the tree itself."""
    value, grads = jax.value_and_grad(clipping.global_norm)(tree)
    return value, grads, jax.jvp(clipping.global_norm, (tree,), (tree,))[1]


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
def test_the_norm_has_a_gradient_everywhere(scale):
    x = scale * np.array([0.6, 0.0, -0.8])
    tree = {"w": jnp.asarray(x, jnp.float32)}
    value, grads, tangent = slopes_of_the_norm(tree)
    np.testing.assert_allclose(value, scale, rtol=1e-6)
    want = [0.6, 0.0, -0.8] if scale else [0.0, 0.0, 0.0]
    np.testing.assert_allclose(grads["w"], want, rtol=0, atol=1e-6)
    np.testing.assert_allclose(tangent, scale, rtol=1e-6)


def test_many_small_entries_are_not_lost_beside_a_trusted_norm():
    """Each square vanishes in float32, their sum must not."""
    leaf = np.full(10_000_000, 0.9e-19, np.float32)
    leaf[0] = 1e-15
    want = np.sqrt(1e-30 + (1e7 - 1) * 0.81e-38)
    np.testing.assert_allclose(clipping.global_norm([jnp.asarray(leaf)]), want, rtol=1e-5)


BAD = [jnp.inf, -jnp.inf, jnp.nan]
CLIPS = {
    policy.__name__: clipping.clip_by_global_norm(1.0, policy)
    for policy in (clipping.propagate, clipping.skip, clipping.flag)
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_not_finite_is_the_callers_choice(bad):
    tree = {"a": jnp.float32([1.0, bad]), "b": jnp.float32([3.0])}
    outcomes = {name: first(clip, tree) for name, clip in CLIPS.items()}
    same, state = outcomes["propagate"]
    np.testing.assert_array_equal(same["a"], tree["a"])
    assert np.asarray(same["b"]).tolist() == [3.0]
    assert (int(state.nonfinite), int(state.clipped), bool(state.flagged)) == (1, 0, False)
    for name, flagged in (("skip", False), ("flag", True)):
        updates, state = outcomes[name]
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))
        assert bool(state.flagged) == flagged
    good = {"a": jnp.float32([3.0, 0.0]), "b": jnp.float32([4.0])}
    updates, after = jax.jit(CLIPS["flag"].update)(good, state)
    np.testing.assert_allclose(updates["a"], [0.6, 0.0], rtol=1e-6)
    assert (bool(after.flagged), int(after.nonfinite), int(after.clipped)) == (True, 1, 1)


def test_a_policy_of_your_own_sees_the_raw_gradient_and_the_state():
    def halve(updates, state):
        return jax.tree.map(lambda u: jnp.where(jnp.isfinite(u), u / 2, 0), updates), state

    clip = clipping.clip_by_global_norm(1.0, halve)
    tree = jnp.float32([4.0, jnp.nan])
    updates, _ = jax.jit(clip.update)(tree, clip.init(tree))
    np.testing.assert_array_equal(updates, [2.0, 0.0])


def test_it_goes_into_a_chain_and_counts():
    optimizer = optax.chain(clipping.clip_by_global_norm(1.0), optax.sgd(1.0))
    params = jnp.float32([0.0, 0.0])
    state = optimizer.init(params)
    for grads in ([3.0, 4.0], [0.3, 0.4], [30.0, 40.0]):
        updates, state = jax.jit(optimizer.update)(jnp.float32(grads), state, params)
    np.testing.assert_allclose(updates, [-0.6, -0.8], rtol=1e-6)
    assert int(state[0].clipped) == 2
    np.testing.assert_allclose(state[0].norm, 50.0, rtol=1e-13)
    np.testing.assert_allclose(state[0].factor, 0.02, rtol=1e-6)


@functools.partial(jax.jit, static_argnums=0)
def clipped_in_turn(quantile, grads):
    """The last state, and the threshold, the updates and the count after each gradient."""
    clip = clipping.clip_by_running_quantile(quantile, rate=0.02)

    def step(state, g):
        updates, state = clip.update(g, state)
        return state, (state.log_threshold, updates, state.clipped)

    return jax.lax.scan(step, clip.init(grads[0]), grads)


@pytest.mark.parametrize("quantile", [0.5, 0.9])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_the_running_quantile_is_that_of_the_norms(quantile, scale):
    logs = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    grads = (np.float32(scale) * np.exp(logs))[:, None]
    state, found = clipped_in_turn(quantile, jnp.asarray(grads))
    threshold, updates, clipped = (np.asarray(leaf) for leaf in found)
    later = threshold[5000:] - np.log(scale)
    want = np.quantile(logs, quantile)
    assert abs(later.mean() - want) < 0.05
    share = (clipped[-1] - clipped[5000]) / 15_000
    assert abs(float(share) - (1 - quantile)) < 0.01
    held = threshold[4999:-1]  # against the threshold of the gradients before
    assert (np.log(np.abs(updates[5000:, 0])) <= held + 1e-4).all()
    assert int(state.nonfinite) == 0


def test_what_is_not_finite_moves_no_quantile():
    clip = clipping.clip_by_running_quantile(0.9)
    update = jax.jit(clip.update)
    _, bad = update(jnp.array([jnp.nan, 1.0]), clip.init(jnp.array([0.0, 0.0])))
    assert np.asarray(bad.log_threshold) == np.inf
    updates, good = update(jnp.array([3.0, 4.0]), bad)
    np.testing.assert_allclose(updates, [3.0, 4.0], rtol=1e-13)
    _, after = update(jnp.array([jnp.inf, 1.0]), good)
    assert float(after.log_threshold) == float(good.log_threshold)
    assert int(after.nonfinite) == 2


@pytest.mark.parametrize(
    "clip", [clipping.clip_by_global_norm(1.0), clipping.clip_by_running_quantile(0.9)]
)
def test_of_finite_gradients_no_operation_is_nan(clip):
    """`jax_debug_nans`, under which many train, looks at every operation outside of jit."""
    with jax.debug_nans(True):
        state = clip.init(jnp.zeros(2))
        for gradient in ([0.0, 0.0], [3.0, 4.0], [300.0, 400.0]):
            updates, state = clip.update(jnp.array(gradient), state)
    assert 0 < np.linalg.norm(updates) < 500


GOOD = {"w": jnp.ones(3)}
REFUSED = {
    "0": (lambda: clipping.clip_by_global_norm(0.0), ValueError, "max_norm: .*above 0, got 0"),
    "inf": (lambda: clipping.clip_by_global_norm(np.inf), ValueError, "max_norm: expected"),
    "nan": (lambda: clipping.clip_by_global_norm(np.nan), ValueError, "max_norm: expected"),
    "text": (lambda: clipping.clip_by_global_norm("1"), TypeError, "max_norm: expected"),
    "policy": (lambda: clipping.clip_by_global_norm(1.0, "skip"), TypeError, "nonfinite: expected"),
    "quantile": (lambda: clipping.clip_by_running_quantile(1.0), ValueError, "quantile: expected"),
    "rate": (lambda: clipping.clip_by_running_quantile(0.5, -1.0), ValueError, "rate: expected"),
    "empty": (lambda: clipping.clip_by_global_norm(1.0).init({}), ValueError, "params: .*any"),
    "integers": (
        lambda: clipping.clip_by_global_norm(1.0).init({"n": jnp.ones(3, int)}),
        TypeError, r"params\['n'\]: expected .*float",
    ),
    "integer updates": (
        lambda: clipping.clip_by_global_norm(1.0).update(
            {"w": jnp.ones(3, int)}, clipping.clip_by_global_norm(1.0).init(GOOD)),
        TypeError, r"updates\['w'\]: expected .*float",
    ),
    "norm of nothing": (lambda: clipping.global_norm([]), ValueError, "tree: expected a tree with"),
    "norm of text": (lambda: clipping.global_norm(["a"]), TypeError, r"tree\[0\]: expected"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_by_name(case):
    call, error, words = REFUSED[case]
    with pytest.raises(error, match="^" + words):
        call()


def test_a_first_gradient_is_never_clipped_at_a_running_quantile():
    clip = clipping.clip_by_running_quantile(0.9)
    update = jax.jit(clip.update)
    for scale in 10.0 ** np.random.default_rng(3).uniform(-37, 38, 50):
        tree = jnp.asarray(np.float32(scale) * np.float32([1.0, 1.7, 0.3]))
        got, state = update(tree, clip.init(tree))
        np.testing.assert_array_equal(got, tree)
        assert (int(state.clipped), float(state.factor)) == (0, 1.0)
    beyond = jnp.float32([3e38, 3e38, 0])  # its norm is beyond float32
    got, state = update(beyond, clip.init(beyond))
    np.testing.assert_array_equal(got, beyond)
    half = jnp.asarray(np.float32(0.5) * np.asarray(beyond))  # within what was seen
    got, _ = update(half, state)
    np.testing.assert_array_equal(got, half)


def test_what_is_multiplied_by_1_was_not_clipped():
    clip = clipping.clip_by_global_norm(5.0)
    tree = jnp.array([3.0, 4.0])
    got, state = clip.update(tree, clip.init(tree))
    np.testing.assert_allclose(got, tree, rtol=1e-15)
    assert (int(state.clipped), float(state.factor)) == (0, 1.0)


def test_a_threshold_on_a_schedule():
    made = optax.inject_hyperparams(clipping.clip_by_global_norm, static_args="nonfinite")(
        max_norm=lambda step: jnp.where(step == 0, 1.0, 0.5)
    )
    tree = jnp.array([3.0, 4.0])
    with jax.numpy_dtype_promotion("standard"):
        state = made.init(tree)
        for size in (1.0, 0.5):
            got, state = jax.jit(made.update)(tree, state)
            np.testing.assert_allclose(np.linalg.norm(got), size, rtol=1e-12)
