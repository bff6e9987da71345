"""Whatever does not fit is refused, by a message that names it, also while tracing.

One table: each row is a call with one argument spoilt, the exception it must raise, and
patterns that the message must contain: the argument (at the start), what was expected,
what came. What goes into a run is asked of `Run`, and of its analyses once more where nothing
has checked the run.
"""

import dataclasses
import functools
import inspect
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import (
    activations,
    bptt,
    certificates,
    clipping,
    diagnosis,
    initializers,
    jacobians,
    layers,
    lyapunov,
    matrix_products,
    paths,
    phenomena,
    plot,
    products,
    regularizers,
    report,
    scaled,
    tasks,
    truncation,
    verification,
)

T, B, D, H = 5, 2, 3, 4
RNN, LSTM, GRU = jaxrnn.rnn(), jaxrnn.lstm(), jaxrnn.gru()
CELLS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


def bare_step(params, state, x):
    return {"h": jnp.tanh(params @ state["h"]) + jnp.sum(x)}


def bare_state(params):
    return {"h": jnp.zeros(H, params.dtype)}


def wide(params, state, x):
    return {"h": jnp.tanh(params[:, :3] @ x + state["h"])}


WIDE = jaxrnn.from_step(wide, init_state=bare_state)
BARE = jaxrnn.from_step(bare_step, init_state=bare_state)
NOTHING_BUT_A_STEP = jaxrnn.from_step(bare_step)


class Good(NamedTuple):
    """Arguments without a fault; NumPy's outside a trace, tracers inside."""

    params: dict[str, Any]
    states: dict[str, Any]
    xs: Any  # (T, B, D)
    lengths: Any  # (B,)
    resets: Any  # (T, B)
    key: Any
    weight: Any  # (H, H), the params of the bare step


def good():
    normal = np.random.default_rng(0).normal

    def params(cell):
        shapes = cell.shapes(D, H)
        return type(shapes)(*[normal(size=shape).astype("float32") for shape in shapes])

    def state(cell):
        fields = cell.state_type._fields
        return cell.state_type(*[normal(size=(B, H)).astype("float32") for _ in fields])

    return Good(
        params={kind: params(cell) for kind, cell in CELLS.items()},
        states={kind: state(cell) for kind, cell in CELLS.items()},
        xs=normal(size=(T, B, D)).astype("float32"),
        lengths=np.array([2, 5]),
        resets=np.zeros((T, B), bool),
        key=jax.random.key(0),
        weight=normal(size=(H, H)).astype("float32"),
    )


# Calls in which everything fits but for what a row changes.


def unroll(v, kind="lstm", **changes):
    given = {"cell": CELLS[kind], "params": v.params[kind], "xs": v.xs} | changes
    return jaxrnn.unroll(**given)


def step(v, kind="lstm", **changes):
    given = {"params": v.params[kind], "state": v.states[kind], "x": v.xs[0]} | changes
    return CELLS[kind].step(**given)


def init(v, kind="lstm", **changes):
    given = {"key": v.key, "input_size": D, "hidden_size": H} | changes
    return CELLS[kind].init(**given)


def init_state(v, kind="lstm", **changes):
    return CELLS[kind].init_state(**{"params": v.params[kind], "batch_shape": (B,)} | changes)


def run_of(v, kind="lstm", **changes):
    return jaxrnn.Run(**{"cell": CELLS[kind], "params": v.params[kind], "xs": v.xs} | changes)


PARTS = ("params", "xs", "state0", "lengths", "resets")


def unchecked(v, **changes):
    """A run as `jax.tree.map` and its like make one, which nothing has checked."""
    run = run_of(v)
    structure = jax.tree.structure(run, is_leaf=lambda part: part is not run)
    return jax.tree.unflatten(structure, [changes.get(p, getattr(run, p)) for p in PARTS])


def flat(f, v, kind="lstm", **changes):
    """A function of cell, params and xs in which everything fits but for the changes."""
    return f(**{"cell": CELLS[kind], "params": v.params[kind], "xs": v.xs} | changes)


def bare(v, cell=BARE, **changes):
    return jaxrnn.unroll(**{"cell": cell, "params": v.weight, "xs": v.xs} | changes)


def verify(**changes):
    given = {"cell": RNN, "shapes": ((1, 1),), "scales": (1.0,), "cases": 1} | changes
    return jaxrnn.verify(**given)


class Row(NamedTuple):
    """One refusal. `traced`: the fault shows in shapes, dtypes or structure alone."""

    id: str
    call: Callable[[Good], Any]
    error: type[Exception]
    named: tuple[str, ...]
    traced: bool = True


ROWS: list[Row] = []


def row(id, call, error, *named, traced=True):
    ROWS.append(Row(id, call, error, named, traced))


# --- params -----------------------------------------------------------------------


def spoil(kind, leaf, how):
    """`unroll` with one leaf of the params changed."""

    def call(v):
        params = v.params[kind]
        return unroll(v, kind, params=params._replace(**{leaf: how(getattr(params, leaf))}))

    return call


GATES = {"rnn": 1, "lstm": 4, "gru": 3}
for kind, cell in CELLS.items():
    GH = GATES[kind] * H
    SHAPES = cell.shapes(D, H)._asdict()
    for leaf, shape in SHAPES.items():
        at, name = f"{kind}.{leaf}", rf"params\.{leaf}"
        text = re.escape(str(shape))
        rows = re.escape(str((2 * shape[0], *shape[1:])))
        row(f"{at} rows", spoil(kind, leaf, lambda w: w.repeat(2, axis=0)), ValueError,
            name, "expected shape", text, f"got {rows}")  # fmt: skip
        row(f"{at} missing", spoil(kind, leaf, lambda w: None), TypeError,
            name, "expected an array", "got None", "missing leaf")  # fmt: skip
        row(f"{at} list", spoil(kind, leaf, lambda w: [0.0]), TypeError,
            name, "expected an array", "got a list", "jnp.asarray")  # fmt: skip
        row(f"{at} integer", spoil(kind, leaf, lambda w: w.astype("int32")), TypeError,
            name, "expected a real floating dtype", r"got int32\[")  # fmt: skip
        row(f"{at} scalar", spoil(kind, leaf, lambda w: w.ravel()[0]), ValueError,
            name, "expected", r"got float32\[\]|got \(\)")  # fmt: skip
        if leaf != "w_hh":
            row(f"{at} float64", spoil(kind, leaf, lambda w: w.astype("float64")), TypeError,
                name, r"expected float32, the dtype of params\.w_hh", "got float64")  # fmt: skip
    row(f"{kind}.w_ih transposed", spoil(kind, "w_ih", lambda w: w.T), ValueError, r"params\.w_ih",
        r"expected shape \(G·H, D\)", rf"got \({D}, {GH}\)", "transposed")  # fmt: skip
    row(f"{kind}.w_hh columns", spoil(kind, "w_hh", lambda w: w[:, :-1]), ValueError,
        r"params\.w_hh", r"expected shape \(G·H, H\)", rf"got \({GH}, {H - 1}\)")  # fmt: skip
    row(f"{kind}.w_hh float64", spoil(kind, "w_hh", lambda w: w.astype("float64")), TypeError,
        r"params\.w_(ih|hh)", "expected float(32|64)", "w_hh", "got float", "astype")  # fmt: skip
for kind in ("lstm", "gru"):  # a square matrix does not tell
    GH = GATES[kind] * H
    row(f"{kind}.w_hh transposed", spoil(kind, "w_hh", lambda w: w.T), ValueError, r"params\.w_hh",
        r"expected shape \(G·H, H\)", rf"got \({H}, {GH}\)", "transposed")  # fmt: skip
row("b of two axes", spoil("lstm", "b", lambda w: w[None]), ValueError,
    r"params\.b", r"expected shape \(G·H,\)", r"\(16,\)", r"got \(1, 16\)")  # fmt: skip
row("b per gate", spoil("lstm", "b", lambda w: w.reshape(4, H)), ValueError,
    r"params\.b", r"expected shape \(G·H,\)", r"\(16,\)", r"got \(4, 4\)")  # fmt: skip
row("complex weights", spoil("lstm", "w_ih", lambda w: w.astype("complex64")), TypeError,
    r"params\.w_ih", "expected a real floating dtype", r"got complex64\[16, 3\]")  # fmt: skip
row("boolean weights", spoil("gru", "b", lambda w: w.astype(bool)), TypeError,
    r"params\.b", "expected a real floating dtype", r"got bool\[12\]")  # fmt: skip
row("object weights", spoil("rnn", "w_ih", lambda w: np.full((H, D), None)), TypeError,
    r"params\.w_ih", "expected a real floating dtype", r"got object\[4, 3\]")  # fmt: skip
row("weights as rows of lists", spoil("rnn", "w_ih", lambda w: [[0.0] * D] * H), TypeError,
    r"params\.w_ih", "expected an array", "got a list")  # fmt: skip
row("a weight as a float", spoil("rnn", "b", lambda w: 0.0), TypeError,
    r"params\.b", "expected an array", "got a float")  # fmt: skip

PARAMS = r"LSTMParams\(w_ih, w_hh, b\)"
row("params None", lambda v: unroll(v, params=None), TypeError, "params", PARAMS, "got None")
row("params dict", lambda v: unroll(v, params=v.params["lstm"]._asdict()), TypeError,
    "params", PARAMS, "got a dict")  # fmt: skip
row("params tuple", lambda v: unroll(v, params=tuple(v.params["lstm"])), TypeError,
    "params", PARAMS, "got a tuple")  # fmt: skip
row("params list", lambda v: unroll(v, params=list(v.params["lstm"])), TypeError,
    "params", PARAMS, "got a list")  # fmt: skip
row("params one array", lambda v: unroll(v, params=v.params["lstm"].w_hh), TypeError,
    "params", PARAMS, r"got float32\[16, 4\]")  # fmt: skip
row("params of a gru for an lstm", lambda v: unroll(v, params=v.params["gru"]), TypeError,
    "params", PARAMS, "got a GRUParams")  # fmt: skip
row("params of an lstm for a gru", lambda v: unroll(v, "gru", params=v.params["lstm"]), TypeError,
    "params", r"GRUParams\(w_ih, w_hh, b, b_hn\)", "got an? LSTMParams")  # fmt: skip
row("params of an rnn for an lstm", lambda v: unroll(v, params=v.params["rnn"]), TypeError,
    "params", PARAMS, "got a RNNParams")  # fmt: skip
row("state as params", lambda v: unroll(v, params=v.states["lstm"]), TypeError,
    "params", PARAMS, "got an? LSTMState")  # fmt: skip

# --- xs ---------------------------------------------------------------------------

TIME_MAJOR = r"expected shape \(T, \*batch, D\)"
FLOATING = "expected a real floating dtype"
row("xs scalar", lambda v: unroll(v, xs=v.xs[0, 0, 0]), ValueError,
    "xs", TIME_MAJOR, r"got float32\[\]")  # fmt: skip
row("xs one axis", lambda v: unroll(v, xs=v.xs[0, 0]), ValueError,
    "xs", TIME_MAJOR, r"got float32\[3\]")  # fmt: skip
row("xs wrong D", lambda v: unroll(v, xs=v.xs[..., :2]), ValueError,
    "xs", "expected last axis D = 3", r"got shape \(5, 2, 2\)")  # fmt: skip
row("xs without D", lambda v: unroll(v, xs=v.xs[..., 0]), ValueError,
    "xs", "expected last axis D = 3", r"got shape \(5, 2\)")  # fmt: skip
row("xs feature axis first", lambda v: unroll(v, xs=v.xs.T), ValueError,
    "xs", "expected last axis D = 3", r"got shape \(3, 2, 5\)")  # fmt: skip
row("xs integer", lambda v: unroll(v, xs=v.xs.astype("int32")), TypeError,
    "xs", FLOATING, r"got int32\[5, 2, 3\]")  # fmt: skip
row("xs boolean", lambda v: unroll(v, xs=v.xs > 0), TypeError,
    "xs", FLOATING, r"got bool\[5, 2, 3\]")  # fmt: skip
row("xs complex", lambda v: unroll(v, xs=v.xs.astype("complex64")), TypeError,
    "xs", FLOATING, r"got complex64\[5, 2, 3\]")  # fmt: skip
row("xs object", lambda v: unroll(v, xs=np.full((T, B, D), None)), TypeError,
    "xs", FLOATING, r"got object\[5, 2, 3\]")  # fmt: skip
row("xs strings", lambda v: unroll(v, xs=np.full((T, B, D), "a")), TypeError,
    "xs", FLOATING, r"got <U1\[5, 2, 3\]")  # fmt: skip
row("xs dates", lambda v: unroll(v, xs=np.zeros((T, B, D), "datetime64[s]")), TypeError,
    "xs", FLOATING, r"got datetime64\[s\]\[5, 2, 3\]")  # fmt: skip
row("xs list", lambda v: unroll(v, xs=[[[0.0] * D] * B] * T), TypeError,
    "xs", "expected an array", "got a list", "jnp.asarray")  # fmt: skip
row("xs None", lambda v: unroll(v, xs=None), TypeError, "xs", "expected an array", "got None")
row("xs a float", lambda v: unroll(v, xs=1.0), TypeError, "xs", "expected an array", "got a float")
row("xs a string", lambda v: unroll(v, xs="xs"), TypeError, "xs", "expected an array", "got a str")
row("xs a tuple of steps", lambda v: unroll(v, xs=tuple(v.xs)), TypeError,
    "xs", "expected an array", "got a tuple")  # fmt: skip
