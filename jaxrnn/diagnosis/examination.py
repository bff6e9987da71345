"""The diagnosis of a net on a batch."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from chex import ArrayTree, PRNGKey
from jax import Array

from jaxrnn import arguments
from jaxrnn.cell import Cell
from jaxrnn.diagnosis.batches import chunk_size, chunks, finite_lengths, lengths_of, taken
from jaxrnn.diagnosis.flow import GradientFlow, LayerFlow
from jaxrnn.diagnosis.measurement import Part, measure
from jaxrnn.diagnosis.watching import Watched, sizes, watch
from jaxrnn.gate_statistics import of_sums
from jaxrnn.layers import Layer, direct_adjoints, flipped, readings, unroll_layers
from jaxrnn.unrolling import check

__all__ = ["diagnose"]

Bar = Callable[[Iterable[Any]], Iterable[Any]]


def diagnose(
    cell: Cell,
    params: ArrayTree | Sequence[Layer],
    xs: Array,
    loss: Callable[[Any], Array] | None = None,
    *,
    lengths: Array | None = None,
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
             lengths: as in `unroll`, at least one above 0.
             draws: of random cotangents, at least 1.
             chunk: examples at a time, by default chosen from the sizes.
             key: of the random cotangents, `jax.random.key(0)` by default.
             progress: range of chunks ↦ the same with a bar, such as `tqdm.tqdm`.
    Returns: a GradientFlow; print it, look at it in a notebook, or `jaxrnn.report.write` it.
    Raises:  TypeError or ValueError naming the argument: also a tracer, params that are not finite,
             and a batch without a step.
    Cost:    about 2 + draws gradients, and for a few examples products of whole Jacobians. Chunks
             bound the memory, but for a loss, which reads the states of all examples at once.
    Source:  docs/guides/diagnose.md; tests/test_diagnosis.py, against autodiff and planted
             illnesses.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> params = cell.init(jax.random.key(0), 3, 5, forget_bias=-3.0)
    >>> xs = jax.random.normal(jax.random.key(1), (40, 4, 3))
    >>> flow = jaxrnn.diagnose(cell, params, xs)
    >>> [advice.illness for advice in flow.advice if advice.illness]
    ['forget gates shut']
    """
    net, batch = _checked(cell, params, xs, lengths, draws, chunk, key, progress)
    single = net[0].forward is params
    xs = xs.reshape(xs.shape[0], math.prod(batch), xs.shape[-1])
    given: Any = None if lengths is None else np.asarray(lengths).reshape(-1).astype(np.int32)
    size = chunk_size(net, xs, chunk)
    whole: Any = None
    if loss is not None:
        arguments.check_callable("loss", loss, "(states) -> scalar")
        whole = _of_layers(loss, batch, single)
        unrolled = jax.eval_shape(lambda n, x: unroll_layers(cell, n, x), net, xs)
        arguments.check_loss("loss", whole, unrolled, ())

    with jax.debug_nans(False):  # what is not finite is a finding
        ends, nonfinite, source = finite_lengths(cell, net, xs, given, size)
        direct, kind = None, "random"
        if whole is not None:
            direct, kind = _direct(cell, net, jnp.asarray(xs), whole, ends)
        keys = jax.random.split(jax.random.key(0) if key is None else key, draws)
        parts: list[list[Part]] = []
        for rows in progress(chunks(xs.shape[1], size)):
            own = taken(rows, xs, 1), lengths_of(rows, ends), taken(rows, direct, 1)
            parts.append(
                measure(cell, net, *own, jnp.asarray(rows, jnp.uint32), kind != "last", keys)
            )
        T, B, _ = xs.shape
        ends = np.full(B, T, np.int32) if ends is None else ends
        longest = np.argsort(-ends, kind="stable")
        watched, count = _watched(cell, net, xs, ends, longest)
        layers = [
            _layer(cell, [chunk[index] for chunk in parts], seen, B)
            for index, seen in enumerate(watched)
        ]
        return GradientFlow(
            layers=tuple(layers),
            lengths=jnp.asarray(ends),
            nonfinite=jnp.asarray(nonfinite),
            source=jnp.asarray(source),
            names=_names(net),
            cell=cell.name,
            loss=kind,
            watched=tuple(int(i) for i in longest[:count]),
        )


