"""The derivatives of one step, each in the cell's own form and by the references.

A `Pair` is what gets compared, a family's pairs are named by the reference. All of it
is for one case, traced once a shape and mapped over the cases; `judgement` judges.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn.cell import Cell
from jaxrnn.verification.cases import Case
from jaxrnn.verification.reference import Method, Reference, jacobian

__all__ = ["Pair", "at_point", "families", "gate_names", "largest", "total"]

MILD = 1.0  # up to this scale a case is judged by the size of its Jacobian alone


class Pair(NamedTuple):
    """A derivative in closed form and by a reference; like trees.

    `error` is what the reference admits of its own, None if nothing. `magnitude` is the
    size that rounding is judged against, one number a case.
    """

    closed: Any
    reference: Any
    error: Any
    magnitude: Array


Pairs = dict[str, Pair]


def at_point(cell: Cell) -> Callable[[tuple[Any, Any, Array]], Any]:
    """The step at (params, state, x), without its checks, which refuse complex numbers."""

    def step(point: tuple[Any, Any, Array]) -> Any:
        params, state, x = point
        return cell.update(params, state, cell.project(params, x))

    return step


def families(cell: Cell, method: Method, case: Case, scale: Array) -> dict[str, Pairs]:
    """Every family of derivatives of `cell` at one case."""
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), case.point)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), single)
    # One mapped call: the step is traced and compiled once for both points.
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), case.point, rounded)
    numbers = jax.vmap(lambda point: _blocks(method, at_point(cell), point))(both)
    exact, at_rounded = [jax.tree.map(lambda leaf, i=i: leaf[i], numbers) for i in (0, 1)]
    found = {
        "state Jacobian": _jacobian(cell, method, case, scale, exact, 1),
        "input Jacobian": _jacobian(cell, method, case, scale, exact, 2),
        "param Jacobian": _jacobian(cell, method, case, scale, exact, 0),
        "tangent": _tangent(cell, method, case),
        "adjoint identity": _adjoint_identity(cell, case),
        "float32 Jacobian": _float32(cell, case, single, rounded, at_rounded[1]),
    }
    if cell.gates:
        found["gate derivative"] = _gates(cell, method, case)
    return found


def _blocks(method: Method, f: Any, point: tuple[Any, Any, Array]) -> list[Reference]:
    """∂s/∂θ, ∂s/∂s₋ and ∂s/∂x by numbers."""
    whole = jacobian(method, f, point)  # leaves of the next state hold a triple
    outs = jax.tree.structure(jax.eval_shape(f, point))

    def part(argnum: int) -> Reference:
        def pick(tree: Any) -> Any:
            return outs.unflatten([triple[argnum] for triple in outs.flatten_up_to(tree)])

        return Reference(pick(whole.value), pick(whole.error))

    return [part(argnum) for argnum in range(3)]


def _jacobian(
    cell: Cell, method: Method, case: Case, scale: Array, numbers: list[Reference], argnum: int
) -> Pairs:
    """One of the three Jacobians against numbers and against autodiff."""
    own = (cell.param_jacobian, cell.state_jacobian, cell.input_jacobian)[argnum]
    closed = own(*case.point)
    value, error = numbers[argnum]
    size = jnp.where(scale <= MILD, largest(value), _rough_size(own, case, closed))
    pairs = {method.__name__: Pair(closed, value, error, size)}
    modes = {"jacfwd": jax.jacfwd, "jacrev": jax.jacrev}
    for name, mode in modes.items():
        if argnum != 0 or name == "jacrev":  # forward mode has one pass for each parameter

            def step(*point: Any) -> Any:
                return at_point(cell)(point)

            pairs[name] = Pair(closed, mode(step, argnums=argnum)(*case.point), None, size)
    return pairs


def _rough_size(own: Any, case: Case, closed: Any, eps: float = 2.0**-52) -> Array:
    """The size of a Jacobian in roundings that no program of this precision avoids.

    The pre-activation is a sum rounded at its largest term; where weights are huge, that
    alone moves a derivative, and 1 - tanh² of an honest step is off by eps times a weight.
    The perturbation's signs come from the case's tangents.
    """
    moved = jax.tree.map(lambda p, d: p * (1 + eps * jnp.sign(d)), case.point, case.direction)
    change = largest(jax.tree.map(jnp.subtract, own(*moved), closed))
    return largest(closed) + change / eps + largest(case.params)


def _float32(cell: Cell, case: Case, single: Any, rounded: Any, numbers: Reference) -> Pairs:
    """∂s/∂s₋ computed in float32, against float64 numbers at the same, rounded point."""
    eps = float(jnp.finfo(jnp.float32).eps)
    at_rounded = case._replace(params=rounded[0], state=rounded[1], x=rounded[2])
    exact = cell.state_jacobian(*rounded)
    size = _rough_size(cell.state_jacobian, at_rounded, exact, eps)
    closed = cell.state_jacobian(*single)
    return {"float64": Pair(closed, numbers.value, numbers.error, size)}


def _gates(cell: Any, method: Method, case: Case) -> Pairs:
    """∂φ, diagonal by diagonal: by the state at fixed u and a, by each gate of u and of a.

    φ acts on each unit alone, so one direction of ones gives a whole diagonal.
    """
    u = cell.project(case.params, case.x)
    a = cell.recur(case.params, case.state.h)
    S, G, H = type(case.state), len(cell.gates), case.state.h.shape[-1]
    L = len(S._fields)
    on = jnp.repeat(jnp.eye(L + 2 * G), H, axis=1).reshape(L + 2 * G, -1)  # one diagonal a row
    direction = (
        S(*[on[:, k * H : (k + 1) * H] for k in range(L)]),
        on[:, L * H : (L + G) * H],
        on[:, (L + G) * H :],
    )
    point = (case.state, u, a)
    numbers = jax.vmap(lambda d: method(lambda p: cell.phi.update(*p), point, d))(direction)
    own = cell.sensitivities(case.params, case.state, u)
    closed = {
        out: jnp.concatenate([jnp.stack(getattr(part, out)) for part in (own.state, own.u, own.a)])
        for out in S._fields
    }
    labels = _gate_labels(cell, S._fields)

    def named(tree: Any) -> dict[str, Array]:
        """A dict from one row of diagonals each."""
        return {labels[out][k]: tree[out][k] for out in S._fields for k in range(L + 2 * G)}

    value, error = named(numbers.value._asdict()), named(numbers.error._asdict())
    return {method.__name__: Pair(named(closed), value, error, largest(value))}


def _gate_labels(cell: Any, leaves: tuple[str, ...]) -> dict[str, list[str]]:
    return {
        out: [f"∂{out}/∂{leaf}₋ at fixed gates" for leaf in leaves]
        + [f"gate {gate}: ∂{out}/∂{v}" for v in "ua" for gate in cell.gates]
        for out in leaves
    }


def gate_names(cell: Any, state: Any) -> list[str]:
    """The labels of the gate derivatives in tree order; a dict's is alphabetical."""
    labels = _gate_labels(cell, state._fields) if cell.gates else {}
    return sorted(label for row in labels.values() for label in row)