row("xs a key", lambda v: unroll(v, xs=v.key), TypeError, "xs", FLOATING, r"got key<")
row("xs float64 by NumPy, params float32", lambda v: unroll(v, xs=np.ones((T, B, D))), TypeError,
    "xs", "expected float32, the dtype of params", r"got float64\[5, 2, 3\]", "astype")  # fmt: skip
row("xs bfloat16, params float32", lambda v: unroll(v, xs=v.xs.astype("bfloat16")), TypeError,
    "xs", "expected float32, the dtype of params", r"got bfloat16\[5, 2, 3\]")  # fmt: skip


def float64(tree):
    return jax.tree.map(lambda leaf: leaf.astype("float64"), tree)


row("xs float32, params float64", lambda v: unroll(v, params=float64(v.params["lstm"])), TypeError,
    "xs", "expected float64, the dtype of params", r"got float32\[5, 2, 3\]")  # fmt: skip
row("bare xs integer", lambda v: bare(v, xs=v.xs.astype("int32")), TypeError,
    "xs", FLOATING, r"got int32\[5, 2, 3\]")  # fmt: skip
row("bare xs one axis", lambda v: bare(v, xs=v.xs[0, 0]), ValueError,
    "xs", TIME_MAJOR, r"got float32\[3\]")  # fmt: skip
row("bare params list", lambda v: bare(v, params=[1.0, 2.0]), TypeError,
    r"params\[0\]", "expected an array", "got a float")  # fmt: skip
row("bare params integer", lambda v: bare(v, params={"w": v.weight.astype("int32")}), TypeError,
    r"params\['w'\]", FLOATING, r"got int32\[4, 4\]")  # fmt: skip

# --- state0 -----------------------------------------------------------------------


def started(how, kind="lstm", **changes):
    """`unroll` with a spoilt state0."""

    def call(v):
        return unroll(v, kind, state0=how(v.states[kind]), **changes)

    return call


STATE = r"LSTMState\(h, c\)"
row("state0 of a gru for an lstm", lambda v: unroll(v, state0=v.states["gru"]), TypeError,
    "state0", STATE, "got a GRUState")  # fmt: skip
row("state0 of an lstm for a gru", lambda v: unroll(v, "gru", state0=v.states["lstm"]), TypeError,
    "state0", r"GRUState\(h\)", "got an? LSTMState")  # fmt: skip
row("state0 of an rnn for a gru", lambda v: unroll(v, "gru", state0=v.states["rnn"]), TypeError,
    "state0", r"GRUState\(h\)", "got a RNNState")  # fmt: skip
row("state0 tuple", started(tuple), TypeError, "state0", STATE, "got a tuple")
row("state0 dict", started(lambda s: s._asdict()), TypeError, "state0", STATE, "got a dict")
row("state0 one array", started(lambda s: s.h), TypeError, "state0", STATE, r"got float32\[2, 4\]")
row("state0 zero", started(lambda s: 0.0), TypeError, "state0", STATE, "got a float")
row("state0 c missing", started(lambda s: s._replace(c=None)), TypeError,
    r"state0\.c", "expected an array", "got None", "missing leaf")  # fmt: skip
row("state0 h list", started(lambda s: s._replace(h=[[0.0] * H] * B)), TypeError,
    r"state0\.h", "expected an array", "got a list")  # fmt: skip
row("state0 wrong H", started(lambda s: s._replace(h=s.h[:, :3])), ValueError,
    r"state0\.h", "expected last axis H = 4", r"got shape \(2, 3\)")  # fmt: skip
row("state0 c wrong H", started(lambda s: s._replace(c=s.c[:, :3])), ValueError,
    r"state0\.c", "expected last axis H = 4", r"got shape \(2, 3\)")  # fmt: skip
row("state0 h and c of swapped axes", started(lambda s: s._replace(h=s.h.T, c=s.c.T)), ValueError,
    r"state0\.h", "expected last axis H = 4", r"got shape \(4, 2\)")  # fmt: skip
row("state0 c alone of swapped axes", started(lambda s: s._replace(c=s.c.T)), ValueError,
    r"state0\.c", "expected last axis H = 4", r"got shape \(4, 2\)")  # fmt: skip
row("state0 of shapes swapped between h and c",
    started(lambda s: s._replace(h=s.h[0], c=s.c[None].repeat(B, axis=0))), ValueError,
    r"state0\.h", r"expected the leading axes \(2,\)", r"got \(\)")  # fmt: skip
row("state0 scalar", started(lambda s: s._replace(h=s.h[0, 0])), ValueError,
    r"state0\.h", "expected last axis H = 4", r"got shape \(\)")  # fmt: skip
row("state0 wrong batch", started(lambda s: s._replace(h=s.h.repeat(3, axis=0))), ValueError,
    r"state0\.h", r"expected the leading axes \(2,\)", r"got \(6,\)")  # fmt: skip
row("state0 batch of one", started(lambda s: s._replace(h=s.h[:1])), ValueError,
    r"state0\.h", r"expected the leading axes \(2,\)", r"got \(1,\)")  # fmt: skip
row("state0 without batch", started(lambda s: s._replace(h=s.h[0])), ValueError,
    r"state0\.h", r"expected the leading axes \(2,\)", r"got \(\)")  # fmt: skip
row("state0 with a batch, xs without", lambda v: unroll(v, xs=v.xs[:, 0], state0=v.states["lstm"]),
    ValueError, r"state0\.h", r"expected the leading axes \(\)", r"got \(2,\)")  # fmt: skip
row("state0 with time", started(lambda s: s._replace(h=s.h[None].repeat(T, axis=0))), ValueError,
    r"state0\.h", r"expected the leading axes \(2,\)", r"got \(5, 2\)")  # fmt: skip
row("state0 integer", started(lambda s: s._replace(h=s.h.astype("int32"))), TypeError,
    r"state0\.h", FLOATING, r"got int32\[2, 4\]")  # fmt: skip
row("state0 complex", started(lambda s: s._replace(c=s.c.astype("complex64"))), TypeError,
    r"state0\.c", FLOATING, r"got complex64\[2, 4\]")  # fmt: skip
row("state0 float64 by NumPy", started(lambda s: s._replace(c=np.zeros((B, H)))), TypeError,
    r"state0\.c", "expected float32, the dtype of params", r"got float64\[2, 4\]")  # fmt: skip
row("state0 bfloat16 of a gru", started(lambda s: s._replace(h=s.h.astype("bfloat16")), "gru"),
    TypeError, r"state0\.h", "expected float32", r"got bfloat16\[2, 4\]")  # fmt: skip
row("xs batch-first, as state0 tells",
    lambda v: unroll(v, xs=v.xs.swapaxes(0, 1), state0=v.states["lstm"]), ValueError, r"state0\.h",
    r"expected the batch shape \(5,\)", r"got \(2,\)", "batch-first", "swapaxes")  # fmt: skip
row("xs batch-first, as the state0 of a bare step tells",
    lambda v: bare(v, xs=v.xs.swapaxes(0, 1), state0={"h": v.states["rnn"].h}), ValueError,
    r"state0\['h'\]", r"expected the batch shape \(5,\)", r"got \(2,\)", "batch-first")  # fmt: skip
row("bare state0 without batch", lambda v: bare(v, state0={"h": v.weight[0]}), ValueError,
    r"state0\['h'\]", r"expected the leading axes \(2,\)", r"got \(4,\)")  # fmt: skip
row("bare state0 integer",
    lambda v: bare(v, state0={"h": v.states["rnn"].h.astype("int32")}), TypeError,
    r"state0\['h'\]", FLOATING, r"got int32\[2, 4\]")  # fmt: skip
row("bare state0 list", lambda v: bare(v, state0={"h": [0.0]}), TypeError,
    r"state0\['h'\](\[0\])?", "expected an array", "got a float")  # fmt: skip

# --- lengths ----------------------------------------------------------------------

RANGE = r"expected values in \[0, T\] = \[0, 5\]"
row("lengths negative", lambda v: unroll(v, lengths=np.array([2, -1])), ValueError,
    "lengths", RANGE, "got -1", traced=False)  # fmt: skip
row("lengths beyond T", lambda v: unroll(v, lengths=np.array([6, 2])), ValueError,
    "lengths", RANGE, "got 6", traced=False)  # fmt: skip
row("lengths beyond T on the device", lambda v: unroll(v, lengths=jnp.array([5, 9])), ValueError,
    "lengths", RANGE, "got 9", traced=False)  # fmt: skip
row("lengths negative with state0 of a gru",
    lambda v: unroll(v, "gru", state0=v.states["gru"], lengths=np.array([-7, 0])), ValueError,
    "lengths", RANGE, "got -7", traced=False)  # fmt: skip
INTEGER = "expected an integer dtype"
row("lengths float", lambda v: unroll(v, lengths=v.lengths.astype("float32")), TypeError,
    "lengths", INTEGER, r"got float32\[2\]")  # fmt: skip
row("lengths boolean", lambda v: unroll(v, lengths=v.lengths > 2), TypeError,
    "lengths", INTEGER, r"got bool\[2\]")  # fmt: skip
row("lengths a mask", lambda v: unroll(v, lengths=v.resets), TypeError,
    "lengths", INTEGER, r"got bool\[5, 2\]")  # fmt: skip
row("lengths strings", lambda v: unroll(v, lengths=np.array(["2", "5"])), TypeError,
    "lengths", INTEGER, r"got <U1\[2\]")  # fmt: skip
row("lengths list", lambda v: unroll(v, lengths=[2, 5]), TypeError,
    "lengths", "expected an array", "got a list", "jnp.asarray")  # fmt: skip
row("lengths an int", lambda v: unroll(v, lengths=5), TypeError,
    "lengths", "expected an array", "got an? int")  # fmt: skip
row("lengths scalar", lambda v: unroll(v, lengths=v.lengths[0]), ValueError,
    "lengths", r"expected the batch shape \(2,\)", r"got \(\)")  # fmt: skip
row("lengths wrong batch", lambda v: unroll(v, lengths=v.lengths.repeat(2)), ValueError,
    "lengths", r"expected the batch shape \(2,\)", r"got \(4,\)")  # fmt: skip
row("lengths of two axes", lambda v: unroll(v, lengths=v.lengths[:, None]), ValueError,
    "lengths", r"expected the batch shape \(2,\)", r"got \(2, 1\)")  # fmt: skip
row("lengths for xs without batch", lambda v: unroll(v, xs=v.xs[:, 0], lengths=v.lengths),
    ValueError, "lengths", r"expected the batch shape \(\)", r"got \(2,\)")  # fmt: skip
row("xs batch-first, as lengths tell",
    lambda v: unroll(v, xs=v.xs.swapaxes(0, 1), lengths=v.lengths), ValueError, "lengths",
    r"expected the batch shape \(5,\)", r"got \(2,\)", "batch-first", "swapaxes")  # fmt: skip
row("xs batch-first for a gru, as lengths tell",
    lambda v: unroll(v, "gru", xs=v.xs.swapaxes(0, 1), lengths=v.lengths), ValueError,
    "lengths", "expected the batch shape", "got", "batch-first")  # fmt: skip
row("bare lengths float", lambda v: bare(v, lengths=v.lengths.astype("float32")), TypeError,
    "lengths", INTEGER, r"got float32\[2\]")  # fmt: skip

# --- resets -----------------------------------------------------------------------

BOOLEAN = "expected a boolean dtype"
TB = r"expected shape \(T, \*batch\) = \(5, 2\)"
row("resets integer", lambda v: unroll(v, resets=v.resets.astype("int32")), TypeError,
    "resets", BOOLEAN, r"got int32\[5, 2\]")  # fmt: skip
row("resets float", lambda v: unroll(v, resets=v.resets.astype("float32")), TypeError,
    "resets", BOOLEAN, r"got float32\[5, 2\]")  # fmt: skip
row("resets list", lambda v: unroll(v, resets=[False] * T), TypeError,
    "resets", "expected an array", "got a list")  # fmt: skip
row("resets False", lambda v: unroll(v, resets=False), TypeError,
    "resets", "expected an array", "got a bool")  # fmt: skip
row("resets of steps without batch", lambda v: unroll(v, resets=v.resets[:, 0]), ValueError,
    "resets", TB, r"got \(5,\)")  # fmt: skip
row("resets without time", lambda v: unroll(v, resets=v.resets[0]), ValueError,
    "resets", TB, r"got \(2,\)")  # fmt: skip
row("resets one step short", lambda v: unroll(v, resets=v.resets[1:]), ValueError,
    "resets", TB, r"got \(4, 2\)")  # fmt: skip
row("resets transposed", lambda v: unroll(v, resets=v.resets.T), ValueError,
    "resets", TB, r"got \(2, 5\)", "transposed")  # fmt: skip
row("resets with an axis of one", lambda v: unroll(v, resets=v.resets[..., None]), ValueError,
    "resets", TB, r"got \(5, 2, 1\)")  # fmt: skip
