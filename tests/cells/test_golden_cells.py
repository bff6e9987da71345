"""The cells of other files against the programs that run them: onnxruntime, torch, keras, flax."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import activations

# What other frameworks warn of is theirs to settle.
pytestmark = pytest.mark.filterwarnings("ignore")

os.environ.setdefault("KERAS_BACKEND", "jax")

T, B, D, H, P = 7, 3, 4, 5, 2
normal = np.random.default_rng(3).normal


def rows(weight, order):
    """Blocks of rows `(G·H, …)` in another order."""
    blocks = np.split(weight, len(order))
    return np.concatenate([blocks[g] for g in order])


# --- ONNX: gates i, o, f, c and peepholes i, o, f ----------------------------------------

IFGO_OF_IOFC = (0, 2, 3, 1)


def onnx_lstm(W, R, b, peepholes, options):
    """h of every step `(T, B, H)` and the last c, by onnxruntime in float32."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    names = ["X", "W", "R", "B", "", "h0", "c0"] + (["P"] if peepholes is not None else [])
    node = make.make_node("LSTM", names, ["Y", "Y_h", "Y_c"], hidden_size=H, **options)
    weights = {"W": W[None], "R": R[None], "B": np.concatenate([b, 0 * b])[None]}
    if peepholes is not None:
        weights["P"] = peepholes[None]
    as_tensor = onnx.numpy_helper.from_array
    graph = make.make_graph(
        [node],
        "lstm",
        [make.make_tensor_value_info(n, kind, s)
         for n, s in (("X", (T, B, D)), ("h0", (1, B, H)), ("c0", (1, B, H)))],
        [make.make_tensor_value_info(n, kind, None) for n in ("Y", "Y_c")],
        [as_tensor(leaf.astype("float32"), name) for name, leaf in weights.items()],
    )  # fmt: skip
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())

    def run(xs, h0, c0):
        given = {"X": xs, "h0": h0[None], "c0": c0[None]}
        given = {name: np.asarray(leaf, "float32") for name, leaf in given.items()}
        Y, last = session.run(["Y", "Y_c"], given)
        return Y[:, 0], last[0]

    return run