def _tangent(cell: Cell, method: Method, case: Case) -> Pairs:
    """The whole linearised step, `partials`, `drive` and `push`, along (δθ, δs₋, δx)."""
    value, error = method(at_point(cell), case.point, case.direction)
    return {method.__name__: Pair(_linearised(cell, case), value, error, _terms(case))}


def _adjoint_identity(cell: Cell, case: Case) -> Pairs:
    """⟨ū, J v⟩ = ⟨Jᵀū, v⟩: the cell's own tangent against `jax.vjp` of the step."""
    pulled = jax.vjp(at_point(cell), case.point)[1](case.cotangent)[0]
    left = _inner(case.cotangent, _linearised(cell, case))
    right = _inner(pulled, case.direction)
    return {"jax.vjp": Pair(left, right, None, _terms(case) * (1 + total(case.cotangent)))}


def _linearised(cell: Cell, case: Case) -> Any:
    partials = cell.partials(case.params, case.state, cell.project(case.params, case.x))
    drive = cell.drive(case.params, case.state, case.x, case.dparams, case.dx)
    return cell.push(case.params, partials, case.dstate, drive)


def _terms(case: Case) -> Array:
    """A bound on the terms that a tangent adds up: weights times tangents."""
    return (1 + largest(case.params)) * (1 + total(case.direction))


def largest(tree: Any) -> Array:
    """The largest magnitude in a tree, 0 if it is empty."""
    leaves = [jnp.max(jnp.abs(leaf), initial=0.0) for leaf in jax.tree.leaves(tree)]
    return jnp.max(jnp.stack([jnp.zeros(()), *leaves]))


def total(tree: Any) -> Array:
    """The sum of all magnitudes in a tree."""
    return sum((jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)), start=jnp.zeros(()))


def _inner(a: Any, b: Any) -> Array:
    products = jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)
    return sum(jax.tree.leaves(products), start=jnp.zeros(()))