row("resets for xs without batch", lambda v: unroll(v, xs=v.xs[:, 0], resets=v.resets), ValueError,
    "resets", r"expected shape \(T, \*batch\) = \(5,\)", r"got \(5, 2\)")  # fmt: skip

# --- cell -------------------------------------------------------------------------

CELL = r"expected a cell such as jaxrnn\.lstm\(\)"
for label, value, got in (
    ("a function", bare_step, "got a function"),
    ("a factory that was not called", jaxrnn.lstm, "got a function"),
    ("None", None, "got None"),
    ("a name", "lstm", "got a str"),
    ("an activation", activations.tanh, "got an? Activation"),
    ("a class", jaxrnn.PointwiseCell, "got a (type|class)"),
):
    row(f"unroll of {label}", lambda v, c=value: unroll(v, cell=c), TypeError, "cell", CELL, got)
    row(f"verify of {label}", lambda v, c=value: verify(cell=c), TypeError, "cell", CELL, got,
        traced=False)  # fmt: skip
    row(f"assert_cell of {label}", lambda v, c=value: verification.assert_cell(c), TypeError,
        "cell", CELL, got)  # fmt: skip
row("unroll of params", lambda v: unroll(v, cell=v.params["lstm"]), TypeError,
    "cell", CELL, "got an? LSTMParams")  # fmt: skip

# --- step -------------------------------------------------------------------------

row("step x wrong D", lambda v: step(v, x=v.xs[0, :, :2]), ValueError,
    "x", "expected last axis D = 3", r"got shape \(2, 2\)")  # fmt: skip
row("step x scalar", lambda v: step(v, x=v.xs[0, 0, 0]), ValueError,
    "x", "expected last axis D = 3", r"got shape \(\)")  # fmt: skip
row("step x integer", lambda v: step(v, x=v.xs[0].astype("int32")), TypeError,
    "x", FLOATING, r"got int32\[2, 3\]")  # fmt: skip
row("step x list", lambda v: step(v, x=[0.0] * D), TypeError,
    "x", "expected an array", "got a list")  # fmt: skip
row("step x float64 by NumPy", lambda v: step(v, "gru", x=np.zeros((B, D))), TypeError,
    "x", "expected float32, the dtype of params", r"got float64\[2, 3\]")  # fmt: skip
row("step x a sequence", lambda v: step(v, x=v.xs), ValueError,
    r"state\.h", r"expected the leading axes \(5, 2\)", r"got \(2,\)")  # fmt: skip
row("step x without batch", lambda v: step(v, x=v.xs[0, 0]), ValueError,
    r"state\.h", r"expected the leading axes \(\)", r"got \(2,\)")  # fmt: skip
row("step state of a gru", lambda v: step(v, state=v.states["gru"]), TypeError,
    "state", STATE, "got a GRUState")  # fmt: skip
row("step state None", lambda v: step(v, state=None), TypeError, "state", STATE, "got None")
row("step state wrong H", lambda v: step(v, "rnn", state=jaxrnn.RNNState(v.states["rnn"].h[:, :3])),
    ValueError, r"state\.h", "expected last axis H = 4", r"got shape \(2, 3\)")  # fmt: skip
row("step state wrong batch",
    lambda v: step(v, "gru", state=jaxrnn.GRUState(v.states["gru"].h[:1])),
    ValueError, r"state\.h", r"expected the leading axes \(2,\)", r"got \(1,\)")  # fmt: skip
row("step params of a gru", lambda v: step(v, params=v.params["gru"]), TypeError,
    "params", PARAMS, "got a GRUParams")  # fmt: skip
row("step params and state swapped",
    lambda v: step(v, params=v.states["lstm"], state=v.params["lstm"]), TypeError,
    "params", PARAMS, "got an? LSTMState")  # fmt: skip
row("bare step x scalar",
    lambda v: BARE.step(v.weight, {"h": v.states["rnn"].h}, v.xs[0, 0, 0]), ValueError,
    "x", r"expected shape \(\*lead, D\)", "got")  # fmt: skip

# --- init -------------------------------------------------------------------------

INTEGERS = "got int(32|64)"
KEY = r"expected one key from jax\.random\.key\(seed\)"
row("key a seed", lambda v: init(v, key=0), TypeError, "key", KEY, "got an? int")
row("key None", lambda v: init(v, key=None), TypeError, "key", KEY, "got None")
row("key of floats", lambda v: init(v, key=v.xs), TypeError, "key", KEY, r"got float32\[5, 2, 3\]")
row("key an integer array", lambda v: init(v, key=v.lengths), TypeError, "key", KEY, INTEGERS)
row("keys of a batch", lambda v: init(v, key=jax.random.split(v.key, 3)), TypeError,
    "key", KEY, r"got key<fry>\[3\]")  # fmt: skip
row("keys of a batch of one", lambda v: init(v, "gru", key=jax.random.split(v.key, 1)), TypeError,
    "key", KEY, r"got key<fry>\[1\]")  # fmt: skip
row("keys of a batch in the older form", lambda v: init(v, key=np.zeros((2, 2), "uint32")),
    TypeError, "key", KEY, r"got uint32\[2, 2\]")  # fmt: skip
row("key of five words", lambda v: init(v, key=np.zeros(5, "uint32")), TypeError,
    "key", KEY, r"got uint32\[5\]")  # fmt: skip
for size in ("input_size", "hidden_size"):
    WHOLE = "expected an integer"
    row(f"{size} negative", lambda v, n=size: init(v, **{n: -1}), ValueError, size, WHOLE, "got -1")
    row(f"{size} float", lambda v, n=size: init(v, **{n: 4.0}), TypeError, size, WHOLE, "got 4.0")
    row(f"{size} bool", lambda v, n=size: init(v, **{n: True}), TypeError, size, WHOLE, "got True")
    row(f"{size} string", lambda v, n=size: init(v, **{n: "4"}), TypeError, size, WHOLE, "got '4'")
    row(f"{size} None", lambda v, n=size: init(v, **{n: None}), TypeError, size, WHOLE, "got None")
    row(f"{size} a shape", lambda v, n=size: init(v, "rnn", **{n: (4,)}), TypeError,
        size, WHOLE, r"got \(4,\)")  # fmt: skip
row("hidden_size zero", lambda v: init(v, hidden_size=0), ValueError,
    "hidden_size", "expected an integer of at least 1", "got 0")  # fmt: skip
row("dtype integer", lambda v: init(v, dtype="int32"), TypeError, "dtype", FLOATING, "got int32")
row("dtype complex", lambda v: init(v, dtype=complex), TypeError, "dtype", FLOATING, "got complex")
row("dtype bool", lambda v: init(v, "gru", dtype=bool), TypeError, "dtype", FLOATING, "got bool")
row("dtype unknown", lambda v: init(v, dtype="half-ish"), TypeError, "dtype", FLOATING, "half-ish")
row("dtype a number", lambda v: init(v, dtype=32), TypeError, "dtype", FLOATING, "got 32")


def without_64_bits(v):
    with jax.enable_x64(False):
        return init(v, dtype="float64")


row("dtype float64 without 64-bit mode", without_64_bits, TypeError,
    "dtype", "float64 needs 64-bit mode", "jax_enable_x64", traced=False)  # fmt: skip
REAL = "expected a (real|finite) number"
row("forget_bias NaN", lambda v: init(v, forget_bias=float("nan")), ValueError,
    "forget_bias", REAL, "got nan")  # fmt: skip
row("forget_bias inf", lambda v: init(v, forget_bias=np.inf), ValueError,
    "forget_bias", REAL, "got inf")  # fmt: skip
row("forget_bias string", lambda v: init(v, forget_bias="1"), TypeError,
    "forget_bias", REAL, "got '1'")  # fmt: skip
row("forget_bias bool", lambda v: init(v, forget_bias=True), TypeError,
    "forget_bias", REAL, "got True")  # fmt: skip
row("forget_bias None", lambda v: init(v, forget_bias=None), TypeError,
    "forget_bias", REAL, "got None")  # fmt: skip
row("forget_bias for each unit", lambda v: init(v, forget_bias=[1.0] * H), TypeError,
    "forget_bias", REAL, r"got \[1\.0")  # fmt: skip
row("forget_bias complex", lambda v: init(v, forget_bias=1j), TypeError,
    "forget_bias", REAL, "got 1j")  # fmt: skip
for kind in CELLS:
    for name in ("input_init", "recurrent_init"):
        row(f"{kind} {name} a number", lambda v, k=kind, n=name: init(v, k, **{n: 0.1}), TypeError,
            name, r"expected a function \(key, shape, dtype\)", "got a float")  # fmt: skip
row("recurrent_init a name", lambda v: init(v, recurrent_init="orthogonal"), TypeError,
    "recurrent_init", "expected a function", "got a str")  # fmt: skip
row("input_init None", lambda v: init(v, input_init=None), TypeError,
    "input_init", "expected a function", "got None")  # fmt: skip
row("input_init that draws the transpose",
    lambda v: init(v, input_init=lambda key, shape, dtype: jnp.zeros(shape[::-1], dtype)),
    ValueError, "input_init", r"expected .*\(4, 3\)", r"got .*[\[(]3, 4[\])]")  # fmt: skip
row("recurrent_init that draws another shape",
    lambda v: init(v, recurrent_init=lambda key, shape, dtype: jnp.zeros((2, H), dtype)),
    ValueError, "recurrent_init", r"expected .*\(4, 4\)", r"got .*[\[(]2, 4[\])]")  # fmt: skip
row("recurrent_init that draws integers",
    lambda v: init(v, recurrent_init=lambda key, shape, dtype: jnp.zeros(shape, int)),
    TypeError, "recurrent_init", "expected .*float", INTEGERS)  # fmt: skip
row("input_init that draws a list",
    lambda v: init(v, input_init=lambda key, shape, dtype: [[0.0] * D] * H),
    TypeError, "input_init", "expected an array", "got a list")  # fmt: skip

# --- init_state -------------------------------------------------------------------

SIZES = "expected a tuple of sizes"
row("batch_shape list", lambda v: init_state(v, batch_shape=[2]), TypeError,
    "batch_shape", SIZES, r"got \[2\]")  # fmt: skip
row("batch_shape int", lambda v: init_state(v, batch_shape=2), TypeError,
    "batch_shape", SIZES, "got 2")  # fmt: skip
row("batch_shape None", lambda v: init_state(v, batch_shape=None), TypeError,
    "batch_shape", SIZES, "got None")  # fmt: skip
row("batch_shape negative", lambda v: init_state(v, batch_shape=(2, -1)), ValueError,
    "batch_shape", "expected an integer of at least 0", "got -1")  # fmt: skip
row("batch_shape of floats", lambda v: init_state(v, batch_shape=(2.0,)), TypeError,
    "batch_shape", "expected an integer", "got 2.0")  # fmt: skip
row("batch_shape of bools", lambda v: init_state(v, batch_shape=(True,)), TypeError,
    "batch_shape", "expected an integer", "got True")  # fmt: skip
row("batch_shape of strings", lambda v: init_state(v, batch_shape=("2",)), TypeError,
    "batch_shape", "expected an integer", "got '2'")  # fmt: skip
row("bare batch_shape int", lambda v: BARE.init_state(v.weight, 2), TypeError,
    "batch_shape", SIZES, "got 2")  # fmt: skip
row("init_state params of a gru", lambda v: init_state(v, params=v.params["gru"]), TypeError,
    "params", PARAMS, "got a GRUParams")  # fmt: skip
row("init_state params None", lambda v: init_state(v, "gru", params=None), TypeError,
    "params", "GRUParams", "got None")  # fmt: skip

# --- rnn --------------------------------------------------------------------------

ACTIVATION = r"expected a jaxrnn\.activations\.Activation"
row("activation a function", lambda v: jaxrnn.rnn(jnp.tanh), TypeError,
    "activation", ACTIVATION, "got a ", r"jaxrnn\.activations\.tanh")  # fmt: skip
row("activation a lambda", lambda v: jaxrnn.rnn(lambda z: z), TypeError,
    "activation", ACTIVATION, "got a function")  # fmt: skip
row("activation a name", lambda v: jaxrnn.rnn("tanh"), TypeError,
    "activation", ACTIVATION, "got 'tanh'; use jaxrnn.activations.tanh")  # fmt: skip
row("activation None", lambda v: jaxrnn.rnn(None), TypeError, "activation", ACTIVATION, "got None")
row("activation a tuple", lambda v: jaxrnn.rnn(("tanh", jnp.tanh)), TypeError,
    "activation", ACTIVATION, "got a tuple")  # fmt: skip
row("activation a class", lambda v: jaxrnn.rnn(activations.Activation), TypeError,
    "activation", ACTIVATION, "got a ")  # fmt: skip
row("activation by keyword", lambda v: jaxrnn.rnn(activation=jax.nn.relu), TypeError,
    "activation", ACTIVATION, "got a ")  # fmt: skip
row("activation without a derivative",
    lambda v: jaxrnn.rnn(activations.Activation("mine", jnp.tanh, None)), TypeError,
    r"activation\.derivative", "expected a function", "got None")  # fmt: skip
row("activation without a value",
    lambda v: jaxrnn.rnn(activations.Activation("mine", 1.0, jnp.cos)), TypeError,
    r"activation\.value", "expected a function", "got a float")  # fmt: skip


def tanh_with_gamma(gamma):
    return activations.Activation("tanh", jnp.tanh, activations.tanh.derivative, gamma)


