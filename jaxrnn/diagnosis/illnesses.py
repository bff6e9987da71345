"""The illnesses of a net's gradients, each with its rule.

    illness             when
    not finite          an input or a state is NaN or inf
    no gradient         the loss does not depend on this layer
    exploding           ‖∂E/∂xₖ‖ grows more than 100-fold with the lag, beyond what a stack adds up,
                        or would at the rate of λ₁
    dead units          a tenth of the relu units or more are 0 throughout
    <gate> gates shut   an input or output gate spends 90 % of its steps below 0.1
    <gate> gates open   a gate that writes what it does not keep renews under 0.4 of its state
    vanishing           ‖∂E/∂xₖ‖ stays below 1 % of lag 0 before it has reached the threshold

Vanishing has its cause in its name, where one is found: inputs out of scale, saturated, forget
gates shut. Inputs out of scale are an illness by themselves where they hold units at the ends of
their range at 90 % of the steps. Of a net that explodes nothing else is said. A layer that forgets
is no illness where the net as a whole carries.
"""

import math
from typing import NamedTuple

import numpy as np

from jaxrnn.cells.traits import Gate
from jaxrnn.diagnosis import gate_cure, growth_cure, vanishing_cure
from jaxrnn.diagnosis.advice import Advice, power, steps
from jaxrnn.diagnosis.cures import Found
from jaxrnn.diagnosis.figures import Summary
from jaxrnn.diagnosis.record import LayerFlow, Record
from jaxrnn.diagnosis.summary import mean_exponents, paths_of, reached
from jaxrnn.diagnosis.trials import Trials
from jaxrnn.diagnosis.verdict import GROWN, Grade

__all__ = [
    "Case",
    "dead_units",
    "exploding",
    "no_gradient",
    "no_gradient_at_all",
    "nonfinite",
    "of_gates",
    "vanishing",
]

# From which shares of steps or units something is an illness: false alarms, or illnesses that are
# missed. Not measured; docs/decisions/advice-thresholds.md
SHUT, MOSTLY, DEAD = 0.5, 0.9, 0.1
# Of its state that a gate renews over a whole sequence. Not measured;
# docs/decisions/advice-thresholds.md
RENEWED = 0.4
SHUT_MEANS = {"writes": "nothing is written to c", "reads": "nothing is read from c"}


class Case(NamedTuple):
    """What the rules read.

    Attributes:
      record: The arrays.
      summary: Their figures.
      trials: With which remedies are tried.
    """

    record: Record
    summary: Summary
    trials: Trials

    @property
    def length(self) -> float:
        """The median of the steps that a gradient could reach."""
        return float(np.median(np.asarray(self.record.spans)))


def nonfinite(case: Case) -> list[Advice]:
    """The first step with NaN or inf, and where it came from."""
    numbers = case.summary.nonfinite
    if numbers is None:
        return []
    step, where = numbers.first_step, numbers.where
    finding = (
        f"step {step} of example {numbers.example} has NaN or inf, first in "
        f"{'the input' if where == 'input' else where}; {numbers.examples} of "
        f"{case.summary.examples} examples have some. All figures are of the steps before."
    )
    if where == "input":
        remedy = f"Look at the data at step {step}, or pass `lengths` if it is padding."
        return [Advice("not finite", "", finding, remedy, float(step))]
    remedy = "The state itself overflows: bound it, by tanh or by smaller recurrent weights."
    return [Advice("not finite", where, finding, remedy, float(step))]


def no_gradient(case: Case, name: str) -> Advice:
    """The advice for a layer that the loss does not depend on."""
    return Advice(
        "no gradient",
        name,
        f"the gradient of every weight is 0 for all {case.summary.examples} examples: the loss "
        "does not depend on this layer, or only through units that are off.",
        "Let the loss read the output of this layer, or of one that follows it.",
        math.nan,
    )


