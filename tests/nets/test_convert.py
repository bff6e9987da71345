"""Weights come back bit for bit, and act as in the layout they came from, written out in NumPy."""

import dataclasses
import functools
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrnn
from jaxrnn import convert
from jaxrnn.nets.convert import cudnn, equinox, flax_linen, flax_nnx, haiku, keras, torch
from tests.support.modes import WIDEST
from tests.support.reference import logistic

D, H = 3, 5
ones = functools.partial(np.ones, dtype=WIDEST)


def torch_shapes(D, H, G, layers=1, both=False, biased=True):
    found = {}
    for k in range(layers):
        for suffix in ("", "_reverse")[: 1 + both]:
            width = D if k == 0 else H * (1 + both)
            found[f"weight_ih_l{k}{suffix}"] = (G * H, width)
            found[f"weight_hh_l{k}{suffix}"] = (G * H, H)
            if biased:
                found |= {f"bias_{side}_l{k}{suffix}": (G * H,) for side in ("ih", "hh")}
    return found


def linen(D, H, gates, biased, extra):
    found = {}
    for g in gates:
        found |= {f"i{g}.kernel": (D, H), f"h{g}.kernel": (H, H), f"{biased}{g}.bias": (H,)}
    return found | extra


def layouts(D, H):
    """Layout and case ↦ (module, shapes by name)."""
    return {
        **{f"torch {kind}{' deep' * deep}": (torch, torch_shapes(D, H, G, 1 + deep, bool(deep)))
           for kind, G in (("lstm", 4), ("gru", 3), ("rnn", 1)) for deep in (0, 1)},
        "torch lstm without bias": (torch, torch_shapes(D, H, 4, biased=False)),
        "torch gru without bias": (torch, torch_shapes(D, H, 3, 2, biased=False)),
        "equinox lstm": (equinox, {"weight_ih": (4 * H, D), "weight_hh": (4 * H, H),
                                   "bias": (4 * H,)}),
        "equinox lstm without bias": (equinox, {"weight_ih": (4 * H, D), "weight_hh": (4 * H, H)}),
        "equinox gru": (equinox, {"weight_ih": (3 * H, D), "weight_hh": (3 * H, H),
                                  "bias": (3 * H,), "bias_n": (H,)}),
        "linen lstm": (flax_linen, linen(D, H, "ifgo", "h", {})),
        "linen gru": (flax_linen, linen(D, H, "rzn", "i", {"hn.bias": (H,)})),
        "linen simple": (flax_linen, {"i.kernel": (D, H), "i.bias": (H,), "h.kernel": (H, H)}),
        "nnx optimized lstm": (flax_nnx, {"dense_i.kernel": (D, 4 * H),
                                          "dense_h.kernel": (H, 4 * H), "dense_h.bias": (4 * H,)}),
        "nnx gru": (flax_nnx, {"dense_i.kernel": (D, 3 * H), "dense_h.kernel": (H, 3 * H),
                               "dense_i.bias": (3 * H,)}),
        "nnx simple": (flax_nnx, {"dense_i.kernel": (D, H), "dense_h.kernel": (H, H),
                                  "dense_i.bias": (H,)}),
        "haiku lstm": (haiku, {"linear.w": (D + H, 4 * H), "linear.b": (4 * H,)}),
        "haiku gru": (haiku, {"w_i": (D, 3 * H), "w_h": (H, 3 * H), "b": (3 * H,)}),
        "haiku rnn": (haiku, {"linear.w": (D, H), "linear.b": (H,), "linear_1.w": (H, H),
                              "linear_1.b": (H,)}),
        "haiku rnn of one bias": (haiku, {"linear.w": (D, H), "linear.b": (H,),
                                          "linear_1.w": (H, H)}),
        "keras lstm": (keras, {"kernel": (D, 4 * H), "recurrent_kernel": (H, 4 * H),
                               "bias": (4 * H,)}),
        "keras lstm without bias": (keras, {"kernel": (D, 4 * H), "recurrent_kernel": (H, 4 * H)}),
        "keras gru": (keras, {"kernel": (D, 3 * H), "recurrent_kernel": (H, 3 * H),
                              "bias": (2, 3 * H)}),
        "keras gru, reset first": (keras, {"kernel": (D, 3 * H), "recurrent_kernel": (H, 3 * H),
                                           "bias": (3 * H,)}),
        "keras simple": (keras, {"kernel": (D, H), "recurrent_kernel": (H, H), "bias": (H,)}),
    }  # fmt: skip