row("activation with an array as gamma",
    lambda v: jaxrnn.rnn(tanh_with_gamma(np.ones(2))), TypeError,
    r"activation\.gamma", "expected a real number", "got")  # fmt: skip
row("activation with a negative gamma",
    lambda v: jaxrnn.rnn(tanh_with_gamma(-1.0)), ValueError,
    r"activation\.gamma", "expected", "got -1.0")  # fmt: skip
row("activation with NaN as gamma",
    lambda v: jaxrnn.rnn(tanh_with_gamma(float("nan"))), ValueError,
    r"activation\.gamma", "expected a finite number", "got nan")  # fmt: skip

# --- from_step --------------------------------------------------------------------

FUNCTION = "expected a function"
row("step None", lambda v: jaxrnn.from_step(None), TypeError, "step", FUNCTION, "got None")
row("step a cell", lambda v: jaxrnn.from_step(LSTM), TypeError, "step", FUNCTION, "PointwiseCell")
row("step a number", lambda v: jaxrnn.from_step(3), TypeError, "step", FUNCTION, "got an? int")
for name in ("init", "init_state", "jacobian"):
    row(f"{name} an array", lambda v, n=name: jaxrnn.from_step(bare_step, **{n: v.weight}),
        TypeError, name, FUNCTION, "or None", r"got float32\[4, 4\]")  # fmt: skip
    row(f"{name} a dict", lambda v, n=name: jaxrnn.from_step(bare_step, **{n: {"h": 0.0}}),
        TypeError, name, FUNCTION, "got a dict")  # fmt: skip


class Unhashable:
    """A callable that cannot be compared, as a step with arrays inside is."""

    __hash__ = None

    def __call__(self, params, state, x):
        return state


row("step without a hash", lambda v: jaxrnn.from_step(Unhashable()), TypeError,
    "step", "expected a hashable function", "got an? Unhashable")  # fmt: skip
row("no initialiser", lambda v: NOTHING_BUT_A_STEP.init(v.key, D, H), ValueError,
    "init", "bare_step", r"from_step\(step, init=")  # fmt: skip
row("no initial state", lambda v: bare(v, NOTHING_BUT_A_STEP), ValueError,
    "state0", "bare_step", r"from_step\(step, init_state=")  # fmt: skip
row("no initial state for init_state", lambda v: NOTHING_BUT_A_STEP.init_state(v.weight),
    ValueError, "state0", "bare_step", r"from_step\(step, init_state=")  # fmt: skip
row("no initial state for a stack",
    lambda v: jacobians.closed_form(jaxrnn.Run(NOTHING_BUT_A_STEP, v.weight, v.xs)), ValueError,
    "state0", "bare_step", r"from_step\(step, init_state=")  # fmt: skip
row("no initialiser for verify", lambda v: verify(cell=NOTHING_BUT_A_STEP), ValueError,
    "init", "bare_step", r"from_step\(step, init=", traced=False)  # fmt: skip
row("no initial state for verify",
    lambda v: verify(cell=jaxrnn.from_step(bare_step, init=lambda k, d, h: jnp.zeros((h, h)))),
    ValueError, "state0", "bare_step", r"from_step\(step, init_state=", traced=False)  # fmt: skip

STRAY_STEPS = {
    "another structure": (lambda p, s, x: (s["h"],), TypeError, "expected .* state", "PyTreeDef"),
    "another key": (lambda p, s, x: {"c": s["h"]}, TypeError, "expected .* state", "PyTreeDef"),
    "nothing": (lambda p, s, x: None, TypeError, "expected .* state", "None"),
    "one more": (lambda p, s, x: s | {"c": s["h"]}, TypeError, "expected .* state", "PyTreeDef"),
    "a shorter h": (lambda p, s, x: {"h": s["h"][1:]}, ValueError,
                    r"expected float32\[4\] .*state", r"float32\[3\]"),
    "a scalar": (lambda p, s, x: {"h": jnp.sum(s["h"])}, ValueError,
                 r"expected float32\[4\] .*state", r"float32\[\]"),
    "another dtype": (lambda p, s, x: {"h": s["h"].astype("float64")}, TypeError,
                      "expected float32, .*state", r"float64\[4\]"),
    "integers": (lambda p, s, x: {"h": s["h"].astype("int32")}, TypeError,
                 "expected", r"int32\[4\]"),
}  # fmt: skip
for label, (stray, error, expected, got) in STRAY_STEPS.items():
    stray_cell = jaxrnn.from_step(stray, init_state=bare_state, name="stray")
    named = r"step's result(\['h'\])?", expected, "got " + got
    row(f"step that returns {label}, state0 given",
        lambda v, c=stray_cell: bare(v, c, state0={"h": v.states["rnn"].h}),
        error, *named)  # fmt: skip
    row(f"step that returns {label}, state0 its own", lambda v, c=stray_cell: bare(v, c),
        error, *named)  # fmt: skip
    row(f"step that returns {label}, called alone",
        lambda v, c=stray_cell: c.step(v.weight, {"h": v.states["rnn"].h}, v.xs[0]),
        error, *named)  # fmt: skip
row("step that returns a shorter h, in a stack",
    lambda v: jaxrnn.Run(
        jaxrnn.from_step(STRAY_STEPS["a shorter h"][0], init_state=bare_state), v.weight, v.xs),
    ValueError, r"step's result\['h'\]", r"expected float32\[4\]", r"got float32\[3\]")  # fmt: skip
row("init_state that gives integers",
    lambda v: bare(v, jaxrnn.from_step(bare_step, init_state=lambda p: {"h": jnp.zeros(H, int)})),
    TypeError, r"(state0|init_state)[^:]*", FLOATING, r"got int(32|64)\[(2, )?4\]")  # fmt: skip
row("init_state that gives a list",
    lambda v: bare(v, jaxrnn.from_step(bare_step, init_state=lambda p: {"h": [0.0] * H})),
    TypeError, r"(state0|init_state)[^:]*", "expected an array", "got a float")  # fmt: skip

row("step that refuses the width of xs", lambda v: bare(v, WIDE, xs=v.xs[..., :2]), TypeError,
    "step", r"expected a function that takes params .*float32\[4, 4\]",
    r"x float32\[2\]", "got an error from 'wide'")  # fmt: skip

# --- PointwiseCell ----------------------------------------------------------------


def gate(**changes):
    return RNN.phi.gates[0]._replace(**changes)


def altered(**fields):
    return dataclasses.replace(RNN, **fields)


def unrolled(**phi):
    """`unroll` of a cell whose φ has other functions."""

    def call(v):
        unroll(v, "rnn", cell=altered(phi=RNN.phi._replace(**phi)))

    return call


for label, fields, error, named in (
    ("gates a string", {"gates": "ifgo"}, TypeError,
     ("gates", "a tuple of different names", "got 'ifgo'")),
    ("gates a list", {"gates": ["h"]}, TypeError, ("gates", "a tuple", r"got \['h'\]")),
    ("no gates", {"gates": ()}, ValueError, ("gates", "at least one", r"got \(\)")),
    ("one gate twice", {"gates": ("h", "h")}, ValueError, ("gates", "different", "got")),
    ("phi a tuple", {"phi": (1, 2, 3)}, TypeError, ("phi", "expected a Pointwise", "got a tuple")),
    ("phi a function", {"phi": jnp.tanh}, TypeError, ("phi", "expected a Pointwise", "got")),
    ("phi without tangent", {"phi": RNN.phi._replace(tangent=None)}, TypeError,
     (r"phi\.tangent", FUNCTION, "got None")),
    ("a readout that is no function", {"phi": RNN.phi._replace(readout=3)}, TypeError,
     (r"phi\.readout", f"{FUNCTION} or None", "got an int")),
    ("gates by letters", {"phi": RNN.phi._replace(gates=("h",))}, TypeError,
     (r"phi\.gates", r"a tuple of jaxrnn\.traits\.Gate", r"got \('h',\)")),
    ("a gate of another name", {"phi": RNN.phi._replace(gates=(gate(name="f"),))}, ValueError,
     (r"phi\.gates", "expected one for each of h", "got f")),
    ("a role that is none", {"phi": RNN.phi._replace(gates=(gate(role="forgets"),))}, ValueError,
     (r"phi\.gates of h", "expected a role of keeps, writes", "got 'forgets'")),
    ("a range upside down", {"phi": RNN.phi._replace(gates=(gate(range=(1.0, -1.0)),))}, ValueError,
     (r"phi\.gates of h", r"expected \(lowest, highest\)", r"got \(1.0, -1.0\)")),
    ("state_type a tuple", {"state_type": tuple}, TypeError,
     ("state_type", "a NamedTuple class", "got")),
    ("state_type without h", {"state_type": jaxrnn.RNNParams}, ValueError,
     ("state_type", "expected a field h", "got w_ih, w_hh, b")),
    ("shapes a dict", {"shapes": {}}, TypeError,
     ("shapes", rf"{FUNCTION} \(D, H\) -> params of shapes, ", "got a dict")),
    ("shapes without w_hh", {"shapes": lambda D, H: jaxrnn.RNNState((H,))}, ValueError,
     ("shapes' result", "expected a field w_ih", "got h")),
    ("init None", {"init": None}, TypeError,
     ("init", rf"{FUNCTION} \(key, input_size, hidden_size\) -> params, ", "got None")),
    ("projections an array", {"projections": np.zeros(3)}, TypeError,
     ("projections", f"{FUNCTION} or None", r"got float64\[3\]")),
    ("a unit that is no leaf", {"units": ("p",)}, ValueError,
     ("units", r"the name of a leaf \(H,\) of the params", "got 'p' of w_ih, w_hh, b")),
    ("a unit that is a weight", {"units": ("w_hh",)}, ValueError,
     ("units", r"the name of a leaf \(H,\)", "got 'w_hh'")),
    ("units as a list", {"units": ["b"]}, TypeError, ("units", "tuple", "got")),
    ("an output that is no leaf", {"output": "w_hr"}, ValueError,
     ("output", r"the name of a leaf \(P, H\) of the params", "got 'w_hr' of w_ih, w_hh, b")),
):  # fmt: skip
    row(f"cell with {label}", lambda v, f=fields: altered(**f), error, *named)


def projected(result):
    """`unroll` of an RNN whose projections give back `result(params)`."""

    def call(v):
        cell = altered(projections=result)
        return jaxrnn.unroll(cell, v.params["rnn"], v.xs)

    return call


row("projections that give back one",
    projected(lambda p: jaxrnn.Affine(p.w_hh, None)), TypeError,
    "projections' result", r"expected two of jaxrnn\.Affine", "got an Affine")  # fmt: skip
row("projections of another shape",
    projected(lambda p: (jaxrnn.Affine(p.w_ih, p.b), jaxrnn.Affine(p.w_hh[:2], None))), ValueError,
    "projections' recurrent weight", r"\(4, 4\)", r"got \(2, 4\)")  # fmt: skip
row("projections with a bias of another shape",
    projected(lambda p: (jaxrnn.Affine(p.w_ih, p.b[:1]), jaxrnn.Affine(p.w_hh, None))), ValueError,
    "projections' input bias", r"\(G·H,\) = \(4,\)", r"got \(1,\)")  # fmt: skip

row("units without their tangent",
    lambda v: dataclasses.replace(jaxrnn.peephole_lstm(), phi=jaxrnn.lstm().phi), ValueError,
    r"phi\.enter", r"expected \(p, dw\) -> ds for a cell with units", "got None")  # fmt: skip
row("a tangent of units without units",
    lambda v: altered(phi=RNN.phi._replace(enter=lambda p, dw: p)), ValueError,
    r"phi\.enter", "None for one without", r"got a function with units \(\)")  # fmt: skip

# --- cells of other activations and sizes --------------------------------------------

for label, make in (("gate", jaxrnn.lstm), ("candidate", jaxrnn.lstm), ("output", jaxrnn.lstm),
                    ("gate", jaxrnn.gru), ("candidate", jaxrnn.gru)):  # fmt: skip
    row(
        f"{make.__name__} with a bare function as {label}",
        lambda v, make=make, label=label: make(**{label: jnp.tanh}),
        TypeError,
        label,
        r"expected a jaxrnn\.activations\.Activation",
        "wrap your function",
    )
row("an activation without a derivative",
    lambda v: jaxrnn.lstm(gate=jaxrnn.activations.Activation("mine", jnp.tanh, None)), TypeError,
    r"activation\.derivative", f"{FUNCTION} z -> a'\\(z\\)", "got None")  # fmt: skip
for label, value in (("complement", 1.0), ("both", 1.0)):
    row(f"an activation whose {label} is a number",
        lambda v, o={label: value}: jaxrnn.activations.Activation("m", jnp.tanh, jnp.tanh, **o),
        TypeError, rf"activation\.{label}", FUNCTION, "got a float")  # fmt: skip
PROJECTED = jaxrnn.projected_lstm(2)
row("a projection to nothing", lambda v: jaxrnn.projected_lstm(0), ValueError,
    "projection_size", "expected an integer of at least 1", "got 0")  # fmt: skip
row("a projection to 2.0", lambda v: jaxrnn.projected_lstm(2.0), TypeError,
    "projection_size", "expected an integer", "got 2.0")  # fmt: skip
