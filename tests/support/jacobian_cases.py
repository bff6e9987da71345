"""One step of a cell at many drawn points: its Jacobian in closed form, and how far off it is."""

import functools

import jax
import numpy as np

from tests.support import drawing
from tests.support.modes import WIDEST


def drawn(cell, D, H, seed, scale, cases):
    """Params N(0, scale²), states and inputs N(0, 1); NumPy's generator compiles nothing."""
    normal = np.random.default_rng(seed).normal
    params, state = drawing.shapes_of(cell, D, H)
    params = type(params)(*[scale * normal(size=(cases, *shape)) for shape in params])
    state = type(state)(*[normal(size=(cases, *shape)) for shape in state])
    return jax.tree.map(lambda leaf: leaf.astype(WIDEST), (params, state, normal(size=(cases, D))))


@functools.partial(jax.jit, static_argnums=0)
def closed(cell, params, state, x):
    return jax.vmap(cell.state_jacobian)(params, state, x)


def worst(blocks, expected):
    """The largest error of each case, (N,)."""
    return np.max(
        [
            np.abs(np.asarray(got) - want).max((1, 2))
            for out, row in zip(blocks, expected, strict=True)
            for got, want in zip(out, row, strict=True)
        ],
        axis=0,
    )
