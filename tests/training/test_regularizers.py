"""Ω against a loop over Jacobians from jax.jacfwd, its paper's gradient by hand, flossing."""

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


def by_jacfwd(cell, params, xs, loss, hold=lambda tree: tree, skipped=()):
    """Ω written out: dense Jacobians of each step of each example; `hold` fixes states and λ."""
    flat = lambda tree: jnp.concatenate(jax.tree.leaves(tree))  # noqa: E731
    state, states, jacobians = cell.init_state(params, xs.shape[1:2]), [], []
    unravel = jax.flatten_util.ravel_pytree(jax.tree.map(lambda leaf: leaf[0], state))[1]
    for x in xs:

        def step(v, x):
            return flat(cell.step(params, unravel(v), x))

        before = hold(jax.vmap(flat)(state))
        jacobians.append(jax.vmap(jax.jacfwd(step))(before, x))
        state = cell.step(params, state, x)
        states.append(state)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    direct = jax.vmap(jax.vmap(flat))(jax.grad(loss)(stacked))
    total, later = 0.0, jnp.zeros_like(direct[0])
    # The oldest step last: λ comes from the end.
    for i, (J, g) in reversed(list(enumerate(zip(jacobians, direct, strict=True)))):
        adjoint = hold(g + later)
        later = jnp.einsum("boi,bo->bi", J, adjoint)
        sizes = jnp.linalg.norm(later, axis=1) / jnp.linalg.norm(adjoint, axis=1)
        total += 0.0 if i in skipped else jnp.sum((sizes - 1) ** 2)
    return total / xs.shape[1]


def close(got, want, rtol):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(jnp.max(jnp.abs(b))))


@pytest.mark.parametrize("name", [*CELLS, "leaky"])
@short(name="lstm")
def test_omega_and_its_gradient_are_those_written_out(name):
    cell, params, xs = drawn(name)
    f = lambda p, x: regularizers.omega(jaxrnn.Run(cell, p, x), loss)  # noqa: E731
    want, slope = jax.value_and_grad(lambda p, x: by_jacfwd(cell, p, x, loss), (0, 1))(params, xs)
    got, found = jax.value_and_grad(f, (0, 1))(params, xs)
    close((got, found), (want, slope), 1e-11)
    np.testing.assert_allclose(jax.jit(f)(params, xs), got, rtol=1e-13)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["rnn-tanh", "lstm", "gru", "leaky"])
@short(name="lstm", masked=True)
@short(name="gru", masked=False)
def test_its_slope_through_a_run_is_the_central_difference_in_float64(name, masked):
    """The states that a run goes through are its params' own: none is left behind by `run.at`."""
    cell, params, xs = drawn(name)
    options = {}
    if masked:
        zero = cell.init_state(params, (B,))
        options = {
            "state0": jax.tree.map(lambda s: s + 0.3, zero),
            "lengths": jnp.array([7, 4, 1]),
            "resets": jnp.zeros((T, B), bool).at[3, 0].set(True),
        }
    run = jaxrnn.Run(cell, params, xs, **options)
    f = jax.jit(lambda p: regularizers.omega(run.at(p), loss))
    elsewhere = jax.tree.map(lambda leaf: 0.9 * leaf, params)  # not where the run was made
    for place, leaf in enumerate(jax.tree.leaves(elsewhere)):
        way = jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape)

        def moved(h, place=place, way=way):
            leaves, tree = jax.tree.flatten(elsewhere)
            leaves[place] = leaves[place] + h * way
            return f(tree.unflatten(leaves))

        h = 1e-4
        quotient = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
        slope = jax.tree.leaves(jax.grad(f)(elsewhere))[place]
        np.testing.assert_allclose(jnp.sum(slope * way), quotient, rtol=1e-6)


@pytest.mark.parametrize("name", [*CELLS, "leaky"])
@short(name={"gru", "leaky"})
def test_the_gradient_at_fixed_adjoints_holds_states_and_adjoints(name):
    cell, params, xs = drawn(name)

    def f(p, x):
        return regularizers.omega_at_fixed_adjoints(jaxrnn.Run(cell, p, x), loss)

    hold = jax.lax.stop_gradient
    want = jax.value_and_grad(lambda p: by_jacfwd(cell, p, xs, loss, hold))(params)
    close(jax.value_and_grad(f)(params, xs), want, 1e-11)
    moved = jax.grad(f, 1)(params, xs)
    assert not np.any(moved)