for hidden in (1, 2):
    row(f"a projection to 2 of {hidden} units",
        lambda v, hidden=hidden: PROJECTED.init(jax.random.key(0), 3, hidden), ValueError,
        "hidden_size", "expected more than projection_size = 2", f"got {hidden}")  # fmt: skip


def of_projected(change, state0=None):
    """`unroll` of a projected LSTM of 3 inputs and 4 units, with spoilt params or a state."""

    def call(v):
        shapes = PROJECTED.shapes(3, 4)
        params = type(shapes)(*[np.zeros(s, "float32") for s in shapes])._replace(**change)
        return jaxrnn.unroll(PROJECTED, params, v.xs, state0)

    return call


def zeros(*shape):
    return np.zeros(shape, "float32")


for label, change, named in (
    (
        "w_hh of H columns",
        {"w_hh": zeros(16, 4)},
        (r"params\.w_hh", r"\(G·H, P\) = \(16, 2\)", r"got \(16, 4\)"),
    ),
    (
        "w_hh transposed",
        {"w_hh": zeros(2, 16)},
        (r"params\.w_hh", r"\(16, 2\)", "it looks transposed"),
    ),
    (
        "w_hr transposed",
        {"w_hr": zeros(4, 2)},
        (r"params\.w_hr", r"\(P, H\) = \(2, 4\)", "transposed"),
    ),
    ("b of P", {"b": zeros(8)}, (r"params\.b", r"\(16,\)", r"got \(8,\)")),
):
    row(f"projected LSTM with {label}", of_projected(change), ValueError, *named)
for label, state0, named in (
    (
        "h of H entries",
        (zeros(2, 4), zeros(2, 4)),
        (r"state0\.h", "expected last axis P = 2", r"got shape \(2, 4\)"),
    ),
    (
        "c of P entries",
        (zeros(2, 2), zeros(2, 2)),
        (r"state0\.c", "expected last axis H = 4", r"got shape \(2, 2\)"),
    ),
):
    row(f"projected LSTM with {label}",
        of_projected({}, jaxrnn.ProjectedLSTMState(*state0)), ValueError, *named)  # fmt: skip
row("phi.update that gives back an array", unrolled(update=lambda s, u, a: jnp.tanh(u + a)),
    TypeError, "phi.update's result", "expected the tree of RNNState", "got")  # fmt: skip
row("phi.update that gives back another width",
    unrolled(update=lambda s, u, a: jaxrnn.RNNState(jnp.concatenate([u, a], -1))),
    ValueError, r"phi.update's result\.h", r"expected float32\[3\]",
    r"got float32\[6\]")  # fmt: skip
row("phi.tangent that gives back another tree",
    unrolled(tangent=lambda p, ds, dv: jaxrnn.LSTMState(dv, dv)),
    TypeError, "phi.tangent's result", "expected the tree of RNNState", "got")  # fmt: skip

row("phi.merge that gives back half",
    unrolled(merge=lambda p, du, da: du[..., :1]), ValueError,
    "phi.merge's result", r"expected float32\[3\]", r"got float32\[1\]")  # fmt: skip
row("chunk zero", lambda v: unroll(v, chunk=0), ValueError,
    "chunk", "expected an integer of at least 1", "got 0")  # fmt: skip
row("chunk float", lambda v: unroll(v, chunk=2.0), TypeError,
    "chunk", "expected an integer", "got 2.0")  # fmt: skip
for name, options in (("segment zero", {"segment": 0}), ("segment negative", {"segment": -4})):
    row(name, lambda v, o=options: jaxrnn.unrolling.last_state(LSTM, v.params["lstm"], v.xs, **o),
        ValueError, "segment", "expected an integer of at least 1", "got")  # fmt: skip
row("segment float",
    lambda v: jaxrnn.unrolling.last_state(LSTM, v.params["lstm"], v.xs, segment=2.5), TypeError,
    "segment", "expected an integer", "got 2.5")  # fmt: skip

# --- runs -------------------------------------------------------------------------

UNROLLED = ("by_autodiff", "last_state")
# What makes a run refuses all of it alike: a part ↦ its spoilt value, and what is said.
UNFIT = {
    "xs wrong D": ({"xs": lambda v: v.xs[..., :2]}, ValueError,
                   ("xs", "expected last axis D = 3", r"got shape \(5, 2, 2\)")),
    "xs integer": ({"xs": lambda v: v.xs.astype("int32")}, TypeError,
                   ("xs", FLOATING, r"got int32\[5, 2, 3\]")),
    "xs one axis": ({"xs": lambda v: v.xs[0, 0]}, ValueError,
                    ("xs", TIME_MAJOR, r"got float32\[3\]")),
    "xs None": ({"xs": lambda v: None}, TypeError, ("xs", "expected an array", "got None")),
    "xs a list": ({"xs": lambda v: [1.0]}, TypeError, ("xs", "expected an array", "got a list")),
    "params None": ({"params": lambda v: None}, TypeError, ("params", PARAMS, "got None")),
    "params of a gru": ({"params": lambda v: v.params["gru"]}, TypeError,
                        ("params", PARAMS, "got a GRUParams")),
    "params float64": ({"params": lambda v: float64(v.params["lstm"])}, TypeError,
                       ("xs", "expected float64, the dtype of params", r"got float32\[5, 2, 3\]")),
    "state0 of a gru": ({"state0": lambda v: v.states["gru"]}, TypeError,
                        ("state0", STATE, "got a GRUState")),
    "state0 wrong H": ({"state0": lambda v: v.states["lstm"]._replace(h=v.xs[0])}, ValueError,
                       (r"state0\.h", "expected last axis H = 4", r"got shape \(2, 3\)")),
    "xs batch-first": (
        {"xs": lambda v: v.xs.swapaxes(0, 1), "state0": lambda v: v.states["lstm"]}, ValueError,
        (r"state0\.h", r"expected the batch shape \(5,\)", r"got \(2,\)", "batch-first")),
    "lengths float": ({"lengths": lambda v: v.lengths.astype("float32")}, TypeError,
                      ("lengths", INTEGER, r"got float32\[2\]")),
    "lengths beyond T": ({"lengths": lambda v: np.array([6, 2])}, ValueError,
                         ("lengths", RANGE, "got 6")),
    "lengths wrong batch": ({"lengths": lambda v: v.lengths.repeat(2)}, ValueError,
                            ("lengths", r"expected the batch shape \(2,\)", r"got \(4,\)")),
    "resets integer": ({"resets": lambda v: v.resets.astype(int)}, TypeError,
                       ("resets", BOOLEAN, r"got int(32|64)\[5, 2\]")),
    "resets transposed": ({"resets": lambda v: v.resets.T}, ValueError,
                          ("resets", TB, r"got \(2, 5\)", "transposed")),
}  # fmt: skip


def unfit(label, f):
    """A row's call: f(v, **the spoilt parts), and what it must raise."""
    changes, error, named = UNFIT[label]
    return lambda v: f(v, **{part: spoilt(v) for part, spoilt in changes.items()}), error, *named


def seen_in_shapes(label):
    return {"traced": label != "lengths beyond T"}


for label in UNFIT:
    row(f"a run, {label}", *unfit(label, run_of), **seen_in_shapes(label))
    for name in UNROLLED:
        f = functools.partial(flat, getattr(jaxrnn.unrolling, name))
        row(f"{name} {label}", *unfit(label, f), **seen_in_shapes(label))
for label, value, got in (("a function", bare_step, "got a function"), ("None", None, "got None")):
    row(f"a run of {label}", lambda v, c=value: run_of(v, cell=c), TypeError, "cell", CELL, got)
    for name in UNROLLED:
        f = functools.partial(flat, getattr(jaxrnn.unrolling, name))
        row(f"{name} of {label}", lambda v, f=f, c=value: f(v, cell=c), TypeError,
            "cell", CELL, got)  # fmt: skip
row("a run at params of a gru", lambda v: run_of(v).at(v.params["gru"]), TypeError,
    "params", PARAMS, "got a GRUParams")  # fmt: skip
row("a run of other inputs", lambda v: dataclasses.replace(run_of(v), xs=v.xs[..., :2]),
    ValueError, "xs", "expected last axis D = 3", r"got shape \(5, 2, 2\)")  # fmt: skip
row("axes of a run by another name", lambda v: run_of(v).axes(x=1), TypeError,
    "axes", "expected only the names params, xs", "got x")  # fmt: skip
row("states of a run that nothing checked",
    lambda v: unchecked(v, resets=v.resets.T).states(), ValueError,
    "resets", TB, r"got \(2, 5\)", "transposed")  # fmt: skip


def on_states(states):
    return jnp.sum(states.h)


def on_steps(states):
    return jnp.sum(states.h, axis=(1, 2))


def own_arguments(f, v):
    """What a function takes beside a run."""
    own = {bptt.credit_matrix: (on_steps,), truncation.gradient: (on_states, 2),
           initializers.scaled_to_exponent: (0.0,), products.transport: (1, 3),
           paths.transport: (1, 3), products.adjoint_norms: (v.states["lstm"],),
           products.tangent_norms: (v.states["lstm"],)}  # fmt: skip
    of_a_loss = f.__module__ in (bptt.__name__, truncation.__name__) or "omega" in f.__name__
    return own.get(f, (on_states,) if of_a_loss else ())


ANALYSES = [
    jacobians.closed_form, jacobians.forward_mode, jacobians.reverse_mode, jacobians.wrt_inputs,
    jacobians.wrt_params, jacobians.c_partial, jacobians.c_path,
    bptt.adjoints, bptt.temporal_contributions, bptt.contribution_norms, bptt.credit_matrix,
    truncation.gradient, truncation.curve, truncation.curve_of_last,
    products.transport, products.transport_norms, products.frobenius_norms,
    products.adjoint_norms, products.tangent_norms, lyapunov.exponents,
    paths.decompose, paths.transport, certificates.along, certificates.certify,
    regularizers.omega, regularizers.omega_at_fixed_adjoints, regularizers.flossing,
    initializers.scaled_to_exponent,
]  # fmt: skip
NO_RUNS = {
    "a cell": (lambda v: LSTM, r"got an? PointwiseCell"),
    "a tuple": (lambda v: (LSTM, v.params["lstm"], v.xs), "got a tuple"),
    "None": (lambda v: None, "got None"),
}


def full_name(f):
    return f"{f.__module__.rpartition('.')[2]}.{f.__name__}"


for f in ANALYSES:
    for label, (value, got) in NO_RUNS.items():
        row(f"{full_name(f)} of {label}",
            lambda v, f=f, value=value: f(value(v), *own_arguments(f, v)), TypeError,
            "run", r"expected a jaxrnn\.Run", got, r"jaxrnn\.Run\(cell, params, xs\)")  # fmt: skip
    for label in ("xs wrong D", "params of a gru", "resets integer", "lengths beyond T"):
        spoilt = unfit(
            label, lambda v, f=f, **parts: f(unchecked(v, **parts), *own_arguments(f, v))
        )
        row(f"{full_name(f)} of an unchecked run, {label}", *spoilt, **seen_in_shapes(label))
for f in (lyapunov.exponents, regularizers.flossing, initializers.scaled_to_exponent):
    for mask in ("lengths", "resets"):
        row(f"{f.__name__} of a run with {mask}",
            lambda v, f=f, m=mask: f(run_of(v, **{m: getattr(v, m)}), *own_arguments(f, v)),
            ValueError, mask, "expected none, since an exponent", "got")  # fmt: skip
for f in (jacobians.c_partial, jacobians.c_path, paths.decompose, paths.transport):
    for kind in ("rnn", "gru"):
        row(f"{full_name(f)} of a {kind}",
            lambda v, f=f, k=kind: f(run_of(v, k), *own_arguments(f, v)), TypeError,
            "cell", r"expected a cell with a state \(h, c\)", f"got {kind}")  # fmt: skip
    row(f"{full_name(f)} of a bare step",
        lambda v, f=f: f(run_of(v, cell=BARE, params=v.weight), *own_arguments(f, v)), TypeError,
        "cell", r"expected a cell with a state \(h, c\)", "got bare_step")  # fmt: skip
MUTE = dataclasses.replace(LSTM, name="mute", phi=LSTM.phi._replace(readout=None))
for f in (jacobians.c_path, paths.decompose, paths.transport):
    row(f"{full_name(f)} without a read-out",
        lambda v, f=f: f(run_of(v, cell=MUTE), *own_arguments(f, v)), TypeError,
        "cell", "expected a cell whose phi declares its read-out", "got mute")  # fmt: skip

# --- backpropagation through time -------------------------------------------------


def through_time(f, v, **changes):
    """A function of a loss in which everything fits but for the changes."""
    given = {"losses": on_steps} if f is bptt.credit_matrix else {"loss": on_states}
    if f is truncation.gradient:
        given["window"] = 2
    return f(run_of(v), **given | changes)


