"""What the public functions returned on record, to be held against what they return now.

    python -m tests.support.recorded F.npz              # write the record
    python -m tests.support.recorded --compare F.npz    # how far from it, in ulp

The record that is kept is `tests/support/recorded.npz`.

A change of signatures, or of what runs where, must leave every number as it was. Weights and inputs
are NumPy's draws: neither a factorisation nor JAX's initialisers have a say in what is recorded.
"""

import argparse
import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import activations, layers
from jaxrnn import initializers as starts
from tests.support import drawing

T, B, D, H = 12, 3, 2, 4
SLOW = 2  # the second leaf of the bare step's state is of another size


class StepState(NamedTuple):
    h: Any
    slow: Any


class StepParams(NamedTuple):
    w_ih: Any
    w_hh: Any
    mix: Any


def step(params, state, x):
    h = jnp.tanh(params.w_ih @ x + params.w_hh @ state.h + state.slow @ params.mix)
    # Too little to saturate the tanh, whose derivative by autodiff would be rounding alone.
    return StepState(h, 0.6 * state.slow + 0.3 * (params.mix @ h))


def rest(params):
    dtype = params.w_hh.dtype
    return StepState(jnp.zeros(H, dtype), jnp.zeros(SLOW, dtype))


STEP = jaxrnn.from_step(step, init_state=rest)
CELLS = {
    "lstm": jaxrnn.lstm(),
    "rnn-tanh": jaxrnn.rnn(),
    "gru": jaxrnn.gru(),
    "rnn-relu": jaxrnn.rnn(activations.relu),
    "step": STEP,
    "reset_first_gru": jaxrnn.reset_first_gru(),
    "rnn-identity": jaxrnn.rnn(activations.identity),
}
MASKS = ("none", "lengths", "resets", "both")
SINCE = (".spans",)  # leaves of results that are newer than the record


# --- what a call is made of -----------------------------------------------------------


class Parts(NamedTuple):
    """The arguments of a run; for a net of layers `params` is its list of Layer."""

    cell: Any
    params: Any
    xs: Any
    state0: Any = None
    lengths: Any = None
    resets: Any = None


def shapes(cell, D):
    """Of the params and of the state of one example, as trees of tuples."""
    if cell is STEP:
        return StepParams((H, D), (H, H), (SLOW, H)), StepState((H,), (SLOW,))
    if cell is CELLS["reset_first_gru"]:
        found = jaxrnn.ResetFirstParams((3 * H, D), (3 * H, H), (3 * H,))
        return found, jaxrnn.ResetFirstState((H,))
    return cell.shapes(D, H), cell.state_type(*[(H,)] * len(cell.state_type._fields))


def filled(rng, shapes, dtype, lead=()):
    """Leaves N(0, 0.6²), the same ones in every dtype."""
    found = drawing.leaves(rng, shapes, 0.6, lead)
    return jax.tree.map(lambda leaf: given_as(leaf, dtype), found)


def given_as(leaf, dtype):
    """An array of JAX, rounded by NumPy, which compiles nothing."""
    return jnp.asarray(leaf.astype(dtype), dtype)


def masks(mask):
    """(lengths, resets): an empty sequence, resets at the start, within, and beyond a length."""
    resets = np.zeros((T, B), bool)
    resets[[0, 4, 5, 9, 3], [1, 0, 0, 1, 2]] = True
    lengths = given_as(np.array([T, 7, 0]), "int32") if mask in ("lengths", "both") else None
    return lengths, given_as(resets, "bool") if mask in ("resets", "both") else None


def parts(name, dtype, mask):
    """One layer; a state0 where both masks are."""
    cell, rng = CELLS[name], np.random.default_rng(list(CELLS).index(name))
    of_params, of_state = shapes(cell, D)
    params = filled(rng, of_params, dtype)
    xs = given_as(rng.normal(size=(T, B, D)), dtype)
    state0 = filled(rng, of_state, dtype, (B,)) if mask == "both" else None
    return Parts(cell, params, xs, state0, *masks(mask))