def exploding(case: Case) -> Advice | None:
    """Growth that was measured, or that would follow from λ₁; None if there is neither."""
    added = paths_of(case.record)
    # What the layers' own growth accounts for: from a unit cotangent on, whatever lag 0 lets pass.
    own = sum(max(layer.log_growth or 0.0, 0.0) for layer in case.summary.layers) + added
    measured = min(max((each.log_growth or 0.0 for each in case.summary.net), default=0.0), own)
    rates = [leading(layer) for layer in case.record.layers]
    longest = []
    for layer in case.summary.layers:
        # A stretch between resets may be longer than what the last step remembers.
        longest.append(max(int(np.max(case.record.spans)), layer.exponent_steps or 0))
    # Two standard errors below the rate, so that noise in λ₁ is no illness. A rate of NaN compares
    # false: no growth.
    would = [
        (rate - 2 * (layer.exponent_error or 0.0)) * count
        for rate, layer, count in zip(rates, case.summary.layers, longest, strict=True)
    ]
    sick = [side for side, growth in enumerate(would) if growth > GROWN]
    if measured <= GROWN + added and not sick:
        return None
    # The layer that grows fastest, whether or not the whole net's growth is its doing alone.
    known = [(rate, side) for side, rate in enumerate(rates) if not math.isnan(rate)]
    worst = max(known)[1] if known else 0
    rate, layer = rates[worst], case.summary.layers[worst]
    finding = (
        f"‖∂E/∂x‖ grows by up to {power(measured)} times with the lag"
        if measured > GROWN + added
        else f"over {longest[worst]} steps the distance of nearby states grows by "
        f"{power(rate * longest[worst])} times"
    )
    if not math.isnan(rate):
        finding += (
            f"; the leading exponent is {rate:+.3g} ± {layer.exponent_error or 0.0:.1g} nats a step"
        )
    found = growth_cure.against_growth(case.trials, worst, case.summary, rates)
    return _told(case, "exploding", found.layer or layer.name, finding + ".", found)


def of_gates(case: Case, side: int) -> list[Advice]:
    """Gates that stay shut or open."""
    record, layer = case.record, case.summary.layers[side]
    if layer.gates is None or len(record.gates) == 1:
        return []  # the one gate of such a cell is its output: there is nothing that it shuts
    found = []
    writes = any(gate.role == "writes" for gate in record.gates)
    for gate in record.gates:
        each = layer.gates[gate.name]
        if gate.role in SHUT_MEANS and (each.low or 0.0) > MOSTLY:
            finding = (
                f"they spend {each.low:.0%} of their steps below 0.1 (mean {each.mean:.2g}): "
                f"{SHUT_MEANS[gate.role]}."
            )
            goals = (0.5, 0.25, 0.15)
            made = gate_cure.to_mean(case.trials, side, gate, each.mean or 0.0, goals)
            found.append(_told(case, f"{gate.title} gates shut", layer.name, finding, made))
        # In an LSTM open forget gates are a long memory; its input gates write all the same.
        renewed = (1 - (each.mean or 0.0)) * case.length
        if gate.role == "keeps" and not writes and renewed < RENEWED:
            finding = (
                f"they keep {each.mean:.5g} of the state at each step: in {case.length:.0f} steps "
                f"{renewed:.2g} of it is renewed."
            )
            goals = (1 - 1 / max(case.length, 2.0), 1 - 1 / max(2 * case.length, 2.0))
            made = gate_cure.to_mean(case.trials, side, gate, each.mean or 0.0, goals)
            found.append(_told(case, f"{gate.title} gates open", layer.name, finding, made))
    return found


def one_sided(gate: Gate) -> bool:
    """Whether the range has only a low end, as that of relu: a unit that stays there is dead."""
    low, high = gate.range
    return math.isfinite(low) and not math.isfinite(high)


def dead_units(case: Case, side: int) -> list[Advice]:
    """Units of a cell with one gate that are off at every step of every example."""
    record, layer = case.record, case.record.layers[side]
    if layer.gates is None or len(record.gates) != 1 or not one_sided(record.gates[0]):
        return []
    # Low at every step of every example. A unit that is off at some is what relu is for.
    dead = np.flatnonzero(np.asarray(layer.gates[record.gates[0].name].low) == 1)
    units = np.asarray(layer.gates[record.gates[0].name].low).size
    if dead.size < DEAD * units or not dead.size:
        return []
    finding = f"{dead.size} of {units} units are 0 at every step of every example."
    found = gate_cure.revive(case.trials, side, record.gates[0].name, dead)
    return [_told(case, "dead units", record.names[side], finding, found)]


