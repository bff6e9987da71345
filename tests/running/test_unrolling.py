"""`unroll` against a Python loop over NumPy's step, and under JAX's transformations."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxrnn
from jaxrnn.numerics.time_axis import previous
from tests.support import drawing, reference
from tests.support.modes import WIDEST, tol
from tests.support.profiles import short
from tests.support.table import BARE_LSTM, CELLS, split

T, D, H = 5, 3, 4
CLOSED = ("rnn-tanh", "lstm", "gru")  # one cell of each kind
each_kind = pytest.mark.parametrize("name", CLOSED)


def each_cell(test):
    """The short profile leaves out three activations, which share all else with tanh."""
    return short(name=set(CLOSED))(pytest.mark.parametrize("name", CELLS)(test))


def each_cell_and_batch(test):
    """The short profile has every batch of the LSTM alone."""
    test = pytest.mark.parametrize("batch", [(), (2,), (2, 3)])(
        pytest.mark.parametrize("name", CELLS)(test)
    )
    return short(name="lstm")(short(name={"rnn-tanh", "gru"}, batch=(2, 3))(test))


def drawn(cell, batch=(4,), dtype=WIDEST, time=T, seed=0):
    return drawing.drawn(cell, time, batch, D, H, scale=0.6, dtype=dtype, seed=seed)


def loop(name, params, xs, state0, lengths=None, resets=None):
    """The states by a Python loop, a tuple of `(T, *batch, H)`; real or complex NumPy."""
    params, state0 = tuple(map(np.asarray, params)), tuple(map(np.asarray, state0))
    states, state = [], state0
    for i, x in enumerate(np.asarray(xs)):
        start = state
        if resets is not None:
            start = choose(resets[i], state0, state)
        new = reference.step(name, params, start, x)
        state = new if lengths is None else choose(i >= np.asarray(lengths), state, new)
        states.append(state)
    return tuple(map(np.stack, zip(*states, strict=True)))


def choose(where, chosen, other):
    return tuple(np.where(where[..., None], a, b) for a, b in zip(chosen, other, strict=True))


def assert_close(got, want, atol=1e-13):
    assert len(jax.tree.leaves(got)) == len(jax.tree.leaves(want))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=atol * (1 + np.abs(b).max(initial=0)))


def assert_identical(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


def weights_like(states):
    """Cotangents N(0, 1), other ones for every entry of every state."""
    leaves, structure = jax.tree.flatten(states)
    normal = np.random.default_rng(9).normal
    return structure.unflatten([normal(size=s.shape).astype(s.dtype) for s in leaves])


def inner(a, b):
    return sum((x * y).sum() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def inner_with_weights(states):
    return inner(weights_like(states), states)


@functools.partial(jax.jit, static_argnums=0)
def gradients(cell, params, xs, state0, lengths=None, resets=None):
    """The states, and the gradients of Σ weights · states by params, xs and state0."""

    def loss(params, xs, state0):
        states = jaxrnn.unroll(cell, params, xs, state0, lengths=lengths, resets=resets)
        return inner_with_weights(states), states

    by_all, states = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(params, xs, state0)
    return states, by_all


NO_RESETS = np.zeros((T, 4), bool)


@each_cell_and_batch
def test_states_equal_a_python_loop_over_numpys_step(name, batch):
    params, xs, state0 = drawn(CELLS[name], batch)
    states = jaxrnn.unroll(CELLS[name], params, xs, state0)
    assert type(states) is CELLS[name].state_type
    assert_close(states, loop(name, params, xs, state0))


@each_cell_and_batch
def test_default_state0_is_zero(name, batch):
    params, xs, state0 = drawn(CELLS[name], batch)
    zeros = jax.tree.map(np.zeros_like, state0)
    assert_close(jaxrnn.unroll(CELLS[name], params, xs), loop(name, params, xs, zeros))


@each_cell_and_batch
def test_lengths_and_resets_equal_those_of_the_loop(name, batch):
    params, xs, state0 = drawn(CELLS[name], batch)
    rng = np.random.default_rng(1)
    lengths = np.asarray(rng.integers(0, T + 1, batch))
    resets = rng.random((T, *batch)) < 0.4
    kept = {"lengths": lengths, "resets": resets}
    states = jaxrnn.unroll(CELLS[name], params, xs, state0, **kept)
    assert_close(states, loop(name, params, xs, state0, **kept))


@pytest.mark.parametrize("alone", ["lengths", "resets"])
@each_kind
def test_lengths_and_resets_may_each_be_given_alone(name, alone):
    params, xs, state0 = drawn(CELLS[name])
    kept = {"lengths": np.array([0, 2, 3, 5]), "resets": np.arange(T * 4).reshape(T, 4) % 3 == 1}
    kept = {alone: kept[alone]}
    states = jaxrnn.unroll(CELLS[name], params, xs, state0, **kept)
    assert_close(states, loop(name, params, xs, state0, **kept))


@each_cell
def test_a_state_is_held_bit_by_bit_beyond_its_length(name):
    params, xs, state0 = drawn(CELLS[name])
    lengths = np.array([0, 1, 3, 5])
    states, _ = gradients(CELLS[name], params, xs, state0, lengths, NO_RESETS)
    for leaf, first in zip(*jax.tree.map(np.asarray, (states, state0)), strict=True):
        for b, length in enumerate(lengths):
            last = leaf[length - 1, b] if length else first[b]
            np.testing.assert_array_equal(leaf[length:, b], np.broadcast_to(last, (T - length, H)))


@pytest.mark.parametrize("content", [np.nan, np.inf, -np.inf, float(jnp.finfo(WIDEST).max)])
@each_cell
def test_what_the_padding_contains_changes_no_bit_of_states_or_gradients(name, content):
    params, xs, state0 = drawn(CELLS[name])
    lengths = np.array([0, 1, 3, 5])
    padding = np.arange(T)[:, None] >= lengths
    dirty = np.where(padding[..., None], content, xs)
    clean = np.where(padding[..., None], 0.0, xs)
    found = gradients(CELLS[name], params, dirty, state0, lengths, NO_RESETS)
    assert_identical(found, gradients(CELLS[name], params, clean, state0, lengths, NO_RESETS))
    assert all(np.all(np.isfinite(np.asarray(leaf))) for leaf in jax.tree.leaves(found))
    dxs = np.asarray(found[1][1])
    assert np.all(dxs[padding] == 0)
    assert np.any(dxs[~padding] != 0)


@each_cell
def test_length_0_gives_back_state0_and_the_gradient_of_state0_alone(name):
    params, xs, state0 = drawn(CELLS[name])
    nothing = np.full(xs.shape, np.nan)
    states, (dparams, dxs, dstate0) = gradients(
        CELLS[name], params, nothing, state0, np.zeros(4, int), NO_RESETS
    )
    assert_identical(states, jax.tree.map(lambda s: np.broadcast_to(s, (T, *s.shape)), state0))
    assert_identical((dparams, dxs), jax.tree.map(np.zeros_like, (params, xs)))
    assert_close(dstate0, jax.tree.map(lambda w: w.sum(0), weights_like(states)))


def last_states(states):
    return jax.tree.map(lambda s: s[-1], states)


@functools.partial(jax.jit, static_argnums=(0, 1))
def of_last_states(f, cell, *case):
    """The last states that `f` gives, and the gradients of a weighted sum of them."""

    def loss(*case):
        last = last_states(f(cell, *case))
        return inner_with_weights(last), last

    return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*case)


@each_kind
def test_lengths_equal_cutting_each_sequence(name):
    """In values, and in the gradients of a loss on each sequence's last state."""
    lengths = (2, 5)

    def padded(cell, *case):
        return jaxrnn.unroll(cell, *case, lengths=jnp.array(lengths))

    def cut(cell, params, xs, state0):
        lasts = []
        for b, length in enumerate(lengths):
            start = jax.tree.map(lambda s, b=b: s[b], state0)
            lasts.append(last_states(jaxrnn.unroll(cell, params, xs[:length, b], start)))
        return jax.tree.map(lambda *s: jnp.stack(s)[None], *lasts)

    case = CELLS[name], *drawn(CELLS[name], (2,))
    assert_close(of_last_states(padded, *case), of_last_states(cut, *case))