ONNX = {
    "peepholes": (jaxrnn.peephole_lstm(), {}),
    "hard sigmoid": (
        jaxrnn.lstm(activations.keras2_hard_sigmoid),
        {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [0.2],
         "activation_beta": [0.5]},
    ),
    "softsign and relu": (
        jaxrnn.lstm(activations.sigmoid, activations.softsign, activations.relu),
        {"activations": ["Sigmoid", "Softsign", "Relu"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ONNX)
def test_an_lstm_of_onnx_gives_the_same_states(name):
    cell, options = ONNX[name]
    W, R, b = normal(size=(4 * H, D)), 0.7 * normal(size=(4 * H, H)), normal(size=4 * H)
    peepholes = normal(size=3 * H) if cell.units else None
    xs, h0, c0 = normal(size=(T, B, D)), normal(size=(B, H)), normal(size=(B, H))
    want, last = onnx_lstm(W, R, b, peepholes, options)(xs, h0, c0)
    leaves = [rows(leaf, IFGO_OF_IOFC) for leaf in (W, R, b)]
    if peepholes is not None:
        p_i, p_o, p_f = np.split(peepholes, 3)
        leaves += [p_i, p_f, p_o]
    params = type(cell.shapes(1, 1))(*map(jnp.asarray, leaves))
    states = jaxrnn.unroll(
        cell, params, jnp.asarray(xs), cell.state_type(*map(jnp.asarray, (h0, c0)))
    )
    np.testing.assert_allclose(states.h, want, rtol=0, atol=2e-6)
    np.testing.assert_allclose(states.c[-1], last, rtol=0, atol=4e-6)


# --- torch: proj_size ------------------------------------------------------------------------


def test_torchs_projected_lstm_gives_the_same_value_gradient_and_hessian_vector_product():
    torch = pytest.importorskip("torch")
    layer = torch.nn.LSTM(D, H, proj_size=P, dtype=torch.float64)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "weight_hr_l0")
    leaves = [getattr(layer, name) for name in names]
    with torch.no_grad():
        layer.bias_hh_l0.zero_()
    xs, v = normal(size=(T, B, D)), normal(size=(T, B, P))
    along = [normal(size=tuple(leaf.shape)) for leaf in leaves]

    h, _ = layer(torch.as_tensor(xs))
    value = (torch.as_tensor(v) * torch.sin(h)).sum()
    gradient = torch.autograd.grad(value, leaves, create_graph=True)
    inner = sum((g * torch.as_tensor(d)).sum() for g, d in zip(gradient, along, strict=True))
    product = torch.autograd.grad(inner, leaves)

    cell = jaxrnn.projected_lstm(P)
    ours = jaxrnn.ProjectedLSTMParams(*[jnp.asarray(leaf.detach().numpy()) for leaf in leaves])

    def loss(params):
        return jnp.sum(jnp.asarray(v) * jnp.sin(jaxrnn.unroll(cell, params, jnp.asarray(xs)).h))

    direction = jaxrnn.ProjectedLSTMParams(*map(jnp.asarray, along))
    got, got_product = jax.jit(lambda p: jax.jvp(jax.grad(loss), (p,), (direction,)))(ours)
    np.testing.assert_allclose(jax.jit(loss)(ours), value.item(), rtol=1e-12)
    for mine, theirs in ((got, gradient), (got_product, product)):
        for a, b in zip(mine, theirs, strict=True):
            b = b.detach().numpy()
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * (1 + np.abs(b).max()))


# --- keras: two functions of one name --------------------------------------------------------


def kerass(gates):
    """Weights of a keras layer of this many gates, drawn: kernel, recurrent kernel, bias."""
    return normal(size=(D, gates * H)), 0.7 * normal(size=(H, gates * H)), normal(size=gates * H)


def keras2_hard_sigmoid(x):
    """keras 2's, as keras 3's operations write it."""
    import keras

    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


@pytest.mark.parametrize("of", ["keras 3", "keras 2"])
def test_a_keras_lstm_of_hard_sigmoids_gives_the_same_states(of):
    """In float32: on JAX, keras multiplies float64 matrices in float32."""
    keras = pytest.importorskip("keras")
    gate = "hard_sigmoid" if of == "keras 3" else keras2_hard_sigmoid
    xs, weights = normal(size=(B, T, D)).astype("float32"), kerass(4)
    # keras draws by raw keys and mixes dtypes and ranks; here weights come from outside.
    with (
        jax.legacy_prng_key("allow"),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        layer = keras.layers.LSTM(H, recurrent_activation=gate, return_sequences=True)
        layer.build(xs.shape)
        layer.set_weights(weights)
        want = np.asarray(layer(xs))
    ours = activations.hard_sigmoid if of == "keras 3" else activations.keras2_hard_sigmoid
    other = activations.keras2_hard_sigmoid if of == "keras 3" else activations.hard_sigmoid
    kernel, recurrent, b = (leaf.astype("float32") for leaf in weights)
    params = jaxrnn.LSTMParams(*map(jnp.asarray, (kernel.T, recurrent.T, b)))
    inputs = jnp.asarray(xs.swapaxes(0, 1))
    states = jaxrnn.unroll(jaxrnn.lstm(ours), params, inputs)
    np.testing.assert_allclose(np.asarray(states.h).swapaxes(0, 1), want, rtol=0, atol=1e-6)
    wrong = jaxrnn.unroll(jaxrnn.lstm(other), params, inputs)
    assert np.abs(np.asarray(wrong.h).swapaxes(0, 1) - want).max() > 1e-2


# --- flax: the minimal gated unit -------------------------------------------------------------


def test_flaxs_minimal_gated_unit_gives_the_same_state():
    linen = pytest.importorskip("flax.linen")
    xs, h = normal(size=(B, D)), normal(size=(B, H))
    layer = linen.MGUCell(H, param_dtype=jnp.float64)
    weights = layer.init(jax.random.key(0), h, xs)["params"]
    weights = jax.tree.map(lambda leaf: normal(size=leaf.shape), weights)
    want, _ = layer.apply({"params": weights}, h, xs)
    part = {name: leaves["kernel"].T for name, leaves in weights.items()}
    params = jaxrnn.MGUParams(
        np.concatenate([part["if"], part["in"]]),
        np.concatenate([part["hf"], part["hn"]]),
        np.concatenate([weights["if"]["bias"], weights["in"]["bias"]]),
        weights["hn"]["bias"],
    )
    params = jax.tree.map(jnp.asarray, params)
    got = jaxrnn.mgu().step(params, jaxrnn.MGUState(jnp.asarray(h)), jnp.asarray(xs))
    np.testing.assert_allclose(got.h, want, rtol=0, atol=1e-13)
