"""What to do about the gradients of a net: a finding, a remedy, and the number in it."""

import math
from typing import NamedTuple

__all__ = ["Advice", "logit", "power", "steps"]


class Advice(NamedTuple):
    """One thing to do.

    illness: its name, "" for a setting and where there is nothing to do.
    layer: the name of the layer, "" for the whole net.
    finding: what was measured, a sentence.
    remedy: what to do, a sentence.
    value: the number in the remedy; NaN where there is none.
    """

    illness: str
    layer: str
    finding: str
    remedy: str
    value: float

    def __str__(self) -> str:
        """Illness, place, finding, remedy."""
        head = ", ".join(part for part in (self.illness, self.layer) if part)
        return f"{head + ': ' if head else ''}{self.finding} {self.remedy}"


def steps(count: float) -> str:
    """With its noun."""
    return f"{count:.0f} step{'s' * (round(count) != 1)}"


def logit(p: float) -> float:
    """Log of p/(1-p), finite at 0 and 1."""
    p = min(max(p, 1e-12), 1 - 1e-12)
    return math.log(p) - math.log1p(-p)


def power(log: float) -> str:
    """The number e^log, in words where it is too large or small to print."""
    return f"{math.exp(log):.3g}" if abs(log) < 20 else f"e^{log:.4g}"
