"""The figures of a diagnosis: plain numbers, spreads over examples, verdicts."""

import enum
from typing import Any, NamedTuple

import numpy as np

from jaxrnn.diagnosis.verdict import Certainty, Course, Grade

__all__ = [
    "GateSummary",
    "LayerSummary",
    "Nonfinite",
    "ReadingSummary",
    "Spread",
    "Summary",
    "number",
    "plain",
]


class Spread(NamedTuple):
    """Least, quartiles, the value that nine in ten do not exceed, and most; None if not finite."""

    least: float | None
    lower: float | None
    median: float | None
    upper: float | None
    nine_in_ten: float | None
    most: float | None


class GateSummary(NamedTuple):
    """A gate over all steps, units and examples.

    Attributes:
      mean: The mean.
      low: The share of steps near the low end of its range.
      high: The share of steps near the high end.
      unit_mean: The means of the units.
    """

    mean: float | None
    low: float | None
    high: float | None
    unit_mean: Spread


class ReadingSummary(NamedTuple):
    """What reaches the inputs from one end at which the net is read.

    Attributes:
      name: "at the end" or "at the start".
      horizon_10_percent, horizon_1_percent: Steps.
      share: `horizon_1_percent` over the steps that could be reached.
      log_growth: The largest rise of ‖∂E/∂xₖ‖ over the nearest tenth.
      log_at_longest_lag: Its value there, relative to the same.
      grade: How the median share compares with the threshold; None without a gradient.
      course: What the gradient does on its way back.
      curve: Pairs (lag, log ‖∂E/∂xₖ‖ relative to the same), the median over the examples, at up
        to 65 lags; -inf for 0.
    """

    name: str
    horizon_10_percent: Spread
    horizon_1_percent: Spread
    share: Spread
    log_growth: float | None
    log_at_longest_lag: float | None
    grade: Grade | None
    course: Course
    curve: tuple[tuple[int, float], ...]


class LayerSummary(NamedTuple):
    """A direction of a layer: its own memory, its gradient, its gates. Logs are natural.

    Attributes:
      name: Such as "layer 2, reverse".
      horizon_10_percent, horizon_1_percent: Steps, of its own memory.
      share: `horizon_1_percent` over the steps that could be reached.
      log_growth: The largest rise of its own adjoint over lag 0.
      log_at_longest_lag: Its value there, relative to lag 0.
      course: What a gradient does on its way back through this layer alone.
      log_gradient: Of ‖∂E/∂θ‖ over the examples.
      bias: What a window of the last K steps leaves out of the gradient, by K.
      window_for_1_percent_bias: The smallest window that leaves out under 1 %, or None.
      exponents: The leading exponents; None in it stands for -inf. None without any.
      exponent_error: The standard error of the first.
      exponent_steps: Over how many steps they were measured.
      window: How many steps `step_norm` and what is certain along these inputs span.
      step_norm: σ_max of the steps.
      explosion: What is certain about an explosion.
      because_any_input, because_these_inputs: The words and the inequality behind it.
      gamma_sigma_max, spectral_radius: Of a cell with one gate.
      gates: A `GateSummary` for each gate.
      path_shares_at_longest_lag: Of what carries ∂cₜ/∂cₖ.
    """

    name: str
    horizon_10_percent: Spread
    horizon_1_percent: Spread
    share: Spread
    log_growth: float | None
    log_at_longest_lag: float | None
    course: Course
    log_gradient: Spread
    bias: dict[str, float | None]
    window_for_1_percent_bias: int | None
    exponents: list[float | None] | None = None
    exponent_error: float | None = None
    exponent_steps: int | None = None
    window: int | None = None
    step_norm: Spread | None = None
    explosion: Certainty | None = None
    because_any_input: str | None = None
    because_these_inputs: str | None = None
    gamma_sigma_max: float | None = None
    spectral_radius: float | None = None
    gates: dict[str, GateSummary] | None = None
    path_shares_at_longest_lag: dict[str, float | None] | None = None


class Nonfinite(NamedTuple):
    """The first NaN or inf.

    Attributes:
      examples: How many examples have some.
      first_step: The earliest step.
      example: The example that has it.
      where: "input" or the name of a layer.
    """

    examples: int
    first_step: int
    example: int
    where: str


class Summary(NamedTuple):
    """The figures of a diagnosis that matter.

    Attributes:
      cell, loss, watched, threshold: As in `Record`.
      steps: T.
      examples: B.
      length: The lengths of the sequences.
      nonfinite: None if all is finite.
      net: What reaches the inputs, for each end at which the net is read.
      layers: Each direction of each layer.
    """

    cell: str
    loss: str
    steps: int
    examples: int
    length: Spread
    watched: list[int]
    threshold: float
    nonfinite: Nonfinite | None
    net: list[ReadingSummary]
    layers: list[LayerSummary]


def plain(value: Any) -> Any:
    """The same as dicts, lists, numbers, strings and None, for JSON."""
    if hasattr(value, "_asdict"):
        return {name: plain(leaf) for name, leaf in value._asdict().items()}
    if isinstance(value, dict):
        return {name: plain(leaf) for name, leaf in value.items()}
    if isinstance(value, list | tuple):
        return [plain(leaf) for leaf in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, float):
        return number(value)
    return value


def number(value: Any) -> float | None:
    """A finite number, or None: JSON has no NaN or inf."""
    value = float(value)
    return value if np.isfinite(value) else None
