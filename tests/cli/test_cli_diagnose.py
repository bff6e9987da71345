"""`jaxrnn diagnose`: weights and data in, a report out; whatever is wrong refused in a line."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import jaxrnn
from jaxrnn.cli import main
from jaxrnn.cli.diagnose import Options, read_weights
from jaxrnn.diagnosis.figures import plain
from tests.support.modes import WIDEST
from tests.support.profiles import short

T, B, D, H = 25, 6, 3, 5


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """In a folder of its own with a torch LSTM, its data, and some that are spoilt."""
    monkeypatch.chdir(tmp_path)
    normal = np.random.default_rng(0).normal
    shapes = {"weight_ih_l0": (4 * H, D), "weight_hh_l0": (4 * H, H),
              "bias_ih_l0": (4 * H,), "bias_hh_l0": (4 * H,)}  # fmt: skip
    weights = {name: 0.4 * normal(size=shape).astype("float32") for name, shape in shapes.items()}
    safetensors.numpy.save_file(weights, "m.safetensors")
    np.savez("m.npz", **{f"net.lstm.{name}": leaf for name, leaf in weights.items()})
    two = {f"{net}.{name}": leaf for net in ("enc", "dec") for name, leaf in weights.items()}
    safetensors.numpy.save_file(two, "two.safetensors")
    missing = {name: leaf for name, leaf in weights.items() if name != "bias_hh_l0"}
    safetensors.numpy.save_file(missing, "missing.safetensors")
    more = weights | {"weight_hr_l0": np.ones((2, H), "float32")}
    safetensors.numpy.save_file(more, "more.safetensors")
    odd = weights | {"weight_hh_l0": np.ones((4 * H + 1, H), "float32")}
    safetensors.numpy.save_file(odd, "odd.safetensors")
    safetensors.numpy.save_file({"a": np.ones(3, "float32")}, "strange.safetensors")
    np.savez("nothing.npz")
    np.savez("objects.npz", weight_hh_l0=np.array([{}, 1], object))
    whole = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "model.pt").write_bytes(b"\x80\x02")
    xs = normal(size=(T, B, D)).astype("float32")
    np.save("xs.npy", xs)
    np.save("first.npy", xs.swapaxes(0, 1))
    np.save("one.npy", xs[:, 0])
    np.save("wide.npy", np.ones((T, B, D + 1), "float32"))
    np.save("double.npy", xs.astype("float64"))
    np.save("whole.npy", np.ones((T, B, D), int))
    np.save("flat.npy", np.ones(T, "float32"))
    np.save("none.npy", np.ones((T, 0, D), "float32"))
    np.save("objects.npy", np.array([{}, 1], object), allow_pickle=True)
    np.save("l.npy", np.array([T, 3, 7, T, 1, 9]))
    np.save("long.npy", np.array([T + 1, 3, 7, T, 1, 9]))
    np.save("few.npy", np.array([T, 3]))
    (tmp_path / "xs.csv").write_text("1,2,3\n")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "xs.npy").read_bytes()[:200])
    return weights, xs


def run(*arguments):
    with pytest.raises(SystemExit) as exit_:
        main(("diagnose", *map(str, arguments)))
    return exit_.value.code


@pytest.fixture
def no_pictures(monkeypatch):
    """For tests that do not read the page: seconds are spent on its pictures."""
    monkeypatch.setattr("jaxrnn.report.page.html", lambda flows: "")


def independent(weights, xs, lengths):
    """(median lag under 1 %, mean forget gate) by a plain scan and jax.jacrev alone."""
    leaf = {name: value.astype("float64") for name, value in weights.items()}
    leaf = leaf["weight_ih_l0"], leaf["weight_hh_l0"], leaf["bias_ih_l0"] + leaf["bias_hh_l0"]
    found, forgets = [], []
    for example, n in enumerate(lengths):
        # Before its first step a sequence is padded with steps that move no state: one program.
        inputs = np.zeros((T, D))
        inputs[T - n :] = xs[:n, example]
        jac, f = jacobian_by_step(leaf, inputs, np.arange(T) >= T - n)
        # Root mean square over unit cotangents u of ‖uᵀ ∂h/∂θ|ₖ‖, from the whole Jacobian.
        squares = sum((np.asarray(part) ** 2).sum((0, *range(2, part.ndim))) for part in jac)
        size = np.sqrt(squares)[T - n :]
        under = [k for k in range(n) if size[k] > 0.01 * size[-1]]
        found.append(n - min(under))
        forgets.append(np.asarray(f)[T - n :])
    return sorted(found)[round(0.5 * (len(found) - 1))], np.concatenate(forgets).mean()


@jax.jit
def jacobian_by_step(leaf, inputs, live):
    def step(state, at):
        (w_ih, w_hh, b), x, alive = at
        h, c = state
        i, f, g, o = jnp.split(w_ih @ x + w_hh @ h + b, 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        new = jax.nn.sigmoid(o) * jnp.tanh(c), c
        kept = [jnp.where(alive, a, b) for a, b in zip(new, state, strict=True)]
        return tuple(kept), jax.nn.sigmoid(f)

    def run(each):
        (h, _), f = jax.lax.scan(step, (jnp.zeros(H), jnp.zeros(H)), (each, inputs, live))
        return h, f

    each = [jnp.broadcast_to(part, (T, *part.shape)) for part in leaf]
    return jax.jacrev(run, has_aux=True)(tuple(each))


PLAIN = ("--weights", "m.safetensors", "--data", "xs.npy", "--lengths", "l.npy")
FULLEST = ("--weights", "m.npz", "--data", "first.npy", "--batch-first", "--lengths", "l.npy",
           "--layout", "torch", "--prefix", "net.lstm", "--chunk", "4")  # fmt: skip


@pytest.mark.parametrize("given", [PLAIN, FULLEST])
@short(given=FULLEST)
def test_the_report_has_what_an_independent_computation_finds(given, here, tmp_path, capsys):
    assert run(*given, "--out", "new/report") == 0
    out = capsys.readouterr().out
    assert "lstm, 1 layer direction; 6 examples" in out
    assert "Written to new/report/: report.html, report.json" in out
    (net,) = json.loads((tmp_path / "new/report/report.json").read_text())["nets"].values()
    (layer,) = net["layers"]
    horizon, forget = independent(*here, np.load("l.npy"))
    # Four random cotangents stand for all of them.
    assert abs(layer["horizon_1_percent"]["median"] - horizon) <= 2
    assert layer["gates"]["f"]["mean"] == pytest.approx(forget, rel=0, abs=1e-6)
    assert net["length"]["most"] == T
    page = (tmp_path / "new/report/report.html").read_text()
    assert "<svg" in page


@pytest.mark.parametrize(("file", "layout", "prefix"), [
    ("two.safetensors", None, "enc"), ("m.npz", None, "net.lstm."), ("m.npz", "torch", None),
])  # fmt: skip
def test_what_of_layout_and_prefix_is_not_given_is_guessed(file, layout, prefix, here):
    chosen = Options(layout, prefix, None, None, False, None, 0.5, pathlib.Path("out"))
    model = read_weights(pathlib.Path(file), chosen)
    assert model.layout == "torch"
    np.testing.assert_array_equal(model.params.w_hh, here[0]["weight_hh_l0"])


@pytest.fixture
def rnn():
    """An RNN and one example; of the tests that read them only the first compiles."""
    shapes = {"weight_ih_l0": (H, D), "weight_hh_l0": (H, H),
              "bias_ih_l0": (H,), "bias_hh_l0": (H,)}  # fmt: skip
    normal = np.random.default_rng(1).normal
    safetensors.numpy.save_file(
        {name: normal(size=shape).astype(WIDEST) for name, shape in shapes.items()},
        "rnn.safetensors",
    )
    np.save("example.npy", np.load("one.npy").astype(WIDEST))
    return "--weights", "rnn.safetensors", "--data", "example.npy", "--activation", "relu"


def test_one_example_and_a_folder_by_default(rnn, tmp_path):
    assert run(*rnn) == 0
    assert (tmp_path / "jaxrnn-report" / "report.html").is_file()


@pytest.mark.usefixtures("no_pictures")
def test_an_rnn_takes_the_activation_it_was_trained_with(rnn, tmp_path):
    assert run(*rnn) == 0
    (net,) = json.loads((tmp_path / "jaxrnn-report/report.json").read_text())["nets"].values()
    assert net["cell"] == "rnn[relu]"


REFUSED = {
    "no weights": ("nope.safetensors", "xs.npy", (), "weights: expected a file"),
    "a pickle": ("model.pt", "xs.npy", (), "weights: expected .safetensors or .npz, got model.pt"),
    "an empty file": ("empty.safetensors", "xs.npy", (), "weights: expected weights, got empty"),
    "no array": ("nothing.npz", "xs.npy", (), "weights: expected arrays, got nothing.npz, which"),
    "a file cut off": ("cut.safetensors", "xs.npy", (), "weights: expected safetensors, got cut"),
    "objects": ("objects.npz", "xs.npy", (), "which holds an array of Python objects"),
    "no layout": (
        "m.safetensors", "xs.npy", ("--layout", "pytorch"), "layout: expected one of torch",
    ),
    "another layout": (
        "m.safetensors", "xs.npy", ("--layout", "keras"),
        "recurrent_kernel: expected this leaf in keras weights",
    ),
    "two nets": (
        "two.safetensors", "xs.npy", (),
        "torch under dec; torch under enc; say which with --prefix",
    ),
    "two nets of a layout": (
        "two.safetensors", "xs.npy", ("--layout", "torch"), "'dec', 'enc'; give --prefix",
    ),
    "no net": ("strange.safetensors", "xs.npy", (), "weights: expected the leaves of torch"),
    "no such prefix": (
        "m.npz", "xs.npy", ("--prefix", "a"), "prefix: expected one of those in the file, net.lstm",
    ),
    "a leaf too few": ("missing.safetensors", "xs.npy", (), "bias_hh_l0"),
    "a leaf too many": ("more.safetensors", "xs.npy", (), "weight_hr_l0"),
    "a gate too many": ("odd.safetensors", "xs.npy", (), "weight_hh_l0"),
    "an activation": (
        "m.safetensors", "xs.npy", ("--activation", "gelu"), "activation: expected one of tanh",
    ),
    "an activation of an lstm": (
        "m.safetensors", "xs.npy", ("--activation", "relu"),
        "activation: expected none for torch weights of lstm",
    ),
    "no data": ("m.safetensors", "nope.npy", (), "data: expected a file, got nope.npy"),
    "data of text": ("m.safetensors", "xs.csv", (), "data: expected a .npy file, got xs.csv"),
    "data cut off": ("m.safetensors", "cut.npy", (), "data: expected an array of numbers, got cut"),
    "data of objects": ("m.safetensors", "objects.npy", (), "data: expected an array of numbers"),
    "data too wide": ("m.safetensors", "wide.npy", (), r"data: expected the last axis D = 3"),
    "data in float64": (
        "m.safetensors", "double.npy", (), "data: expected float32 as the weights, got float64",
    ),
    "data of integers": ("m.safetensors", "whole.npy", (), "data: expected float32"),
    "data too flat": ("m.safetensors", "flat.npy", (), r"data: expected (T, B, D) or (T, D)"),
    "data of nothing": ("m.safetensors", "none.npy", (), "xs: expected at least one step"),
    "batch first": ("m.safetensors", "one.npy", ("--batch-first",), "data: expected (B, T, D)"),
    "lengths beyond T": ("m.safetensors", "xs.npy", ("--lengths", "long.npy"), "lengths: expected"),
    "too few lengths": ("m.safetensors", "xs.npy", ("--lengths", "few.npy"), "lengths: expected"),
    "lengths of floats": ("m.safetensors", "xs.npy", ("--lengths", "xs.npy"), "lengths: expected"),
    "a reach of 2": ("m.safetensors", "xs.npy", ("--reach", "2"), "reach: expected"),
    "a chunk of 0": ("m.safetensors", "xs.npy", ("--chunk", "0"), "chunk: expected"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_in_a_line_and_nothing_is_written(case, tmp_path, capsys):
    weights, data, more, words = REFUSED[case]
    before = sorted(tmp_path.rglob("*"))
    assert run("--weights", weights, "--data", data, "--out", "out", *more) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.startswith("jaxrnn: ")
    assert len(captured.err.splitlines()) <= 2
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("no_pictures")
def test_a_folder_that_cannot_be_is_said(tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert run(*FULLEST, "--out", "out/report") == 2
    assert "out: cannot write to out/report" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pictures")
def test_weights_in_float64_want_a_jax_that_keeps_them(rnn, capsys):
    with jax.enable_x64(False):
        assert run(*rnn, "--out", "out") == 2
        assert "float64" in capsys.readouterr().err
    assert run(*rnn, "--out", "out") == 0


@pytest.mark.usefixtures("no_pictures")
def test_the_command_is_the_call(here, tmp_path):
    weights, xs = here
    model = jaxrnn.convert.torch.read(weights)
    flow = jaxrnn.diagnose(model.cell, model.layers, xs, lengths=np.load("l.npy"), chunk=4)
    assert run(*FULLEST, "--out", "out") == 0
    (net,) = json.loads((tmp_path / "out/report.json").read_text())["nets"].values()
    assert net["layers"] == json.loads(json.dumps(plain(flow.summary())["layers"]))


def test_more_examples_than_steps_ask_whether_the_batch_comes_first(here, capsys):
    _, xs = here
    swapped = np.ascontiguousarray(xs.swapaxes(0, 1))
    few, many = sorted((xs, swapped), key=len)
    for name, data in (("few", few), ("many", many)):
        np.save(f"{name}.npy", data)
        arguments = ("--weights", "m.safetensors", "--data", f"{name}.npy", "--lengths", "xs.npy")
        assert run(*arguments, "--out", "out") == 2  # refused after it is read
        told = capsys.readouterr().err
        assert ("add --batch-first" in told) == (name == "few")
