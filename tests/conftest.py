"""Every test runs in 64-bit mode, with nothing promoted or broadcast in silence."""

import itertools

import jax
import pytest
from hypothesis import Phase, settings

from tests import short

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_legacy_prng_key", "error")
# Once in many runs a worker waited for good for a slot among what it had dispatched.
jax.config.update("jax_cpu_enable_async_dispatch", False)

settings.register_profile(
    "short",
    derandomize=True,
    max_examples=8,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.register_profile("long", max_examples=200, deadline=None, print_blob=True)


def pytest_configure(config):
    settings.load_profile("short" if config.option.markexpr == "not long" else "long")


# What these show is text and pictures, that a fault is found or that a transformation goes through:
# their programs need not be fast, and compile in two thirds of the time. Numbers are tested in the
# others, as users run them.
SHOWN = {
    "test_canaries.py", "test_cli.py", "test_cli_diagnose.py", "test_cures.py", "test_demo.py",
    "test_plot.py", "test_report.py", "test_transforms.py",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def what_is_only_shown_compiles_quickly(request):
    jax.config.update("jax_disable_most_optimizations", request.path.name in SHOWN)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


# A program that stays compiled stays mapped, 100 kB a mapping, and Linux grants a process 65,530.
MAPPINGS, EVERY = 12_000, 20
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


def pytest_collection_modifyitems(items):
    for item in items:
        if short.is_long(item.nodeid):
            item.add_marker(pytest.mark.long)
