"""The illnesses of a net's gradients, each with its rule.

    illness             when
    not finite          an input or a state is NaN or inf
    no gradient         the loss does not depend on this layer
    exploding           ‖∂E/∂sₖ‖ grows more than 100-fold with the lag, or would at the rate of λ₁
    dead units          a tenth of the relu units or more are 0 throughout
    saturated           the units of a one-gate cell spend over half of their steps at an end
    <gate> gates shut   an input or output gate spends 90 % of its steps below 0.1
    <gate> gates open   likewise above 0.9, if the gate writes what it does not keep, as in the GRU
    forget gates shut   vanishing, and these gates spend half of their steps below 0.1
    vanishing           nothing from the first half of a sequence adds more than 1 % of lag 0

Of a layer that explodes nothing else is said. Of vanishing only the cause is named.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrnn.cells.traits import Gate
from jaxrnn.diagnosis.advice import Advice, logit, power, steps
from jaxrnn.diagnosis.summary import mean_exponents, reached

if TYPE_CHECKING:
    from jaxrnn.diagnosis.flow import GradientFlow, LayerFlow

__all__ = ["exploding", "no_gradient", "nonfinite", "of_gates", "vanishing"]

# From which growth, and which shares of steps or units, something is an illness: false alarms, or
# illnesses that are missed. Not measured; docs/decisions/advice-thresholds.md
GROWN = math.log(100.0)
SHUT, MOSTLY, DEAD = 0.5, 0.9, 0.1
SHUT_MEANS = {"writes": "nothing is written to c", "reads": "nothing is read from c"}


def nonfinite(flow: "GradientFlow") -> list[Advice]:
    """The first step with NaN or inf, and where it came from."""
    numbers = flow.summary()["nonfinite"]
    if numbers is None:
        return []
    step, where = numbers["first_step"], numbers["where"]
    finding = (
        f"step {step} of example {numbers['example']} has NaN or inf, first in "
        f"{'the input' if where == 'input' else where}; {numbers['examples']} of "
        f"{len(flow.lengths)} examples have some. All figures are of the steps before."
    )
    if where == "input":
        remedy = f"Look at the data at step {step}, or pass `lengths` if it is padding."
        return [Advice("not finite", "", finding, remedy, float(step))]
    remedy = "The state itself overflows: bound it, by tanh or by smaller recurrent weights."
    return [Advice("not finite", where, finding, remedy, float(step))]


def no_gradient(flow: "GradientFlow", name: str) -> Advice:
    """The advice for a layer that the loss does not depend on."""
    return Advice(
        "no gradient",
        name,
        f"the gradient of every weight is 0 for all {len(flow.lengths)} examples: the loss does "
        "not depend on this layer, or only through units that are off.",
        "Let the loss read the output of this layer, or of one that follows it.",
        math.nan,
    )


def exploding(
    flow: "GradientFlow", name: str, layer: "LayerFlow", numbers: dict[str, Any]
) -> Advice | None:
    """Growth that was measured, or that would follow from λ₁; None if there is neither."""
    rate, error = leading(layer), numbers.get("exponent_error") or 0.0
    # A stretch between resets may be longer than what the last step remembers.
    longest = max(int(flow.spans.max()), numbers.get("exponent_steps") or 0)
    growth = numbers["log_growth"]
    measured = -math.inf if growth is None else growth
    # Two standard errors below the rate, so that noise in λ₁ is no illness. The form `not … >` lets
    # a rate of NaN count as no growth.
    if measured <= GROWN and not (rate - 2 * error) * longest > GROWN:
        return None
    finding = (
        f"‖∂E/∂s‖ grows by up to {power(measured)} times with the lag"
        if measured > GROWN
        else f"over {longest} steps the distance of nearby states grows by "
        f"{power(rate * longest)} times"
    )
    if not math.isnan(rate):
        finding += f"; the leading exponent is {rate:+.3g} ± {error:.1g} nats a step"
    finding += "."
    # The strongest remedy that is known comes first: the bound holds for any input, the rate was
    # measured along these inputs.
    bound = numbers.get("gamma_sigma_max")
    if bound is not None and bound > 1:
        factor = 1 / bound
        remedy = (
            f"γσ_max(W_hh) = {bound:.3g}: multiply w_hh by {factor:.3g} and no input can make a "
            "gradient explode (initializers.scaled_to_bound)."
        )
    # The weights of a bare step have names that nobody here knows: no w_hh to multiply.
    elif rate > 0 and layer.gates is None:
        factor = math.exp(-rate)
        remedy = (
            "Scale the recurrent weights down, or let a gate forget more, until the leading "
            "exponent is not above 0; clip meanwhile."
        )
    elif rate > 0:
        factor = math.exp(-rate)
        remedy = (
            f"Multiply w_hh by e^-λ = {factor:.3g}, which would bring a linear net to λ = 0, and "
            "measure again (initializers.scaled_to_exponent does both); clip meanwhile."
        )
    elif math.isnan(rate):
        factor = math.nan
        remedy = "The sequences are too short for exponents: measure longer ones; clip meanwhile."
    else:
        factor = math.nan
        remedy = (
            "The growth is transient, λ is not above 0: clip, and leave the weights as they are."
        )
    return Advice("exploding", name, finding, remedy, factor)


def of_gates(
    flow: "GradientFlow", name: str, layer: "LayerFlow", numbers: dict[str, Any]
) -> list[Advice]:
    """Gates that stay shut or open, units at the ends of their range, and dead units."""
    if layer.gates is None:
        return []
    found = []
    # The one gate of such a cell is its output: there is nothing that it shuts.
    if len(flow.gates) == 1:
        (gate,) = flow.gates
        each = layer.gates[gate.name]
        low, high = np.asarray(each.low), np.asarray(each.high)
        if one_sided(gate):
            # Low at every step of every example. A unit that is off at some is what relu is for.
            dead = float((low == 1).mean())
            if dead >= DEAD:
                found.append(_dead(name, dead, low.size))
        elif float((low + high).mean()) > SHUT:
            found.append(_saturated(name, float((low + high).mean())))
        return found
    writes = any(gate.role == "writes" for gate in flow.gates)
    for gate in flow.gates:
        each = numbers["gates"][gate.name]
        if gate.role in SHUT_MEANS and each["low"] > MOSTLY:
            found.append(_shut(name, gate, each))
        # In an LSTM open forget gates are a long memory; its input gates write all the same.
        if gate.role == "keeps" and not writes and each["high"] > MOSTLY:
            found.append(_open(name, gate, each))
    return found


def one_sided(gate: Gate) -> bool:
    """Whether the range has only a low end, as that of relu: a unit that stays there is dead."""
    low, high = gate.range
    return math.isfinite(low) and not math.isfinite(high)


def _open(name: str, gate: Gate, numbers: dict[str, Any]) -> Advice:
    share, mean = numbers["high"], numbers["mean"]
    shift = logit(mean) - logit(0.5)
    return Advice(
        f"{gate.title} gates open",
        name,
        f"they spend {share:.0%} of their steps above 0.9 (mean {mean:.2g}).",
        f"Nothing new is taken in: subtract {shift:.2g} from the {gate.name} block of b, for a "
        "mean of ½ (initializers.with_gate_bias sets a block).",
        shift,
    )


def _dead(name: str, share: float, units: int) -> Advice:
    return Advice(
        "dead units",
        name,
        f"{round(share * units)} of {units} units are 0 at every step of every example.",
        "Draw their rows of w_ih and w_hh anew (initializers.redrawn) with a bias above 0, and "
        "lower the learning rate.",
        share,
    )


def _saturated(name: str, share: float) -> Advice:
    return Advice(
        "saturated",
        name,
        f"units spend {share:.0%} of their steps within a tenth of the ends of their range, where "
        "the slope is almost 0.",
        "Halve w_ih, w_hh and b and train on, or normalise the input.",
        0.5,
    )


def _shut(name: str, gate: Gate, numbers: dict[str, Any]) -> Advice:
    shift = logit(0.5) - logit(numbers["mean"])
    return Advice(
        f"{gate.title} gates shut",
        name,
        f"they spend {numbers['low']:.0%} of their steps below 0.1 (mean {numbers['mean']:.2g}): "
        f"{SHUT_MEANS[gate.role]}.",
        f"Add {shift:.2g} to the {gate.name} block of b, for a mean of ½ "
        "(initializers.with_gate_bias sets a block, initializers.redrawn draws the gate anew).",
        shift,
    )


def vanishing(
    flow: "GradientFlow", name: str, layer: "LayerFlow", numbers: dict[str, Any]
) -> list[Advice]:
    """A gradient that does not reach back half of the sequence, and the gate that stops it."""
    # Examples without a gradient have horizon 0 and are not counted. Each example is compared with
    # its own length, so that short sequences do not look forgetful.
    lengths, read = np.asarray(flow.spans, np.float64), reached(layer)
    seen = np.asarray(layer.horizon_1)[read] / lengths[read]
    reach, length = numbers["horizon_1_percent"]["median"], float(np.median(lengths))
    if np.median(seen) >= 0.5:
        return []
    finding = (
        f"nothing from {steps(reach)} back or more adds over 1 % of what the last step does, in "
        f"sequences of {length:.0f}."
    )
    for gate in flow.gates:
        if layer.gates is not None and len(flow.gates) > 1 and gate.role == "keeps":
            gates = numbers["gates"][gate.name]
            # Chrono initialisation (Tallec & Ollivier, 2018) with one time scale, the sequence's.
            wanted = 1 - 1 / max(length, 2.0)
            shift = logit(wanted) - logit(gates["mean"])
            shut = gates["low"] > SHUT
            illness = f"{gate.title} gates shut" if shut else "vanishing"
            finding += (
                f" The {gate.title} gates let {gates['mean']:.2g} through a step; "
                f"{gates['low']:.0%} are below 0.1."
            )
            remedy = (
                f"For a memory of {length:.0f} steps add {shift:.2g} to the {gate.name} block of "
                f"b, for a mean of 1 - 1/{length:.0f} (initializers.with_gate_bias sets a block, "
                "initializers.chrono draws one for a range of lags)."
            )
            return [Advice(illness, name, finding, remedy, shift)]
    rate = leading(layer)
    if rate == -math.inf:
        remedy = (
            "Every product of Jacobians is exactly 0 in the end: each unit is off at some step. "
            "Raise b, or take an activation whose slope is never 0."
        )
        return [Advice("vanishing", name, finding, remedy, math.nan)]
    if math.isnan(rate):
        remedy = "The sequences are too short for exponents: measure longer ones."
        return [Advice("vanishing", name, finding, remedy, math.nan)]
    if rate >= 0:
        remedy = "The leading exponent is not below 0: the last steps outweigh others that last."
        return [Advice("vanishing", name, finding, remedy, math.nan)]
    factor = math.exp(-rate)
    # Of a user's own step it is not known which weights are recurrent.
    if layer.gates is None:
        remedy = (
            f"The leading exponent is {rate:+.3g} nats a step: bring it near 0, by the bias of a "
            "gate that keeps the state or by larger recurrent weights, or train with "
            "regularizers.omega."
        )
        return [Advice("vanishing", name, finding, remedy, factor)]
    remedy = (
        f"The leading exponent is {rate:+.3g} nats a step: multiply w_hh by e^-λ = {factor:.3g}, "
        "which would bring a linear net to λ = 0 (initializers.scaled_to_exponent), train with "
        "regularizers.omega, or take a gated cell."
    )
    return [Advice("vanishing", name, finding, remedy, factor)]


def leading(layer: "LayerFlow") -> float:
    """The leading exponent; NaN if none was measured."""
    return math.nan if layer.exponents is None else float(mean_exponents(layer)[0])
