"""What to do about the gradients of a net: a rule, a number, and the measurement behind it.

    illness             when
    not finite          some number is none
    no gradient         the loss does not depend on this layer
    exploding           ‖∂E/∂sₖ‖ grows more than 100-fold with the lag, or would at the rate of λ₁
    dead units          a tenth of the relu units or more are 0 throughout
    saturated           the units of a one-gate cell spend over half of their steps at an end
    <gate> gates shut   an input or output gate spends 90 % of its steps below 0.1
    update gates open   likewise above 0.9, the GRU's: nothing new is taken in
    forget gates shut   vanishing, and these gates spend half of their steps below 0.1
    vanishing           nothing from the first half of a sequence adds more than 1 % of lag 0

A layer that explodes is not asked further, and of vanishing only the cause is named. Beside
illnesses there is advice on two settings: a clipping threshold where the norms of the examples'
gradients reach ten times their median, or explode, and a truncation length where half of a sequence
or less leaves out under 1 %.
"""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxrnn.diagnosis.summary import exponents, window_for

if TYPE_CHECKING:
    from jaxrnn.diagnosis.flow import GradientFlow, LayerFlow

__all__ = ["Advice", "advise"]

GROWN = math.log(100.0)
SHUT, MOSTLY, DEAD, TAIL = 0.5, 0.9, 0.1, 10.0
NAMES = {"i": "input", "o": "output", "f": "forget", "z": "update"}


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


def advise(flow: "GradientFlow") -> tuple[Advice, ...]:
    """Illnesses of the layers, then settings; one that says so where there is nothing to do."""
    found = _nonfinite(flow)
    exploding = False
    figures = flow.summary()["layers"]
    for name, layer, numbers in zip(flow.names, flow.layers, figures, strict=True):
        if not int(flow.lengths.max()):
            continue
        gates = _gates(flow, name, layer, numbers)
        if not np.isfinite(np.asarray(layer.gradient)).any():
            dead = [advice for advice in gates if advice.illness == "dead units"]
            found += dead or [_no_gradient(flow, name)]
            continue
        explosion = _exploding(flow, name, layer, numbers)
        exploding |= bool(explosion)
        found += [explosion] if explosion else []
        if explosion is None:
            found += gates
            # A net of one gate that is at its ends has its cause of vanishing.
            found += (
                []
                if gates and len(layer.gates or {}) == 1
                else _vanishing(flow, name, layer, numbers)
            )
    found += _clipping(flow, exploding) + _truncation(flow)
    return tuple(found) or (_nothing(flow, figures),)


def _nonfinite(flow: "GradientFlow") -> list[Advice]:
    numbers = flow.summary()["nonfinite"]
    if numbers is None:
        return []
    step, where = numbers["first_step"], numbers["where"]
    finding = (
        f"step {step} of example {numbers['example']} is not finite, first in "
        f"{'the input' if where == 'input' else where}; so are {numbers['examples']} of "
        f"{len(flow.lengths)} examples. All figures are of what comes before."
    )
    if where == "input":
        remedy = f"Look at the data at step {step}, or pass `lengths` if it is padding."
        return [Advice("not finite", "", finding, remedy, float(step))]
    remedy = "The state itself overflows: bound it, by tanh or by smaller recurrent weights."
    return [Advice("not finite", where, finding, remedy, float(step))]


def _no_gradient(flow: "GradientFlow", name: str) -> Advice:
    return Advice(
        "no gradient",
        name,
        f"the gradient of every weight is 0 for all {len(flow.lengths)} examples: the loss does "
        "not depend on this layer, or only through units that are off.",
        "Let the loss read what comes of it.",
        math.nan,
    )


def _exploding(
    flow: "GradientFlow", name: str, layer: "LayerFlow", numbers: dict[str, Any]
) -> Advice | None:
    rate, error = _rate(layer), numbers.get("exponent_error") or 0.0
    longest, growth = int(flow.lengths.max()), numbers["log_growth"]
    measured = -math.inf if growth is None else growth
    if measured <= GROWN and not (rate - 2 * error) * longest > GROWN:
        return None
    finding = (
        f"‖∂E/∂s‖ grows by up to {_power(measured)} times with the lag"
        if measured > GROWN
        else f"over {longest} steps nearby states part by {_power(rate * longest)} times"
    )
    if not math.isnan(rate):
        finding += f"; the leading exponent is {rate:+.3g} ± {error:.1g} nats a step"
    finding += "."
    bound = numbers.get("gamma_sigma_max")
    if bound is not None and bound > 1:
        factor = 1 / bound
        remedy = (
            f"γσ_max(W_hh) = {bound:.3g}: multiply w_hh by {factor:.3g} and no input can make a "
            "gradient explode (initializers.scaled_to_bound)."
        )
    elif rate > 0:
        factor = math.exp(-rate)
        remedy = (
            f"Multiply w_hh by e^-λ = {factor:.3g}, which would bring a linear net to λ = 0, and "
            "measure again (initializers.scaled_to_exponent does both); clip meanwhile."
        )
    else:
        factor = math.nan
        remedy = "The growth is transient, λ is not above 0: clip, and leave the weights."
    return Advice("exploding", name, finding, remedy, factor)


