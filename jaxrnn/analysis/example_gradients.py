"""The gradient of each example in a batch, taken apart step by step, at any size.

    ∂E/∂θ = Σ_b gᵇ        gᵇ = Σₖ ∂E/∂θ|ₖᵇ        ∂E/∂θ|ₖᵇ = (∂sₖᵇ/∂θ)ᵀ λₖᵇ

`jaxrnn.bptt` sums over the batch and calculates in the dtype of the states. Here every example is
measured by itself, and every adjoint is a value and a power of two. So a gradient that has grown
beyond 1e38, or faded below 1e-38, still has its logarithm.
"""

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn.cells.contract import State
from jaxrnn.numerics import norms
from jaxrnn.numerics.scaled import Scaled, log_of, rescaled, times_power
from jaxrnn.running.adjoint import (
    scaled_back,
    scaled_nothing,
    to_drive,
    to_inputs,
    to_params,
)
from jaxrnn.running.run import Run
from jaxrnn.running.steps import Steps

__all__ = [
    "ExampleGradients",
    "Swept",
    "contributions",
    "example_gradients",
    "log_size",
    "swept",
    "to_each_input",
    "totals",
    "windows",
]


class ExampleGradients(NamedTuple):
    """Sizes for every example. Logs are natural, and -inf for 0.

    Attributes:
      adjoint: log ‖λₖᵇ‖ of the whole state, `(T, B)`.
      contribution: log ‖∂E/∂θ|ₖᵇ‖ over all leaves of θ, `(T, B)`.
      gradient: log ‖gᵇ‖, `(B,)`.
      bias: ‖gᵇ - g_Kᵇ‖ / ‖gᵇ‖, `(J, B)`, for each window K of `windows(T)`. g_K is the sum of the
        contributions of the last K steps. The bias is 0 where gᵇ is 0.
    """

    adjoint: Array
    contribution: Array
    gradient: Array
    bias: Array


def windows(T: int) -> tuple[int, ...]:
    """The powers of two below T: 1, 2, 4, …"""
    return tuple(2**j for j in range(max(T - 1, 0).bit_length()))


class Swept(NamedTuple):
    """An adjoint taken back through all steps of a run; every number times 2^exponent.

    Attributes:
      adjoint: log ‖λₖᵇ‖, `(T, B)`.
      drives: The adjoints of the drives, leaves `(T, B, ·)`.
      exponents: Their powers of two, int32 `(T, B)`.
    """

    adjoint: Array
    drives: Any
    exponents: Array


def example_gradients(run: Run, steps: Steps, direct: State) -> ExampleGradients:
    """Sizes of every example's gradient.

    Args:
      run: A checked run with one batch axis.
      steps: The steps of that run, linearised, leaves `(T, B, ·)`.
      direct: ∂E/∂sₖ with all other states fixed, leaves `(T, B, ·)`, or a `Scaled` of them.

    Returns:
      ExampleGradients(adjoint, contribution, gradient, bias).

    Cost:
      An adjoint, and a matmul of a gradient's size for each example by itself. Beside the
      arguments O(P) memory, and the adjoints of the drive of all steps.
    """
    found = swept(run, steps, direct)
    return ExampleGradients(
        found.adjoint, contributions(run, steps, found), *totals(run, steps, found)
    )


def swept(run: Run, steps: Steps, direct: State) -> Swept:
    """λₖ = ḡₖ + Jₖ₊₁ᵀ λₖ₊₁ of every step and example; the arguments of `example_gradients`."""

    def back(later: Scaled, step: tuple[Any, Steps]) -> tuple[Scaled, Any]:
        before, adjoint, value = scaled_back(run, later, step)
        # Linear in the adjoint, so the adjoint of the drive has the same power of two.
        drive = to_drive(run, step[1], value)
        return before, (drive, adjoint.exponent, log_size(adjoint))

    first = direct.value if isinstance(direct, Scaled) else direct
    first = scaled_nothing(first, run.cell.leading_axes(steps.xs)[1:])
    _, (drives, exponents, adjoint) = jax.lax.scan(back, first, (direct, steps), reverse=True)
    return Swept(adjoint, drives, exponents)