@functools.partial(jax.jit, static_argnums=0)
def two_sequences(cell, params, xs, state0):
    """`gradients` of xs[:2] and xs[2:], each from state0."""

    def loss(params, xs, state0):
        parts = [jaxrnn.unroll(cell, params, part, state0) for part in (xs[:2], xs[2:])]
        states = jax.tree.map(lambda *s: jnp.concatenate(s), *parts)
        return inner_with_weights(states), states

    by_all, states = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(params, xs, state0)
    return states, by_all


@each_kind
def test_a_reset_equals_two_sequences(name):
    """In values, and in the gradients by params, inputs and the shared state0."""
    case = CELLS[name], *drawn(CELLS[name])
    resets = NO_RESETS.copy()
    resets[2] = True
    found = gradients(*case, np.full(4, T), resets)
    assert_close(found, two_sequences(*case), atol=1e-12)


def test_a_reset_cuts_the_gradient_to_the_inputs_before_it():
    params, xs, state0 = drawn(jaxrnn.lstm(), (2,))
    resets = jnp.zeros((T, 2), bool).at[3, 1].set(True)

    def last(xs):
        return jnp.sum(jaxrnn.unroll(jaxrnn.lstm(), params, xs, state0, resets=resets).h[-1])

    gradient = np.asarray(jax.jit(jax.grad(last))(xs))
    assert np.all(gradient[:3, 1] == 0)
    assert np.all(gradient[:, 0] != 0)
    assert np.all(gradient[3:, 1] != 0)


