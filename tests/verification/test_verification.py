"""`verify` accepts what is right, and finds and locates what is wrong."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import verification
from jaxrnn.verification.judgement import DrawnCases, judge
from jaxrnn.verification.pair import Pair
from jaxrnn.verification.reference import complex_step, differences, is_analytic, jacobian
from tests.support import planted
from tests.support.profiles import short
from tests.support.table import CELLS

QUICK = {"shapes": ((2, 3),), "cases": 16}


@functools.cache
def quick_report(cell):
    """One for the tests that ask it different things."""
    return jaxrnn.verify(cell, **QUICK)


@pytest.mark.parametrize("name", CELLS)
@short(name="rnn-relu")
def test_our_cells_pass(name):
    report = jaxrnn.verify(CELLS[name])
    assert report.passed, str(report)
    assert report.cases == len(verification.SHAPES) * len(verification.SCALES) * 32
    assert {c.reference for c in report.checks} >= {"complex step", "jacfwd", "jacrev", "float64"}


@pytest.mark.parametrize("fault", planted.FAULTS)
@short(fault={"lstm kf 50 % off", "gru reset before the matmul", "peephole p_f 50 % off"})
def test_planted_fault_is_found_and_located(fault):
    cell, named, not_named = planted.FAULTS[fault]
    report = quick_report(cell)
    assert not report.passed
    for words in named:
        assert words in report.located
    for words in not_named:
        assert words not in report.located
    assert "FAILED in" in str(report)


@pytest.mark.parametrize("wrong", [planted.transposed, planted.one_step_late])
def test_hand_written_jacobian_of_a_bare_step_is_checked(wrong):
    report = jaxrnn.verify(planted.by_hand(wrong), **QUICK)
    assert {c.family for c in report.failures} == {"state Jacobian", "float32 Jacobian"}, str(
        report
    )
    assert "∂h/∂h₋" in report.located


def test_hand_written_jacobian_with_another_tree_or_shape_is_refused():
    with pytest.raises(TypeError, match="jacobian's result: expected the tree of"):
        jaxrnn.verify(planted.by_hand(lambda p, s, x: planted.right(p, s, x).h.h), **QUICK)
    thin = planted.by_hand(
        lambda p, s, x: jax.tree.map(lambda leaf: leaf[0], planted.right(p, s, x))
    )
    with pytest.raises(ValueError, match=r"jacobian's result.*expected float64"):
        jaxrnn.verify(thin, **QUICK)


def test_right_jacobian_of_a_bare_step_passes():
    report = jaxrnn.verify(planted.by_hand(planted.right), **QUICK)
    assert report.passed, str(report)


@pytest.mark.parametrize("step", [planted.careless_step, planted.detached_step])
def test_wrong_rule_inside_a_bare_step_is_found_by_numbers_alone(step):
    """Both modes of autodiff follow the wrong rule, and agree."""
    report = jaxrnn.verify(planted.bare(step), **QUICK)
    assert not report.passed
    assert {c.reference for c in report.failures} <= {"differences", "complex step", "float64"}


def test_worst_case_can_be_drawn_again():
    report = quick_report(planted.wrong_forget_gate)
    check = next(c for c in report.failures if c.where == "∂c/∂h₋" and c.reference == "jacfwd")
    case = verification.redraw(planted.wrong_forget_gate, check.worst)
    found = jax.jit(jaxrnn.lstm().state_jacobian)(*case.point)
    right = np.asarray(found.c.h)[check.worst.entry]
    np.testing.assert_allclose(right, check.worst.expected, rtol=1e-12)
    assert abs(check.worst.got - check.worst.expected) > 1e-3


def test_report_is_a_pytree_of_errors_and_tolerances():
    report = quick_report(jaxrnn.rnn())
    assert len(jax.tree.leaves(report)) == 2 * len(report.checks)
    worse = jax.tree.map(lambda leaf: leaf * 0, report)
    assert isinstance(worse, verification.Report)


def test_nan_does_not_pass():
    check = verification.Check(float("nan"), 1.0, "tangent", "δh", "complex step", None)
    assert not check.passed
    assert not verification.Report((check,), "x", 1).passed
    assert not verification.Report((), "x", 0).passed


@pytest.mark.parametrize("failures", [1, 4, 5])
def test_a_report_shows_four_failures_and_counts_the_rest(failures):
    worst = verification.Worst(2, 3, 0.1, (0, 7), (1,), 2.0, 3.0)
    check = verification.Check(1.0, 1e-9, "tangent", "δh", "complex step", worst)
    _, told = str(verification.Report((check,) * failures, "x", 9)).split("x: FAILED in ")
    assert told.startswith("tangent δh\n")
    assert told.count("\n    error 1.00e+00, allowed 1.0e-09\n") == min(failures, 4)
    assert ("… and 1 more in report.failures" in told) == (failures == 5)
    assert ("more in" in told) == (failures > 4)


def test_a_gate_that_fails_in_float32_alone_is_named_once():
    check = verification.Check(1.0, 1e-9, "float32 gate", "gate n: ∂h/∂a", "float64", None)
    assert verification.Report((check, check), "x", 9).located == "float32 gate n: ∂h/∂a"


def test_nan_in_a_closed_form_is_found():
    cell = planted.scaled(jaxrnn.rnn(), "k", float("nan"))
    with jax.debug_nans(True):  # which verify turns off inside: NaN is a finding
        assert "gate h" in jaxrnn.verify(cell, **QUICK).located


def test_a_step_that_overflows_everywhere_is_not_called_verified():
    def step(params, state, x):
        return {"h": jnp.exp(1e6 * (2 + jnp.tanh(params @ x + state["h"])))}

    cell = jaxrnn.from_step(
        step,
        init=lambda key, D, H, dtype=None: jnp.zeros((H, D)),
        init_state=lambda p: {"h": jnp.zeros(p.shape[0])},
    )
    report = jaxrnn.verify(cell, **QUICK)
    assert "overflow" in {c.family for c in report.failures}
    alone = verification.Report(tuple(c for c in report.failures if c.worst is None), "x", 16)
    assert "overflow, step, against share of cases:" in str(alone)
    assert "None" not in str(alone)


def test_a_derivative_that_float32_loses_in_saturation_is_found():
    """1 - tanh² is right to 1e-16 of the largest entry, and 0 where the truth is 4e-7."""
    value = jaxrnn.activations.Activation(
        "tanh-from-value", jnp.tanh, lambda z: 1 - jnp.tanh(z) ** 2, 1.0
    )
    report = jaxrnn.verify(jaxrnn.rnn(value))
    assert {c.family for c in report.failures} == {"float32 gate"}
    assert "gate h" in report.located


def test_a_pair_of_unlike_trees_or_shapes_is_refused():
    drawn = DrawnCases(1, 1, np.ones(2), np.zeros((2, 2), np.uint32), np.ones(2, bool))
    one, two = np.zeros((2, 3)), np.zeros((2, 2))
    with pytest.raises(TypeError, match="tangent: expected the tree"):
        judge("tangent", "jacfwd", ["δh"], Pair([one], one, None, np.ones(2)), drawn)
    with pytest.raises(ValueError, match=r"tangent, δh: expected shape \(2, 2\), got \(2, 3\)"):
        judge("tangent", "jacfwd", ["δh"], Pair(one, two, None, np.ones(2)), drawn)


def test_a_layer_norm_whose_variance_is_constant_at_one_unit_passes():
    def step(params, state, x):
        z = params @ x + state["h"]
        return {"h": jnp.tanh((z - z.mean()) / jnp.sqrt(jnp.var(z) + 1e-2))}

    cell = jaxrnn.from_step(
        step,
        init=lambda key, D, H, dtype=None: jnp.zeros((H, D)),
        init_state=lambda p: {"h": jnp.zeros(p.shape[0])},
    )
    report = jaxrnn.verify(cell, shapes=((1, 1), (2, 3)), scales=(0.1, 1.0), cases=16)
    assert report.passed, str(report)


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf])
def test_an_entry_whose_reference_is_not_finite_is_not_judged(nothing):
    drawn = DrawnCases(1, 1, np.ones(2), np.zeros((2, 2), np.uint32), np.ones(2, bool))
    want = np.array([[1.0, nothing, 1.0], [1.0, 1.0, 1.0]])

    def error(reference, *entries):
        got = np.array([entries, (1.0, 1.0, 1.0)])
        return judge("f", reference, ["h"], Pair(got, want, None, np.ones(2)), drawn)[0].error

    for reference in ("jacfwd", "complex_step"):
        assert error(reference, 1.0, 7.0, 1.0) == 0
        assert error(reference, 1.0, nothing, 1.0) == 0
        assert error(reference, 1.0, 7.0, 2.0) > 0.1
        assert error(reference, 1.0, 7.0, np.nan) == np.inf


def test_a_reference_that_is_no_number_verifies_nothing():
    """h = √(h₋ - h₋) is finite, its derivative at 0 is not."""

    def step(params, state, x):
        return {"h": jnp.tanh(params @ x) + jnp.sqrt(state["h"] - state["h"])}

    cell = jaxrnn.from_step(
        step,
        init=lambda key, D, H, dtype=None: jnp.zeros((H, D)),
        init_state=lambda p: {"h": jnp.zeros(p.shape[0])},
    )
    assert not jaxrnn.verify(cell, **QUICK).passed


def test_cell_without_init_is_verified_on_the_shapes_of_an_example():
    def step(params, state, x):
        h = jnp.tanh(params["w"] @ x + params["v"] @ state)
        return h / jnp.sqrt(1e-3 + jnp.mean(h * h))

    cell = jaxrnn.from_step(step)
    example = ({"w": jnp.ones((3, 2)), "v": jnp.ones((3, 3))}, jnp.ones(3), jnp.ones(2))
    report = jaxrnn.verify(cell, example=example, scales=(0.1, 1.0))
    assert report.passed, str(report)


def softplus_of_modulus(z):
    return jnp.log1p(jnp.exp(-jnp.abs(z))) + jnp.maximum(z, 0)


def test_complex_step_and_differences_on_functions_with_known_derivatives():
    z = jnp.linspace(-3, 3, 25)
    one = jnp.ones_like(z)
    for f, df in ((jnp.exp, np.exp), (jnp.sin, np.cos), (lambda z: z**3, lambda z: 3 * z**2)):
        stepped, moved = jax.jit(
            lambda z, one, f=f: (complex_step(f, z, one).value, differences(f, z, one).value)
        )(z, one)
        np.testing.assert_allclose(stepped, df(np.asarray(z)), rtol=1e-15, atol=1e-15)
        np.testing.assert_allclose(moved, df(np.asarray(z)), rtol=1e-10, atol=1e-10)


def test_differences_admit_their_error_at_a_kink():
    f = jax.jit(functools.partial(differences, jnp.abs))
    value, error = map(np.asarray, f(jnp.float64(1e-3), jnp.float64(1.0)))
    assert abs(value - 1.0) <= 10 * error
    assert error > 1e-3


@pytest.mark.parametrize("f", [lambda z: z * jnp.abs(z), lambda z: z / (1 + jnp.abs(z))])
def test_differences_admit_their_error_near_a_kink_of_the_derivative(f):
    """There they settle on a number that is wrong by the step, wherever the kink lies in it."""
    rng = np.random.default_rng(0)
    z, d = rng.normal(size=4000) * 10 ** rng.uniform(-7, 0, 4000), rng.normal(size=4000)
    value, error = jax.jit(jax.vmap(functools.partial(differences, f)))(z, d)
    exact = jax.jvp(f, (jnp.asarray(z),), (jnp.asarray(d),))[1]
    assert np.all(np.abs(np.asarray(value - exact)) <= 10 * np.asarray(error) + 2e-9)
    smooth = np.abs(z) > 0.1
    assert np.asarray(error)[smooth].max() < 1e-7


def test_functions_that_are_not_analytic_are_recognised():
    z, one = jnp.linspace(-3.0, 3.1, 64)[:, None], jnp.ones((64, 1))
    assert is_analytic(jnp.tanh, z, one)
    assert is_analytic(jax.nn.relu, z, one)
    assert not is_analytic(softplus_of_modulus, z, one)
    assert not is_analytic(jnp.abs, z, one)  # takes complex numbers, and steps to no derivative
    assert not is_analytic(lambda z: jax.lax.erf(z), z, one)  # refuses complex numbers


def test_reference_jacobian_has_the_tree_of_jacfwd():
    def f(point):
        return {"y": point["a"] @ point["b"], "z": jnp.sum(point["b"])}

    point = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)}
    expected = jax.jit(jax.jacfwd(f))(point)
    got = jax.jit(lambda point: jacobian(complex_step, f, point).value)(point)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-15), got, expected)


def test_saturation_table_shows_four_ulp_where_autodiff_is_wrong():
    rows = verification.saturation()
    for row in rows:
        assert row.closed_ulp <= 4
    worst = {row.where: row.autodiff_ulp for row in rows}
    assert worst["tanh, |z| ≤ 43"] > 1e6
    assert worst["sigmoid, |z| ≤ 87"] > 1e5
