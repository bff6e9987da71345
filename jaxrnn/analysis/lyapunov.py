"""Lyapunov exponents of a cell driven by its inputs: the rates at which tangents grow.

    Qᵢ Rᵢ = Jᵢ Qᵢ₋₁        λ_j = (1/T) Σᵢ log |Rᵢ[j, j]|        nats per step

They are those of the full state, (h, c) for the LSTM: exponents of ∂h/∂h alone belong to another
system. λ₁ > 0 means that nearby trajectories part and gradients explode; λ₁ < 0 means that both
differences and gradients fade like e^{λ₁ t}. The sum of all exponents is the mean log volume. The
exponents belong to the inputs that were given. Whether other inputs of the same kind have the same
ones is a property of the data; `error` says how far they may differ.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrnn import _checks
from jaxrnn.cells.contract import State
from jaxrnn.numerics import factorizations, state_vectors
from jaxrnn.numerics.dtypes import accumulator
from jaxrnn.numerics.scaled import Scaled, log_of, rescaled
from jaxrnn.numerics.tangents import moving
from jaxrnn.running.chunks import over_chunks
from jaxrnn.running.run import Run, check_vector_state, first_state, precise, step_count, takes_run
from jaxrnn.running.steps import Steps, chunk_of, linearised, push_through, trajectory

__all__ = ["Exponents", "exponents"]


class Exponents(NamedTuple):
    """The leading Lyapunov exponents and how well they are known.

    Attributes:
      value: `(*batch, count)`, nats per step, largest first. It is -inf for a direction that a
        counted step maps to exactly 0.
      error: `(*batch, count)`, the standard error over the run, from the means of about √N runs of
        consecutive windows. It is inf for fewer than 9 windows and where the value is not finite.
      windows: `(N, *batch, count)`, finite-time exponents of each window of `interval` steps; the
        last window may be shorter. They are in the order of the columns of Q, not sorted.
    """

    value: Array
    error: Array
    windows: Array

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))  # in a notebook, too

    def __str__(self) -> str:
        """The exponents of one trajectory, or their mean over the batch, with errors."""
        value, error = np.asarray(self.value), np.asarray(self.error)
        lead = tuple(range(value.ndim - 1))
        rows = zip(value.mean(lead), np.sqrt((error**2).mean(lead)), strict=True)
        return "\n".join(
            [
                "  j  nats per step",
                *[f"{j + 1:3d}  {v:+.5f} ± {e:.1g}" for j, (v, e) in enumerate(rows)],
            ]
        )


@takes_run
def exponents(
    run: Run, *, count: int | None = None, warmup: int = 0, interval: int = 1
) -> Exponents:
    """The `count` largest Lyapunov exponents along the given inputs.

        Qᵢ Rᵢ = Jᵢ Qᵢ₋₁        λⱼ = 1/(T-w) Σᵢ log |Rᵢ[j, j]|,  i = w+1 … T,  w = warmup

    With an interval, Jᵢ is the product of that many steps.

    Args:
      run: A `jaxrnn.Run` of at least one step, without lengths and resets. Each example is a
        trajectory of its own.
      count: How many exponents; by default n, the size of the state.
      warmup: Steps at the start that turn Q into place and are not counted; fewer than T.
      interval: Steps between two QR factorisations. A longer interval is faster, until the columns
        of Q become parallel within it.

    Returns:
      Exponents(value, error, windows). Differentiable where the exponents are distinct.

    Raises:
      TypeError: If `run` is not a `jaxrnn.Run`, or `count`, `warmup` or `interval` is not an
        integer; else as in `jaxrnn.unroll`.
      ValueError: If the run has lengths, resets or no step, a leaf of the state is not a vector, or
        `count`, `warmup` or `interval` is out of range; else as in `jaxrnn.unroll`.
      NotImplementedError: If an explicit mesh splits xs.

    Cost:
      One `unroll`, T tangent steps of `count` columns and T/interval QRs of `(n, count)`:
      O(T·B·count·(G·H² + n·count/interval)).

    Source:
      Benettin et al., Meccanica 15, 1980; for RNNs Engelken et al., 2023;
      docs/derivations/lyapunov.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.rnn(jaxrnn.activations.identity)
    >>> params = cell.init(jax.random.key(0), 1, 4)
    >>> twice = params._replace(w_hh=2 * params.w_hh)    # twice an orthogonal matrix
    >>> found = jaxrnn.lyapunov.exponents(jaxrnn.Run(cell, twice, jax.numpy.ones((50, 1))))
    >>> [f"{x:.4f}" for x in found.value]                # log 2
    ['0.6931', '0.6931', '0.6931', '0.6931']
    """
    state = check_vector_state(run)
    for name, mask in (("lengths", run.lengths), ("resets", run.resets)):
        if mask is not None:
            raise ValueError(
                f"{name}: expected none, since an exponent describes one whole trajectory, got "
                f"{_checks.describe(mask)}; make a jaxrnn.Run of each piece, cut to its length"
            )
    for leaf in jax.tree.leaves(run.xs):
        if any(jax.typeof(leaf).sharding.spec):
            raise NotImplementedError(
                f"xs: expected an array that no explicit mesh splits, got {jax.typeof(leaf)}, for "
                "which JAX has no QR; call it under jax.shard_map"
            )
    n = state_vectors.size(state)
    count = n if count is None else count
    _checks.check_integer("count", count, least=1)
    if count > n:
        raise ValueError(f"count: expected at most n = {n}, the size of the state, got {count}")
    _checks.check_integer("warmup", warmup, least=0)
    T = step_count(run)
    if not T:
        raise ValueError(
            f"xs: expected at least one step, got {jax.tree.map(_checks.describe, run.xs)}"
        )
    if warmup >= T:
        raise ValueError(f"warmup: expected fewer steps than T = {T}, got {warmup}")
    _checks.check_integer("interval", interval, least=1)
    with precise():
        return of_steps(run, count, warmup, interval)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def of_steps(
    run: Run, count: int, warmup: int, interval: int, steps: Steps | None = None
) -> Exponents:
    """`exponents` for a run that is checked and whose steps are known."""
    steps = trajectory(run) if steps is None else steps
    # Coefficients are formed for a chunk of steps at once. Whole windows must fit in, since a chunk
    # ends with a QR of what is left.
    chunk = max(chunk_of(run) // interval, 1) * interval
    generic = _generic_frame(moving(first_state(run)), count)
    windows_of = functools.partial(_windows, run, interval, generic)
    cut = lambda a, b: jax.tree.map(lambda leaf: leaf[a:b], steps)  # noqa: E731
    frame, _ = over_chunks(windows_of, generic, cut(None, warmup), chunk)
    _, logs = over_chunks(windows_of, frame, cut(warmup, None), chunk)

    # The last window may be shorter: it counts with its steps in `value`, and not at all in the
    # error, which is that of equal windows.
    counted = step_count(run) - warmup
    whole = counted // interval
    lengths = jnp.full(logs.shape[0], interval, logs.dtype)
    if counted % interval:
        lengths = lengths.at[-1].set(counted % interval)
    windows = logs / jnp.broadcast_to(lengths.reshape(-1, *[1] * (logs.ndim - 1)), logs.shape)
    value = logs.sum(0) / counted
    # Over a finite run the columns of Q need not come out in the order of their exponents.
    order = jnp.argsort(-value, axis=-1)
    sort = functools.partial(jnp.take_along_axis, indices=order, axis=-1)
    return Exponents(sort(value), sort(_standard_error(windows[:whole])), windows)


def _windows(
    run: Run, interval: int, generic: Array, frame: Array, steps: Steps
) -> tuple[Array, Array]:
    """Q after the steps, and log |diag R| of each window; a shorter rest is the last window."""
    steps = linearised(run, steps)
    size = run.cell.leading_axes(steps.xs)[0]
    whole = size // interval * interval

    def window(frame: Array, steps: Steps) -> tuple[Array, Array]:
        moved = _moved(run, frame, steps)
        # A column that is exactly 0 has died, as in a relu net at rest. QR would put a unit vector
        # in its place, which may be dead for good where the net lives on; a generic vector is not.
        dead = (moved.value == 0).all(-2, keepdims=True)
        frame, R = factorizations.qr(jnp.where(dead, generic, moved.value))
        # What died has grown by 0, not by what R says of the vector in its place.
        sizes = jnp.where(dead[..., 0, :], 0, jnp.abs(jnp.diagonal(R, axis1=-2, axis2=-1)))
        return frame, log_of(sizes, _each(moved, R))

    cut = jax.tree.map(
        lambda a: a[:whole].reshape(whole // interval, interval, *a.shape[1:]), steps
    )
    frame, logs = jax.lax.scan(window, frame, cut)
    if whole < size:
        frame, last = window(frame, jax.tree.map(lambda a: a[whole:], steps))
        logs = jnp.concatenate([logs, last[None]])
    return frame, logs


def _each(moved: Scaled, R: Array) -> Array:
    return jnp.broadcast_to(moved.exponent[..., None], R.shape[:-1])


def _moved(run: Run, frame: Array, steps: Steps) -> Scaled:
    """J ⋯ J Q over the steps of a window; powers of two keep a long one in the dtype's range."""
    lead = frame.ndim - 2  # the axis of columns, after the batch

    def step(frame: Scaled, step: Steps) -> tuple[Scaled, None]:
        like = moving(step.before)
        push = functools.partial(push_through, run, step)
        new = jax.vmap(push, lead, lead)(_as_states(frame.value, like))
        return rescaled(_as_frame(new), frame.exponent), None

    # Made of the frame: as a carry under `shard_map` the exponent must vary as the frame does.
    first = Scaled(frame, jnp.zeros_like(frame[..., 0, 0], jnp.int32))
    return jax.lax.scan(step, first, steps)[0]


