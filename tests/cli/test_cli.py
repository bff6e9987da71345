"""The command `jaxrnn`: exit codes, what it prints, what it writes."""

import functools
import json
import pathlib
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import jaxrnn
from jaxrnn import demo, plot
from jaxrnn.cli import main, raised_here

FIELDS = (  # of a demo's summary
    "test_accuracy",
    "adjoint_h_first_over_last",
    "adjoint_c_first_over_h_last",
    "first_half_share",
    "median_spectral_norm",
    "mean_forget_gate",
    "memory_horizon",
    "leading_exponent",
    "verdict",
)


def run(*arguments):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    return exit_.value.code


@pytest.fixture
def of_one_shape(monkeypatch):
    """What the command says does not depend on how many shapes are verified."""
    monkeypatch.setattr(jaxrnn, "verify", functools.partial(jaxrnn.verify, shapes=((2, 3),)))


@pytest.mark.long  # `.ci/run` runs `jaxrnn verify`
def test_verify_prints_a_line_for_a_cell_and_exits_0(capsys):
    assert run("verify", "rnn[tanh]", "--cases", "8") == 0
    out = capsys.readouterr().out
    assert "rnn[tanh]" in out
    assert "All closed forms verified." in out
    assert "tanh, |z| ≤ 43" in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.usefixtures("of_one_shape")
def test_verify_of_a_cell_by_its_module_says_that_it_passed(capsys):
    assert run("verify", "jaxrnn.cells.reset_first_gru:RESET_FIRST", "--cases", "8") == 0
    out = capsys.readouterr().out
    assert "Verified." in out
    assert "tanh, |z|" not in out


@pytest.mark.long
def test_verify_with_details_prints_the_table(capsys):
    assert run("verify", "rnn[identity]", "--cases", "8", "--details") == 0
    out = capsys.readouterr().out
    assert "state Jacobian   complex step" in out
    assert "rnn[identity]: passed" in out


