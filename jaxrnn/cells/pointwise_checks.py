"""Checks of a `PointwiseCell`: its fields, and the params, inputs and states that it is given."""

from typing import Any

import jax

from jaxrnn import _checks
from jaxrnn.cells.affine import Affine
from jaxrnn.cells.contract import Params, State
from jaxrnn.cells.pointwise_map import check_pointwise, check_results

__all__ = ["check_fields", "check_input", "check_params", "check_state"]

REQUIRED = ("w_ih", "w_hh", "b")


def check_fields(cell: Any) -> None:
    """Refuse a cell whose fields are not of their kind, or do not fit each other."""
    _checks.check_names("gates", cell.gates)
    _checks.check_record_type("state_type", cell.state_type, ("h",))
    check_pointwise(cell.phi, cell.gates)
    _checks.check_callable("shapes", cell.shapes, "(D, H) -> params of shapes")
    _checks.check_callable("init", cell.init, "(key, input_size, hidden_size) -> params")
    if cell.projections is not None:
        _checks.check_callable("projections", cell.projections, "or None")
    if cell.units != ():
        _checks.check_names("units", cell.units)
    shapes = cell.shapes(1, 1)
    _checks.check_record_type("shapes' result", type(shapes), REQUIRED)
    for field in cell.units:
        _check_leaf("units", field, shapes, "(H,)", 1)
    if (cell.phi.enter is None) != (cell.units == ()):
        raise ValueError(
            "phi.enter: expected (p, dw) -> ds for a cell with units, and None for one without, "
            f"got {_checks.describe(cell.phi.enter)} with units {cell.units}"
        )
    if cell.output is not None:
        _check_leaf("output", cell.output, shapes, "(P, H)", 2)


def _check_leaf(name: str, field: Any, shapes: Any, symbols: str, axes: int) -> None:
    """Refuse what names no leaf of the params with this many axes."""
    words = f"{name}: expected the name of a leaf {symbols} of the params"
    if not isinstance(field, str) or field not in shapes._fields or field in REQUIRED:
        raise ValueError(f"{words}, got {field!r} of {', '.join(shapes._fields)}")
    if len(getattr(shapes, field)) != axes:
        raise ValueError(f"{words}, got {field} of shape {getattr(shapes, field)} for D = H = 1")


def check_params(cell: Any, params: Params) -> None:
    """Raise TypeError or ValueError unless every leaf has its shape and one dtype."""
    given = cell.phi, len(cell.gates), len(cell.units), cell.state_type, cell.output is not None
    check_results(*given)
    _checks.check_record("params", params, type(cell.shapes(1, 1)))
    for field, leaf in params._asdict().items():
        _checks.check_array(f"params.{field}", leaf)
    for field, leaf in params._asdict().items():
        _checks.check_dtype(f"params.{field}", leaf, params.w_hh.dtype, "params.w_hh")
    columns = "H" if cell.output is None else "P"
    symbols = {"w_ih": "(G·H, D)", "w_hh": f"(G·H, {columns})", "b": "(G·H,)"}
    if cell.output is not None:
        symbols[cell.output] = "(P, H)"
    _checks.check_shape("params.w_hh", params.w_hh, (None, None), symbols["w_hh"])
    _checks.check_shape("params.w_ih", params.w_ih, (None, None), symbols["w_ih"])
    expected = _expected_shapes(cell, params)
    # w_hh first: the shapes expected of the others follow from its H.
    for field in ("w_hh", *params._fields):
        shape = getattr(expected, field)
        words = symbols.get(field, "(H,)" if len(shape) == 1 else "of `shapes`")
        _checks.check_shape(f"params.{field}", getattr(params, field), shape, words)
    if cell.projections is not None:
        _check_projections(cell, params)


def _expected_shapes(cell: Any, params: Params) -> Params:
    """The shapes that params of this kind would have."""
    # A weight of the transposed shape is recognised, so that the error can say so rather than name
    # sizes that nobody meant.
    G = len(cell.gates)
    rows, columns = params.w_hh.shape
    H = columns if cell.output is None else rows // G
    if cell.output is None and G * rows == columns:
        H = rows
    elif cell.output is not None and cell.shapes(1, columns // G).w_hh == (columns, rows):
        H = columns // G
    rows, D = params.w_ih.shape
    if D == G * H != rows:
        D = rows
    return cell.shapes(D, H)


def _check_projections(cell: Any, params: Params) -> None:
    """Refuse projections whose weights or biases have other shapes than the leaves they are for."""
    made = jax.eval_shape(cell.projections, params)
    is_pair = isinstance(made, tuple) and len(made) == 2
    if not is_pair or not all(isinstance(affine, Affine) for affine in made):
        raise TypeError(
            "projections' result: expected two of jaxrnn.Affine, (input, recurrent), got "
            f"{_checks.describe(made)}"
        )
    for name, affine, weight in zip(
        ("input", "recurrent"), made, (params.w_ih, params.w_hh), strict=True
    ):
        words = f"projections' {name}"
        _checks.check_array(f"{words} weight", affine.weight)
        _checks.check_shape(f"{words} weight", affine.weight, weight.shape, "of the params' leaf")
        if affine.bias is not None:
            _checks.check_array(f"{words} bias", affine.bias)
            _checks.check_shape(f"{words} bias", affine.bias, weight.shape[:1], "(G·H,)")


def check_input(params: Params, x: Any, name: str) -> None:
    """Raise unless x is `(*lead, D)` in the dtype of the params."""
    _checks.check_array(name, x)
    D = params.w_ih.shape[1]
    if x.ndim == 0 or x.shape[-1] != D:
        raise ValueError(
            f"{name}: expected last axis D = {D}, the columns of params.w_ih "
            f"{tuple(params.w_ih.shape)}, got shape {tuple(x.shape)}"
        )
    _checks.check_dtype(name, x, params.w_hh.dtype, "params")


def check_state(cell: Any, params: Params, state: State, x: Any, name: str) -> None:
    """Raise unless every leaf has its size, and the leading axes of `x`."""
    _checks.check_record(name, state, cell.state_type)
    sizes = cell.sizes(params)
    for field, leaf in zip(state._fields, state, strict=True):
        _checks.check_array(f"{name}.{field}", leaf)
        size = sizes[field]
        if leaf.ndim == 0 or leaf.shape[-1] != size:
            if cell.output is None:
                words = f"H = {size}, the columns of params.w_hh"
            elif field == "h":
                words = f"P = {size}, the columns of params.w_hh"
            else:
                words = f"H = {size}, the rows of a gate in params.w_hh"
            raise ValueError(
                f"{name}.{field}: expected last axis {words}, got shape {tuple(leaf.shape)}"
            )
        _checks.check_lead(f"{name}.{field}", leaf.shape[:-1], x.shape[:-1], x)
        _checks.check_dtype(f"{name}.{field}", leaf, params.w_hh.dtype, "params")