def stack(name, dtype, mask):
    """Two layers, the second in both directions."""
    cell, rng = CELLS[name], np.random.default_rng(100 + list(CELLS).index(name))
    first, forward, reverse = (filled(rng, shapes(cell, size)[0], dtype) for size in (D, H, H))
    net = [layers.Layer(first), layers.Layer(forward, reverse)]
    xs = given_as(rng.normal(size=(T, B, D)), dtype)
    return Parts(cell, net, xs, None, *masks(mask))


# --- how a call is made -----------------------------------------------------------------


def given(run):
    """What of the keywords there is."""
    named = {"state0": run.state0, "lengths": run.lengths, "resets": run.resets}
    return {name: value for name, value in named.items() if value is not None}


def analysis(f, run, *args, **kwargs):
    return f(jaxrnn.Run(*run[:3], **given(run)), *args, **kwargs)


def analysis_of_layers(f, net, *args, **kwargs):
    return f(layers.runs(*net[:3], **given(net)), *args, **kwargs)


def flat(f, run, *args):
    """Of training's primitives and of `diagnose`, which take the parts as they are."""
    return f(*run[:3], *args, **given(run))


class LayerBefore(NamedTuple):
    """The fields of a layer of a diagnosis when the record was written, in that order."""

    adjoint: Any
    contribution: Any
    gradient: Any
    horizon_10: Any
    horizon_1: Any
    bias: Any
    random_adjoint: Any
    random_contribution: Any
    exponents: Any
    bounds: Any
    spectrum: Any
    paths: Any
    weights: Any
    gates: Any


class FlowBefore(NamedTuple):
    layers: Any
    lengths: Any
    spans: Any
    nonfinite: Any
    source: Any


# A layer below the last was probed by itself. Now its gradient and bias are those of the whole net.
CHANGED = re.compile(r"diagnose layers( outputs)?-.*\.layers\[0\]\.(bias|gradient)")


def as_before(flow):
    """A diagnosis in the form of the record: without a loss each layer by its own cotangents."""
    found = []
    for layer in flow.layers:
        fields = {name: getattr(layer, name) for name in LayerBefore._fields}
        if layer.own_adjoint is not None:
            which = "" if flow.loss == "random" else "random_"
            fields[f"{which}adjoint"] = layer.own_adjoint
            fields[f"{which}contribution"] = layer.own_contribution
        found.append(LayerBefore(**fields))
    return FlowBefore(tuple(found), flow.lengths, flow.spans, flow.nonfinite, flow.source)


def of_weights(run):
    return jaxrnn.certificates.of_weights(run.cell, run.params)


# --- the calls --------------------------------------------------------------------------


# Compiled, for where the library asks for its slope without `jit`.
@jax.jit
def of_all(states):
    """A loss that reads every state, nonlinear."""
    return sum((leaf**2).mean() for leaf in jax.tree.leaves(states))


@jax.jit
def of_last(states):
    return (states.h[-1] ** 2).mean()


@jax.jit
def of_a_last_state(state):
    return (state.h**2).mean()


@jax.jit
def of_each(states):
    return (states.h**2).mean((1, 2))


@jax.jit
def of_outputs(states):
    return (layers.outputs(states) ** 2).mean() + of_all(states[0])


def direction(run):
    """A state of ones."""
    of_state = shapes(run.cell, D)[1]
    return type(of_state)(*[given_as(np.ones((B, *shape)), run.xs.dtype) for shape in of_state])


def slope(penalty, run, *args, **kwargs):
    """The derivative of a penalty by the params."""
    f = getattr(jaxrnn.regularizers, penalty)
    at = lambda params: analysis(f, run._replace(params=params), *args, **kwargs)  # noqa: E731
    return jax.jit(jax.grad(at))(run.params)


def slope_of_unroll(run):
    def at(params, xs):
        return of_all(flat(jaxrnn.unroll, run._replace(params=params, xs=xs)))

    return jax.jit(jax.grad(at, (0, 1)))(run.params, run.xs)


def each(module, names, *args, **kwargs):
    """The functions of a module, by name, with the same arguments of their own."""

    def calling(f):
        return lambda run: analysis(f, run, *args, **kwargs)

    return {f"{module}.{name}": calling(getattr(getattr(jaxrnn, module), name))
            for name in names.split()}  # fmt: skip