def test_a_read_out_inside_the_loss_counts_as_held_too():
    cell, params, xs = drawn("lstm")

    def f(omega, w):
        return omega(jaxrnn.Run(cell, params, xs), lambda states: jnp.sin(states.h[-1] @ w).sum())

    w = jnp.arange(1.0, H + 1)
    held, free = (jax.grad(lambda w, o=o: f(o, w))(w) for o in
                  (regularizers.omega_at_fixed_adjoints, regularizers.omega))  # fmt: skip
    assert not np.any(held)
    assert np.all(free != 0)


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
    params = params._replace(w_hh=0.3 * jnp.linalg.qr(params.w_hh)[0])
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, xs))
    last = lambda states: states.h[-1].sum()  # noqa: E731
    assert not np.any(jaxrnn.bptt.adjoints(jaxrnn.Run(cell, *single), last).h[0])
    for f in (regularizers.omega, regularizers.omega_at_fixed_adjoints):
        run = jax.value_and_grad(lambda p, x, f=f: f(jaxrnn.Run(cell, p, x), last))
        (value, slope), (want, reference) = run(*single), run(params, xs)
        assert want > 300 * 0.6**2
        np.testing.assert_allclose(value, want, rtol=1e-5)
        close(slope.w_hh, reference.w_hh, 1e-3)


def test_a_linear_net_has_the_omega_of_its_scale():
    cell, params, xs = drawn("rnn-identity")
    orthogonal = jnp.linalg.qr(params.w_hh)[0]
    for scale in (0.5, 1.0, 1.5):
        run = lambda s: jaxrnn.Run(cell, params._replace(w_hh=s * orthogonal), xs)  # noqa: E731
        value, slope = jax.value_and_grad(
            lambda s, run=run: regularizers.omega(run(s), lambda states: states.h[-1].sum())
        )(scale)
        np.testing.assert_allclose([value, slope], [T * (scale - 1) ** 2, 2 * T * (scale - 1)],
                                   atol=tol(1e-12))  # fmt: skip


def alone(cell, params, xs, **options):
    return regularizers.omega(
        jaxrnn.Run(cell, params, xs, **options), lambda s: (s.h[-1] ** 2).sum()
    )


@pytest.mark.parametrize("name", ["rnn-tanh", "lstm", "gru"])
@short(name="lstm")
def test_padding_adds_nothing(name):
    cell, params, xs = drawn(name)
    lengths = jnp.array([7, 4, 1])
    spoilt = np.array(xs)
    spoilt[np.arange(T)[:, None] >= np.asarray(lengths)] = np.nan
    each = [alone(cell, params, xs[:n, b : b + 1]) for b, n in enumerate([7, 4, 1])]
    got = jax.value_and_grad(lambda p: alone(cell, p, spoilt, lengths=lengths))(params)
    np.testing.assert_allclose(got[0], sum(each) / B, rtol=1e-12)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(got))


@pytest.mark.parametrize("name", ["rnn-tanh", "lstm", "gru"])
@short(name="gru")
def test_a_reset_ends_it(name):
    """Nothing comes through to the steps before, and the first of the rest has no term."""
    cell, params, xs = drawn(name)
    resets = jnp.zeros((T, B), bool).at[3].set(True)
    last = lambda s: (s.h[-1] ** 2).sum()  # noqa: E731
    got = jax.value_and_grad(lambda p: alone(cell, p, xs, resets=resets))(params)
    want = jax.value_and_grad(lambda p: by_jacfwd(cell, p, xs[3:], last, skipped=(0,)))(params)
    close(got, want, 1e-11)


@pytest.mark.parametrize("name", ["rnn-relu", "lstm", "leaky"])
@pytest.mark.parametrize("f", [regularizers.omega, regularizers.omega_at_fixed_adjoints])
@short(f=regularizers.omega, name={"rnn-relu", "leaky"})
@short(f=regularizers.omega_at_fixed_adjoints, name="lstm")
def test_where_no_gradient_comes_through_the_slope_is_finite(name, f):
    cell, params, xs = drawn(name)
    if name == "rnn-relu":
        params = params._replace(b=params.b.at[:].set(-50.0))  # every unit off

    def early(states):
        return jax.tree.leaves(states)[0][2].sum()

    value, slope = jax.value_and_grad(lambda p: f(jaxrnn.Run(cell, p, xs), early))(params)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))
    np.testing.assert_allclose(value, f(jaxrnn.Run(cell, params, xs[:3]), early), rtol=1e-12)
    if name == "rnn-relu":
        np.testing.assert_allclose(value, 1.0)  # (0 - 1)² at the one step that was reached


