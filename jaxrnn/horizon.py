"""How far back something is felt: the lag at which it has faded for good."""

import math

import jax.numpy as jnp
from jax import Array

from jaxrnn import arguments

__all__ = ["memory_horizon"]


def memory_horizon(log_norms: Array, fraction: float = 0.01) -> Array:
    """The smallest lag from which on nothing exceeds `fraction` of what lag 0 has.

        min { l : ‖·‖ₖ ≤ fraction · ‖·‖_{T-1} for every k ≤ T-1-l }

    A curve that fades and comes back has not faded: this is the last crossing, not the first.

    Args:    log_norms: `(T, *batch)`, natural logs, entry k of lag T-1-k, as the functions of
             `jaxrnn.products` and `jaxrnn.paths` give them; for contributions `jnp.log(norm)`.
             fraction: in (0, 1).
    Returns: integers `(*batch,)`; T where even lag T-1 has more: the sequence is too short to say.
    Raises:  TypeError or ValueError naming the argument.

    >>> import jax.numpy as jnp
    >>> halved = jnp.log(0.5) * jnp.arange(9, -1, -1)
    >>> int(memory_horizon(halved, 0.1)), int(memory_horizon(halved, 0.01)), 2**-7 < 0.01
    (4, 7, True)
    """
    arguments.check_array("log_norms", log_norms)
    if log_norms.ndim == 0 or log_norms.shape[0] == 0:
        raise ValueError(
            f"log_norms: expected (T, *batch) with T ≥ 1, got {arguments.describe(log_norms)}"
        )
    arguments.check_real("fraction", fraction, least=0.0)
    if not 0 < fraction < 1:
        raise ValueError(f"fraction: expected 0 < fraction < 1, got {fraction}")
    T = log_norms.shape[0]
    limit = log_norms[-1] + math.log(fraction)
    felt = ~(log_norms <= jnp.broadcast_to(limit, log_norms.shape))  # NaN counts as felt
    first = jnp.argmax(felt, axis=0)
    return jnp.asarray(T, first.dtype) - first
