"""∂φ, diagonal by diagonal: the derivatives of a pointwise map, each gate by itself.

φ acts on each unit alone, so one direction of ones gives a whole diagonal. In float64 a diagonal is
judged as a Jacobian is. In float32 each entry is judged relative to itself, so that a derivative
which rounds to 0 in saturation is seen: beside the largest entry of a Jacobian it would not be.
"""

from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
from chex import ArrayTree
from jax import Array

from jaxrnn.cells.contract import State
from jaxrnn.verification.cases import Case
from jaxrnn.verification.pair import Pair, Pairs, largest
from jaxrnn.verification.reference import Reference, ReferenceMethod, complex_step

__all__ = ["families", "names"]

EPS32 = 2.0**-23
# Of a float32 derivative relative to its own size: right forms fail, or wrong ones pass. Beside the
# largest entry of a Jacobian 1 - tanh² passed (dd86f5c); 64 was not measured.
ALLOWED_FLOAT32 = 64 * EPS32


def families(cell: Any, method: ReferenceMethod, case: Case, single: Any) -> dict[str, Pairs]:
    """The gate derivatives at a case, in float64, and in float32 at its rounded point."""
    exact, own = _at(cell, case.point)
    directions = _directions(exact, len(cell.gates))
    rounded, own_single = _at(cell, single)
    # The float32 projections themselves are the point in both precisions: φ alone is judged.
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), rounded)
    nudged = jax.tree.map(lambda p, d: p[None] * (1 + EPS32 * d), rounded, directions)
    points = jax.tree.map(_rows, exact, rounded, nudged)

    def diagonals(point: Any) -> Reference:
        return jax.vmap(lambda d: method(lambda p: cell.phi.update(*p), point, d))(directions)

    # One mapped call, so that φ is traced and compiled once for all points.
    value, error = (_named(cell, part) for part in jax.vmap(diagonals)(points))

    def pick(tree: Any, which: Any) -> ArrayTree:
        return {name: leaf[which] for name, leaf in tree.items()}

    reference_size = 1 + largest(pick(value, 0))
    # Below the error of the reference itself no entry can be judged. A step may form 1 - z, which
    # in float64 is 0 where z has rounded to 1. ALLOWED_FLOAT32 * slack is an eps of float64 times
    # the size, and about 1e-9 for differences.
    slack = 2.0**-52 / ALLOWED_FLOAT32 * reference_size if method is complex_step else 1e-4

    # No float32 program avoids the rounding of its point. Each entry of the point is rounded by
    # itself, so what every one does to a derivative is added up.
    def spread(v: Array, e: Array) -> Array:
        moved = jnp.maximum(jnp.abs(v[2:] - v[1:2]) - 10 * (e[2:] + e[1:2]), 0)
        return jnp.abs(v[1]) + jnp.sum(moved, 0) / EPS32 + slack

    float64 = Pair(_named(cell, own), pick(value, 0), pick(error, 0), reference_size)
    float32 = Pair(
        _named(cell, own_single),
        pick(value, 1),
        pick(error, 1),
        {name: spread(value[name], error[name]) for name in value},
    )
    return {
        "gate derivative": {method.__name__: float64},
        "float32 gate": {"float64": float32},
    }


def _at(cell: Any, point: Any) -> tuple[Any, Any]:
    """Where φ is evaluated, (s₋, u, a) and maybe w, and the cell's own diagonals there."""
    params, state, x = point
    u = cell.project(params, x)
    at = cell.point(params, state, u)
    own = cell.sensitivities(params, state, u)
    inner = at[0]  # without h, where φ does not see it
    rows = []
    for out in state._fields:
        by_state = [leaf for leaf, seen in zip(getattr(own.state, out), inner, strict=True)
                    if seen is not None]  # fmt: skip
        by_rest = [d for part in (own.u, own.a, own.w) for d in getattr(part, out)]
        rows.append(jnp.stack([*by_state, *by_rest]))
    return at, type(state)(*rows)


def _rows(first: Array, second: Array, rest: Array) -> Array:
    return jnp.concatenate([first[None], second[None], rest])


def _directions(point: Any, gates: int) -> ArrayTree:
    """For each diagonal a row: ones for one leaf of the state, one gate of u or a, or one unit."""
    leaves, structure = jax.tree.flatten(point)
    H = point[1].shape[-1] // gates  # of a state (h,) with an output projection φ sees no leaf
    ends = list(accumulate(leaf.shape[-1] for leaf in leaves))
    on = jnp.repeat(jnp.eye(ends[-1] // H), H, axis=1)
    return structure.unflatten(jnp.split(on, ends[:-1], axis=1))


def _named(cell: Any, state: State) -> dict[str, Array]:
    """A state whose leaves have rows of diagonals `(…, rows, H)`, as a dict by name."""
    labels = _labels(cell, state._fields)
    return {
        label: getattr(state, out)[..., k, :]
        for out in state._fields
        for k, label in enumerate(labels[out])
    }


def _labels(cell: Any, leaves: tuple[str, ...]) -> dict[str, list[str]]:
    # Of a cell with an output projection ∂h is that of what φ gives, before the projection.
    seen = [leaf for leaf in leaves if leaf != "h" or cell.output is None]
    return {
        out: [f"∂{out}/∂{leaf}₋ at fixed gates" for leaf in seen]
        + [f"gate {gate}: ∂{out}/∂{v}" for v in "ua" for gate in cell.gates]
        + [f"∂{out}/∂{unit}" for unit in cell.units]
        for out in leaves
    }


def names(cell: Any, state: State) -> list[str]:
    """The labels of the gate derivatives in tree order, which for a dict is alphabetical."""
    labels = _labels(cell, state._fields) if cell.gates else {}
    return sorted(label for row in labels.values() for label in row)