def _gates(
    flow: "GradientFlow", name: str, layer: "LayerFlow", numbers: dict[str, Any]
) -> list[Advice]:
    gates = layer.gates
    if gates is None:
        return []
    found = []
    if len(gates) == 1:
        (each,) = gates.values()
        low, high = np.asarray(each.low), np.asarray(each.high)
        dead = float((low == 1).mean())
        if flow.cell == "rnn[relu]":
            if dead >= DEAD:
                found.append(_dead(name, dead, low.size))
        elif float((low + high).mean()) > SHUT:
            found.append(_saturated(name, float((low + high).mean())))
        return found
    for gate, meaning in (("i", "nothing is written to c"), ("o", "nothing is read from c")):
        if gate in gates and numbers["gates"][gate]["low"] > MOSTLY:
            found.append(_shut(name, gate, numbers["gates"][gate], meaning))
    if "z" in gates and numbers["gates"]["z"]["high"] > MOSTLY:
        share, mean = numbers["gates"]["z"]["high"], numbers["gates"]["z"]["mean"]
        finding = f"they spend {share:.0%} of their steps above 0.9 (mean {mean:.2g})."
        shift = _logit(mean) - _logit(0.5)
        remedy = (
            f"Nothing new is taken in: lower their bias by {shift:.2g}, to a mean of ½ "
            "(initializers.with_gate_bias)."
        )
        found.append(Advice("update gates open", name, finding, remedy, shift))
    return found


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


def _shut(name: str, gate: str, numbers: dict[str, Any], meaning: str) -> Advice:
    shift = _logit(0.5) - _logit(numbers["mean"])
    return Advice(
        f"{NAMES[gate]} gates shut",
        name,
        f"they spend {numbers['low']:.0%} of their steps below 0.1 (mean {numbers['mean']:.2g}): "
        f"{meaning}.",
        f"Raise the {gate} block of b by {shift:.2g}, to a mean of ½ "
        "(initializers.with_gate_bias, or initializers.redrawn).",
        shift,
    )


def _vanishing(
    flow: "GradientFlow", name: str, layer: "LayerFlow", numbers: dict[str, Any]
) -> list[Advice]:
    lengths = np.asarray(flow.lengths, np.float64)
    seen = np.asarray(layer.horizon_1)[lengths > 0] / lengths[lengths > 0]
    reach, length = numbers["horizon_1_percent"]["median"], float(np.median(lengths))
    if np.median(seen) >= 0.5:
        return []
    finding = (
        f"nothing from {_steps(reach)} back or more adds over 1 % of what the last step does, in "
        f"sequences of {length:.0f}."
    )
    for gate in ("f", "z"):
        if layer.gates is not None and len(layer.gates) > 1 and gate in layer.gates:
            gates = numbers["gates"][gate]
            wanted = 1 - 1 / max(length, 2.0)
            shift = _logit(wanted) - _logit(gates["mean"])
            shut = gates["low"] > SHUT
            illness = f"{NAMES[gate]} gates shut" if shut else "vanishing"
            finding += (
                f" The {NAMES[gate]} gates let {gates['mean']:.2g} through a step; "
                f"{gates['low']:.0%} are below 0.1."
            )
            remedy = (
                f"For a memory of {length:.0f} steps raise the {gate} block of b by {shift:.2g}, "
                f"to a mean of 1 - 1/{length:.0f} (initializers.with_gate_bias; "
                "initializers.chrono for a range of lags)."
            )
            return [Advice(illness, name, finding, remedy, shift)]
    rate = _rate(layer)
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
    remedy = (
        f"The leading exponent is {rate:+.3g} nats a step: multiply w_hh by e^-λ = {factor:.3g}, "
        "which would bring a linear net to λ = 0 (initializers.scaled_to_exponent), train with "
        "regularizers.omega, or take a gated cell."
    )
    return [Advice("vanishing", name, finding, remedy, factor)]


