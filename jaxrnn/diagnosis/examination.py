"""The diagnosis of a net on a batch."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from chex import PRNGKey
from jax import Array

from jaxrnn import _checks
from jaxrnn.analysis.gate_statistics import of_sums
from jaxrnn.cells.contract import Cell, Loss, Params, State
from jaxrnn.diagnosis.advising import advise
from jaxrnn.diagnosis.batches import (
    GivenBatch,
    chunk_size,
    chunks,
    joined,
    made,
    taken,
)
from jaxrnn.diagnosis.finite_part import finite_lengths
from jaxrnn.diagnosis.flow import GradientFlow
from jaxrnn.diagnosis.probing import Part, measure, sides_of
from jaxrnn.diagnosis.record import LayerFlow, Reading, Record
from jaxrnn.diagnosis.trials import Trials
from jaxrnn.diagnosis.watching import Watched, watch, watched_sizes
from jaxrnn.nets.layers import Layer, unroll_layers
from jaxrnn.numerics import state_vectors
from jaxrnn.numerics.padding import flipped
from jaxrnn.numerics.tangents import moving
from jaxrnn.running.adjoint import gradient_of
from jaxrnn.running.run import Run, check_some_state, precise

__all__ = ["diagnose"]

Bar = Callable[[Iterable[Any]], Iterable[Any]]


def diagnose(
    cell: Cell,
    params: Params | Sequence[Layer],
    xs: Array,
    loss: Loss | None = None,
    *,
    state0: State = None,
    lengths: Array | None = None,
    resets: Array | None = None,
    draws: int = 4,
    chunk: int | None = None,
    key: PRNGKey | None = None,
    reach: float = 0.5,
    progress: Bar = lambda chunks: chunks,
) -> GradientFlow:
    """How the gradients of a net flow back through time on a batch, and what to do about it.

        log ‖∂E/∂xₖᵇ‖        of the net, of each step k and example b
        log ‖λₖᵇ‖,  log ‖∂E/∂θ|ₖᵇ‖        of each layer, λₖ = ∂E/∂sₖ|direct + Jₖ₊₁ᵀ λₖ₊₁

    The net is judged as a whole, by what reaches its inputs. What is advised against an illness has
    been done to a copy of the params, and the net measured again on the same batch.

    Args:
      cell: Any `Cell`; every layer is of this one.
      params: The params of the cell, or a list of `jaxrnn.layers.Layer` such as `Model.layers`.
      xs: The inputs, `(T, *batch, D)`. The result has the batch axes flattened to B examples.
      loss: A function of the states that gives one real number. The states are what `unroll`
        returns, or for layers what `unroll_layers` returns. None: the net is probed end to end,
        with unit random cotangents on its last output, at each end that is read.
      state0: As in `unroll`, or for layers as in `unroll_layers`.
      lengths: As in `unroll`; at least one must be above 0.
      resets: As in `unroll`. How far a gradient reaches is counted from the last reset.
      draws: How many random cotangents each example gets, at least 1. The mean of their norms is
        taken.
      chunk: How many examples are taken at a time. By default it follows from the sizes.
      key: The key of the random cotangents; None stands for `jax.random.key(0)`.
      reach: The share of a sequence, in (0, 1], that a gradient has to reach. Within a tenth of it
        a net is borderline.
      progress: A function that gives the iterable of chunks back with a progress bar, such as
        `tqdm.tqdm`.

    Returns:
      A GradientFlow. Print it, show it in a notebook, or write a page with `jaxrnn.report.write`.

    Raises:
      TypeError: If an argument is of the wrong type or dtype, or is a tracer: `diagnose` cannot
        stand inside `jax.jit`.
      ValueError: If shapes do not fit together, an option is out of its range, a param is NaN or
        inf, xs has no example or no step, all `lengths` are 0, or `loss` gives no scalar.

    Cost:
      About 2 + draws gradients, twice that for stacks, and for a few examples products of whole
      Jacobians. A remedy that is tried costs about 10 gradients. Chunks bound the memory, except
      with a loss: it reads the states of all examples at once.

    Source:
      docs/guides/diagnose.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> params = cell.init(jax.random.key(0), 3, 5, forget_bias=-3.0)
    >>> xs = jax.random.normal(jax.random.key(1), (40, 4, 3))
    >>> flow = jaxrnn.diagnose(cell, params, xs)
    >>> [advice.illness for advice in flow.advice if advice.illness]
    ['forget gates shut']
    """
    _check_options(draws, chunk, key, progress)
    _checks.check_real("reach", reach, least=0.0)
    if not 0 < reach <= 1:
        raise ValueError(f"reach: expected 0 < reach <= 1, got {reach}")
    net, given, shape = _checked(cell, params, GivenBatch(xs, state0, lengths, resets))
    # A loss on a bare cell reads its states, a loss on layers a tuple of Layer.
    single = net[0].forward is params
    size = chunk_size(net, given.xs, chunk)
    whole: Any = None
    if loss is not None:
        _checks.check_callable("loss", loss, "(states) -> scalar")
        whole = _of_layers(loss, shape, single)
        # Shapes alone: a loss that does not fit is refused before anything is computed.
        unrolled = jax.eval_shape(lambda n, x: unroll_layers(cell, n, x), net, given.xs)
        _checks.check_loss("loss", whole, unrolled, ())

    # NaN and inf are findings here, also for a user who has jax_debug_nans on.
    with jax.debug_nans(False), precise():
        ends, nonfinite, source = finite_lengths(cell, net, given, size)
        batch = given._replace(lengths=ends)
        direct, kind = None, "random"
        # The loss is differentiated once, of all examples; chunks take their rows of ∂E/∂sₖ|direct.
        if whole is not None:
            direct, kind = _direct(cell, net, batch, whole)
        # A lag is counted from one step. Only a loss on the last step alone has one, and with two
        # directions there are two ends; for all else lags are those of random cotangents.
        by_loss = kind == "last" and net[-1].reverse is None
        keys = jax.random.split(jax.random.key(0) if key is None else key, draws)
        parts: list[list[Part]] = []
        readings: list[tuple[Reading, ...]] = []
        for rows in progress(chunks(given.xs.shape[1], size)):
            own = made(cell, net, batch.part(rows)), taken(rows, direct, 1)
            numbers = jnp.asarray(rows, jnp.uint32)
            found = measure(*own, numbers, keys, not by_loss)
            parts.append(found[0])
            readings.append(found[1])
        T, B, _ = given.xs.shape
        ends = np.full(B, T, np.int32) if ends is None else ends
        begins, spans = _stretches(given.resets, ends)
        longest = np.argsort(-spans, kind="stable")
        # Examples are watched as one batch, from one step on. Stretches between resets begin at
        # different steps, so that only one of them can be watched.
        longest = longest if given.resets is None else longest[:1]
        watched, count = _watched(cell, net, given, (begins, spans, longest))
        layers = [
            _layer(cell, [chunk[index] for chunk in parts], seen, B)
            for index, seen in enumerate(watched)
        ]
        record = Record(
            net=tuple(Reading(*map(joined(B), *own)) for own in zip(*readings, strict=True)),
            layers=tuple(layers),
            lengths=jnp.asarray(ends),
            spans=jnp.asarray(ends - _last_reset(given.resets, ends)),
            nonfinite=jnp.asarray(nonfinite),
            source=jnp.asarray(source),
            names=_names(net),
            cell=cell.name,
            gates=cell.traits.gates,
            loss=kind,
            watched=tuple(int(i) for i in longest[:count]),
            threshold=float(reach),
        )

        def direct_of(other: tuple[Layer, ...]) -> Any:
            return _direct(cell, other, batch, whole)[0] if by_loss else None

        trials = Trials(cell, net, batch, size, keys, direct_of, record)
        return GradientFlow(**vars(record), advice=advise(record, trials))


def _check_options(draws: Any, chunk: Any, key: Any, progress: Any) -> None:
    _checks.check_integer("draws", draws, least=1)
    if chunk is not None:
        _checks.check_integer("chunk", chunk, least=1)
    if key is not None:
        _checks.check_key(key)
    _checks.check_callable("progress", progress, "iterable -> iterable")


def _checked(
    cell: Cell, params: Params, batch: GivenBatch
) -> tuple[tuple[Layer, ...], GivenBatch, tuple[int, ...]]:
    """(net, batch with one axis of examples, its shape before); refuses what does not fit."""
    for name, value in (("params", params), *batch._asdict().items()):
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value)):
            raise TypeError(
                f"{name}: expected an array outside of jax.jit, got a tracer; diagnose jits "
                "what it runs and reads the result"
            )
    # The params of one cell are a NamedTuple, and so a tuple as well.
    layered = isinstance(params, list | tuple) and not hasattr(params, "_fields")
    _checks.check_cell(cell)
    xs, state0, lengths, resets = batch
    if layered:
        _checks.check_sequence("xs", xs)
        # Here and not within eval_shape: the values of lengths are unknown inside a trace.
        for name, check in (
            ("lengths", _checks.check_lengths),
            ("resets", _checks.check_resets),
        ):
            if getattr(batch, name) is not None:
                check(getattr(batch, name), xs)
        jax.eval_shape(lambda n, x, s: unroll_layers(cell, n, x, s), list(params), xs, state0)
    else:
        run = Run(cell, params, xs, state0, lengths=lengths, resets=resets)
        check_some_state(run)
        _checks.check_sequence("xs", xs)  # a bare step may read a tree or tokens
        state0 = None if state0 is None else (Layer(state0),)
    shape = tuple(xs.shape[1:-1])
    if 0 in shape or xs.shape[0] == 0:
        raise ValueError(f"xs: expected at least one step of one example, got {tuple(xs.shape)}")
    if lengths is not None and not np.asarray(lengths).any():
        raise ValueError("lengths: expected at least one above 0, got zeros alone")
    # With NaN in a weight every step would be a finding, and none would tell of the weight.
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        bad = np.argwhere(~np.isfinite(np.asarray(leaf)))
        if bad.size:
            name = ("layers" if layered else "params") + jax.tree_util.keystr(path)
            at = tuple(int(i) for i in bad[0])
            raise ValueError(f"{name}: expected finite numbers, got {leaf[at]} at {at}")
    B, T = math.prod(shape), xs.shape[0]
    flat = GivenBatch(
        xs.reshape(T, B, xs.shape[-1]),
        jax.tree.map(lambda leaf: leaf.reshape(B, *leaf.shape[len(shape) :]), state0),
        None if lengths is None else np.asarray(lengths).reshape(-1).astype(np.int32),
        None if resets is None else np.asarray(resets).reshape(T, B),
    )
    return tuple(params) if layered else (Layer(params),), flat, shape


def _stretches(resets: Any, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The longest stretch without a reset in each example: where it begins, how long it is."""
    begins, spans = np.zeros_like(ends), ends.copy()
    if resets is not None:
        for b, end in enumerate(ends):
            # A reset at step 0 cuts nothing, and one in the padding is not reached.
            inner = np.nonzero(resets[1 : max(end, 1), b])[0] + 1
            edges = np.concatenate([[0], inner, [end]])
            lengths = np.diff(edges)
            begins[b], spans[b] = edges[lengths.argmax()], lengths.max()
    return begins, spans


