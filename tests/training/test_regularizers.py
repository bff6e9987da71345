"""Ω against a loop over Jacobians from jax.jacfwd, its paper's gradient by hand, flossing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrnn
from jaxrnn import lyapunov, regularizers
from tests.support import drawing, table
from tests.support.modes import WIDEST, tol
from tests.support.profiles import short

T, B, D, H = 7, 3, 2, 4


def leaky_step(params, state, x):
    return {"m": 0.5 * state["m"] + jnp.tanh(params["w"] @ state["m"] + params["v"] @ x)}


LEAKY = jaxrnn.from_step(leaky_step, init_state=lambda p: {"m": jnp.zeros(H, p["w"].dtype)})
CELLS = {
    name: table.CELLS[name] for name in ("rnn-tanh", "rnn-relu", "rnn-identity", "lstm", "gru")
}


LEAKY_SHAPES = {"w": (H, H), "v": (H, D)}, {"m": (H,)}


def drawn(name, key=0, T=T, B=B, dtype=WIDEST):
    """(cell, params, xs)."""
    cell, shapes = (LEAKY, LEAKY_SHAPES) if name == "leaky" else (CELLS[name], None)
    given = drawing.drawn(cell, T, (B,), D, H, scale=0.7, seed=key, dtype=dtype, shapes=shapes)
    return cell, *given[:2]


def loss(states):
    """Of every state and every example, nonlinear."""
    return sum(
        jnp.sum(jnp.sin(leaf + i) * jnp.arange(1.0, leaf.size + 1, dtype=leaf.dtype).reshape(
            leaf.shape))
        for i, leaf in enumerate(jax.tree.leaves(states))
    )  # fmt: skip


def by_jacfwd(cell, params, xs, loss, hold=lambda tree: tree, first=0):
    """Ω written out: dense Jacobians of each step of each example; `hold` fixes states and λ.

    The terms of the steps before `first` are left out.
    """
    flat = lambda tree: jnp.concatenate(jax.tree.leaves(tree))  # noqa: E731
    of_each = lambda f: jax.vmap(jax.vmap(f))  # noqa: E731
    state0 = cell.init_state(params, xs.shape[1:2])
    unravel = jax.flatten_util.ravel_pytree(jax.tree.map(lambda leaf: leaf[0], state0))[1]

    def move(state, x):
        new = cell.step(params, state, x)
        return new, (state, new)

    def step(v, x):
        return flat(cell.step(params, unravel(v), x))

    _, (before, states) = jax.lax.scan(move, state0, xs)
    jacobians = of_each(jax.jacfwd(step))(hold(of_each(flat)(before)), xs)
    direct = of_each(flat)(jax.grad(loss)(states))

    def back(later, item):
        J, g = item
        adjoint = hold(g + later)
        later = jnp.einsum("boi,bo->bi", J, adjoint)
        # Where nothing comes through, all relus below 0, the norm has no slope: 0 is a constant.
        some = jnp.any(later != 0, axis=1)
        size = jnp.linalg.norm(jnp.where(some[:, None], later, 1), axis=1)
        sizes = jnp.where(some, size, 0) / jnp.linalg.norm(adjoint, axis=1)
        return later, jnp.sum((sizes - 1) ** 2)

    # The oldest step last: λ comes from the end.
    each = jax.lax.scan(back, jnp.zeros_like(direct[0]), (jacobians, direct), reverse=True)[1]
    return jnp.sum(each[first:]) / xs.shape[1]


def close(got, want, rtol):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(np.asarray(b)).max())


def stencil(f, h=1e-4):
    """f' at 0 by four differences."""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


def way_of(leaf):
    """A direction in which a leaf is moved."""
    return np.cos(np.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape)


@pytest.mark.parametrize("name", [*CELLS, "leaky"])
@short(name="gru")
def test_omega_and_its_gradient_are_those_written_out(name):
    cell, params, xs = drawn(name)
    f = lambda p, x: regularizers.omega(jaxrnn.Run(cell, p, x), loss)  # noqa: E731
    written = lambda p, x: by_jacfwd(cell, p, x, loss)  # noqa: E731
    want = jax.jit(jax.value_and_grad(written, (0, 1)))(params, xs)
    got = jax.jit(jax.value_and_grad(f, (0, 1)))(params, xs)
    close(got, want, 1e-11)
    np.testing.assert_allclose(f(params, xs), got[0], rtol=1e-13)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["rnn-tanh", "lstm", "gru", "leaky"])
