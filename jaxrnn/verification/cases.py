"""Random cases for a verification: params, state and input of one step."""

import math
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from chex import ArrayTree, PRNGKey
from jax import Array

from jaxrnn.cells.contract import Cell, Params, State

__all__ = ["Case", "Template", "draw_case", "template"]


class Template(NamedTuple):
    """Shapes of one example's params, state and input."""

    params: Params
    state: State
    x: Any


class Case(NamedTuple):
    """One point at which a step is linearised, with a tangent and a cotangent."""

    params: Params
    state: State
    x: Array
    dparams: Params
    dstate: State
    dx: Array
    cotangent: State  # of the next state

    @property
    def point(self) -> tuple[Any, Any, Array]:
        """Where the step is linearised: (params, state, x)."""
        return self.params, self.state, self.x

    @property
    def direction(self) -> tuple[Any, Any, Array]:
        """The tangent: (δparams, δstate, δx)."""
        return self.dparams, self.dstate, self.dx


def template(cell: Cell, input_size: int, hidden_size: int) -> Template:
    """The shapes that `cell.init` and `cell.init_state` give; nothing is computed."""
    # Only the shapes matter: `draw_case` gives its own dtype to every leaf.
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), input_size, hidden_size))
    state = jax.eval_shape(cell.init_state, params)
    return Template(params, state, jax.ShapeDtypeStruct((input_size,), jnp.float64))


def draw_case(shapes: Template, scale: Array, key: PRNGKey, dtype: Any) -> Case:
    """A case: params N(0, scale²); state and input N(0, min(scale, 1)²); tangents N(0, 1).

    Scale 1e-6 makes everything tiny, 0.1 nearly linear, 10 mostly and 100 wholly saturated.
    """
    like = Case(*shapes, *shapes, shapes.state)  # (point, direction, cotangent)
    leaves, structure = jax.tree.flatten(like)
    sizes = [math.prod(leaf.shape) for leaf in leaves]
    # One draw for all leaves: each call of the generator is slow to compile.
    flat = jnp.split(jax.random.normal(key, (sum(sizes),), dtype), list(accumulate(sizes))[:-1])
    drawn = [part.reshape(leaf.shape) for part, leaf in zip(flat, leaves, strict=True)]
    case = jax.tree.unflatten(structure, drawn)

    def times(factor: Array, tree: Any) -> ArrayTree:
        return jax.tree.map(lambda leaf: factor * leaf, tree)

    mild = jnp.minimum(scale, 1.0)
    return case._replace(
        params=times(scale, case.params), state=times(mild, case.state), x=times(mild, case.x)
    )
