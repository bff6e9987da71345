"""A wrong closed form is found: planted faults that `verify` and every property must reject."""

import functools

import jax
import numpy as np
import pytest

import jaxrnn
from tests.support import planted
from tests.support.nets import asked, check, nets_of, told
from tests.support.profiles import short
from tests.support.properties import PROPERTIES
from tests.support.table import CELLS

SHAPE = {"D": 2, "H": 3, "T": 4, "B": 2, "seed": 0}

# --- results ----------------------------------------------------------------------------


def half(leaf):
    return 0.5 * leaf


def one_entry(leaf):
    """The largest entry of each net 0.1 % off."""
    leaf = np.array(leaf)
    rows = leaf.reshape(len(leaf), -1)
    at = np.abs(rows).argmax(1)
    rows[np.arange(len(rows)), at] *= 1.001
    return leaf


def transposed(leaf):
    return np.swapaxes(leaf, -1, -2)


def one_step_late(leaf):
    return np.roll(leaf, 1, axis=1)


SQUARE = ("state Jacobian", "transport", "cell-state transport")
ALONG_TIME = (
    "state Jacobian", "input Jacobian", "param Jacobian", "adjoints", "temporal contributions",
    "transport norms", "Frobenius norms", "adjoint norms", "tangent norms", "truncation curve",
    "bounds along a trajectory",
)  # fmt: skip
RESULTS = [(name, fault) for name in PROPERTIES for fault in (half, one_entry)]
RESULTS += [(name, transposed) for name in SQUARE]
RESULTS += [(name, one_step_late) for name in ALONG_TIME]


@functools.cache
def right(name):
    """A property's nets, the library's answer and the oracle's; of the LSTM where it may be."""
    of = PROPERTIES[name]
    cell = "lstm" if "lstm" in of.cells else of.cells[0]
    nets = nets_of(cell, **SHAPE)
    got = jax.tree.map(np.asarray, asked(of.call, CELLS[cell], nets))
    return nets, got, told(of.truth, nets)


@pytest.mark.parametrize(("name", "fault"), RESULTS, ids=lambda x: getattr(x, "__name__", x))
def test_a_wrong_result_is_rejected(name, fault):
    of, (_, got, want) = PROPERTIES[name], right(name)
    check(of, got, want)
    leaves, tree = jax.tree.flatten(got)
    for k in range(len(leaves)):  # each part of a result by itself
        spoilt = [fault(leaf) if j == k else leaf for j, leaf in enumerate(leaves)]
        with pytest.raises(AssertionError):
            check(of, jax.tree.unflatten(tree, spoilt), want)


# --- cells ------------------------------------------------------------------------------

FAULTS = {
    "kf 50 % off": planted.scaled(planted.lstm, "kf"),
    "one unit 1 % off": planted.one_unit(planted.lstm, "kg"),
    "i and g swapped": planted.swapped(planted.lstm, "ki", "kg"),
    "no output feedback": planted.with_merge(
        planted.lstm, planted.no_output_feedback, "no-feedback"
    ),
}
# The bounds of a one-gate cell are those of its weights; an input Jacobian has no feedback.
SEES = [(name, fault) for name in PROPERTIES if "lstm" in PROPERTIES[name].cells for fault in FAULTS
        if (name, fault) != ("input Jacobian", "no output feedback")]  # fmt: skip


@pytest.mark.parametrize(("name", "fault"), SEES)
@short(
    fault="no output feedback",
    name={
        "tangent of unroll",
        "param Jacobian",
        "contribution norms",
        "truncation curve",
        "transport norms",
        "Frobenius norms",
        "cell-state transport",
        "omega",
    },
)
@short(name="state Jacobian")
@short(name="gradient of unroll", fault={"one unit 1 % off", "no output feedback"})
def test_a_wrong_tangent_is_seen_by_every_property(name, fault):
    of, (nets, _, want) = PROPERTIES[name], right(name)
    with pytest.raises(AssertionError):
        check(of, asked(of.call, FAULTS[fault], nets), want)


BY_METHOD = {"state_jacobian": "state Jacobian", "input_jacobian": "input Jacobian",
             "param_jacobian": "param Jacobian"}  # fmt: skip


@pytest.mark.parametrize("fault", planted.SPOILT)
@short(fault={
    "state_jacobian: one entry 0.1 % off", "state_jacobian: transposed",
    "state_jacobian: one step late", "state_jacobian: no output feedback",
    "input_jacobian: 50 % off", "input_jacobian: gates swapped",
    "param_jacobian: one entry 0.1 % off", "param_jacobian: bias dropped",
})  # fmt: skip
def test_a_wrong_jacobian_is_rejected(fault):
    of = BY_METHOD[fault.split(":")[0]]
    nets, _, want = right(of)
    with pytest.raises(AssertionError):
        check(PROPERTIES[of], asked(PROPERTIES[of].call, planted.SPOILT[fault], nets), want)


GRADIENTS = ("gradient of unroll", "temporal contributions", "truncated gradient")


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("fault", planted.TANGENTS | {"drive: one step late": None})
@short(name="gradient of unroll", fault={
    "drive: W_ih dropped", "drive: GRU's inner bias dropped", "push: transposed",
    "push: one entry 0.1 % off"})  # fmt: skip
@short(name="temporal contributions", fault={"drive: bias dropped", "drive: one step late"})
def test_a_wrong_tangent_scan_is_rejected(name, fault):
    of = PROPERTIES[name]
    late = planted.with_method(planted.lstm, "drive", planted.late_drive, "late")
    cell = planted.TANGENTS.get(fault, late)
    kind = cell.name.split("-")[0]
    nets = nets_of(kind, **SHAPE)
    with pytest.raises(AssertionError):
        check(of, asked(of.call, cell, nets), told(of.truth, nets))


# --- verify -----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", planted.SPOILT | planted.TANGENTS)
@short(fault="state_jacobian: transposed")
def test_verify_rejects_it(fault):
    cell = (planted.SPOILT | planted.TANGENTS)[fault]
    report = jaxrnn.verify(cell, shapes=((2, 3),), scales=(1.0,), cases=16)
    assert not report.passed
    families = {check.family for check in report.failures}
    if fault in planted.SPOILT:
        want = {m: f for m, f in BY_METHOD.items()}[fault.split(":")[0]]
        assert want in families
    else:
        assert "tangent" in families or "adjoint identity" in families