@short(name="lstm", masked=True)
@short(name="leaky", masked=False)
def test_its_slope_through_a_run_is_the_central_difference_in_float64(name, masked):
    """The states that a run goes through are its params' own: none is left behind by `run.at`."""
    cell, params, xs = drawn(name)
    options = {}
    if masked:
        zero = jax.eval_shape(lambda p: cell.init_state(p, (B,)), params)
        options = {
            "state0": jax.tree.map(lambda s: jnp.asarray(np.full(s.shape, 0.3, s.dtype)), zero),
            "lengths": jnp.array([7, 4, 1]),
            "resets": jnp.asarray(np.arange(T * B).reshape(T, B) == 3 * B),  # at [3, 0]
        }
    run = jaxrnn.Run(cell, params, xs, **options)
    f = jax.jit(jax.value_and_grad(lambda p: regularizers.omega(run.at(p), loss)))
    # Not where the run was made.
    elsewhere, tree = jax.tree.flatten(jax.tree.map(lambda leaf: 0.9 * np.asarray(leaf), params))
    slopes = jax.tree.leaves(f(tree.unflatten(elsewhere))[1])
    for place, leaf in enumerate(elsewhere):
        way = way_of(leaf)

        def moved(h, place=place, way=way):
            leaves = list(elsewhere)
            leaves[place] = leaves[place] + h * way
            return np.asarray(f(tree.unflatten(leaves))[0])

        slope = np.sum(np.asarray(slopes[place]) * way)
        np.testing.assert_allclose(slope, stencil(moved), rtol=1e-6)


@pytest.mark.parametrize("name", [*CELLS, "leaky"])
@short(name="gru")
def test_the_gradient_at_fixed_adjoints_holds_states_and_adjoints(name):
    cell, params, xs = drawn(name)

    def f(p, x):
        return regularizers.omega_at_fixed_adjoints(jaxrnn.Run(cell, p, x), loss)

    hold = jax.lax.stop_gradient
    want = jax.jit(jax.value_and_grad(lambda p: by_jacfwd(cell, p, xs, loss, hold)))(params)
    value, (slope, moved) = jax.jit(jax.value_and_grad(f, (0, 1)))(params, xs)
    close((value, slope), want, 1e-11)
    assert not np.any(moved)


def test_a_read_out_inside_the_loss_counts_as_held_too():
    cell, params, xs = drawn("lstm")

    def f(omega, w):
        return omega(jaxrnn.Run(cell, params, xs), lambda states: jnp.sin(states.h[-1] @ w).sum())

    w = jnp.arange(1.0, H + 1)
    held, free = (jax.jit(jax.grad(lambda w, o=o: f(o, w)))(w) for o in
                  (regularizers.omega_at_fixed_adjoints, regularizers.omega))  # fmt: skip
    assert not np.any(held)
    assert np.all(np.asarray(free) != 0)


def test_for_a_network_of_pre_activations_it_is_the_papers_gradient():
    """∂⁺Ω/∂W = Σ 2 (r - 1) / (r ‖λ‖²) λ (D m)ᵀ with m = D Wᵀ λ, D = diag tanh'(a₋), by hand."""

    def step(params, a, x):
        return {"h": params["w"] @ jnp.tanh(a["h"]) + params["v"] @ x}

    cell = jaxrnn.from_step(step, init_state=lambda p: {"h": jnp.zeros(H, p["w"].dtype)})
    _, params, xs = drawn("leaky", B=1)

    def f(p):
        run = jaxrnn.Run(cell, p, xs)
        return regularizers.omega_at_fixed_adjoints(run, lambda states: states["h"][-1].sum())

    w, v = (np.asarray(params[k]) for k in "wv")
    a, seen = np.zeros(H), []
    for x in np.asarray(xs)[:, 0]:
        seen.append(a)
        a = w @ np.tanh(a) + v @ x
    value, slope, adjoint = 0.0, np.zeros_like(w), np.ones(H)
    for before in seen[::-1]:
        d = 1 - np.tanh(before) ** 2
        m = d * (w.T @ adjoint)
        r = np.linalg.norm(m) / np.linalg.norm(adjoint)
        value += (r - 1) ** 2
        slope += 2 * (r - 1) / (r * adjoint @ adjoint) * np.outer(adjoint, d * m)
        adjoint = m
    got, found = jax.value_and_grad(f)(params)
    np.testing.assert_allclose(got, value, rtol=1e-13)
    np.testing.assert_allclose(found["w"], slope, rtol=1e-11, atol=1e-13)


