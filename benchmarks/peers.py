"""What users of other frameworks run to train an RNN, as programs to time beside ours.

Each takes our params, xs (T, B, D) and a cotangent v (T, B, H), and computes

    E = Σ v ⊙ h        from the zero state, with ∂E/∂θ in its own layout and ∂E/∂xs

`available` gives the programs in JAX, `torch_peer` the one in torch. Frameworks are imported
when they are asked for; one that is not installed is left out. Each peer is what its
documentation shows, with its defaults, not the best that could be made of it; that is what
`hoisted_scan` is for. `bare_matmuls` is the limit.
"""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxrnn

PARAMS = {
    "lstm": jaxrnn.LSTMParams,
    "gru": jaxrnn.GRUParams,
    "rnn": jaxrnn.RNNParams,
    "relu": jaxrnn.RNNParams,
}
GATE_COUNTS = {"lstm": 4, "gru": 3, "rnn": 1, "relu": 1}


LACKS = {"haiku": ("rnn",), "equinox": ("rnn", "relu")}  # haiku's only RNN is a relu


class Peer(NamedTuple):
    """A program to jit; `f(*args)` is (loss, gradients of its params, gradient of xs)."""

    name: str
    f: Callable[..., Any]
    args: tuple[Any, ...]  # everything numeric, so that nothing is folded as a constant
    same_equations: bool = True
    # Its gradients of params in our layout, None for a leaf that it has not. Not to be timed.
    ours: Callable[[Any], Any] | None = None


def available(kind: str, params: Any, xs: Array, v: Array) -> list[Peer]:
    """The peers in JAX that are installed and have a cell of this kind.

    Args: kind: "lstm", "gru", "rnn" (tanh) or "relu"; params: ours, of that kind.
    """
    peers = [bare_matmuls(kind, params, xs, v), hoisted_scan(kind, params, xs, v)]
    for module, make in (("flax", flax_nnx), ("haiku", haiku), ("equinox", equinox)):
        if importlib.util.find_spec(module) and kind not in LACKS.get(module, ()):
            peers.append(make(kind, params, xs, v))
    return peers


def loss_and_grads(outputs: Callable[..., Array]) -> Callable[..., Any]:
    """From `outputs(params, xs, *rest)`, all h, the program of `(params, xs, v, *rest)`."""

    def f(params, xs, v, *rest):
        def loss(params, xs):
            return jnp.sum(v * outputs(params, xs, *rest))

        value, (grads, grad_xs) = jax.value_and_grad(loss, argnums=(0, 1))(params, xs)
        return value, grads, grad_xs

    return f


# --- plain JAX --------------------------------------------------------------------


def bare_matmuls(kind: str, params: Any, xs: Array, v: Array) -> Peer:
    """The limit: the matmuls that forward and backward cannot do without.

    In place of the cell stands the least that feeds one matmul from the last and lets XLA
    drop no column: a mean over the gates. The factor 1/2 keeps it bounded at any T.
    """
    G = GATE_COUNTS[kind]

    def f(w_ih, w_hh, xs, v):
        us = xs @ w_ih.T

        def forward(h, u):
            return sum(jnp.split(u + h @ w_hh.T, G, axis=-1)) / (2 * G), h

        def backward(dh, step):
            v, u = step
            dz = (u + jnp.concatenate([dh + v] * G, axis=-1)) / (2 * G)
            return dz @ w_hh, dz

        h, previous = jax.lax.scan(forward, jnp.zeros_like(v[0]), us)
        dh, dzs = jax.lax.scan(backward, jnp.zeros_like(v[0]), (v, us), reverse=True)
        dw_ih, dw_hh = (jnp.einsum("tbg,tbk->gk", dzs, a) for a in (xs, previous))
        return (h, dh), (dw_ih, dw_hh), dzs @ w_ih

    return Peer("bare matmuls", f, (params.w_ih, params.w_hh, xs, v), same_equations=False)


def hoisted_scan(kind: str, params: Any, xs: Array, v: Array) -> Peer:
    """`lax.scan` by hand, the input projection one matmul before it; plain autodiff."""

    def outputs(params, xs):
        zeros = jnp.zeros((xs.shape[1], params.w_hh.shape[1]), xs.dtype)
        state0 = (zeros, zeros) if kind == "lstm" else (zeros,)

        def body(state, u):
            new = STEPS[kind](params, state, u)
            return new, new[0]

        return jax.lax.scan(body, state0, xs @ params.w_ih.T + params.b)[1]

    return Peer("hoisted scan", loss_and_grads(outputs), (params, xs, v), ours=lambda grads: grads)


