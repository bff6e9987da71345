"""Every public function of arrays is lowered for CPU, GPU and TPU, from a machine that has none.

What JAX cannot lower for a platform raises here: a primitive without a rule there, such as an
eigenvalue decomposition. Whether the numbers are right there only such a device can tell.
"""

import functools
import types

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import (
    activations,
    clipping,
    initializers,
    matrix_products,
    scaled,
    tasks,
    unrolling,
)
from tests.support.profiles import short
from tests.support.public import MODULES, offered, resolved
from tests.support.transforms import ROWS, drawn_params, last_loss, loss, numbers

PLATFORMS = ("cpu", "cuda", "tpu")
T, B, D, H = 4, 2, 2, 3
# Functions that are no program of arrays: they read, write, draw, judge or print on the host.
ON_THE_HOST = {
    "convert", "diagnosis", "phenomena", "plot", "report", "strategies", "verification",
}  # fmt: skip
# Those among functions of arrays that stop before they are lowered, and why.
NOT_TRACED = {
    "from_step": "makes a cell", "gru": "makes a cell", "lstm": "makes a cell",
    "reset_first_gru": "makes a cell", "rnn": "makes a cell", "cifg": "makes a cell",
    "janet": "makes a cell", "mgu": "makes a cell", "peephole_lstm": "makes a cell",
    "projected_lstm": "makes a cell", "ugrnn": "makes a cell",
    "diagnose": "streams batches from the host", "verify": "judges in NumPy",
    "initializers.identity": "makes an initializer, which `cell.init` of the rows below calls",
}  # fmt: skip
CELLS = {
    "rnn": jaxrnn.rnn(),
    "lstm": jaxrnn.lstm(),
    "gru": jaxrnn.gru(),
    "reset_first_gru": jaxrnn.reset_first_gru(),
    "peephole_lstm": jaxrnn.peephole_lstm(),
    "projected_lstm": jaxrnn.projected_lstm(2),
}


def f32(*shape):
    return jnp.asarray(numbers(np.random.default_rng(0), *shape), "float32")


POWER = jnp.array(3, "int32")
LSTM, SQUARE, KEY = CELLS["lstm"], f32(T, H, H), jax.random.key(0)
PARAMS = jax.tree.map(
    lambda leaf: jnp.asarray(leaf, "float32"), drawn_params(LSTM, np.random.default_rng(0))
)
XS, STATE = f32(T, B, D), LSTM.state_type(f32(B, H), f32(B, H))
OF_A_CELL = ("init", "init_state", "step", "state_jacobian", "input_jacobian", "param_jacobian")


def of_a_cell(cell, method):
    """A method of a cell and what it is given."""
    params = cell.init(KEY, D, H, dtype=jnp.float32)
    state = cell.init_state(params, (B,))
    if method == "init":
        return (lambda key: cell.init(key, D, H, dtype=jnp.float32)), (KEY,)
    if method == "init_state":
        return (lambda params: cell.init_state(params, (B,))), (params,)
    return getattr(cell, method), (params, state, XS[0])


def updated(tree, clip):
    updates, state = clip.update(tree, clip.init(tree))
    return updates, state.norm


def case(f, *arrays):
    return f, arrays


