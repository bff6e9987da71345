"""Every test runs in 64-bit mode, with nothing promoted or broadcast in silence."""

import itertools

import jax
import pytest

from tests import short

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_legacy_prng_key", "error")
# Once in many runs a worker waited for good for a slot among what it had dispatched.
jax.config.update("jax_cpu_enable_async_dispatch", False)

# A program that stays compiled stays mapped, and Linux grants a process 65,530 mappings.
KEPT = 100
ended = itertools.count(1)


@pytest.fixture(autouse=True)
def few_programs_stay_compiled():
    yield
    if next(ended) % KEPT == 0:
        jax.clear_caches()


# What these show is text and pictures: their programs need not be fast, and compile in two thirds
# of the time. Numbers are tested in the others, as users run them.
SHOWN = {
    "test_cli.py", "test_cli_diagnose.py", "test_cures.py", "test_demo.py", "test_plot.py",
    "test_report.py",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def what_is_only_shown_compiles_quickly(request):
    shown = request.path.name in SHOWN or request.path.suffix == ".md"
    jax.config.update("jax_disable_most_optimizations", shown)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def pytest_collection_modifyitems(items):
    for item in items:
        if short.is_long(item.nodeid):
            item.add_marker(pytest.mark.long)
