"""What to do about the gradients of a net: a finding, a remedy, and what it did when tried."""

import math
from typing import NamedTuple

__all__ = ["Advice", "Change", "Outcome", "logit", "power", "steps"]


class Change(NamedTuple):
    """One change of the params of a direction of a layer.

    Attributes:
      layer: The name of the layer.
      side: Its number among the directions of all layers.
      what: "bias" adds `value` to a gate's block of b, "inputs" multiplies w_ih by it, "recurrent"
        w_hh, "redrawn" draws the rows of dead units anew, `value` being the seed.
      value: The number.
      gate: The name of the gate, for "bias".
      centre: What is subtracted from each input first, for "inputs"; () for nothing.
      units: The numbers of the dead units, for "redrawn".
    """

    layer: str
    side: int
    what: str
    value: float
    gate: str = ""
    centre: tuple[float, ...] = ()
    units: tuple[int, ...] = ()


class Outcome(NamedTuple):
    """A net as a remedy found it, or as it left it.

    Attributes:
      horizon: The lag from which on ‖∂E/∂x‖ stays below 1 % of lag 0, the median over the examples;
        None without a gradient.
      share: The same as a share of the sequence.
      growth: The largest rise of ‖∂E/∂x‖ over lag 0, a natural log.
      figures: What else the remedy is about, such as ("mean f", 0.98).
      read: The end at which the net is read: "at the end" or "at the start".
      curve: Pairs (lag, log ‖∂E/∂xₖ‖ relative to lag 0), as in `ReadingSummary`.
    """

    horizon: float | None
    share: float | None
    growth: float
    figures: tuple[tuple[str, float], ...] = ()
    read: str = "at the end"
    curve: tuple[tuple[int, float], ...] = ()


class Advice(NamedTuple):
    """One thing to do.

    Attributes:
      illness: The name of the illness; "" for a training setting, and if there is nothing to do.
      layer: The name of the layer; "" for the whole net.
      finding: What was measured, as a sentence.
      remedy: What to do, as a sentence.
      value: The number in the remedy; NaN if the remedy has none.
      before: The net as it is, in the figures that the remedy was tried for; None if it was not.
      after: The same after the remedy, measured again on the same batch by the same rules.
      changes: What was done to the params: `jaxrnn.diagnosis.cured` does it again. Remedies may act
        on each other, so each is tried on top of those before it, whose changes come first here.
    """

    illness: str
    layer: str
    finding: str
    remedy: str
    value: float
    before: Outcome | None = None
    after: Outcome | None = None
    changes: tuple[Change, ...] = ()

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
