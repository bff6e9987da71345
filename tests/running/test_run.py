"""`jaxrnn.Run`: a pytree that checks its parts and goes through every transformation."""

import dataclasses
import functools
import inspect
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxrnn
from jaxrnn import (
    bptt,
    certificates,
    jacobians,
    lyapunov,
    paths,
    products,
    regularizers,
    strategies,
    truncation,
)
from tests.support.profiles import short

T, B, D, H = 7, 3, 2, 4
LENGTHS = np.array([7, 4, 2], np.int32)


@functools.cache
def parts(cell=None, seed=0, dtype=jnp.float64):
    cell = jaxrnn.lstm() if cell is None else cell
    keys = jax.random.split(jax.random.key(seed))
    params = cell.init(keys[0], D, H, dtype=dtype)
    return cell, params, jax.random.normal(keys[1], (T, B, D), dtype)


def run_of(**masks):
    return jaxrnn.Run(*parts(), **masks)


def last(states):
    return jnp.sum(states.h[-1] ** 2)


def ones(run):
    dtype = run.xs.dtype if isinstance(run, jaxrnn.Run) else jnp.float64
    return jaxrnn.LSTMState(*[jnp.ones((B, H), dtype)] * 2)


ANALYSES = {
    "closed_form": jacobians.closed_form,
    "forward_mode": jacobians.forward_mode,
    "reverse_mode": jacobians.reverse_mode,
    "wrt_inputs": jacobians.wrt_inputs,
    "wrt_params": jacobians.wrt_params,
    "c_partial": jacobians.c_partial,
    "c_path": jacobians.c_path,
    "adjoints": lambda run: bptt.adjoints(run, last),
    "temporal_contributions": lambda run: bptt.temporal_contributions(run, last),
    "contribution_norms": lambda run: bptt.contribution_norms(run, last),
    "credit_matrix": lambda run: bptt.credit_matrix(run, lambda s: (s.h**2).sum((1, 2))),
    "gradient": lambda run: truncation.gradient(run, last, 3),
    "curve": lambda run: truncation.curve(run, last),
    "curve_of_last": lambda run: truncation.curve_of_last(run, lambda s: s.h.sum()),
    "transport": lambda run: products.transport(run, 1, 4),
    "transport_norms": products.transport_norms,
    "frobenius_norms": products.frobenius_norms,
    "tangent_norms": lambda run: products.tangent_norms(run, ones(run)),
    "adjoint_norms": lambda run: products.adjoint_norms(run, ones(run)),
    "exponents": lyapunov.exponents,
    "decompose": paths.decompose,
    "paths.transport": lambda run: paths.transport(run, 1, 4),
    "along": certificates.along,
    "certify": certificates.certify,
    "omega": lambda run: regularizers.omega(run, last),
    "omega_at_fixed_adjoints": lambda run: regularizers.omega_at_fixed_adjoints(run, last),
    "flossing": regularizers.flossing,
}  # fmt: skip


def test_states_are_those_of_unroll():
    cell, params, xs = parts()
    state0 = jaxrnn.LSTMState(jnp.ones((B, H)), jnp.full((B, H), 0.5))
    resets = jnp.zeros((T, B), bool).at[3, 1].set(True)
    run = jaxrnn.Run(cell, params, xs, state0, lengths=LENGTHS, resets=resets)
    expected = jaxrnn.unroll(cell, params, xs, state0, lengths=LENGTHS, resets=resets)
    chex.assert_trees_all_equal(run.states(), expected)


def test_rebuilt_by_jax_it_is_the_same_run_and_keeps_its_cell():
    run = run_of(lengths=LENGTHS)
    leaves, structure = jax.tree.flatten(run)
    again = jax.tree.unflatten(structure, leaves)
    assert again.cell is run.cell
    chex.assert_trees_all_equal(again, run)
    assert jax.tree.structure(run) == jax.tree.structure(run_of(lengths=LENGTHS + 0))
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(run)]
    assert names == [".params.w_ih", ".params.w_hh", ".params.b", ".xs", ".lengths"]
    placeholders = jax.tree.map(lambda leaf: object(), run)  # what JAX does; nothing may check it
    assert isinstance(placeholders, jaxrnn.Run)


