"""All advice on a net: illnesses of its layers, then settings."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrnn._checks import describe
from jaxrnn.diagnosis import illnesses, settings
from jaxrnn.diagnosis.advice import Advice, steps

if TYPE_CHECKING:
    from jaxrnn.diagnosis.flow import GradientFlow

__all__ = ["advise"]


def advise(flow: "GradientFlow") -> tuple[Advice, ...]:
    """Illnesses of the layers, then settings; one that says so where there is nothing to do.

    Args:    flow: the GradientFlow of `diagnose`.
    Returns: a tuple of Advice, never empty: what is not finite, then layer by layer, then clipping
             and truncation. `flow.advice` is this.
    Raises:  TypeError for what is not a GradientFlow.
    Cost:    NumPy on the host over the arrays of the flow, O(T·B log B) a layer; no gradient.
    Source:  the rules of docs/guides/diagnose.md.
    """
    if not hasattr(flow, "layers"):
        raise TypeError(f"flow: expected the GradientFlow of diagnose, got {describe(flow)}")
    found = illnesses.nonfinite(flow)
    exploding = False
    figures = flow.summary()["layers"]
    for name, layer, numbers in zip(flow.names, flow.layers, figures, strict=True):
        if not int(flow.lengths.max()):
            continue
        gates = illnesses.of_gates(flow, name, layer, numbers)
        if not np.isfinite(np.asarray(layer.gradient)).any():
            dead = [advice for advice in gates if advice.illness == "dead units"]
            found += dead or [illnesses.no_gradient(flow, name)]
            continue
        explosion = illnesses.exploding(flow, name, layer, numbers)
        exploding |= bool(explosion)
        found += [explosion] if explosion else []
        if explosion is None:
            found += gates
            # A net of one gate that is at its ends has its cause of vanishing.
            found += (
                []
                if gates and len(layer.gates or {}) == 1
                else illnesses.vanishing(flow, name, layer, numbers)
            )
    found += settings.clipping(flow, exploding) + settings.truncation(flow)
    return tuple(found) or (_nothing(flow, figures),)


def _nothing(flow: "GradientFlow", figures: list[dict[str, Any]]) -> Advice:
    rates = [f["exponents"][0] for f in figures if f.get("exponents")]
    reach = [f["horizon_1_percent"]["median"] for f in figures]
    known = [r for r in rates if r is not None]
    least = min((r for r in reach if r is not None), default=math.nan)
    length = float(np.median(np.asarray(flow.spans)))
    growth = max((f["log_growth"] for f in figures if f["log_growth"] is not None), default=0.0)
    grown = (
        "do not grow"
        if growth < math.log(2)
        else f"grow {math.exp(growth):.1f}-fold at most, below the "
        f"{math.exp(illnesses.GROWN):.0f}-fold that counts as exploding"
    )
    rate = f" The leading exponent is {max(known):+.2g} nats a step." if known else ""
    return Advice(
        "",
        "",
        f"Gradients reach back {steps(min(least, length))} of {length:.0f} and {grown}.{rate}",
        "Nothing to do.",
        math.nan,
    )
