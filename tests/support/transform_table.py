"""Which function goes through which transformation of JAX.

    python -m tests.support.transform_table

Each cell of the table either runs and agrees with truth, or is in `REFUSED`. Truth is the call by
itself in float64, and central differences of it. What is allowed to be off follows from the eps of
the dtype and from what a rounding of the case does to the same cell in float64.
"""

import functools
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.support.transforms import DERIVATIVES, ROWS, TRANSFORMS, B, point, program

OVER_DEVICES = ("shard_map", "shard_map, own params", "explicit mesh")
OFFSETS, STENCIL = np.array([-2, -1, 1, 2]), np.array([1, -8, 8, -1]) / 12  # right to step⁴
DIFFERENCE_STEP = 2.0**-13  # of first differences
LONG_DIFFERENCE_STEP = 2.0**-9  # of differences of differences
DIFFERENCES, NOISE = 1e-7, 1e-9  # what these may be off, of the largest entry and of 1
TIMES_ALLOWED = 8  # times that

REVERSE = (ValueError, "Reverse-mode differentiation does not work for lax.while_loop")
TWICE = (NotImplementedError, "Derivatives of non-symmetric eigenvectors")
SPLIT = (NotImplementedError, "contribution_norms: expected all examples on one device")
NO_QR = (NotImplementedError, "xs: expected an array that no explicit mesh splits")
REFUSED = {
    "truncation.gradient": dict.fromkeys(("vjp", "jacrev", "checkpoint", "hvp"), REVERSE),
    "certificates.of_weights": {"hvp": TWICE},
    "certificates.certify": {"hvp": TWICE},
    "bptt.contribution_norms": dict.fromkeys(("shard_map", "explicit mesh"), SPLIT),
    "lyapunov.exponents": {"explicit mesh": NO_QR},
    "regularizers.flossing": {"explicit mesh": NO_QR},
}


# --- truth --------------------------------------------------------------------------


def stack(*trees):
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *trees)


def differences(row, at, moved, step):
    """Central differences by every number of a case, where it is moved to: leaves `(n, …)`."""
    flat, back = ravel_pytree(moved)
    n, offsets = flat.size, step * OFFSETS
    points = (np.asarray(flat) + offsets[:, None, None] * np.eye(n)).reshape(-1, n)
    values = mapped(row, back)(points, at)
    return jax.tree.map(
        lambda v: np.tensordot(STENCIL / step, np.asarray(v).reshape(4, n, *v.shape[1:]), 1), values
    )


@functools.cache
def mapped(row, back):
    """(points, where what is held is held) ↦ values."""
    f = lambda at: row.call if row.held is None else row.held(*at)  # noqa: E731
    return jax.jit(lambda points, at: jax.vmap(lambda v: f(at)(*back(v)))(points))


def weighed(J, weights):
    """Three gradients, `(n, 3)`."""
    product = lambda j, w: j.reshape(len(j), -1) @ np.asarray(w).reshape(3, -1).T  # noqa: E731
    return sum(jax.tree.leaves(jax.tree.map(product, J, weights)))


@functools.cache
def truth(row, eps=0.0):
    """In float64: what a call gives, and its derivatives by central differences.

    With eps, where every number of the case is rounded up or down once.
    """
    at, rng = point(row, "float64"), np.random.default_rng(1)
    nudge = lambda leaf: leaf * (1 + eps * rng.choice([-1, 1], leaf.shape))  # noqa: E731
    at = at._replace(case=jax.tree.map(nudge, at.case), other=jax.tree.map(nudge, at.other))
    value, back = row.call(*at.case), ravel_pytree(at.case)[1]
    J = differences(row, at.case, at.case, DIFFERENCE_STEP)
    toward = np.asarray(ravel_pytree(at.toward)[0])
    gradients = [back(jnp.asarray(column)) for column in weighed(J, at.weights).T]
    return {
        "value": value,
        "both": stack(value, row.call(*at.other)),
        "along": jax.tree.map(lambda j: np.tensordot(toward, j, 1), J),
        "pulled": gradients[0],
        "rows": stack(*gradients),
        "curved": functools.partial(curved, row, at),
    }


def curved(row, at):
    """Central differences of the gradient, which is itself held against truth."""
    step = DIFFERENCE_STEP if row.held is None else LONG_DIFFERENCE_STEP

    def gradient(case):
        if row.held is None:
            return ravel_pytree(program(row, "vjp")(at._replace(case=case))["pulled"])[0]
        return weighed(differences(row, at.case, case, DIFFERENCE_STEP), at.weights)[:, 0]

    ends = [jax.tree.map(lambda c, d, by=step * o: c + by * d, at.case, at.toward) for o in OFFSETS]
    found = np.tensordot(STENCIL / step, np.stack([gradient(end) for end in ends]), 1)
    return ravel_pytree(at.case)[1](jnp.asarray(found))


@functools.cache
def told(row, kind, eps=0.0):
    """One of the truths; `curved` takes a program more and is formed when asked for."""
    found = truth(row, eps)[kind]
    return found() if callable(found) else found


