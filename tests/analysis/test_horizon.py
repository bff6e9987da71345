"""The memory horizon against its definition, entry by entry."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import memory_horizon
from tests.support import drawing

horizon = jax.jit(memory_horizon)


def by_definition(norms, fraction):
    T = len(norms)
    faded = [lag for lag in range(T) if all(norms[: T - lag] <= fraction * norms[-1])]
    return min(faded, default=T)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.9])
def test_it_is_the_last_crossing(fraction):
    norms = np.exp(3 * np.random.default_rng(0).normal(size=(9, 500)))
    got = jax.jit(lambda x: memory_horizon(x, fraction))(np.log(norms))
    assert got.tolist() == [by_definition(column, fraction) for column in norms.T]
    assert len(set(got.tolist())) > 3


@pytest.mark.parametrize(("logs", "want"), [
    ([0.0], 1), ([-9.0, 0.0], 1), ([0.0, -9.0, 0.0], 3), ([-np.inf, -np.inf, 0.0], 1),
    ([-9.0, -9.0, -9.0], 3), ([np.nan, -9.0, 0.0], 3), ([np.inf, 0.0], 2), ([np.inf, np.inf], 2),
    ([-9.0, 0.0, -np.inf], 1), ([-1.0, 0.0, -np.inf, -np.inf], 2), ([-np.inf, -np.inf], 0),
    ])  # fmt: skip
def test_edges(logs, want):
    """Too short to say is all of it; a reset fades; what is not a number has not faded."""
    assert int(horizon(np.array(logs))) == want


@functools.partial(jax.jit, static_argnums=0)
def horizons(cell, params, xs, lengths=None):
    """By the transports."""
    norms = jaxrnn.products.transport_norms(jaxrnn.Run(cell, params, xs, lengths=lengths))
    return memory_horizon(norms, lengths=lengths)


@functools.partial(jax.jit, static_argnums=0)
def horizons_of_contributions(cell, params, xs, lengths=None):
    run = jaxrnn.Run(cell, params, xs, lengths=lengths)
    sizes = jaxrnn.bptt.contribution_norms(run, lambda s: s.h[-1].sum())
    return [memory_horizon(jnp.log(norm)) for norm in sizes.norm]


def test_padding_is_no_memory():
    """Held steps pass everything on, and contribute nothing: neither makes a horizon longer."""
    cell = jaxrnn.lstm()
    params, xs, _ = jax.tree.map(np.asarray, drawing.drawn(cell, 100, (4,), 3, 5, scale=0.3))
    params = params._replace(b=np.repeat([0.0, -1.0, 0.0, 0.0], 5).astype(xs.dtype))
    lengths = np.array([60, 80, 100, 0])
    got = horizons(cell, params, xs, lengths).tolist()
    for b, length in enumerate([60, 80, 100]):
        assert got[b] == int(horizons(cell, params, xs[:length, b])) < 30
    assert got[3] == 0
    padded = horizons_of_contributions(cell, params, xs[:, :1], lengths[:1])
    alone = horizons_of_contributions(cell, params, xs[:60, :1])
    for one, other in zip(padded, alone, strict=True):
        assert int(one) == int(other) < 30