def _as_states(frame: Array, like: Any) -> State:
    """`(*batch, n, count)` → a state with leaves `(*batch, count, H)`."""
    return state_vectors.split(jnp.swapaxes(frame, -1, -2), like)


def _as_frame(states: State) -> Array:
    return jnp.swapaxes(state_vectors.joined(states), -1, -2)


def _generic_frame(state0: State, count: int) -> Array:
    """Orthonormal columns, the same at each call, in no special position to any weights."""
    n = state_vectors.size(state0)
    columns = np.linalg.qr(np.random.default_rng(0).normal(size=(n, count)))[0]
    like = jax.tree.leaves(state0)[0]
    dtype = accumulator(like.dtype)
    zero = jnp.zeros_like(like[..., :1, None], dtype)  # made of the state, to have its sharding
    return zero + jnp.broadcast_to(jnp.asarray(columns, dtype), (*like.shape[:-1], n, count))


def _standard_error(windows: Array) -> Array:
    """Of the mean over windows that may be correlated, from the means of √N stretches of them."""
    # Windows that follow each other resemble each other, so that their own spread would make the
    # error too small. Means over long stretches are nearly independent.
    N = windows.shape[0]
    runs = math.isqrt(N)
    if runs < 3:
        return jnp.full(windows.shape[1:], jnp.inf, windows.dtype)
    each = windows[: N // runs * runs].reshape(runs, N // runs, *windows.shape[1:]).mean(1)
    # Without the zeros, -inf - (-inf) is NaN on the way to inf, which `jax_debug_nans` reports.
    known = jnp.isfinite(each).all(0)
    error = jnp.std(jnp.where(known, each, 0), axis=0, ddof=1) / math.sqrt(runs)
    return jnp.where(known, error, jnp.inf)
