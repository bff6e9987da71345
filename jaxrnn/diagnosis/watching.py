"""The part of a diagnosis that needs whole Jacobians: along a few examples, over a window."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn import certificates, factorizations, lyapunov, paths
from jaxrnn.cell import Cell
from jaxrnn.certificates import Certificate
from jaxrnn.layers import Reading
from jaxrnn.linearisation import trajectory
from jaxrnn.matrix_products import from_tree
from jaxrnn.projections import accumulator
from jaxrnn.unrolling import unroll

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


def watch(cell: Cell, reading: Reading, plan: Sizes) -> Watched:
    """Exponents, certificates, spectra and paths of whole sequences, all of one length."""
    params, xs, state0 = reading
    T = xs.shape[0]
    states = _states(cell, params, xs, state0)
    n = sum(leaf.shape[-1] for leaf in jax.tree.leaves(states))
    end = T - plan.window
    entering = state0 if end == 0 else jax.tree.map(lambda leaf: leaf[end - 1], states)
    window = params, xs[end:], entering
    at = jnp.linspace(0, T - 1, plan.spectra).astype(jnp.int32)
    has_paths = getattr(getattr(cell, "phi", None), "readout", None) is not None
    return Watched(
        lyapunov.exponents(cell, *reading, count=min(n, LEADING), warmup=T // 10),
        certificates.certify(cell, *window),
        _spectrum(cell, params, xs[:, 0], jax.tree.map(lambda s: s[:, 0], states), at),
        paths.decompose(cell, *window) if has_paths else None,
    )


@functools.partial(jax.jit, static_argnums=0)
def _states(cell: Cell, params: Any, xs: Array, state0: Any) -> Any:
    return unroll(cell, params, xs, state0)


@functools.partial(jax.jit, static_argnums=0)
def _spectrum(cell: Cell, params: Any, xs: Array, states: Any, at: Array) -> Array:
    steps = trajectory(cell, params, xs, None, states, None, None)
    before, xs = jax.tree.map(lambda leaf: leaf[at], (steps.before, steps.xs))
    J = from_tree(cell.state_jacobian(params, before, xs))
    return factorizations.singular_values(J.astype(accumulator(J.dtype)))