@pytest.mark.parametrize(("T", "B"), [(0, 2), (1, 2), (3, 0)])
def test_empty_and_single(T, B):
    cell, params, xs = drawn("lstm", T=T, B=B)
    value, slope = jax.value_and_grad(
        lambda p: regularizers.omega(jaxrnn.Run(cell, p, xs), lambda s: s.h.sum())
    )(params)
    assert np.isfinite(value)
    if T == 0 or B == 0:
        assert value == 0
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope))


def test_flossing_is_the_distance_of_the_exponents():
    cell, params, xs = drawn("lstm", T=40)
    found = lyapunov.exponents(jaxrnn.Run(cell, params, xs), count=3, warmup=5, interval=2).value
    got = regularizers.flossing(
        jaxrnn.Run(cell, params, xs), target=-0.1, count=3, warmup=5, interval=2
    )
    np.testing.assert_allclose(got, np.mean(np.sum((found + 0.1) ** 2, -1)), rtol=1e-13)


@pytest.mark.parametrize("name", ["rnn-tanh", "lstm", "gru", "leaky"])
@short(name="leaky")
def test_its_slope_is_the_difference_quotient(name):
    cell, params, xs = drawn(name, T=30)
    f = jax.jit(lambda p: regularizers.flossing(jaxrnn.Run(cell, p, xs), target=-0.2, count=2))
    way = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(
        leaf.shape), params)  # fmt: skip
    moved = lambda h: f(jax.tree.map(lambda p, w: p + h * w, params, way))  # noqa: E731
    h = 1e-4
    quotient = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
    slope = jax.grad(f)(params)
    inner = sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(way),
                                               strict=True))  # fmt: skip
    np.testing.assert_allclose(inner, quotient, rtol=1e-7)


@pytest.mark.parametrize("name", ["rnn-tanh", "lstm", "gru"])
@short(name="rnn-tanh")
def test_flossing_brings_the_leading_exponent_to_its_target(name):
    cell = CELLS[name]
    k_params, k_xs = jax.random.split(jax.random.key(3))
    params = cell.init(k_params, 2, 16)
    xs = jax.random.normal(k_xs, (150, 4, 2))
    # A constant rate never settles: where two exponents cross the slope jumps, and rounding then
    # decides where the training goes.
    target, optimizer = -0.02, optax.adam(optax.cosine_decay_schedule(2e-2, 80))

    def leading(params):
        return lyapunov.exponents(jaxrnn.Run(cell, params, xs), count=1, warmup=20).value.mean()

    def step(carry, _):
        params, state = carry
        slope = jax.grad(
            lambda p: regularizers.flossing(jaxrnn.Run(cell, p, xs), target=target, warmup=20)
        )(params)
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(params, updates), state), None

    assert abs(leading(params) - target) > 0.05
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, length=80))
    with jax.numpy_dtype_promotion("standard"):  # optax counts its steps in int32
        (params, _), _ = run((params, optimizer.init(params)))
    assert abs(leading(params) - target) < 0.02


@pytest.mark.parametrize("f", [regularizers.omega, regularizers.omega_at_fixed_adjoints])
def test_nan_is_never_taken_for_nothing(f):
    cell, params, xs = drawn("rnn-tanh")
    last = lambda states: (states.h[-1] ** 2).sum()  # noqa: E731
    assert np.isnan(f(jaxrnn.Run(cell, params._replace(w_hh=jnp.nan * params.w_hh), xs), last))
    assert np.isnan(f(jaxrnn.Run(cell, params, xs.at[3, 1].set(jnp.nan)), last))
    assert np.isnan(f(jaxrnn.Run(cell, params, xs), lambda states: jnp.nan * last(states)))


def test_a_step_that_shrinks_beyond_what_can_be_squared_has_its_slope():
    """There Ω ≈ Σ (1 - 2r), so its slope in W is that of -2r, whatever the size of W."""
    cell, params, xs = drawn("rnn-tanh", dtype=jnp.float32)
    slope = jax.grad(lambda p: alone(cell, p, xs))
    small, tiny = (slope(params._replace(w_hh=jnp.float32(s) * params.w_hh)).w_hh
                   for s in (1e-10, 1e-25))  # fmt: skip
    assert np.any(small)
    np.testing.assert_allclose(tiny, small, rtol=1e-3, atol=1e-4)


def test_the_target_may_change_while_it_runs():
    cell, params, xs = drawn("rnn-tanh")
    f = lambda target: regularizers.flossing(jaxrnn.Run(cell, params, xs), target=target)  # noqa: E731
    np.testing.assert_allclose(jax.jit(f)(jnp.asarray(-0.3)), f(-0.3), rtol=1e-13)
