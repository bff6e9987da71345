"""The derivatives of one step, each in the cell's own form and by the references.

The pairs of a family are named by their reference. All of it is written for one case, traced once
for each shape, and mapped over the cases. `judgement` judges the pairs.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from chex import ArrayTree
from jax import Array

from jaxrnn.cells.contract import Cell
from jaxrnn.verification import gates
from jaxrnn.verification.cases import Case
from jaxrnn.verification.pair import Pair, Pairs, largest, total
from jaxrnn.verification.reference import Reference, ReferenceMethod, jacobian

__all__ = ["at_point", "families"]

EPS32, EPS64 = 2.0**-23, 2.0**-52
# Up to this scale of the weights a case is judged by the size of its Jacobian alone; at 10 rounding
# exceeds that in one case of a thousand, a GRU's; docs/decisions/verification-tolerance.md
MILD = 1.0


def at_point(cell: Cell) -> Callable[[tuple[Any, Any, Array]], Any]:
    """The step at (params, state, x), without its checks, which refuse complex numbers."""

    def step(point: tuple[Any, Any, Array]) -> ArrayTree:
        params, state, x = point
        return cell.update(params, state, cell.project(params, x))

    return step


def families(cell: Cell, method: ReferenceMethod, case: Case, scale: Array) -> dict[str, Pairs]:
    """Every family of derivatives of `cell` at one case."""
    # float32 is judged at a point that float32 holds exactly, so that both see the same one.
    single = _cast(case.point, jnp.float32)
    rounded = _cast(single, jnp.float64)
    points = (
        case.point, _nudged(case, case.point, EPS64), rounded, _nudged(case, rounded, EPS32)
    )  # fmt: skip
    # One mapped call, so that the step is traced and compiled once for all four points.
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *points)
    numbers = jax.vmap(lambda point: _blocks(method, at_point(cell), point))(stacked)
    here, nudged, at_single, single_nudged = [
        jax.tree.map(lambda leaf, i=i: leaf[i], numbers) for i in range(len(points))
    ]
    # Up to MILD the size of J is enough. Beyond, the rounding of a large pre-activation alone may
    # move J by more than a tolerance relative to J allows.
    rough = [_rough_size(a, b, case, EPS64) for a, b in zip(here, nudged, strict=True)]
    sizes = [
        1 + jnp.where(scale <= MILD, largest(a.value), b) for a, b in zip(here, rough, strict=True)
    ]
    found = {
        "state Jacobian": _jacobian(cell, method, case, here, sizes, 1),
        "input Jacobian": _jacobian(cell, method, case, here, sizes, 2),
        "param Jacobian": _jacobian(cell, method, case, here, sizes, 0),
        "tangent": _tangent(cell, method, case),
        "adjoint identity": _adjoint_identity(cell, case),
        "float32 Jacobian": {
            "float64": Pair(
                cell.state_jacobian(*single),
                at_single[1].value,
                at_single[1].error,
                1 + _rough_size(at_single[1], single_nudged[1], case, EPS32),
            )
        },
    }
    if cell.gates:
        found |= gates.families(cell, method, case, single)
    return found


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def _nudged(case: Case, point: Any, eps: float) -> ArrayTree:
    """The point, every entry moved by one rounding with the sign of the case's tangent."""
    return jax.tree.map(lambda p, d: p * (1 + eps * jnp.sign(d)), point, case.direction)


def _blocks(method: ReferenceMethod, f: Any, point: tuple[Any, Any, Array]) -> list[Reference]:
    """∂s/∂θ, ∂s/∂s₋ and ∂s/∂x by the numerical method."""
    whole = jacobian(method, f, point)  # leaves of the next state hold a triple
    outs = jax.tree.structure(jax.eval_shape(f, point))

    def part(argnum: int) -> Reference:
        def pick(tree: Any) -> ArrayTree:
            return outs.unflatten([triple[argnum] for triple in outs.flatten_up_to(tree)])

        return Reference(pick(whole.value), pick(whole.error))

    return [part(argnum) for argnum in range(3)]


def _jacobian(
    cell: Cell,
    method: ReferenceMethod,
    case: Case,
    numbers: list[Reference],
    sizes: list[Array],
    argnum: int,
) -> Pairs:
    """One of the three Jacobians against the numerical reference and against autodiff."""
    own = (cell.param_jacobian, cell.state_jacobian, cell.input_jacobian)[argnum]
    closed = own(*case.point)
    value, error = numbers[argnum]
    pairs = {method.__name__: Pair(closed, value, error, sizes[argnum])}
    modes = {"jacfwd": jax.jacfwd, "jacrev": jax.jacrev}
    for name, mode in modes.items():
        # Not jacfwd of the params: it takes a pass for each parameter.
        if argnum != 0 or name == "jacrev":

            def step(*point: Any) -> ArrayTree:
                return at_point(cell)(point)

            by_autodiff = mode(step, argnums=argnum)(*case.point)
            pairs[name] = Pair(closed, by_autodiff, None, sizes[argnum])
    return pairs


def _rough_size(here: Reference, nudged: Reference, case: Case, eps: float) -> Array:
    """The size of a Jacobian, with the roundings that no program of this precision avoids.

    The pre-activation is a sum that is rounded at its largest term. Where weights are huge, that
    alone moves a derivative. Also, 1 - tanh² of a correct step is off by eps times a weight.
    """
    change = _change(here, nudged)
    return largest(here.value) + largest(change) / eps + largest(case.params)


def _change(here: Reference, nudged: Reference) -> ArrayTree:
    """How far two derivatives differ, less tenfold the error that the method admits."""

    def leaf(a: Array, b: Array, ea: Array, eb: Array) -> Array:
        return jnp.maximum(jnp.abs(b - a) - 10 * (ea + eb), 0)

    return jax.tree.map(leaf, here.value, nudged.value, here.error, nudged.error)


def _tangent(cell: Cell, method: ReferenceMethod, case: Case) -> Pairs:
    """The whole linearised step, `partials`, `drive` and `push`, along (δθ, δs₋, δx)."""
    value, error = method(at_point(cell), case.point, case.direction)
    return {method.__name__: Pair(_linearised(cell, case), value, error, 1 + _terms(case))}


def _adjoint_identity(cell: Cell, case: Case) -> Pairs:
    """⟨ū, J v⟩ = ⟨Jᵀū, v⟩: the cell's own tangent against `jax.vjp` of the step."""
    pulled = jax.vjp(at_point(cell), case.point)[1](case.cotangent)[0]
    left = _inner(case.cotangent, _linearised(cell, case))
    right = _inner(pulled, case.direction)
    return {"jax.vjp": Pair(left, right, None, 1 + _terms(case) * (1 + total(case.cotangent)))}


def _linearised(cell: Cell, case: Case) -> ArrayTree:
    partials = cell.partials(case.params, case.state, cell.project(case.params, case.x))
    drive = cell.drive(case.params, partials, case.state, case.x, case.dparams, case.dx)
    return cell.push(case.params, partials, case.dstate, drive)


def _terms(case: Case) -> Array:
    """A bound on the terms that add up to a tangent, weights times tangents."""
    return (1 + largest(case.params)) * (1 + total(case.direction))


def _inner(a: Any, b: Any) -> Array:
    products = jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)
    return sum(jax.tree.leaves(products), start=jnp.zeros(()))