@each_kind
def test_a_reset_at_the_first_step_changes_nothing(name):
    case = CELLS[name], *drawn(CELLS[name]), np.full(4, T)
    first = NO_RESETS.copy()
    first[0] = True
    states, (dparams, dxs, dstate0) = gradients(*case, first)
    assert_identical(states, gradients(*case, NO_RESETS)[0])
    assert_close((dparams, dxs, dstate0), gradients(*case, NO_RESETS)[1])


@each_cell
def test_a_reset_beyond_a_length_leaves_the_held_state_alone(name):
    case = CELLS[name], *drawn(CELLS[name]), np.array([0, 1, 2, 3])
    beyond = np.arange(T)[:, None] >= case[-1]
    assert_identical(gradients(*case, beyond), gradients(*case, NO_RESETS))


@pytest.mark.parametrize(("time", "batch"), [(0, ()), (0, (2,)), (T, (2, 0))])
@each_kind
def test_no_steps_and_no_examples_give_empty_states_and_zero_gradients(name, time, batch):
    cell = CELLS[name]
    case = params, xs, _ = drawn(cell, batch, "float32", time)
    lengths, resets = jnp.zeros(batch, int), jnp.zeros((time, *batch), bool)
    without = jaxrnn.unroll(cell, params, xs)
    for states, by_all in (
        (without, jax.tree.map(np.zeros_like, case)),
        gradients(cell, *case),
        gradients(cell, *case, lengths, resets),
    ):
        assert type(states) is cell.state_type
        assert {(s.shape, s.dtype) for s in states} == {((time, *batch, H), jnp.dtype("float32"))}
        assert_identical(by_all, jax.tree.map(np.zeros_like, case))


@each_cell
def test_one_step_is_the_cells_step(name):
    params, xs, state0 = drawn(CELLS[name], time=1)
    states = jaxrnn.unroll(CELLS[name], params, xs, state0)
    first = last_states(jax.tree.map(np.asarray, states))
    step = jax.jit(CELLS[name].step)
    assert_close(first, step(params, state0, np.asarray(xs)[0]), atol=1e-15)


def test_a_sequence_may_be_continued_from_its_last_state():
    cell = jaxrnn.lstm()
    params, xs, state0 = drawn(cell)
    whole = jax.tree.map(np.asarray, jaxrnn.unroll(cell, params, xs, state0))
    xs = np.asarray(xs)
    start = jax.tree.map(np.asarray, jaxrnn.unroll(cell, params, xs[:3], state0))
    rest = jaxrnn.unroll(cell, params, xs[3:], last_states(start))
    assert_close(jax.tree.map(lambda s: s[3:], whole), rest, atol=1e-15)


def test_nan_in_a_step_that_counts_stays_visible_in_its_own_example():
    params, xs, state0 = drawn(jaxrnn.lstm())
    states = jaxrnn.unroll(jaxrnn.lstm(), params, xs.at[2, 0].set(jnp.nan), state0)
    for leaf in map(np.asarray, states):
        assert np.all(np.isnan(leaf[2:, 0]))
        assert np.all(np.isfinite(leaf[:2, 0]))
        assert np.all(np.isfinite(leaf[:, 1:]))


