"""`jaxrnn bench`: which benchmarks it knows, what it writes, what it refuses."""

import json
import pathlib

import pytest

from jaxrnn.cli import main
from jaxrnn.cli.bench import BENCHMARKS

ROOT = pathlib.Path(__file__).parents[2]
NOT_TIMED = {"real_nets", "timing", "peers", "torch_process", "render", "pictures"}


def code(*argv):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    return ended.value.code


def test_every_benchmark_has_a_name():
    modules = {path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py")} - NOT_TIMED
    assert modules == {run[0] for runs in BENCHMARKS.values() for run in runs}


def test_a_quick_run_writes_its_json(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(ROOT)
    given = ("bench", "clipping", "--quick", "--platform", "cpu", "--out", str(tmp_path))
    assert code(*given) == 0
    assert "1 of 1" in capfd.readouterr().out
    record = json.loads((tmp_path / "clipping_cpu.json").read_text())
    assert record["environment"]["platform"] == "cpu"
    assert [row["name"] for row in record["cases"][0]["rows"]] == ["optax", "jaxrnn", "one pass"]


def test_what_fails_is_named(tmp_path, monkeypatch, capfd):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name in ("__init__", "timing"):
        (folder / f"{name}.py").write_text("")
    (folder / "clipping.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert code("bench", "clipping") == 1
    assert "FAILED: clipping" in capfd.readouterr().out


@pytest.mark.parametrize(("argv", "told"), [
    (("bench", "nonsense"), "names: expected some of stack, bptt"),
    (("bench", "bptt"), "expected to be run in a clone"),
])  # fmt: skip
def test_what_cannot_be_run_is_refused(argv, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert code(*argv) == 2
    assert told in capsys.readouterr().err