def _last_reset(resets: Any, ends: np.ndarray) -> np.ndarray:
    """The step of the last reset before the end, 0 without one: no gradient reaches further."""
    if resets is None:
        return np.zeros_like(ends)
    step = np.arange(len(resets))[:, None]
    return np.where(resets & (step < ends), step, 0).max(0).astype(ends.dtype)


def _of_layers(loss: Any, batch: tuple[int, ...], single: bool) -> Loss:
    """The loss as a function of the states of layers with one batch axis.

    A user's loss expects the batch axes of its own xs, and for a bare cell the states alone.
    """

    def whole(states: State) -> Array:
        shaped = jax.tree.map(lambda s: s.reshape(s.shape[0], *batch, *s.shape[2:]), states)
        return loss(shaped[0].forward if single else shaped)

    return whole


def _direct(cell: Cell, net: tuple[Layer, ...], batch: GivenBatch, loss: Any) -> tuple[Any, str]:
    """∂E/∂sₖ with all other states fixed, in each one's time; whether E reads last steps alone."""
    whole = jax.tree.map(jnp.asarray, batch)
    lengths = whole.lengths
    # The loss expects both directions in the order of the inputs. The last step of a backward
    # direction is its first input, so its states are turned, and its gradient turned back again.
    states = [[None if run is None else run.states() for run in layer]
              for layer in made(cell, net, whole)]  # fmt: skip
    turned = [Layer(f, jax.tree.map(lambda d: flipped(d, lengths), r)) for f, r in states]
    found = [
        Layer(layer.forward, jax.tree.map(lambda d: flipped(d, lengths), layer.reverse))
        for layer in gradient_of(loss, tuple(turned))
    ]
    ends = np.asarray(np.full(batch.xs.shape[1], batch.xs.shape[0]) if lengths is None else lengths)
    early = np.arange(batch.xs.shape[0])[:, None] < ends - 1
    read = any((np.asarray(leaf) != 0).any(-1)[early].any() for leaf in jax.tree.leaves(found))
    return tuple(found), "steps" if read else "last"


