"""The suite of checks that `verify` runs on one cell."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from chex import PRNGKey
from jax import Array

from jaxrnn import _checks
from jaxrnn.cells.contract import Cell
from jaxrnn.numerics.tangents import left_out
from jaxrnn.running.run import precise
from jaxrnn.verification import derivatives, gates
from jaxrnn.verification.cases import Case, Template, draw_case, template
from jaxrnn.verification.judgement import DrawnCases, block_names, judge, leaf_names
from jaxrnn.verification.pair import Pair, total
from jaxrnn.verification.reference import ReferenceMethod, complex_step, differences, is_analytic
from jaxrnn.verification.report import Check, Report, Worst

__all__ = ["SCALES", "SHAPES", "assert_cell", "redraw", "verify"]

SHAPES = ((1, 1), (3, 2), (2, 5))  # (D, H): the smallest, H < D, H > D
SCALES = (1e-6, 0.1, 1.0, 10.0, 100.0)  # tiny, nearly linear, usual, mostly and wholly saturated


def verify(
    cell: Cell,
    *,
    shapes: Sequence[tuple[int, int]] | None = None,
    scales: Sequence[float] = SCALES,
    cases: int = 32,
    seed: int = 0,
    example: tuple[Any, Any, Any] | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Report:
    """Check every derivative that a cell offers, on random cases, in float64 and float32.

        state, input and param Jacobians    against numbers, jacfwd, jacrev
        gate derivatives ∂φ                 against numbers, one gate at a time
        tangent  J δs₋ + ∂s/∂θ δθ + ∂s/∂x δx    against numbers
        adjoint identity ⟨ū, Jv⟩ = ⟨Jᵀū, v⟩     against `jax.vjp` of the step
        float32 state Jacobian              against float64 numbers at the same point
        float32 gate derivatives            the same, each entry relative to itself

    "Numbers" are complex steps, or extrapolated differences where the step is not analytic. Neither
    uses a differentiation rule. For a cell from `from_step` without a `jacobian` of yours, this
    checks the step's own rules (a `custom_jvp`, a `custom_vjp`, a `stop_gradient`).

    Args:
      cell: One of this library's, or yours: `from_step(step, init=..., init_state=...)` is enough.
      shapes: (input_size, hidden_size) pairs, by default (1, 1), (3, 2) and (2, 5), with P hidden
        units more where the output is projected to P entries.
      scales: Standard deviations of the params.
      cases: How many cases are drawn for each shape and scale.
      seed: The seed of the random cases. The report names the key of each worst case.
      example: (params, state, x) of one example, whose shapes are used instead of `shapes`. For
        cells without `init`, such as a framework's.
      progress: Wraps the shapes, such as `tqdm.tqdm`.

    Returns:
      A `Report` with `report.passed` and `report.located`; it prints as a table.

    Raises:
      TypeError: If `cell` is no cell, its state or input has a leaf without tangents, such as a
        key, an argument is of the wrong kind, or a derivative does not have the tree of its
        reference.
      ValueError: If there is no shape or no scale, a number is out of range, `example` does not fit
        the cell, the cell has no `init` or `init_state` and no `example` is given, or a derivative
        does not have the shape of its reference.

    Cost:
      Seconds for each shape, nearly all of it compilation.

    Accuracy:
      Against complex steps |error| ≤ 2e-14·(1 + max|J|). Beyond scale 1 the size max|J| is
      increased by the largest weight and by what one rounding of the point does to J. Against
      differences |error| ≤ 1e-9 of the same, plus tenfold the error that they admit. Against
      autodiff ‖error‖_F ≤ 1e-13·‖J‖_F over all cases up to scale 10. float32 Jacobians are judged
      as against complex steps, with 64 eps. float32 gates are allowed 64 eps of the entry itself
      and of what one rounding of the point does to it, down to entries of 2e-16, where float64
      numbers of a step end. A Jacobian in float32 from `from_step(jacobian=...)` is judged as a
      whole, so entries that are small beside its largest may be lost in it. Cases in which the step
      overflows are not judged, nor entries whose reference is not finite; if that is half of them,
      the check fails.

    Source:
      Squire & Trapp, SIAM Review 40, 1998, for complex steps.

    >>> import jaxrnn
    >>> jaxrnn.verify(jaxrnn.rnn(), shapes=((2, 3),), cases=8).located
    ''
    """
    _checks.check_cell(cell)
    _checks.check_integer("cases", cases, least=1)
    _checks.check_integer("seed", seed, least=0)
    _checks.check_callable("progress", progress, "iterable -> iterable")
    _check_scales(scales)
    # A NaN is a finding for the report, not an error to be raised. The default matmul of an
    # accelerator, TF32 or bfloat16, is too coarse for a reference.
    with jax.enable_x64(True), jax.debug_nans(False), precise():
        templates = _templates(cell, shapes, example)
        key = jax.random.key(seed)
        spread = jnp.repeat(jnp.asarray(scales, jnp.float64), cases)
        # Asked at every shape, since a step may look analytic at some alone: a variance over one
        # unit is always 0.
        analytic = all(_is_analytic(cell, shape, spread.shape[0], key) for shape in templates)
        method = complex_step if analytic else differences
        found = []
        for index, shape in enumerate(progress(templates)):
            keys = jax.random.split(jax.random.fold_in(key, index), spread.shape[0])
            found.extend(_checked(cell, method, shape, spread, keys))
    return Report(_worst_of_each(found), cell.name, len(templates) * spread.shape[0])


def assert_cell(cell: Cell, **options: Any) -> None:
    """A test of one line: it fails with the printed report unless every check of `verify` passes.

    Args:
      cell: As in `verify`.
      options: The other arguments of `verify`, by name.

    Returns:
      None.

    Raises:
      AssertionError: If a check does not pass; the message is the report.
      TypeError: As `verify`.
      ValueError: As `verify`.

    Cost:
      That of `verify`.

    >>> import jaxrnn
    >>> jaxrnn.verification.assert_cell(jaxrnn.rnn(), shapes=((2, 3),), cases=8)
    """
    report = verify(cell, **options)
    if not report.passed:
        raise AssertionError(f"{cell.name}: {report.located or 'a check'} is wrong\n{report}")


def redraw(cell: Cell, worst: Worst) -> Case:
    """The case behind a check's worst error, in float64: params, state, x and tangents.

        params ~ N(0, scale²)    state, x ~ N(0, min(scale, 1)²)    tangents, cotangent ~ N(0, 1)

    For a report made from `shapes`. A report made from `example` has other shapes: its cases cannot
    be drawn again, and are refused where the cell has no `init`.

    Use the case inside `with jax.enable_x64(True):`.

    Args:
      cell: The cell of the report.
      worst: The Worst of one of its checks.

    Returns:
      A Case(params, state, x, dparams, dstate, dx, cotangent) of one example.

    Raises:
      TypeError: If `cell` is no cell, or `worst` no Worst.
      ValueError: If the cell has no `init`.

    Cost:
      One draw of as many numbers.

    >>> import jaxrnn
    >>> cell = jaxrnn.rnn()
    >>> report = jaxrnn.verify(cell, shapes=((2, 3),), cases=8)
    >>> jaxrnn.verification.redraw(cell, report.checks[0].worst).x.shape
    (2,)
    """
    _checks.check_cell(cell)
    _checks.check_instance("worst", worst, Worst, "the Worst of a Check")
    # As `verify` drew it: without 64-bit mode the same key gives other numbers.
    with jax.enable_x64(True):
        shape = template(cell, worst.input_size, worst.hidden_size)
        key = jax.random.wrap_key_data(jnp.asarray(worst.key, jnp.uint32))
        return draw_case(shape, jnp.asarray(worst.scale, jnp.float64), key, jnp.float64)


def _templates(
    cell: Cell, shapes: Sequence[tuple[int, int]] | None, example: Any
) -> list[Template]:
    if getattr(cell, "input_axes", None) is not None:
        raise TypeError(
            f"cell: expected a cell that reads a vector of real floats, got {cell.name} with "
            "input_axes; verify draws vectors. Verify the step with its input put together of one: "
            "from_step(lambda params, state, x: step(params, state, made_of(x)))"
        )
    if example is not None:
        return [_example_template(cell, example)]
    if shapes is None:
        more = cell.traits.output_size or 0  # H is above P
        shapes = tuple((D, H + more) for D, H in SHAPES)
    pairs = "expected a sequence of pairs (input_size, hidden_size)"
    if not isinstance(shapes, Sequence):
        raise TypeError(f"shapes: {pairs}, got {shapes!r}")
    if not shapes:
        raise ValueError(f"shapes: {pairs}, got none")
    for pair in shapes:
        if not isinstance(pair, Sequence):
            raise TypeError(f"shapes: {pairs}, got {pair!r}")
        if len(pair) != 2:
            raise ValueError(f"shapes: {pairs}, got {pair!r}")
        for size in pair:
            _checks.check_integer("shapes", size, least=1)
    return [_floats(cell, template(cell, D, H)) for D, H in shapes]


def _floats(cell: Cell, shape: Template) -> Template:
    """The template, if every leaf is of real floats."""
    out = left_out({"state": shape.state, "x": shape.x})
    if out:
        raise TypeError(
            f"cell: expected a state and an input of real floats, got {cell.name} with {out[0]}, "
            "which has no tangent; verify the step with that leaf as a constant: "
            "from_step(lambda params, state, x: step(params, state._replace(key=key), x))"
        )
    return shape


def _example_template(cell: Cell, example: Any) -> Template:
    triple = "expected (params, state, x) of one example"
    if not isinstance(example, tuple | list):
        raise TypeError(f"example: {triple}, got {_checks.describe(example)}")
    if len(example) != 3:
        raise ValueError(f"example: {triple}, got {len(example)} entries")
    # Shapes alone are taken from the example: the values are drawn, in float64.
    shape = Template(*jax.tree.map(_float64_struct, tuple(example)))
    cell.check_params(shape.params)
    cell.check_input(shape.params, shape.x)
    cell.check_state(shape.params, shape.state, shape.x)
    return shape


def _float64_struct(leaf: Any) -> jax.ShapeDtypeStruct:
    _checks.check_array("example", leaf)
    return jax.ShapeDtypeStruct(leaf.shape, jnp.float64)


def _check_scales(scales: Any) -> None:
    if not isinstance(scales, Sequence):
        raise TypeError(f"scales: expected a sequence of numbers, got {scales!r}")
    if not scales:
        raise ValueError("scales: expected at least one number, got none")
    for scale in scales:
        _checks.check_real("scales", scale, least=0.0)


def _is_analytic(cell: Cell, shape: Template, count: int, key: PRNGKey) -> bool:
    """Whether complex steps may be the reference at this shape."""
    some = _drawn(shape, jnp.ones(count), jax.random.split(key, count))
    return is_analytic(derivatives.at_point(cell), some.point, some.direction)


def _checked(
    cell: Cell, method: ReferenceMethod, shape: Template, scales: Array, keys: Array
) -> Iterator[Check]:
    pairs, finite = _pairs(cell, method, shape, scales, keys)
    drawn = DrawnCases(
        input_size=shape.x.shape[-1],
        hidden_size=jax.tree.leaves(shape.state)[0].shape[-1],
        scales=np.asarray(scales),
        keys=np.asarray(jax.random.key_data(keys)),
        finite=np.asarray(finite),
    )
    names = {
        "state Jacobian": block_names(shape.state, shape.state, "₋"),
        "input Jacobian": block_names(shape.state, {"x": shape.x}),
        "param Jacobian": block_names(shape.state, shape.params),
        "gate derivative": gates.names(cell, shape.state),
        "float32 gate": gates.names(cell, shape.state),
        "tangent": [f"δ{name}" for name in leaf_names(shape.state, "s")],
        "adjoint identity": ["⟨ū, Jv⟩"],
        "float32 Jacobian": block_names(shape.state, shape.state, "₋"),
    }
    for family, by_reference in pairs.items():
        for reference, pair in by_reference.items():
            yield from judge(family, reference, names[family], pair, drawn)
    # Cases that overflow are not judged. Where most do, nothing was verified, and this check fails.
    share = float(1 - drawn.finite.mean())
    yield Check(share, 0.5, "overflow", "step", "share of cases", None)


def _pairs(
    cell: Cell, method: ReferenceMethod, shape: Template, scales: Array, keys: Array
) -> tuple[dict[str, dict[str, Pair]], Array]:
    # The draw is a program of its own: XLA takes four times as long to compile both as one.
    cases = _drawn(shape, scales, keys)

    def one(scale: Array, case: Case) -> tuple[dict[str, dict[str, Pair]], Array]:
        after = cell.step(*case.point)
        found = derivatives.families(cell, method, case, scale)
        return found, jnp.isfinite(total(after))

    return jax.jit(jax.vmap(one))(scales, cases)


def _drawn(shape: Template, scales: Array, keys: Array) -> Case:
    return jax.jit(jax.vmap(lambda s, k: draw_case(shape, s, k, jnp.float64)))(scales, keys)


def _worst_of_each(checks: Iterable[Check]) -> tuple[Check, ...]:
    """Of each block at all shapes the check with the largest error; NaN counts as largest."""
    worst: dict[tuple[str, str, str], Check] = {}
    for check in checks:
        block = (check.family, check.where, check.reference)
        # `not <=` rather than `>`: a comparison with NaN is False.
        if block not in worst or not check.error <= worst[block].error:
            worst[block] = check
    return tuple(worst.values())