def test_it_is_frozen_and_pickles():
    run = run_of()
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.xs = None
    again = pickle.loads(pickle.dumps(jax.device_get(run)))
    assert again.cell == run.cell
    chex.assert_trees_all_equal(jax.device_get(run), again)


@pytest.mark.parametrize(
    "cell",
    [
        *map(jaxrnn.rnn, strategies.ACTIVATIONS),
        jaxrnn.lstm(),
        jaxrnn.gru(),
        jaxrnn.reset_first_gru(),
    ],
    ids=lambda cell: cell.name,
)
def test_cells_pickle_as_equals(cell):
    again = pickle.loads(pickle.dumps(cell))
    assert again == cell
    assert hash(again) == hash(cell)


def test_printed():
    assert repr(run_of()) == "Run(lstm, xs=float64[7, 3, 2])"
    shown = repr(run_of(lengths=LENGTHS))
    assert shown == "Run(lstm, xs=float64[7, 3, 2], lengths=int32[3])"


def test_gradient_of_a_run_that_holds_inputs_is_whole():
    """By central differences: an object that held states would leave out how they move."""
    run = run_of()
    f = lambda params: regularizers.omega(run.at(params), last)  # noqa: E731
    found = np.asarray(jax.jit(jax.grad(f))(run.params).w_hh)[3, 1]
    h, of_params = 1e-5, jax.jit(f)

    def moved(by):
        w_hh = np.array(run.params.w_hh)
        w_hh[3, 1] += by
        return np.asarray(of_params(run.params._replace(w_hh=jax.device_put(w_hh))))

    expected = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_gradient_by_a_run_with_integer_lengths_is_jaxs_type_error():
    with pytest.raises(TypeError, match="real- or complex-valued inputs"):
        jax.grad(lambda run: regularizers.omega(run, last))(run_of(lengths=LENGTHS))


@pytest.mark.parametrize("name", ["closed_form", "adjoints", "frobenius_norms", "omega", "curve"])
@short(name={"closed_form", "adjoints", "omega"})
def test_vmap_over_params_is_a_loop_over_seeds(name):
    f, run = ANALYSES[name], run_of(lengths=LENGTHS)
    many = [parts(seed=seed)[1] for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *many)
    of_params = lambda params: f(run.at(params))  # noqa: E731
    found = jax.jit(jax.vmap(of_params))(stacked)
    one = jax.jit(of_params)
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *[one(p) for p in many])
    chex.assert_trees_all_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["closed_form", "frobenius_norms", "transport_norms"])
@short(name={"closed_form", "transport_norms"})
def test_vmap_over_a_batch_axis_of_a_run(name):
    resets = jnp.zeros((T, B), bool).at[3, 1].set(True)
    f, run = ANALYSES[name], run_of(lengths=LENGTHS, resets=resets)
    axes = run.axes(xs=1, lengths=0, resets=1)
    found = jax.vmap(f, in_axes=(axes,), out_axes=1)(run)
    chex.assert_trees_all_close(found, f(run), rtol=1e-12, atol=1e-13)


def test_axes_names_what_it_does_not_know():
    with pytest.raises(TypeError, match=r"axes: expected only the names params, xs.*got x"):
        run_of().axes(x=1)


@pytest.mark.parametrize("name", ANALYSES)
@short(name={"closed_form", "contribution_norms", "curve", "paths.transport", "flossing"})
def test_jit_takes_a_run_as_an_argument(name):
    f, run = ANALYSES[name], run_of()
    chex.assert_trees_all_close(jax.jit(f)(run), f(run), rtol=1e-12, atol=1e-13)


def test_one_trace_for_each_cell_shape_and_set_of_masks():
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=2)
    def f(run):
        return jnp.sum(jacobians.closed_form(run).h.h)

    for seed in range(3):
        f(jaxrnn.Run(*parts(seed=seed)))  # equal cells, other arrays
        f(jaxrnn.Run(*parts(seed=seed), lengths=LENGTHS))


