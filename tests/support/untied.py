"""A plain scan with a copy of the params for every step, and something added to every state.

Differentiated by the copies it gives each step's contribution by itself; by what is added, ∂E/∂sₖ.
It shares nothing with `unroll` and its derivative but the step of the cell.
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from tests.support import drawing
from tests.support.modes import tol
from tests.support.table import CELLS

D, H = 3, 4


def normed_step(params, state, x):
    """A step of no closed form: normalised before tanh, a scalar gain, a trace of its output."""
    z = params["w"] @ x + params["u"] @ state["h"]
    h = jnp.tanh(params["gain"] * z / jnp.sqrt(0.1 + jnp.sum(z * z)))
    return {"h": h, "trace": 0.9 * state["trace"] + 0.1 * h}


NORMED = jaxrnn.from_step(normed_step)
ALL = CELLS | {"step": NORMED}
KINDS = ("rnn-tanh", "lstm", "gru", "step")  # one cell of each kind


STEP_SHAPES = {"gain": (), "u": (H, H), "w": (H, D)}, {"h": (H,), "trace": (H,)}


def drawn(name, T, batch=(2,), seed=0, many=()):
    """(params, xs, state0) of a net of `ALL`, with leading axes `many`."""
    shapes = STEP_SHAPES if name == "step" else None
    return drawing.drawn(ALL[name], T, batch, D, H, seed=seed, many=many, shapes=shapes)


def choose(where, chosen, other):
    where = jnp.asarray(where)[..., None]
    return jax.tree.map(
        lambda a, b: jnp.where(jnp.broadcast_to(where, a.shape), a, b), chosen, other
    )


def copies(params, T):
    return jax.tree.map(lambda p: jnp.broadcast_to(p, (T, *p.shape)), params)


def run(cell, each, xs, state0, lengths=None, resets=None, nudges=None):
    """The states of a plain scan; `each` has a leading T, `nudges` the shape of the states."""
    T, batch = xs.shape[0], xs.shape[1:-1]
    lengths = jnp.full(batch, T) if lengths is None else lengths
    resets = jnp.zeros((T, *batch), bool) if resets is None else resets
    if nudges is None:
        nudges = jax.tree.map(lambda s: jnp.zeros((T, *s.shape), s.dtype), state0)
    live = jnp.arange(T).reshape(-1, *[1] * len(batch)) < lengths[None]
    xs = choose(live, xs, jnp.full_like(xs, 0.5))  # whatever the padding is, it is not read

    def body(state, step):
        params, x, alive, reset, nudge = step
        new = cell.update(params, choose(reset, state0, state), cell.project(params, x))
        new = jax.tree.map(jnp.add, choose(alive, new, state), nudge)
        return new, new

    return jax.lax.scan(body, state0, (each, xs, live, resets, nudges))[1]


def loss(states):
    """Reads every entry of every state, each with a weight, and couples the first to the last.

    Works on JAX's arrays and on NumPy's, complex ones included.
    """
    leaves = jax.tree.leaves(states)
    total = leaves[0][0].sum() * leaves[0][-1].sum()
    for j, leaf in enumerate(leaves):
        weights = np.cos(np.arange(leaf.size) + j).reshape(leaf.shape).astype(leaf.dtype)
        total = total + (weights * leaf + 0.5 * leaf * leaf).sum()
    return total


def masked(T, batch, seed=0):
    """Lengths and resets, both drawn; one sequence of no step, one of all with a single reset."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, T + 1, size=batch)
    resets = generator.random((T, *batch)) < 0.2
    if lengths.size > 1:
        lengths.flat[0], lengths.flat[1] = 0, T
        resets.reshape(T, -1)[:, 1] = np.arange(T) == T // 2
    # `jnp.asarray` would compile a copy of each.
    return {"lengths": jax.device_put(lengths), "resets": jax.device_put(resets)}


def spoilt(xs, lengths):
    """Xs with NaN for padding."""
    steps = np.arange(xs.shape[0]).reshape(-1, *[1] * lengths.ndim)
    xs = np.array(xs)  # by NumPy, since jax_debug_nans lets nobody make NaN
    xs[steps >= np.asarray(lengths)] = np.nan
    return xs


def assert_close(got, want, rtol):
    """Leaf by leaf within rtol of the largest entry of the leaf that is wanted."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.shape == b.shape
        atol = tol(rtol) * np.abs(np.asarray(b)).max(initial=0)
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=atol)
