"""The cells and shapes that properties run over."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

import jaxrnn
from jaxrnn import activations


def antisymmetric(params):
    """W_hh - W_hhᵀ - I/10 in place of W_hh."""
    W = params.w_hh
    made = W - W.T - 0.1 * jnp.eye(len(W), dtype=W.dtype)
    return jaxrnn.Affine(params.w_ih, params.b), jaxrnn.Affine(made, None)


# Leaves of the state are of one size, H.
CELLS = {
    "rnn-tanh": jaxrnn.rnn(),
    "rnn-sigmoid": jaxrnn.rnn(activation=activations.sigmoid),
    "rnn-relu": jaxrnn.rnn(activation=activations.relu),
    "rnn-identity": jaxrnn.rnn(activation=activations.identity),
    "lstm": jaxrnn.lstm(),
    "gru": jaxrnn.gru(),
    "lstm-hard": jaxrnn.lstm(gate=activations.hard_sigmoid),
    "lstm-softsign": jaxrnn.lstm(candidate=activations.softsign),
    "gru-hard": jaxrnn.gru(gate=activations.keras2_hard_sigmoid),
    "cifg": jaxrnn.cifg(),
    "janet": jaxrnn.janet(),
    "mgu": jaxrnn.mgu(),
    "ugrnn": jaxrnn.ugrnn(),
    "peephole_lstm": jaxrnn.peephole_lstm(),
    "antisymmetric": dataclasses.replace(
        jaxrnn.rnn(), name="antisymmetric", projections=antisymmetric
    ),
}
ALL = CELLS | {"projected_lstm": jaxrnn.projected_lstm(2)}


def bare_lstm_step(params, state, x):
    z = params.w_ih @ x + params.w_hh @ state.h + params.b
    i, f, g, o = jnp.split(z, 4)
    c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jaxrnn.LSTMState(h=jax.nn.sigmoid(o) * jnp.tanh(c), c=c)


def bare_lstm_state(params):
    zeros = jnp.zeros(params.w_hh.shape[1], params.w_hh.dtype)
    return jaxrnn.LSTMState(zeros, zeros)


BARE_LSTM = jaxrnn.from_step(bare_lstm_step, init_state=bare_lstm_state)

# (D, H): 1, square, H < D, H > D, odd sizes
SHAPES = (
    (1, 1), (1, 2), (2, 1), (3, 1), (1, 5), (2, 2), (3, 2), (2, 3), (5, 3), (3, 4), (7, 2), (4, 6),
)  # fmt: skip
SCALES = (0.1, 1.0, 10.0)


def split(xs):
    """The type of xs `(T, B, D)` whose batch an explicit mesh has on two devices, and the mesh."""
    mesh = AbstractMesh((2,), ("batch",), axis_types=(AxisType.Explicit,))
    across = NamedSharding(mesh, PartitionSpec(None, "batch"))
    return jax.ShapeDtypeStruct(xs.shape, xs.dtype, sharding=across), mesh


def of_run(f, *own):
    """f(run, *own) as a function of the parts of a run, as a table of functions wants it."""

    def call(cell, params, xs, state0=None, **masks):
        return f(jaxrnn.Run(cell, params, xs, state0, **masks), *own)

    return call
