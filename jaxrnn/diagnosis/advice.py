"""What to do about the gradients of a net: a finding, a remedy, and the number in it."""

import math
from typing import NamedTuple

__all__ = ["Advice", "logit", "power", "steps"]


class Advice(NamedTuple):
    """One thing to do.

    Attributes:
      illness: The name of the illness; "" for a training setting, and if there is nothing to do.
      layer: The name of the layer; "" for the whole net.
      finding: What was measured, as a sentence.
      remedy: What to do, as a sentence.
      value: The number in the remedy; NaN if the remedy has none.
    """

    illness: str
    layer: str
    finding: str
    remedy: str
    value: float

    def __str__(self) -> str:
        """Illness, layer, finding and remedy in one line."""
        head = ", ".join(part for part in (self.illness, self.layer) if part)
        return f"{head + ': ' if head else ''}{self.finding} {self.remedy}"


def steps(count: float) -> str:
    """The count with its noun: "1 step", "5 steps"."""
    return f"{count:.0f} step{'s' * (round(count) != 1)}"


def logit(p: float) -> float:
    """Log of p/(1-p), finite at 0 and 1."""
    # The mean of a gate that is always shut or always open may be exactly 0 or 1 in float32.
    p = min(max(p, 1e-12), 1 - 1e-12)
    return math.log(p) - math.log1p(-p)


def power(log: float) -> str:
    """The number e^log; as "e^…" if it is too large or too small to print."""
    # Also math.exp raises OverflowError from 709.8 on, which an explosion over many steps exceeds.
    return f"{math.exp(log):.3g}" if abs(log) < 20 else f"e^{log:.4g}"
