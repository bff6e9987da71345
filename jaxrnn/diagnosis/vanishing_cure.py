"""Against gradients that fade: inputs brought to scale, then gates opened or weights enlarged."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrnn.cells.traits import Gate
from jaxrnn.diagnosis.advice import Change
from jaxrnn.diagnosis.cures import ROUNDS, Found, in_words, mean_of, trials_length, what_it_did
from jaxrnn.diagnosis.figures import LayerSummary, Summary
from jaxrnn.diagnosis.remedies import MOST, done
from jaxrnn.diagnosis.trials import Scales, Trials, Tried, outcome
from jaxrnn.diagnosis.verdict import GROWN, Grade

__all__ = ["LARGE", "against_vanishing", "out_of_scale", "saturation"]

# Inputs of this size at the pre-activation leave a tanh 3 % of its slope, a sigmoid 28 %. Counted
# from the functions, not measured; docs/decisions/advice-thresholds.md
LARGE = 2.5


def saturation(gates: Sequence[Gate], layer: LayerSummary) -> float:
    """The largest share of steps that a gate spends at both ends of its range; 0 if unknown."""
    shares = [0.0]
    for gate in gates:
        if layer.gates is not None and all(map(math.isfinite, gate.range)):
            each = layer.gates[gate.name]
            shares.append((each.low or 0.0) + (each.high or 0.0))
    return max(shares)


def out_of_scale(scales: Scales) -> bool:
    """Whether the inputs alone saturate the units: they are large, and more than the state's."""
    large = scales.inputs > LARGE
    return bool((large & (scales.inputs > scales.recurrent)).any())


def against_vanishing(
    trials: Trials, end: int, sides: list[int], summary: Summary, rates: list[float]
) -> Found:
    """Scale first, then the gates that keep, or the recurrent weights; one layer, then all."""
    if not trials.cell.gates:
        return _of_a_step(rates[sides[0]])
    rate = max(rates[side] for side in sides)
    if rate == -math.inf and len(trials.cell.gates) == 1:
        return Found(
            "Every product of Jacobians is exactly 0 in the end: each unit is off at some step. "
            "Raise b, or take an activation whose slope is never 0.",
            math.nan,
        )
    search = _Search(trials, summary, end)
    if trials.base and search.cured_by(()):
        return search.told()
    # The layer that remembers longest needs the smallest change.
    order = sorted(sides, key=lambda side: -(summary.layers[side].share.median or 0.0))
    groups = [[side] for side in order] + [order] * (len(order) > 1)
    # Inputs first: while they saturate the units, nothing else can be judged.
    scaled = search.scaled(sides)
    if scaled and search.cured_by(scaled):
        return search.told()
    for group in groups:
        keeps = [gate for gate in trials.cell.traits.gates if gate.role == "keeps"]
        if len(trials.cell.gates) > 1:
            if keeps and search.opened(group, keeps[0], scaled):
                break
        elif search.enlarged(group, scaled, rates):
            break
    return search.told()


def _of_a_step(rate: float) -> Found:
    """Of a user's own step it is not known which weights are recurrent."""
    tail = " It was not tried: what a step's weights are for is not known."
    if math.isnan(rate):
        return Found("The sequences are too short for exponents: measure longer ones.", math.nan)
    if rate == -math.inf:
        return Found(
            "Every product of Jacobians is exactly 0 in the end: each unit is off at some step. "
            "Raise the bias, or take an activation whose slope is never 0.",
            math.nan,
        )
    if rate >= 0:
        return Found(
            "The leading exponent is not below 0: the last steps outweigh others that last.",
            math.nan,
        )
    return Found(
        f"The leading exponent is {rate:+.3g} nats a step: bring it near 0, by the bias of a gate "
        "that keeps the state or by larger recurrent weights, or train with regularizers.omega."
        + tail,
        math.exp(-rate),
    )