@each_cell
def test_gradients_equal_complex_steps_through_the_numpy_loop(name):
    """By params, xs and state0, each along its own random direction."""
    cell = CELLS[name]
    point = jax.tree.map(np.asarray, drawn(cell))
    rng = np.random.default_rng(2)
    kept = {"lengths": np.array([5, 3, 4, 2]), "resets": rng.random((T, 4)) < 0.2}
    for options in ({}, kept):
        states, by_all = jax.tree.map(np.asarray, gradients(cell, *point, **options))
        weights = weights_like(states)
        for index, gradient in enumerate(by_all):
            direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), point[index])
            moved = list(point)
            moved[index] = jax.tree.map(lambda p, d: p + 1e-200j * d, point[index], direction)
            ahead = loop(name, *moved, **options)
            exact = inner(weights, [leaf.imag / 1e-200 for leaf in ahead])
            size = inner(jax.tree.map(abs, gradient), jax.tree.map(abs, direction))
            assert abs(inner(gradient, direction) - exact) <= tol(1e-13) * size


@each_kind
def test_jit_changes_nothing(name):
    cell = CELLS[name]
    params, xs, state0 = drawn(cell)
    compiled = jax.jit(functools.partial(jaxrnn.unroll, cell))(params, xs, state0)
    assert_close(compiled, jaxrnn.unroll(cell, params, xs, state0), atol=1e-15)


@each_kind
def test_vmap_over_the_batch_equals_the_batch(name):
    cell = CELLS[name]
    params, xs, state0 = drawn(cell)
    lengths, resets = jnp.array([0, 3, 5, 2]), jnp.zeros((T, 4), bool).at[2, 2].set(True)

    def one(xs, state0, lengths, resets):
        return jaxrnn.unroll(cell, params, xs, state0, lengths=lengths, resets=resets)

    mapped = jax.jit(jax.vmap(one, in_axes=(1, 0, 0, 1), out_axes=1))(xs, state0, lengths, resets)
    assert_close(mapped, gradients(cell, params, xs, state0, lengths, resets)[0], atol=1e-14)


@each_kind
def test_vmap_over_params_equals_each_alone(name):
    cell = CELLS[name]
    several = [drawn(cell, seed=seed)[0] for seed in range(3)]
    _, xs, state0 = drawn(cell)
    stacked = jax.tree.map(lambda *p: np.stack(p), *several)
    for start in ((), (state0,)):
        of_params = lambda p, start=start: jaxrnn.unroll(cell, p, xs, *start)  # noqa: E731
        mapped = jax.jit(jax.vmap(of_params))(stacked)
        alone = [jaxrnn.unroll(cell, params, xs, *start) for params in several]
        assert_close(mapped, jax.tree.map(lambda *s: np.stack(s), *alone), atol=1e-14)


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint32", "uint64"])
def test_lengths_may_have_any_integer_dtype(dtype):
    cell = jaxrnn.gru()
    case = drawn(cell)
    lengths = np.array([0, 2, 5, 4])
    states = jaxrnn.unroll(cell, *case, lengths=lengths.astype(dtype))
    assert_close(states, loop("gru", *case, lengths))


def test_short_integers_may_give_the_lengths_of_a_sequence_longer_than_they_count():
    """200 steps do not fit an int8."""
    cell = jaxrnn.gru()
    params, xs, state0 = drawn(cell, (2,), time=200)
    lengths = np.array([100, 127], np.int8)
    found = jax.jit(functools.partial(jaxrnn.unroll, cell))(params, xs, state0, lengths=lengths)
    assert_close(found, loop("gru", params, xs, state0, lengths))


@pytest.mark.parametrize(
    ("dtype", "beyond"),
    [("int64", (-3, 9, 2, -(2**40))), ("int32", (-3, 9, 2, -(2**31))),
     ("int8", (-1, 127, 2, -128)), ("uint8", (0, 255, 2, 0)), ("uint32", (0, 2**32 - 1, 2, 0)),
     ("uint64", (0, 2**64 - 1, 2, 0))],
)  # fmt: skip
def test_traced_lengths_out_of_range_act_as_clipped(dtype, beyond):
    cell = jaxrnn.lstm()
    case = drawn(cell)
    traced = jax.jit(functools.partial(jaxrnn.unroll, cell))
    states = traced(*case, lengths=np.array(beyond, dtype))
    assert_identical(states, traced(*case, lengths=np.array((0, T, 2, 0), dtype)))
    assert_close(states, loop("lstm", *case, np.array((0, T, 2, 0))))