@pytest.mark.usefixtures("of_one_shape")
def test_verify_exits_1_on_a_planted_wrong_derivative_and_names_it(capsys):
    assert run("verify", "tests.support.planted:wrong_forget_gate", "--cases", "8") == 1
    out = capsys.readouterr().out
    assert "FAILED in gate f: ∂c/∂a" in out
    assert "gate i" not in out
    assert "FAILED: tests.support.planted:wrong_forget_gate" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("verify", "lstmm"), "cell: expected one of"),
        (("verify", "tests.support.planted:nothing"), "has no attribute nothing"),
        (("verify", "no_such_module:cell"), "run it where the module is, or set PYTHONPATH"),
        (("verify", "tests.support.planted:jaxrnn"), "cell: expected a cell such as jaxrnn.lstm()"),
        (
            ("verify", "jaxrnn:lstm"),
            "jaxrnn:lstm: cell: expected a cell such as jaxrnn.lstm(), got a function",
        ),
        (
            ("verify", "jaxrnn:lstm"),
            "did you mean to call it? name a cell, e.g. cell = jaxrnn.lstm() in your module",
        ),
        (("verify", "cells.py:bad"), "got the file name cells.py; write cells:bad\n"),
        (("verify", "./cells.py:bad"), "write cells:bad\n"),
        (("verify", "a/cells.py:bad"), f"write cells:bad in the folder {pathlib.Path('a')}\n"),
        (("verify", "cells.py"), "cell: expected one of"),
        (("verify", ":bad"), "cell: expected one of"),
        (("verify", ".cells:bad"), "cell: expected one of"),
        (("verify", "lstm", "jaxrnn:activations"), "jaxrnn:activations: cell: expected a cell"),
        (("verify", "lstm", "--cases", "0"), "cases: expected an integer of at least 1, got 0"),
        (("verify", "--seed", "-1"), "seed: expected an integer of at least 0, got -1"),
        (("demo", "--seed", "-1"), "seed: expected an integer of at least 0, got -1"),
    ],
)
def test_bad_input_exits_2_with_one_line(arguments, words, capsys):
    assert run(*arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""  # refused before the head of the table
    assert words in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1


def test_what_is_no_function_is_not_asked_to_be_called(capsys):
    assert run("verify", "jaxrnn:activations") == 2
    assert "call it" not in capsys.readouterr().err


def test_an_os_error_of_somebody_elses_module_keeps_its_traceback(tmp_path, monkeypatch):
    (tmp_path / "reads_a_file.py").write_text("cell = open('no such file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        main(("verify", "reads_a_file:cell"))


@pytest.mark.parametrize(
    ("folder", "ours"), [("", True), ("cells", True), ("../jaxrnn_of_mine", False)]
)
def test_only_errors_raised_in_the_package_are_printed_briefly(folder, ours):
    """A package beside ours whose name begins like ours is somebody else's."""
    file = pathlib.Path(jaxrnn.__file__).parent.joinpath(folder).resolve() / "raises.py"
    with pytest.raises(ValueError, match="refused") as caught:
        exec(compile("raise ValueError('refused')", str(file), "exec"))
    assert raised_here(caught.value) is ours


@pytest.mark.parametrize("error", [ValueError, TypeError, ImportError])
def test_what_others_refuse_keeps_its_traceback(error, tmp_path, monkeypatch):
    def fails(seed):
        raise error("somebody else's")

    monkeypatch.setattr(demo, "load_digits", fails)
    with pytest.raises(error, match="somebody else's"):
        main(("demo", "--out", str(tmp_path)))


def test_without_the_extra_of_the_command_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert run("verify") == "jaxrnn: tyro is missing; pip install 'jaxrnn[cli]'"


@pytest.mark.parametrize(("extra", "arguments"), [
    ("demo", ("demo",)),
    ("report", ("diagnose", "--weights", "w.npz", "--data", "xs.npy")),
])  # fmt: skip
def test_without_the_extra_of_a_subcommand_it_says_what_to_install(
    extra, arguments, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(jaxrnn, "report")
    for name in [name for name in sys.modules if name.startswith("jaxrnn.report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert run(*arguments) == 2
    assert capsys.readouterr().err == f"jaxrnn: jinja2 is missing; pip install 'jaxrnn[{extra}]'\n"


@pytest.fixture
def without_training(monkeypatch):
    """A demo with blank pictures, whose writing is all that is left."""
    flow = SimpleNamespace(summary=lambda: dict.fromkeys(FIELDS))
    done = SimpleNamespace(name="none", before=flow, after=flow, steps=np.array([0]))
    monkeypatch.setattr(demo, "load_digits", lambda seed: None)
    monkeypatch.setattr(demo, "run", lambda data, **options: [done])
    for name in ("gradient_flow", "forget_gates"):
        monkeypatch.setattr(plot, name, lambda runs: plot.Figure())


@pytest.mark.usefixtures("without_training")
@pytest.mark.parametrize("file", ["gradient_flow.png", "forget_gates.png", "summary.json"])
def test_demo_that_cannot_write_a_file_says_so_in_one_line(file, tmp_path, capsys):
    (tmp_path / file).mkdir()
    assert run("demo", "--out", str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert f"out: cannot write to {tmp_path}: " in error
    assert file in error
    assert len(error.strip().splitlines()) == 1


def test_demo_refuses_a_folder_that_cannot_be_before_it_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "run", None)
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert run("demo", "--out", str(out)) == 2
        assert f"out: cannot write to {out}: " in capsys.readouterr().err


@pytest.mark.usefixtures("without_training")
@pytest.mark.parametrize("module", ["load_digits", "gradient_flow"])
def test_other_os_errors_of_the_demo_keep_their_traceback(module, tmp_path, monkeypatch):
    def fails(*_):
        raise FileNotFoundError("somebody else's file")

    monkeypatch.setattr(demo if hasattr(demo, module) else plot, module, fails)
    with pytest.raises(FileNotFoundError, match="somebody else's file"):
        main(("demo", "--out", str(tmp_path)))


@pytest.mark.long  # `.ci/run` runs the command of the README
def test_demo_writes_two_pictures_and_a_summary(tmp_path, capsys, monkeypatch):
    """Of small nets; `.ci/run` has those of the README."""
    monkeypatch.setattr(demo, "HIDDEN", 24)
    monkeypatch.setattr(demo, "WATCHED", 8)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix int and float
        assert run("demo", "--quick", "--out", str(tmp_path / "new")) == 0
    out = capsys.readouterr().out
    assert "tanh RNN" in out
    for words in ("horizon, steps to 1 %", "leading exponent, nats", "LSTM, after training: "):
        assert words in out
    assert str(tmp_path / "new") in out
    summary = json.loads((tmp_path / "new" / "summary.json").read_text())
    for name in ("gradient_flow.png", "forget_gates.png"):
        assert (tmp_path / "new" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for network in summary["networks"].values():
        for when in ("before", "after"):
            verdict, *values = [network[when].pop("verdict"), *network[when].values()]
            assert f"{verdict}" in out
            assert verdict in ("vanishing certified", "explosion excluded", "explosion possible",
                               "no certificate")  # fmt: skip
            assert np.all(np.isfinite([v for v in values if v is not None]))
            assert 1 <= network[when]["memory_horizon"] <= 64
    assert (tmp_path / "new" / "report.html").read_text().count("<h2>What is certain") == 2
    nets = json.loads((tmp_path / "new" / "report.json").read_text())["nets"]
    assert list(nets) == ["tanh RNN, trained", "LSTM, trained"]
    for name, net in nets.items():
        after = summary["networks"][name.removesuffix(", trained")]["after"]
        assert net["examples"] == demo.WATCHED
        assert abs(net["layers"][0]["exponents"][0] - after["leading_exponent"]) < 0.2
    rnn, lstm = (summary["networks"][n] for n in ("tanh RNN", "LSTM"))
    assert rnn["before"]["adjoint_h_first_over_last"] < 1e-10  # it vanishes
    assert lstm["before"]["adjoint_h_first_over_last"] > 1e-7  # it does so more slowly
    assert lstm["before"]["memory_horizon"] > rnn["before"]["memory_horizon"]
    assert rnn["before"]["leading_exponent"] < lstm["before"]["leading_exponent"] < 0
    assert lstm["after"]["test_accuracy"] > 0.4
