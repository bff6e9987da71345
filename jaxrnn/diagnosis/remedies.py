"""Changes of a net's params that may cure it, and the numbers in them, solved for on a batch."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxrnn import _checks
from jaxrnn.cells.contract import Cell, Params
from jaxrnn.diagnosis.advice import Advice, Change, logit
from jaxrnn.nets.layers import Layer

__all__ = ["MOST", "cured", "done", "root", "shift_for"]

# The largest shift of a bias that is ever advised. Beyond it a gate is held shut or open by its
# pre-activations, and their scale is what ails it. docs/decisions/advice-thresholds.md
MOST = 10.0
# 1 - mean is met to this share of itself. Cells have other ways to be off.
NEAR = 0.005
# How many forward passes a shift may take; the search has needed 4 to 8 on the planted nets.
PASSES = 24


def cured(cell: Cell, params: Params | Sequence[Layer], advice: Advice) -> Any:
    """The params after the changes of an advice.

    Args:
      cell: The cell that was diagnosed.
      params: The params that were diagnosed: of the cell, or a list of `jaxrnn.layers.Layer`.
      advice: One of `flow.advice`.

    Returns:
      The params, in the form in which they came. They are the same where the advice changes none,
      as for a training setting.

    Raises:
      TypeError: If `advice` is no Advice.
      ValueError: If the net has fewer layers than the advice speaks of, or `params` do not have the
        leaves that it changes.

    Cost:
      A copy of the leaves that change.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> params = cell.init(jax.random.key(0), 3, 5, forget_bias=-3.0)
    >>> xs = jax.random.normal(jax.random.key(1), (40, 4, 3))
    >>> advice = jaxrnn.diagnose(cell, params, xs).advice[0]
    >>> better = jaxrnn.diagnosis.cured(cell, params, advice)
    >>> [advice.illness for advice in jaxrnn.diagnose(cell, better, xs).advice if advice.illness]
    []
    """
    if not isinstance(advice, Advice):
        raise TypeError(f"advice: expected one of flow.advice, got {_checks.describe(advice)}")
    _checks.check_cell(cell)
    layered = isinstance(params, list | tuple) and not hasattr(params, "_fields")
    net = tuple(params) if layered else (Layer(params),)
    count = sum(side is not None for layer in net for side in layer)
    for change in advice.changes:
        if change.side >= count:
            raise ValueError(
                f"params: expected the net that was diagnosed, with {change.layer}, got {count} "
                f"layer direction{'s' * (count != 1)}"
            )
        net = done(cell, net, change)
    return list(net) if layered else net[0].forward


def done(cell: Cell, net: tuple[Layer, ...], change: Change) -> tuple[Layer, ...]:
    """The net after one change; every other leaf as it was."""
    number, found = 0, []
    for layer in net:
        sides = []
        for side in layer:
            if side is not None:
                side = _changed(cell, side, change) if number == change.side else side
                number += 1
            sides.append(side)
        found.append(Layer(*sides))
    return tuple(found)


def _changed(cell: Cell, params: Any, change: Change) -> Any:
    missing = [name for name in ("w_ih", "w_hh", "b") if not hasattr(params, name)]
    if missing:
        raise ValueError(f"params: expected the leaf {missing[0]} in {change.layer}, got none")
    # By NumPy: an eager operation of JAX would compile a program for each shape.
    w_ih, w_hh, b = (np.array(leaf, np.float64) for leaf in (params.w_ih, params.w_hh, params.b))
    if change.what == "bias":
        rows = b.reshape(len(cell.gates), -1)
        rows[cell.gates.index(change.gate)] += change.value
    elif change.what == "inputs":
        w_ih = change.value * w_ih
        if change.centre:
            b = b - w_ih @ np.array(change.centre)
    elif change.what == "recurrent":
        w_hh = change.value * w_hh
    else:
        return _redrawn(params, w_ih, w_hh, b, change)
    return _with(params, w_ih, w_hh, b)


def _redrawn(params: Any, w_ih: np.ndarray, w_hh: np.ndarray, b: np.ndarray, change: Change) -> Any:
    """Rows of some units drawn anew, their bias a little above 0."""
    units = list(change.units)
    normal = np.random.default_rng(int(change.value)).normal
    # He's variance for relu, of all that a unit reads.
    size = math.sqrt(2 / (w_ih.shape[1] + w_hh.shape[1]))
    for w in (w_ih, w_hh):
        w[units] = size * normal(size=(len(units), w.shape[1]))
    b[units] = 0.1
    return _with(params, w_ih, w_hh, b)


def _with(params: Any, *leaves: np.ndarray) -> Any:
    names = ("w_ih", "w_hh", "b")
    new = {
        name: jax.device_put(leaf.astype(getattr(params, name).dtype))
        for name, leaf in zip(names, leaves, strict=True)
    }
    return params._replace(**new)


def shift_for(mean_at: Callable[[float], float], goal: float) -> float | None:
    """The shift of a gate's bias that brings its mean to `goal`.

    Args:
      mean_at: shift ↦ the mean gate of the net with that shift, states and all; it rises.
      goal: In (0, 1).

    Returns:
      The shift; None if none up to ±MOST does it.
    """

    def off(shift: float) -> float:
        return logit(mean_at(shift)) - logit(goal)

    near = min(goal, 1 - goal) * NEAR / (goal * (1 - goal))  # in logits, for NEAR of the rarer side
    return root(off, MOST, near)


def root(off: Callable[[float], float], most: float, near: float) -> float | None:
    """A zero of a rising function in [-most, most], to |off| ≤ near; None if there is none.

    Secants within a bracket (the Illinois form of the false position): each call is a pass over the
    data, and halving would take more of them.
    """
    start = off(0.0)
    if abs(start) <= near:
        return 0.0
    # A sigmoid of equal pre-activations would be there at once.
    a, fa = 0.0, start
    b = float(np.clip(-start, -most, most))
    for _ in range(PASSES):
        fb = off(b)
        if abs(fb) <= near:
            return b
        if fa * fb < 0:
            break
        if abs(b) >= most:
            return None
        # At least twice as far again, or a flat function would never be crossed.
        step = max(1.5 * abs(fb), 2 * abs(b - a))
        a, fa, b = b, fb, float(np.clip(b - math.copysign(step, fb), -most, most))
    else:
        return None
    for _ in range(PASSES):
        c = (a * fb - b * fa) / (fb - fa)
        fc = off(c)
        if abs(fc) <= near:
            return c
        if fc * fb < 0:
            a, fa = b, fb
        else:
            fa /= 2
        b, fb = c, fc
    return None