# Of every cell, with every mask.
MASKED = {
    "unroll": lambda run: flat(jaxrnn.unroll, run),
    "unrolling.last_state": lambda run: flat(jaxrnn.unrolling.last_state, run),
    "unrolling.by_autodiff": lambda run: flat(jaxrnn.unrolling.by_autodiff, run),
    "grad of unroll": slope_of_unroll,
    **each("jacobians", "closed_form forward_mode reverse_mode wrt_inputs wrt_params"),
    **each("bptt", "adjoints temporal_contributions contribution_norms", of_all),
    **each("bptt", "credit_matrix", of_each),
    **each("truncation", "gradient", of_all, 3),
    **each("truncation", "curve", of_all),
    **each("truncation", "curve_of_last", of_a_last_state),
    **each("products", "transport", 2, 8),
    **each("products", "transport_norms frobenius_norms"),
    "products.adjoint_norms": lambda r: analysis(jaxrnn.products.adjoint_norms, r, direction(r)),
    "products.tangent_norms": lambda r: analysis(jaxrnn.products.tangent_norms, r, direction(r)),
    **each("certificates", "along certify"),
    **each("regularizers", "omega", of_all),
    **each("regularizers", "omega_at_fixed_adjoints", of_last),
    "grad of omega": lambda r: slope("omega", r, of_last),
    "grad of omega_at_fixed_adjoints": lambda r: slope("omega_at_fixed_adjoints", r, of_all),
}
# Of the cell with a cell state.
OF_C = each("jacobians", "c_partial c_path") | each("paths", "decompose")
OF_C |= each("paths", "transport", 2, 8)
# Without masks.
WHOLE = {
    **each("lyapunov", "exponents", warmup=2),
    "lyapunov.exponents of windows": lambda r: analysis(
        jaxrnn.lyapunov.exponents, r, count=2, warmup=1, interval=3
    ),
    **each("regularizers", "flossing", target=-0.1, count=2, warmup=1, interval=2),
    "grad of flossing": lambda r: slope("flossing", r, count=2, warmup=1),
}
OF_CLOSED_FORMS = each("initializers", "scaled_to_exponent", -0.2, warmup=2)
OF_ONE_GATE = {
    "certificates.of_weights": of_weights,
    "initializers.scaled_to_bound": lambda r: jax.jit(
        lambda params: starts.scaled_to_bound(r.cell, params, 0.9)
    )(r.params),
}
OF_GATES = {
    "initializers.with_gate_bias": lambda r: starts.with_gate_bias(
        r.cell, r.params, r.cell.gates[1], 2.0
    ),
    "initializers.chrono": lambda r: starts.chrono(
        r.cell, r.params, jax.random.key(1), longest=40.0
    ),
}


def diagnosed(net, *args):
    return as_before(flat(jaxrnn.diagnose, net, *args))


DIAGNOSED = {"diagnose": diagnosed}
DIAGNOSED_BY_LOSS = {
    "diagnose last": lambda run: diagnosed(run, of_last),
    "diagnose all": lambda run: diagnosed(run, of_all),
}
OF_LAYERS = {
    "layers.unroll_layers": lambda net: flat(layers.unroll_layers, net),
    "layers.adjoints": lambda net: analysis_of_layers(layers.adjoints, net, of_outputs),
    "layers.state_jacobians": lambda net: analysis_of_layers(layers.state_jacobians, net),
}
LAYERS_DIAGNOSED = {
    "diagnose layers": diagnosed,
    "diagnose layers outputs": lambda net: diagnosed(net, of_outputs),
}


