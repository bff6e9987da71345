"""A command in which no thread works: what is said and written, and that it begins again once.

Nearly all cases are small programs of their own, which end by the watchdog or by themselves.
"""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import pytest

from jaxrnn import cli
from jaxrnn.cli import watchdog

# It loads the module by its file: `jaxrnn.cli` would import JAX each time.
BEGINNING = f"""
import importlib.util, os, sys, threading, time
spec = importlib.util.spec_from_file_location("watchdog", {watchdog.__file__!r})
watchdog = importlib.util.module_from_spec(spec)
spec.loader.exec_module(watchdog)
second = watchdog.SECOND_TRY in os.environ

def stand_still():
    threading.Event().wait()

def work(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass

print("begins", *sys.argv[1:])
"""
STOPPED = r"jaxrnn: no thread has worked for 0\.3 s; the stacks are in (.*)\. " \
          r"Please report them\. Beginning again in a fresh process\.\n"  # fmt: skip
STOPPED_AGAIN = r"jaxrnn: no thread has worked for 0\.3 s a second time; the stacks are in " \
                r"(.*)\. Giving up\.\n"  # fmt: skip


@pytest.fixture
def begin(tmp_path):
    """Begin a program; its stacks go to `tmp_path / "stacks"`."""
    folder = tmp_path / "stacks"
    folder.mkdir()
    unset = {watchdog.SECOND_TRY, "PYTHONUNBUFFERED"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    began = []

    def begin(body):
        script = tmp_path / "script.py"
        script.write_text(BEGINNING + body)
        process = subprocess.Popen(
            [sys.executable, str(script), "--seed", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        began.append(process)
        return process

    yield begin
    for process in began:
        process.kill()
        process.communicate()


@pytest.fixture
def outcome(begin):
    """Exit code, output and errors of a program."""

    def outcome(body):
        process = begin(body)
        out, error = process.communicate(timeout=60)
        return process.returncode, out, error

    return outcome


def undisturbed(outcome, tmp_path):
    code, out, error = outcome
    return (code, out.count("begins"), error, os.listdir(tmp_path / "stacks")) == (0, 1, "", [])


def test_what_stands_still_once_is_run_again_with_its_arguments(outcome):
    code, out, error = outcome("""
with watchdog.watching(0.3, 0.05):
    if not second:
        stand_still()
    sys.exit(5)
""")
    assert code == 5
    assert out == "begins --seed 1\n" * 2  # what was printed before is not lost
    path = re.fullmatch(STOPPED, error)[1]
    stacks = pathlib.Path(path).read_text()
    assert "in stand_still" in stacks
    assert sys.version in stacks
    assert f"jax {jax.__version__}\n" in stacks
    if sys.platform == "linux":
        states = re.findall(r"^(\d+) stat: \1 \(.*\) [A-Z] ", stacks, re.MULTILINE)
        assert len(states) == 2  # the main thread and the watchdog's


def test_what_stands_still_twice_exits_3_and_names_two_files(outcome, tmp_path):
    code, out, error = outcome("with watchdog.watching(0.3, 0.05): stand_still()")
    assert code == watchdog.GAVE_UP == 3
    assert out.count("begins") == 2
    files = set(re.fullmatch(STOPPED + STOPPED_AGAIN, error).groups())
    assert files == {str(path) for path in (tmp_path / "stacks").iterdir()}
    assert len(files) == 2
    assert all("in stand_still" in pathlib.Path(file).read_text() for file in files)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the states of threads")
def test_who_is_given_no_core_is_not_taken_for_standing_still(outcome, tmp_path):
    """Beside others at a higher priority the CPU time hardly grows, though a thread is ready."""
    assert undisturbed(
        outcome("""
class NoCore:
    process_time = staticmethod(lambda: 1.0)

watchdog.time = NoCore
with watchdog.watching(0.3, 0.05):
    work(1.5)
"""),
        tmp_path,
    )


def test_where_no_file_can_be_written_it_says_so_and_goes_on(outcome):
    code, _, error = outcome("""
def full(*_, **__):
    raise OSError("no space")

watchdog.tempfile.NamedTemporaryFile = full
with watchdog.watching(0.3, 0.05):
    if not second:
        stand_still()
""")
    assert code == 0
    assert "the stacks could not be written: no space. Please report them. Beginning" in error


def test_where_it_cannot_begin_again_it_says_so_and_gives_up(outcome):
    code, _, error = outcome("""
sys.executable = os.path.join(os.getcwd(), "no such python")
with watchdog.watching(0.3, 0.05):
    stand_still()
""")
    assert code == 3
    assert error.count("\n") == 2
    assert re.search(r"jaxrnn: cannot begin again: .*no such python.* Giving up\.\n$", error)


UNDISTURBED = {
    "works": "with watchdog.watching(0.4, 0.05): work(0.8)",
    "a thread works": """
threading.Thread(target=work, args=[60], daemon=True).start()
with watchdog.watching(0.4, 0.05):
    time.sleep(0.8)
""",
    "works now and then": """
with watchdog.watching(0.7, 0.05):
    for _ in range(5):
        time.sleep(0.15)
        work(0.05)
""",
    "ended": """
with watchdog.watching(0.3, 0.05):
    pass
try:
    with watchdog.watching(0.3, 0.05):
        raise ValueError
except ValueError:
    assert threading.active_count() == 1
time.sleep(0.4)
""",
    "excused": "with watchdog.watching(0.2, 0.05, excused=lambda: True): time.sleep(0.5)",
}


@pytest.mark.parametrize("body", UNDISTURBED.values(), ids=UNDISTURBED)
def test_what_works_or_has_ended_is_not_disturbed(body, outcome, tmp_path):
    assert undisturbed(outcome(body), tmp_path)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="a system without SIGSTOP")
def test_a_suspended_process_does_not_stand_still(begin, tmp_path):
    process = begin("""
with watchdog.watching(1, 0.1):
    print("ready", flush=True)
    time.sleep(0.2)
    time.sleep(0.2)  # after it was suspended, too few readings
""")
    assert [process.stdout.readline() for _ in range(2)][1] == "ready\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.2)
    process.send_signal(signal.SIGCONT)
    _, error = process.communicate(timeout=60)
    assert undisturbed((process.returncode, "begins", error), tmp_path)


def test_a_process_whose_output_nobody_reads_does_not_stand_still(begin, tmp_path):
    process = begin("""
with watchdog.watching(0.4, 0.05):
    print("x" * 1_000_000)  # more than a pipe holds
""")
    time.sleep(0.8)
    out, error = process.communicate(timeout=60)
    assert len(out) > 1_000_000
    assert undisturbed((process.returncode, out, error), tmp_path)


def test_a_command_runs_on_where_streams_are_missing_or_closed(outcome):
    code, out, _ = outcome("""
sys.stdout.flush()
sys.stdout, sys.stderr = None, open(os.devnull, "w")
sys.stderr.close()
with watchdog.watching(0.3, 0.05):
    if not second:
        stand_still()
""")
    assert (code, out) == (0, "begins --seed 1\n" * 2)


COMMANDS = {
    "verify": (),
    "demo": (),
    "diagnose": ("--weights", "w.npz", "--data", "xs.npy"),
    "bench": (),
}


@pytest.fixture
def events(monkeypatch):
    """What happens in `main`: commands that only say that they ran, and a recording watchdog."""
    seen = []

    @contextlib.contextmanager
    def watching(**options):
        assert options == {"excused": cli.computes_elsewhere}
        seen.append("watched")
        yield
        seen.append("ended")

    monkeypatch.setattr(watchdog, "watching", watching)
    for name in COMMANDS:
        monkeypatch.setattr(cli, f"{name}_command", lambda *_, name=name: seen.append(name) or 0)
    return seen


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_but_bench_are_watched(command, events, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["jaxrnn", command, *COMMANDS[command]])
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main()
    assert events == ([command] if command == "bench" else ["watched", command, "ended"])


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_program_calls_is_not_watched(command, events):
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main([command, *COMMANDS[command]])
    assert events == [command]


@pytest.mark.parametrize(("backend", "elsewhere"), [("cpu", False), ("gpu", True), ("tpu", True)])
def test_a_process_may_wait_for_an_accelerator(backend, elsewhere, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert cli.computes_elsewhere() is elsewhere


def test_what_is_called_a_minute_is_one():
    assert (watchdog.LIMIT, watchdog.PERIOD, watchdog.LEAST_WORK * watchdog.LIMIT) == (60, 5, 1)