LAYOUTS = layouts(D, H)
each_layout = pytest.mark.parametrize("case", LAYOUTS)


def tree_of(case, seed=0, dtype=WIDEST, spread=0.0, layouts=LAYOUTS):
    """Leaves N(0, ¼), or over `spread` powers of ten."""
    generator = np.random.default_rng(seed)
    found = {}
    for name, shape in layouts[case][1].items():
        size = 10.0 ** generator.uniform(-spread, spread / 4, size=shape)
        found[name] = (0.5 * size * generator.normal(size=shape)).astype(dtype)
    return found


def assert_bits(got, want):
    assert set(got) == set(want)
    for name, leaf in want.items():
        assert got[name].dtype == leaf.dtype
        np.testing.assert_array_equal(
            np.ascontiguousarray(got[name]).view(np.uint8),
            np.ascontiguousarray(leaf).view(np.uint8),
            err_msg=name,
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_layout
def test_every_bit_comes_back(case, dtype):
    """Biases that differ in size by ten powers of ten, where a difference of sums would lose."""
    module = LAYOUTS[case][0]
    for seed in range(100):
        leaves = tree_of(case, seed, dtype, spread=10.0 if seed % 2 else 0.0)
        model = module.read(leaves)
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(model.layers))
        assert_bits(module.write(model), leaves)


@given(
    st.sampled_from(list(LAYOUTS)), st.integers(1, 6), st.integers(1, 6),
    st.sampled_from(["float32", WIDEST.name]), st.floats(0, 15), st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=10 * settings().max_examples)  # nothing is compiled
def test_every_bit_comes_back_at_every_size(case, D, H, dtype, spread, seed):
    known = layouts(D, H)
    leaves = tree_of(case, seed, dtype, spread, known)
    assert_bits(known[case][0].write(known[case][0].read(leaves)), leaves)