def test_a_gradient_that_has_faded_below_the_dtype_still_has_its_omega():
    """300 steps of factor 0.3 end at 1e-157: float32 knows no such adjoint."""
    cell, params, xs = drawn("rnn-tanh", T=300)
    params = params._replace(w_hh=jnp.asarray(0.3 * np.linalg.qr(params.w_hh)[0]))
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (params, xs))
    last = lambda states: states.h[-1].sum()  # noqa: E731
    adjoints = jax.jit(lambda p, x: jaxrnn.bptt.adjoints(jaxrnn.Run(cell, p, x), last))(*single)
    assert not np.any(np.asarray(adjoints.h)[0])
    for f in (regularizers.omega, regularizers.omega_at_fixed_adjoints):
        run = jax.jit(jax.value_and_grad(lambda p, x, f=f: f(jaxrnn.Run(cell, p, x), last)))
        (value, slope), (want, reference) = run(*single), run(params, xs)
        assert np.asarray(want) > 300 * 0.6**2
        np.testing.assert_allclose(value, want, rtol=1e-5)
        close(slope.w_hh, reference.w_hh, 1e-3)


def test_a_linear_net_has_the_omega_of_its_scale():
    cell, params, xs = drawn("rnn-identity")
    orthogonal = jnp.asarray(np.linalg.qr(params.w_hh)[0])
    for scale in (0.5, 1.0, 1.5):
        run = lambda s: jaxrnn.Run(cell, params._replace(w_hh=s * orthogonal), xs)  # noqa: E731
        value, slope = jax.value_and_grad(
            lambda s, run=run: regularizers.omega(run(s), lambda states: states.h[-1].sum())
        )(scale)
        np.testing.assert_allclose([value, slope], [T * (scale - 1) ** 2, 2 * T * (scale - 1)],
                                   rtol=0, atol=tol(1e-12))  # fmt: skip


@functools.partial(jax.jit, static_argnums=0)
def alone(cell, params, xs, **options):
    return regularizers.omega(
        jaxrnn.Run(cell, params, xs, **options), lambda s: (s.h[-1] ** 2).sum()
    )


@pytest.mark.parametrize("name", ["rnn-tanh", "lstm", "gru"])
@short(name="gru")
def test_padding_adds_nothing(name):
    cell, params, xs = drawn(name)
    lengths = jnp.array([7, 4, 1])
    spoilt = np.array(xs)
    spoilt[np.arange(T)[:, None] >= np.asarray(lengths)] = np.nan
    xs = np.asarray(xs)
    each = [alone(cell, params, xs[:n, b : b + 1]) for b, n in enumerate([7, 4, 1])]
    got = jax.jit(jax.value_and_grad(lambda p: alone(cell, p, spoilt, lengths=lengths)))(params)
    np.testing.assert_allclose(got[0], np.sum(each) / B, rtol=1e-12)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(got))


@pytest.mark.parametrize("name", ["rnn-tanh", "lstm", "gru"])
@short(name="gru")
def test_a_reset_ends_it(name):
    """Nothing comes through to the steps before, and the first of the rest has no term."""
    cell, params, xs = drawn(name)
    resets = np.zeros((T, B), bool)
    resets[3] = True
    last = lambda s: (s.h[-1] ** 2).sum()  # noqa: E731
    written = lambda p: by_jacfwd(cell, p, xs[3:], last, first=1)  # noqa: E731
    got = jax.jit(jax.value_and_grad(lambda p: alone(cell, p, xs, resets=resets)))(params)
    close(got, jax.jit(jax.value_and_grad(written))(params), 1e-11)


@pytest.mark.parametrize("name", ["rnn-relu", "lstm", "leaky"])
@pytest.mark.parametrize("f", [regularizers.omega, regularizers.omega_at_fixed_adjoints])
@short(f=regularizers.omega, name={"rnn-relu", "leaky"})
@short(f=regularizers.omega_at_fixed_adjoints, name="leaky")
def test_where_no_gradient_comes_through_the_slope_is_finite(name, f):
    cell, params, xs = drawn(name)
    if name == "rnn-relu":
        params = params._replace(b=jnp.asarray(np.full_like(params.b, -50.0)))  # every unit off

    def early(states):
        return jax.tree.leaves(states)[0][2].sum()

    of = lambda p, x: f(jaxrnn.Run(cell, p, x), early)  # noqa: E731
    value, slope = jax.jit(jax.value_and_grad(of))(params, xs)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))
    np.testing.assert_allclose(value, jax.jit(of)(params, np.asarray(xs)[:3]), rtol=1e-12)
    if name == "rnn-relu":
        np.testing.assert_allclose(
            value, 1.0, rtol=1e-13
        )  # (0 - 1)² at the one step that was reached


@pytest.mark.parametrize(("T", "B"), [(0, 2), (1, 2), (3, 0)])
@short(T=0)
@short(B=0)
def test_empty_and_single(T, B):
    cell, params, xs = drawn("lstm", T=T, B=B)
    f = lambda p: regularizers.omega(jaxrnn.Run(cell, p, xs), lambda s: s.h.sum())  # noqa: E731
    value, slope = jax.jit(jax.value_and_grad(f))(params)
    assert np.isfinite(value)
    if T == 0 or B == 0:
        assert np.asarray(value) == 0
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope))


