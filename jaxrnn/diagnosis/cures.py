"""What every cure has: a remedy in words, its number, and what it did when it was tried.

A remedy is kept only if it does not make gradients explode and does not shorten what the net
reaches below the threshold. Of several the first that cures is told, else the one that helps most.
"""

from typing import NamedTuple

import numpy as np

from jaxrnn.diagnosis.advice import Change, Outcome, power
from jaxrnn.diagnosis.trials import Trials
from jaxrnn.diagnosis.verdict import TURNED

__all__ = ["ROUNDS", "Found", "in_words", "mean_of", "trials_length", "what_it_did"]

ROUNDS = 5  # how often a factor is corrected; three have been enough on the planted nets


class Found(NamedTuple):
    """A remedy, its number, and what it did."""

    remedy: str
    value: float
    before: Outcome | None = None
    after: Outcome | None = None
    changes: tuple[Change, ...] = ()
    layer: str = ""


def mean_of(trials: Trials, gate: str, side: int) -> str:
    """The name of a figure, such as "mean f of layer 2"."""
    return f"mean {gate}" + f" of {trials.names[side]}" * (len(trials.names) > 1)


def in_words(change: Change, goal: float | None) -> str:
    """A change as an imperative; `goal` is the mean that a gate was brought to."""
    where = f" of {change.layer}"
    if change.what == "bias":
        sign = "add" if change.value >= 0 else "subtract"
        aim = "" if goal is None else f", for a mean of {_goal(goal)}"
        return (
            f"{sign} {abs(change.value):.3g} to the {change.gate} block of b{where}{aim}".replace(
                f"subtract {abs(change.value):.3g} to", f"subtract {abs(change.value):.3g} from"
            )
        )
    if change.what == "inputs":
        centred = "subtract the mean from each input and " if change.centre else ""
        return f"{centred}multiply w_ih{where} by {change.value:.3g}"
    return f"multiply w_hh{where} by {change.value:.4g}"


def _goal(goal: float) -> str:
    """A mean as people write it."""
    if goal > 0.6:
        return f"1 - 1/{1 / (1 - goal):.0f}"
    return f"{goal:.3g}"


def what_it_did(before: Outcome, after: Outcome, length: float) -> str:
    """What a remedy did on this batch."""
    said = []
    if before.horizon is not None and after.horizon is not None:
        said.append(f"horizon {before.horizon:.0f} → {after.horizon:.0f} of {length:.0f}")
    if max(before.growth, after.growth) > TURNED:
        said.append(f"growth {power(before.growth)} → {power(after.growth)}-fold")
    for (name, was), (_, now) in zip(before.figures, after.figures, strict=True):
        said.append(f"{name} {was:.3g} → {now:.4g}")
    return f"Tried on this batch: {', '.join(said)}."


def trials_length(trials: Trials) -> float:
    """The median of the steps that a gradient could reach."""
    return float(np.median(np.asarray(trials.spans)))
