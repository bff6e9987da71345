"""The part of a diagnosis that needs whole Jacobians: along a few examples, over a window."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn.analysis import certificates, lyapunov, paths
from jaxrnn.numerics import factorizations, state_vectors
from jaxrnn.numerics.dtypes import accumulator
from jaxrnn.numerics.matrix_products import from_tree
from jaxrnn.numerics.tangents import moving
from jaxrnn.running.run import Run
from jaxrnn.running.steps import Steps, trajectory

__all__ = ["Sizes", "Watched", "watch", "watched_sizes"]

# Singular values of S·M matrices (n, n) cost a multiple of S·M·n³: time, or steps that are watched.
# 2026-11-30: 6.0 s of one core at n = 64, 1.7 s at 512; docs/decisions/diagnosis-window.md
WATCHED_WORK = 4e9
# Examples, and the steps that a window has before it takes a second one: their spread, or longer
# windows. Not measured; docs/decisions/diagnosis-window.md
EXAMPLES = 4
SHORT = 32
# Exponents: 8 of 128 take 3.5 ms where all take 298.6, benchmarks/results/lyapunov_cpu.json
LEADING = 8
# Steps whose whole spectrum is shown: as many as a picture keeps apart. Not measured.
SPECTRA = 12


class Sizes(NamedTuple):
    """How much is watched.

    Attributes:
      examples: M, how many examples.
      window: S, how many of their last steps have bounds and paths.
      spectra: K, how many steps of the first example have their whole spectrum shown.
    """

    examples: int
    window: int
    spectra: int


class Watched(NamedTuple):
    """The fields of `LayerFlow` that are watched along a few examples."""

    exponents: lyapunov.Exponents
    bounds: certificates.TrajectoryBounds
    weights: certificates.WeightBound | None
    spectrum: Array
    paths: paths.CellPaths | None


def watched_sizes(T: int, B: int, n: int) -> Sizes:
    """How much of a batch of B examples and T steps can be watched if the state has n entries."""
    # At least two steps, however large the state: the product of one step certifies nothing.
    steps = max(int(WATCHED_WORK / max(n, 1) ** 3), 2)
    examples = min(max(steps // min(SHORT, max(T, 1)), 1), EXAMPLES, B)
    window = min(max(steps // max(examples, 1), 2), T)
    return Sizes(examples, window, min(T, SPECTRA, max(steps // 4, 1)))


def watch(run: Run, plan: Sizes) -> Watched:
    """Exponents, certificates, spectra and paths of whole sequences, all of one length.

    The caller has checked the run, and its matmul precision holds here too.
    """
    T, steps = run.xs.shape[0], _steps(run)
    n = state_vectors.size(moving(steps.before))
    # Dense Jacobians cost O(n³) a step, which exponents do without: those take the whole run. The
    # window shares the states of that run, and begins at the one that enters its first step.
    late = jax.tree.map(lambda leaf: leaf[T - plan.window :], steps)
    entering = jax.tree.map(lambda leaf: leaf[0], late.before)
    window = Run(run.cell, run.params, late.xs, entering)
    at = jnp.linspace(0, T - 1, plan.spectra).astype(jnp.int32)
    # A bound from the weights alone needs a bound on the slope, which gated cells have none of.
    known = run.cell.traits.slope is not None
    return Watched(
        # Generic directions need steps until they are the leading ones: a tenth, not counted.
        lyapunov.of_steps(run, min(n, LEADING), T // 10, 1, steps),
        certificates.of_steps(window, late),
        certificates.of_weights(run.cell, run.params) if known else None,
        _spectrum(run, steps, at),
        None if run.cell.traits.readout is None else paths.of_steps(window, late),
    )


_steps = jax.jit(trajectory)


@jax.jit
def _spectrum(run: Run, steps: Steps, at: Array) -> Array:
    before, xs = jax.tree.map(lambda leaf: leaf[at, 0], (steps.before, steps.xs))
    J = from_tree(run.cell.state_jacobian(run.params, before, xs))
    # LAPACK has no 16-bit numbers.
    return factorizations.singular_values(J.astype(accumulator(J.dtype)))
