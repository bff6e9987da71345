"""The memory horizon against its definition, entry by entry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import memory_horizon


def by_definition(norms, fraction):
    T = len(norms)
    faded = [lag for lag in range(T) if all(norms[: T - lag] <= fraction * norms[-1])]
    return min(faded, default=T)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.9])
def test_it_is_the_last_crossing(fraction):
    norms = np.exp(3 * np.random.default_rng(0).normal(size=(9, 500)))
    got = jax.jit(lambda x: memory_horizon(x, fraction))(jnp.log(norms))
    assert got.tolist() == [by_definition(column, fraction) for column in norms.T]
    assert len(set(got.tolist())) > 3


@pytest.mark.parametrize(("logs", "want"), [
    ([0.0], 1), ([-9.0, 0.0], 1), ([0.0, -9.0, 0.0], 3), ([-np.inf, -np.inf, 0.0], 1),
    ([-9.0, -9.0, -9.0], 3), ([np.nan, -9.0, 0.0], 3), ([np.inf, 0.0], 2), ([np.inf, np.inf], 2),
    ([-9.0, 0.0, -np.inf], 1), ([-1.0, 0.0, -np.inf, -np.inf], 2), ([-np.inf, -np.inf], 0),
    ])  # fmt: skip
def test_edges(logs, want):
    """Too short to say is all of it; a reset fades; what is not a number has not faded."""
    assert int(memory_horizon(jnp.asarray(logs))) == want


def test_padding_is_no_memory():
    """Held steps pass everything on, and contribute nothing: neither makes a horizon longer."""
    cell = jaxrnn.lstm()
    params = cell.init(jax.random.key(0), 3, 5, forget_bias=-1.0)
    xs = jax.random.normal(jax.random.key(1), (100, 4, 3))
    lengths = jnp.array([60, 80, 100, 0])
    norms = jaxrnn.products.transport_norms(jaxrnn.Run(cell, params, xs, lengths=lengths))
    got = memory_horizon(norms, lengths=lengths).tolist()
    for b, length in enumerate([60, 80, 100]):
        alone = jaxrnn.products.transport_norms(jaxrnn.Run(cell, params, xs[:length, b]))
        assert got[b] == int(memory_horizon(alone)) < 30
    assert got[3] == 0
    sizes = jaxrnn.bptt.contribution_norms(
        jaxrnn.Run(cell, params, xs[:, :1], lengths=lengths[:1]), lambda s: s.h[-1].sum()
    )
    alone = jaxrnn.bptt.contribution_norms(
        jaxrnn.Run(cell, params, xs[:60, :1]), lambda s: s.h[-1].sum()
    )
    for padded, cut in zip(sizes.norm, alone.norm, strict=True):
        assert int(memory_horizon(jnp.log(padded))) == int(memory_horizon(jnp.log(cut))) < 30
