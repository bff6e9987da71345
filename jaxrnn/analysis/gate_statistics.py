"""How open the gates of a cell are: their means, and the share of steps near the ends of the range.

A gate is low or high if it lies within a tenth of its range of that end: below 0.1 or above 0.9 for
a sigmoid (Karpathy, Johnson & Li, 2015), beyond ±0.8 for a tanh. A relu is low where it is 0. If
the range has no lower end the share of low steps is 0, and likewise for the upper end.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn.running.run import Run
from jaxrnn.running.steps import Steps

__all__ = ["GateStatistics", "of_sums", "sums"]

# Of a gate's range at either end, where it counts as shut or open. Not measured;
# docs/decisions/advice-thresholds.md
TENTH = 0.1


class GateStatistics(NamedTuple):
    """One gate of one layer.

    Attributes:
      mean: The mean of each unit over steps and examples, `(H,)`.
      low: The share of steps that each unit spends at the low end of the range, `(H,)`.
      high: The share of steps that each unit spends at the high end of the range, `(H,)`.
      over_time: The mean over examples at each step, `(T, H)`; NaN where no sequence is so long.
    """

    mean: Array
    low: Array
    high: Array
    over_time: Array


def sums(run: Run, steps: Steps) -> dict[str, tuple[Array, ...]] | None:
    """What `of_sums` needs of a part of a batch, to be added over the parts.

    Args:
      run: The run of that part.
      steps: The steps of the run, leaves `(T, B, ·)`. Held steps are not counted.

    Returns:
      gate ↦ (Σ_b value `(T, H)`, Σ low `(H,)`, Σ high `(H,)`, live `(T,)`). None for a cell that
      does not show its gates.
    """
    traits = run.cell.traits
    if traits.gate_values is None:
        return None
    values = traits.gate_values(run.params, steps.before, steps.xs)
    dtype = values[0].dtype
    live = jnp.ones(steps.xs.shape[:2], bool) if steps.held is None else ~steps.held
    # Sums and counts, not means: parts of a batch may differ in size, and sums of parts add up.
    found: dict[str, tuple[Array, ...]] = {}
    for gate, value in zip(traits.gates, values, strict=True):
        low, high = _at_ends(value, *gate.range)
        mask = jnp.broadcast_to(live[..., None], value.shape)
        value, low, high = (jnp.where(mask, x.astype(dtype), 0) for x in (value, low, high))
        counted = live.sum(1, dtype=dtype)
        found[gate.name] = (value.sum(1), low.sum((0, 1)), high.sum((0, 1)), counted)
    return found


def _at_ends(value: Array, low: float, high: float) -> tuple[Array, Array]:
    """Whether a value lies at the low end of its range, and at the high end."""
    no = jnp.zeros(value.shape, bool)
    width = high - low
    # An end at infinity leaves no tenth of a range: then only the end itself counts, as 0 of relu.
    if math.isfinite(width):
        return value < low + TENTH * width, value > high - TENTH * width
    return (
        value <= low if math.isfinite(low) else no,
        value >= high if math.isfinite(high) else no,
    )


def of_sums(found: dict[str, tuple[Array, ...]]) -> dict[str, GateStatistics]:
    """The statistics of a whole batch, from the added sums of its parts."""
    return {gate: _of_sum(*each) for gate, each in found.items()}


@jax.jit
def _of_sum(value: Array, low: Array, high: Array, live: Array) -> GateStatistics:
    count = live.sum()
    each = live[:, None]  # 0 where no sequence is so long: 0 / 0 is the NaN of `over_time`
    return GateStatistics(value.sum(0) / count, low / count, high / count, value / each)
