"""Truncated gradients against a plain scan that is started anew, K steps before each loss term."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import truncation
from jaxrnn.analysis.truncation import Curve
from tests.support import untied
from tests.support.modes import WIDEST, tol
from tests.support.profiles import short
from tests.support.table import CELLS
from tests.support.untied import ALL, KINDS, assert_close, copies, drawn, masked, run, spoilt

T = 6
loss = jax.jit(untied.loss)  # its gradient outside of `jit` is one program, not one for each op
each_kind = pytest.mark.parametrize("name", KINDS)
MASKS = pytest.mark.parametrize("mask", [False, True], ids=["whole", "masked"])


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def compiled(f, cell, loss, params, xs, state0, **options):
    return f(jaxrnn.Run(cell, params, xs, state0, **options), loss)


@functools.partial(jax.jit, static_argnums=0)
def states_and_direct(cell, params, xs, state0, **masks):
    states = run(cell, copies(params, T), xs, state0, **masks)
    return states, jax.grad(loss)(states)


@functools.partial(jax.jit, static_argnums=0)
def windowed(cell, params, windows, starts, steps, direct):
    """The gradient of Σ direct · s, each s by a plain scan over a window from the state before it.

    The windows are a batch, and the states they start from are held fixed.
    """

    def total(params):
        states = run(cell, copies(params, len(windows)), windows, starts, lengths=steps)
        terms = jax.tree.map(lambda g, s: jnp.sum(g * s[-1]), direct, states)
        return sum(jax.tree.leaves(terms))

    return jax.grad(total)(params)


def reference(cell, K, params, xs, state0, **masks):
    """G_K sequence by sequence: each cut to its length, and cut again where it is reset."""
    states, direct = states_and_direct(cell, params, xs, state0, **masks)
    xs, state0, states, direct = jax.tree.map(np.array, (xs, state0, states, direct))
    B = xs.shape[1]
    lengths = np.asarray(masks.get("lengths", np.full(B, T)))
    resets = np.asarray(masks.get("resets", np.zeros((T, B), bool)))
    terms = []
    for b, n in enumerate(lengths):
        first = 0
        for t in range(n):
            first = t if resets[t, b] else first
            since = max(first, t + 1 - K)
            before = state0 if since == first else jax.tree.map(lambda s: s[since - 1], states)  # noqa: B023
            # What is read of the held state is read of the last one.
            read = slice(t, T if t == n - 1 else t + 1)
            own = jax.tree.map(lambda g: g[read, b].sum(0), direct)  # noqa: B023
            window = np.resize(xs[since : t + 1, b], (K, xs.shape[-1]))
            start = jax.tree.map(lambda s: s[b], before)  # noqa: B023
            terms.append((window, start, t + 1 - since, own))
    windows, starts, steps, own = jax.tree.map(lambda *leaves: np.stack(leaves), *terms)
    return windowed(cell, params, np.swapaxes(windows, 0, 1), starts, steps, own)


@MASKS
@pytest.mark.parametrize("K", [1, 2, 4])
@each_kind
@short(name="lstm", K=2, mask=True)
@short(name="step", K=1, mask=False)
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
@short(name="lstm", mask=True, batch=(2, 3))
@short(name="gru", mask=False, batch=())
def test_the_longest_window_gives_the_gradient_and_no_shorter_one(name, mask, batch):
    cell, (params, xs, state0) = ALL[name], drawn(name, T, batch)
    masks = masked(T, batch) if mask else {}
    of = lambda p: loss(run(cell, copies(p, T), xs, state0, **masks))  # noqa: E731
    want = jax.jit(jax.grad(of))(params)
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
@short(name="lstm", mask=True)
@short(name="step", mask=False)
def test_curve_equals_one_truncated_gradient_after_the_other(name, mask):
    cell, (params, xs, state0) = ALL[name], drawn(name, T, (3,))
    masks = masked(T, (3,)) if mask else {}
    got = compiled(truncation.curve, cell, loss, params, xs, state0, **masks)
    bias, cosine = by_windows(cell, params, xs, loss, state0, **masks)
    assert got.bias.shape == got.cosine.shape == (T,)
    np.testing.assert_allclose(got.bias, bias, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(got.cosine, cosine, rtol=1e-13)


@jax.jit
def on_last(state):
    leaf, *others = jax.tree.leaves(state)
    return jnp.sum(jnp.sin(leaf)) * jnp.sum(leaf) + sum(jnp.sum(x * x) for x in others)


@jax.jit
def on_states(states):
    return on_last(jax.tree.map(lambda leaf: leaf[-1], states))


@pytest.mark.parametrize(("batch", "mask"), [((), False), ((3,), False), ((3,), True),
                                             ((2, 2), True)], ids=str)  # fmt: skip
@each_kind
@short(name="gru", batch=(2, 2), mask=True)
@short(name="step", batch=(), mask=False)
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
    np.testing.assert_allclose(got.bias[-1], 0, rtol=0, atol=tol(1e-14))


def test_padding_does_not_move_a_curve():
    """A sequence of 4 steps has the curve it has without its padding, then 0."""
    params, xs, state0 = drawn("lstm", T, ())
    cell, cut = CELLS["lstm"], np.asarray(xs)[:4]
    short = compiled(truncation.curve_of_last, cell, on_last, params, cut, state0)
    for f, energy in ((truncation.curve, on_states), (truncation.curve_of_last, on_last)):
        padded = compiled(f, cell, energy, params, xs, state0, lengths=jnp.array(4))
        bias = np.asarray(padded.bias)
        np.testing.assert_allclose(bias[:4], short.bias, rtol=0, atol=tol(1e-14))
        np.testing.assert_allclose(bias[4:], 0, rtol=0, atol=tol(1e-14))


def test_scaling_the_loss_moves_no_curve_even_where_squares_underflow():
    case = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), drawn("gru", T))
    run = jaxrnn.Run(CELLS["gru"], *case)
    # The size is an operand: both are one program.
    curve_of = jax.jit(lambda size: truncation.curve_of_last(run, lambda s: size * on_last(s)))
    one, small = curve_of(jnp.float32(1)), curve_of(jnp.float32(2.0**-83))
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
@short(name="gru", steps=0, batch=())
@short(name="gru", steps=3, batch=(2, 0))
@short(name="step", steps=0, batch=(2,))
@short(name="step", steps=3, batch=(0,))
def test_empty_sequences_and_batches(name, steps, batch):
    cell, (params, xs, state0) = ALL[name], drawn(name, steps, batch)

    @jax.jit
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
    return Curve(jnp.array(bias), jnp.asarray(np.ones(len(bias)))).smallest_window(epsilon)


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
@short(name="step")
def test_jit_and_vmap_change_nothing(f, name):
    cell, cases = ALL[name], drawn(name, 4, many=(2,))
    energy = on_last if f is truncation.curve_of_last else on_states
    window = (3,) if f is truncation.gradient else ()

    def call(params, xs, state0):
        return f(jaxrnn.Run(cell, params, xs, state0), energy, *window)

    mapped = jax.tree.map(np.asarray, jax.jit(jax.vmap(call))(*cases))
    cases = jax.tree.map(np.asarray, cases)
    for i in range(2):
        one = call(*jax.tree.map(lambda leaf: jnp.asarray(leaf[i]), cases))  # noqa: B023
        assert_close(jax.tree.map(lambda leaf: leaf[i], mapped), one, 1e-13)  # noqa: B023


def test_every_window_is_served_by_one_program():
    params, xs, state0 = drawn("lstm", T)
    truncation.gradient(jaxrnn.Run(CELLS["lstm"], params, xs, state0), loss, 2)
    before = truncation._gradient._cache_size()
    truncation.gradient(jaxrnn.Run(CELLS["lstm"], params, xs, state0), loss, 5)
    assert truncation._gradient._cache_size() == before


def test_sixteen_bit_weights_are_summed_in_float32():
    case = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), "bfloat16"), drawn("lstm", T))
    params, xs, state0 = case
    run = jaxrnn.Run(CELLS["lstm"], params, xs, state0)
    of_last = jax.jit(lambda s: jnp.sum(s.h.astype("float32")))
    curve = truncation.curve_of_last(run, of_last)
    assert curve.bias.dtype == jnp.float32
    assert np.asarray(curve.bias)[-1] < 2.0**-7
    g = truncation.gradient(run, jax.jit(lambda s: jnp.sum(s.h)), 2)
    assert g.w_hh.dtype == jnp.bfloat16