@pytest.mark.parametrize(("layers", "both"), [(1, False), (1, True), (3, False), (2, True)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_flat_vector_comes_back_and_is_jaxs(layers, both, dtype):
    from jax.experimental import rnn

    sizes = {"input_size": D, "hidden_size": H, "num_layers": layers, "bidirectional": both}
    count = rnn.get_num_params_in_lstm(*sizes.values())
    for seed in range(100):
        weights = np.random.default_rng(seed).normal(size=count).astype(dtype)
        model = cudnn.read(weights, **sizes)
        np.testing.assert_array_equal(cudnn.write(model), weights)
    w_ih, w_hh, b_ih, b_hh = rnn.unpack_lstm_weights(jnp.asarray(weights), *sizes.values())
    sides = [side for layer in model.layers for side in layer if side is not None]
    for k, params in enumerate(sides):
        np.testing.assert_array_equal(params.w_ih, w_ih[k])
        np.testing.assert_array_equal(params.w_hh, w_hh[k])
        np.testing.assert_array_equal(params.b, b_ih[k] + b_hh[k])


def test_an_nnx_lstm_of_single_kernels_comes_back():
    leaves = {name.replace("if.", "if_."): leaf for name, leaf in tree_of("linen lstm").items()}
    model = flax_nnx.read(leaves)
    assert_bits(flax_nnx.write_lstm_cell(model), leaves)


@each_layout
def test_trained_weights_go_back_too(case):
    """Changed params, written and read again, are the changed params to a rounding of the bias."""
    module = LAYOUTS[case][0]
    model = module.read(tree_of(case))
    generator = np.random.default_rng(1)
    trained = jax.tree.map(
        lambda leaf: leaf + 0.1 * generator.normal(size=leaf.shape).astype(leaf.dtype), model.layers
    )
    if case == "nnx gru":
        trained = tuple(
            layer._replace(forward=layer.forward._replace(b_hn=np.zeros(H))) for layer in trained
        )
    if case == "torch gru without bias":  # a bias is needed now
        assert "bias_hh_l0" in module.write(dataclasses.replace(model, layers=trained))
    back = module.read(module.write(dataclasses.replace(model, layers=trained)))
    for got, want in zip(jax.tree.leaves(back.layers), jax.tree.leaves(trained), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-15)


# --- each layout's step, written out ------------------------------------------------------


def by_hand(case, w, h, c, x):
    """One step of the layout's own equations; (h, c)."""

    def cut(z, order):
        return dict(zip(order, np.split(z, len(order), axis=-1), strict=True))

    def lstm(z):
        new = logistic(z["f"]) * c + logistic(z["i"]) * np.tanh(z["g"])
        return logistic(z["o"]) * np.tanh(new), new

    def gru(u, a, b_hn):
        n = np.tanh(u["n"] + logistic(u["r"] + a["r"]) * (a["n"] + b_hn))
        z = logistic(u["z"] + a["z"])
        return (1 - z) * n + z * h, c

    def reset_first(u, r, z, U, kept):
        n = np.tanh(u + (r * h) @ U)
        return kept(z) * n + (1 - kept(z)) * h, c

    def bias(name):
        return w.get(name, 0.0)

    library, kind, *_ = case.split()
    if library == "torch":
        u = x @ w["weight_ih_l0"].T + bias("bias_ih_l0")
        a = h @ w["weight_hh_l0"].T + bias("bias_hh_l0")
        if kind == "rnn":
            return np.tanh(u + a), c
        return lstm(cut(u + a, "ifgo")) if kind == "lstm" else gru(cut(u, "rzn"), cut(a, "rzn"), 0)
    if library == "equinox":
        u, a = x @ w["weight_ih"].T + bias("bias"), h @ w["weight_hh"].T
        if kind == "lstm":
            return lstm(cut(u + a, "ifgo"))
        return gru(cut(u, "rzn"), cut(a, "rzn"), bias("bias_n"))
    if library == "linen":
        if kind == "simple":
            return np.tanh(x @ w["i.kernel"] + w["i.bias"] + h @ w["h.kernel"]), c
        u = {
            g: x @ w[f"i{g}.kernel"] + bias(f"i{g}.bias") for g in "ifgorzn" if f"i{g}.kernel" in w
        }
        a = {g: h @ w[f"h{g}.kernel"] + bias(f"h{g}.bias") for g in u}
        return lstm({g: u[g] + a[g] for g in u}) if kind == "lstm" else gru(u, a, 0)
    if library == "nnx":
        u = x @ w["dense_i.kernel"] + bias("dense_i.bias")
        a = h @ w["dense_h.kernel"] + bias("dense_h.bias")
        if kind == "simple":
            return np.tanh(u + a), c
        return gru(cut(u, "rzn"), cut(a, "rzn"), 0) if kind == "gru" else lstm(cut(u + a, "ifgo"))
    if library == "haiku" and kind == "lstm":
        z = cut(np.concatenate([x, h], -1) @ w["linear.w"] + w["linear.b"], "igfo")
        return lstm(z | {"f": z["f"] + 1})
    if library == "haiku" and kind == "rnn":
        z = x @ w["linear.w"] + w["linear.b"] + h @ w["linear_1.w"] + bias("linear_1.b")
        return np.maximum(z, 0), c
    if library == "haiku":
        u = cut(x @ w["w_i"] + w["b"], "zra")
        U = cut(w["w_h"], "zra")
        z, r = (logistic(u[g] + h @ U[g]) for g in "zr")
        return reset_first(u["a"], r, z, U["a"], lambda z: z)  # h' = (1-z) h + z a
    u = x @ w["kernel"]
    if kind == "lstm":
        return lstm(cut(u + h @ w["recurrent_kernel"] + bias("bias"), "ifgo"))
    if kind == "simple":
        return np.tanh(u + h @ w["recurrent_kernel"] + w["bias"]), c
    if w["bias"].ndim == 2:
        a = cut(h @ w["recurrent_kernel"] + w["bias"][1], "zrn")
        return gru(cut(u + w["bias"][0], "zrn"), a, 0)
    u, U = cut(u + w["bias"], "zrn"), cut(w["recurrent_kernel"], "zrn")
    z, r = (logistic(u[g] + h @ U[g]) for g in "zr")
    return reset_first(u["n"], r, z, U["n"], lambda z: 1 - z)


@pytest.mark.parametrize(
    "case", [case for case in LAYOUTS if "deep" not in case and "2" not in case]
)
def test_the_cell_steps_as_the_layout_does(case):
    if case == "torch gru without bias":
        pytest.skip("of two layers")
    leaves = tree_of(case, 3)
    model = LAYOUTS[case][0].read(leaves)
    steps_as_by_hand(case, leaves, model.cell, model.params)
    for spoil in FAULTS.values():
        spoilt = spoil(jax.tree.map(np.asarray, model.params))
        if all(np.array_equal(*leaf) for leaf in zip(spoilt, model.params, strict=True)):
            continue  # one gate has none to be swapped with, and some layouts no bias
        with pytest.raises(AssertionError):
            steps_as_by_hand(case, leaves, model.cell, spoilt)


def steps_as_by_hand(case, leaves, cell, params):
    normal = np.random.default_rng(4).normal
    xs, h, c = (normal(size=s).astype(WIDEST) for s in ((6, 2, D), (2, H), (2, H)))
    made = cell.init_state(params, (2,))
    state0 = type(made)(**{field: {"h": h, "c": c}[field] for field in made._fields})
    states = jaxrnn.unroll(cell, params, xs, state0)
    for i, x in enumerate(xs):
        h, c = by_hand(case, leaves, h, c, x)
        np.testing.assert_allclose(states.h[i], h, rtol=0, atol=1e-13)
        if hasattr(states, "c"):
            np.testing.assert_allclose(states.c[i], c, rtol=0, atol=1e-13)


def blocks_transposed(w_hh):
    return np.concatenate([block.T for block in np.split(w_hh, len(w_hh) // H)])


def one_off(w_hh):
    w_hh = w_hh.copy()
    w_hh[1, 2] *= 1.001
    return w_hh


def turned(leaf):
    """Every gate's rows in the place of the next gate's."""
    return np.roll(leaf, H, axis=0)


FAULTS = {
    "50 % off": lambda p: p._replace(w_ih=0.5 * p.w_ih),
    "one entry": lambda p: p._replace(w_hh=one_off(p.w_hh)),
    "transposed": lambda p: p._replace(w_hh=blocks_transposed(p.w_hh)),
    "gates swapped": lambda p: p._replace(w_ih=turned(p.w_ih), w_hh=turned(p.w_hh), b=turned(p.b)),
    "bias dropped": lambda p: p._replace(b=np.zeros_like(p.b)),
}


@pytest.mark.parametrize("case", ["torch lstm deep", "torch gru deep", "torch rnn deep"])
def test_layers_and_directions_with_lengths(case):
    """Two layers of two directions: each sequence alone, each direction by hand."""
    leaves, T = tree_of(case, 5), 6
    xs = np.random.default_rng(6).normal(size=(T, 3, D)).astype(WIDEST)
    lengths = np.array([6, 1, 4])
    model = torch.read(leaves)
    states = jaxrnn.layers.unroll_layers(model.cell, model.layers, xs, lengths=lengths)
    got = jaxrnn.layers.outputs(states)
    for b, length in enumerate(lengths):
        fed = xs[:length, b]
        for k in range(2):
            sides = []
            for suffix, order in (("", 1), ("_reverse", -1)):
                one = {f"{name}_l0": leaves[f"{name}_l{k}{suffix}"]
                       for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}  # fmt: skip
                h, c, out = np.zeros(H), np.zeros(H), []
                for x in fed[::order]:
                    h, c = by_hand(case, one, h, c, x)
                    out.append(h)
                sides.append(np.stack(out)[::order])
            fed = np.concatenate(sides, axis=-1)
        np.testing.assert_allclose(got[:length, b], fed, rtol=0, atol=1e-13)


def test_models_pass_from_layout_to_layout():
    """A GRU by way of every layout that has it computes the same."""
    model = torch.read(tree_of("torch gru"))
    xs = np.random.default_rng(0).normal(size=(7, 2, D)).astype(WIDEST)
    want = jaxrnn.unroll(model.cell, model.params, xs).h
    for module in (equinox, flax_linen, keras, torch):
        model = module.read(module.write(model))
        np.testing.assert_allclose(
            jaxrnn.unroll(model.cell, model.params, xs).h, want, rtol=0, atol=1e-14
        )


# --- what does not fit -----------------------------------------------------------------------


def without(leaves, name):
    return {key: leaf for key, leaf in leaves.items() if key != name}


def stacked(*sizes, unfit=0):
    """A Model of LSTMs of these H, a pair for two directions; `unfit` more inputs than it has."""
    made, width = [], D
    for size in sizes:
        sides = size if isinstance(size, tuple) else (size,)
        params = [
            jaxrnn.LSTMParams(ones((4 * n, width)), ones((4 * n, n)), ones(4 * n)) for n in sides
        ]
        made.append(jaxrnn.layers.Layer(*params))
        width = sum(sides) + unfit
    return convert.Model(jaxrnn.lstm(), tuple(made), "torch")


def lstm_leaves(*sizes):
    """torch's of `stacked`, without biases, under the prefix net."""
    found = {}
    for k, layer in enumerate(stacked(*sizes).layers):
        for params, end in zip(layer, ("", "_reverse"), strict=True):
            if params is not None:
                found[f"net.weight_ih_l{k}{end}"] = params.w_ih
                found[f"net.weight_hh_l{k}{end}"] = params.w_hh
    return found


@each_layout
def test_missing_extra_and_misshapen_leaves_are_named(case):
    module, leaves = LAYOUTS[case][0], tree_of(case)
    with pytest.raises(ValueError, match="strange: expected no such leaf"):
        module.read(leaves | {"strange": ones(3)})
    named = "^(" + "|".join(map(re.escape, leaves)) + "|[a-z_.0-9]+): expected "
    for name, leaf in leaves.items():
        with pytest.raises(ValueError, match=named + r".*, got float(32|64)\["):
            module.read(leaves | {name: leaf[None]})
        with pytest.raises(TypeError, match=named + r"float\d\d, as in the other leaves"):
            module.read(leaves | {name: leaf.astype("float16")})
        with pytest.raises(TypeError, match=rf"arrays\['{name}'\]: expected a real floating dtype"):
            module.read(leaves | {name: leaf.astype(int)})
        if "bias" not in name and not name.endswith("b"):
            with pytest.raises(ValueError, match=named):
                module.read(without(leaves, name))


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: torch.read([1.0]), TypeError, "arrays: expected a dict of arrays by name, got a list"),
    (lambda: torch.read({}), ValueError, "arrays: expected torch weights .* got nothing"),
    (lambda: torch.read({"a": None}), TypeError, r"arrays\['a'\]: expected an array, got None"),
    (lambda: torch.read(tree_of("torch lstm"), prefix="rnn"), ValueError,
     r"arrays: expected torch weights under the names rnn\.…, got bias_hh_l0"),
    (lambda: torch.read(tree_of("torch lstm"), prefix=3), TypeError, "prefix: expected a string"),
    (lambda: torch.read(tree_of("torch lstm") | {"weight_hr_l0": ones((2, H))}), ValueError,
     "weight_hr_l0: expected no such leaf in torch weights"),
    (lambda: torch.read({"weight_hh_l0": ones((2 * H, H))}), ValueError,
     r"weight_hh_l0: expected G·H with H = 5 and G in \(4, 3, 1\), got 10"),
    (lambda: torch.read(lstm_leaves(H, H + 1), prefix="net"), ValueError,
     r"^net\.weight_hh_l1: expected shape \(20, 5\), got float(32|64)\[24, 6\]"),
    (lambda: torch.read(lstm_leaves((H, H + 1)), prefix="net"), ValueError,
     r"^net\.weight_hh_l0_reverse: expected shape \(20, 5\), got float(32|64)\[24, 6\]"),
    (lambda: torch.read(lstm_leaves((H, H), H), prefix="net"), ValueError,
     r"^net\.weight_hh_l1_reverse: expected this leaf in torch weights"),
    (lambda: torch.read(lstm_leaves(H, (H, H)), prefix="net"), ValueError,
     r"^net\.weight_.h_l1_reverse: expected no such leaf in torch weights"),
    (lambda: torch.write(None), TypeError, "model: expected a Model, got None"),
    (lambda: equinox.write(torch.read(tree_of("torch rnn"))), ValueError,
     "model: expected a cell that equinox has, lstm or gru, got rnn"),
    (lambda: equinox.write(torch.read(tree_of("torch lstm deep"))), ValueError,
     "model: expected one layer of one direction, got 2 layers of two directions"),
    (lambda: haiku.write(torch.read(tree_of("torch rnn"))), ValueError, "model: expected relu"),
    (lambda: torch.write(stacked(H, H + 1)), ValueError,
     r"model.layers\[1\]\.forward: expected H = 5 and D = 5, .*torch.*, got H = 6 and D = 5"),
    (lambda: torch.write(stacked(H, (H, H))), ValueError,
     r"model.layers\[1\]: expected one direction, as layers\[0\] has, .*torch.*, got two"),
    (lambda: torch.write(stacked((H, H + 1))), ValueError,
     r"model.layers\[0\]\.reverse: expected H = 5 and D = 3, .*, got H = 6 and D = 3"),
    (lambda: torch.write(dataclasses.replace(stacked(H), layers=())), ValueError,
     "model.layers: expected at least one layer, got none"),
    (lambda: cudnn.write(stacked(H, H + 1)), ValueError,
     r"model.layers\[1\]\.forward: expected H = 5 and D = 5, .*cudnn.*, got H = 6 and D = 5"),
    (lambda: cudnn.write(stacked(H, (H, H))), ValueError,
     r"model.layers\[1\]: expected one direction, as layers\[0\] has, .*cudnn.*, got two"),
    (lambda: cudnn.write(stacked((H, H), H)), ValueError,
     r"model.layers\[1\]: expected two directions, as layers\[0\] has, .*cudnn.*, got one"),
    (lambda: cudnn.write(stacked(H, H, unfit=1)), ValueError,
     r"model.layers\[1\]\.forward: expected H = 5 and D = 5, .*, got H = 5 and D = 6"),
    (lambda: flax_nnx.write(torch.read(tree_of("torch gru"))), ValueError,
     "model: expected b_hn of zeros"),
    (lambda: haiku.read({"linear.w": ones((H - 1, 4 * H)), "linear.b": ones(4 * H)}),
     ValueError, r"^linear.w: expected at least H = 5 rows, \[x; h\], got 4"),
    (lambda: haiku.read({"net/lstm": {"linear.w": ones((H - 1, 4 * H)),
                                      "linear.b": ones(4 * H)}}, prefix="net.lstm"),
     ValueError, r"^net.lstm.linear.w: expected at least H = 5 rows"),
    (lambda: flax_linen.read(
        {"i.kernel": ones((3, H)), "i.bias": ones(H), "h.kernel": ones((H, H + 1))}),
     ValueError, r"^h.kernel: expected shape \(H, H\), got \(5, 6\)"),
    (lambda: flax_linen.read({"net.hi.kernel": ones((H, H + 1))}, prefix="net"),
     ValueError, r"^net.hi.kernel: expected shape \(H, H\), got \(5, 6\)"),
    (lambda: keras.read(without(tree_of("keras gru"), "bias")), ValueError,
     "bias: expected .*reset"),
    (lambda: cudnn.read(ones(7), input_size=3, hidden_size=5), ValueError,
     r"weights: expected shape \(200,\) for these sizes, got float(32|64)\[7\]"),
    (lambda: cudnn.read(ones(200), input_size=3, hidden_size=5, bidirectional=2), TypeError,
     "bidirectional: expected a bool, got an int"),
    (lambda: cudnn.read(ones(200), input_size=0, hidden_size=5), ValueError,
     "input_size: expected an integer of at least 1, got 0"),
    (lambda: cudnn.read(None, input_size=3, hidden_size=5), TypeError,
     "weights: expected an array"),
    (lambda: jaxrnn.layers.unroll_layers(jaxrnn.lstm(), [], ones((2, 3))), TypeError,
     "layers: expected a list of Layer"),
    (lambda: jaxrnn.layers.unroll_layers(jaxrnn.lstm(), [None], ones((2, 3))), TypeError,
     r"layers\[0\]: expected a Layer"),
    (lambda: jaxrnn.layers.unroll_layers(
        jaxrnn.lstm(), torch.read(tree_of("torch lstm deep")).layers, ones((2, 4))), ValueError,
     r"layers\[0\]: xs: expected last axis D = 3"),
    (lambda: jaxrnn.layers.unroll_layers(
        jaxrnn.lstm(), torch.read(tree_of("torch lstm")).layers, ones((2, 3)), []), TypeError,
     "state0: expected a list of Layer"),
])  # fmt: skip
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_names_may_be_nested_prefixed_or_tuples():
    leaves = tree_of("haiku lstm")
    nested = {"net/~/lstm/linear": {"w": leaves["linear.w"], "b": leaves["linear.b"]}}
    model = haiku.read(nested, prefix="net/~/lstm".replace("/", "."))
    assert_bits(haiku.write(model), leaves)
    tuples = {tuple(name.split(".")): leaf for name, leaf in tree_of("nnx gru").items()}
    assert_bits(flax_nnx.write(flax_nnx.read(tuples)), tree_of("nnx gru"))
    assert convert.Model is type(model)


# --- files and names -------------------------------------------------------------------------


NAMES = {torch: "torch", flax_linen: "flax-linen", flax_nnx: "flax-nnx", haiku: "haiku",
         equinox: "equinox", keras: "keras"}  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "net.encoder"])
