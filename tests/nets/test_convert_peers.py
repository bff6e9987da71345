"""Imported weights compute what the library that made them computes; each where it is installed."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn.nets.convert import equinox, flax_linen, flax_nnx, haiku, keras, torch

# What other frameworks warn of is theirs to settle.
pytestmark = pytest.mark.filterwarnings("ignore")
os.environ.setdefault("KERAS_BACKEND", "jax")

T, B, D, H = 24, 3, 4, 6
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def inputs(dtype):
    return np.random.default_rng(0).normal(size=(T, B, D)).astype(dtype)


def randomised(tree):
    """Every leaf N(0, ¼): biases too, which libraries start at 0."""
    generator = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * generator.normal(size=leaf.shape), leaf.dtype), tree
    )


def assert_same(got, want, dtype):
    """4 ulp of 1 times √T in float32, 1e-13 in float64; outputs are at most 1, but for relu's."""
    atol = 1e-13 if dtype == "float64" else 4 * np.sqrt(T) * 2.0**-24
    size = max(1.0, float(np.abs(np.asarray(want)).max()))
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=0, atol=atol * size)


def ours(model, dtype):
    return jaxrnn.unroll(model.cell, model.params, inputs(dtype)).h


def foreign():
    """Other libraries mix dtypes and ranks."""
    return jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")


def scanned(step, state, xs):
    outs = []
    promotion, rank = foreign()
    with promotion, rank:
        step = jax.jit(step)
        for x in xs:
            state, out = step(state, jnp.asarray(x))
            outs.append(np.asarray(out))
    return np.stack(outs)


@each_dtype
@pytest.mark.parametrize(("layers", "both", "bias"), [(1, False, True), (2, True, True),
                                                      (3, False, False)])  # fmt: skip
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "relu"])
def test_torch(kind, layers, both, bias, dtype):
    library = pytest.importorskip("torch")
    library.manual_seed(0)
    options = {"nonlinearity": "relu"} if kind == "relu" else {}
    made = getattr(library.nn, kind if kind != "relu" else "RNN")(
        D, H, layers, bias=bias, bidirectional=both, dtype=getattr(library, dtype), **options
    )
    xs = inputs(dtype)
    leaves = {f"net.rnn.{name}": leaf.numpy() for name, leaf in made.state_dict().items()}
    activation = jaxrnn.activations.relu if kind == "relu" else jaxrnn.activations.tanh
    model = torch.read(leaves, activation=activation, prefix="net.rnn")
    for name, leaf in torch.write(model).items():
        np.testing.assert_array_equal(leaf, leaves[f"net.rnn.{name}"])
    with library.no_grad():
        want = made(library.from_numpy(xs))[0].numpy()
    states = jaxrnn.layers.unroll_layers(model.cell, model.layers, xs)
    assert_same(jaxrnn.layers.outputs(states), want, dtype)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_gradients_of_a_deep_torch_net(kind):
    library = pytest.importorskip("torch")
    library.manual_seed(1)
    made = getattr(library.nn, kind)(D, H, 2, bidirectional=True, dtype=library.float64)
    model = torch.read({name: leaf.numpy() for name, leaf in made.state_dict().items()})
    x = library.from_numpy(inputs("float64")).requires_grad_()
    weight = np.cos(np.arange(T * B * 2 * H)).reshape(T, B, 2 * H)
    (made(x)[0] * library.from_numpy(weight)).sum().backward()

    def loss(layers, xs):
        states = jaxrnn.layers.unroll_layers(model.cell, layers, xs)
        return jnp.sum(weight * jaxrnn.layers.outputs(states))

    layers = jax.tree.map(jnp.asarray, model.layers)
    grads, by_input = jax.jit(jax.grad(loss, argnums=(0, 1)))(layers, inputs("float64"))
    wanted = {name: leaf.grad.numpy() for name, leaf in made.named_parameters()}
    for k, layer in enumerate(grads):
        for params, suffix in zip(layer, ("", "_reverse"), strict=True):
            for ours, theirs in (("w_ih", "weight_ih"), ("w_hh", "weight_hh"), ("b", "bias_ih")):
                want = wanted[f"{theirs}_l{k}{suffix}"]
                got = getattr(params, ours)
                np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * np.abs(want).max())
    want = x.grad.numpy()
    np.testing.assert_allclose(by_input, want, rtol=0, atol=1e-12 * np.abs(want).max())


