"""The memory horizon against its definition, entry by entry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    ([-9.0, -9.0, -9.0], 3), ([np.nan, -9.0, 0.0], 3), ([np.inf, 0.0], 2)])  # fmt: skip
def test_edges(logs, want):
    """Too short to say is T; a reset fades; what is not a number has not faded."""
    assert int(memory_horizon(jnp.asarray(logs))) == want
