"""What a picture draws is what was measured."""

import jax
import numpy as np

import jaxrnn
from jaxrnn import plot
from tests.untied import drawn


def curves(axes):
    """{label: (x, y)} of the curves that the legend names."""
    lines = {line.get_label(): line.get_data() for line in axes.get_lines()}
    return {name: data for name, data in lines.items() if not name.startswith("_")}


def test_norms_beyond_every_float_are_drawn_against_lag():
    logs = {"a": np.array([-9000.0, -2.0, 0.0]), "b": np.array([5000.0, 1.0, 0.0])}
    shown = curves(plot.norms(logs).axes[0])
    assert list(shown) == ["a", "b"]
    for name, (lag, y) in shown.items():
        np.testing.assert_array_equal(lag, [2, 1, 0])
        np.testing.assert_allclose(y * np.log(10), logs[name])


def test_cell_paths_shows_errors_and_shares():
    params, xs, _ = drawn("lstm", 9, (3,))
    found = jaxrnn.paths.decompose(jaxrnn.lstm(), params, xs)
    errors, shares = map(curves, plot.cell_paths(found).axes)
    for name, error in (
        ("forget gates alone", found.forget_error),
        ("four terms", found.four_term_error),
    ):
        lag, y = errors[name]
        np.testing.assert_array_equal(lag, np.arange(8, 0, -1))
        want = np.median(error, axis=1)[:-1]
        np.testing.assert_allclose(y, np.where(want > 1e-12, want, np.nan))
    assert list(shares) == list(found.shares)
    for name, (_, y) in shares.items():
        np.testing.assert_allclose(y, np.median(found.shares[name], axis=1)[:-1])


def test_contributions_are_drawn_relative_to_the_largest():
    shown = curves(plot.contributions({"net": jax.numpy.array([0.0, 1.0, 4.0])}).axes[0])
    lag, y = shown["net"]
    np.testing.assert_array_equal(lag, [2, 1, 0])
    np.testing.assert_array_equal(y, [np.nan, 0.25, 1.0])