@each_dtype
@pytest.mark.parametrize("kind", ["LSTMCell", "OptimizedLSTMCell", "GRUCell", "SimpleCell"])
def test_flax_linen(kind, dtype):
    linen = pytest.importorskip("flax.linen")
    cell = getattr(linen, kind)(features=H, param_dtype=dtype, dtype=dtype)
    xs = inputs(dtype)
    promotion, rank = foreign()
    with promotion, rank:
        carry = cell.initialize_carry(jax.random.key(0), xs[0].shape)
        carry = jax.tree.map(lambda leaf: jnp.zeros_like(leaf, dtype=dtype), carry)
        params = randomised(cell.init(jax.random.key(0), carry, xs[0])["params"])
    model = flax_linen.read(params)
    assert_same(
        ours(model, dtype),
        scanned(lambda carry, x: cell.apply({"params": params}, carry, x), carry, xs),
        dtype,
    )
    flat = {"/".join(k.key for k in path): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)}  # fmt: skip
    for name, leaf in flax_linen.write(model).items():
        np.testing.assert_array_equal(leaf, flat[name.replace(".", "/")])


@each_dtype
@pytest.mark.parametrize("kind", ["LSTMCell", "OptimizedLSTMCell", "GRUCell", "SimpleCell"])
def test_flax_nnx(kind, dtype):
    nnx = pytest.importorskip("flax.nnx")
    promotion, rank = foreign()
    with promotion, rank:
        cell = getattr(nnx, kind)(D, H, param_dtype=dtype, dtype=dtype, rngs=nnx.Rngs(0))
        graph, state, rest = nnx.split(cell, nnx.Param, ...)
        state = jax.tree.map(lambda leaf: randomised(leaf), state)
    leaves = flat_of(nnx.to_pure_dict(state))
    model = flax_nnx.read(leaves)
    made = nnx.merge(graph, state, rest)
    zero = jnp.zeros((B, H), dtype)
    carry = (zero, zero) if "LSTM" in kind else zero
    assert_same(ours(model, dtype), scanned(made, carry, inputs(dtype)), dtype)


def flat_of(tree, path=()):
    if not isinstance(tree, dict):
        return {path: np.asarray(tree)}
    found = {}
    for key, value in tree.items():
        found |= flat_of(value, (*path, key))
    return found


@each_dtype
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "VanillaRNN"])
def test_haiku(kind, dtype):
    hk = pytest.importorskip("haiku")
    xs = inputs(dtype)
    cell = hk.without_apply_rng(hk.transform(lambda x, s: getattr(hk, kind)(H, name="core")(x, s)))
    zero = jnp.zeros((B, H), dtype)
    state = hk.LSTMState(zero, zero) if kind == "LSTM" else zero
    promotion, rank = foreign()
    with promotion, rank:
        params = randomised(cell.init(jax.random.key(0), jnp.asarray(xs[0]), state))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)

    def step(state, x):
        out, state = cell.apply(params, x, state)
        return state, out

    model = haiku.read(params, prefix="core")
    assert_same(ours(model, dtype), scanned(step, state, xs), dtype)


@each_dtype
@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell"])
def test_equinox(kind, dtype):
    eqx = pytest.importorskip("equinox")
    cell = getattr(eqx.nn, kind)(D, H, dtype=jnp.dtype(dtype), key=jax.random.key(0))
    names = ("weight_ih", "weight_hh", "bias", *(("bias_n",) if kind == "GRUCell" else ()))
    leaves = randomised({name: getattr(cell, name) for name in names})
    for name, leaf in leaves.items():
        cell = eqx.tree_at(lambda c, name=name: getattr(c, name), cell, leaf)
    zero = jnp.zeros((B, H), dtype)
    state = (zero, zero) if kind == "LSTMCell" else zero

    def step(state, x):
        state = jax.vmap(cell)(x, state)
        return state, state[0] if isinstance(state, tuple) else state

    assert_same(ours(equinox.read(leaves), dtype), scanned(step, state, inputs(dtype)), dtype)


@pytest.mark.parametrize(("kind", "options"), [
    ("LSTM", {}), ("GRU", {"reset_after": True}), ("GRU", {"reset_after": False}),
    ("SimpleRNN", {}), ("LSTM", {"use_bias": False})])  # fmt: skip
def test_keras(kind, options):
    """In float32: on JAX, keras multiplies float64 matrices in float32."""
    library, dtype = pytest.importorskip("keras"), "float32"
    promotion, rank = foreign()
    with promotion, rank, jax.legacy_prng_key("allow"):
        layer = getattr(library.layers, kind)(H, return_sequences=True, dtype=dtype, **options)
        layer.build((B, T, D))
        leaves = {w.name: np.asarray(randomised(w.value)) for w in layer.weights}
        layer.set_weights([leaves[w.name] for w in layer.weights])
        want = np.asarray(layer(inputs(dtype).transpose(1, 0, 2))).transpose(1, 0, 2)
    assert_same(ours(keras.read(leaves), dtype), want, dtype)
