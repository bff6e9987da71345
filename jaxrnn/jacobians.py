"""Stacks of one-step Jacobians along a trajectory.

`J.h.c[i, ..., j, k]` is ∂hᵢ[j]/∂cᵢ₋₁[k] in every function of this module: the tree is
that of `jax.jacfwd(cell.step, argnums=1)`, each leaf `(T, *batch, H, H)`; its entry 0 is
taken against `state0`. All steps count: neither lengths nor resets are considered here.

`closed_form` writes the blocks down; `forward_mode` and `reverse_mode` differentiate
the step. The latter two are references: they agree, and cost more.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from chex import ArrayTree
from jax import Array

from jaxrnn import arguments
from jaxrnn.cell import Cell, over_leading_axes
from jaxrnn.unrolling import initial_state, previous_states, unroll

__all__ = [
    "c_partial",
    "c_path",
    "closed_form",
    "forward_mode",
    "reverse_mode",
    "wrt_inputs",
    "wrt_params",
]

Method = Callable[[Cell, ArrayTree, Any, Array], Any]


def closed_form(cell: Cell, params: ArrayTree, xs: Array, state0: Any = None) -> Any:
    """∂sᵢ/∂sᵢ₋₁ for every step, in closed form.

        RNN   ∂h/∂h₋ = diag(a'(z)) W_hh
        LSTM  ∂c/∂c₋ = diag(f), ∂c/∂h₋, ∂h/∂c₋, ∂h/∂h₋: see `jaxrnn.cells.lstm`
        GRU   ∂h/∂h₋ = diag(z) + Σ_g diag(k_g) W_hh[g]

    Args:    params; xs `(T, *batch, D)`; state0 leaves `(*batch, H)` or None.
    Returns: the tree of `jax.jacfwd(cell.step, argnums=1)`, leaves `(T, *batch, H, H)`;
             `J.h.c[i]` is ∂states.h[i]/∂states.c[i-1], entry 0 against `state0`.
    Raises:  TypeError or ValueError as `jaxrnn.unroll`.
    Cost:    one `unroll`, one recurrent matmul, then O(T·B·G·H²): about one write of the result.
    Source:  docs/design.md; checked against complex steps in tests/test_jacobians.py.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> params = cell.init(jax.random.key(0), 3, 5)
    >>> J = jaxrnn.jacobians.closed_form(cell, params, jax.numpy.ones((7, 2, 3)))
    >>> J.h.c.shape
    (7, 2, 5, 5)
    """
    return _along(_state_closed_form, cell, params, xs, state0)


def forward_mode(cell: Cell, params: ArrayTree, xs: Array, state0: Any = None) -> Any:
    """`closed_form`'s result by `jax.jacfwd` of the step, mapped over steps and batch.

    Cost: O(T·B·G·H³): H tangent steps for each state leaf.
    """
    return _along(_state_forward_mode, cell, params, xs, state0)


def reverse_mode(cell: Cell, params: ArrayTree, xs: Array, state0: Any = None) -> Any:
    """`closed_form`'s result by `jax.jacrev` of the step, mapped over steps and batch.

    Cost: O(T·B·G·H³): H adjoint steps for each state leaf.
    """
    return _along(_state_reverse_mode, cell, params, xs, state0)


def wrt_inputs(cell: Cell, params: ArrayTree, xs: Array, state0: Any = None) -> Any:
    """∂sᵢ/∂xᵢ for every step, in closed form.

    Returns: a state whose leaves are `(T, *batch, H, D)`, the tree of
             `jax.jacfwd(cell.step, argnums=2)`.
    Cost:    O(T·B·G·H·D).
    """
    return _along(_input_closed_form, cell, params, xs, state0)


def wrt_params(cell: Cell, params: ArrayTree, xs: Array, state0: Any = None) -> Any:
    """∂sᵢ/∂θ for every step with sᵢ₋₁ held constant, in closed form.

    Returns: a state of params, `J.h.w_hh (T, *batch, H, G·H, H)`: the tree of
             `jax.jacfwd(cell.step, argnums=0)`.
    Cost:    O(T·B·H·P) memory for P parameters; meant for small cells.
    """
    return _along(_param_closed_form, cell, params, xs, state0)


def c_partial(cell: Cell, params: ArrayTree, xs: Array, state0: Any = None) -> Array:
    """The LSTM's partial ∂cᵢ/∂cᵢ₋₁ with hᵢ₋₁ held constant: diag(fᵢ).

    Returns: `(T, *batch, H, H)`; equal to `closed_form(...).c.c`.
    Raises:  TypeError for a cell whose state has no c.
    See:     `c_path` for the derivative that lets hᵢ₋₁ vary with cᵢ₋₁.
    """
    _check_cell_state(cell, params)
    return _along(_c_partial, cell, params, xs, state0)


def c_path(cell: Cell, params: ArrayTree, xs: Array, state0: Any = None) -> Array:
    """The LSTM's one-step derivative of cᵢ by cᵢ₋₁ through hᵢ₋₁ = oᵢ₋₁ ⊙ tanh(cᵢ₋₁).

        diag(fᵢ) + ∂cᵢ/∂hᵢ₋₁ · diag(oᵢ₋₁ (1 - tanh² cᵢ₋₁))

    Right for one step. Its product over steps is not ∂cₜ/∂cₖ, because oᵢ₋₁ depends
    on hᵢ₋₂ as well: the state is (h, c), and only products of all four blocks are exact.
    The first entry equals `c_partial`'s: h₀ is given, not a function of c₀.

    Returns: `(T, *batch, H, H)`.
    Raises:  TypeError for a cell whose state has no c, or whose partials have no read-out r.
    """
    _check_cell_state(cell, params)
    return _c_path(cell, params, xs, initial_state(cell, params, xs, state0))


def _along(method: Method, cell: Cell, params: ArrayTree, xs: Array, state0: Any) -> Any:
    return _stack(method, cell, params, xs, initial_state(cell, params, xs, state0))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _stack(method: Method, cell: Cell, params: ArrayTree, xs: Array, state0: Any) -> Any:
    before = previous_states(state0, unroll(cell, params, xs, state0))
    return method(cell, params, before, xs)


def _state_closed_form(cell: Cell, params: ArrayTree, state: Any, x: Array) -> Any:
    return cell.state_jacobian(params, state, x)


def _input_closed_form(cell: Cell, params: ArrayTree, state: Any, x: Array) -> Any:
    return cell.input_jacobian(params, state, x)


def _param_closed_form(cell: Cell, params: ArrayTree, state: Any, x: Array) -> Any:
    return cell.param_jacobian(params, state, x)


def _c_partial(cell: Cell, params: ArrayTree, state: Any, x: Array) -> Array:
    return cell.state_jacobian(params, state, x).c.c


def _state_forward_mode(cell: Cell, params: ArrayTree, state: Any, x: Array) -> Any:
    f = jax.jacfwd(cell.step, argnums=1)
    return over_leading_axes(f, x.ndim - 1, (None, 0, 0))(params, state, x)


def _state_reverse_mode(cell: Cell, params: ArrayTree, state: Any, x: Array) -> Any:
    f = jax.jacrev(cell.step, argnums=1)
    return over_leading_axes(f, x.ndim - 1, (None, 0, 0))(params, state, x)


@functools.partial(jax.jit, static_argnums=0)
def _c_path(cell: Cell, params: ArrayTree, xs: Array, state0: Any) -> Array:
    before = previous_states(state0, unroll(cell, params, xs, state0))
    J = cell.state_jacobian(params, before, xs)
    readout = cell.partials(params, before, cell.project(params, xs)).r  # ∂hᵢ/∂cᵢ
    # Shifted by one step: the read-out that made hᵢ₋₁ out of cᵢ₋₁; none made h₀.
    readout = previous_states(jnp.zeros_like(state0.c), readout.astype(state0.c.dtype))
    return J.c.c + J.c.h * jnp.broadcast_to(readout[..., None, :], J.c.h.shape)


def _check_cell_state(cell: Cell, params: ArrayTree) -> None:
    """Raise TypeError unless the cell has a cell state c and a read-out r."""
    arguments.check_cell(cell)
    cell.check_params(params)
    state = jax.eval_shape(lambda: cell.init_state(params))
    fields = getattr(getattr(cell, "phi", None), "partials", None)
    if not hasattr(state, "c") or fields is None:
        raise TypeError(
            f"cell: expected a cell with a state (h, c) and a closed form, such as "
            f"jaxrnn.lstm(), got {cell.name}"
        )
