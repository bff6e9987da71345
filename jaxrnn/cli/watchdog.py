"""A command in which no thread works for a minute says so, and begins again once.

Some releases of jaxlib can wait for a program of their own for good on a CPU, every thread asleep.
What tells that from compiling or computing for minutes is the CPU time of the process, of all its
threads. It is read every few seconds, and readings are counted: a suspended process makes none.

The watchdog is a thread. It replaces the process by a fresh one of the same command, with the same
number and in the same terminal: whoever waits for the command sees one process and its exit code.
A parent that watches a child would need each system's own way to read another process's CPU time.
It would also see a wait that keeps Python's lock (GIL), in which this thread cannot run: such a
command stands as it would without a watchdog. XLA gives the lock back while it waits. faulthandler
has a timer that needs no lock, but it goes by the clock, and would take a suspended process for one
that stands still.
"""

import collections
import contextlib
import faulthandler
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from importlib import metadata

__all__ = ["GAVE_UP", "LIMIT", "PERIOD", "SECOND_TRY", "watching"]

# Seconds without work, seconds between readings, and the share of one core under which a process
# has not worked: hangs that last, or waits that are taken for one. The readings alone use 1e-5 of a
# core (3980967, 2026-11-30); docs/decisions/watchdog.md
LIMIT = 60.0
PERIOD = 5.0
LEAST_WORK = 1 / 60
SECOND_TRY = "JAXRNN_SECOND_TRY"  # the variable by which a process knows that it is the second
GAVE_UP = 3  # the exit code


@contextlib.contextmanager
def watching(
    limit: float = LIMIT, period: float = PERIOD, excused: Callable[[], bool] = lambda: False
) -> Generator[None, None, None]:
    """Watch the block. Once no thread works, `excused` is asked whether that is as it should be."""
    ended = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(ended, limit, period, excused), name="watchdog", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(
    ended: threading.Event, limit: float, period: float, excused: Callable[[], bool]
) -> None:
    """Read the CPU time until the block has ended or its threads have not worked for `limit`."""
    readings = max(1, round(limit / period))
    used = collections.deque([time.process_time()], maxlen=readings + 1)
    while not ended.wait(period):
        _flush()
        used.append(time.process_time())
        idle = len(used) > readings and used[-1] - used[0] < LEAST_WORK * limit
        if idle and not excused() and not ended.is_set():
            _stop(limit)


def _flush() -> None:
    """Hand over what was printed.

    Where output is buffered this waits as long as a reader lets the block wait: that is no hang.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # none, or closed
            stream.flush()


def _stop(limit: float) -> None:
    """Say what is, then begin again or give up. Never returns."""
    second = SECOND_TRY in os.environ
    try:
        stacks = f"the stacks are in {_write_stacks()}."
    except OSError as error:
        stacks = f"the stacks could not be written: {error}."
    again = " a second time" * second
    then = "Giving up." if second else "Please report them. Beginning again in a fresh process."
    _say(f"no thread has worked for {limit:g} s{again}; {stacks} {then}")
    if not second:
        try:
            _begin_again()
        except OSError as error:
            _say(f"cannot begin again: {error}. Giving up.")
    os._exit(GAVE_UP)  # sys.exit would end this thread alone


def _say(words: str) -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        bar = "\n" * sys.stderr.isatty()  # a progress bar may stand on the line
        sys.stderr.write(f"{bar}jaxrnn: {words}\n")
        sys.stderr.flush()


def _begin_again() -> None:
    """Run the command of this process in a fresh one. It raises OSError or does not return."""
    command = [sys.executable, *sys.orig_argv[1:]]  # with its -m or -c, which sys.argv has not
    environment = os.environ | {SECOND_TRY: "1"}
    if os.name == "nt":  # whoever waits for this process would there not wait for the fresh one
        os._exit(min(subprocess.run(command, env=environment).returncode, 255))
    os.execve(sys.executable, command, environment)


def _write_stacks() -> str:
    """Write what each thread does into a new file, whose name is returned."""
    with tempfile.NamedTemporaryFile(
        "w", prefix=f"jaxrnn-stacks-{os.getpid()}-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        print(f"Python {sys.version} on {sys.platform}", *_versions(), sep="\n", file=file)
        print("\nThreads of Python:\n", file=file, flush=True)  # faulthandler writes past `file`
        faulthandler.dump_traceback(file)
        print("\nThreads of the system: number, stat, where it waits\n", file=file)
        print(*_system_threads(), sep="\n", file=file)
    return file.name


def _versions() -> Iterator[str]:
    for name in ("jaxrnn", "jax", "jaxlib"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield f"{name} {metadata.version(name)}"


def _system_threads() -> Iterator[str]:
    """Name, state and wait of every thread, XLA's too, as Linux tells them; nothing elsewhere."""
    for task in sorted(pathlib.Path("/proc/self/task").glob("*")):
        for name in ("stat", "wchan"):  # `stat` holds what `comm` does
            with contextlib.suppress(OSError):  # the thread has ended, or the system is no Linux
                yield f"{task.name} {name}: {(task / name).read_text(errors='replace').strip()}"
