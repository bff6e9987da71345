"""Runs whose Jacobians are known, by complex steps or from the theory of matrices."""

import jax.numpy as jnp
import numpy as np

import jaxrnn
from tests.support import reference
from tests.support.table import CELLS
from tests.support.untied import drawn


def exact_jacobians(name, params, states, state0, xs):
    """∂sᵢ/∂sᵢ₋₁ of the whole state by complex steps, `(T, n, n)`, for one sequence."""
    before = [np.concatenate([np.asarray(a)[None], np.asarray(s)[:-1]]) for a, s in
              zip(state0, states, strict=True)]  # fmt: skip
    T = len(xs)
    wide = [np.broadcast_to(leaf, (T, *leaf.shape)) for leaf in map(np.asarray, params)]
    return np.block(reference.complex_step_jacobian(name, wide, tuple(before), np.asarray(xs)))


def case(name, T, seed, scale=1.0):
    """(params, xs, state0, the Jacobians) of one drawn sequence, w_hh times scale."""
    params, xs, state0 = drawn(name, T, (), seed)
    params = params._replace(w_hh=jnp.asarray(scale * np.asarray(params.w_hh)))
    states = jaxrnn.unroll(CELLS[name], params, xs, state0)
    return params, xs, state0, exact_jacobians(name, params, states, state0, xs)


def companion(c):
    """Of x⁴ - c: its fourth power is c."""
    W = np.roll(np.eye(4), 1, 0)
    W[0, 3] = c
    return W