def test_flossing_is_the_distance_of_the_exponents():
    cell, params, xs = drawn("lstm", T=40)
    found = lyapunov.exponents(jaxrnn.Run(cell, params, xs), count=3, warmup=5, interval=2).value
    found = np.asarray(found)
    got = regularizers.flossing(
        jaxrnn.Run(cell, params, xs), target=-0.1, count=3, warmup=5, interval=2
    )
    np.testing.assert_allclose(got, np.mean(np.sum((found + 0.1) ** 2, -1)), rtol=1e-13)


@pytest.mark.parametrize("name", ["rnn-tanh", "lstm", "gru", "leaky"])
@short(name="leaky")
def test_its_slope_is_the_difference_quotient(name):
    cell, params, xs = drawn(name, T=30)
    f = jax.jit(jax.value_and_grad(
        lambda p: regularizers.flossing(jaxrnn.Run(cell, p, xs), target=-0.2, count=2)
    ))  # fmt: skip
    params = jax.tree.map(np.asarray, params)
    way = jax.tree.map(way_of, params)
    moved = lambda h: np.asarray(f(jax.tree.map(lambda p, w: p + h * w, params, way))[0])  # noqa: E731
    inner = sum(jax.tree.leaves(jax.tree.map(lambda a, b: np.sum(a * b), f(params)[1], way)))
    np.testing.assert_allclose(inner, stencil(moved), rtol=1e-7)


@pytest.mark.parametrize("name", ["rnn-tanh", "lstm", "gru"])
@short(name="rnn-tanh")
def test_flossing_brings_the_leading_exponent_to_its_target(name):
    cell = CELLS[name]
    params = cell.init(jax.random.key(3), 2, 16)
    xs = jnp.asarray(np.random.default_rng(3).normal(size=(150, 4, 2)))
    # A constant rate never settles: where two exponents cross the slope jumps, and rounding then
    # decides where the training goes.
    target, optimizer = -0.02, optax.adam(optax.cosine_decay_schedule(2e-2, 80))

    @jax.jit
    def leading(params):
        return lyapunov.exponents(jaxrnn.Run(cell, params, xs), count=1, warmup=20).value.mean()

    def step(carry, _):
        params, state = carry
        slope = jax.grad(
            lambda p: regularizers.flossing(jaxrnn.Run(cell, p, xs), target=target, warmup=20)
        )(params)
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(params, updates), state), None

    assert abs(np.asarray(leading(params)) - target) > 0.05
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, length=80))
    with jax.numpy_dtype_promotion("standard"):  # optax counts its steps in int32
        (params, _), _ = run((params, optimizer.init(params)))
    assert abs(np.asarray(leading(params)) - target) < 0.02


@pytest.mark.parametrize("f", [regularizers.omega, regularizers.omega_at_fixed_adjoints])
def test_nan_is_never_taken_for_nothing(f):
    cell, params, xs = drawn("rnn-tanh")
    last = lambda states: (states.h[-1] ** 2).sum()  # noqa: E731
    weights = params._replace(w_hh=jnp.asarray(np.full_like(params.w_hh, np.nan)))
    spoilt = np.array(xs)
    spoilt[3, 1] = np.nan
    assert np.isnan(f(jaxrnn.Run(cell, weights, xs), last))
    assert np.isnan(f(jaxrnn.Run(cell, params, jnp.asarray(spoilt)), last))
    assert np.isnan(f(jaxrnn.Run(cell, params, xs), lambda states: jnp.nan * last(states)))


def test_a_step_that_shrinks_beyond_what_can_be_squared_has_its_slope():
    """There Ω ≈ Σ (1 - 2r), so its slope in W is that of -2r, whatever the size of W."""
    cell, params, xs = drawn("rnn-tanh", dtype=jnp.float32)
    slope = jax.jit(jax.grad(lambda p: alone(cell, p, xs)))
    small, tiny = (slope(params._replace(w_hh=np.float32(s) * np.asarray(params.w_hh))).w_hh
                   for s in (1e-10, 1e-25))  # fmt: skip
    assert np.any(small)
    np.testing.assert_allclose(tiny, small, rtol=1e-3, atol=1e-4)


def test_the_target_may_change_while_it_runs():
    cell, params, xs = drawn("rnn-tanh")
    f = lambda target: regularizers.flossing(jaxrnn.Run(cell, params, xs), target=target)  # noqa: E731
    np.testing.assert_allclose(jax.jit(f)(jnp.asarray(-0.3)), f(-0.3), rtol=1e-13)
