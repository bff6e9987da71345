"""What a picture draws is what was measured."""

import jax
import numpy as np
import pytest

import jaxrnn
from jaxrnn import demo, plot
from tests.support.untied import drawn


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
        np.testing.assert_allclose(y * np.log(10), logs[name], rtol=1e-13)


def test_cell_paths_shows_errors_and_shares():
    params, xs, _ = drawn("lstm", 9, (3,))
    found = jaxrnn.paths.decompose(jaxrnn.Run(jaxrnn.lstm(), params, xs))
    errors, shares = map(curves, plot.cell_paths(found).axes)
    for name, error in (
        ("forget gates alone", found.forget_error),
        ("four terms", found.four_term_error),
    ):
        lag, y = errors[name]
        np.testing.assert_array_equal(lag, np.arange(8, 0, -1))
        want = np.median(error, axis=1)[:-1]
        np.testing.assert_allclose(y, np.where(want > 1e-12, want, np.nan), rtol=1e-13)
    assert list(shares) == list(found.shares)
    for name, (_, y) in shares.items():
        np.testing.assert_allclose(y, np.median(found.shares[name], axis=1)[:-1], rtol=1e-13)


def test_contributions_are_drawn_relative_to_the_largest():
    shown = curves(plot.contributions({"net": jax.numpy.array([0.0, 1.0, 4.0])}).axes[0])
    lag, y = shown["net"]
    np.testing.assert_array_equal(lag, [2, 1, 0])
    np.testing.assert_array_equal(y, [np.nan, 0.25, 1.0])


def a_run(name, adjoint_c=None, forget=None):
    curve = np.array([0.1, 0.5, 2.0])
    flow = demo.Flow(0.6, curve, adjoint_c, curve, np.ones((3, 2)), forget, *[None] * 3)
    return demo.Trained(name, flow, flow, None, np.array([0, 50]), np.array([0.1, 0.6]))


def test_the_adjoint_of_c_is_drawn_where_the_last_run_has_one():
    whens = ["before training", "after training"]
    shown = curves(plot.gradient_flow([a_run("tanh RNN")]).axes[0])
    assert list(shown) == [f"tanh RNN, {when}" for when in whens]
    lag, y = shown["tanh RNN, before training"]
    np.testing.assert_array_equal(lag, [2, 1, 0])
    np.testing.assert_array_equal(y, [0.05, 0.25, 1.0])
    runs = [a_run("tanh RNN"), a_run("LSTM", np.array([0.4, 1.0, 0.0]))]
    lag, y = curves(plot.gradient_flow(runs).axes[0])["LSTM, ∂E/∂cₖ after training"]
    np.testing.assert_array_equal(lag, [2, 1])
    np.testing.assert_array_equal(y, [0.2, 0.5])


def test_a_picture_of_forget_gates_wants_some():
    with pytest.raises(ValueError, match="run: expected a network with a forget gate, got tanh"):
        plot.forget_gates(a_run("tanh RNN"))


def shown_in_colors(axes):
    """{label: colour} of the curves that the legend names."""
    lines = {line.get_label(): line.get_color() for line in axes.get_lines()}
    return {name: color for name, color in lines.items() if not name.startswith("_")}


def test_the_flow_of_every_run_is_drawn_and_the_last_ones_cell_state_by_its_name():
    names = ["a", "b", "c", "d", "mine"]
    runs = [a_run(name, np.array([0.4, 1.0, 0.0]) if name == "mine" else None) for name in names]
    adjoints, share, norms, accuracy = plot.gradient_flow(runs).axes
    both = [f"{name}, {when} training" for name in names for when in ("before", "after")]
    assert list(curves(adjoints)) == [*both, "mine, ∂E/∂cₖ after training"]
    assert list(curves(share)) == list(curves(norms)) == both
    assert list(curves(accuracy)) == names
    np.testing.assert_array_equal(curves(adjoints)["mine, ∂E/∂cₖ after training"][1], [0.2, 0.5])
    assert len(set(shown_in_colors(accuracy).values())) == len(names)
    few = shown_in_colors(plot.gradient_flow(runs[2:]).axes[0])
    assert len(set(few.values())) == 4, "the cell state has a colour of its own"


def test_every_contribution_and_every_path_is_drawn():
    many = {str(i): np.array([1.0, 2.0, i + 3.0]) for i in range(7)}
    shown = curves(plot.contributions(many).axes[0])
    assert list(shown) == list(many)
    for name, (_, y) in shown.items():
        np.testing.assert_array_equal(y, many[name] / many[name].max())
    params, xs, _ = drawn("lstm", 5, ())
    found = jaxrnn.paths.decompose(jaxrnn.Run(jaxrnn.lstm(), params, xs))
    shares = dict.fromkeys("abcdefg", found.shares["memory"])
    found = found._replace(shares=shares)
    assert list(curves(plot.cell_paths(found).axes[1])) == list(shares)


def test_a_picture_shows_itself_and_takes_curves_of_numpy_in_32_bit_mode():
    with jax.enable_x64(False):
        figure = plot.norms({"a": np.linspace(-3.0, 0.0, 9)})
    assert figure._repr_png_()[1:4] == b"PNG"


def test_logs_are_no_contributions():
    with pytest.raises(ValueError, match=r"norms\['a'\]: expected norms, got numbers below 0"):
        plot.contributions({"a": np.array([-2.0, -1.0, 0.0])})