def test_traced_lengths_out_of_range_have_the_gradients_of_clipped_ones():
    cell = jaxrnn.lstm()
    case = drawn(cell)
    found = [gradients(cell, *case, np.array(lengths), NO_RESETS)
             for lengths in ((-3, 9, 2, -(2**40)), (0, T, 2, 0))]  # fmt: skip
    assert_identical(*found)


@each_cell
def test_a_permuted_batch_gives_permuted_states(name):
    params, xs, state0 = drawn(CELLS[name])
    order = np.array([3, 0, 2, 1])
    permuted = jaxrnn.unroll(
        CELLS[name], params, np.asarray(xs)[:, order],
        jax.tree.map(lambda s: np.asarray(s)[order], state0),
    )  # fmt: skip
    states = jax.tree.map(np.asarray, jaxrnn.unroll(CELLS[name], params, xs, state0))
    assert_close(permuted, jax.tree.map(lambda s: s[:, order], states), atol=1e-15)


def test_numpy_arrays_are_taken_as_they_are():
    cell = jaxrnn.lstm()
    case = drawn(cell)
    as_numpy = jax.tree.map(np.asarray, case)
    assert_identical(jaxrnn.unroll(cell, *as_numpy), jaxrnn.unroll(cell, *case))


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_an_lstm_from_its_step_has_the_states_of_the_lstm(batch):
    params, xs, state0 = drawn(jaxrnn.lstm(), batch)
    zeros = jax.tree.map(np.zeros_like, state0)
    assert_close(jaxrnn.unroll(BARE_LSTM, params, xs), loop("lstm", params, xs, zeros))
    kept = {"lengths": np.full(batch, 3), "resets": np.ones((T, *batch), bool)}
    kept["resets"][::2] = False
    states = jaxrnn.unroll(BARE_LSTM, params, xs, state0, **kept)
    assert_close(states, loop("lstm", params, xs, state0, **kept))


def test_an_lstm_from_its_step_has_the_gradients_of_the_lstm():
    case = drawn(jaxrnn.lstm())
    kept = np.array([0, 2, 3, 5]), np.arange(T * 4).reshape(T, 4) % 3 == 1
    assert_close(gradients(BARE_LSTM, *case, *kept), gradients(jaxrnn.lstm(), *case, *kept))


@pytest.mark.parametrize("stack", ["closed_form", "wrt_params"])
def test_an_lstm_from_its_step_has_the_jacobians_of_the_lstm(stack):
    case = drawn(jaxrnn.lstm())
    f = getattr(jaxrnn.jacobians, stack)
    bare, own = f(jaxrnn.Run(BARE_LSTM, *case)), f(jaxrnn.Run(jaxrnn.lstm(), *case))
    assert jax.tree.structure(bare) == jax.tree.structure(own)
    assert_close(bare, own)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@each_cell
def test_short_dtypes_stay_within_a_few_roundings_of_float64(name, dtype):
    case = drawn(CELLS[name], dtype=dtype)
    states = jaxrnn.unroll(CELLS[name], *case)
    exact = loop(name, *jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), case))
    for leaf, want in zip(states, exact, strict=True):
        assert leaf.dtype == jnp.dtype(dtype)
        # Five roundings of the state, each carried on by a network that may amplify it.
        allowed = 8 * float(jnp.finfo(dtype).eps) * (1 + np.abs(want).max())
        assert np.abs(np.asarray(leaf, np.float64) - want).max() <= allowed


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_gradients_have_the_dtype_of_what_they_belong_to(name, dtype):
    cell = CELLS[name]
    case = drawn(cell, dtype=dtype)
    by_all = gradients(cell, *case)[1]
    exact = gradients(cell, *jax.tree.map(lambda leaf: leaf.astype("float64"), case))[1]
    for got, want in zip(jax.tree.leaves(by_all), jax.tree.leaves(exact), strict=True):
        assert got.dtype == jnp.dtype(dtype)
        allowed = 16 * float(jnp.finfo(dtype).eps) * (1 + np.abs(want).max())
        assert np.abs(np.asarray(got, np.float64) - want).max() <= allowed


def weak(tree):
    """The tree with values that still carry a Python scalar's weak type."""
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5), tree)