class _Search:
    """Remedies tried one after the other, and the best so far."""

    def __init__(self, trials: Trials, summary: Summary, end: int) -> None:
        self.trials, self.summary, self.end = trials, summary, end
        self.length = trials_length(trials)
        self.before = outcome(summary.net, end=end)
        self.best: Tried | None = None
        self.goal: float | None = None  # the mean that the best one's gates were brought to

    def cured_by(self, changes: tuple[Change, ...], goal: float | None = None) -> bool:
        """Whether the net reaches after these changes; the best is kept."""
        tried = self.trials.changed(*changes)
        after = outcome(tried.readings, end=self.end)
        if after.growth > max(GROWN + self.trials.added, self.before.growth):
            return False
        best = self.before if self.best is None else outcome(self.best.readings, end=self.end)
        if (after.share or 0.0) > (best.share or 0.0):
            self.best, self.goal = tried, goal
        return self._reaches(tried)

    def _reaches(self, tried: Tried) -> bool:
        return tried.readings[self.end].grade == Grade.REACHES

    def scaled(self, group: list[int]) -> tuple[Change, ...]:
        """Inputs brought to size 1 at the pre-activations, where they saturate the units."""
        changes: tuple[Change, ...] = ()
        for side in sorted(group):
            layer = self.summary.layers[side]
            if saturation(self.trials.cell.traits.gates, layer) <= 0.5:
                continue
            scales = self.trials.scales(self.trials.net, side)
            if not out_of_scale(scales):
                continue
            size, centre = float(scales.inputs.max()), ()
            # What is the same at all steps is a bias. Upper layers read h, which has no scale.
            if scales.offset > size / 2 and layer.name.startswith("layer 1"):
                centre = tuple(float(each) for each in scales.centre)
                size = math.sqrt(max(size**2 - scales.offset**2, (1e-3 * size) ** 2))
            changes += (Change(layer.name, side, "inputs", 1 / size, centre=centre),)
        return changes

    def opened(self, group: list[int], gate: Gate, scaled: tuple[Change, ...]) -> bool:
        """The gates that keep brought to a memory of the whole sequence, then of more."""
        writes = any(each.role == "writes" for each in self.trials.cell.traits.gates)
        # A gate that also writes what it does not keep must not be opened for good.
        for times in (1, 4) if writes else (1, 2):
            wanted = 1 - 1 / max(times * self.length, 2.0)
            goal: float | None = wanted
            changes = scaled
            for side in sorted(group):
                shift = self.trials.shift(self._net(changes), side, gate.name, wanted)
                if shift is None:  # as far as a shift may go, and no mean is promised
                    goal = None
                    shift = Change(self.trials.names[side], side, "bias", MOST, gate.name)
                if shift.value > 0:
                    changes = (*changes, shift)
            if changes != scaled and self.cured_by(changes, goal):
                return True
            if goal is None:
                break
        return False

    def enlarged(self, group: list[int], scaled: tuple[Change, ...], rates: list[float]) -> bool:
        """Recurrent weights times a factor, until what fades from step to step fades no more."""
        names = self.summary.layers
        logs = {side: -rates[side] if math.isfinite(rates[side]) else 0.0 for side in group}
        for _ in range(ROUNDS):
            factors = tuple(
                Change(names[side].name, side, "recurrent", math.exp(logs[side])) for side in group
            )
            tried = self.trials.changed(*scaled, *factors)
            if self.cured_by((*scaled, *factors)):
                return True
            least = tried.readings[self.end]
            last = least.log_at_longest_lag
            if last is None or (least.log_growth or 0.0) > GROWN:
                by = -0.5 * abs(logs[group[0]]) if (least.log_growth or 0.0) > GROWN else 0.1
            else:
                by = -last / max(self.length, 2.0) / len(group)
            if abs(by) < 1e-4:
                return False
            logs = {side: log + by for side, log in logs.items()}
        return False

    def _net(self, changes: tuple[Change, ...]) -> Any:
        net = self.trials.net
        for change in changes:
            net = done(self.trials.cell, net, change)
        return net

    def told(self) -> Found:
        """The best remedy in words."""
        if self.best is None:
            return Found(
                "No shift of a bias up to 10 and no factor of w_ih or w_hh that was tried makes "
                "it reach further. Train with regularizers.omega, or take a cell with a gate that "
                "keeps its state.",
                math.nan,
                self.before,
            )
        changes = self.best.changes
        cell = self.trials.cell
        before, after = [], []
        for change in changes:
            if change.what == "bias":
                was, now = (
                    float(np.mean(self.trials.gates(net, change.side)[change.gate].mean))
                    for net in (self.trials.first, self.best.net)
                )
                label = mean_of(self.trials, change.gate, change.side)
                before.append((label, was))
                after.append((label, now))
        said = [in_words(change, self.goal) for change in changes]
        text = "; ".join(said) or "that is enough for this as well"
        text = text[0].upper() + text[1:]
        if not self._reaches(self.best):
            text += " (it helps in part)"
        if len(cell.gates) == 1 and any(change.what == "recurrent" for change in changes):
            text += " (initializers.scaled_to_exponent)"
        if any(change.what == "bias" for change in changes):
            text += " (initializers.with_gate_bias sets a block)"
        was = self.before._replace(figures=tuple(before))
        now = outcome(self.best.readings, *after, end=self.end)
        return Found(
            f"{text}. {what_it_did(was, now, self.length)}",
            _number(changes),
            was,
            now,
            changes,
            " and ".join(dict.fromkeys(change.layer for change in changes)),
        )


def _number(changes: tuple[Change, ...]) -> float:
    """The number of the last change, that of a bias before any other."""
    shifts = [change.value for change in changes if change.what == "bias"]
    return ([math.nan] + [change.value for change in changes] + shifts)[-1]