def _clipping(flow: "GradientFlow", exploding: bool) -> list[Advice]:
    # Of all layers together, ‖g‖² = Σ ‖g_l‖².
    logs = np.stack([np.asarray(layer.gradient, np.float64) for layer in flow.layers])
    logs = np.logaddexp.reduce(2 * logs, axis=0) / 2
    logs = np.sort(logs[np.isfinite(logs)])  # a gradient of 0 says nothing about a threshold
    if not logs.size:
        return []
    middle, most = logs[(logs.size - 1) // 2], logs[-1]
    if not exploding and most - middle <= math.log(TAIL):
        return []
    finding = (
        f"the gradients of {logs.size} examples have norms of {_power(middle)} in the median and "
        f"{_power(most)} at most."
    )
    chosen = logs[int(0.9 * (logs.size - 1))]  # what one in ten exceeds
    # The gradient of a batch is the sum over its examples: at most the sum of their norms.
    batch = np.logaddexp.reduce(np.minimum(logs, chosen))
    if exploding:
        ends = np.maximum(np.asarray(flow.lengths) - 1, 0)[None]
        lag_0 = [np.take_along_axis(np.asarray(layer.contribution_by_lag, np.float64), ends, 0)[0]
                 for layer in flow.layers]  # fmt: skip
        lag_0 = np.logaddexp.reduce(2 * np.stack(lag_0), axis=0) / 2
        chosen, batch = np.median(lag_0), np.logaddexp.reduce(lag_0)
        finding += f" What the last step adds by itself is {_power(chosen)}."
    if flow.loss == "random":
        ratio = math.exp(min(chosen - middle, 700.0))
        remedy = (
            f"Clip the norm at {ratio:.3g} times the median of your own loss's gradients; measured "
            "with that loss, this becomes a number."
        )
        return [Advice("", "", "Clipping: " + finding, remedy, ratio)]
    value = math.exp(min(batch, 700.0))
    remedy = (
        f"Clip the norm of this batch's gradient at {value:.3g}, which no sum of "
        f"{'last steps' if exploding else 'the nine in ten'} exceeds: "
        f"clipping.clip_by_global_norm({value:.3g})."
    )
    return [Advice("", "", "Clipping: " + finding, remedy, value)]


def _truncation(flow: "GradientFlow") -> list[Advice]:
    T = flow.layers[0].adjoint.shape[0]
    if any(name.endswith("reverse") for name in flow.names):
        return []  # its last steps are the first of the sequence: nothing can be cut
    # A layer for which no window will do needs the whole sequence.
    reached = [layer for layer in flow.layers if np.isfinite(np.asarray(layer.gradient)).any()]
    window = max((window_for(layer, T) or T for layer in reached), default=T)
    if window > float(np.median(np.asarray(flow.lengths))) / 2:
        return []
    return [
        Advice(
            "",
            "",
            f"Truncation: the last {_steps(window)} give the gradient but for less than 1 %"
            f"{' in each layer by itself' * (len(flow.layers) > 1 and flow.loss != 'last')}.",
            f"Back-propagation through {_steps(window)} of {T} is enough for this net as it is; it "
            "will not teach it longer lags.",
            float(window),
        )
    ]


def _nothing(flow: "GradientFlow", figures: list[dict[str, Any]]) -> Advice:
    rates = [f["exponents"][0] for f in figures if f.get("exponents")]
    reach = [f["horizon_1_percent"]["median"] for f in figures]
    known = [r for r in rates if r is not None]
    least = min((r for r in reach if r is not None), default=math.nan)
    length = float(np.median(np.asarray(flow.lengths)))
    rate = f" The leading exponent is {max(known):+.2g} nats a step." if known else ""
    return Advice(
        "",
        "",
        f"Gradients reach back {_steps(min(least, length))} of {length:.0f} and do not grow.{rate}",
        "Nothing to do.",
        math.nan,
    )


def _rate(layer: "LayerFlow") -> float:
    """The leading exponent; NaN where none was measured."""
    return math.nan if layer.exponents is None else float(exponents(layer)[0])


def _steps(count: float) -> str:
    return f"{count:.0f} step{'s' * (round(count) != 1)}"


def _logit(p: float) -> float:
    p = min(max(p, 1e-12), 1 - 1e-12)
    return math.log(p) - math.log1p(-p)


def _power(log: float) -> str:
    return f"{math.exp(log):.3g}" if abs(log) < 20 else f"e^{log:.4g}"