def _layer(cell: Cell, parts: list[Part], seen: Watched | None, B: int) -> LayerFlow:
    """One direction of one layer, its chunks put together."""
    examples = jax.tree.map(joined(B), *[part._replace(gate_sums=None) for part in parts])
    gates = None
    if parts[0].gate_sums is not None:
        # jit returns a dict with sorted keys; tables show the gates in the cell's own order.
        added = jax.tree.map(lambda *sums: functools.reduce(jnp.add, sums),
                             *[part.gate_sums for part in parts])  # fmt: skip
        gates = of_sums({gate: added[gate] for gate in cell.gates})
    measured = {name: leaf for name, leaf in examples._asdict().items() if name != "gate_sums"}
    return LayerFlow(
        **measured,
        exponents=None if seen is None else seen.exponents,
        bounds=None if seen is None else seen.bounds,
        spectrum=None if seen is None else seen.spectrum,
        paths=None if seen is None else seen.paths,
        weights=None if seen is None else seen.weights,
        gates=gates,
    )


def _watched(
    cell: Cell, net: tuple[Layer, ...], batch: GivenBatch, stretches: Any
) -> tuple[list[Watched | None], int]:
    """What is watched of each direction, along the longest examples cut to one length.

    Also how many examples that is in the direction that takes most.
    """
    begins, spans, order = stretches
    found: list[Watched | None] = []
    count = 0
    for number, params in enumerate(sides_of(net)):
        state = moving(jax.eval_shape(cell.init_state, params))
        n = state_vectors.size(state)
        chosen = order[: watched_sizes(int(spans.max()), len(spans), n).examples]
        chosen = chosen[2 * spans[chosen] >= spans.max()]  # a short one would cut the others
        T, count = int(spans[chosen].min()), max(count, len(chosen))
        # One step has no product of Jacobians: no rate to measure, nothing to certify.
        if T < 2:
            found.append(None)
            continue
        first = int(begins[chosen[0]])
        xs = jnp.asarray(batch.xs[first : first + T, chosen])
        state0 = jax.tree.map(lambda leaf, rows=chosen: leaf[rows], batch.state0)
        # The whole net again, for an upper layer reads what those below make of this cut batch.
        # After a reset a sequence begins from state0, and nothing else is left to mask.
        read = made(cell, net, GivenBatch(xs, state0))
        run = sides_of(read)[number]
        found.append(watch(run, watched_sizes(T, len(chosen), n)))
    return found, count


def _names(net: tuple[Layer, ...]) -> tuple[str, ...]:
    names = []
    for number, layer in enumerate(net, 1):
        if layer.reverse is None:
            names.append(f"layer {number}")
        else:
            names += [f"layer {number}, forward", f"layer {number}, reverse"]
    return tuple(names)
