"""The experiments of `benchmarks/cures` in their shortest form, and what they count on."""

import functools
import json
import sys

import jax
import numpy as np
import optax
import pytest

import jaxrnn
from benchmarks.cures import adding, horizon, results, temporal_order
from benchmarks.cures.training import Network, Recipe, Run, answers, error, train
from jaxrnn import regularizers, tasks
from tests.support.profiles import short


@pytest.fixture(autouse=True)
def as_users_run_it():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def of(right, loss=None):
    right = np.array(right)
    steps = 100 * np.arange(1, len(right) + 1)
    loss = np.zeros_like(right) if loss is None else np.array(loss)
    return Run(steps, right, loss, 1.0, 0.9, None, None)


def test_a_seed_is_solved_at_the_first_evaluation_that_it_passes():
    run = of(
        [[0.1, 0.2, 0.3], [0.9, 0.5, 0.3], [0.2, 0.95, 0.4]], [[0, 0, 0]] * 2 + [[0, 0, np.nan]]
    )
    assert run.solved_at == [200, 300, None]
    assert run.record()["right"] == [0.9, 0.95, 0.4]
    assert run.record()["diverged"] == 1
    assert "2 / 3" in results.line({"recipe": "x", "T": 5, "seeds": 3, **run.record()})


@pytest.mark.parametrize("omega", [0.0, 0.5])
def test_what_is_trained_is_the_loss_and_omega(omega):
    (recipe,) = [r._replace(omega=omega) for r in adding.recipes(12, 5) if r.name == "tanh RNN"]
    w = np.full((1, adding.H), 1 / adding.H, np.float32)
    params, batch = jax.jit(lambda init, draw: (recipe.init(init, 2), tasks.adding(draw, 7, 12)))(
        jax.random.key(0), jax.random.key(1)
    )
    network = Network(params, jax.device_put(w), jax.device_put(np.zeros(1, np.float32)))

    @jax.jit
    def wanted(params, batch):
        def loss(states):
            out = states.h[-1] @ network.w.T
            return ((out - batch.targets[0]) ** 2).mean()

        want = loss(jaxrnn.unroll(recipe.cell, params, batch.xs))
        if omega:
            want += omega * regularizers.omega(jaxrnn.Run(recipe.cell, params, batch.xs), loss)
        return want

    found = jax.jit(functools.partial(error, recipe, adding.TASK))(network, batch)
    np.testing.assert_allclose(found, wanted(params, batch), rtol=1e-5)


def test_an_easy_task_is_learnt_from_every_seed_and_training_stops():
    """The order of two symbols over four steps: within a few hundred updates."""
    cell = jaxrnn.lstm()
    task = temporal_order.TASK._replace(solved=0.9)
    init = jax.jit(lambda key, D: cell.init(key, D, 16, forget_bias=2.0), static_argnums=1)
    recipe = Recipe("LSTM", cell, init, optax.adam(2e-2))
    run = train(recipe, task, 10, batch_size=32, steps=1000, every=100, seeds=2)
    assert None not in run.solved_at
    assert run.steps[-1] < 1000
    # The networks that come back are those that were judged.

    @jax.jit
    def shares(networks):
        batch = tasks.temporal_order(jax.random.key(9), 500, 10)

        def share(network):
            h = jaxrnn.unroll(cell, network.cell, batch.xs).h[-1:]
            return tasks.correct(answers(network, h), batch.targets).mean()

        return jax.vmap(share)(networks)

    found = np.asarray(shares(run.last))
    assert found.shape == (2,)
    assert np.all(found > 0.8)
    w = np.asarray(run.first.w)
    assert not np.array_equal(w[0], w[1])


NAMES = {
    adding: ["tanh RNN + clip", "tanh RNN + clip + Ω"],
    temporal_order: ["SGD + clip", "SGD + clip + Ω"],
    horizon: ["tanh RNN + clip", "tanh RNN + clip + Ω"],
}


@pytest.mark.parametrize("module", NAMES, ids=lambda module: module.__name__.split(".")[-1])
@short(module=horizon)
def test_each_command_prints_its_table_and_writes_json_and_picture(
    module, tmp_path, monkeypatch, capsys
):
    recipes = module.recipes
    monkeypatch.setattr(module, "recipes", lambda *at: recipes(*at)[1:3])
    out, picture = tmp_path / "new" / "f.json", tmp_path / "new" / "f.png"
    argv = ["x", "--lengths", "12", "--updates", "2", "--seeds", "2", "--out", str(out),
            "--picture", str(picture)]  # fmt: skip
    monkeypatch.setattr(sys, "argv", argv)
    if module is horizon:
        monkeypatch.setattr(module, "WATCHED", 4)
    module.main()
    rows = json.loads(out.read_text())["rows"]
    assert [row["recipe"] for row in rows] == NAMES[module]
    assert all(row["updates"] == 2 for row in rows)
    printed = capsys.readouterr().out
    assert all(row["recipe"] in printed for row in rows)
    assert max(map(len, printed.splitlines())) <= 84
    assert picture.read_bytes()[:4] == b"\x89PNG"
