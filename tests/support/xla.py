"""What the tests do because of how XLA runs programs on a CPU, and for no other reason."""

import itertools
import os

import jax
import pytest


def keep_to_a_core():
    """Of as many workers as there are cores each has its own: XLA then starts no more threads than
    run, and none waits for one that another worker keeps from running. NumPy's BLAS counts cores
    when it is imported, which is before: what is said here the workers inherit."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if worker is None or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if int(os.environ["PYTEST_XDIST_WORKER_COUNT"]) >= len(cores):
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


# A program that stays compiled stays mapped, 100 kB a mapping, and Linux grants a process 65,530.
MAPPINGS, EVERY = 24_000, 20
ended = itertools.count(1)


@pytest.fixture(autouse=True)
def few_programs_stay_compiled():
    yield
    if next(ended) % EVERY == 0 and mappings() > MAPPINGS:
        jax.clear_caches()


def mappings():
    try:
        with open("/proc/self/maps", "rb") as maps:
            return sum(1 for _ in maps)
    except OSError:  # no Linux
        return 0
