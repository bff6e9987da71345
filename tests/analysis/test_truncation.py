"""Truncated gradients against a plain scan that is started anew, K steps before each loss term."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import truncation
from jaxrnn.analysis.truncation import Curve
from tests.support.modes import WIDEST, tol
from tests.support.profiles import short
from tests.support.table import CELLS
from tests.support.untied import ALL, KINDS, assert_close, copies, drawn, loss, masked, run, spoilt

T = 6
each_kind = pytest.mark.parametrize("name", KINDS)
MASKS = pytest.mark.parametrize("mask", [False, True], ids=["whole", "masked"])


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def compiled(f, cell, loss, params, xs, state0, **options):
    return f(jaxrnn.Run(cell, params, xs, state0, **options), loss)


@functools.partial(jax.jit, static_argnums=(0, 1))
def windowed(cell, K, params, xs, state0, direct):
    """G_K of one sequence: from each state a plain scan over the K steps that led to it."""

    def one_term(params, t):
        first = max(0, t + 1 - K)
        states = run(cell, copies(params, T), xs, state0)
        start = state0 if first == 0 else jax.tree.map(lambda s: s[first - 1], states)
        start = jax.lax.stop_gradient(start)
        last = run(cell, copies(params, t + 1 - first), xs[first : t + 1], start)
        terms = jax.tree.map(lambda g, s: jnp.sum(g[t] * s[-1]), direct, last)
        return sum(jax.tree.leaves(terms))

    T = xs.shape[0]
    return jax.grad(lambda params: sum(one_term(params, t) for t in range(T)))(params)


def reference(cell, K, params, xs, state0, lengths=None, resets=None):
    """G_K sequence by sequence: each cut to its length, and cut again where it is reset."""
    B = xs.shape[1]
    lengths = np.full(B, T) if lengths is None else np.asarray(lengths)
    resets = np.zeros((T, B), bool) if resets is None else np.asarray(resets)
    states = run(cell, copies(params, T), xs, state0, lengths=lengths, resets=resets)
    direct = jax.grad(loss)(states)
    total = jax.tree.map(jnp.zeros_like, params)
    for b, n in enumerate(lengths):
        own = jax.tree.map(lambda leaf: leaf[:, b], direct)  # noqa: B023
        start = jax.tree.map(lambda leaf: leaf[b], state0)  # noqa: B023
        if n == 0:
            continue
        # What is read of the held state is read of the last one.
        own = jax.tree.map(lambda g: g[:n].at[n - 1].add(g[n:].sum(0)), own)  # noqa: B023
        cuts = [0, *(i for i in range(1, n) if resets[i, b]), n]
        for i, j in itertools.pairwise(cuts):
            part = jax.tree.map(lambda g: g[i:j], own)  # noqa: B023
            total = jax.tree.map(jnp.add, total, windowed(cell, K, params, xs[i:j, b], start, part))
    return total


@MASKS
@pytest.mark.parametrize("K", [1, 2, 4])
@each_kind
@short(name={"lstm", "step"}, K=2, mask=True)
@short(name="rnn-tanh", K=1, mask=False)
def test_gradient_carries_every_term_back_through_k_steps(name, K, mask):
    cell, (params, xs, state0) = ALL[name], drawn(name, T, (3,))
    masks = masked(T, (3,)) if mask else {}
    want = reference(cell, K, params, xs, state0, **masks)
    if mask:
        xs = spoilt(xs, masks["lengths"])
    assert_close(
        truncation.gradient(jaxrnn.Run(cell, params, xs, state0, **masks), loss, K), want, 1e-13
    )


@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
@MASKS
@each_kind
@short(name={"lstm", "step"}, mask=True, batch=(2, 3))
@short(name="gru", mask=False, batch=())
@short(name="rnn-tanh", mask=False, batch=(2, 3))
def test_the_longest_window_gives_the_gradient_and_no_shorter_one(name, mask, batch):
    cell, (params, xs, state0) = ALL[name], drawn(name, T, batch)
    masks = masked(T, batch) if mask else {}
    want = jax.grad(lambda p: loss(run(cell, copies(p, T), xs, state0, **masks)))(params)
    got = truncation.gradient(jaxrnn.Run(cell, params, xs, state0, **masks), loss, T)
    assert_close(got, want, 1e-13)
    with pytest.raises(AssertionError):
        assert_close(
            truncation.gradient(jaxrnn.Run(cell, params, xs, state0, **masks), loss, 2), want, 1e-6
        )


def by_windows(cell, params, xs, loss, state0, **masks):
    """Bias and cosine from one truncated gradient after the other, in NumPy."""
    each = [
        truncation.gradient(jaxrnn.Run(cell, params, xs, state0, **masks), loss, K)
        for K in range(1, T + 1)
    ]
    gradients = np.stack(
        [np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(g)]) for g in each]
    )
    g, size = gradients[-1], np.linalg.norm
    return (
        size(gradients - g, axis=1) / size(g),
        gradients @ g / (size(gradients, axis=1) * size(g)),
    )


@MASKS
@each_kind
@short(name={"lstm", "step"}, mask=True)
@short(name={"gru", "rnn-tanh"}, mask=False)
def test_curve_equals_one_truncated_gradient_after_the_other(name, mask):
    cell, (params, xs, state0) = ALL[name], drawn(name, T, (3,))
    masks = masked(T, (3,)) if mask else {}
    got = compiled(truncation.curve, cell, loss, params, xs, state0, **masks)
    bias, cosine = by_windows(cell, params, xs, loss, state0, **masks)
    assert got.bias.shape == got.cosine.shape == (T,)
    np.testing.assert_allclose(got.bias, bias, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(got.cosine, cosine, rtol=1e-13)


def on_last(state):
    leaf, *others = jax.tree.leaves(state)
    return jnp.sum(jnp.sin(leaf)) * jnp.sum(leaf) + sum(jnp.sum(x * x) for x in others)


def on_states(states):
    return on_last(jax.tree.map(lambda leaf: leaf[-1], states))


@pytest.mark.parametrize(("batch", "mask"), [((), False), ((3,), False), ((3,), True),
                                             ((2, 2), True)], ids=str)  # fmt: skip
@each_kind
@short(name="lstm", batch=(3,), mask=True)
@short(name="gru", batch=(2, 2), mask=True)
@short(name="step", batch=(), mask=False)
@short(name="rnn-tanh", batch=(3,), mask=False)
def test_curve_of_last_equals_curve(name, batch, mask):
    """Lengths differ, so that lag k is another step of each sequence."""
    cell, (params, xs, state0) = ALL[name], drawn(name, T, batch)
    masks = masked(T, batch) if mask else {}
    if mask:
        xs = spoilt(xs, masks["lengths"])
    got = compiled(truncation.curve_of_last, cell, on_last, params, xs, state0, **masks)
    want = compiled(truncation.curve, cell, on_states, params, xs, state0, **masks)
    np.testing.assert_allclose(got.bias, want.bias, rtol=1e-12, atol=tol(1e-14))
    np.testing.assert_allclose(got.cosine, want.cosine, rtol=1e-13)
    assert got.bias[0] > 0.01
    np.testing.assert_allclose(got.bias[-1], 0, atol=tol(1e-14))


def test_padding_does_not_move_a_curve():
    """A sequence of 4 steps has the curve it has without its padding, then 0."""
    params, xs, state0 = drawn("lstm", T, ())
    cell = CELLS["lstm"]
    short = truncation.curve_of_last(jaxrnn.Run(cell, params, xs[:4], state0), on_last)
    for f, energy in ((truncation.curve, on_states), (truncation.curve_of_last, on_last)):
        padded = f(jaxrnn.Run(cell, params, xs, state0, lengths=jnp.array(4)), energy)
        np.testing.assert_allclose(padded.bias[:4], short.bias, atol=tol(1e-14))
        np.testing.assert_allclose(padded.bias[4:], 0, atol=tol(1e-14))


def test_scaling_the_loss_moves_no_curve_even_where_squares_underflow():
    case = jax.tree.map(lambda leaf: leaf.astype("float32"), drawn("gru", T))
    params, xs, state0 = case

    def tiny(state):
        return jnp.float32(2.0**-83) * on_last(state)

    one = truncation.curve_of_last(jaxrnn.Run(CELLS["gru"], params, xs, state0), on_last)
    small = truncation.curve_of_last(jaxrnn.Run(CELLS["gru"], params, xs, state0), tiny)
    np.testing.assert_allclose(small.bias, one.bias, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(small.cosine, one.cosine, rtol=1e-5)


# --- where the gradient is 0 ------------------------------------------------------


def summed(params, state, x):
    return {"h": state["h"] + params * x}


SUMMED = jaxrnn.from_step(summed, init_state=lambda p: {"h": jnp.zeros(1, p.dtype)})


@pytest.mark.parametrize("f", [truncation.curve, truncation.curve_of_last])
def test_a_gradient_of_zero_has_no_relative_bias(f):
    """The terms 3, -1, -2 add up to 0: K = 1 gives -2 and K = 2 gives -3."""
    xs = jnp.array([3.0, -1.0, -2.0])[:, None]

    def energy(s):
        return s["h"].ravel()[-1]

    got = f(jaxrnn.Run(SUMMED, jnp.asarray(1.0, WIDEST), xs), energy)
    assert got.bias.tolist() == [np.inf, np.inf, 0]
    assert got.cosine.tolist() == [0, 0, 1]
    assert got.smallest_window(0.1) == 3
    nothing = f(jaxrnn.Run(SUMMED, jnp.asarray(1.0, WIDEST), xs), lambda s: 0 * energy(s))
    assert nothing.bias.tolist() == [0, 0, 0]
    assert nothing.cosine.tolist() == [1, 1, 1]
    assert nothing.smallest_window(0.1) == 1


@pytest.mark.parametrize(("steps", "batch"), [(0, ()), (0, (2,)), (3, (0,)), (3, (2, 0))])
@pytest.mark.parametrize("name", ["gru", "step"])
def test_empty_sequences_and_batches(name, steps, batch):
    cell, (params, xs, state0) = ALL[name], drawn(name, steps, batch)

    def energy(states):
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(states))

    for f in (truncation.curve, truncation.curve_of_last):
        got = f(jaxrnn.Run(cell, params, xs, state0), energy)
        assert got.bias.tolist() == [0] * steps
        assert got.cosine.tolist() == [1] * steps
        assert got.smallest_window(0.1) == min(1, steps)
        assert str(got).startswith("window")
    if steps:
        g = truncation.gradient(jaxrnn.Run(cell, params, xs, state0), energy, 2)
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(g))


# --- the advice -------------------------------------------------------------------


def advice(*bias, epsilon=0.1):
    return Curve(jnp.array(bias), jnp.ones(len(bias))).smallest_window(epsilon)


def test_smallest_window_holds_for_every_longer_one():
    assert advice(0.5, 0.2, 0.1, 0.05, 0) == 3
    assert advice(0.5, 0.01, 0.2, 0.05, 0) == 4  # 2 passes, 3 does not
    assert advice(0.05, 0.01, 0) == 1
    assert advice(0.5, 0.4, 0.3) == 3  # T is the gradient itself
    assert advice(0.5, 0.4, np.nan) == 3
    assert advice(0.01, np.nan, 0.01, 0) == 3
    assert advice(0.0) == advice(np.inf) == 1
    assert type(advice(0.5, 0.2, 0)) is int


def test_the_advised_window_keeps_what_it_promises():
    params, xs, state0 = drawn("lstm", T, (3,))
    curve = truncation.curve(jaxrnn.Run(CELLS["lstm"], params, xs, state0), loss)
    bias, _ = by_windows(CELLS["lstm"], params, xs, loss, state0)
    for epsilon in (1e-3, 0.01, 0.05, 0.3):
        K = curve.smallest_window(epsilon)
        assert np.all(bias[K - 1 :] <= epsilon)
        assert K == 1 or bias[K - 2] > epsilon


def test_a_stack_of_curves_has_no_single_window():
    stack = Curve(jnp.zeros((2, 3)), jnp.zeros((2, 3)))
    assert str(stack) == repr(stack)
    with pytest.raises(ValueError, match=r"bias: expected one curve \(T,\), got shape \(2, 3\)"):
        stack.smallest_window(0.1)


def test_printed_it_fits_a_terminal():
    lines = str(Curve(jnp.full(1000, 1e-300), -jnp.ones(1000))).splitlines()
    assert len(lines) == 12  # the header, 1, 2, 4 … 512 and T
    assert lines[-1].split() == ["1000", "1.0e-300", "-1.0000"]
    assert max(map(len, lines)) < 40


# --- transformations --------------------------------------------------------------


@pytest.mark.parametrize("f", [truncation.curve, truncation.curve_of_last, truncation.gradient])
@pytest.mark.parametrize("name", ["gru", "step"])
@short(name="gru", f=truncation.curve)
@short(name="step", f={truncation.curve_of_last, truncation.gradient})
def test_jit_and_vmap_change_nothing(f, name):
    cell, cases = ALL[name], drawn(name, 4, many=(2,))
    energy = on_last if f is truncation.curve_of_last else on_states
    window = (3,) if f is truncation.gradient else ()

    def call(params, xs, state0):
        return f(jaxrnn.Run(cell, params, xs, state0), energy, *window)

    mapped = jax.jit(jax.vmap(call))(*cases)
    for i in range(2):
        one = call(*jax.tree.map(lambda leaf: leaf[i], cases))  # noqa: B023
        assert_close(jax.tree.map(lambda leaf: leaf[i], mapped), one, 1e-13)  # noqa: B023


def test_every_window_is_served_by_one_program():
    params, xs, state0 = drawn("lstm", T)
    truncation.gradient(jaxrnn.Run(CELLS["lstm"], params, xs, state0), loss, 2)
    before = truncation._gradient._cache_size()
    truncation.gradient(jaxrnn.Run(CELLS["lstm"], params, xs, state0), loss, 5)
    assert truncation._gradient._cache_size() == before


def test_sixteen_bit_weights_are_summed_in_float32():
    params, xs, state0 = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), drawn("lstm", T))
    curve = truncation.curve_of_last(
        jaxrnn.Run(CELLS["lstm"], params, xs, state0), lambda s: jnp.sum(s.h.astype("float32"))
    )
    assert curve.bias.dtype == jnp.float32
    assert curve.bias[-1] < 2.0**-7
    g = truncation.gradient(
        jaxrnn.Run(CELLS["lstm"], params, xs, state0), lambda s: jnp.sum(s.h), 2
    )
    assert g.w_hh.dtype == jnp.bfloat16
