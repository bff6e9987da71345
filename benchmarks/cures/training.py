"""Training one recipe on one task from several seeds at once, all of them in one jitted program."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from tqdm import tqdm

import jaxrnn
from jaxrnn import regularizers
from jaxrnn.cells.contract import Cell

TESTED = 1000  # fresh sequences at each evaluation


class Task(NamedTuple):
    """What is drawn, and how answers are judged."""

    draw: Callable[[Array, int, int], jaxrnn.tasks.Batch]  # (key, batch size, T)
    loss: Callable[[Array, Array], Array]
    right: Callable[[Array, Array], Array]
    inputs: int
    outputs: int
    solved: float  # share of fresh sequences that must be answered rightly


class Recipe(NamedTuple):
    """A cell, how its weights begin, and how they are trained."""

    name: str
    cell: Cell
    init: Callable[[Array, int], Any]  # (key, inputs) -> params of the cell
    optimizer: optax.GradientTransformation
    omega: float = 0.0  # weight of Ω at fixed adjoints
    readout: Callable[[Array, tuple[int, int]], Array] | None = None


class Network(NamedTuple):
    """The cell's params and a linear read-out."""

    cell: Any
    w: Array  # (outputs, H)
    b: Array  # (outputs,)


class Run(NamedTuple):
    """What came of it; one entry for each evaluation, and in it for each seed."""

    steps: np.ndarray  # (K,)
    right: np.ndarray  # (K, seeds), share of fresh sequences
    loss: np.ndarray  # (K, seeds), of the last batch
    seconds: float
    goal: float
    first: Network  # leaves (seeds, ·)
    last: Network

    @property
    def solved_at(self) -> list[int | None]:
        """The first evaluation that a seed passed, in updates."""
        found = []
        for seed in range(self.right.shape[1]):
            at = np.flatnonzero(self.right[:, seed] >= self.goal)
            found.append(int(self.steps[at[0]]) if at.size else None)
        return found

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "updates": int(self.steps[-1]),
            "seconds": round(self.seconds, 1),
            "solved_at": self.solved_at,
            "right": [round(float(r), 4) for r in self.right.max(0)],
            "diverged": int((~np.isfinite(self.loss[-1])).sum()),
        }


def start(recipe: Recipe, task: Task, key: Array) -> Network:
    """Weights drawn for one seed."""
    k_cell, k_out = jax.random.split(key)
    params = recipe.init(k_cell, task.inputs)
    H = params.w_hh.shape[1]
    draw = recipe.readout or jax.nn.initializers.glorot_uniform(in_axis=-1, out_axis=-2)
    w = draw(k_out, (task.outputs, H), params.w_hh.dtype)
    return Network(params, w, jnp.zeros(task.outputs, w.dtype))


def answers(network: Network, h: Array) -> Array:
    """The read-out of `h (N, B, H)`."""
    scores = h @ network.w.T
    return scores + jnp.broadcast_to(network.b, scores.shape)


def error(recipe: Recipe, task: Task, network: Network, batch: jaxrnn.tasks.Batch) -> Array:
    """The loss that is trained, Ω included."""
    N = batch.targets.shape[0]

    def read(network: Network, states: Any) -> Array:
        return task.loss(answers(network, states.h[-N:]), batch.targets)

    total = read(network, jaxrnn.unroll(recipe.cell, network.cell, batch.xs))
    if recipe.omega:
        held = jax.lax.stop_gradient(network)
        total = total + recipe.omega * regularizers.omega_at_fixed_adjoints(
            jaxrnn.Run(recipe.cell, network.cell, batch.xs), functools.partial(read, held)
        )
    return total


def update(
    recipe: Recipe, task: Task, size: int, T: int, carry: tuple[Network, Any], key: Array
) -> tuple[tuple[Network, Any], Array]:
    """One step of the optimizer for one seed, on a fresh batch."""
    network, state = carry
    batch = task.draw(key, size, T)
    value, slope = jax.value_and_grad(functools.partial(error, recipe, task))(network, batch)
    updates, state = recipe.optimizer.update(slope, state, network)
    return (optax.apply_updates(network, updates), state), value


def share_right(recipe: Recipe, task: Task, T: int, network: Network, key: Array) -> Array:
    """Of fresh sequences, those answered rightly."""
    batch = task.draw(key, TESTED, T)
    N = batch.targets.shape[0]
    h = jaxrnn.unroll(recipe.cell, network.cell, batch.xs).h[-N:]
    return task.right(answers(network, h), batch.targets).mean()


def train(
    recipe: Recipe,
    task: Task,
    T: int,
    *,
    batch_size: int,
    steps: int,
    every: int,
    seeds: int,
    key: int = 0,
    limit_s: float = float("inf"),
) -> Run:
    """Train until every seed is solved or diverged, `steps` updates or `limit_s` seconds are up."""
    root = jax.random.key(key)
    first = jax.vmap(functools.partial(start, recipe, task))(
        jax.random.split(jax.random.fold_in(root, 0), seeds)
    )
    one = jax.vmap(functools.partial(update, recipe, task, batch_size, T))
    run = jax.jit(lambda carry, keys: jax.lax.scan(one, carry, keys))
    test = jax.jit(jax.vmap(functools.partial(share_right, recipe, task, T), (0, None)))
    carry = first, jax.vmap(recipe.optimizer.init)(first)
    began, seen, right, losses = time.perf_counter(), [], [], []
    bar = tqdm(range(0, steps, every), desc=f"{recipe.name}, T = {T}", leave=False, disable=None)
    for done in bar:
        keys = jax.random.split(jax.random.fold_in(root, done + 1), (every, seeds))
        carry, values = run(carry, keys)
        seen.append(done + every)
        losses.append(np.asarray(values[-1]))
        right.append(np.asarray(test(carry[0], jax.random.fold_in(root, done + 2))))
        bar.set_postfix(right=np.round(right[-1], 2).tolist())
        ended = (np.max(right, 0) >= task.solved) | ~np.isfinite(losses[-1])
        if ended.all() or time.perf_counter() - began > limit_s:
            break
    bar.close()
    took = time.perf_counter() - began
    curves = np.array(seen), np.array(right), np.array(losses)
    return Run(*curves, took, task.solved, first, carry[0])
