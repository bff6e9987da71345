"""Against gates that are shut or open for good, and units that are dead."""

import math

import numpy as np

from jaxrnn.cells.traits import Gate
from jaxrnn.diagnosis.advice import Change
from jaxrnn.diagnosis.cures import ROUNDS, Found, in_words, mean_of, trials_length, what_it_did
from jaxrnn.diagnosis.trials import Trials, outcome
from jaxrnn.diagnosis.verdict import GROWN, Grade

__all__ = ["revive", "to_mean"]


def to_mean(trials: Trials, side: int, gate: Gate, mean: float, goals: tuple[float, ...]) -> Found:
    """A gate's bias shifted so that its mean is the first goal that costs the net nothing."""
    before = outcome(trials.measured(trials.net), (mean_of(trials, gate.name, side), mean))
    reached = (before.share or 0.0) - 1e-9
    for goal in goals:
        shift = trials.shift(trials.net, side, gate.name, goal)
        if shift is None:
            continue
        tried = trials.changed(shift)
        now = float(np.mean(trials.gates(tried.net, side)[gate.name].mean))
        after = outcome(tried.readings, (mean_of(trials, gate.name, side), now))
        # No explosion, and no memory lost that was enough before.
        fine = after.growth <= max(GROWN + trials.added, before.growth) and (
            all(reading.grade != Grade.FALLS_SHORT for reading in tried.readings)
            or (after.share or 0.0) >= reached
        )
        if fine:
            words = in_words(shift, goal)
            text = words[0].upper() + words[1:] + " (initializers.with_gate_bias sets a block)"
            return Found(
                f"{text}. {what_it_did(before, after, trials_length(trials))}",
                abs(shift.value) if shift.value < 0 else shift.value,
                before,
                after,
                (shift,),
            )
    return Found(
        "No shift of its bias up to 10 that was tried brings it further without shortening the "
        "memory of the net: draw the gate anew (initializers.redrawn), or train on with a smaller "
        "learning rate.",
        math.nan,
        before,
    )


def revive(trials: Trials, side: int, gate: str, dead: np.ndarray) -> Found:
    """The rows of dead units drawn anew."""
    name, count = trials.names[side], len(dead)
    units = tuple(int(unit) for unit in dead)
    before = outcome(trials.measured(trials.net), ("dead units", float(count)))
    best = None
    for seed in range(ROUNDS):
        tried = trials.changed(Change(name, side, "redrawn", float(seed), units=units))
        off = np.asarray(trials.gates(tried.net, side)[gate].low)
        after = outcome(tried.readings, ("dead units", float((off == 1).sum())))
        if after.growth <= max(GROWN + trials.added, before.growth):
            if best is None or after.figures[0][1] < best[1].figures[0][1]:
                best = tried, after
            if best[1].figures[0][1] == 0:
                break
    text = "Draw their rows of w_ih and w_hh anew (initializers.redrawn) with a bias above 0, and"
    if best is None:
        return Found(f"{text} lower the learning rate.", math.nan, before)
    return Found(
        f"{text} lower the learning rate. {what_it_did(before, best[1], trials_length(trials))}",
        count / max(np.asarray(trials.gates(trials.net, side)[gate].low).size, 1),
        before,
        best[1],
        best[0].changes,
    )