def _lstm(params, state, u):
    h, c = state
    i, f, g, o = jnp.split(u + h @ params.w_hh.T, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(params, state, u):
    (h,) = state
    ur, uz, un = jnp.split(u, 3, axis=-1)
    ar, az, an = jnp.split(h @ params.w_hh.T, 3, axis=-1)
    z = jax.nn.sigmoid(uz + az)
    n = jnp.tanh(un + jax.nn.sigmoid(ur + ar) * (an + params.b_hn))
    return ((1 - z) * n + z * h,)


def _rnn(params, state, u):
    return (jnp.tanh(u + state[0] @ params.w_hh.T),)


def _relu(params, state, u):
    return (jax.nn.relu(u + state[0] @ params.w_hh.T),)


STEPS = {"lstm": _lstm, "gru": _gru, "rnn": _rnn, "relu": _relu}


# --- frameworks in JAX ------------------------------------------------------------


def flax_nnx(kind: str, params: Any, xs: Array, v: Array) -> Peer:
    """`nnx.RNN` around OptimizedLSTMCell, GRUCell or SimpleCell. Its GRU has no b_hn."""
    from flax import nnx

    relu_cell = functools.partial(nnx.SimpleCell, activation_fn=nnx.relu)
    cell_type = {
        "lstm": nnx.OptimizedLSTMCell,
        "gru": nnx.GRUCell,
        "rnn": nnx.SimpleCell,
        "relu": relu_cell,
    }[kind]
    D, H = params.w_ih.shape[1], params.w_hh.shape[1]
    cell = cell_type(D, H, dtype=xs.dtype, param_dtype=xs.dtype, rngs=nnx.Rngs(0))
    dense_i, dense_h = {"kernel": params.w_ih.T}, {"kernel": params.w_hh.T}
    biased = dense_h if kind == "lstm" else dense_i
    biased["bias"] = params.b
    nnx.update(cell, {"dense_i": dense_i, "dense_h": dense_h})
    # The stream of random numbers for the first carry is state too, but has no gradient.
    graph, weights, rest = nnx.split(nnx.RNN(cell, time_major=True), nnx.Param, ...)

    def outputs(weights, xs, rest):
        return nnx.merge(graph, weights, rest, copy=True)(xs)

    def ours(grads):
        cell = nnx.to_pure_dict(grads)["cell"]
        b = cell["dense_h" if kind == "lstm" else "dense_i"]["bias"]
        leaves = [cell["dense_i"]["kernel"].T, cell["dense_h"]["kernel"].T, b]
        return PARAMS[kind](*leaves, *[None] * (kind == "gru"))

    same = kind != "gru" or not np.any(params.b_hn)
    return Peer("flax nnx", loss_and_grads(outputs), (weights, xs, v, rest), same, ours)


def haiku(kind: str, params: Any, xs: Array, v: Array) -> Peer:
    """`hk.dynamic_unroll` of hk.LSTM, hk.GRU or hk.VanillaRNN.

    The equations of its GRU are others: it resets before its matmul and has no b_hn. Its RNN
    is a relu with two biases.
    """
    import haiku as hk

    core_type = {"lstm": hk.LSTM, "gru": hk.GRU, "relu": hk.VanillaRNN}[kind]

    def unroll(xs):
        core = core_type(params.w_hh.shape[1])
        return hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[1]))[0]

    outputs = hk.without_apply_rng(hk.transform(unroll)).apply
    weights = _to_haiku(kind, params)

    def ours(grads):
        if kind == "relu":
            into, back = grads["vanilla_rnn/linear"], grads["vanilla_rnn/linear_1"]
            return jaxrnn.RNNParams(into["w"].T, back["w"].T, into["b"])
        linear = grads["lstm/linear"]
        w_ih, w_hh = jnp.split(_ifgo(linear["w"].T), [xs.shape[-1]], axis=1)
        return jaxrnn.LSTMParams(w_ih, w_hh, _ifgo(linear["b"]))

    same = kind != "gru"
    return Peer("haiku", loss_and_grads(outputs), (weights, xs, v), same, ours if same else None)


