"""A command in which no thread works for a minute says so, and begins again once.

Some releases of jaxlib can hang on a CPU: they wait for a program of their own for good, every
thread asleep (docs/performance.md). A process that compiles or computes for minutes is no hang. The
CPU time of the process, over all its threads, tells the two apart; where other programs leave it no
core, the state of its threads does. The watchdog reads both every few seconds and counts the
readings, not the seconds: a suspended process makes none.

The watchdog is a thread. It replaces the process by a fresh one of the same command, with the same
process number and in the same terminal. Whoever waits for the command sees one process and its exit
code.

Two other ways were not taken. A parent that watches a child would need each system's own way to
read the CPU time of another process. It would also see a hang that keeps Python's lock (GIL), in
which this thread cannot run; such a command hangs as it would without a watchdog. XLA gives the
lock back while it waits. The timer of faulthandler needs no lock, but it goes by the clock, and
would take a suspended process for a hang.
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
    """Watch the block.

    Args:
      limit: After how many seconds without work the process is replaced.
      period: How many seconds lie between two readings of the CPU time.
      excused: Asked once no thread has worked for `limit`. True says that this is no hang.
    """
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
    ready = collections.deque([False], maxlen=readings + 1)
    while not ended.wait(period):
        _flush()
        used.append(time.process_time())
        ready.append(_another_is_ready())
        # Only a full deque spans `limit`.
        idle = len(used) > readings and used[-1] - used[0] < LEAST_WORK * limit and not any(ready)
        # `excused` may take its time, in which the block may end.
        if idle and not excused() and not ended.is_set():
            _stop(limit)


def _another_is_ready() -> bool:
    """Whether a thread but this one would run if it had a core (R) or a disk answered it (D).

    Beside other programs, or at a low priority, a process may be given less of a core than
    `LEAST_WORK` although it computes all the time. Only Linux tells the states of threads.
    """
    own = str(threading.get_native_id())
    for task in pathlib.Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):  # the thread has ended
            # The second field is a name in brackets, which may hold anything.
            state = (task / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            if task.name != own and state in ("R", "D"):
                return True
    return False


def _flush() -> None:
    """Hand over what was printed, which a fresh process would lose.

    If nobody reads the output, the block waits for its reader, and so does this: no reading is
    taken meanwhile, and it does not count as a hang.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # no stream, or a closed one
            stream.flush()


def _stop(limit: float) -> None:
    """Report the hang, then begin again or give up. Never returns."""
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
    os._exit(GAVE_UP)  # sys.exit would end this thread alone, and the others hang


def _say(words: str) -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        bar = "\n" * sys.stderr.isatty()  # a progress bar may be on this line
        sys.stderr.write(f"{bar}jaxrnn: {words}\n")
        sys.stderr.flush()


def _begin_again() -> None:
    """Run the command of this process in a fresh one. It raises OSError or does not return."""
    command = [sys.executable, *sys.orig_argv[1:]]  # with its -m or -c, which sys.argv lacks
    environment = os.environ | {SECOND_TRY: "1"}
    # On Windows exec ends this process, and whoever waits for it would not wait for the fresh one.
    if os.name == "nt":
        os._exit(min(subprocess.run(command, env=environment).returncode, 255))
    os.execve(sys.executable, command, environment)


def _write_stacks() -> str:
    """Write the stack of each thread into a new file; return the name of the file."""
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
    """Name, state and wait of every thread, as Linux tells them; nothing on other systems."""
    # Python knows no stacks of XLA's threads, which are those that hang.
    for task in sorted(pathlib.Path("/proc/self/task").glob("*")):
        for name in ("stat", "wchan"):  # `stat` has the name of the thread, too
            with contextlib.suppress(OSError):  # the thread has ended
                yield f"{task.name} {name}: {(task / name).read_text(errors='replace').strip()}"
