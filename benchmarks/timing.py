"""One way to time everything: compile apart from run, interleaved rounds, paired ratios.

Each round runs every candidate, in an order drawn anew, and blocks on its whole result.
A candidate's ratio is taken to the reference of the same round, so that a machine that
slows down for a while slows both. Medians with quartiles are reported, never means.
"""

import argparse
import ctypes
import datetime
import json
import os
import pathlib
import platform
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jaxlib
import numpy as np
from tqdm import tqdm

LEAST_ROUNDS = 7


def settle_allocator(pages: str) -> None:
    """Put glibc's allocator in one state for the whole process; elsewhere do nothing.

    By default it moves between two: large results sometimes come on pages that it kept,
    sometimes on pages fresh from the kernel, which cost more than the arithmetic on them.
    `kept` never gives pages back; `fresh` always does, so every result pays for its pages.
    """
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        return
    trim, top_pad, mmap = -1, -2, -3  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD
    most = 2**31 - 1
    limits = {"kept": ((trim, most), (top_pad, 2**30), (mmap, 2**30)), "fresh": ((mmap, 65536),)}
    for option, value in limits[pages]:
        ctypes.CDLL(None).mallopt(option, value)


@dataclass(frozen=True)
class Candidate:
    """A function to time, under a name. It is jitted here, its arguments are never constants.

    `args` are its own, where candidates take different ones. Without `jit`, `f` is called as
    it is, and must return only when its result is there. A `clock` is a function of nothing
    that runs something elsewhere and gives the seconds that it took.
    """

    name: str
    f: Callable[..., Any]
    args: tuple[Any, ...] | None = None
    jit: bool = True
    clock: bool = False


@dataclass(frozen=True)
class Timing:
    """What was measured of one candidate."""

    name: str
    compile_s: float
    median_s: float
    ratio: tuple[float, float, float]  # quartiles of time / time of the reference, paired
    temp_bytes: int | None  # temporaries of the executable, from XLA's own plan; None without one
    output_bytes: int | None


def measure(
    candidates: Sequence[Candidate],
    args: Sequence[Any] = (),
    *,
    reference: str,
    rounds: int,
    untimed: int = 2,
    limit_s: float = float("inf"),
) -> list[Timing]:
    """Time all candidates on the same arguments, or each on its own; ratios are to `reference`.

    At most `rounds` rounds; none is begun after `limit_s`, but at least seven are.
    """
    compiled, compile_s, calls = {}, {}, {}
    clocks = {candidate.name for candidate in candidates if candidate.clock}
    for candidate in candidates:
        given = tuple(args) if candidate.args is None else candidate.args
        start = time.perf_counter()
        if candidate.jit and not candidate.clock:
            compiled[candidate.name] = jax.jit(candidate.f).lower(*given).compile()
        compile_s[candidate.name] = time.perf_counter() - start
        calls[candidate.name] = (compiled.get(candidate.name, candidate.f), given)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    began = time.perf_counter()
    for done in tqdm(range(rounds), leave=False, unit="round", disable=None):
        if done >= LEAST_ROUNDS and time.perf_counter() - began > limit_s:
            break
        order = list(calls)
        random.shuffle(order)
        for name in order:
            f, given = calls[name]
            # Untimed calls first: every program then finds the allocator and the caches
            # as it left them itself, not as its predecessor did.
            for _ in range(untimed):
                jax.block_until_ready(f(*given))
            start = time.perf_counter()
            told = jax.block_until_ready(f(*given))
            took = time.perf_counter() - start
            seconds[name].append(told if name in clocks else took)
    rows = []
    for name in calls:
        pairs = np.array(seconds[name]) / np.array(seconds[reference])
        memory = compiled[name].memory_analysis() if name in compiled else None
        rows.append(
            Timing(
                name=name,
                compile_s=compile_s[name],
                median_s=float(np.median(seconds[name])),
                ratio=tuple(float(q) for q in np.quantile(pairs, [0.25, 0.5, 0.75])),
                temp_bytes=int(memory.temp_size_in_bytes) if memory else None,
                output_bytes=int(memory.output_size_in_bytes) if memory else None,
            )
        )
    return rows


def options(doc: str, seconds: float) -> argparse.ArgumentParser:
    """What every benchmark's command line has."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=seconds, help="for each row")
    parser.add_argument("--quick", action="store_true", help="one small size, few rounds")
    parser.add_argument("--out", type=pathlib.Path, default=None, help="write JSON here")
    return parser


def table(title: str, rows: Sequence[Timing], reference: str) -> str:
    """Rows as text that fits 80 columns."""
    head = f"{title}\n{'':24}{'ms':>9}  {'× ' + reference:<22}{'temp MB':>8}{'compile s':>10}"
    lines = [
        f"{t.name:24}{1e3 * t.median_s:9.2f}  "
        f"{t.ratio[1]:6.2f} [{t.ratio[0]:.2f}, {t.ratio[2]:.2f}]".ljust(57)
        + (f"{'–':>8}" if t.temp_bytes is None else f"{t.temp_bytes / 1e6:8.1f}")
        + f"{t.compile_s:10.2f}"
        for t in rows
    ]
    return "\n".join([head, *lines])


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment() -> dict[str, Any]:
    """Machine, versions and date, so that a figure can be placed."""
    device = jax.devices()[0]
    return {
        "date": datetime.date.today().isoformat(),
        "platform": device.platform,
        "device": device.device_kind,
        "cpu": _cpu_model(),
        "cores": cores(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
    }


def _cpu_model() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "unknown")


def write(
    path: pathlib.Path,
    cases: Sequence[tuple[dict[str, Any], Sequence[Timing]]],
    **more: Any,
) -> None:
    """One JSON file: the environment, to which `more` is added, then every case with its rows."""
    record = {
        "environment": environment() | more,
        "cases": [{"case": case, "rows": [asdict(r) for r in rows]} for case, rows in cases],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