@pytest.mark.parametrize("batch", [(), (2,)])
@each_cell
def test_states_are_never_weakly_typed(name, batch):
    cell = CELLS[name]
    params, xs, state0 = drawn(cell, batch)
    assert all(leaf.weak_type for leaf in jax.tree.leaves(weak(state0)))
    kept = {"lengths": jnp.zeros(batch, int), "resets": jnp.zeros((T, *batch), bool)}
    for case in ((params, xs), (params, weak(xs), weak(state0)), weak((params, xs, state0))):
        for options in ({}, kept):
            states = jax.eval_shape(functools.partial(jaxrnn.unroll, cell, **options), *case)
            assert not any(leaf.weak_type for leaf in states)


def counting_cell():
    """A cell that counts how often its step is traced."""
    traces = []

    def step(params, state, x):
        traces.append(x.shape)
        return {"h": jnp.tanh(params @ state["h"]) + x}

    return jaxrnn.from_step(step, init_state=lambda p: {"h": jnp.zeros(3, p.dtype)}), traces


@pytest.mark.parametrize(
    "options",
    [{}, {"state0": {"h": np.ones((2, 3), WIDEST)}}, {"lengths": np.array([1, 4])}],
    ids=str,
)
def test_a_second_call_with_the_same_shapes_does_not_trace_again(options):
    cell, traces = counting_cell()
    first = jaxrnn.unroll(cell, jnp.ones((3, 3)), jnp.ones((T, 2, 3)), **options)
    count = len(traces)
    assert count > 0
    second = jaxrnn.unroll(cell, jnp.zeros((3, 3)), jnp.zeros((T, 2, 3)), **options)
    assert len(traces) == count
    assert not np.array_equal(first["h"], second["h"])
    jaxrnn.unroll(cell, jnp.ones((3, 3)), jnp.ones((T + 1, 2, 3)), **options)
    assert len(traces) > count


def test_a_state_may_be_any_tree_of_any_ranks():
    """Resets and lengths select whole examples, whatever the leaves' shapes."""

    def step(params, state, x):
        count, (matrix,) = state["count"], state["memory"]
        return {"count": count + 1, "memory": (0.5 * matrix + jnp.outer(x, params),)}

    def init_state(params):
        return {"count": jnp.zeros(()), "memory": (jnp.ones((D, 2)),)}

    cell = jaxrnn.from_step(step, init_state=init_state)
    lengths, resets = jnp.array([0, 2, 5]), jnp.zeros((T, 3), bool).at[3, 2].set(True)
    states = jaxrnn.unroll(cell, jnp.ones(2), jnp.ones((T, 3, D)), lengths=lengths, resets=resets)
    expected = np.array([[0, 1, 1], [0, 2, 2], [0, 2, 3], [0, 2, 1], [0, 2, 2]])
    np.testing.assert_array_equal(states["count"], expected)
    entries = (2 - 0.5**expected)[..., None, None]
    np.testing.assert_allclose(
        states["memory"][0], np.broadcast_to(entries, (T, 3, D, 2)), rtol=1e-13
    )


def test_previous_states_shift_the_stack_by_one():
    _, _, state0 = drawn(jaxrnn.lstm())
    states = jax.tree.map(lambda s: jnp.stack([s + 1, s + 2]), state0)
    before = previous(state0, states)
    assert_identical(before, jax.tree.map(lambda s: jnp.stack([s, s + 1]), state0))
    empty = jax.tree.map(lambda s: s[:0], states)
    assert_identical(previous(state0, empty), empty)


ON_TWO_DEVICES = """
import functools, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from tests import conftest
import jaxrnn
from tests.running.test_unrolling import drawn, inner_with_weights
from tests.support.table import BARE_LSTM

ACROSS = P(None, "batch")
auto = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
explicit = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,))

def unsharded(cell, params, xs):
    def loss(params, xs):
        states = jaxrnn.unroll(cell, params, xs)
        return sum(jnp.sum(jnp.sin(s)) for s in states), states
    by_all, states = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, xs)
    return states, by_all

def in_shard_map(cell, params, xs):
    @functools.partial(
        jax.shard_map, mesh=auto, in_specs=(P(), ACROSS), out_specs=(P(), ACROSS))
    def loss(params, xs):
        states = jaxrnn.unroll(cell, params, xs)
        return jax.lax.psum(sum(jnp.sum(jnp.sin(s)) for s in states), "batch"), states
    by_all, states = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, xs)
    return states, by_all

def on_explicit_mesh(cell, params, xs):
    with jax.set_mesh(explicit):
        params = jax.device_put(params, NamedSharding(explicit, P()))
        return unsharded(cell, params, jax.device_put(xs, NamedSharding(explicit, ACROSS)))

assert jax.device_count() == 2
kind = sys.argv[1]
cell = BARE_LSTM if kind == "bare" else jaxrnn.lstm()
params, xs, _ = drawn(jaxrnn.lstm())
if kind == "no inputs":
    params, xs = params._replace(w_ih=params.w_ih[:, :0]), xs[..., :0]
want = unsharded(cell, params, xs)
for run in (in_shard_map, on_explicit_mesh):
    got = run(cell, params, xs)
    for leaf in got[0]:
        assert leaf.sharding.spec[1] == "batch", (run.__name__, leaf.sharding)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-14)
"""