THROUGH_TIME = {
    "adjoints": bptt.adjoints,
    "contributions": bptt.temporal_contributions,
    "norms": bptt.contribution_norms,
    "credit": bptt.credit_matrix,
    "truncated": truncation.gradient,
    "curve": truncation.curve,
    "curve of last": truncation.curve_of_last,
}
for at, f in THROUGH_TIME.items():
    call = functools.partial(through_time, f)
    LOSS = "losses" if at == "credit" else "loss"
    SIGNATURE = {
        "credit": r"\(states\) -> \(T,\)",
        "curve of last": r"\(last state\) -> scalar",
    }.get(at, r"\(states\) -> scalar")
    REAL = r"one real loss a step, \(T,\) = \(5,\)" if at == "credit" else "one real scalar"
    for label, loss, error, got in (
        ("None", None, TypeError, "got None"),
        ("a number", 1.0, TypeError, "got a float"),
        ("an array", np.ones(T), TypeError, r"got float64\[5\]"),
        ("gives a state", lambda s: s, TypeError, "got an? LSTMState"),
        ("gives units", lambda s: s.h[..., 0], ValueError, r"got float32\["),
        ("gives a matrix", lambda s: s.h[:1, :1].reshape(1, -1), ValueError, r"got float32\[1, "),
        ("gives a pair", lambda s: (s.h.sum(), 0.0), TypeError, "got a tuple"),
        ("gives nothing", lambda s: None, TypeError, "got None"),
        ("gives a string", lambda s: "loss", TypeError, "got a str"),
        ("gives an integer", lambda s: s.h.size, TypeError, "got an int"),
        ("gives integers", lambda s: jnp.arange(T), TypeError, r"got int(32|64)\[5\]"),
        ("gives a boolean", lambda s: s.h.sum() > 0, TypeError, r"got bool\[\]"),
        ("gives a complex", lambda s: s.h.sum().astype("complex64"), TypeError, r"got complex64"),
        ("gives the other", on_states if at == "credit" else lambda s: s.h.ravel()[:T], ValueError,
         r"got float32\[5?\]"),
    ):  # fmt: skip
        changes = {LOSS: loss}
        words = REAL if callable(loss) else f"{FUNCTION} {SIGNATURE}, "
        row(f"{at} loss {label}", lambda v, c=call, k=changes: c(v, **k), error, LOSS, words, got)
for label, window, error, words, got in (
    ("zero", 0, ValueError, r"in \[1, 5\]", "got 0"),
    ("negative", -3, ValueError, r"in \[1, 5\]", "got -3"),
    ("beyond T", 6, ValueError, r"in \[1, 5\]", "got 6"),
    ("float", 2.0, TypeError, "expected an integer", "got 2.0"),
    ("bool", True, TypeError, "expected an integer", "got True"),
    ("None", None, TypeError, "expected an integer", "got None"),
    ("array", np.array([2]), TypeError, "expected an integer", r"got array"),
):
    row(f"window {label}",
        lambda v, w=window: through_time(truncation.gradient, v, window=w), error,
        "window", words, got)  # fmt: skip
CURVE = truncation.Curve(np.zeros(3), np.ones(3))
for label, epsilon, error, words in (
    ("zero", 0.0, ValueError, ("above 0", "got 0")),
    ("negative", -0.1, ValueError, ("above 0", "got -0.1")),
    ("NaN", float("nan"), ValueError, ("finite", "got nan")),
    ("infinite", float("inf"), ValueError, ("finite", "got inf")),
    ("string", "0.1", TypeError, ("a real number", "got '0.1'")),
    ("None", None, TypeError, ("a real number", "got None")),
    ("bool", True, TypeError, ("a real number", "got True")),
):
    row(f"epsilon {label}", lambda v, e=epsilon: CURVE.smallest_window(e), error,
        "epsilon", *words)  # fmt: skip

# --- how far it reaches -----------------------------------------------------------


def whole(f, v, **changes):
    """A function of a trajectory in which everything fits but for the changes."""
    given = {}
    if f is products.adjoint_norms:
        given["cotangent"] = v.states["lstm"]
    if f is products.tangent_norms:
        given["tangent"] = v.states["lstm"]
    if f in (products.transport, paths.transport):
        given |= {"k": 1, "t": 3}
    return f(run_of(v), **given | changes)


for f in (products.transport, paths.transport):
    for label, change, error, named in (
        ("k > t", {"k": 4}, ValueError, ("k", r"expected an integer in \[0, 3\]", "got 4")),
        ("t = T", {"t": 5}, ValueError, ("t", r"expected an integer in \[0, 4\]", "got 5")),
        ("k negative", {"k": -1}, ValueError, ("k", r"in \[0, 3\]", "got -1")),
        ("t negative", {"t": -1}, ValueError, ("t", r"in \[0, 4\]", "got -1")),
        ("k float", {"k": 1.0}, TypeError, ("k", "expected an integer", "got 1.0")),
        ("t bool", {"t": True}, TypeError, ("t", "expected an integer", "got True")),
        ("t None", {"t": None}, TypeError, ("t", "expected an integer", "got None")),
    ):
        row(f"{full_name(f)} {label}", lambda v, f=f, c=change: whole(f, v, **c), error, *named)
for f, name in ((products.adjoint_norms, "cotangent"), (products.tangent_norms, "tangent")):
    for label, change, error, got in (
        ("of a gru", lambda v: v.states["gru"], TypeError, "got"),
        ("an array", lambda v: v.states["lstm"].h, TypeError, r"got float32\[2, 4\]"),
        ("None", lambda v: None, TypeError, "got None"),
        ("without batch", lambda v: jax.tree.map(lambda s: s[0], v.states["lstm"]), ValueError,
         r"got .*\(4,\)|got float32\[4\]"),
        ("float64", lambda v: jax.tree.map(lambda s: s.astype("float64"), v.states["lstm"]),
         TypeError, "got float64"),
    ):  # fmt: skip
        row(f"{name} {label}", lambda v, f=f, n=name, c=change: whole(f, v, **{n: c(v)}), error,
            name + r"(\.\w)?", "expected", got)  # fmt: skip
for label, change, error, named in (
    ("count zero", {"count": 0}, ValueError, ("count", "at least 1", "got 0")),
    ("count beyond n", {"count": 9}, ValueError, ("count", "8", "got 9")),
    ("count float", {"count": 2.0}, TypeError, ("count", "expected an integer", "got 2.0")),
    ("warmup T", {"warmup": 5}, ValueError, ("warmup", "expected", "got 5")),
    ("warmup negative", {"warmup": -1}, ValueError, ("warmup", "at least 0", "got -1")),
    ("warmup bool", {"warmup": True}, TypeError, ("warmup", "expected an integer", "got True")),
    ("interval zero", {"interval": 0}, ValueError, ("interval", "at least 1", "got 0")),
    ("interval float", {"interval": 1.5}, TypeError, ("interval", "an integer", "got 1.5")),
):
    row(f"exponents {label}", lambda v, k=change: whole(lyapunov.exponents, v, **k), error, *named)
row("of_weights of a gated cell", lambda v: certificates.of_weights(LSTM, v.params["lstm"]),
    ValueError, "cell", "expected one gate with a bound γ", "got lstm",
    "certify along inputs")  # fmt: skip
row("of_weights of an activation without γ",
    lambda v: certificates.of_weights(jaxrnn.rnn(tanh_with_gamma(None)), v.params["rnn"]),
    ValueError, "cell", "expected one gate with a bound γ", "activation without γ")  # fmt: skip
row("of_weights of weights of a gru", lambda v: certificates.of_weights(RNN, v.params["gru"]),
    TypeError, "params", r"RNNParams\(w_ih, w_hh, b\)", "got a GRUParams")  # fmt: skip
row("of_weights of nothing", lambda v: certificates.of_weights(None, v.params["rnn"]), TypeError,
    "cell", CELL, "got None")  # fmt: skip
for name in ("sequential", "associative", "product"):
    f = getattr(matrix_products, name)
    for label, matrices, error, got, traced in (
        ("not square", lambda v: v.xs, ValueError, r"got float32\[5, 2, 3\]", True),
        ("one matrix", lambda v: v.weight, ValueError, r"got float32\[4, 4\]", True),
        ("a list", lambda v: [[[1.0]]], TypeError, "got a list", True),
        ("integers", lambda v: v.resets[:, :1, None].astype(int), TypeError, INTEGERS, True),
    ):
        words = "expected a real floating dtype" if label == "integers" else "expected"
        row(f"{name} of {label}", lambda v, f=f, m=matrices: f(m(v)), error,
            "matrices", words, got, traced=traced)  # fmt: skip
    row(f"{name} of NaN", lambda v, f=f: f(np.float32([1, np.nan, 1])[:, None, None]),
        ValueError, "matrices", "expected finite", "first in step 1")  # fmt: skip
for label, call, error, named in (
    ("of a list", lambda v: jaxrnn.memory_horizon([0.0]), TypeError,
     ("log_norms", "expected an array", "got a list")),
    ("of a scalar", lambda v: jaxrnn.memory_horizon(v.xs[0, 0, 0]), ValueError,
     ("log_norms", r"expected \(T, \*batch\)", r"got float32\[\]")),
    ("of no step", lambda v: jaxrnn.memory_horizon(v.xs[:0]), ValueError,
     ("log_norms", "T ≥ 1", r"got float32\[0, 2, 3\]")),
    ("of all", lambda v: jaxrnn.memory_horizon(v.xs, 1.0), ValueError,
     ("fraction", "0 < fraction < 1", "got 1.0")),
    ("of nothing", lambda v: jaxrnn.memory_horizon(v.xs, 0.0), ValueError,
     ("fraction", "0 < fraction < 1", "got 0.0")),
    ("of a string", lambda v: jaxrnn.memory_horizon(v.xs, "1%"), TypeError,
     ("fraction", "a real number", "got '1%'")),
    ("lengths of another batch", lambda v: jaxrnn.memory_horizon(v.xs, lengths=v.lengths),
     ValueError, ("lengths", "expected the batch shape", "got")),
    ("lengths a list", lambda v: jaxrnn.memory_horizon(v.xs[..., 0], lengths=[2, 5]), TypeError,
     ("lengths", "expected an array", "got a list")),
):  # fmt: skip
    row(f"horizon {label}", call, error, *named)

# --- cures --------------------------------------------------------------------------

for name in ("omega", "omega_at_fixed_adjoints"):
    f = getattr(regularizers, name)
    for label, change, error, named in (
        ("a loss of the wrong shape", {"loss": lambda s: s.h}, ValueError,
         ("loss", "one real scalar", r"got float32\[5, 2, 4\]; take its sum or its mean")),
        ("no loss", {"loss": 1.0}, TypeError, ("loss", "expected a function", "got")),
    ):  # fmt: skip
        row(f"{name}: {label}", lambda v, f=f, c=change: through_time(f, v, **c), error, *named)


for label, change, error, named in (
    ("target inf", {"target": float("inf")}, ValueError, ("target", "finite", "got inf")),
    ("target a string", {"target": "0"}, TypeError, ("target", "a real number", "got '0'")),
    (
        "target an array",
        {"target": np.ones(2, "float32")},
        ValueError,
        ("target", "a scalar", r"got .*\(2,\)"),
    ),
    ("count 0", {"count": 0}, ValueError, ("count", "at least 1", "got 0")),
    ("count beyond the state", {"count": 9}, ValueError, ("count", "at most n = 8", "got 9")),
    ("warmup T", {"warmup": T}, ValueError, ("warmup", "fewer steps than T = 5", "got 5")),
    ("interval 0", {"interval": 0}, ValueError, ("interval", "at least 1", "got 0")),
):
    row(f"flossing {label}", lambda v, c=change: whole(regularizers.flossing, v, **c), error,
        *named)  # fmt: skip
for f in (lyapunov.exponents, regularizers.flossing):
    row(f"{f.__name__} of no step", lambda v, f=f: f(run_of(v, xs=v.xs[:0])), ValueError,
        "xs", "at least one step", r"got float32\[0, 2, 3\]")  # fmt: skip


def shaped(name, v, kind="lstm", **changes):
    """An initialiser on fitting arguments but for what changes."""
    own = {
        "with_gate_bias": {"gate": "f", "bias": 1.0},
        "chrono": {"key": v.key, "longest": 50.0},
        "redrawn": {"key": v.key, "gates": ("f",)},
        "scaled_to_bound": {},
    }[name]
    given = {"cell": CELLS[kind], "params": v.params[kind]} | own | changes
    return getattr(initializers, name)(**given)


