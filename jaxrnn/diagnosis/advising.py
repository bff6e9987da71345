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
    """Illnesses of the layers, then advice on settings of training.

    Args:
      flow: The GradientFlow that `diagnose` returned.

    Returns:
      A tuple of Advice, never empty: first NaN or inf, then the illnesses layer by layer, then
      clipping and truncation. If nothing was found, one Advice says so. `flow.advice` is this
      tuple.

    Raises:
      TypeError: If `flow` is not a GradientFlow.

    Cost:
      NumPy on the host over the arrays of `flow`, O(T·B log B) for each layer; no gradient.

    Source:
      docs/guides/diagnose.md has the rules.
    """
    # Not isinstance: flow.py imports this module for `flow.advice`, and imports make no circle.
    if not hasattr(flow, "layers"):
        raise TypeError(f"flow: expected the GradientFlow of diagnose, got {describe(flow)}")
    found = illnesses.nonfinite(flow)
    exploding = False
    figures = flow.summary()["layers"]
    for name, layer, numbers in zip(flow.names, flow.layers, figures, strict=True):
        # Where no example has one finite step, "not finite" is all that can be said.
        if not int(flow.lengths.max()):
            continue
        gates = illnesses.of_gates(flow, name, layer, numbers)
        # Without any gradient there is no curve to judge; dead units are the only cause known here.
        if not np.isfinite(np.asarray(layer.gradient)).any():
            dead = [advice for advice in gates if advice.illness == "dead units"]
            found += dead or [illnesses.no_gradient(flow, name)]
            continue
        explosion = illnesses.exploding(flow, name, layer, numbers)
        exploding |= bool(explosion)
        found += [explosion] if explosion else []
        if explosion is None:
            found += gates
            # Saturated or dead units of a one-gate cell are themselves why its gradient vanishes:
            # the cause alone is named.
            found += (
                []
                if gates and len(layer.gates or {}) == 1
                else illnesses.vanishing(flow, name, layer, numbers)
            )
    found += settings.clipping(flow, exploding) + settings.truncation(flow)
    return tuple(found) or (_nothing(flow, figures),)


def _nothing(flow: "GradientFlow", figures: list[dict[str, Any]]) -> Advice:
    """The one Advice of a net without a finding."""
    rates = [f["exponents"][0] for f in figures if f.get("exponents")]
    reach = [f["horizon_1_percent"]["median"] for f in figures]
    known = [r for r in rates if r is not None]
    least = min((r for r in reach if r is not None), default=math.nan)
    length = float(np.median(np.asarray(flow.spans)))
    # Growth below the threshold of "exploding" is no illness, but "do not grow" would be false.
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
        # `least` may exceed `length`: it is a median over the examples that have a gradient alone.
        f"Gradients reach back {steps(min(least, length))} of {length:.0f} and {grown}.{rate}",
        "Nothing to do.",
        math.nan,
    )
