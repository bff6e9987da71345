"""Every test runs in 64-bit mode, with nothing promoted or broadcast in silence."""

import builtins

import jax
import pytest

from tests.support import modes, profiles, xla
from tests.support.xla import few_programs_stay_compiled  # noqa: F401  a fixture of every test

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_legacy_prng_key", "error")


def pytest_configure(config):
    xla.keep_to_a_core()
    profiles.configure(config)
    modes.configure(config)


@pytest.fixture(autouse=True)
def nothing_was_shown_before():
    """A doctest leaves in `builtins` what it showed last, and the import of tyro hashes it."""
    vars(builtins).pop("_", None)


def pytest_collection_modifyitems(config, items):
    profiles.mark_long_cases(config, items)
    for item in items:
        for reason in modes.reasons(item.nodeid):
            item.add_marker(pytest.mark.skip(reason=reason))
