"""Advice on two settings of training.

A clipping threshold where the norms of the examples' gradients reach ten times their median, or
explode; a truncation length where half of a sequence or less leaves out under 1 %.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from jaxrnn.diagnosis.advice import Advice, power, steps
from jaxrnn.diagnosis.summary import window_for

if TYPE_CHECKING:
    from jaxrnn.diagnosis.flow import GradientFlow

__all__ = ["clipping", "truncation"]

# The largest gradient of an example over the median from which on clipping is advised: advice where
# none is needed, or none where it is. Not measured; docs/decisions/advice-thresholds.md
TAIL = 10.0


def clipping(flow: "GradientFlow", exploding: bool) -> list[Advice]:
    """A threshold for the norm, if the norms call for one."""
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
        f"the gradients of {logs.size} examples have norms of {power(middle)} in the median and "
        f"{power(most)} at most."
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
        finding += f" What the last step adds by itself is {power(chosen)}."
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


def truncation(flow: "GradientFlow") -> list[Advice]:
    """A window for back-propagation through time, if half of the steps or less will do."""
    T = flow.layers[0].adjoint.shape[0]
    if any(name.endswith("reverse") for name in flow.names):
        return []  # its last steps are the first of the sequence: nothing can be cut
    # A layer for which no window will do needs the whole sequence.
    reached = [layer for layer in flow.layers if np.isfinite(np.asarray(layer.gradient)).any()]
    window = max((window_for(layer, T) or T for layer in reached), default=T)
    if window > float(np.median(np.asarray(flow.spans))) / 2:  # a reset cuts by itself
        return []
    return [
        Advice(
            "",
            "",
            f"Truncation: the last {steps(window)} give the gradient but for less than 1 %"
            f"{' in each layer by itself' * (len(flow.layers) > 1 and flow.loss != 'last')}.",
            f"Back-propagation through {steps(window)} of {T} is enough for this net as it is; it "
            "will not teach it longer lags.",
            float(window),
        )
    ]
