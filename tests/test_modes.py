"""The modes name tests that there are, and in 32 bits no tolerance lets all pass."""

import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import modes

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("mode", modes.LEFT_OUT)
def test_what_a_mode_leaves_out_is_a_test(mode):
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for words in modes.LEFT_OUT[mode]:
        if words.startswith("docs/"):
            assert (ROOT / words).exists()
        elif found := re.search(r"test_\w+(?=\[|$)", words):
            assert f"def {found[0]}" in sources


def test_a_tolerance_is_as_many_eps_in_32_bits_and_never_lets_all_pass(monkeypatch):
    assert modes.tol(1e-6) == 1e-6
    monkeypatch.setattr(modes, "WIDEST", jnp.dtype("float64"))
    assert modes.tol(1e-12) == 1e-12
    monkeypatch.setattr(modes, "WIDEST", jnp.dtype("float32"))
    assert modes.tol(2.0**-52) == 2.0**-23
    assert modes.tol(1e-10) == 1e-3
    assert modes.tol(0.0) == 0
    close = modes.by_eps_of_widest(np.testing.assert_allclose)
    close(1.0 + 1e-6, 1.0, rtol=1e-14)
    close([1e-8, 1.0 + 1e-6], [0.0, 1.0], rtol=0, atol=1e-14)
    for wrong, right in ((1e-8, 1.1e-8), ([1e-8, 2e-11], [1.1e-8, 0.0])):
        with pytest.raises(AssertionError):
            close(wrong, right, rtol=0, atol=1e-12)
