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
from jaxrnn.diagnosis.batches import Batch, chunk_size, chunks, finite_lengths, made, taken
from jaxrnn.diagnosis.flow import GradientFlow, LayerFlow
from jaxrnn.diagnosis.measurement import Part, measure
from jaxrnn.diagnosis.watching import Watched, sizes, watch
from jaxrnn.nets.layers import Layer, direct_adjoints, unroll_layers
from jaxrnn.numerics import state_vectors
from jaxrnn.numerics.time_axis import flipped
from jaxrnn.running.run import Run, precise

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
    progress: Bar = lambda chunks: chunks,
) -> GradientFlow:
    """How the gradients of a net flow back through time on a batch, and what to do about it.

        log ‖λₖᵇ‖,  log ‖∂E/∂θ|ₖᵇ‖        λₖ = ∂E/∂sₖ|direct + Jₖ₊₁ᵀ λₖ₊₁  of each step k, example b

    Args:    cell: any `Cell`, of every layer.
             params: the cell's, or a list of `jaxrnn.layers.Layer`, such as `Model.layers`.
             xs: `(T, *batch, D)`; batch axes come out flattened, B examples.
             loss: states ↦ one real scalar, the states being what `unroll` returns, for layers what
             `unroll_layers` does; None: each direction of each layer by itself, unit random
             cotangents on its last output, `draws` of them.
             state0: as in `unroll`, or for layers as in `unroll_layers`.
             lengths: as in `unroll`, at least one above 0.
             resets: as in `unroll`: how far a gradient reaches is counted from the last one.
             draws: of random cotangents, at least 1.
             chunk: examples at a time, by default chosen from the sizes.
             key: of the random cotangents, `jax.random.key(0)` by default.
             progress: range of chunks ↦ the same with a bar, such as `tqdm.tqdm`.
    Returns: a GradientFlow; print it, look at it in a notebook, or `jaxrnn.report.write` it.
    Raises:  TypeError or ValueError naming the argument: also a tracer, params that are not finite,
             and a batch without a step.
    Cost:    about 2 + draws gradients, and for a few examples products of whole Jacobians. Chunks
             bound the memory, but for a loss, which reads the states of all examples at once.
    Source:  docs/guides/diagnose.md; tests/diagnosis/test_diagnosis.py, against autodiff and planted
             illnesses.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> params = cell.init(jax.random.key(0), 3, 5, forget_bias=-3.0)
    >>> xs = jax.random.normal(jax.random.key(1), (40, 4, 3))
    >>> flow = jaxrnn.diagnose(cell, params, xs)
    >>> [advice.illness for advice in flow.advice if advice.illness]
    ['forget gates shut']
    """
    _check_options(draws, chunk, key, progress)
    net, given, shape = _checked(cell, params, Batch(xs, state0, lengths, resets))
    single = net[0].forward is params
    size = chunk_size(net, given.xs, chunk)
    whole: Any = None
    if loss is not None:
        _checks.check_callable("loss", loss, "(states) -> scalar")
        whole = _of_layers(loss, shape, single)
        unrolled = jax.eval_shape(lambda n, x: unroll_layers(cell, n, x), net, given.xs)
        _checks.check_loss("loss", whole, unrolled, ())

    # What is not finite is a finding.
    with jax.debug_nans(False), precise():
        ends, nonfinite, source = finite_lengths(cell, net, given, size)
        batch = given._replace(lengths=ends)
        direct, kind = None, "random"
        if whole is not None:
            direct, kind = _direct(cell, net, batch, whole)
        keys = jax.random.split(jax.random.key(0) if key is None else key, draws)
        parts: list[list[Part]] = []
        for rows in progress(chunks(given.xs.shape[1], size)):
            own = made(cell, net, batch.part(rows)), taken(rows, direct, 1)
            numbers = jnp.asarray(rows, jnp.uint32)
            parts.append(measure(*own, numbers, keys, kind != "last"))
        T, B, _ = given.xs.shape
        ends = np.full(B, T, np.int32) if ends is None else ends
        begins, spans = _stretches(given.resets, ends)
        longest = np.argsort(-spans, kind="stable")
        longest = longest if given.resets is None else longest[:1]  # others begin elsewhere
        watched, count = _watched(cell, net, given, (begins, spans, longest))
        layers = [
            _layer(cell, [chunk[index] for chunk in parts], seen, B)
            for index, seen in enumerate(watched)
        ]
        return GradientFlow(
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
        )


def _check_options(draws: Any, chunk: Any, key: Any, progress: Any) -> None:
    _checks.check_integer("draws", draws, least=1)
    if chunk is not None:
        _checks.check_integer("chunk", chunk, least=1)
    if key is not None:
        _checks.check_key(key)
    _checks.check_callable("progress", progress, "iterable -> iterable")


