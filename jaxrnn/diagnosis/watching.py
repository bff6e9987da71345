"""The part of a diagnosis that needs whole Jacobians: along a few examples, over a window."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn import certificates, factorizations, lyapunov, paths
from jaxrnn.certificates import Certificate
from jaxrnn.linearisation import trajectory
from jaxrnn.matrix_products import from_tree
from jaxrnn.projections import accumulator
from jaxrnn.run import Run

__all__ = ["Sizes", "Watched", "sizes", "watch"]

WORK = 4e9  # singular values of S·M matrices (n, n) cost a multiple of S·M·n³
EXAMPLES = 4
SHORT = 32  # steps that a window should have before it takes a second example
LEADING = 8  # exponents
SPECTRA = 12  # steps whose whole spectrum is shown


class Sizes(NamedTuple):
    """examples M, window S, spectra K."""

    examples: int
    window: int
    spectra: int


class Watched(NamedTuple):
    """See `LayerFlow`."""

    exponents: lyapunov.Exponents
    certificate: Certificate
    spectrum: Array
    paths: paths.CellPaths | None


def sizes(T: int, B: int, n: int) -> Sizes:
    """How much of a batch can be watched where the state has n entries."""
    steps = max(int(WORK / max(n, 1) ** 3), 2)
    examples = min(max(steps // min(SHORT, max(T, 1)), 1), EXAMPLES, B)
    window = min(max(steps // max(examples, 1), 2), T)
    return Sizes(examples, window, min(T, SPECTRA, max(steps // 4, 1)))


def watch(run: Run, plan: Sizes) -> Watched:
    """Exponents, certificates, spectra and paths of whole sequences, all of one length."""
    T = run.xs.shape[0]
    states = _states(run)
    n = sum(leaf.shape[-1] for leaf in jax.tree.leaves(states))
    end = T - plan.window
    entering = run.state0 if end == 0 else jax.tree.map(lambda leaf: leaf[end - 1], states)
    window = Run(run.cell, run.params, run.xs[end:], entering)
    at = jnp.linspace(0, T - 1, plan.spectra).astype(jnp.int32)
    return Watched(
        lyapunov.exponents(run, count=min(n, LEADING), warmup=T // 10),
        certificates.certify(window),
        _spectrum(run, states, at),
        None if run.cell.traits.readout is None else paths.decompose(window),
    )


@jax.jit
def _states(run: Run) -> Any:
    return run.states()


@jax.jit
def _spectrum(run: Run, states: Any, at: Array) -> Array:
    steps = trajectory(run, states)
    before, xs = jax.tree.map(lambda leaf: leaf[at, 0], (steps.before, steps.xs))
    J = from_tree(run.cell.state_jacobian(run.params, before, xs))
    return factorizations.singular_values(J.astype(accumulator(J.dtype)))
