"""Stacks of one-step Jacobians along a trajectory.

`J.h.c[i, ..., j, k]` is ∂states.h[i][j]/∂states.c[i-1][k] in every function of this module.
The tree is that of `jax.jacfwd(cell.step, argnums=1)`, each leaf `(T, *batch, H, H)`. Entry 0 is
the derivative with respect to `state0`. The Jacobian of a held step is the identity; that of a step
after a reset is 0.

`closed_form` writes the blocks down. `forward_mode` and `reverse_mode` let JAX differentiate the
step. These two are references: they give the same result at a higher cost.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from chex import ArrayTree
from jax import Array

from jaxrnn.cells.contract import Cell, Jacobian, Params, State, over_leading_axes
from jaxrnn.numerics.tangents import moving, whole
from jaxrnn.numerics.time_axis import previous, select
from jaxrnn.numerics.zeros import zeros_of
from jaxrnn.running.run import Run, analysis, first_state
from jaxrnn.running.steps import Steps, identity_like, linearised, trajectory

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


@analysis
def closed_form(run: Run) -> Jacobian:
    """∂sᵢ/∂sᵢ₋₁ for every step, in closed form.

        RNN   ∂h/∂h₋ = diag(a'(z)) W_hh
        LSTM  ∂c/∂c₋ = diag(f), ∂c/∂h₋, ∂h/∂c₋, ∂h/∂h₋: see `jaxrnn.cells.lstm`
        GRU   ∂h/∂h₋ = diag(z) + Σ_g diag(∂h/∂a_g) W_hh[g]
        held by `lengths`: the identity; started afresh by `resets`: 0

    Args:
      run: A `jaxrnn.Run`.

    Returns:
      The tree of `jax.jacfwd(cell.step, argnums=1)`, leaves `(T, *batch, H, H)`. `J.h.c[i]` is
      ∂states.h[i]/∂states.c[i-1]; entry 0 is taken with respect to `state0`.

    Raises:
      TypeError: If `run` is not a `jaxrnn.Run`; else as in `jaxrnn.unroll`.
      ValueError: As in `jaxrnn.unroll`.

    Cost:
      One `unroll`, one recurrent matmul, then O(T·B·G·H²), about one write of the result. A cell
      from `from_step` needs a tangent step for each entry of the state, or uses your `jacobian`.

    Source:
      docs/derivations/rnn.md, docs/derivations/lstm.md, docs/derivations/gru.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> J = jaxrnn.jacobians.closed_form(run)
    >>> J.h.c.shape
    (7, 2, 5, 5)
    """
    return of_steps(state_closed_form, run, trajectory(run))


@analysis
def forward_mode(run: Run) -> Jacobian:
    """`closed_form`'s result by `jax.jacfwd` of the step, mapped over steps and batch.

        Jᵢ[:, k] = ∂step(θ, sᵢ₋₁, xᵢ) eₖ        a column a tangent

    Args:
      run: A `jaxrnn.Run`.

    Returns:
      As in `closed_form`.

    Raises:
      TypeError: As in `closed_form`.
      ValueError: As in `closed_form`.

    Cost:
      One `unroll`, then O(T·B·G·H³): H tangent steps for each leaf of the state.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.rnn()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 3)))
    >>> jaxrnn.jacobians.forward_mode(run).h.h.shape
    (7, 5, 5)
    """
    return of_steps(_state_forward_mode, run, trajectory(run))


@analysis
def reverse_mode(run: Run) -> Jacobian:
    """`closed_form`'s result by `jax.jacrev` of the step, mapped over steps and batch.

        Jᵢ[j, :] = eⱼᵀ ∂step(θ, sᵢ₋₁, xᵢ)        a row an adjoint

    Args:
      run: A `jaxrnn.Run`.

    Returns:
      As in `closed_form`.

    Raises:
      TypeError: As in `closed_form`.
      ValueError: As in `closed_form`.

    Cost:
      One `unroll`, then O(T·B·G·H³): H adjoint steps for each leaf of the state.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.gru()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 3)))
    >>> jaxrnn.jacobians.reverse_mode(run).h.h.shape
    (7, 5, 5)
    """
    return of_steps(_state_reverse_mode, run, trajectory(run))


@analysis
def wrt_inputs(run: Run) -> Jacobian:
    """∂sᵢ/∂xᵢ for every step, in closed form; 0 where held.

        ∂s/∂x = Σ_g diag(∂s/∂u_g) W_ih[g]

    Args:
      run: A `jaxrnn.Run`.

    Returns:
      The tree of `jax.jacfwd(cell.step, argnums=2)`: a state with leaves `(T, *batch, H, D)`.
      Entry i is ∂states[i]/∂xs[i].

    Raises:
      TypeError: As in `closed_form`.
      ValueError: As in `closed_form`.

    Cost:
      One `unroll`, one recurrent matmul, then O(T·B·G·H·D).

    Source:
      docs/design.md, docs/derivations/rnn.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> jaxrnn.jacobians.wrt_inputs(run).c.shape
    (7, 2, 5, 3)
    """
    return _zeroed_stack(_input_closed_form, run)


@analysis
def wrt_params(run: Run) -> Jacobian:
    """∂sᵢ/∂θ for every step with sᵢ₋₁ held constant, in closed form; 0 where held.

        ∂s[j]/∂W_ih[g·H + j, d] = ∂s/∂u_g[j] x[d]        ∂s[j]/∂W_hh[g·H + j, k] = ∂s/∂a_g[j] h₋[k]

    Args:
      run: A `jaxrnn.Run`.

    Returns:
      The tree of `jax.jacfwd(cell.step, argnums=0)`: a state of params, such as `J.h.w_hh`
      `(T, *batch, H, G·H, H)`. Entry i belongs to states[i].

    Raises:
      TypeError: As in `closed_form`.
      ValueError: As in `closed_form`.

    Cost:
      One `unroll`, then O(T·B·H·P) time and memory for P parameters. Meant for small cells.

    Source:
      docs/derivations/bptt.md, docs/derivations/rnn.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> jaxrnn.jacobians.wrt_params(run).c.b.shape
    (7, 2, 5, 20)
    """
    return _zeroed_stack(_param_closed_form, run)


@analysis
def c_partial(run: Run) -> Array:
    """The partial ∂cᵢ/∂cᵢ₋₁ with hᵢ₋₁ held constant: diag(fᵢ) in the LSTM.

        ∂cᵢ/∂cᵢ₋₁ | hᵢ₋₁ = diag(fᵢ)

    `c_path` is the derivative that lets hᵢ₋₁ vary with cᵢ₋₁.

    Args:
      run: A `jaxrnn.Run` of a cell whose state has a leaf c.

    Returns:
      `(T, *batch, H, H)`, equal to `closed_form(...).c.c`.

    Raises:
      TypeError: If the state has no c; else as in `closed_form`.
      ValueError: As in `closed_form`.

    Cost:
      That of `closed_form`, of which it is one block.

    Source:
      docs/derivations/lstm.md, docs/lstm.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> jaxrnn.jacobians.c_partial(run).shape
    (7, 2, 5, 5)
    """
    _check_has_c(run)
    return of_steps(state_closed_form, run, trajectory(run)).c.c


@analysis
def c_path(run: Run) -> Array:
    """The one-step derivative of cᵢ by cᵢ₋₁ through hᵢ₋₁ = oᵢ₋₁ ⊙ tanh(cᵢ₋₁).

        diag(fᵢ) + ∂cᵢ/∂hᵢ₋₁ · diag(oᵢ₋₁ (1 - tanh² cᵢ₋₁))

    It is exact for one step. Its product over several steps is not ∂cₜ/∂cₖ, because oᵢ₋₁ depends on
    hᵢ₋₂ as well: the state is (h, c), and only products of all four blocks are exact. The first
    entry equals that of `c_partial`: h₀ is given and not a function of c₀.

    Args:
      run: A `jaxrnn.Run` of a cell with a state (h, c) and a `Pointwise.readout`.

    Returns:
      `(T, *batch, H, H)`; the identity where held, 0 after a reset.

    Raises:
      TypeError: If the state has no c or the cell has no read-out; else as in `closed_form`.
      ValueError: As in `closed_form`.

    Cost:
      That of `closed_form`.

    Source:
      docs/derivations/lstm.md, docs/lstm.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> jaxrnn.jacobians.c_path(run).shape
    (7, 2, 5, 5)
    """
    check_readout(run)
    steps = trajectory(run)
    J = run.cell.state_jacobian(run.params, steps.before, steps.xs)
    traits: Any = run.cell.traits
    readout = traits.readout(linearised(run, steps).partials)
    # Shifted by one step: the factor is the read-out that made hᵢ₋₁ from cᵢ₋₁. None made h₀, which
    # is given, hence 0 in the first place.
    c0 = first_state(run).c
    readout = previous(jnp.zeros_like(c0), readout.astype(c0.dtype))
    path = J.c.c + J.c.h * jnp.broadcast_to(readout[..., None, :], J.c.h.shape)
    if steps.resets is not None:
        path = select(steps.resets, jnp.zeros_like(path), path)
    one = jnp.broadcast_to(jnp.eye(path.shape[-1], dtype=path.dtype), path.shape)
    return path if steps.held is None else select(steps.held, one, path)


def of_steps(method: Method, run: Run, steps: Steps) -> Jacobian:
    """∂sᵢ/∂sᵢ₋₁ of each step: the identity where held, 0 after a reset."""
    J = method(run.cell, run.params, steps.before, steps.xs)
    if steps.resets is not None:
        J = select(steps.resets, jax.tree.map(jnp.zeros_like, J), J)
    # Last, because a held step ignores its reset as well.
    if steps.held is None:
        return J
    lead = len(run.cell.leading_axes(steps.xs))
    return select(steps.held, identity_like(steps.before, J, lead), J)


def _zeroed_stack(method: Method, run: Run) -> Jacobian:
    steps = trajectory(run)
    J = method(run.cell, run.params, steps.before, steps.xs)
    # Resets are in `steps.before` already: they change where a step starts, not what it reads. A
    # held step reads neither input nor params.
    if steps.held is None:
        return J
    return select(steps.held, jax.tree.map(jnp.zeros_like, J), J)


def state_closed_form(cell: Cell, params: Params, state: State, x: Array) -> Jacobian:
    return cell.state_jacobian(params, state, x)


def _input_closed_form(cell: Cell, params: Params, state: State, x: Array) -> Jacobian:
    return cell.input_jacobian(params, state, x)


def _param_closed_form(cell: Cell, params: Params, state: State, x: Array) -> Jacobian:
    # Params that vary over the devices as x does. Under `shard_map` the pullback to params that are
    # the same on all devices would add up the examples of all devices.
    for leaf in jax.tree.leaves(moving(x))[:1]:
        zero = zeros_of(leaf)
        params = jax.tree.map(lambda p, zero=zero: p + zero.astype(p.dtype), params)
    return cell.param_jacobian(params, state, x)


def _state_forward_mode(cell: Cell, params: Params, state: State, x: Any) -> Jacobian:
    return _by_autodiff(jax.jacfwd, cell, params, state, x)


def _state_reverse_mode(cell: Cell, params: Params, state: State, x: Any) -> Jacobian:
    return _by_autodiff(jax.jacrev, cell, params, state, x)


def _by_autodiff(mode: Any, cell: Cell, params: Params, state: State, x: Any) -> Jacobian:
    def one(params: Params, state: State, x: Any) -> Jacobian:
        def step(own: State) -> State:
            return moving(cell.step(params, whole(own, state), x))

        return mode(step)(moving(state))

    return over_leading_axes(one, len(cell.leading_axes(x)), (None, 0, 0))(params, state, x)


def check_readout(run: Run) -> None:
    """Raise TypeError unless the state is (h, c) and the cell declares ∂h/∂c."""
    _check_has_c(run)
    if run.cell.traits.readout is None:
        raise TypeError(
            f"cell: expected a cell whose phi declares its read-out ∂h/∂c, such as "
            f"jaxrnn.lstm(), got {run.cell.name}; give Pointwise(..., readout=...)"
        )


def _check_has_c(run: Run) -> None:
    """Raise TypeError unless the state has a leaf c."""
    # The state of a cell from `from_step` may be any tree: only its shapes say whether it has an
    # array c, and they cost no computation.
    state = jax.eval_shape(first_state, run)
    if not isinstance(getattr(state, "c", None), jax.ShapeDtypeStruct):
        raise TypeError(
            f"cell: expected a cell with a state (h, c), such as jaxrnn.lstm(), got {run.cell.name}"
        )
