"""Backpropagation through time against a plain scan with untied params, and NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import bptt
from jaxrnn.running import steps
from tests.support import planted, reference
from tests.support.modes import WIDEST, tol
from tests.support.profiles import short
from tests.support.table import CELLS, split
from tests.support.untied import (
    ALL,
    KINDS,
    NORMED,
    H,
    assert_close,
    copies,
    drawn,
    loss,
    masked,
    run,
    spoilt,
)

each_cell = pytest.mark.parametrize("name", ALL)
each_kind = pytest.mark.parametrize("name", KINDS)
# (batch, whether lengths and resets are given)
CASES = (((), False), ((3,), False), ((), True), ((2, 3), True))
SEQUENCES = {1: 800, 2: 400, 7: 300, 64: 60, 1000: 8}  # 7 cells × 1568 = 10,976


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def compiled(f, cell, loss, params, xs, state0, **masks):
    """The whole call in one program: many eager calls would spend their time compiling."""
    return f(jaxrnn.Run(cell, params, xs, state0, **masks), loss)


def all_of(*functions):
    """One function in place of several: `compiled` makes one program of them."""
    return lambda run, loss: [f(run, loss) for f in functions]


TERMS = all_of(bptt.temporal_contributions, bptt.adjoints)


def total_of(tree):
    return jax.tree.map(lambda leaf: leaf.sum(0), tree)


def in_numpy(tree):
    return jax.tree.map(np.asarray, tree)


# --- the sum over steps is the gradient -------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def sums_and_gradients(cell, params, xs, state0):
    """Of many cases: Σₖ of the contributions, and `jax.grad` of the plain scan."""

    def one(params, xs, state0):
        contributions = bptt.temporal_contributions(jaxrnn.Run(cell, params, xs, state0), loss)
        plain = jax.grad(lambda p: loss(run(cell, copies(p, xs.shape[0]), xs, state0)))
        return total_of(contributions), plain(params)

    return jax.vmap(one)(params, xs, state0)


@pytest.mark.parametrize("T", SEQUENCES)
@each_cell
@short(name="rnn-tanh", T=1000)
@short(name="lstm", T=64)
@short(name="gru", T=7)
@short(name="step", T=1)
def test_contributions_add_up_to_the_gradient_of_a_plain_scan(name, T):
    case = drawn(name, T, (), seed=T, many=(SEQUENCES[T],))
    got, want = in_numpy(sums_and_gradients(ALL[name], *case))
    size, error = (
        np.sqrt(sum(np.sum(np.square(leaf), axis=tuple(range(1, leaf.ndim))) for leaf in leaves))
        for leaves in (
            jax.tree.leaves(want),
            [a - b for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True)],
        )
    )
    assert np.all(error <= tol(1e-12) * size), (error / size).max()


@functools.partial(jax.jit, static_argnums=0)
def plain_gradient(cell, params, xs, state0, **masks):
    return jax.grad(lambda p: loss(run(cell, copies(p, xs.shape[0]), xs, state0, **masks)))(params)


@each_kind
@short(name="lstm")
def test_they_add_up_with_batches_lengths_and_resets_too(name):
    cell, (params, xs, state0), masks = ALL[name], drawn(name, 7, (20,)), masked(7, (20,))
    want = plain_gradient(cell, params, xs, state0, **masks)
    xs = spoilt(xs, masks["lengths"])
    got = compiled(bptt.temporal_contributions, cell, loss, params, xs, state0, **masks)
    assert_close(total_of(in_numpy(got)), want, 1e-12)


@pytest.mark.parametrize(
    "cell", [planted.scaled(jaxrnn.lstm(), "kf"), planted.one_unit(jaxrnn.gru(), "kn")], ids=repr
)
def test_a_wrong_tangent_does_not_add_up(cell):
    case = drawn(cell.name.split("-")[0], 7)
    got = total_of(in_numpy(compiled(bptt.temporal_contributions, cell, loss, *case)))
    with pytest.raises(AssertionError):
        assert_close(got, plain_gradient(cell, *case), 1e-4)


# --- each term by itself ----------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def untied(cell, params, xs, state0, **masks):
    """(∂E/∂θₖ with θ untied, ∂E/∂sₖ by adding to sₖ), each by `jax.grad` of the plain scan."""
    each = copies(params, xs.shape[0])
    nudges = jax.tree.map(jnp.zeros_like, run(cell, each, xs, state0, **masks))
    both = jax.grad(
        lambda each, nudges: loss(run(cell, each, xs, state0, nudges=nudges, **masks)), (0, 1)
    )
    return both(each, nudges)


@pytest.mark.parametrize(("batch", "mask"), CASES, ids=str)
@each_kind
@short(name="lstm", batch=(2, 3), mask=True)
@short(name="step", batch=(), mask=True)
@short(name="gru", batch=(3,), mask=False)
def test_each_term_is_the_gradient_by_that_steps_own_copy(name, batch, mask):
    cell, (params, xs, state0) = ALL[name], drawn(name, 7, batch)
    masks = masked(7, batch) if mask else {}
    contributions, adjoints = untied(cell, params, xs, state0, **masks)
    if mask:
        xs = spoilt(xs, masks["lengths"])
    got, adjoint = compiled(TERMS, cell, loss, params, xs, state0, **masks)
    assert_close(got, contributions, 1e-13)
    assert_close(adjoint, adjoints, 1e-13)
    late = jax.tree.map(lambda leaf: np.roll(leaf, 1, axis=0), in_numpy(contributions))
    with pytest.raises(AssertionError):  # nor would a shift by one step pass
        assert_close(got, late, 1e-3)


@pytest.mark.parametrize("name", CELLS)
@short(name={"rnn-tanh", "lstm", "gru"})
def test_adjoints_equal_complex_steps_in_numpy(name):
    T, cell = 5, CELLS[name]
    params, xs, state0 = drawn(name, T, ())
    weights = tuple(np.asarray(leaf)[None] for leaf in params)

    def energy(k, leaf, unit, h):
        """E with ih added to one entry of sₖ."""
        state, states = tuple(np.asarray(s)[None] for s in state0), []
        for i in range(T):
            state = reference.step(name, weights, state, np.asarray(xs[i])[None])
            if i == k:
                state = tuple(s.astype(complex) for s in state)
                state[leaf][0, unit] += 1j * h
            states.append(state)
        return loss(tuple(np.stack(leaves)[:, 0] for leaves in zip(*states, strict=True)))

    xs = np.asarray(xs)
    got = compiled(bptt.adjoints, cell, loss, params, xs, state0)
    for leaf, values in enumerate(got):
        exact = [[energy(k, leaf, j, 1e-200).imag / 1e-200 for j in range(H)] for k in range(T)]
        np.testing.assert_allclose(values, exact, rtol=0, atol=1e-13 * np.abs(exact).max())


@each_kind
@short(name={"lstm", "step"})
def test_a_loss_on_the_last_state_starts_from_there(name):
    cell, (params, xs, state0) = ALL[name], drawn(name, 6)

    def last(states):
        return jnp.sum(jax.tree.leaves(states)[0][-1] ** 2)

    both = all_of(bptt.adjoints, lambda run, _: run.states())
    got, states = in_numpy(compiled(both, cell, last, params, xs, state0))
    leaf, *others = jax.tree.leaves(got)
    np.testing.assert_array_equal(leaf[-1], 2 * jax.tree.leaves(states)[0][-1])
    assert not any(other[-1].any() for other in others)


@each_kind
@short(name={"lstm", "step"})
def test_held_steps_contribute_exactly_nothing_and_pass_the_adjoint_on(name):
    cell, (params, xs, state0) = ALL[name], drawn(name, 6, ())
    xs = np.array(xs)
    xs[4:] = np.nan

    def last(states):
        return jnp.sum(states["h"][-1] if name == "step" else states.h[-1])

    every = all_of(bptt.temporal_contributions, bptt.adjoints, bptt.contribution_norms)
    found = compiled(every, cell, last, params, xs, state0, lengths=jnp.array(4))
    contributions, adjoints, sizes = in_numpy(found)
    for leaf in jax.tree.leaves(contributions):
        assert leaf[:4].any()
        assert not leaf[4:].any()
    for leaf in jax.tree.leaves(adjoints):
        np.testing.assert_array_equal(leaf[3:5], leaf[4:])
    for leaf in jax.tree.leaves((sizes.norm, sizes.inner)):
        assert leaf[:4].any()
        assert not leaf[4:].any()


@each_kind
@short(name="lstm")
def test_a_reset_makes_two_sequences(name):
    cell, (params, xs, state0) = ALL[name], drawn(name, 7)
    resets = np.zeros((7, 2), bool)
    resets[3] = True
    xs = np.asarray(xs)

    def energy(states):  # without the coupling of the first state to the last
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(states))

    whole = compiled(TERMS, cell, energy, params, xs, state0, resets=resets)
    parts = [compiled(TERMS, cell, energy, params, part, state0) for part in (xs[:3], xs[3:])]
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    for got, want in zip(whole, joined, strict=True):
        assert_close(got, want, 1e-14)


@each_kind
@short(name={"lstm", "step"})
def test_scaling_the_loss_scales_each_term(name):
    cell, (params, xs, state0) = ALL[name], drawn(name, 6)
    once, eight_times = jax.jit(loss), jax.jit(lambda states: -8 * loss(states))
    for f in (bptt.adjoints, bptt.temporal_contributions):
        one = in_numpy(f(jaxrnn.Run(cell, params, xs, state0), once))
        eight = f(jaxrnn.Run(cell, params, xs, state0), eight_times)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(-8 * a, b), one, eight)


IDENTITY = jaxrnn.rnn(activation=jaxrnn.activations.identity)


def last_of_one_unit(states):
    return states.h[-1, 0]


@pytest.mark.parametrize("w", [0.5, 0.9, 1.0, 1.1, 2.0])
def test_every_step_of_the_scalar_linear_network_contributes_alike(w):
    """hₜ = wᵗ x: each of the t terms of dhₜ/dw is wᵗ⁻¹ x."""
    params = jaxrnn.RNNParams(np.zeros((1, 1)), np.full((1, 1), w), np.zeros(1))
    state0 = jaxrnn.RNNState(np.full(1, 0.7))
    for t in (1, 10, 400):
        given = (last_of_one_unit, params, np.zeros((t, 1)), state0)
        terms = compiled(bptt.temporal_contributions, IDENTITY, *given)
        np.testing.assert_allclose(np.ravel(terms.w_hh), 0.7 * w ** (t - 1), rtol=1e-13)


def test_a_state0_made_from_the_params_counts_as_given():
    cell = jaxrnn.from_step(
        lambda p, s, x: {"h": p * s["h"] + jnp.tanh(p * x)},
        init_state=lambda p: {"h": 2 * p[None]},
    )
    p, xs = jnp.asarray(0.7, WIDEST), np.ones((4, 1), WIDEST)
    got = compiled(bptt.temporal_contributions, cell, lambda s: s["h"][-1, 0], p, xs, None)
    given = {"h": np.array([1.4], WIDEST)}
    want = jax.jit(jax.grad(lambda p: jaxrnn.unroll(cell, p, xs, given)["h"][-1, 0]))(p)
    whole = jax.jit(jax.grad(lambda p: jaxrnn.unroll(cell, p, xs)["h"][-1, 0]))(p)
    np.testing.assert_allclose(np.asarray(got).sum(), want, rtol=1e-14)
    assert abs(float(whole) - float(want)) > 1e-3 * abs(float(want))


# --- norms ------------------------------------------------------------------------


def formed(each):
    """Norms and inner products from the contributions themselves."""

    def norm(c):
        return np.sqrt(np.sum(c * c, axis=tuple(range(1, c.ndim))))

    def inner(c, g):
        return np.sum(c * g, axis=tuple(range(1, c.ndim)))

    each = in_numpy(each)
    total = total_of(each)
    return bptt.ContributionNorms(jax.tree.map(norm, each), jax.tree.map(inner, each, total), total)


@pytest.mark.parametrize(("batch", "mask"), [*CASES, ((40,), False), ((40,), True)], ids=str)
@each_kind
@short(name="lstm", batch=(2, 3), mask=True)
@short(name="gru", batch=(40,), mask=True)
@short(name="step", batch=(), mask=False)
def test_norms_and_inner_products_are_those_of_the_contributions(name, batch, mask):
    """A batch of 40 is large beside these weights, so that each product is formed."""
    cell, (params, xs, state0) = ALL[name], drawn(name, 5, batch)
    masks = masked(5, batch) if mask else {}
    if mask:
        xs = spoilt(xs, masks["lengths"])
    given = (cell, loss, params, xs, state0)
    want = formed(compiled(bptt.temporal_contributions, *given, **masks))
    got = in_numpy(compiled(bptt.contribution_norms, *given, **masks))
    # Gram matrices know the square: their rounding grows where a sum over the batch cancels.
    assert_close(got, want, 1e-13 if batch == (40,) else 1e-12)
    for norm, inner, g in zip(*map(jax.tree.leaves, got), strict=True):
        np.testing.assert_allclose(inner.sum(), np.sum(g * g), rtol=1e-12)
        assert np.all(abs(inner) <= (1 + 1e-12) * norm * np.sqrt(np.sum(g * g)))


@pytest.mark.parametrize("chunk", [1, 4, 9, 11])
@each_kind
@short(name="lstm", chunk=4)
@short(name="step", chunk=1)
def test_no_chunk_changes_norms_or_total(name, chunk, monkeypatch):
    """Chunks that divide T = 11 or not, in a loss and on steps with masks."""
    params, xs, state0 = drawn(name, 11, (2,))
    masks = masked(11, (2,))
    plan = steps.plan(ALL[name], params, xs, state0, chunk)
    monkeypatch.setattr(steps, "plan", lambda *_: plan)
    bptt._norms.clear_cache()
    own = jax.jit(lambda run: bptt.contribution_norms(run, loss))  # no program of another chunk
    got = own(jaxrnn.Run(ALL[name], params, xs, state0, **masks))
    bptt._norms.clear_cache()
    want = formed(
        compiled(bptt.temporal_contributions, ALL[name], loss, params, xs, state0, **masks)
    )
    assert_close(got, want, 1e-12)


@pytest.mark.parametrize("kind", ["lstm", "rnn-relu", "gru", "step"])
@short(kind={"lstm", "rnn-relu"})
def test_norms_of_tiny_adjoints_do_not_flush_to_zero(kind):
    """In float32 the square of 1e-25 is 0. A power of two scales every rounding with it."""
    tiny = 2.0**-83
    case = jax.tree.map(lambda leaf: np.asarray(leaf).astype("float32"), drawn(kind, 5))
    one = bptt.contribution_norms(jaxrnn.Run(ALL[kind], *case), jax.jit(loss))
    small = bptt.contribution_norms(jaxrnn.Run(ALL[kind], *case), jax.jit(lambda s: tiny * loss(s)))
    for a, b in zip(*map(jax.tree.leaves, in_numpy((one.norm, small.norm))), strict=True):
        assert b.dtype == jnp.float32
        np.testing.assert_allclose(b / np.float32(tiny), a, rtol=1e-6)
        assert np.all((b > 0) == (a > 0))


def test_norms_next_to_the_largest_number_do_not_vanish():
    """The gradient of a bias is the adjoint itself, here 1.7e38 in float32."""
    cell, large = jaxrnn.rnn(activation=jaxrnn.activations.identity), np.float32(2.0**127)
    params = jaxrnn.RNNParams(*(np.zeros(shape, np.float32) for shape in ((2, 1), (2, 2), (2,))))
    run = jaxrnn.Run(cell, params, np.zeros((3, 1), np.float32))
    sizes = bptt.contribution_norms(run, lambda states: jnp.sum(large * states.h[-1, :1]))
    np.testing.assert_array_equal(sizes.norm.b, [0, 0, large])


def test_clipping_each_term_may_turn_the_sum_uphill():
    """10, -9.5 and -.4 add up to .1; clipped to ±1 they add up to -.4 (facts on clipping)."""
    params = jaxrnn.RNNParams(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1))
    weights = np.array([10.0, -9.5, -0.4])

    def energy(states):
        return jnp.sum(weights * states.h[:, 0])

    both = all_of(bptt.temporal_contributions, bptt.contribution_norms)
    found = compiled(both, IDENTITY, energy, params, np.zeros((3, 1)), None)
    contributions, sizes = in_numpy(found)
    terms = contributions.b[:, 0]
    np.testing.assert_allclose(terms, weights, rtol=1e-13)
    np.testing.assert_allclose(sizes.norm.b, np.abs(weights), rtol=1e-13)
    np.testing.assert_allclose(sizes.inner.b, 0.1 * weights, rtol=1e-13)
    np.testing.assert_allclose(np.clip(terms, -1, 1).sum(), -0.4, rtol=1e-13)
    assert sizes.total.b[0] > 0


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn-tanh"])
@short(name="lstm")
def test_sixteen_bit_weights_are_measured_in_float32(name):
    cast = lambda dtype, tree: jax.tree.map(lambda leaf: leaf.astype(dtype), tree)  # noqa: E731
    case = cast(jnp.bfloat16, in_numpy(drawn(name, 5)))
    wide = cast(np.float32, case)

    def energy(states):
        return jnp.sum(states.h[-1].astype("float32") ** 2)

    got = compiled(bptt.contribution_norms, CELLS[name], energy, *case)
    want = compiled(bptt.contribution_norms, CELLS[name], energy, *wide)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(got.norm)} == {"float32"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(got.total)} == {"bfloat16"}
    assert_close(got.norm, want.norm, 16 * 2.0**-8)


# --- credit -----------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "mask"), [(1, False), (3, True), (100, False)])
@each_kind
@short(name="lstm", rows=3, mask=True)
@short(name="rnn-tanh", rows=1, mask=False)
@short(name="step", rows=100, mask=False)
def test_credit_is_the_norm_of_the_adjoints_of_each_steps_loss(name, rows, mask, monkeypatch):
    cell, T, batch = ALL[name], 7, (2, 2)
    params, xs, state0 = drawn(name, T, batch)
    masks = masked(T, batch) if mask else {}
    size = sum(leaf.size for leaf in jax.tree.leaves(state0)) * T
    monkeypatch.setattr(bptt, "ROW_NUMBERS", rows * size)

    def losses(states):
        squares = [jnp.sin(leaf).reshape(T, -1).sum(1) for leaf in jax.tree.leaves(states)]
        return sum(squares) ** 2

    each = jax.tree.map(lambda p: np.broadcast_to(p, (T, *p.shape)), in_numpy(params))
    nudges = jax.tree.map(lambda s: np.zeros((T, *s.shape)), state0)
    plain = jax.jacrev(lambda n: losses(run(cell, each, xs, state0, nudges=n, **masks)))
    full = in_numpy(jax.jit(plain)(nudges))
    want = jax.tree.map(lambda J: np.sqrt(np.sum(J * J, axis=(2, 3, 4))), full)
    given = jaxrnn.Run(cell, params, xs, state0, **masks)
    got = in_numpy(jax.jit(lambda run: bptt.credit_matrix(run, losses))(given))
    assert_close(got, want, 1e-13)
    for leaf in jax.tree.leaves(got):
        assert leaf.shape == (T, T)
        assert not np.triu(leaf, 1).any()


def test_credit_right_of_the_diagonal_is_that_of_a_loss_which_reads_ahead():
    def ahead(states):
        return jnp.flip(states.h, 0).sum((1, 2))

    h = np.asarray(compiled(bptt.credit_matrix, CELLS["gru"], ahead, *drawn("gru", 4)).h)
    assert np.all(h[0] > 0)
    assert not h[3, 1:].any()


# --- shapes, transformations ------------------------------------------------------


@pytest.mark.parametrize(("T", "batch"), [(0, (2,)), (0, ()), (3, (0,)), (2, (0, 2))])
@each_kind
@short(name="lstm", T={0, 3}, batch={(2,), (0,)})
@short(name="step", T=0, batch=())
@short(name="gru", T=2)
def test_empty_sequences_and_batches_give_zeros(name, T, batch):
    cell, (params, xs, state0) = ALL[name], drawn(name, T, batch)

    def energy(states):
        return sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(states))

    def losses(states):
        return sum(
            (leaf * leaf).sum(tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(states)
        )

    @jax.jit
    def every(given):
        of_one = (bptt.adjoints, bptt.temporal_contributions, bptt.contribution_norms)
        return *[f(given, energy) for f in of_one], bptt.credit_matrix(given, losses)

    adjoints, each, sizes, credit = in_numpy(every(jaxrnn.Run(cell, params, xs, state0)))
    assert [leaf.shape for leaf in jax.tree.leaves(adjoints)] == [
        (T, *leaf.shape) for leaf in jax.tree.leaves(state0)
    ]
    for leaf, of in zip(jax.tree.leaves(each), jax.tree.leaves(params), strict=True):
        assert leaf.shape == (T, *of.shape)
    assert all(leaf.shape == (T,) for leaf in jax.tree.leaves((sizes.norm, sizes.inner)))
    assert all(leaf.shape == (T, T) for leaf in jax.tree.leaves(credit))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((each, sizes, credit)))


FUNCTIONS = ("adjoints", "temporal_contributions", "contribution_norms", "credit_matrix")


@jax.jit  # so that its eager derivative is few programs
def squares(states):
    return sum((leaf**2).sum((1, 2)) for leaf in jax.tree.leaves(states))


@jax.jit
def square(states):
    return squares(states).sum()


def call(f, cell, params, xs, state0):
    run = jaxrnn.Run(cell, params, xs, state0)
    if f == "credit_matrix":
        return bptt.credit_matrix(run, squares)
    return getattr(bptt, f)(run, square)


@pytest.mark.parametrize("f", FUNCTIONS)
@each_kind
@short(name="lstm", f={"temporal_contributions", "contribution_norms", "credit_matrix"})
@short(name="step", f="adjoints")
def test_jit_and_vmap_change_nothing(f, name):
    cell, cases = ALL[name], in_numpy(drawn(name, 4, many=(3,)))
    mapped = in_numpy(jax.jit(jax.vmap(functools.partial(call, f, cell)))(*cases))
    for i in range(3):
        one = call(f, cell, *jax.tree.map(lambda leaf: leaf[i], cases))  # noqa: B023
        assert_close(jax.tree.map(lambda leaf: leaf[i], mapped), one, 1e-13)  # noqa: B023


def test_a_new_loss_compiles_no_core_again():
    params, xs, state0 = drawn("lstm", 4)
    for core, f in ((bptt._adjoints, bptt.adjoints), (bptt._norms, bptt.contribution_norms)):
        f(jaxrnn.Run(CELLS["lstm"], params, xs, state0), lambda s: s.h.sum())
        before = core._cache_size()
        f(jaxrnn.Run(CELLS["lstm"], params, xs, state0), lambda s: s.c[-1].sum())
        assert core._cache_size() == before


def test_default_state0_is_the_cells_own():
    params, xs, state0 = drawn("lstm", 4)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state0)
    every = jax.jit(lambda state0: [call(f, CELLS["lstm"], params, xs, state0) for f in FUNCTIONS])
    jax.tree.map(np.testing.assert_array_equal, every(None), every(zeros))
    with pytest.raises(ValueError, match="state0"):
        call("adjoints", NORMED, *drawn("step", 4)[:2], None)


def test_norms_of_a_batch_that_an_explicit_mesh_splits_are_refused():
    params, xs, _ = drawn("lstm", 4, (2,))
    across, mesh = split(xs)

    def norms(params, xs):
        return bptt.contribution_norms(jaxrnn.Run(CELLS["lstm"], params, xs), lambda s: s.h.sum())

    with (
        jax.sharding.use_abstract_mesh(mesh),
        pytest.raises(NotImplementedError, match=r"^contribution_norms: .* use temporal_cont"),
    ):
        jax.eval_shape(norms, params, across)
