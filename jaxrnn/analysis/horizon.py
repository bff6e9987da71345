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

    r is the step of lag 0: the last step whose norm is not 0. That is the last step of all, unless
    the norms end in zeros, as where a loss reads no later state. A curve that fades and comes back
    has not faded: this is the last crossing.

    Args:
      log_norms: `(T, *batch)`, natural logs, in the order of the steps, so that the last entry has
        lag 0: as `transport_norms`, `frobenius_norms` and `adjoint_norms` of `jaxrnn.products` give
        them. `tangent_norms` begin with lag 0; turn them round first, `[::-1]`. For contributions
        give `jnp.log(norm)`.
      fraction: A number in (0, 1).
      lengths: Integers `(*batch,)` if sequences are padded. Lag 0 is then at step lengths-1 or
        before, so that padding is no memory.

    Returns:
      Integers `(*batch,)`. The horizon is r+1 if even lag r exceeds the fraction: the sequence is
      then too short to say. It is 0 if no step has a norm above 0.

    Raises:
      TypeError: If `log_norms` is not an array of real floats, `fraction` is not a real number, or
        `lengths` is not an array of integers.
      ValueError: If `log_norms` has no step, `fraction` is not in (0, 1), or `lengths` has another
        batch shape or a value outside [0, T].

    Cost:
      A few passes over log_norms, O(T·B).

    Source:
      docs/derivations/products.md

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
    # Where nothing is live, last is -1, which as an index would be the last step; `felt` is then
    # False at every step, and last + 1 - 0 gives the horizon 0.
    last = jnp.where(live, step, none).max(0)
    at = jnp.maximum(last, jnp.zeros_like(last))[None]
    limit = jnp.take_along_axis(log_norms, at, axis=0) + math.log(fraction)
    # Not `>`: NaN compares False, and what is NaN has not faded.
    felt = ~(log_norms <= jnp.broadcast_to(limit, log_norms.shape))
    felt &= step <= jnp.broadcast_to(last[None], step.shape)
    # The first True, at the largest lag: `argmax` gives the earliest of equal entries.
    return last + 1 - jnp.argmax(felt, axis=0).astype(last.dtype)
