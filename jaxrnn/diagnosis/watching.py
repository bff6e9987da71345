"""The part of a diagnosis that needs whole Jacobians: along a few examples, over a window."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn.analysis import certificates, lyapunov, paths
from jaxrnn.numerics import factorizations, state_vectors
from jaxrnn.numerics.dtypes import accumulator
from jaxrnn.numerics.matrix_products import from_tree
from jaxrnn.running.run import Run
from jaxrnn.running.steps import Steps, trajectory

__all__ = ["Sizes", "Watched", "sizes", "watch"]

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
    """examples M, window S, spectra K."""

    examples: int
    window: int
    spectra: int


class Watched(NamedTuple):
    """See `LayerFlow`."""

    exponents: lyapunov.Exponents
    bounds: certificates.TrajectoryBounds
    weights: certificates.WeightBound | None
    spectrum: Array
    paths: paths.CellPaths | None


def sizes(T: int, B: int, n: int) -> Sizes:
    """How much of a batch can be watched where the state has n entries."""
    steps = max(int(WATCHED_WORK / max(n, 1) ** 3), 2)
    examples = min(max(steps // min(SHORT, max(T, 1)), 1), EXAMPLES, B)
    window = min(max(steps // max(examples, 1), 2), T)
    return Sizes(examples, window, min(T, SPECTRA, max(steps // 4, 1)))


def watch(run: Run, plan: Sizes) -> Watched:
    """Exponents, certificates, spectra and paths of whole sequences, all of one length.

    The run is checked, and the caller's precision holds.
    """
    T, steps = run.xs.shape[0], _steps(run)
    n = state_vectors.size(steps.before)
    late = jax.tree.map(lambda leaf: leaf[T - plan.window :], steps)
    entering = jax.tree.map(lambda leaf: leaf[0], late.before)
    window = Run(run.cell, run.params, late.xs, entering)
    at = jnp.linspace(0, T - 1, plan.spectra).astype(jnp.int32)
    known = run.cell.traits.slope is not None
    return Watched(
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
    return factorizations.singular_values(J.astype(accumulator(J.dtype)))