def test_checkpoint_and_export():
    run = run_of(lengths=LENGTHS)
    f = lambda run: jnp.sum(products.frobenius_norms(run))  # noqa: E731
    by_params = lambda g: jax.jit(jax.grad(lambda p: g(run.at(p))))(run.params)  # noqa: E731
    chex.assert_trees_all_close(by_params(jax.checkpoint(f)), by_params(f), rtol=1e-12)
    cell = run.cell

    def flat(params, xs, lengths):
        return f(jaxrnn.Run(cell, params, xs, lengths=lengths))

    at = run.params, run.xs, run.lengths
    exported = jax.export.export(jax.jit(flat), platforms=["cpu", "cuda", "tpu"])(*at)
    np.testing.assert_allclose(exported.call(*at), f(run), rtol=1e-12)


@pytest.mark.parametrize("name", ANALYSES)
@pytest.mark.parametrize("given", ["a cell", "a tuple", "None"])
def test_what_is_no_run_is_told_how_to_make_one(name, given):
    cell, params, xs = parts()
    value = {"a cell": cell, "a tuple": (cell, params, xs), "None": None}[given]
    with pytest.raises(
        TypeError, match=r"run: expected a jaxrnn.Run, got .*jaxrnn\.Run\(cell, params, xs\)"
    ):
        ANALYSES[name](value)


@pytest.mark.parametrize("name", ANALYSES)
def test_a_run_that_nothing_checked_is_checked_by_the_analysis(name):
    cut = jax.tree.map(lambda leaf: leaf[:, :1] if leaf.ndim == 2 else leaf, run_of())
    with pytest.raises(ValueError, match=r"params\.w_"):
        ANALYSES[name](cut)


@pytest.mark.parametrize("mask", ["lengths", "resets"])
@pytest.mark.parametrize("name", ["exponents", "flossing"])
def test_masks_that_an_exponent_has_no_meaning_for_are_refused_by_name(name, mask):
    value = {"lengths": LENGTHS, "resets": jnp.zeros((T, B), bool)}[mask]
    with pytest.raises(ValueError, match=f"{mask}: expected none, since an exponent"):
        ANALYSES[name](run_of(**{mask: value}))


# --- precision -----------------------------------------------------------------------


def precisions(f, *arguments):
    """Of every matmul in the lowered text."""
    text = jax.jit(f).lower(*arguments).as_text()
    return [line for line in text.splitlines() if "dot_general" in line]


@pytest.mark.parametrize("name", ANALYSES)
@short(name={
    "closed_form", "wrt_params", "c_path", "adjoints", "contribution_norms", "curve_of_last",
    "transport", "transport_norms", "exponents", "decompose", "along", "omega",
})  # fmt: skip
def test_analyses_ask_for_the_highest_precision(name):
    run = jaxrnn.Run(*parts(dtype=jnp.float32))
    f = ANALYSES[name]
    found = precisions(f, run)
    assert found
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in found)
    with jax.default_matmul_precision("bfloat16"):  # the user's word goes
        assert all("HIGHEST" not in line or name in LOWER for line in precisions(f, run))


# Singular values, eigenvalues and powers keep the highest of their own accord.
LOWER = {"transport_norms", "along", "certify", "exponents", "flossing"}


def test_training_is_at_the_users_default():
    cell, params, xs = parts(dtype=jnp.float32)
    loss = lambda params: last(jaxrnn.unroll(cell, params, xs))  # noqa: E731
    found = precisions(jax.value_and_grad(loss), params)
    assert found
    assert all("HIGHEST" not in line for line in found)


# --- strategies ----------------------------------------------------------------------


@given(strategies.runs(dtype=jnp.float64))
def test_held_steps_repeat_the_state_and_resets_begin_anew(run):
    """What a user would write with the strategies, against a loop over steps."""
    states, first = run.states(), run.state0
    batch = run.xs.shape[1:-1]
    first = run.cell.init_state(run.params, batch) if first is None else first
    states, first, xs = jax.tree.map(np.asarray, (states, first, run.xs))
    state, step = first, jax.jit(run.cell.step)
    for t, x in enumerate(xs):
        begin = state
        if run.resets is not None:
            again = np.asarray(run.resets)[t][..., None]
            begin = jax.tree.map(lambda a, b, r=again: np.where(r, a, b), first, begin)
        new = jax.tree.map(np.asarray, step(run.params, begin, x))
        if run.lengths is not None:
            held = (t >= np.asarray(run.lengths))[..., None]
            new = jax.tree.map(lambda a, b, h=held: np.where(h, a, b), state, new)
        state = new
        here = jax.tree.map(lambda leaf, t=t: leaf[t], states)
        chex.assert_trees_all_close(here, state, rtol=1e-10, atol=1e-12)


