"""The command `jaxrnn`: exit codes, what it prints, what it writes."""

import json

import jax
import numpy as np
import pytest

from jaxrnn.cli import main


def run(*arguments):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    return exit_.value.code


def test_verify_prints_a_line_for_a_cell_and_exits_0(capsys):
    assert run("verify", "rnn[tanh]", "--cases", "8") == 0
    out = capsys.readouterr().out
    assert "rnn[tanh]" in out
    assert "All closed forms verified." in out
    assert "tanh, |z| ≤ 43" in out
    assert max(map(len, out.splitlines())) <= 100


def test_verify_with_details_prints_the_table(capsys):
    assert run("verify", "rnn[identity]", "--cases", "8", "--details") == 0
    out = capsys.readouterr().out
    assert "state Jacobian   complex step" in out
    assert "rnn[identity]: passed" in out


def test_verify_exits_1_on_a_planted_wrong_derivative_and_names_it(capsys):
    assert run("verify", "tests.planted:wrong_forget_gate", "--cases", "8") == 1
    out = capsys.readouterr().out
    assert "FAILED in gate f: ∂c/∂a" in out
    assert "gate i" not in out
    assert "FAILED: tests.planted:wrong_forget_gate" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("verify", "lstmm"), "cell: expected one of"),
        (("verify", "tests.planted:nothing"), "has no attribute nothing"),
        (("verify", "no_such_module:cell"), "no_such_module"),
        (("verify", "tests.planted:jaxrnn"), "cell: expected a cell such as jaxrnn.lstm()"),
        (("verify", "lstm", "--cases", "0"), "cases: expected an integer of at least 1, got 0"),
    ],
)
def test_bad_input_exits_2_with_one_line(arguments, words, capsys):
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1


def test_demo_writes_two_pictures_and_a_summary(tmp_path, capsys):
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix int and float
        assert run("demo", "--quick", "--out", str(tmp_path / "new")) == 0
    out = capsys.readouterr().out
    assert "tanh RNN" in out
    assert str(tmp_path / "new") in out
    summary = json.loads((tmp_path / "new" / "summary.json").read_text())
    for name in ("gradient_flow.png", "forget_gates.png"):
        assert (tmp_path / "new" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for network in summary["networks"].values():
        for when in ("before", "after"):
            values = [v for v in network[when].values() if v is not None]
            assert np.all(np.isfinite(values))
    rnn, lstm = (summary["networks"][n] for n in ("tanh RNN", "LSTM"))
    assert rnn["before"]["adjoint_h_first_over_last"] < 1e-10  # it vanishes
    assert lstm["before"]["adjoint_h_first_over_last"] > 1e-7  # it does so more slowly
    assert lstm["after"]["test_accuracy"] > 0.4