GATED = "expected a cell in closed form"
for name, kind, label, change, error, named in (
    ("with_gate_bias", "lstm", "no such gate", {"gate": "z"}, ValueError,
     ("gate", "one of i, f, g, o", "got 'z'")),
    ("with_gate_bias", "lstm", "bias NaN", {"bias": float("nan")}, ValueError,
     ("bias", "finite", "got nan")),
    ("with_gate_bias", "lstm", "bias too long", {"bias": np.ones(5, "float32")}, ValueError,
     ("bias", r"expected shape \(H,\)", r"got .*\(5,\)")),
    ("with_gate_bias", "lstm", "bias of another dtype", {"bias": np.ones(4)}, TypeError,
     ("bias", "float32", "got float64")),
    ("with_gate_bias", "lstm", "bias a string", {"bias": "1"}, TypeError,
     ("bias", "a real number", "got '1'")),
    ("chrono", "rnn", "nothing that keeps", {}, ValueError,
     ("cell", "a forget gate f or an update gate z", "got rnn")),
    ("chrono", "lstm", "shortest 1", {"shortest": 1.0}, ValueError,
     ("shortest", "at least 2", "got 1.0")),
    ("chrono", "lstm", "longest below shortest", {"shortest": 9.0, "longest": 8.0}, ValueError,
     ("longest", "at least 9", "got 8.0")),
    ("chrono", "lstm", "longest inf", {"longest": float("inf")}, ValueError,
     ("longest", "finite", "got inf")),
    ("chrono", "lstm", "a seed for a key", {"key": 0}, TypeError, ("key", "one key", "got")),
    ("redrawn", "lstm", "no such gate", {"gates": ("r",)}, ValueError,
     ("gates", "one of i, f, g, o", "got 'r'")),
    ("redrawn", "lstm", "no gate", {"gates": ()}, ValueError,
     ("gates", "at least one", r"got \(\)")),
    ("redrawn", "lstm", "gates a string", {"gates": "f"}, TypeError,
     ("gates", "a tuple of different names", "got 'f'")),
    ("redrawn", "lstm", "no initialiser", {"recurrent_init": 1.0}, TypeError,
     ("recurrent_init", "expected a function", "got")),
    ("scaled_to_bound", "lstm", "no bound", {}, ValueError,
     ("cell", "one gate with a bounded slope", "use scaled_to_exponent")),
    ("scaled_to_bound", "rnn", "target 0", {"target": 0.0}, ValueError,
     ("target", "above 0", "got 0.0")),
    ("scaled_to_bound", "rnn", "target inf", {"target": float("inf")}, ValueError,
     ("target", "finite", "got inf")),
):  # fmt: skip
    row(f"{name} {label}", lambda v, n=name, k=kind, c=change: shaped(n, v, k, **c), error, *named)
for name in ("with_gate_bias", "chrono", "redrawn", "scaled_to_bound"):
    row(f"{name} of a bare step", lambda v, n=name: shaped(n, v, cell=BARE), TypeError,
        "cell", GATED, "got bare_step")  # fmt: skip
    row(f"{name} of params of another cell", lambda v, n=name: shaped(
        n, v, "rnn" if n == "scaled_to_bound" else "lstm", params=v.params["gru"]), TypeError,
        "params", r"Params\(w_ih, w_hh, b\)", "got a GRUParams")  # fmt: skip
for label, xs, own, error, named in (
    ("target NaN", None, {"target": float("nan")}, ValueError, ("target", "finite", "got nan")),
    ("target a string", None, {"target": "0"}, TypeError, ("target", "a real number", "got '0'")),
    ("warmup T", None, {"target": 0.0, "warmup": T}, ValueError,
     ("warmup", "fewer steps than T = 5", "got 5")),
    ("no example", np.ones((T, 0, D), "float32"), {"target": 0.0}, ValueError,
     ("xs", "at least one step of one example", r"got float32\[5, 0, 3\]")),
    ("no step", np.ones((0, B, D), "float32"), {"target": 0.0}, ValueError,
     ("xs", "at least one step of one example", r"got float32\[0, 2, 3\]")),
):  # fmt: skip
    row(f"scaled_to_exponent {label}",
        lambda v, xs=xs, own=own: initializers.scaled_to_exponent(
            run_of(v, xs=v.xs if xs is None else xs), **own), error, *named)  # fmt: skip
row("scaled_to_exponent of a bare step",
    lambda v: initializers.scaled_to_exponent(run_of(v, cell=BARE, params=v.weight), 0.0),
    TypeError, "cell", GATED, "got bare_step")  # fmt: skip
row("identity scale inf", lambda v: initializers.identity(float("inf")), ValueError,
    "scale", "finite", "got inf")  # fmt: skip
row("identity of a wide matrix", lambda v: initializers.identity()(v.key, (2, 3)), ValueError,
    "shape", r"expected a square matrix \(H, H\)", r"got \(2, 3\)")  # fmt: skip

LEAST = {"adding": 6, "temporal_order": 10, "temporal_order_3": 10, "random_permutation": 2,
         "copying": 1, "noiseless_memorisation": 1}  # fmt: skip
for name, least in LEAST.items():
    f = getattr(tasks, name)
    row(f"{name} too short", lambda v, f=f, n=least: f(v.key, 2, n - 1), ValueError,
        "T", "expected", f"at least {least}", f"got {least - 1}")  # fmt: skip
    row(f"{name} T a float", lambda v, f=f: f(v.key, 2, 50.0), TypeError,
        "T", "an integer", "got 50.0")  # fmt: skip
    row(f"{name} batch below 0", lambda v, f=f: f(v.key, -1, 50), ValueError,
        "batch_size", "at least 0", "got -1")  # fmt: skip
    row(f"{name} a seed for a key", lambda v, f=f: f(0, 2, 50), TypeError,
        "key", "one key", "got")  # fmt: skip


def digits(v, **changes):
    given = {"key": v.key, "batch_size": 2, "images": v.weight, "labels": np.arange(H)} | changes
    return tasks.sequential_digits(**given)


for label, change, error, named in (
    ("no image", {"images": np.ones((0, 4), "float32"), "labels": np.arange(0)}, ValueError,
     ("images", "at least one", r"got float32\[0, 4\]")),
    ("images square", {"images": np.ones((4, 2, 2), "float32")}, ValueError,
     ("images", r"\(N, T\)", r"got")),
    ("labels too few", {"labels": np.arange(3)}, ValueError, ("labels", r"\(N,\)", r"\(3,\)")),
    ("labels of floats", {"labels": np.ones(H)}, TypeError,
     ("labels", "integer", "got float64")),
    ("batch below 0", {"batch_size": -1}, ValueError, ("batch_size", "at least 0", "got -1")),
):  # fmt: skip
    row(f"sequential_digits {label}", lambda v, c=change: digits(v, **c), error, *named)
for label, call, error, named in (
    ("squared_error of a list", lambda v: tasks.squared_error(v.xs, [[1.0]]), TypeError,
     ("targets", "expected an array", "got a list")),
    ("squared_error of unlike shapes", lambda v: tasks.squared_error(v.xs, v.xs[:1]), ValueError,
     ("outputs", "expected", r"got .*\(5, 2, 3\)")),
    ("within of unlike shapes", lambda v: tasks.within(v.xs, v.xs[:1]), ValueError,
     ("outputs", "expected", r"got .*\(5, 2, 3\)")),
    ("within 0", lambda v: tasks.within(v.xs, v.xs, 0.0), ValueError,
     ("error", "above 0", "got 0.0")),
    ("cross_entropy of one-hot targets", lambda v: tasks.cross_entropy(v.xs, v.xs), TypeError,
     ("targets", "integer", r"got float32")),
    ("correct without classes", lambda v: tasks.correct(v.xs[0], v.resets[:1].astype(int)),
     ValueError, ("outputs", r"\(N, B, classes\)", r"got float32\[2, 3\]")),
):  # fmt: skip
    row(label, call, error, *named)


def clipped(v, f=clipping.clip_by_global_norm, tree=None, *args):
    made = f(*args)
    return made.update(tree, made.init({"w": v.weight}))


for f, name in ((clipping.clip_by_global_norm, "max_norm"),
                (clipping.clip_by_running_quantile, "quantile")):  # fmt: skip
    for label, value, error, got in (
        ("0", 0.0, ValueError, "got 0.0"), ("negative", -1.0, ValueError, "got -1.0"),
        ("NaN", float("nan"), ValueError, "got nan"), ("inf", float("inf"), ValueError, "got inf"),
        ("a string", "1", TypeError, "got '1'"), ("a bool", True, TypeError, "got True"),
    ):  # fmt: skip
        row(f"{f.__name__} {label}", lambda v, f=f, x=value: f(x), error, name, "expected", got)
    row(f"{f.__name__} of integers", lambda v, f=f: clipped(v, f, {"w": v.lengths}, 0.5),
        TypeError, r"updates\['w'\]", "expected a real floating dtype", INTEGERS)  # fmt: skip
    row(f"{f.__name__} of nothing", lambda v, f=f: clipped(v, f, {}, 0.5), ValueError,
        "updates", "expected a tree with arrays", "got {}")  # fmt: skip
    row(f"{f.__name__} policy a string", lambda v, f=f: f(0.5, nonfinite="skip"), TypeError,
        "nonfinite", "expected a function", "got")  # fmt: skip
row("clip_by_running_quantile 1", lambda v: clipping.clip_by_running_quantile(1.0), ValueError,
    "quantile", r"in \(0, 1\)", "got 1.0")  # fmt: skip
row("clip_by_running_quantile rate 0", lambda v: clipping.clip_by_running_quantile(0.5, 0.0),
    ValueError, "rate", "above 0", "got 0.0")  # fmt: skip
row("global_norm of nothing", lambda v: clipping.global_norm([]), ValueError,
    "tree", "expected a tree with arrays", r"got \[\]")  # fmt: skip
row("global_norm of integers", lambda v: clipping.global_norm([v.lengths]), TypeError,
    r"tree\[0\]", "expected a real floating dtype", INTEGERS)  # fmt: skip

# --- layers -----------------------------------------------------------------------


def layered(v, f=layers.unroll_layers, **changes):
    given = {"cell": LSTM, "layers": [layers.Layer(v.params["lstm"])], "xs": v.xs} | changes
    return f(**given)


def of_runs(v, f, loss=lambda states: states[-1].forward.h.sum(), runs=None):
    """A function of a stack's runs."""
    runs = layers.runs(LSTM, [layers.Layer(v.params["lstm"])], v.xs) if runs is None else runs(v)
    return f(runs) if f is layers.state_jacobians else f(runs, loss)


for f in (layers.unroll_layers, layers.runs):
    for label, change, error, named in (
        ("a cell's params bare", lambda v: {"layers": v.params["lstm"]}, TypeError,
         (r"layers\[0\]", "expected a Layer", "got")),
        ("an array", lambda v: {"layers": v.xs}, TypeError,
         ("layers", "expected a list of Layer", "got float32")),
        ("a state too many", lambda v: {"state0": [layers.Layer(v.states["lstm"])] * 2}, ValueError,
         ("state0", "expected 1 layers", "got 2")),
        ("xs of two axes less", lambda v: {"xs": v.xs[0, 0]}, ValueError,
         (r"layers\[0\]", "xs: expected", "got float32")),
        ("lengths of floats", lambda v: {"lengths": v.xs[0, :, 0]}, TypeError,
         (r"layers\[0\]", "lengths: expected", "got float32")),
        ("resets of integers", lambda v: {"resets": v.resets.astype(int)}, TypeError,
         (r"layers\[0\]", "resets: expected a boolean dtype", "got int")),
    ):  # fmt: skip
        row(f"layers.{f.__name__} {label}", lambda v, f=f, c=change: layered(v, f, **c(v)),
            error, *named)  # fmt: skip
for f in (layers.adjoints, layers.direct_adjoints):
    row(f"layers.{f.__name__} loss no function", lambda v, f=f: of_runs(v, f, loss=1.0),
        TypeError, "loss", "expected a function", "got a float")  # fmt: skip
for f in (layers.adjoints, layers.direct_adjoints, layers.state_jacobians):
    for label, runs, got in (
        ("of layers of params", lambda v: [layers.Layer(v.params["lstm"])], "got a list"),
        ("of one run", lambda v: jaxrnn.Run(LSTM, v.params["lstm"], v.xs), "got a Run"),
        ("of nothing", lambda v: [], "got a list"),
    ):
        row(f"layers.{f.__name__} {label}", lambda v, f=f, r=runs: of_runs(v, f, runs=r), TypeError,
            "runs", r"expected what jaxrnn\.layers\.runs", got)  # fmt: skip
    for label in ("xs wrong D", "params of a gru", "resets integer", "lengths beyond T"):
        spoilt, error, argument, *named = unfit(
            label,
            lambda v, f=f, **parts: of_runs(
                v, f, runs=lambda v: [layers.Layer(unchecked(v, **parts))]
            ),
        )
        row(f"layers.{f.__name__} of an unchecked run, {label}", spoilt, error, r"layers\[0\]",
            f"{argument}: ", *named, **seen_in_shapes(label))  # fmt: skip

# --- what is shown ------------------------------------------------------------------