# --- a cell of the table ------------------------------------------------------------


def errors(row, dtype, transform):
    """Errors over what is allowed, for what a transformation gives; raises where it refuses."""
    eps = float(jnp.finfo(dtype).eps)
    got, found = program(row, transform)(point(row, dtype)), {}
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(got))
    for kind, tree in got.items():
        by_differences = kind not in ("value", "both")
        found[kind] = largest(row, tree, told(row, kind), told(row, kind, eps), eps, by_differences)
    if "value" in got:
        by_itself = eager(row, dtype)
        found["eager"] = largest(row, got["value"], by_itself, by_itself, eps)
    return found


@functools.cache
def eager(row, dtype):
    return row.call(*point(row, dtype).case)


def largest(row, got, want, moved, eps, by_differences=False):
    """The largest error of a leaf over what is allowed.

    That is eps of its largest entry, and what a rounding of the case does: `moved` is what is
    wanted of the rounded case. Differences have an error of their own.
    """

    def of_leaf(got, want, moved):
        assert got.shape == want.shape
        got, want, moved = (np.asarray(x, np.float64) for x in (got, want, moved))
        size, off = (np.abs(x).max(initial=0) for x in (want, got - want))
        allowed = eps * size + np.abs(moved - want).max(initial=0)
        if by_differences:
            allowed += DIFFERENCES * size + NOISE
        return off / (TIMES_ALLOWED * row.slack * allowed) if off else 0.0

    return max(jax.tree.leaves(jax.tree.map(of_leaf, got, want, moved)))


# --- over two devices ---------------------------------------------------------------


def part(case, specs, device):
    """What one of two devices has of a case."""

    def cut(spec):
        if "batch" not in spec:
            return lambda leaf: leaf
        size, axis = B // 2, spec.index("batch")
        return lambda leaf: jax.lax.slice_in_dim(
            leaf, device * size, (device + 1) * size, axis=axis
        )

    return tuple(jax.tree.map(cut(spec), leaf) for spec, leaf in zip(specs, case, strict=True))


def in_shard_map(row, case, own=False):
    """(what each device gives, what its part of the batch gives by itself).

    What is summed over the batch is summed over both devices, unless the params are a device's own.
    """
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))

    def each(*case):
        if own:
            case = tuple(leaf if any(spec) else jax.tree.map(vary, leaf)
                         for leaf, spec in zip(case, row.specs, strict=True))  # fmt: skip
        return jax.tree.map(lambda y: y[None], row.call(*case))

    run = jax.shard_map(each, mesh=mesh, in_specs=row.specs, out_specs=P("batch"))
    parts = [case] * 2 if row.summed and not own else [part(case, row.specs, d) for d in range(2)]
    return jax.jit(run)(*case), stack(*[row.call(*part) for part in parts])


def vary(leaf):
    return jax.lax.pcast(leaf, "batch", to="varying")


def on_explicit_mesh(row, case):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        placed = tuple(jax.device_put(leaf, NamedSharding(mesh, spec))
                       for spec, leaf in zip(row.specs, case, strict=True))  # fmt: skip
        return jax.jit(row.call)(*placed), row.call(*case)


def over_devices(names, dtype):
    """Errors in eps of each cell of `OVER_DEVICES`, or the error that it raises."""
    assert jax.device_count() == 2
    found = {}
    runs = (in_shard_map, functools.partial(in_shard_map, own=True), on_explicit_mesh)
    for transform, run in zip(OVER_DEVICES, runs, strict=True):
        for name in names:
            try:
                got, want = run(ROWS[name], point(ROWS[name], dtype).case)
            except Exception as raised:
                found[f"{transform} {name}"] = f"{type(raised).__name__}: {raised}"
                continue
            eps = float(jnp.finfo(dtype).eps)
            found[f"{transform} {name}"] = largest(ROWS[name], got, want, want, eps)
    return found


# --- the table ----------------------------------------------------------------------


def table():
    """Markdown: functions × transformations, a tick or the number of the error."""
    names = (*TRANSFORMS, *DERIVATIVES, *OVER_DEVICES)
    words, lines = [], ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in sorted(ROWS):
        cells = []
        for name in names:
            error = REFUSED.get(row, {}).get(name)
            if error and error not in words:
                words.append(error)
            cells.append(f"[{words.index(error) + 1}]" if error else "✓")
        lines.append(f"| `{row}` | " + " | ".join(cells) + " |")
    notes = [f"{i}. `{kind.__name__}`: {text} …" for i, (kind, text) in enumerate(words, 1)]
    return "\n".join([*lines, "", *notes])


PLACE = re.compile(r"(<!-- transforms -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page):
    """The page of the docs with the table in its place."""
    return PLACE.sub(lambda found: f"{found[1]}{table()}\n{found[2]}", page)


if __name__ == "__main__":
    from tests import conftest  # noqa: F401  the settings of the tests

    jax.config.update("jax_disable_most_optimizations", True)
    if sys.argv[1:2] == ["devices"]:
        print(json.dumps(over_devices(sys.argv[3:], sys.argv[2])))
    else:
        print(table())