def _checked(
    cell: Cell, params: Params, batch: Batch
) -> tuple[tuple[Layer, ...], Batch, tuple[int, ...]]:
    """(net, batch with one axis of examples, its shape before) of arguments that fit."""
    for name, value in (("params", params), *batch._asdict().items()):
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value)):
            raise TypeError(
                f"{name}: expected an array outside of jax.jit, got a tracer; diagnose jits "
                "what it runs and reads the result"
            )
    layered = isinstance(params, list | tuple) and not hasattr(params, "_fields")
    _checks.check_cell(cell)
    xs, state0, lengths, resets = batch
    if layered:
        _checks.check_sequence("xs", xs)
        for name, check in (
            ("lengths", _checks.check_lengths),
            ("resets", _checks.check_resets),
        ):
            if getattr(batch, name) is not None:
                check(getattr(batch, name), xs)
        jax.eval_shape(lambda n, x, s: unroll_layers(cell, n, x, s), list(params), xs, state0)
    else:
        Run(cell, params, xs, state0, lengths=lengths, resets=resets)
        state0 = None if state0 is None else (Layer(state0),)
    shape = tuple(xs.shape[1:-1])
    if 0 in shape or xs.shape[0] == 0:
        raise ValueError(f"xs: expected at least one step of one example, got {tuple(xs.shape)}")
    if lengths is not None and not np.asarray(lengths).any():
        raise ValueError("lengths: expected at least one above 0, got zeros alone")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        bad = np.argwhere(~np.isfinite(np.asarray(leaf)))
        if bad.size:
            name = ("layers" if layered else "params") + jax.tree_util.keystr(path)
            at = tuple(int(i) for i in bad[0])
            raise ValueError(f"{name}: expected finite numbers, got {leaf[at]} at {at}")
    B, T = math.prod(shape), xs.shape[0]
    flat = Batch(
        xs.reshape(T, B, xs.shape[-1]),
        jax.tree.map(lambda leaf: leaf.reshape(B, *leaf.shape[len(shape) :]), state0),
        None if lengths is None else np.asarray(lengths).reshape(-1).astype(np.int32),
        None if resets is None else np.asarray(resets).reshape(T, B),
    )
    return tuple(params) if layered else (Layer(params),), flat, shape


def _stretches(resets: Any, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each example the longest stretch without a reset: where it begins, how long it is."""
    begins, spans = np.zeros_like(ends), ends.copy()
    if resets is not None:
        for b, end in enumerate(ends):
            inner = np.nonzero(resets[1 : max(end, 1), b])[0] + 1
            edges = np.concatenate([[0], inner, [end]])
            lengths = np.diff(edges)
            begins[b], spans[b] = edges[lengths.argmax()], lengths.max()
    return begins, spans


def _last_reset(resets: Any, ends: np.ndarray) -> np.ndarray:
    """The step at which what the last step remembers began, `(B,)`."""
    if resets is None:
        return np.zeros_like(ends)
    step = np.arange(len(resets))[:, None]
    return np.where(resets & (step < ends), step, 0).max(0).astype(ends.dtype)


def _of_layers(loss: Any, batch: tuple[int, ...], single: bool) -> Loss:
    """The loss as a function of the states of layers with one batch axis."""

    def whole(states: State) -> Array:
        shaped = jax.tree.map(lambda s: s.reshape(s.shape[0], *batch, *s.shape[2:]), states)
        return loss(shaped[0].forward if single else shaped)

    return whole


def _direct(cell: Cell, net: tuple[Layer, ...], batch: Batch, loss: Any) -> tuple[Any, str]:
    """∂E/∂sₖ at fixed other states of each layer, and whether the loss reads last steps alone."""
    whole = jax.tree.map(jnp.asarray, batch)
    own, direct = direct_adjoints(made(cell, net, whole), loss)
    # Of each layer by itself: what the layers above pass down is no reading of the loss's.
    states = [[None if run is None else run.states() for run in layer] for layer in own]
    lengths = whole.lengths
    turned = [Layer(f, jax.tree.map(lambda d: flipped(d, lengths), r)) for f, r in states]
    ends = np.asarray(np.full(batch.xs.shape[1], batch.xs.shape[0]) if lengths is None else lengths)
    early = np.arange(batch.xs.shape[0])[:, None] < ends - 1
    kind = "last"
    for layer in jax.grad(loss)(tuple(turned)):
        sides = layer.forward, jax.tree.map(lambda d: flipped(d, lengths), layer.reverse)
        for leaf in jax.tree.leaves(sides):
            if (np.asarray(leaf) != 0).any(-1)[early].any():
                kind = "steps"
    return direct, kind


def _layer(cell: Cell, parts: list[Part], seen: Watched | None, B: int) -> LayerFlow:
    """One direction of one layer, its chunks put together."""

    def joined(*chunks: Any) -> Any:
        return jnp.concatenate(chunks, axis=-1)[..., :B]

    examples = jax.tree.map(joined, *[part._replace(gate_sums=None) for part in parts])
    gates = None
    if parts[0].gate_sums is not None:
        # A dict comes out of jit sorted; a table wants the cell's own order.
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
    cell: Cell, net: tuple[Layer, ...], batch: Batch, stretches: Any
) -> tuple[list[Watched | None], int]:
    """Each direction along the longest examples, cut to one length; how many those are at most."""
    begins, spans, order = stretches
    found: list[Watched | None] = []
    count = 0
    sides = [side for layer in net for side in layer if side is not None]
    for number, params in enumerate(sides):
        state = jax.eval_shape(cell.init_state, params)
        n = state_vectors.size(state)
        chosen = order[: sizes(int(spans.max()), len(spans), n).examples]
        chosen = chosen[2 * spans[chosen] >= spans.max()]  # a short one would cut the others
        T, count = int(spans[chosen].min()), max(count, len(chosen))
        if T < 2:
            found.append(None)
            continue
        first = int(begins[chosen[0]])
        xs = jnp.asarray(batch.xs[first : first + T, chosen])
        state0 = jax.tree.map(lambda leaf, rows=chosen: jnp.asarray(leaf)[rows], batch.state0)
        read = made(cell, net, Batch(xs, state0))
        run = [side for layer in read for side in layer if side is not None][number]
        found.append(watch(run, sizes(T, len(chosen), n)))
    return found, count


def _names(net: tuple[Layer, ...]) -> tuple[str, ...]:
    names = []
    for number, layer in enumerate(net, 1):
        if layer.reverse is None:
            names.append(f"layer {number}")
        else:
            names += [f"layer {number}, forward", f"layer {number}, reverse"]
    return tuple(names)
