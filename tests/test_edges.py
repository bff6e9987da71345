"""No step, one, no example, one, no batch axis, one unit, one input, none; and NaN and inf.

At every such size the value of every function is NumPy's (`edges.py`), its gradient that of
difference quotients, and neither `jit` nor `vmap` changes it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import activations, certificates, initializers, lstm, rnn, tasks
from tests.support.edges import FUNCTIONS, KINDS, MET, NOTHING, SIZES, drawn, one_of, refusal, truth
from tests.support.modes import WIDEST, tol
from tests.support.profiles import short

# --- the grid ---------------------------------------------------------------------------


def chosen(f, value):
    found, smooth = jax.tree.leaves(value), FUNCTIONS[f].smooth
    return found if smooth is None else [found[i] for i in smooth]


def total(found):
    """Every entry with a weight of its own."""
    weights = [np.cos(np.arange(a.size) + j).reshape(a.shape) for j, a in enumerate(found)]
    return sum(((w * a).sum() for w, a in zip(weights, found, strict=True)), start=0.0)


def with_slopes(f, name, **masks):
    """case ↦ (∂/∂(params, xs, state0) of `total`, the value)."""

    def run(*case):
        value = FUNCTIONS[f].call(KINDS[name], *case, **masks)
        return jnp.asarray(total(chosen(f, value))), value

    # The loop of `truncation.gradient` is as long as the window, and has no reverse.
    derivative = jax.jacfwd if f == "gradient" else jax.grad
    return derivative(run, argnums=(0, 1, 2), has_aux=True)


def assert_leaves(got, want, rtol):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.shape == np.shape(b)
        atol = tol(rtol) * (1 + np.abs(b).max(initial=0))
        np.testing.assert_allclose(np.asarray(a), b, rtol=0, atol=atol)


def difference_quotient(f, name, case, way, h=1e-4):
    """Along `way`, right to h⁴."""

    def moved(by):
        at = jax.tree.map(lambda a, d: a + by * h * d, case, way)
        return float(total([*map(np.asarray, chosen(f, FUNCTIONS[f].call(KINDS[name], *at)))]))

    return (8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))) / (12 * h)


# Without a step these do what others do, in more programs.
LIKE_OTHERS = {
    "sequential", "log_norm", "layers.adjoints", "credit_matrix", "omega", "curve",
    "contribution_norms", "certify", "clip_by_global_norm",
}  # fmt: skip


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize(("name", "size"), [(name, size) for name in MET for size in MET[name]])
@short(name="rnn-tanh", size="T0-alone", f=FUNCTIONS.keys() - LIKE_OTHERS)
@short(name="lstm", size="T0", f={"unroll", "c_path", "decompose"})
@short(name="lstm", size="B0", f={"unroll", "adjoints", "curve", "transport_norms", "certify"})
@short(name="lstm", size="T1-B1-D1-H1", f={"unroll", "transport_norms"})
@short(name="step", size="T1-alone", f={"wrt_params", "gradient"})
def test_value_gradient_jit_and_vmap(name, size, f):
    call, slopes = functools.partial(FUNCTIONS[f].call, KINDS[name]), with_slopes(f, name)
    cases = drawn(name, SIZES[size], many=(2,))
    one = one_of(cases, 0)
    if said := refusal(f, name, size):
        runs = (call, one), (jax.jit(call), one), (slopes, one), (jax.vmap(call), cases)
        for run, case in runs:
            with pytest.raises(said[0], match=said[1]):
                run(*case)
        return
    slope, mapped = jax.tree.map(np.asarray, jax.jit(jax.vmap(slopes))(*cases))
    for i in range(2):
        value = call(*one_of(cases, i))
        assert_leaves(value, FUNCTIONS[f].want(truth(name, *one_of(cases, i))), 1e-10)
        assert_leaves(one_of(mapped, i), value, 1e-12)
    if size in NOTHING and f not in ("of_weights", "runs"):  # which hand the params on
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope[:2]))
        assert f == "last_state" or not any(np.any(leaf) for leaf in slope[2])
    slope = one_of(slope, 0)
    if f == "omega_at_fixed_adjoints":
        assert all(np.isfinite(leaf).all() for leaf in slope[0])
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope[1:]))
        return
    if not jax.config.jax_enable_x64:
        return  # difference quotients have no digits in float32
    way = drawn(name, SIZES[size], seed=2)
    parts = [np.sum(a * b) for a, b in zip(*map(jax.tree.leaves, (slope, way)), strict=True)]
    quotient = difference_quotient(f, name, one, way)
    np.testing.assert_allclose(sum(parts), quotient, rtol=0, atol=1e-7 * (1 + np.abs(parts).sum()))


# --- each example by itself -------------------------------------------------------------

# Integers; JAX's own rule for relu, whose slope at NaN is 0.
UNSEEN = {"memory_horizon", "forward_mode", "reverse_mode"}
T, AT = 3, 1  # what is not finite enters at step AT of the second example
LARGEST = float(jnp.finfo(WIDEST).max)


def each(kept):
    """Each function with each cell that has it."""
    pairs = [(name, f) for name in KINDS for f in FUNCTIONS if kept(FUNCTIONS[f])]
    return pytest.mark.parametrize(
        ("name", "f"), [pair for pair in pairs if not refusal(*pair[::-1], "alone")]
    )


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@each(lambda function: function.rows is not None)
@short(name="lstm", f={"unroll", "c_path", "adjoints", "transport_norms"})
@short(name="gru", f={"certify", "temporal_contributions", "exponents", "unroll_layers"})
@short(name="step", f={"last_state", "wrt_params"})
def test_an_example_is_the_same_alone_and_beside_one_that_is_not_finite(name, f):
    """NaN shows in its own row alone and, where nothing reads ahead, from its step on."""
    rows, program = FUNCTIONS[f].rows, jax.jit(functools.partial(FUNCTIONS[f].call, KINDS[name]))
    params, xs, state0 = drawn(name, (T, 2, 3, 4))

    def run(xs, rows=slice(None)):
        found = program(params, xs, jax.tree.map(lambda leaf: leaf[rows], state0))
        return list(map(np.asarray, jax.tree.leaves(found)))

    pair = run(xs)
    for both, a, b, one in zip(pair, run(xs[:, 0], 0), run(xs[:, 1], 1),
                               run(xs[:, :1], slice(1)), strict=True):  # fmt: skip
        assert_leaves(both, rows(a, b) if callable(rows) else np.stack([a, b], rows), 1e-13)
        assert_leaves(one, a if callable(rows) else np.expand_dims(a, rows), 1e-13)
    for content in () if callable(rows) else (np.nan, np.inf, -np.inf):
        spoilt = xs.copy()
        spoilt[AT, 1] = content
        found = run(spoilt)
        assert bits([a.take(0, rows) for a in found]) == bits([a.take(0, rows) for a in pair])
        if FUNCTIONS[f].causal:
            assert bits([a[:AT] for a in found]) == bits([a[:AT] for a in pair])
        if np.isnan(content) and f not in UNSEEN:
            assert any(np.isnan(a.take(1, rows)).any() for a in found)


@each(lambda function: function.masked)
@short(name="lstm", f={"unroll", "c_path"})
@short(name="gru", f={"wrt_params", "gradient", "omega", "unroll_layers"})
@short(name="step", f={"last_state", "closed_form", "temporal_contributions", "tangent_norms"})
def test_padding_reaches_neither_value_nor_gradient(name, f):
    params, xs, state0 = drawn(name, (T, 3, 3, 4))
    lengths = np.array([2, 0, 3])
    padding = np.arange(T)[:, None] >= lengths
    run = jax.jit(with_slopes(f, name, lengths=lengths))
    clean = jax.tree.map(np.asarray, run(params, xs, state0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(clean))
    assert not np.any(clean[0][1][padding])
    for content in (0.0, np.nan, np.inf, -np.inf, LARGEST):
        spoilt = np.where(padding[..., None], content, xs)
        assert bits(run(params, spoilt, state0)) == bits(clean)


# --- what takes no net ------------------------------------------------------------------

LEAST = {  # least T, D, N
    tasks.adding: (6, 2, 1), tasks.temporal_order: (10, 6, 1), tasks.temporal_order_3: (10, 6, 1),
    tasks.random_permutation: (2, 100, 1), tasks.copying: (1, 10, 21),
    tasks.noiseless_memorisation: (1, 4, 11),
}  # fmt: skip


@pytest.mark.parametrize("B", [0, 1])
@pytest.mark.parametrize("task", LEAST, ids=lambda task: task.__name__)
def test_the_shortest_task_with_one_sequence_or_none(task, B):
    least, D, N = LEAST[task]
    with pytest.raises(ValueError, match=r"^T: expected"):
        task(jax.random.key(0), B, least - 1)
    drawing = jax.jit(task, static_argnums=(1, 2))
    xs, targets = map(np.asarray, drawing(jax.random.key(0), B, least))
    steps = {21: 21, 11: 11}.get(N, least)
    assert xs.shape == (steps, B, D)
    if task is tasks.adding:
        assert targets.shape == (N, B, 1)
        chosen = np.where(xs[1:, :, 1] == 1, xs[1:, :, 0], 0).sum(0)  # at the first step it is 0
        np.testing.assert_allclose(targets[0, :, 0], 0.5 + chosen / 4, rtol=1e-6)
        assert jax.jit(tasks.within)(targets, targets).tolist() == [True] * B
    else:
        assert targets.shape == (N, B)
        assert np.all(xs.sum(-1) == 1)
        outputs, correct = np.eye(D, dtype=np.float32)[targets], jax.jit(tasks.correct)
        assert correct(outputs, targets).tolist() == [True] * B
        assert correct(1 - outputs, targets).tolist() == [False] * B


@pytest.mark.parametrize("content", [np.nan, np.inf])
def test_what_is_not_finite_certifies_nothing(content):
    params, xs, state0 = drawn("rnn-tanh", (T, 1, 3, 4))
    spoilt = params._replace(w_hh=np.where(np.eye(4), content, 0.0).astype(WIDEST))
    assert certificates.of_weights(rnn(), spoilt).statement().verdict == "no certificate"
    xs[AT] = np.nan
    bounds = certificates.along(jaxrnn.Run(rnn(), params, xs, state0))
    assert bounds.statement().verdict == "no certificate"


def test_initializers_with_one_unit_and_no_input():
    cell, key = lstm(), jax.random.key(0)
    params, _, _ = drawn("lstm", (1, 1, 0, 1))

    @jax.jit
    def started(params):
        chrono = initializers.chrono(cell, params, key, longest=2.0)  # a lag of 2: log 1
        biased = initializers.with_gate_bias(cell, params, "o", 3.0)
        return chrono.b, biased.b, initializers.redrawn(cell, params, key, ("g",)).w_hh

    (i, f, g, o), biased, w_hh = map(np.asarray, started(params))
    assert (i, f, g, o) == (0, 0, params.b[2], params.b[3])
    assert biased[3] == 3
    np.testing.assert_allclose(np.abs(w_hh[2]), 1, rtol=1e-13)  # orthogonal
    assert w_hh[3] == params.w_hh[3]
    one = rnn(activations.sigmoid)
    params, _, _ = drawn("rnn-tanh", (1, 1, 0, 1))
    bound = jax.jit(lambda params: initializers.scaled_to_bound(one, params, 0.9))(params).w_hh
    np.testing.assert_allclose(np.abs(bound), [[4 * 0.9]], rtol=1e-13)
