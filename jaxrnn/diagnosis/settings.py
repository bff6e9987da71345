"""Advice on two settings of training.

A clipping threshold, if the norms of the examples' gradients reach ten times their median, or
explode. A truncation length, if half of a sequence or less gives all but 1 % of the gradient.
"""

import math

import numpy as np

from jaxrnn.diagnosis.advice import Advice, power, steps
from jaxrnn.diagnosis.record import Record
from jaxrnn.diagnosis.summary import window_for

__all__ = ["clipping", "truncation"]

# The largest gradient of an example over the median from which on clipping is advised: advice where
# none is needed, or none where it is. Not measured; docs/decisions/advice-thresholds.md
TAIL = 10.0


def clipping(record: Record, exploding: bool) -> list[Advice]:
    """A threshold for the norm of the gradient, if the norms of the examples call for one."""
    # A threshold acts on all layers together: ‖g‖² = Σ ‖g_l‖². In logs, since a norm that has
    # exploded may be beyond any float.
    logs = np.stack([np.asarray(layer.gradient, np.float64) for layer in record.layers])
    logs = np.logaddexp.reduce(2 * logs, axis=0) / 2
    # An example whose gradient is 0 says nothing about a threshold.
    logs = np.sort(logs[np.isfinite(logs)])
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
    # The gradient of a batch is the sum over its examples: its norm is at most the sum of theirs.
    # With no example above `chosen`, this is what a batch without outliers does not exceed.
    batch = np.logaddexp.reduce(np.minimum(logs, chosen))
    # In an explosion nine in ten have exploded too. What the last step adds has gone through no
    # Jacobian, and is the size that gradients would have without the explosion.
    if exploding:
        ends = np.maximum(np.asarray(record.lengths) - 1, 0)[None]
        lag_0 = [np.take_along_axis(np.asarray(layer.contribution_by_lag, np.float64), ends, 0)[0]
                 for layer in record.layers]  # fmt: skip
        lag_0 = np.logaddexp.reduce(2 * np.stack(lag_0), axis=0) / 2
        chosen, batch = np.median(lag_0), np.logaddexp.reduce(lag_0)
        finding += f" What the last step adds by itself is {power(chosen)}."
    # Random cotangents have length 1: their norms have ratios that mean something, and no scale.
    if record.loss == "random":
        ratio = math.exp(min(chosen - middle, 700.0))  # math.exp overflows beyond 709
        remedy = (
            f"Clip the norm at {ratio:.3g} times the median norm of your own loss's gradients. "
            "Diagnose with that loss to get the threshold itself."
        )
        return [Advice("", "", "Clipping: " + finding, remedy, ratio)]
    value = math.exp(min(batch, 700.0))
    summed = (
        "what the last step adds in each example"
        if exploding
        else "the examples' norms, each counted up to the one that nine in ten do not exceed"
    )
    remedy = (
        f"Clip the norm of this batch's gradient at {value:.3g}, the sum of "
        f"{summed}: clipping.clip_by_global_norm({value:.3g})."
    )
    return [Advice("", "", "Clipping: " + finding, remedy, value)]


def truncation(record: Record) -> list[Advice]:
    """A window for back-propagation through time, if half of the steps or less are enough."""
    T = record.layers[0].adjoint.shape[0]
    if any(name.endswith("reverse") for name in record.names):
        # The last steps of a backward direction are the first of the sequence: both directions
        # together need all of it.
        return []
    # A layer without a window that is long enough needs the whole sequence. One that the loss does
    # not depend on needs nothing.
    reached = [layer for layer in record.layers if np.isfinite(np.asarray(layer.gradient)).any()]
    window = max((window_for(layer, T) or T for layer in reached), default=T)
    # Not half of the lengths: a reset cuts the gradient by itself.
    if window > float(np.median(np.asarray(record.spans))) / 2:
        return []
    return [
        Advice(
            "",
            "",
            f"Truncation: a window of {steps(window)} has the gradient up to an error below 1 %"
            f"{', in each layer by itself' * (len(record.layers) > 1 and record.loss != 'last')}.",
            f"Back-propagation through {steps(window)} of {T} is enough for this net as it is; it "
            "will not teach the net longer lags.",
            float(window),
        )
    ]