OTHERS = {
    "gradient of unroll": case(
        jax.grad(lambda *at: loss(jaxrnn.unroll(LSTM, *at)), (0, 1, 2)), PARAMS, XS, STATE
    ),
    "gradient of unrolling.last_state": case(
        jax.grad(lambda *at: last_loss(unrolling.last_state(LSTM, *at)), (0, 1, 2)),
        PARAMS, XS, STATE),
    "unroll, masked": case(
        lambda *at: jaxrnn.unroll(LSTM, *at[:3], lengths=at[3], resets=at[4]),
        PARAMS, XS, STATE, jnp.array([T, 1]), jnp.zeros((T, B), bool)),
    "unrolling.by_autodiff": case(
        lambda *at: unrolling.by_autodiff(LSTM, *at), PARAMS, XS, STATE
    ),
    "memory_horizon": case(lambda sizes: jaxrnn.memory_horizon(sizes, 0.1), abs(XS[..., 0])),
    **{f"activations.{name}": case(found.__call__, XS)
       for name in activations.__all__
       if isinstance(found := getattr(activations, name), activations.Activation)},
    "activations.sigmoid_pair": case(activations.sigmoid_pair, XS),
    "matrix_products.associative": case(matrix_products.associative, SQUARE),
    "matrix_products.product": case(matrix_products.product, SQUARE),
    "matrix_products.sequential": case(matrix_products.sequential, SQUARE),
    "matrix_products.from_tree": case(
        lambda *at: matrix_products.from_tree(LSTM.state_jacobian(*at)), PARAMS, STATE, XS[0]),
    "matrix_products.log_norm": case(
        lambda stack: matrix_products.log_norm(matrix_products.product(stack)), SQUARE),
    "scaled.rescaled": case(scaled.rescaled, XS, POWER),
    "scaled.added": case(lambda x: scaled.added(*[scaled.rescaled(x, POWER)] * 2), XS),
    "scaled.log_of": case(scaled.log_of, abs(XS[0, 0, 0]), POWER),
    "scaled.times_power": case(scaled.times_power, XS, POWER),
    "initializers.with_gate_bias": case(
        lambda p: initializers.with_gate_bias(LSTM, p, "f", 1.0), PARAMS),
    "initializers.chrono": case(
        lambda p, key: initializers.chrono(LSTM, p, key, longest=100.0), PARAMS, KEY),
    "initializers.redrawn": case(
        lambda p, key: initializers.redrawn(LSTM, p, key, ("f",)), PARAMS, KEY),
    "initializers.scaled_to_bound": case(
        lambda w: initializers.scaled_to_bound(CELLS["rnn"], w),
        CELLS["rnn"].init(KEY, D, H, dtype=jnp.float32)),
    "initializers.scaled_to_exponent": case(
        lambda *at: initializers.scaled_to_exponent(jaxrnn.Run(LSTM, *at), 0.0), PARAMS, XS),
    "clipping.flag": case(
        lambda *tree: updated(tree, clipping.clip_by_global_norm(1.0, nonfinite=clipping.flag)),
        *PARAMS),
    "clipping.propagate": case(
        lambda *tree: updated(
            tree, clipping.clip_by_global_norm(1.0, nonfinite=clipping.propagate)), *PARAMS),
    "clipping.skip": case(
        lambda *tree: updated(tree, clipping.clip_by_global_norm(1.0, nonfinite=clipping.skip)),
        *PARAMS),
    **{f"tasks.{name}": case(functools.partial(getattr(tasks, name), batch_size=B, T=20), KEY)
       for name in ("adding", "copying", "noiseless_memorisation", "random_permutation",
                    "temporal_order", "temporal_order_3")},
    "tasks.sequential_digits": case(
        lambda *at: tasks.sequential_digits(KEY, B, *at), f32(5, T), jnp.arange(5)),
    "tasks.squared_error": case(tasks.squared_error, XS, XS),
    "tasks.within": case(tasks.within, XS, XS),
    "tasks.cross_entropy": case(tasks.cross_entropy, XS, jnp.zeros((T, B), int)),
    "tasks.correct": case(tasks.correct, XS, jnp.zeros((T, B), int)),
    **{f"{name}: {method}": of_a_cell(cell, method)
       for name, cell in CELLS.items() for method in OF_A_CELL},
}  # fmt: skip


def test_every_public_function_is_lowered_or_has_its_reason():
    assert (ROWS.keys() | OTHERS.keys()) >= ALIKE
    names = [
        name for module in sorted({"jaxrnn", *MODULES} - ON_THE_HOST) for name in offered(module)
    ]
    public = {
        name.removeprefix("jaxrnn.")
        for name in names
        if isinstance(resolved(name), types.FunctionType | activations.Activation)
    } - {"unrolling.unroll"}
    assert public == (public & (ROWS.keys() | OTHERS.keys())) | NOT_TRACED.keys()
    assert not NOT_TRACED.keys() & (ROWS.keys() | OTHERS.keys())


# Left to the long profile: what has the primitives of one that stays. Of the cells the GRU stays.
ALIKE = {
    "bptt.credit_matrix", "certificates.along", "gradient of unrolling.last_state",
    "initializers.redrawn", "layers.adjoints", "paths.transport", "tasks.temporal_order",
    "tasks.temporal_order_3", "truncation.curve_of_last",
    *(f"{name}: {method}" for name in CELLS.keys() - {"gru"} for method in OF_A_CELL),
}  # fmt: skip


@pytest.mark.parametrize("name", [*ROWS, *OTHERS])
@short(name={*ROWS, *OTHERS} - ALIKE)
def test_it_is_lowered_for_cpu_gpu_and_tpu(name):
    if name in ROWS:
        rng = np.random.default_rng(0)
        f = ROWS[name].call
        arrays = jax.tree.map(lambda leaf: jnp.asarray(leaf, "float32"), ROWS[name].draw(rng))
    else:
        f, arrays = OTHERS[name]
    f = jax.jit(f)  # traced once
    found = jax.export.export(f, platforms=PLATFORMS)(*arrays)
    assert found.platforms == PLATFORMS
    assert [leaf.shape for leaf in found.out_avals] == [
        leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(f, *arrays))
    ]


def test_what_a_platform_cannot_lower_is_seen():
    schur = jax.jit(lambda a: jax.scipy.linalg.schur(a)[0])
    with pytest.raises(NotImplementedError, match="schur"):
        jax.export.export(schur, platforms=("tpu",))(SQUARE[0])