def table():
    """Name ↦ (call, its arguments, yet to be made)."""
    found = {}

    def put(functions, made, *of):
        for name, f in functions.items():
            found["-".join([name, *of])] = f, functools.partial(made, *of)

    others, dtypes = list(CELLS)[1:], ("float64", "float32")
    for index, name in enumerate(MASKED):
        # The LSTM with none and with both, two other cells in turn with either.
        one, two = others[index % 6], others[(index + 3) % 6]
        first, second = dtypes[:: (-1) ** (index // 6)]
        for of in (("lstm", first, "none"), ("lstm", second, "both"),
                   (one, first, "lengths"), (two, second, "resets")):  # fmt: skip
            put({name: MASKED[name]}, parts, *of)
    for index, mask in enumerate(MASKS):
        put(OF_C, parts, "lstm", dtypes[index % 2], mask)
    for dtype in dtypes:
        put(WHOLE, parts, "lstm", dtype, "none")
        for cell in ("rnn-tanh", "rnn-relu", "rnn-identity"):
            put(OF_ONE_GATE, parts, cell, dtype, "none")
    put(WHOLE, parts, "rnn-tanh", "float64", "none")
    put(WHOLE, parts, "step", "float32", "none")
    for of in (("lstm", "float64"), ("gru", "float32"), ("rnn-tanh", "float32")):
        put(OF_CLOSED_FORMS, parts, *of, "none")
    put(OF_GATES, parts, "lstm", "float32", "none")
    put(OF_GATES, parts, "gru", "float64", "none")
    put(OF_LAYERS, stack, "lstm", "float64", "none")
    put(OF_LAYERS, stack, "lstm", "float32", "lengths")
    put(OF_LAYERS, stack, "gru", "float64", "lengths")
    # Those of one net share what they compile.
    put(DIAGNOSED, parts, "lstm", "float64", "none")
    put(DIAGNOSED | DIAGNOSED_BY_LOSS, parts, "lstm", "float32", "lengths")
    put(LAYERS_DIAGNOSED, stack, "lstm", "float64", "lengths")
    return found


CALLS = table()


def leaves(name):
    """What the call returns now: the place of each leaf in the result ↦ its numbers, in order."""
    call, made = CALLS[name]
    found = jax.tree_util.tree_leaves_with_path(call(made()))
    named = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in found}
    return {place: leaf for place, leaf in named.items() if place not in SINCE}


def read(file):
    """Name ↦ leaves."""
    with np.load(file) as archive:
        found = {key: archive[key] for key in archive.files}
    counts = {}
    for key in found:
        name = key.rpartition("/")[0]
        counts[name] = counts.get(name, 0) + 1
    return {name: [found[f"{name}/{i}"] for i in range(n)] for name, n in counts.items()}


def write(file):
    found = {f"{name}/{i}": leaf for name in CALLS for i, leaf in enumerate(leaves(name).values())}
    np.savez_compressed(file, **found)
    print(f"{len(CALLS)} calls, {len(found)} leaves")


def ulp(new, old):
    """The largest difference, in ulp of the largest number of the leaf; inf where they are
    not of one kind, or disagree in what is not finite."""
    if new.shape != old.shape or new.dtype != old.dtype:
        return np.inf
    finite = np.isfinite(old)
    if old.dtype.kind != "f" or not np.array_equal(finite, np.isfinite(new)):
        return 0.0 if np.array_equal(new, old) else np.inf
    if not np.array_equal(new[~finite], old[~finite], equal_nan=True):
        return np.inf
    off = np.abs(new[finite].astype(np.float64) - old[finite]).max(initial=0.0)
    return float(off / np.spacing(np.abs(old[finite]).max(initial=0.0)))


def compare(file):
    found, same, before = [], 0, read(file)
    for name in CALLS:
        now = leaves(name)
        for i, (place, old) in enumerate(zip(now, before[name], strict=True)):
            new = now[place]
            if CHANGED.fullmatch(name + place):
                continue
            if (new.dtype, new.shape, new.tobytes()) == (old.dtype, old.shape, old.tobytes()):
                same += 1
            else:
                found.append((ulp(new, old), f"{name}/{i}"))
    print(f"{same} of {same + len(found)} leaves are equal bit for bit")
    for off, name in sorted(found, reverse=True)[:10]:
        print(f"{off:10.3g} ulp  {name}")


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.support.recorded", description=__doc__)
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--compare", action="store_true", help="instead of writing")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    (compare if options.compare else write)(options.file)


if __name__ == "__main__":
    main()
