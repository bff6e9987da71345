"""All advice on a net: illnesses of the net and its layers, then settings."""

import math

from jaxrnn.diagnosis import illnesses, settings
from jaxrnn.diagnosis.advice import Advice, steps
from jaxrnn.diagnosis.figures import Summary
from jaxrnn.diagnosis.illnesses import Case
from jaxrnn.diagnosis.record import Record
from jaxrnn.diagnosis.summary import summarise
from jaxrnn.diagnosis.trials import Trials
from jaxrnn.diagnosis.verdict import GROWN

__all__ = ["advise"]


def advise(record: Record, trials: Trials) -> tuple[Advice, ...]:
    """Illnesses, each with a remedy that was tried, then advice on settings of training.

    Args:
      record: What was measured.
      trials: With which remedies are tried.

    Returns:
      A tuple of Advice, never empty; see `GradientFlow.advice`.
    """
    summary = summarise(record)
    case = Case(record, summary, trials)
    found = illnesses.nonfinite(case)
    # Where no example has one finite step, "not finite" is all that can be said.
    if int(record.lengths.max()):
        found += _of_the_net(case)
    exploding = any(each.illness == "exploding" for each in found)
    found += settings.clipping(record, exploding) + settings.truncation(record)
    return tuple(found) or (_nothing(case.length, summary),)


def _of_the_net(case: Case) -> list[Advice]:
    record = case.record
    explosion = illnesses.exploding(case)
    if explosion is not None:
        return [explosion]
    found: list[Advice] = []
    for side, (name, layer) in enumerate(zip(record.names, record.layers, strict=True)):
        dead = illnesses.dead_units(case, side)
        found += dead
        # Without any gradient there is no curve to judge.
        if illnesses.no_gradient_at_all(layer):
            # Gates that let nothing through are why, if there are any.
            found += (
                []
                if dead
                else illnesses.of_gates(case, side) or [illnesses.no_gradient(case, name)]
            )
            continue
        found += illnesses.of_gates(case, side)
    # Dead units of a cell with one gate are themselves why its gradient vanishes.
    if not any(each.illness == "dead units" for each in found):
        for end in range(len(record.net)):
            found += illnesses.vanishing(case, end)
    return found


def _nothing(length: float, summary: Summary) -> Advice:
    """The one Advice of a net without a finding."""
    rates = [layer.exponents[0] for layer in summary.layers if layer.exponents]
    reach = [reading.horizon_1_percent.median for reading in summary.net]
    known = [rate for rate in rates if rate is not None]
    least = min((each for each in reach if each is not None), default=math.nan)
    # Growth below the threshold of "exploding" is no illness, but "do not grow" would be false.
    growth = max((r.log_growth for r in summary.net if r.log_growth is not None), default=0.0)
    grown = (
        "do not grow"
        if growth < math.log(2)
        else f"grow {math.exp(growth):.1f}-fold at most, below the "
        f"{math.exp(GROWN):.0f}-fold that counts as exploding"
    )
    rate = f" The leading exponent is {max(known):+.2g} nats a step." if known else ""
    return Advice(
        "",
        "",
        # `least` may exceed `length`: it is a median over the examples that have a gradient alone.
        f"Gradients reach back {steps(min(least, length))} of {length:.0f} and {grown}.{rate}",
        "Nothing to do.",
        math.nan,
    )