@pytest.mark.parametrize("kind", ["lstm", "bare", "no inputs"])
@short(kind="lstm")
def test_a_batch_sharded_over_two_devices_gives_the_unsharded_states_and_gradients(kind):
    """In `shard_map` and on an explicit mesh; state0 omitted, so the carry is the library's."""
    flags = "--xla_force_host_platform_device_count=2"
    environment = dict(os.environ, XLA_FLAGS=flags, JAX_PLATFORMS="cpu", PYTHONWARNINGS="error")
    done = subprocess.run(
        [sys.executable, "-c", ON_TWO_DEVICES, kind],
        cwd=pathlib.Path(__file__).parents[2], env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@each_kind
def test_an_explicit_mesh_splits_the_batch_of_the_states_as_that_of_xs(name):
    """By types alone, which needs no second device."""
    cell = CELLS[name]
    params, xs, _ = drawn(cell)
    across, mesh = split(xs)
    with jax.sharding.use_abstract_mesh(mesh):
        states = jax.eval_shape(functools.partial(jaxrnn.unroll, cell), params, across)
        loss = lambda params, xs: jaxrnn.unroll(cell, params, xs).h.sum()  # noqa: E731
        by_params, by_xs = jax.eval_shape(jax.grad(loss, (0, 1)), params, across)
    assert all(leaf.sharding.spec == P(None, "batch", None) for leaf in (*states, by_xs))
    assert all(leaf.sharding.spec == P(*[None] * leaf.ndim) for leaf in by_params)


def test_padding_does_not_spoil_the_gradients_of_a_step_that_is_singular_at_zero():
    def step(params, state, x):
        return {"h": jnp.tanh(params @ (x / jnp.linalg.norm(x)) + state["h"])}

    cell = jaxrnn.from_step(step, init_state=lambda p: {"h": jnp.zeros(p.shape[0], p.dtype)})
    keys = jax.random.split(jax.random.key(0), 2)
    params, xs = jax.random.normal(keys[0], (4, 3)), jax.random.normal(keys[1], (5, 2, 3))
    lengths = jnp.array([3, 5])

    def loss(params, xs):
        return jnp.sum(jaxrnn.unroll(cell, params, xs, lengths=lengths)["h"] ** 2)

    by_params, by_xs = jax.grad(loss, argnums=(0, 1))(params, xs)
    assert np.all(np.isfinite(by_params))
    assert np.all(np.isfinite(by_xs))
    np.testing.assert_array_equal(by_xs[3:, 0], 0.0)


@pytest.mark.parametrize("name", ["rnn-tanh", "lstm", "gru"])
@short(name="lstm")
def test_an_empty_batch_has_empty_results(name):
    """B = 0 over more steps than a chunk, in everything that cuts a sequence."""
    cell = CELLS[name]
    params = cell.init(jax.random.key(0), 3, 4)
    xs = jnp.zeros((70, 0, 3))
    assert jaxrnn.unroll(cell, params, xs).h.shape == (70, 0, 4)
    assert jaxrnn.unrolling.last_state(cell, params, xs).h.shape == (0, 4)
    n = 4 * len(cell.state_type._fields)
    run = jaxrnn.Run(cell, params, xs)
    assert jaxrnn.lyapunov.exponents(run, interval=3).value.shape == (0, n)
    assert jaxrnn.products.transport_norms(run).shape == (70, 0)
    assert jaxrnn.certificates.along(run).upper.shape == (70, 0)
    sizes = jaxrnn.bptt.contribution_norms(run, lambda s: s.h.sum())
    assert not any(leaf.any() for leaf in jax.tree.leaves(sizes))
    if name == "lstm":
        assert jaxrnn.paths.decompose(run).exact.shape == (70, 0)
