"""Every claim of `properties.py` for nets, shapes and masks that hypothesis draws.

Each example is a shape, and many nets of that shape in one mapped program.
"""

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from tests.support.nets import asked, check, told_by, truths_of
from tests.support.properties import PROPERTIES
from tests.support.table import ALL


@st.composite
def shapes(draw, names):
    """(name, D, H, T, B, seed, masked)."""
    return (
        draw(st.sampled_from(names)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 5)),
        draw(st.integers(1, 2)),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.booleans()),
    )


# Each shape compiles a program of its own, so the short profile has the same few for all that holds
# of every cell: the oracle says once what they are. What compiles longest meets the GRU alone.
MASKED, WHOLE = (2, 3, 4, 2, 0, True), (3, 2, 3, 1, 1, False)
LONGEST = {
    "contribution norms", "truncation curve", "transport norms", "Frobenius norms",
    "adjoint norms", "tangent norms", "omega",
}  # fmt: skip
SHORT = settings.get_current_profile_name() == "short"


def few(name):
    """The LSTM masked and the GRU whole; in the long profile, or where neither is meant, all."""
    of = PROPERTIES[name]
    if "gru" in of.cells and SHORT:
        return [("gru" if name in LONGEST else "lstm", *MASKED), ("gru", *WHOLE)]
    return [(cell, *MASKED) for cell in of.cells]


@pytest.mark.parametrize("name", PROPERTIES)
def test_it_holds_for_every_net(name):
    of = PROPERTIES[name]

    def holds(shape):
        truths = truths_of(*shape[:-1], of.masked and shape[-1])
        nets = [truth.net for truth in truths]
        check(of, asked(of.call, ALL[shape[0]], nets), told_by(of.truth, truths))

    for shape in few(name):
        holds = example(shape)(holds)
    if SHORT:
        holds = settings(phases=[Phase.explicit])(holds)
    given(shapes(of.cells))(holds)()