def _to_haiku(kind: str, params: Any) -> dict[str, dict[str, Array]]:
    H = params.w_hh.shape[1]
    if kind == "lstm":
        w = jnp.concatenate([params.w_ih, params.w_hh], axis=1)  # rows i, f, g, o of [x; h]
        b = params.b.at[H : 2 * H].add(-1)  # haiku adds 1 to f at run time
        return {"lstm/linear": {"w": _ifgo(w).T, "b": _ifgo(b)}}
    if kind == "gru":  # rows z, r, a, and h = (1-z)⊙h₋ + z⊙a, so that z changes its sign
        r, z, n = jnp.split(jnp.column_stack([params.w_ih, params.w_hh, params.b]), 3)
        D = params.w_ih.shape[1]
        w_i, w_h, b = jnp.split(jnp.concatenate([-z, r, n]).T, [D, D + H])
        return {"gru": {"w_i": w_i, "w_h": w_h, "b": b[0]}}
    return {
        "vanilla_rnn/linear": {"w": params.w_ih.T, "b": params.b},
        "vanilla_rnn/linear_1": {"w": params.w_hh.T, "b": jnp.zeros_like(params.b)},
    }


def _ifgo(rows: Array) -> Array:
    """Gates i, f, g, o to haiku's i, g, f, o, or back."""
    i, f, g, o = jnp.split(rows, 4)
    return jnp.concatenate([i, g, f, o])


def equinox(kind: str, params: Any, xs: Array, v: Array) -> Peer:
    """`lax.scan` over eqx.nn.LSTMCell or GRUCell, mapped over the batch. It has no RNN."""
    import equinox as eqx

    cell_type = {"lstm": eqx.nn.LSTMCell, "gru": eqx.nn.GRUCell}[kind]
    cell = cell_type(*params.w_ih.shape[1:], params.w_hh.shape[1], key=jax.random.key(0))

    def leaves(cell):
        shared = [cell.weight_ih, cell.weight_hh, cell.bias]
        return [*shared, cell.bias_n] if kind == "gru" else shared

    def outputs(cell, xs):
        zeros = jnp.zeros((xs.shape[1], cell.hidden_size), xs.dtype)

        def body(state, x):
            new = jax.vmap(cell)(x, state)
            return new, new[0] if kind == "lstm" else new

        return jax.lax.scan(body, (zeros, zeros) if kind == "lstm" else zeros, xs)[1]

    args = (eqx.tree_at(leaves, cell, list(params)), xs, v)
    return Peer(
        "equinox", loss_and_grads(outputs), args, ours=lambda grads: PARAMS[kind](*leaves(grads))
    )


# --- torch ------------------------------------------------------------------------


def has_torch() -> bool:
    """Whether torch is installed."""
    return importlib.util.find_spec("torch") is not None


def configure_torch(threads: int) -> None:
    """As many threads as XLA has, and subnormals flushed to 0 as XLA does."""
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


def torch_peer(kind: str, params: Any, xs: Array, v: Array) -> Callable[[], Any] | None:
    """`run()` gives (loss, gradients by name, gradient of xs) of torch's own layer, on CPU.

    Returns: None where torch is not installed.
    """
    if not has_torch():
        return None
    import torch

    def tensor(leaf):
        return torch.from_numpy(np.array(leaf))  # a copy: torch wants to be able to write

    inputs, cotangent = tensor(xs).requires_grad_(), tensor(v)
    layer_type = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}.get(kind, torch.nn.RNN)
    options = {"nonlinearity": "relu"} if kind == "relu" else {}
    layer = layer_type(params.w_ih.shape[1], params.w_hh.shape[1], dtype=inputs.dtype, **options)
    b_hh = np.zeros_like(params.b)
    if kind == "gru":
        b_hh[-params.b_hn.size :] = params.b_hn
    leaves = {"weight_ih_l0": params.w_ih, "weight_hh_l0": params.w_hh, "bias_ih_l0": params.b}
    layer.load_state_dict({k: tensor(a) for k, a in (leaves | {"bias_hh_l0": b_hh}).items()})

    def run():
        # Dropped rather than zeroed: backward then writes fresh gradients, as XLA's program does.
        layer.zero_grad(set_to_none=True)
        inputs.grad = None
        loss = (cotangent * layer(inputs)[0]).sum()
        loss.backward()
        return loss.detach(), {k: p.grad for k, p in layer.named_parameters()}, inputs.grad

    return run


def from_torch(kind: str, grads: dict[str, Any]) -> Any:
    """Gradients of the params of `torch_peer` in our layout. Not to be timed."""
    leaves = [np.asarray(grads[f"{k}_l0"]) for k in ("weight_ih", "weight_hh", "bias_ih")]
    if kind == "gru":
        leaves.append(np.split(np.asarray(grads["bias_hh_l0"]), 3)[2])
    return PARAMS[kind](*leaves)
