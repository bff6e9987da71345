"""Every public function returns what it returned when `recorded.npz` was written.

How a program is compiled moves the last bits, so equality is that of the numbers but for rounding.
What is allowed is a multiple of eps times a unit, and the unit is what a rounding is relative to:

- the largest entry of the leaf, for states, Jacobians, adjoints and gradients: they are sums of
  products of T steps, and an entry that is small because its terms cancel has their rounding;
- 1, if that is more, for logarithms and for ratios. A log near 0 is that of a number near 1, whose
  relative error is the log's error. A bias, an error of an approximation and a share of a path are
  differences of numbers that have been divided by a norm, and a cosine is a sum of products of unit
  vectors; flossing is a square of such logs;
- σ_max(J) / σ_min(J), for log σ_min(J): singular values are right to eps·σ_max, whichever is asked
  for. A sum of such logs has the sum of their units;
- e^(largest - smallest window), for Lyapunov exponents. Each is the log of an entry of R, right to
  eps times the largest of its matrix, and what is wrong with a frame is in every later window. An
  exponent's error is the scatter of the windows, and has their rounding however small it is.

Integers and booleans, such as horizons and the powers of two of a product, are equal, and so is
the place of whatever is not finite.
"""

import pathlib
import re

import numpy as np
import pytest

from tests.support import recorded
from tests.support.profiles import short

RECORD = recorded.read(pathlib.Path(recorded.__file__).with_name("recorded.npz"))
TIMES = 64  # eps: T steps of sums over H, and their gradients, which go through twice

# By the name of the call and the place of the leaf.
EXPONENT = r"lyapunov\..*|diagnose.*\.exponents\.\w+"
LOWER = r"(certificates|diagnose).*(?<=\.)(step_)?lower"
OF_ORDER_1 = (
    r"products\.\w+_norms.*|truncation\.curve.*|paths\.decompose.*|regularizers\.flossing.*"
    r"|initializers\.scaled_to_exponent.*\.exponent|certificates.*\.(step_upper|upper|product)"
    r"|diagnose.*"
)


def unit(name, place, old):
    """What a rounding of the leaf at `place` is relative to; `old` has all leaves by place."""
    leaf = old[place]
    size = np.abs(leaf[np.isfinite(leaf)]).max(initial=0.0)
    if re.fullmatch(EXPONENT, name + place):
        windows = old[place.rpartition(".")[0] + ".windows"]
        windows = windows[np.isfinite(windows)]
        return max(size, np.exp(np.ptp(windows)))
    if re.fullmatch(LOWER, name + place):
        before = place.rpartition(".")[0]
        most, least = old[before + ".step_upper"], old[before + ".step_lower"]
        alive = np.isfinite(least)  # a log that is -inf is compared by itself
        step = np.exp(np.subtract(most, least, where=alive, out=np.zeros_like(most)))
        later = np.flip(np.cumsum(np.flip(step, 0), 0), 0) - step
        return np.maximum(size, step if place.endswith("step_lower") else later)
    return max(size, 1.0) if re.fullmatch(OF_ORDER_1, name + place) else size


# The short profile calls each function with the LSTM, the one with the most masks, and some with
# the GRU and the bare step. What compiles for seconds is held against the record where it costs
# least, or in the long profile.
FULLEST = {name.rsplit("-", 2)[0]: name for name in recorded.CALLS}
COSTLY = {
    "diagnose last", "diagnose all", "diagnose layers", "diagnose layers outputs",
    "jacobians.wrt_params", "initializers.scaled_to_exponent", "grad of omega", "grad of flossing",
}  # fmt: skip
OTHERS = (
    "jacobians.closed_form-gru", "bptt.temporal_contributions-gru", "products.transport-gru",
    "regularizers.omega_at_fixed_adjoints-step", "truncation.gradient-gru", "unroll-step",
    "jacobians.reverse_mode-step", "bptt.adjoints-step", "products.frobenius_norms-step",
    "lyapunov.exponents-step", "jacobians.wrt_params-rnn-relu",
    "certificates.of_weights-rnn-tanh", "initializers.scaled_to_bound-rnn-tanh",
    "initializers.scaled_to_exponent-gru",
)  # fmt: skip
OF_LSTM = {of for of in FULLEST if of.endswith("-lstm")} - {f"{name}-lstm" for name in COSTLY}
SHORT = {FULLEST[of] for of in (*OF_LSTM, *OTHERS)}


@pytest.mark.parametrize("name", recorded.CALLS)
@short(name=SHORT)
def test_the_numbers_are_those_on_record(name):
    new = recorded.leaves(name)
    old = dict(zip(new, RECORD[name], strict=True))
    for place, was in old.items():
        now = new[place]
        if recorded.CHANGED.fullmatch(name + place):
            continue
        assert now.shape == was.shape, place
        assert now.dtype == was.dtype, place
        if was.dtype.kind != "f":
            np.testing.assert_array_equal(now, was, err_msg=place)
            continue
        finite = np.isfinite(was)
        np.testing.assert_array_equal(now[~finite], was[~finite], err_msg=place)
        by = TIMES * np.finfo(was.dtype).eps * np.broadcast_to(unit(name, place, old), was.shape)
        off = np.abs(now[finite].astype(np.float64) - was[finite])
        assert (off <= by[finite]).all(), f"{place}: off by {off.max():.3g}"


def test_the_record_and_the_calls_are_the_same():
    assert list(RECORD) == list(recorded.CALLS)
