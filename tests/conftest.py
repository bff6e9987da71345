"""Every test runs in 64-bit mode, with nothing promoted or broadcast in silence."""

import itertools

import jax
import pytest

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