@given(st.data())
def test_masks_fit_the_sequence_and_a_wrong_size_is_named(data):
    masks = data.draw(strategies.masks(4, (2, 3)))
    shapes = {"lengths": (2, 3), "resets": (4, 2, 3)}
    assert set(masks) == set(shapes)
    for name, mask in masks.items():
        assert mask is None or mask.shape == shapes[name]
    if masks["lengths"] is not None:
        assert 0 <= masks["lengths"].min() <= masks["lengths"].max() <= 4
    wrong = [((4, [2]), TypeError, "batch"), ((4, (-1,)), ValueError, "batch"),
             ((-1,), ValueError, "steps"), ((2.0,), TypeError, "steps")]  # fmt: skip
    for sizes, error, name in wrong:
        with pytest.raises(error, match=name):
            data.draw(strategies.masks(*sizes))


def test_assert_cell_passes_ours_and_names_what_is_wrong():
    jaxrnn.verification.assert_cell(jaxrnn.rnn(), shapes=((2, 3),), cases=4)
    phi = jaxrnn.rnn().phi
    wrong = phi._replace(tangent=lambda p, ds, dv: jaxrnn.RNNState(0.5 * p.k * dv))
    cell = dataclasses.replace(jaxrnn.rnn(), name="half", phi=wrong)
    with pytest.raises(AssertionError, match=r"half: .* is wrong"):
        jaxrnn.verification.assert_cell(cell, shapes=((2, 3),), cases=4)


# --- code that was written before there were runs -------------------------------------


MAKE_ONE = r"^run: expected .*; make one: jaxrnn\.Run\(cell, params"


def of_runs(first):
    """Public functions whose first parameter is `first`."""
    for module in ("bptt", "certificates", "initializers", "jacobians", "layers", "lyapunov",
                   "paths", "products", "regularizers", "truncation"):  # fmt: skip
        for name in getattr(jaxrnn, module).__all__:
            f = getattr(getattr(jaxrnn, module), name)
            if inspect.isfunction(f) and next(iter(inspect.signature(f).parameters)) == first:
                yield pytest.param(f, id=f"{module}.{name}")


@pytest.mark.parametrize("f", list(of_runs("run")))
def test_a_call_with_the_parts_of_a_run_is_told_what_to_write_now(f):
    cell, params, xs = parts()
    for case in ((cell, params, xs), (cell, params, xs, last), (cell, params, xs, last, 3)):
        with pytest.raises(TypeError, match=MAKE_ONE):
            f(*case)
    with pytest.raises(TypeError, match=MAKE_ONE):
        f(cell, params, xs, lengths=jnp.array([1, 2]))
    with pytest.raises(TypeError, match=MAKE_ONE):
        f(cell=cell, params=params, xs=xs)


@pytest.mark.parametrize("f", list(of_runs("runs")))
def test_a_call_with_the_parts_of_a_net_is_told_what_to_write_now(f):
    cell, params, xs = parts()
    for case in (
        (cell, [jaxrnn.layers.Layer(params)], xs),
        (cell, [jaxrnn.layers.Layer(params)], xs, last),
    ):
        with pytest.raises(TypeError, match=r"^runs: expected what jaxrnn\.layers\.runs\(cell"):
            f(*case)


def test_what_was_renamed_says_its_new_name():
    with pytest.raises(AttributeError, match=r"renamed jaxrnn\.scaled"):
        _ = jaxrnn.scaling
    with pytest.raises(AttributeError, match="renamed of_weights"):
        _ = jaxrnn.certificates.from_weights


def test_a_warmup_that_is_no_integer_is_refused_by_name():
    with pytest.raises(TypeError, match=r"^warmup: expected an integer"):
        jaxrnn.initializers.scaled_to_exponent(run_of(), 0.0, warmup=jnp.array(3))