def _checked(
    cell: Cell, params: Any, xs: Any, lengths: Any, draws: Any, chunk: Any, key: Any, progress: Any
) -> tuple[tuple[Layer, ...], tuple[int, ...]]:
    """(net, batch shape) of arguments that fit."""
    for name, value in (("params", params), ("xs", xs), ("lengths", lengths)):
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value)):
            raise TypeError(
                f"{name}: expected an array outside of jax.jit, got a tracer; diagnose jits "
                "what it runs and reads the result"
            )
    layered = isinstance(params, list | tuple) and not hasattr(params, "_fields")
    arguments.check_cell(cell)
    if layered:
        batch = arguments.check_sequence("xs", xs)
        jax.eval_shape(lambda n, x: unroll_layers(cell, n, x), list(params), xs)
        if lengths is not None:
            arguments.check_lengths(lengths, xs)
    else:
        check(cell, params, xs, None, lengths)
        batch = tuple(xs.shape[1:-1])
    if 0 in batch or xs.shape[0] == 0:
        raise ValueError(f"xs: expected at least one step of one example, got {tuple(xs.shape)}")
    if lengths is not None and not np.asarray(lengths).any():
        raise ValueError("lengths: expected at least one above 0, got zeros alone")
    arguments.check_size("draws", draws, least=1)
    if chunk is not None:
        arguments.check_size("chunk", chunk, least=1)
    if key is not None:
        arguments.check_key(key)
    arguments.check_callable("progress", progress, "iterable -> iterable")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        bad = np.argwhere(~np.isfinite(np.asarray(leaf)))
        if bad.size:
            name = ("layers" if layered else "params") + jax.tree_util.keystr(path)
            at = tuple(int(i) for i in bad[0])
            raise ValueError(f"{name}: expected finite numbers, got {leaf[at]} at {at}")
    return tuple(params) if layered else (Layer(params),), batch


def _of_layers(loss: Any, batch: tuple[int, ...], single: bool) -> Any:
    """The loss as a function of the states of layers with one batch axis."""

    def whole(states: Any) -> Array:
        shaped = jax.tree.map(lambda s: s.reshape(s.shape[0], *batch, *s.shape[2:]), states)
        return loss(shaped[0].forward if single else shaped)

    return whole


def _direct(
    cell: Cell, net: tuple[Layer, ...], xs: Array, loss: Any, lengths: Any
) -> tuple[Any, str]:
    """∂E/∂sₖ at fixed other states of each layer, and whether the loss reads last steps alone."""
    lengths = None if lengths is None else jnp.asarray(lengths)
    states = unroll_layers(cell, net, xs, lengths=lengths)
    ends = np.full(xs.shape[1], xs.shape[0]) if lengths is None else np.asarray(lengths)
    early = np.arange(xs.shape[0])[:, None] < ends - 1
    kind = "last"
    for layer in jax.grad(loss)(states):
        own = layer.forward, jax.tree.map(lambda d: flipped(d, lengths), layer.reverse)
        for leaf in jax.tree.leaves(own):
            if (np.asarray(leaf) != 0).any(-1)[early].any():
                kind = "steps"
    return direct_adjoints(cell, net, xs, loss, lengths=lengths)[1], kind


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
        bounds=None if seen is None else seen.certificate.trajectory,
        spectrum=None if seen is None else seen.spectrum,
        paths=None if seen is None else seen.paths,
        weights=None if seen is None else seen.certificate.weights,
        gates=gates,
    )


def _watched(
    cell: Cell, net: tuple[Layer, ...], xs: Any, ends: Any, order: Any
) -> tuple[list[Watched | None], int]:
    """Each direction along the longest examples, cut to one length; how many those are at most."""
    found: list[Watched | None] = []
    count = 0
    sides = [side for layer in net for side in layer if side is not None]
    for number, params in enumerate(sides):
        state = jax.eval_shape(cell.init_state, params)
        n = sum(leaf.shape[-1] for leaf in jax.tree.leaves(state))
        chosen = order[: sizes(int(ends.max()), len(ends), n).examples]
        chosen = chosen[2 * ends[chosen] >= ends.max()]  # a short one would cut the others
        T, count = int(ends[chosen].min()), max(count, len(chosen))
        if T < 2:
            found.append(None)
            continue
        read = readings(cell, net, jnp.asarray(xs[:T, chosen]))
        reading = [side for layer in read for side in layer if side is not None][number]
        found.append(watch(cell, reading, sizes(T, len(chosen), n)))
    return found, count


def _names(net: tuple[Layer, ...]) -> tuple[str, ...]:
    names = []
    for number, layer in enumerate(net, 1):
        if layer.reverse is None:
            names.append(f"layer {number}")
        else:
            names += [f"layer {number}, forward", f"layer {number}, reverse"]
    return tuple(names)