@each_layout
def test_the_layout_is_told_by_the_names(case, prefix):
    module, leaves = LAYOUTS[case][0], tree_of(case)
    named = {f"{prefix}.{name}".lstrip("."): leaf for name, leaf in leaves.items()}
    assert convert.guess(named | {"head.weight": ones(3)}) == (NAMES[module], prefix)
    assert convert.LAYOUTS[NAMES[module]] is module
    read = module.read(named, prefix=prefix)
    assert_bits(module.write(read), leaves)


@each_layout
def test_leaves_of_other_layers_may_be_of_any_dtype(case, tmp_path):
    """float64 in 32-bit mode, a counter of batches, a name: none belongs to what is read."""
    module, leaves = LAYOUTS[case][0], tree_of(case, dtype="float32")
    others = {
        "norm.running_mean": ones(3),
        "norm.num_batches_tracked": np.array(7),
        "embed": {"ids": np.arange(4)},
    }
    named = {f"net.{name}": leaf for name, leaf in leaves.items()} | others
    with jax.enable_x64(False):
        assert convert.guess(named) == (NAMES[module], "net")
        assert_bits(module.write(module.read(named, prefix="net")), leaves)
        np.savez(tmp_path / "w.npz", **{k: v for k, v in named.items() if k != "embed"})
        loaded = convert.load(tmp_path / "w.npz")
        assert convert.guess(loaded) == (NAMES[module], "net")
        assert_bits(module.write(module.read(loaded, prefix="net")), leaves)
        one = next(iter(leaves))
        spoilt = named | {f"net.{one}": leaves[one].astype("float64")}
        with pytest.raises(TypeError, match=rf"arrays\['net.{one}'\]: expected a dtype that JAX"):
            module.read(spoilt, prefix="net")


