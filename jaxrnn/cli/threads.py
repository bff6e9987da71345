"""How many threads a matmul of a command takes on a CPU: one."""

import os

import jaxlib

__all__ = ["one_for_a_matmul"]

FLAG = "--xla_cpu_multi_thread_eigen"
KNOWN = ("0.10.", "0.11.", "0.12.")  # XLA ends a process that gives it a flag it has not


def one_for_a_matmul() -> None:
    """Ask XLA for it, unless XLA_FLAGS says how many already; before JAX computes.

    Where matmuls take several threads, about one run in ten of jaxlib 0.10 waits for a program of
    its own for good, every thread idle. Others saw the same, and that this flag ends it:
    PyAutoLabs/PyAutoFit#1528.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if FLAG not in flags and jaxlib.__version__.startswith(KNOWN):
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}=false".strip()
