"""The programs that benchmarks time beside ours compute what ours computes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from benchmarks import peers, torch_process

# What other frameworks warn of is theirs to settle.
pytestmark = pytest.mark.filterwarnings("ignore")

T, B, D, H = 5, 3, 2, 4
CELLS = {
    "lstm": jaxrnn.lstm(),
    "gru": jaxrnn.gru(),
    "rnn": jaxrnn.rnn(),
    "relu": jaxrnn.rnn(jaxrnn.activations.relu),
}
FRAMEWORKS = {"flax nnx": "flax", "haiku": "haiku", "equinox": "equinox"}
OTHERS = {"gru": ["haiku"], "rnn": ["haiku", "equinox"], "relu": ["equinox"]}
SAME = [
    (kind, name)
    for kind in CELLS
    for name in ("hoisted scan", "flax nnx", "haiku", "equinox")
    if name not in OTHERS.get(kind, ())
]


def case(kind, *, b_hn=True):
    """Params with no leaf 0 (but b_hn where not wanted), xs and v, float64."""
    normal = np.random.default_rng(7).normal
    params = CELLS[kind].shapes(D, H)
    params = type(params)(*[0.7 * normal(size=shape) for shape in params])
    if kind == "gru" and not b_hn:
        params = params._replace(b_hn=np.zeros(H))
    return jax.device_put((params, normal(size=(T, B, D)), normal(size=(T, B, H))))


@functools.partial(jax.jit, static_argnums=0)
def expected(cell, params, xs, v):
    f = peers.loss_and_grads(lambda params, xs: jaxrnn.unroll(cell, params, xs).h)
    return f(params, xs, v)


def the_peer(name, kind, args):
    if name in FRAMEWORKS:
        pytest.importorskip(FRAMEWORKS[name])
    return next(peer for peer in peers.available(kind, *args) if peer.name == name)


def run(peer):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return jax.jit(peer.f)(*peer.args)


def close(ours, theirs):
    np.testing.assert_allclose(np.asarray(theirs), np.asarray(ours), rtol=1e-11, atol=1e-12)


def agree(reference, loss, grads, grad_xs):
    close(reference[0], loss)
    close(reference[2], grad_xs)
    for leaf, theirs in zip(reference[1], grads, strict=True):
        if theirs is not None:
            close(leaf, theirs)


@pytest.mark.parametrize(("kind", "name"), SAME)
def test_a_peer_in_jax_computes_our_loss_and_gradients(kind, name):
    args = case(kind, b_hn=name != "flax nnx")
    peer = the_peer(name, kind, args)
    assert peer.same_equations
    loss, grads, grad_xs = run(peer)
    agree(expected(CELLS[kind], *args), loss, peer.ours(grads), grad_xs)


@pytest.mark.parametrize("kind", CELLS)
def test_torch_computes_our_loss_and_gradients_and_accumulates_none(kind):
    pytest.importorskip("torch")
    args = case(kind)
    torch_run = peers.torch_peer(kind, *args)
    first = torch_run()
    for loss, grads, grad_xs in (first, torch_run()):
        agree(expected(CELLS[kind], *args), loss, peers.from_torch(kind, grads), grad_xs)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (7, 3, 2, 5), (40, 2, 3, 8), (20, 1, 6, 16)])
def test_unroll_has_the_gradients_of_torch_on_25_networks_of_a_size(kind, size):
    """Weights drawn by torch itself, at 1, 3 and 5 times their scale, both its biases not 0.

    1e-12 of the gradient's largest entry: torch forms σ' from σ, which loses digits in small ones.
    """
    torch = pytest.importorskip("torch")
    T, B, D, H = size
    f = jax.jit(peers.loss_and_grads(lambda p, xs: jaxrnn.unroll(CELLS[kind], p, xs).h))
    for seed in range(25):
        torch.manual_seed(seed)
        layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind](D, H, dtype=torch.float64)
        with torch.no_grad():
            for leaf in layer.parameters():
                leaf.mul_((1, 3, 5)[seed % 3])
        inputs = torch.randn(T, B, D, dtype=torch.float64, requires_grad=True)
        v = torch.randn(T, B, H, dtype=torch.float64)
        torch.sum(v * layer(inputs)[0]).backward()
        w_ih, w_hh, b_ih, b_hh = (jnp.asarray(p.detach().numpy()) for p in layer.parameters())
        if kind == "gru":  # only the candidate's second bias is inside the reset
            b, b_hn = b_ih + b_hh.at[2 * H :].set(0.0), b_hh[2 * H :]
            params = jaxrnn.GRUParams(w_ih, w_hh, b, b_hn)
        else:
            params = jaxrnn.LSTMParams(w_ih, w_hh, b_ih + b_hh)
        xs = jnp.asarray(inputs.detach().numpy())
        _, ours, ours_xs = f(params, xs, jnp.asarray(v.numpy()))
        theirs = [p.grad.numpy() for p in layer.parameters()]
        pairs = [*zip(ours[:3], theirs, strict=False), (ours_xs, inputs.grad.numpy())]
        if kind == "gru":
            pairs.append((ours.b_hn, theirs[3][2 * H :]))
        largest = max(np.abs(theirs).max() for _, theirs in pairs)
        for leaf, theirs in pairs:
            np.testing.assert_allclose(leaf, theirs, rtol=0, atol=1e-12 * largest)


def test_haiku_gru_is_ours_where_the_reset_gate_is_open():
    params, xs, v = case("gru", b_hn=False)
    params = params._replace(b=params.b.at[:H].set(60.0))  # r is 1: reset before or after is one
    peer = the_peer("haiku", "gru", (params, xs, v))
    assert not peer.same_equations
    loss, _, grad_xs = run(peer)
    reference = expected(CELLS["gru"], params, xs, v)
    close(reference[0], loss)
    close(reference[2], grad_xs)


def test_haiku_is_no_peer_of_the_tanh_network():
    assert "haiku" not in [peer.name for peer in peers.available("rnn", *case("rnn"))]


def test_flax_gru_is_not_called_the_same_with_a_bias_inside_the_reset():
    assert not the_peer("flax nnx", "gru", case("gru")).same_equations


def test_torch_in_a_process_of_its_own_tells_its_seconds_and_ends_when_closed():
    pytest.importorskip("torch")
    with torch_process.TorchProcess(threads=1) as torch:
        clock = torch.clock("lstm", *case("lstm"))
        assert 0 < clock() < 60
        assert 0 < torch.clock("gru", *case("gru"))() < 60
        child = torch.process
    assert child.exitcode == 0


@pytest.mark.parametrize("kind", CELLS)
def test_the_bare_matmuls_give_gradients_of_our_shapes_and_use_every_number(kind):
    args = case(kind)
    peer = the_peer("bare matmuls", kind, args)
    assert not peer.same_equations
    _, grads, grad_xs = run(peer)
    reference = expected(CELLS[kind], *args)
    assert [a.shape for a in (*grads, grad_xs)] == [
        a.shape for a in (reference[1].w_ih, reference[1].w_hh, reference[2])
    ]

    def total(*args):
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(peer.f(*args)))

    with jax.numpy_rank_promotion("allow"):
        touched = jax.jit(jax.grad(total, argnums=range(4)))(*peer.args)
    assert all(np.all(np.asarray(leaf) != 0) for leaf in touched)


def matmul_flops(jaxpr):
    """Of all matmuls in a jaxpr, those in a scan counted once a step."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            depth = np.prod([eqn.invars[0].aval.shape[axis] for axis in contracted])
            total += 2 * eqn.outvars[0].aval.size * depth
        if "jaxpr" in eqn.params:
            total += eqn.params.get("length", 1) * matmul_flops(eqn.params["jaxpr"].jaxpr)
    return total


@pytest.mark.parametrize("kind", CELLS)
def test_the_bare_matmuls_do_the_work_of_the_hoisted_scan_and_no_more(kind):
    def flops(name):
        peer = the_peer(name, kind, case(kind))
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return matmul_flops(jax.make_jaxpr(peer.f)(*peer.args).jaxpr)

    rows = peers.GATE_COUNTS[kind] * H
    assert flops("bare matmuls") == flops("hoisted scan") == 6 * T * B * rows * (D + H)


def test_weights_and_inputs_are_arguments_and_never_constants():
    for kind in CELLS:
        for peer in peers.available(kind, *case(kind)):
            with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
                jaxpr = jax.make_jaxpr(peer.f)(*peer.args)
            assert all(np.size(const) < H for const in jaxpr.consts), peer.name