for label, call, error, named in (
    ("vanishing 0", lambda v: phenomena.vanishing(0.0), ValueError,
     ("scale", "above 0", "got 0.0")),
    ("vanishing 1", lambda v: phenomena.vanishing(1.0), ValueError,
     ("scale", "below 1", "got 1.0")),
    ("vanishing 3", lambda v: phenomena.vanishing(3), ValueError,
     ("scale", "below 1", "got 3")),
    ("exploding 1", lambda v: phenomena.exploding(1.0), ValueError,
     ("gain", "above 1", "got 1.0")),
    ("exploding a half", lambda v: phenomena.exploding(0.5), ValueError,
     ("gain", "above 1", "got 0.5")),
    ("exploding string", lambda v: phenomena.exploding("3"), TypeError,
     ("gain", "a real number", "got '3'")),
    ("exploding_without_eigenvalues 2", lambda v: phenomena.exploding_without_eigenvalues(2),
     ValueError, ("steps", "at least 3", "got 2")),
    ("remembering NaN", lambda v: phenomena.remembering(float("nan")), ValueError,
     ("bias", "finite", "got nan")),
    ("exploding_lstm -1", lambda v: phenomena.exploding_lstm(-1.0), ValueError,
     ("scale", "above 0", "got -1.0")),
    ("forget_bias a number", lambda v: phenomena.forget_bias(1.0), TypeError,
     ("biases", "expected a tuple", "got 1.0")),
    ("forget_bias of strings", lambda v: phenomena.forget_bias(("1",)), TypeError,
     ("biases", "a real number", "got '1'")),
    ("sigmoid_pair of a list", lambda v: activations.sigmoid_pair([1.0]), TypeError,
     ("z", "expected an array", "got a list")),
    ("sigmoid_pair of integers", lambda v: activations.sigmoid_pair(v.lengths), TypeError,
     ("z", "expected", INTEGERS)),
    ("from_tree of a number", lambda v: matrix_products.from_tree(3), TypeError,
     ("J", "expected an array", "got an int")),
    ("from_tree of a vector", lambda v: matrix_products.from_tree({"h": {"h": v.xs[0, 0]}}),
     ValueError, (r"J\['h'\]\['h'\]", r"\(\*lead, H, H\)", "got float32")),
    ("rescaled of integers", lambda v: scaled.rescaled(v.lengths, jnp.array([0, 0])), TypeError,
     ("tree", "expected", INTEGERS)),
    ("rescaled by a float", lambda v: scaled.rescaled(v.xs, jnp.float32(1)), TypeError,
     ("exponent", "expected", "got float32")),
    ("rescaled of no array", lambda v: scaled.rescaled({}, jnp.int32(1)), ValueError,
     ("tree", "at least one array", "got a dict")),
    ("rescaled by other axes", lambda v: scaled.rescaled(v.xs, jnp.zeros(3, int)), ValueError,
     ("tree", r"begins with the axes \(3,\) of exponent", r"got shape \(5, 2, \d\)")),
    ("added of an array", lambda v: scaled.added(v.xs, v.xs), TypeError,
     ("a", r"expected a jaxrnn\.scaled\.Scaled", "got float32")),
    ("added of other shapes", lambda v: scaled.added(
        scaled.Scaled(v.xs, jnp.int32(0)), scaled.Scaled(v.xs[1:], jnp.int32(0))), ValueError,
     (r"b\.value", "expected", "got float32")),
    ("times_power of a list", lambda v: scaled.times_power([1.0], jnp.int32(1)), TypeError,
     (r"x\[0\]", "expected an array", "got a float")),
    ("times_power by a bool", lambda v: scaled.times_power(v.xs, jnp.array(True)), TypeError,
     ("exponent", "expected", "got bool")),
    ("log_of of two shapes", lambda v: scaled.log_of(v.xs, jnp.int32(1)), ValueError,
     ("size", r"the shape of exponent, \(\)", r"got \(5, 2")),
    ("log_norm of a matrix", lambda v: matrix_products.log_norm(v.weight), TypeError,
     ("P", "expected the Scaled", "got float32")),
    ("redraw of no Worst", lambda v: verification.redraw(RNN, 3), TypeError,
     ("worst", "expected the Worst of a Check", "got an int")),
    ("redraw of no cell", lambda v: verification.redraw(3, None), TypeError,
     ("cell", "expected", "got")),
    ("along a state of 0", lambda v: certificates.along(jaxrnn.Run(
        RNN, jaxrnn.RNNParams(*[np.zeros(shape, "float32") for shape in RNN.shapes(D, 0)]), v.xs)),
     ValueError, ("state", "expected at least one number", "got none")),
    ("cured by no advice", lambda v: diagnosis.cured(LSTM, v.params["lstm"], 3), TypeError,
     ("advice", "expected one of flow.advice", "got an int")),
    ("cured of another net", lambda v: diagnosis.cured(
        LSTM, v.params["lstm"], diagnosis.Advice("", "", "", "", 1.0, changes=(
            diagnosis.Change("layer 2", 1, "bias", 1.0, "f"),))), ValueError,
     ("params", "expected the net that was diagnosed, with layer 2", "got 1 layer direction")),
    ("report.data of no flow", lambda v: report.data(3), TypeError,
     ("flows", "expected a GradientFlow", "got 3")),
    ("report.html of no flow", lambda v: report.html({"a": 3}), TypeError,
     ("flows", "expected a GradientFlow", "got")),
    ("report.write of no flow", lambda v: report.write([], "nowhere"), TypeError,
     ("flows", "expected a GradientFlow", "got")),
    ("plot.gradient_flow of none", lambda v: plot.gradient_flow([]), TypeError,
     ("runs", "at least one Trained", "got a list")),
    ("plot.gradient_flow of numbers", lambda v: plot.gradient_flow([1.0]), TypeError,
     ("runs", "expected the Trained of jaxrnn demo", "got a float")),
    ("plot.forget_gates of None", lambda v: plot.forget_gates(None), TypeError,
     ("run", "expected the Trained of jaxrnn demo", "got None")),
    ("plot.contributions of an array", lambda v: plot.contributions(v.xs), TypeError,
     ("norms", "expected a dict", "got float32")),
    ("plot.norms of none", lambda v: plot.norms({}), ValueError,
     ("log_norms", "at least one", "got none")),
    ("plot.norms of a batch", lambda v: plot.norms({"a": v.xs}), ValueError,
     (r"log_norms\['a'\]", r"expected \(T,\)", "got float32")),
    ("plot.cell_paths of an array", lambda v: plot.cell_paths(v.xs), TypeError,
     ("found", "expected the CellPaths of paths.decompose", "got float32")),
    ("plot.save of no figure", lambda v: plot.save(None, "nowhere"), TypeError,
     ("figure", "expected the Figure of jaxrnn.plot", "got None")),
):  # fmt: skip
    row(label, call, error, *named, traced=False)

# --- verify -----------------------------------------------------------------------

PAIRS = r"expected .*\(input_size, hidden_size\)"
for label, change, error, named in (
    ("no shapes", {"shapes": ()}, ValueError, ("shapes", PAIRS, "got none")),
    ("one shape bare", {"shapes": (3, 2)}, TypeError, ("shapes", PAIRS, "got 3")),
    ("a triple", {"shapes": ((1, 2, 3),)}, ValueError, ("shapes", PAIRS, r"got \(1, 2, 3\)")),
    ("shapes an int", {"shapes": 3}, TypeError, ("shapes", PAIRS, "got 3")),
    ("hidden size zero", {"shapes": ((1, 0),)}, ValueError, ("shapes", "at least 1", "got 0")),
    ("size float", {"shapes": ((1.0, 2),)}, TypeError, ("shapes", "an integer", "got 1.0")),
    ("size negative", {"shapes": ((-1, 2),)}, ValueError, ("shapes", "expected", "got -1")),
    ("cases zero", {"cases": 0}, ValueError, ("cases", "at least 1", "got 0")),
    ("cases float", {"cases": 8.0}, TypeError, ("cases", "expected an integer", "got 8.0")),
    ("cases bool", {"cases": True}, TypeError, ("cases", "expected an integer", "got True")),
    ("scale NaN", {"scales": (float("nan"),)}, ValueError, ("scales", "finite", "got nan")),
    ("scale string", {"scales": ("1",)}, TypeError, ("scales", "a real number", "got '1'")),
    ("scales a number", {"scales": 1.0}, TypeError, ("scales", "expected", "got 1.0")),
    ("no scales", {"scales": ()}, ValueError, ("scales", "expected at least one", "got none")),
    ("seed string", {"seed": "0"}, TypeError, ("seed", "expected an integer", "got '0'")),
    ("seed float", {"seed": 0.5}, TypeError, ("seed", "expected an integer", "got 0.5")),
    ("progress None", {"progress": None}, TypeError, ("progress", FUNCTION, "got None")),
    ("example a pair", {"example": (np.ones(1), np.ones(1))}, ValueError,
     ("example", r"expected \(params, state, x\)", "got")),
    ("example an array", {"example": np.ones(3)}, TypeError,
     ("example", r"expected \(params, state, x\)", r"got float64\[3\]")),
    ("example of floats", {"example": (1.0, 2.0, 3.0)}, TypeError,
     ("example", "expected an array", "got a float")),
    ("example that does not fit the cell", {"example": (np.ones((2, 2)),) * 3}, TypeError,
     ("params", "RNNParams", "got")),
):  # fmt: skip
    row(f"verify {label}", lambda v, c=change: verify(**c), error, *named, traced=False)


# --- the tests --------------------------------------------------------------------


def refusal(row, call, *args):
    """What the call raised; the type must be exact, a subclass is someone else's error."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call(*args)
    assert caught.type is row.error, f"{caught.type.__name__}: {caught.value}"
    return str(caught.value).partition("\n" + "-" * 20)[0]  # JAX's note on hidden frames


def assert_names(message, row):
    argument, *others = row.named
    assert re.match(argument + ": ", message), message
    for pattern in others:
        assert re.search(pattern, message), (pattern, message)
    assert not re.search("[Tt]race[rd]", message), message


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_bad_input_is_refused_by_name(row):
    assert_names(refusal(row, row.call, good()), row)


@pytest.mark.parametrize("row", [row for row in ROWS if row.traced], ids=lambda row: row.id)
def test_bad_input_is_refused_by_name_while_tracing(row):
    """With every array a tracer, so nothing but shapes, dtypes and structure can be seen."""

    def traced(v):
        row.call(v)

    assert_names(refusal(row, jax.jit(traced), good()), row)


def test_the_table_is_large_and_its_names_are_unique():
    assert len(ROWS) >= 240
    assert len({row.id for row in ROWS}) == len(ROWS)
    assert sum(row.traced for row in ROWS) >= 200
    assert all(row.error in (TypeError, ValueError) for row in ROWS)
    assert all(len(row.named) >= 3 for row in ROWS)


def test_the_docs_say_how_many_they_are():
    text = (pathlib.Path(__file__).parents[1] / "docs" / "accuracy.md").read_text()
    assert f"One table of {len(ROWS)} calls" in text
    assert f"; {sum(row.traced for row in ROWS)} of them once more under `jit`" in text


def public_functions():
    """Every public function with arguments, by module; converters have a table of their own."""
    for module in [*jaxrnn.__all__, "plot", "report"]:
        members = getattr(getattr(jaxrnn, module), "__all__", ())
        for name in members if module != "convert" else ():
            thing = getattr(getattr(jaxrnn, module), name)
            if inspect.isfunction(inspect.unwrap(thing)) and inspect.signature(thing).parameters:
                yield name


# Refused in tests/diagnosis/test_diagnosis.py; policies, which get what the library gives them.
ELSEWHERE = {"diagnose", "propagate", "skip", "flag", "without_cell_state"}


@pytest.mark.parametrize("name", sorted(set(public_functions()) - ELSEWHERE))
def test_every_public_function_has_a_row(name):
    assert re.search(rf"\b{name}\b", pathlib.Path(__file__).read_text())


@pytest.mark.parametrize("kind", CELLS)
def test_the_calls_that_the_rows_spoil_succeed_unspoilt(kind):
    v = good()

    def every(v):
        lengths, resets = v.lengths, v.resets
        given = {"state0": v.states[kind], "lengths": lengths, "resets": resets}
        outcomes = [unroll(v, kind), unroll(v, kind, **given), step(v, kind), init(v, kind)]
        outcomes += [init_state(v, kind), bare(v), bare(v, state0={"h": v.states["rnn"].h})]
        outcomes += [flat(getattr(jaxrnn.unrolling, f), v, kind, **given) for f in UNROLLED]
        return outcomes, run_of(v, kind, **given)

    jax.eval_shape(every, v)
    unroll(v, kind, state0=v.states[kind], lengths=v.lengths, resets=v.resets)


@pytest.mark.parametrize("f", ANALYSES, ids=full_name)
def test_the_analyses_that_the_rows_ask_answer_of_an_unchecked_run(f):
    alone = (lyapunov, regularizers, initializers)  # of which some take no mask
    masks = {} if f.__module__ in [module.__name__ for module in alone] else PARTS[3:]

    def asked(v):
        given = {"state0": v.states["lstm"]} | {mask: getattr(v, mask) for mask in masks}
        return f(unchecked(v, **given), *own_arguments(f, v))

    jax.eval_shape(asked, good())


def test_every_function_of_a_run_is_asked():
    modules = (jacobians, bptt, truncation, products, lyapunov, paths, certificates, regularizers,
               initializers, layers, matrix_products, jaxrnn.unrolling, diagnosis)  # fmt: skip
    public = [getattr(module, name) for module in modules for name in module.__all__]
    functions = [f for f in public if inspect.isfunction(inspect.unwrap(f))]
    assert {f for f in functions if "run" in inspect.signature(f).parameters} == set(ANALYSES)


@pytest.mark.parametrize("argument", ["params", "state0", "xs"])
@pytest.mark.parametrize("kind", ["lstm", "bare"])
def test_float64_is_refused_where_jax_would_round_it(kind, argument):
    v = good()
    given = {"cell": LSTM, "params": v.params["lstm"], "state0": v.states["lstm"], "xs": v.xs}
    if kind == "bare":
        given |= {"cell": BARE, "params": v.weight, "state0": {"h": v.states["rnn"].h}}
    given[argument] = jax.tree.map(lambda leaf: leaf.astype("float64"), given[argument])
    words = rf"^{argument}.*expected a dtype that JAX keeps.*float64"
    with jax.enable_x64(False), pytest.raises(TypeError, match=words):
        jaxrnn.unroll(**given)
