"""Cells of `from_step` whose state or input has leaves without tangents, or is a tree."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import bptt, jacobians, lyapunov, products, regularizers, truncation, unrolling
from jaxrnn.numerics.matrix_products import from_tree

T, B, D, H = 6, 3, 2, 4
normal = np.random.default_rng(0).normal
PARAMS = {"w": jnp.asarray(0.6 * normal(size=(H, H))), "v": jnp.asarray(normal(size=(H, D)))}
XS = jnp.asarray(normal(size=(T, B, D)))


class Dropping(NamedTuple):
    """A state with a key and a counter beside its output."""

    h: jax.Array
    key: jax.Array
    count: jax.Array


def dropping(params, state, x):
    """Half of the recurrent units dropped, drawn anew at each step; every third step is idle."""
    key, draw = jax.random.split(state.key)
    kept = jnp.where(jax.random.bernoulli(draw, 0.5, state.h.shape), 2.0, 0.0)
    h = jnp.tanh(params["w"] @ (kept * state.h) + params["v"] @ x)
    h = jnp.where(state.count % 3 == 2, state.h, h)
    return Dropping(h, key, state.count + 1)


def dropping_state(params):
    h = jnp.zeros(params["w"].shape[0], params["w"].dtype)
    return Dropping(h, jax.random.key(7), jnp.zeros((), "int32"))


DROPPING = jaxrnn.from_step(dropping, init_state=dropping_state)


class Fixed(NamedTuple):
    h: jax.Array


def fixed(params, state, x):
    """The same with what was drawn as an input: every leaf is a float."""
    x, kept, idle = x[:D], x[D : D + H], x[-1]
    h = jnp.tanh(params["w"] @ (kept * state.h) + params["v"] @ x)
    return Fixed(idle * state.h + (1 - idle) * h)


FIXED = jaxrnn.from_step(fixed, init_state=lambda p: Fixed(jnp.zeros(H, p["w"].dtype)))


@functools.cache
def twins():
    """Runs of both, on the same draws."""
    keys = jax.random.split(jax.random.key(7), (B,))
    drawn = []
    for t in range(T):
        pairs = jax.vmap(jax.random.split)(keys)
        keys, draws = pairs[:, 0], pairs[:, 1]
        kept = 2.0 * np.asarray(jax.vmap(lambda k: jax.random.bernoulli(k, 0.5, (H,)))(draws))
        idle = np.full((B, 1), float(t % 3 == 2))
        drawn.append(np.concatenate([XS[t], kept, idle], axis=-1))
    return jaxrnn.Run(DROPPING, PARAMS, XS), jaxrnn.Run(FIXED, PARAMS, jnp.asarray(np.stack(drawn)))


def loss(states):
    return jnp.sum(jnp.sin(states.h) @ jnp.arange(1.0, H + 1))


def same(ours, theirs):
    for got, want in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-14)


def test_states_pass_through_keys_and_counters():
    run, twin = twins()
    states = jax.jit(lambda run: run.states())(run)
    same(states.h, twin.states().h)
    np.testing.assert_array_equal(states.count, np.arange(1, T + 1)[:, None] * np.ones((1, B)))
    assert states.key.shape == (T, B)
    last = unrolling.last_state(DROPPING, PARAMS, XS, segment=2)
    same(last.h, states.h[-1])


def test_each_example_of_a_batch_has_a_key_of_its_own():
    state = DROPPING.init_state(PARAMS, (2, B))
    assert state.key.shape == (2, B)
    assert len({tuple(k) for k in jax.random.key_data(state.key).reshape(-1, 2).tolist()}) == 2 * B
    assert DROPPING.init_state(PARAMS).key == jax.random.key(7)


ANALYSES = {
    "adjoints": lambda run: bptt.adjoints(run, loss).h,
    "contributions": lambda run: bptt.temporal_contributions(run, loss),
    "norms": lambda run: bptt.contribution_norms(run, loss),
    "credit": lambda run: bptt.credit_matrix(run, lambda s: jnp.sin(s.h).sum((1, 2))).h,
    "gradient": lambda run: jax.grad(lambda p: loss(run.at(p).states()))(run.params),
    "truncated": lambda run: truncation.gradient(run, loss, 2),
    "curve": lambda run: truncation.curve(run, loss),
    "curve of last": lambda run: truncation.curve_of_last(run, lambda s: jnp.sin(s.h).sum()),
    "closed form": lambda run: jacobians.closed_form(run).h.h,
    "forward mode": lambda run: jacobians.forward_mode(run).h.h,
    "reverse mode": lambda run: jacobians.reverse_mode(run).h.h,
    "by inputs": lambda run: jacobians.wrt_inputs(run).h[..., :D],
    "by params": lambda run: jacobians.wrt_params(run).h,
    "transport": lambda run: products.transport(run, 0, T - 1).unscaled().h.h,
    "transport norms": products.transport_norms,
    "adjoint norms": lambda run: products.adjoint_norms(run, like(run, jnp.ones((B, H)))),
    "tangent norms": lambda run: products.tangent_norms(run, like(run, jnp.ones((B, H)))),
    "exponents": lambda run: lyapunov.exponents(run, count=1).value,
    "omega": lambda run: regularizers.omega(run, loss),
    "bounds": lambda run: jaxrnn.certificates.along(run).upper,
}


def like(run, h):
    """A tangent of the state."""
    return Fixed(h) if run.cell is FIXED else Dropping(h, None, None)


@pytest.mark.parametrize("name", ANALYSES)
def test_an_analysis_leaves_them_out_and_says_what_it_says_of_floats_alone(name):
    run, twin = twins()
    same(ANALYSES[name](run), ANALYSES[name](twin))


@pytest.mark.parametrize("name", ["adjoints", "norms", "curve of last", "transport norms", "omega"])
def test_so_it_does_where_sequences_end_and_begin_anew(name):
    """Lengths alone: a reset goes back to the first key, and the twin would need other draws."""
    lengths = jnp.array([T, 2, 4])
    masked = [jaxrnn.Run(r.cell, r.params, r.xs, lengths=lengths) for r in twins()]
    same(*map(ANALYSES[name], masked))


def test_derivatives_have_none_in_their_place():
    run, _ = twins()
    adjoints = bptt.adjoints(run, loss)
    assert adjoints.key is None
    assert adjoints.count is None
    J = jacobians.closed_form(run)
    assert J.key is None
    assert J.h.key is None
    assert J.h.count is None
    assert from_tree(J).shape == (T, B, H, H)
    assert "key" in repr(jaxrnn.Run(DROPPING, PARAMS, XS, DROPPING.init_state(PARAMS, (B,))))


def test_a_run_names_the_leaves_that_analyses_leave_out():
    dropping, fixed = twins()
    assert dropping.without_tangents() == ("state.key", "state.count")
    assert fixed.without_tangents() == ()


def test_a_reset_begins_anew_with_the_first_key():
    resets = jnp.zeros((T, B), bool).at[3].set(True)
    states = jaxrnn.unroll(DROPPING, PARAMS, jnp.concatenate([XS[:3], XS[:3]]), resets=resets)
    same(states.h[3:], states.h[:3])
    np.testing.assert_array_equal(states.count[3:], states.count[:3])


# --- inputs ---------------------------------------------------------------------------


class Timed(NamedTuple):
    """What was measured, and how long after the last time."""

    x: jax.Array
    gap: jax.Array


def decaying(params, state, timed):
    return Fixed(jnp.exp(-timed.gap) * jnp.tanh(params["w"] @ state.h + params["v"] @ timed.x))


def flat_decaying(params, state, x):
    return decaying(params, state, Timed(x[:D], x[D]))


def first(params):
    return Fixed(jnp.zeros(H, params["w"].dtype))


@pytest.mark.parametrize("name", ["adjoints", "norms", "closed form", "transport norms", "omega"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_tree_of_inputs_is_what_it_is_as_one_vector(name, masked):
    gaps = jnp.asarray(np.abs(normal(size=(T, B))))
    masks = {"lengths": jnp.array([T, 0, 4]), "resets": jnp.arange(T * B).reshape(T, B) % 5 == 3}
    masks = masks if masked else {}
    cell = jaxrnn.from_step(decaying, init_state=first, input_axes=Timed(1, 0))
    tree = jaxrnn.Run(cell, PARAMS, Timed(XS, gaps), **masks)
    vector = jaxrnn.from_step(flat_decaying, init_state=first)
    xs = jnp.concatenate([XS, gaps[..., None]], -1)
    same(ANALYSES[name](tree), ANALYSES[name](jaxrnn.Run(vector, PARAMS, xs, **masks)))
    if name == "closed form" and not masked:
        by_x, by_gap = jacobians.wrt_inputs(tree).h
        assert (by_x.shape, by_gap.shape) == ((T, B, H, D), (T, B, H))
        whole = jacobians.wrt_inputs(jaxrnn.Run(vector, PARAMS, xs)).h
        same([by_x, by_gap], [whole[..., :D], whole[..., D]])


def test_tokens_and_images_are_inputs():
    table = jnp.asarray(normal(size=(5, D)))

    def embedding(params, state, token):
        return Fixed(jnp.tanh(params["w"] @ state.h + params["v"] @ table[token]))

    tokens = jnp.asarray(np.random.default_rng(1).integers(0, 5, (T, B)))
    cell = jaxrnn.from_step(embedding, init_state=first, input_axes=0)

    def plain(params, state, x):
        return Fixed(jnp.tanh(params["w"] @ state.h + params["v"] @ x))

    vector = jaxrnn.from_step(plain, init_state=first)
    runs = jaxrnn.Run(cell, PARAMS, tokens), jaxrnn.Run(vector, PARAMS, table[tokens])
    for name in ("adjoints", "contributions", "closed form", "transport norms"):
        same(*map(ANALYSES[name], runs))
    assert [run.without_tangents() for run in runs] == [("xs",), ()]
    with pytest.raises(TypeError, match=r"xs: expected an input with a leaf of real floats, got"):
        jacobians.wrt_inputs(runs[0])

    def convolving(params, state, image):
        return Fixed(jnp.tanh(params["w"] @ state.h + params["v"] @ image.mean((0, 1))))

    images = jnp.asarray(normal(size=(T, B, 3, 5, D)))
    cell = jaxrnn.from_step(convolving, init_state=first, input_axes=3)
    runs = jaxrnn.Run(cell, PARAMS, images), jaxrnn.Run(vector, PARAMS, images.mean((2, 3)))
    for name in ("adjoints", "contributions", "closed form"):
        same(*map(ANALYSES[name], runs))


@pytest.mark.parametrize("loss", [None, lambda states: jnp.sum(jnp.sin(states.h[-1]))])
def test_a_diagnosis_takes_keys_and_counters_as_constants(loss):
    dropping, fixed = twins()
    mine = jaxrnn.diagnose(dropping.cell, PARAMS, dropping.xs, loss)
    want = jaxrnn.diagnose(fixed.cell, PARAMS, fixed.xs, loss)
    for field in ("adjoint", "contribution", "gradient"):
        got, of = (np.exp(getattr(flow.layers[0], field)) for flow in (mine, want))
        np.testing.assert_allclose(got, of, rtol=0, atol=1e-12 * of.max())
    np.testing.assert_allclose(
        mine.layers[0].exponents.value, want.layers[0].exponents.value, rtol=1e-10, atol=1e-12
    )


# --- what does not fit ------------------------------------------------------------------


TIMED = jaxrnn.from_step(decaying, init_state=first, input_axes=Timed(1, 0))
REFUSED = {
    "a state of another tree": (
        lambda: jaxrnn.Run(DROPPING, PARAMS, XS, Fixed(jnp.zeros((B, H)))),
        TypeError, r"state0: expected Dropping\(h, key, count\), as init_state gives, got Fixed"),
    "a bare array as state": (
        lambda: jaxrnn.Run(DROPPING, PARAMS, XS, jnp.zeros((B, H))),
        TypeError, r"state0: expected Dropping\(h, key, count\), as init_state gives, got float"),
    "one key for a batch": (
        lambda: jaxrnn.Run(DROPPING, PARAMS, XS, DROPPING.init_state(PARAMS, (B,))._replace(
            key=jax.random.key(0))),
        ValueError, r"state0\.key: expected a key for each example, \(3,\), got \(\); jax"),
    "a tree without axes": (
        lambda: jaxrnn.Run(FIXED, PARAMS, (XS, XS)),
        TypeError, r"xs: expected one array of real floats, got .*input_axes"),
    "a key that is none": (
        lambda: jaxrnn.Run(DROPPING, PARAMS, XS, DROPPING.init_state(PARAMS, (B,))._replace(
            key=jnp.zeros((B, 2), "uint32"))),
        TypeError, r"state0\.key: expected a PRNG key, as jax.random.key makes, as init_state"),
    "a counter of floats": (
        lambda: jaxrnn.Run(DROPPING, PARAMS, XS, DROPPING.init_state(PARAMS, (B,))._replace(
            count=jnp.zeros(B))),
        TypeError, r"state0\.count: expected int32, as init_state gives, got float"),
    "a counter that init_state does not have": (
        lambda: jaxrnn.Run(
            jaxrnn.from_step(dropping), PARAMS, XS, DROPPING.init_state(PARAMS, (B,))),
        TypeError, r"state0\.key: expected a real floating dtype"),
    "integers in place of floats": (
        lambda: jaxrnn.Run(jaxrnn.from_step(decaying), PARAMS, XS.astype("int32"), Fixed(XS[0])),
        TypeError, r"xs: expected a real floating dtype"),
    "a key of another batch": (
        lambda: jaxrnn.Run(DROPPING, PARAMS, XS, DROPPING.init_state(PARAMS, (B + 1,))),
        ValueError, r"state0\.h: expected the leading axes \(3,\)"),
    "one input of two": (
        lambda: jaxrnn.Run(TIMED, PARAMS, XS), TypeError, r"xs: expected the tree of input_axes"),
    "inputs of two lengths": (
        lambda: jaxrnn.Run(TIMED, PARAMS, Timed(XS, jnp.zeros((T + 1, B)))), ValueError,
        r"xs\.gap: expected the leading axes \(6, 3\) of the other inputs"),
    "no time axis": (
        lambda: jaxrnn.Run(TIMED, PARAMS, Timed(XS[0, 0], jnp.zeros(()))), ValueError,
        r"xs: expected a time axis"),
    "an input of too few axes": (
        lambda: jaxrnn.Run(TIMED, PARAMS, Timed(jnp.zeros(()), jnp.zeros(()))), ValueError,
        r"xs\.x: expected 1 axes of one example"),
    "a list": (
        lambda: jaxrnn.Run(TIMED, PARAMS, Timed(XS, [0.0])), TypeError, r"xs"),
    "axes below 0": (
        lambda: jaxrnn.from_step(decaying, input_axes=-1), ValueError, r"input_axes: expected"),
    "axes as floats": (
        lambda: jaxrnn.from_step(decaying, input_axes=(1.0, 0)), TypeError,
        r"input_axes: expected"),
    "no axes": (lambda: jaxrnn.from_step(decaying, input_axes=()), ValueError, r"input_axes: exp"),
    "lengths of another batch": (
        lambda: jaxrnn.Run(TIMED, PARAMS, Timed(XS, jnp.zeros((T, B))), lengths=jnp.array([1, 2])),
        ValueError, r"lengths: expected the batch shape \(3,\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_by_name(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()
    if name not in ("axes below 0", "axes as floats", "no axes"):
        with pytest.raises(error, match=message):
            jax.eval_shape(call)
