"""How far back something is felt: the lag at which it has faded for good."""

import math

import jax.numpy as jnp
from jax import Array

from jaxrnn import _checks

__all__ = ["memory_horizon"]


def memory_horizon(
    log_norms: Array, fraction: float = 0.01, *, lengths: Array | None = None
) -> Array:
    """The smallest lag from which on nothing exceeds `fraction` of what lag 0 has.

        min { l : ‖·‖ₖ ≤ fraction · ‖·‖ᵣ for every k ≤ r-l }

    r, at lag 0, is the last step, or the last one that has anything at all, as where a loss reads
    no later one. A curve that fades and comes back has not faded: this is the last crossing.

    Args:    log_norms: `(T, *batch)`, natural logs, in the order of the steps, as the functions of
             `jaxrnn.products` and `jaxrnn.paths` give them; for contributions `jnp.log(norm)`.
             fraction: in (0, 1).
             lengths: integers `(*batch,)` where sequences are padded: lag 0 is then step
             lengths-1, so that padding is no memory.
    Returns: integers `(*batch,)`; r+1 where even lag r has more: the sequence is too short to say.
             0 where no step has anything.
    Raises:  TypeError or ValueError naming the argument.
    Cost:    a few passes over log_norms, O(T·B).
    Source:  this library; docs/derivations/products.md.

    >>> import jax.numpy as jnp
    >>> halved = jnp.log(0.5) * jnp.arange(9.0, -1.0, -1.0)
    >>> int(memory_horizon(halved, 0.1)), int(memory_horizon(halved, 0.01)), 2**-7 < 0.01
    (4, 7, True)
    """
    _checks.check_array("log_norms", log_norms)
    if log_norms.ndim == 0 or log_norms.shape[0] == 0:
        raise ValueError(
            f"log_norms: expected (T, *batch) with T ≥ 1, got {_checks.describe(log_norms)}"
        )
    _checks.check_real("fraction", fraction, least=0.0)
    if not 0 < fraction < 1:
        raise ValueError(f"fraction: expected 0 < fraction < 1, got {fraction}")
    log_norms = jnp.asarray(log_norms)
    step = jnp.arange(log_norms.shape[0], dtype=jnp.int32)
    step = jnp.broadcast_to(step.reshape(-1, *[1] * (log_norms.ndim - 1)), log_norms.shape)
    live = log_norms != -jnp.inf
    if lengths is not None:
        _checks.check_lengths(lengths, log_norms[..., None])
        live &= step < jnp.broadcast_to(lengths[None], step.shape).astype(step.dtype)
    none = -jnp.ones_like(step)
    last = jnp.where(live, step, none).max(0)
    at = jnp.maximum(last, jnp.zeros_like(last))[None]
    limit = jnp.take_along_axis(log_norms, at, axis=0) + math.log(fraction)
    # What is no number has not faded.
    felt = ~(log_norms <= jnp.broadcast_to(limit, log_norms.shape))
    felt &= step <= jnp.broadcast_to(last[None], step.shape)
    return last + 1 - jnp.argmax(felt, axis=0).astype(last.dtype)