def test_an_nnx_lstm_of_single_kernels_is_told_from_linen():
    leaves = {name.replace("if.", "if_."): leaf for name, leaf in tree_of("linen lstm").items()}
    assert convert.guess(leaves) == ("flax-nnx", "")


def test_names_that_do_not_tell_are_refused_with_the_candidates():
    two = {
        f"{side}.{name}": leaf
        for side in ("a", "b")
        for name, leaf in tree_of("keras lstm").items()
    }
    with pytest.raises(ValueError, match="of one net, got keras under a; keras under b; name the"):
        convert.guess(two)
    with pytest.raises(ValueError, match="got torch under no prefix; keras under no prefix"):
        convert.guess(tree_of("keras lstm") | tree_of("torch lstm"))
    with pytest.raises(
        ValueError, match=r"arrays: expected the leaves of torch, .* got a, b; name"
    ):
        convert.guess({"a": ones(2), "b": ones(3)})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_files_hold_the_bits(tmp_path, dtype):
    from safetensors.numpy import save_file

    leaves = tree_of("torch gru deep", dtype=dtype)
    np.savez(tmp_path / "w.npz", **leaves)
    save_file(leaves, tmp_path / "w.safetensors")
    for file in ("w.npz", "w.safetensors"):
        assert_bits(convert.load(tmp_path / file), leaves)
        assert_bits(convert.load(str(tmp_path / file)), leaves)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    from safetensors.numpy import save_file

    leaves = tree_of("torch lstm")
    save_file(leaves, tmp_path / "whole.safetensors")
    np.savez(tmp_path / "whole.npz", **leaves)
    for kind in ("safetensors", "npz"):
        whole = (tmp_path / f"whole.{kind}").read_bytes()
        (tmp_path / f"cut.{kind}").write_bytes(whole[: len(whole) // 2])
        (tmp_path / f"empty.{kind}").write_bytes(b"")
        (tmp_path / f"noise.{kind}").write_bytes(b"noise" * 100)
        for name in ("cut", "noise"):
            with pytest.raises(
                ValueError, match=rf"path: expected .*, got {name}\.{kind}, which can"
            ):
                convert.load(tmp_path / f"{name}.{kind}")
        with pytest.raises(ValueError, match=rf"got empty\.{kind}, which is empty"):
            convert.load(tmp_path / f"empty.{kind}")
        with pytest.raises(ValueError, match=r"path: expected a file, got .*none"):
            convert.load(tmp_path / f"missing.{kind}")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(
        ValueError, match=r"got objects\.npz, which holds an array of Python objects"
    ):
        convert.load(tmp_path / "objects.npz")
    for suffix in (".pt", ".pth", ".pkl", ".bin"):
        with pytest.raises(ValueError, match=r"a pickle, .*\n  python -c .*save_file"):
            convert.load(tmp_path / f"w{suffix}")
    with pytest.raises(ValueError, match=r"path: expected \.safetensors or \.npz, got w\.txt"):
        convert.load("w.txt")
    with pytest.raises(TypeError, match="path: expected a string or a Path, got 3"):
        convert.load(3)


def test_safetensors_want_an_extra(tmp_path, monkeypatch):
    (tmp_path / "w.safetensors").write_bytes(b"any")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"safetensors is missing; .*'jaxrnn\[io\]'"):
        convert.load(tmp_path / "w.safetensors")


def leaky(cell):
    """The cell with another step on the same params."""

    def update(state, u, a):
        return type(state)(*[0.5 * leaf for leaf in cell.phi.update(state, u, a)])

    return dataclasses.replace(cell, name="leaky", phi=cell.phi._replace(update=update))


@pytest.mark.parametrize("layout", ["torch", "flax_linen", "flax_nnx", "keras"])
@pytest.mark.parametrize("name", ["lstm[hard]", "gru[hard]", "lstm", "gru", "rnn"])
def test_a_cell_with_another_step_is_not_written_as_the_usual_one(layout, name):
    """The params are of the same type, and no layout has a place for the step."""
    hard = jaxrnn.activations.hard_sigmoid
    usual = {"lstm": jaxrnn.lstm(), "gru": jaxrnn.gru(), "rnn": jaxrnn.rnn()}
    other = {"lstm[hard]": jaxrnn.lstm(gate=hard), "gru[hard]": jaxrnn.gru(gate=hard)}
    cell = other.get(name) or leaky(usual[name])
    params = type(cell.shapes(1, 1))(*map(ones, cell.shapes(D, H)))
    module = {"torch": torch, "flax_linen": flax_linen, "flax_nnx": flax_nnx, "keras": keras}
    model = convert.Model(cell, (jaxrnn.layers.Layer(params),), layout, {})
    with pytest.raises(
        ValueError, match=r"model: expected a cell that .* has, .*, got (leaky|.*hard)"
    ):
        module[layout].write(model)