def contributions(run: Run, steps: Steps, found: Swept) -> Array:
    """The logs of ‖∂E/∂θ|ₖᵇ‖, `(T, B)`."""
    return _contributions(run, steps, found.drives, found.exponents)


def to_each_input(run: Run, steps: Steps, found: Swept) -> Scaled:
    """∂E/∂xₖᵇ, `(T, B, D)`; 0 in the padding."""
    return rescaled(to_inputs(run, steps, found.drives), found.exponents)


def totals(run: Run, steps: Steps, found: Swept) -> tuple[Array, Array]:
    """(log ‖gᵇ‖, bias) of every example; see `ExampleGradients`."""
    ends = run.cell.leading_axes(steps.xs)[0] if run.lengths is None else run.lengths
    ends = jnp.broadcast_to(jnp.asarray(ends, jnp.int32), found.exponents.shape[1:])

    def total(example: Any) -> tuple[Array, Array]:
        return _total(run, *example)

    # One example after the other: all of them at once would take a gradient, O(P) memory, for each.
    whole = steps, found.drives, found.exponents
    moved = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), whole)
    gradient, bias = jax.lax.map(total, (*moved, ends))
    return gradient, bias.T


def log_size(x: Scaled) -> Array:
    """Log of the norm over all leaves, `(*lead,)`."""
    lead = x.exponent.ndim
    sizes = [norms.norm(leaf, tuple(range(lead, leaf.ndim))) for leaf in jax.tree.leaves(x.value)]
    return log_of(norms.norm(jnp.stack(sizes), (0,)), x.exponent)


def _contributions(run: Run, steps: Steps, drives: Any, exponents: Array) -> Array:
    """Log of each contribution's norm: every step of every example is a step without a batch."""
    flat = jax.tree.map(
        lambda leaf: leaf.reshape(math.prod(leaf.shape[:2]), *leaf.shape[2:]), (steps, drives)
    )
    steps, drives = flat
    parts = run.cell.drive_parts(steps.partials, drives)
    at = run.params, parts, steps.before, steps.xs
    # The inner products are not used, so any direction with the tree of the params will do.
    sizes, _ = run.cell.contribution_sizes(*at, run.params)
    size = norms.norm(jnp.stack(jax.tree.leaves(sizes)), (0,))
    return log_of(size.reshape(exponents.shape), exponents)


def _total(
    run: Run, steps: Steps, drives: Any, exponents: Array, end: Array
) -> tuple[Array, Array]:
    """Log of the norm of one example's gradient, and what each window leaves out."""
    T = exponents.shape[0]
    # In units of the largest power of two: what underflows then is too small to count in the sum.
    top = jnp.max(exponents)
    index = end - 1 - jnp.arange(T, dtype=end.dtype)  # by lag
    # A negative index would count from the end; the entries of index 0 in its place become 0 below.
    steps, drives, exponents = jax.tree.map(
        lambda leaf: leaf[jnp.maximum(index, 0)], (steps, drives, exponents)
    )

    def scaled(leaf: Array) -> Array:
        moved = times_power(leaf, exponents - top)
        live = (index >= 0).reshape(T, *[1] * (leaf.ndim - 1))
        return jnp.where(live, moved, jnp.zeros_like(moved))

    drives = jax.tree.map(scaled, drives)
    # From the far end to the near one: what lies beyond a window is a running sum, so that each
    # step is used once, and no difference of two gradients cancels.
    edges = (0, *windows(T), T)
    beyond, left_out = None, []
    for first, last in reversed(list(itertools.pairwise(edges))):
        here = jax.tree.map(lambda leaf, a=first, b=last: leaf[a:b], (steps, drives))
        more = to_params(run, *here)
        beyond = more if beyond is None else jax.tree.map(jnp.add, beyond, more)
        left_out.append(norms.tree_norm(beyond))
    size, *bias = left_out[::-1]
    by = jnp.where(size > 0, size, jnp.ones_like(size))
    return log_of(size, top), jnp.stack([b / by for b in bias]) if bias else jnp.zeros(0, by.dtype)