def vanishing(case: Case, end: int) -> list[Advice]:
    """A gradient that does not reach back far enough from one end, and what stops it."""
    reading = case.summary.net[end]
    sides = sides_read(case.record.names, end)
    drowned = reading.grade is not None and _drowned(case, sides)
    if reading.grade not in (Grade.FALLS_SHORT, Grade.BORDERLINE) and not drowned:
        return []
    reach = reading.horizon_1_percent.median or 0.0
    where = f", read {reading.name}" if len(case.summary.net) > 1 else ""
    finding = (
        f"nothing from {steps(reach)} back or more adds over 1 % of what the last step does, in "
        f"sequences of {case.length:.0f}{where}"
    )
    share = reading.share
    if share.lower is not None and share.upper is not None and share.lower < share.upper:
        finding += f" (the middle half of the examples: {share.lower:.0%} to {share.upper:.0%})"
    if reading.grade == Grade.BORDERLINE and not drowned:
        return [
            Advice(
                "",
                "",
                f"Borderline: {finding}.",
                f"A gradient that reaches {case.record.threshold:.0%} is said to reach; this one "
                "is within a tenth of it. Nothing to do unless longer lags matter.",
                math.nan,
            )
        ]
    cause, side, said = _cause(case, sides)
    found = vanishing_cure.against_vanishing(
        case.trials, end, sides, case.summary, leading_of(case)
    )
    name = found.layer or case.record.names[side]
    return [_told(case, cause, name, f"{finding}.{said}", found)]


def _drowned(case: Case, sides: list[int]) -> bool:
    """Whether inputs hold the units of some layer at the ends of their range nearly always.

    What gradient is left then comes through single steps, and how far back it seems to reach is
    chance.
    """
    for side in sides:
        if vanishing_cure.saturation(case.record.gates, case.summary.layers[side]) > MOSTLY:
            scales = case.trials.scales(case.trials.net, side)
            if (
                vanishing_cure.out_of_scale(scales)
                and scales.inputs.max() > 4 * vanishing_cure.LARGE
            ):
                return True
    return False


def sides_read(names: tuple[str, ...], end: int) -> list[int]:
    """The directions through which a gradient goes back in time from an end, a side a layer."""
    wanted = "reverse" if end else "forward"
    other = "forward" if end else "reverse"
    return [side for side, name in enumerate(names) if wanted in name or other not in name]


def _cause(case: Case, sides: list[int]) -> tuple[str, int, str]:
    """(illness, side, a sentence): the first cause in order that holds of some layer."""
    record = case.record
    for side in sides:
        layer = case.summary.layers[side]
        if layer.gates is None:
            continue
        ends = vanishing_cure.saturation(record.gates, layer)
        if ends > SHUT:
            scales = case.trials.scales(case.trials.net, side)
            if vanishing_cure.out_of_scale(scales):
                share = (scales.inputs**2).sum() / (scales.inputs**2 + scales.recurrent**2).sum()
                return (
                    "inputs out of scale",
                    side,
                    f" Units of {layer.name} spend {ends:.0%} of their steps at the ends of their "
                    f"range: W_ih x has a size of {scales.inputs.max():.3g}, {share:.0%} of the "
                    "pre-activations.",
                )
        if len(record.gates) == 1 and not one_sided(record.gates[0]) and ends > SHUT:
            return (
                "saturated",
                side,
                f" Units of {layer.name} spend {ends:.0%} of their steps within a tenth of the "
                "ends of their range, where the slope is almost 0.",
            )
    keeps = [gate for gate in record.gates if gate.role == "keeps"]
    if keeps and len(record.gates) > 1:
        gate = keeps[0]
        rows = [(side, case.summary.layers[side].gates) for side in sides]
        # The layer that remembers longest is the one that is nearest to carrying.
        side = max(sides, key=lambda s: case.summary.layers[s].share.median or 0.0)
        own = {s: gates[gate.name] for s, gates in rows if gates is not None}
        if side in own:
            each = own[side]
            shut = (each.low or 0.0) > SHUT
            return (
                f"{gate.title} gates shut" if shut else "vanishing",
                side,
                f" The {gate.title} gates of {record.names[side]} let {each.mean:.2g} through a "
                f"step; {each.low:.0%} are below 0.1.",
            )
    side = max(sides, key=lambda s: case.summary.layers[s].share.median or 0.0)
    return "vanishing", side, ""


def leading(layer: LayerFlow) -> float:
    """The leading exponent; NaN if none was measured."""
    return math.nan if layer.exponents is None else float(mean_exponents(layer)[0])


def leading_of(case: Case) -> list[float]:
    """The leading exponent of each direction."""
    return [leading(layer) for layer in case.record.layers]


def _told(case: Case, illness: str, name: str, finding: str, found: Found) -> Advice:
    """The advice; what it changes stays for the remedies that follow."""
    base, remedy = case.trials.base, found.remedy
    if base and found.after is not None:
        remedy = f"With what is advised above: {remedy[0].lower()}{remedy[1:]}"
    changes = (*base, *found.changes) if found.after is not None else ()
    case.trials.keep(found.changes)
    return Advice(illness, name, finding, remedy, found.value, found.before, found.after, changes)


def no_gradient_at_all(layer: LayerFlow) -> bool:
    """Whether no example has a gradient."""
    return not reached(layer).any()
