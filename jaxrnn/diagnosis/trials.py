"""Remedies tried on the batch of the diagnosis, by the rules of the diagnosis."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrnn.analysis.gate_statistics import GateStatistics, of_sums, sums
from jaxrnn.cells.contract import Cell
from jaxrnn.diagnosis.advice import Change, Outcome
from jaxrnn.diagnosis.batches import GivenBatch, chunks, joined, made, taken
from jaxrnn.diagnosis.figures import ReadingSummary
from jaxrnn.diagnosis.probing import reach, sides_of
from jaxrnn.diagnosis.record import Reading, Record
from jaxrnn.diagnosis.remedies import done, shift_for
from jaxrnn.diagnosis.summary import paths_of, reading_summary
from jaxrnn.nets.layers import Layer
from jaxrnn.running.run import Run
from jaxrnn.running.steps import trajectory

__all__ = ["Scales", "Trials", "Tried", "outcome"]


class Tried(NamedTuple):
    """A net that was changed, and what was measured of it.

    Attributes:
      changes: What was changed.
      net: The changed net.
      readings: What reaches the inputs, for each end that is read.
    """

    changes: tuple[Change, ...]
    net: tuple[Layer, ...]
    readings: list[ReadingSummary]


class Scales(NamedTuple):
    """How large the pre-activations of a direction are, and where that comes from.

    Attributes:
      inputs: √ mean (W_ih x)² of each gate.
      recurrent: √ mean (W_hh h)² of each gate.
      centre: The mean of each input, `(D,)`.
      offset: √ mean over units of (W_ih centre)², over all gates: what is the same at all steps.
    """

    inputs: np.ndarray
    recurrent: np.ndarray
    centre: np.ndarray
    offset: float


class Trials:
    """A net and its batch, with which remedies are tried.

    Attributes:
      cell: The cell.
      net: The net as it is, with the changes that were kept.
      names: The names of its directions.
      spans: How many steps a gradient could reach in each example.
      added: The growth that a stack adds up without a step that grows, a log.
      first: The net that was diagnosed.
      base: The changes of the remedies that were found before, which stay.
    """

    def __init__(
        self,
        cell: Cell,
        net: tuple[Layer, ...],
        batch: GivenBatch,
        size: int,
        keys: Array,
        direct: Callable[[tuple[Layer, ...]], Any],
        record: Record,
    ) -> None:
        """A batch cut before the first NaN or inf, its chunk size, and what the diagnosis had.

        `direct` gives ∂E/∂sₖ of a net where the readings are those of a loss, else None.
        """
        self.cell, self.net, self.names = cell, net, record.names
        self.spans = np.asarray(record.spans)
        self.added = paths_of(record)
        self.first = net
        self.base: tuple[Change, ...] = ()
        self._batch, self._size, self._keys, self._direct = batch, size, keys, direct
        self._record = record

    def changed(self, *changes: Change) -> Tried:
        """The net after some changes, measured."""
        net = functools.reduce(lambda net, change: done(self.cell, net, change), changes, self.net)
        return Tried(changes, net, self.measured(net))

    def keep(self, changes: tuple[Change, ...]) -> None:
        """From here on the net is the one after these changes: remedies may act on each other."""
        self.base += changes
        self.net = functools.reduce(lambda net, each: done(self.cell, net, each), changes, self.net)

    def measured(self, net: tuple[Layer, ...]) -> list[ReadingSummary]:
        """What reaches the inputs of a net."""
        direct, found = self._direct(net), []
        for rows, part in self._parts():
            at = made(self.cell, net, part), taken(rows, direct, 1)
            found.append(reach(*at, jnp.asarray(rows, jnp.uint32), self._keys))
        B = self._batch.xs.shape[1]
        readings = [Reading(*map(joined(B), *own)) for own in zip(*found, strict=True)]
        return [
            reading_summary(name, reading, self._record)
            for name, reading in zip(self._record.ends, readings, strict=True)
        ]

    def gates(self, net: tuple[Layer, ...], side: int) -> dict[str, GateStatistics]:
        """The gates of a direction over the batch."""
        parts = [_gates(sides_of(made(self.cell, net, part))[side]) for _, part in self._parts()]
        added = jax.tree.map(lambda *leaves: sum(np.asarray(leaf) for leaf in leaves), *parts)
        found = of_sums({gate: added[gate] for gate in self.cell.gates})
        return jax.tree.map(np.asarray, found)

    def shift(self, net: tuple[Layer, ...], side: int, gate: str, goal: float) -> Change | None:
        """The shift of a gate's bias that brings its mean to `goal`; None if there is none."""

        def change(value: float) -> Change:
            return Change(self.names[side], side, "bias", value, gate)

        def mean_at(value: float) -> float:
            found = self.gates(done(self.cell, net, change(value)), side)
            return float(np.mean(found[gate].mean))

        value = shift_for(mean_at, goal)
        return None if value is None else change(value)

    def scales(self, net: tuple[Layer, ...], side: int) -> Scales:
        """Of the pre-activations of a direction."""
        parts = [_scales(sides_of(made(self.cell, net, part))[side]) for _, part in self._parts()]
        inputs, recurrent, centre, count = [
            sum(np.asarray(leaf, np.float64) for leaf in leaves)
            for leaves in zip(*parts, strict=True)
        ]
        count = max(float(count), 1.0)
        centre = np.asarray(centre / count)
        w_ih = np.asarray(sides_of(net)[side].w_ih, np.float64)
        offset = float(np.sqrt(np.mean((w_ih @ centre) ** 2)))
        return Scales(np.sqrt(inputs / count), np.sqrt(recurrent / count), centre, offset)

    def _parts(self) -> Any:
        rows = chunks(self._batch.xs.shape[1], self._size)
        return [(each, self._batch.part(each)) for each in rows]


def outcome(
    readings: list[ReadingSummary], *figures: tuple[str, float], end: int | None = None
) -> Outcome:
    """The reading at an end, by default the one that reaches less, and the largest growth."""
    shares = [-1.0 if each.share.median is None else each.share.median for each in readings]
    read = readings[shares.index(min(shares)) if end is None else end]
    growth = max((each.log_growth for each in readings if each.log_growth is not None), default=0.0)
    horizon, share = read.horizon_1_percent.median, read.share.median
    return Outcome(horizon, share, growth, tuple(figures), read.name, read.curve)


@jax.jit
def _gates(run: Run) -> Any:
    return sums(run, trajectory(run))


@jax.jit
def _scales(run: Run) -> tuple[Array, ...]:
    """Sums over steps and examples: (W_ih x)² and (W_hh h)² by gate, x, and their number."""
    steps, cell = trajectory(run), run.cell
    whole = cell.project(run.params, steps.xs)
    inputs = whole - cell.project(run.params, jnp.zeros_like(steps.xs))
    weight = cell.traits.recurrent_weight
    assert weight is not None  # the caller has seen gates
    recurrent = jnp.einsum("gh,tbh->tbg", weight(run.params), steps.before.h).astype(whole.dtype)
    live = jnp.ones(whole.shape[:2], bool) if steps.held is None else ~steps.held

    def by_gate(z: Array) -> Array:
        z = jnp.where(live[..., None], z, jnp.zeros((), z.dtype))
        blocks = z.reshape(*z.shape[:2], len(cell.gates), -1)
        return jnp.mean(blocks * blocks, -1).sum((0, 1))

    xs = jnp.where(live[..., None], steps.xs, jnp.zeros((), steps.xs.dtype))
    return by_gate(inputs), by_gate(recurrent), xs.sum((0, 1)), live.sum()
