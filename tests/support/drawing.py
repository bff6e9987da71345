"""Params, states and inputs for tests, drawn in one place.

`drawn` and `leaves` are of NumPy's generator, which compiles nothing; `draw_params` and
`draw_state` are of JAX's keys, for programs that draw many cases by themselves.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tests.support.modes import WIDEST


def shapes_of(cell, D, H):
    """The shapes of a cell's params and of its state without batch axes."""
    shapes = cell.shapes(D, H)
    sizes = cell.sizes(type(shapes)(*map(np.empty, shapes)))
    return shapes, cell.state_type(*[(sizes[field],) for field in cell.state_type._fields])


def leaves(rng, shapes, scale=1.0, lead=()):
    """Leaves N(0, scale²) of a tree of shapes, in NumPy."""
    draw = lambda shape: scale * rng.normal(size=(*lead, *shape))  # noqa: E731
    return jax.tree.map(draw, shapes, is_leaf=lambda node: type(node) is tuple)


def drawn(cell, T, batch, D, H, *, scale=0.5, seed=0, many=(), dtype=WIDEST, shapes=None):
    """(params, xs, state0): params N(0, scale²), the others N(0, 1), with leading axes `many`.

    `shapes` stands in for those of a cell that does not tell them.
    """
    rng = np.random.default_rng(seed)
    of_params, of_state = shapes_of(cell, D, H) if shapes is None else shapes
    params = leaves(rng, of_params, scale, many)
    state0 = leaves(rng, of_state, lead=(*many, *batch))
    xs = rng.normal(size=(*many, T, *batch, D))
    # Cast by NumPy: JAX would compile a program for each shape.
    cast = lambda leaf: jnp.asarray(leaf.astype(dtype), dtype)  # noqa: E731
    return jax.tree.map(cast, (params, xs, state0))


def draw_params(cell, D, H, key, scale=1.0, dtype=WIDEST):
    """Params with every leaf N(0, scale²), biases included."""
    shapes = cell.shapes(D, H)
    keys = jax.random.split(key, len(shapes))
    drawn = [scale * jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]
    return type(shapes)(*drawn)


def draw_state(cell, H, batch, key, dtype=WIDEST):
    """A state N(0, 1)."""
    shapes = shapes_of(cell, 1, H)[1]
    keys = jax.random.split(key, len(shapes))
    drawn = [jax.random.normal(k, (*batch, *s), dtype) for k, s in zip(keys, shapes, strict=True)]
    return type(shapes)(*drawn)
