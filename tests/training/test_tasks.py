"""The tasks: every batch is held against its paper's definition in plain Python."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import tasks
from tests.support.modes import tol
from tests.support.profiles import short

KEY = jax.random.key(0)
B = 400


def batch_of(task, T, B=B):
    """A batch in NumPy."""
    return jax.tree.map(np.asarray, task(KEY, B, T))


def symbols(xs):
    """One-hot, exactly, then the symbols `(T, B)`."""
    xs = np.asarray(xs)
    assert set(np.unique(xs)) <= {0.0, 1.0}
    assert (xs.sum(-1) == 1).all()
    return xs.argmax(-1)


@pytest.mark.parametrize("T", [6, 7, 20, 50, 200])
@short(T={6, 7, 20, 200})
def test_adding(T):
    xs, targets = batch_of(tasks.adding, T)
    assert xs.shape == (T, B, 2)
    assert targets.shape == (1, B, 1)
    values, marks = xs[..., 0], xs[..., 1]
    assert (np.abs(values) <= 1).all()
    firsts, seconds = set(), set()
    for b in range(B):
        at = np.flatnonzero(marks[:, b] == 1)
        assert len(at) == 2
        assert at.max() < T // 2 - 1
        assert at.min() < min(10, T // 2 - 1)
        others = np.delete(marks[:, b], at)
        assert marks[-1, b] == -1
        assert marks[0, b] == (1 if 0 in at else -1)
        assert np.count_nonzero(others) == (1 if 0 in at else 2)
        first, second = (values[k, b] if k else 0.0 for k in at)
        np.testing.assert_allclose(targets[0, b, 0], 0.5 + (first + second) / 4, rtol=1e-12)
        firsts.add(at.min())
        seconds.add(at.max())
    if T <= 20:
        assert seconds == set(range(1, T // 2 - 1))  # every place occurs
    if T >= 20:  # below, one of the marks is often at the first step
        assert 0.03 < ((targets - 0.5) ** 2).mean() < 1 / 24 + 0.005


@pytest.mark.parametrize(
    ("task", "tenths"), [(tasks.temporal_order, (1, 5)), (tasks.temporal_order_3, (1, 3, 6))]
)
@pytest.mark.parametrize("T", [10, 11, 25, 100])
@short(task=tasks.temporal_order, T={10, 25})
@short(task=tasks.temporal_order_3, T={11, 100})
def test_temporal_order(task, tenths, T):
    batch = batch_of(task, T)
    read, targets = symbols(batch.xs), batch.targets
    assert read.shape == (T, B)
    assert batch.xs.shape[-1] == 6
    assert targets.shape == (1, B)
    for b in range(B):
        at = np.flatnonzero(read[:, b] < 2)
        assert len(at) == len(tenths)
        assert all(n * T // 10 <= k < (n + 1) * T // 10 for k, n in zip(at, tenths, strict=True))
        assert targets[0, b] == int("".join(str(s) for s in read[at, b]), 2)
    counts = collections.Counter(targets[0].tolist())
    assert set(counts) == set(range(2 ** len(tenths)))
    expected = B / 2 ** len(tenths)
    assert all(abs(n - expected) < 5 * np.sqrt(expected) for n in counts.values())
    assert set(np.unique(read)) == set(range(6))


@pytest.mark.parametrize("T", [2, 50, 99, 250])
@short(T={2, 99, 250})
def test_random_permutation(T):
    batch = batch_of(tasks.random_permutation, T, 50)
    read = symbols(batch.xs)
    assert read.shape == (T, 50)
    assert batch.xs.shape[-1] == 100
    assert set(read[0]) == {0, 1}
    assert (read[1:] >= 2).all()
    np.testing.assert_array_equal(batch.targets[0], read[0])
    for start in range(1, T, 98):
        for row in read[start : start + 98].T:
            assert len(set(row)) == len(row)
    if T > 2:
        assert len({tuple(row) for row in read[1:].T}) == 50


@pytest.mark.parametrize("T", [1, 2, 100])
def test_copying(T):
    batch = batch_of(tasks.copying, T)
    read, answer = symbols(batch.xs), batch.targets
    assert batch.xs.shape == (T + 20, B, 10)
    assert answer.shape == (T + 20, B)
    np.testing.assert_array_equal(answer[-10:], read[:10])
    assert set(np.unique(read[:10])) == set(range(1, 9))
    assert not answer[:-10].any()
    assert not read[10 : T + 9].any()
    assert (read[T + 9] == 9).all()
    assert not read[T + 10 :].any()


@pytest.mark.parametrize("T", [1, 2, 100])
def test_noiseless_memorisation(T):
    batch = batch_of(tasks.noiseless_memorisation, T)
    read, answer = symbols(batch.xs), batch.targets
    assert batch.xs.shape == (T + 10, B, 4)
    np.testing.assert_array_equal(answer[-5:], read[:5])
    assert len({tuple(bits) for bits in read[:5].T}) == 32
    assert (answer[:-5] == 2).all()
    assert (np.delete(read, T + 4, axis=0)[5:] == 2).all()
    assert (read[T + 4] == 3).all()


def test_sequential_digits():
    images = np.arange(12.0).reshape(3, 4)
    batch = tasks.sequential_digits(KEY, 60, jnp.asarray(images), jnp.array([7, 8, 9]))
    xs, targets = (np.asarray(leaf) for leaf in batch)
    assert xs.shape == (4, 60, 1)
    assert set(targets[0].tolist()) == {7, 8, 9}
    for b in range(60):
        np.testing.assert_array_equal(xs[:, b, 0], images[targets[0, b] - 7])


DRAWS = {
    "adding": lambda key, B: tasks.adding(key, B, 20),
    "temporal_order": lambda key, B: tasks.temporal_order(key, B, 20),
    "temporal_order_3": lambda key, B: tasks.temporal_order_3(key, B, 20),
    "random_permutation": lambda key, B: tasks.random_permutation(key, B, 20),
    "copying": lambda key, B: tasks.copying(key, B, 20),
    "noiseless_memorisation": lambda key, B: tasks.noiseless_memorisation(key, B, 20),
    "sequential_digits": lambda key, B: tasks.sequential_digits(
        key, B, jnp.asarray(np.arange(80.0).reshape(4, 20)), jnp.asarray(np.arange(4))
    ),
}


@pytest.mark.parametrize("name", DRAWS)
@short(name={"adding", "temporal_order_3", "random_permutation", "copying", "sequential_digits"})
def test_a_task_is_a_pure_function_of_its_key(name):
    draw = DRAWS[name]
    same = lambda a, b: all(  # noqa: E731
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
    first = draw(KEY, 8)
    assert same(first, draw(KEY, 8))
    assert same(first, jax.jit(lambda key: draw(key, 8))(KEY))
    assert not same(first.xs, draw(jax.random.key(1), 8).xs)
    several = jax.eval_shape(jax.vmap(lambda key: draw(key, 8)), jax.random.split(KEY, 3))
    assert several.xs.shape == (3, *first.xs.shape)
    assert draw(KEY, 0).xs.shape == (first.xs.shape[0], 0, first.xs.shape[2])


def test_losses_and_criteria():
    outputs, targets = jnp.array([[[0.1], [0.5]]]), jnp.array([[[0.13], [0.54]]])
    np.testing.assert_allclose(
        jax.jit(tasks.squared_error)(outputs, targets), (0.03**2 + 0.04**2) / 2, rtol=tol(1e-13)
    )
    assert jax.jit(tasks.within)(outputs, targets).tolist() == [True, False]
    assert tasks.within(outputs, targets, 0.05).tolist() == [True, True]
    odds = jnp.asarray(np.log([[[0.7, 0.2, 0.1]], [[0.3, 0.3, 0.4]]]))
    classes = jnp.array([[0], [1]])
    entropy = jax.jit(tasks.cross_entropy)(odds, classes)
    np.testing.assert_allclose(entropy, -np.log([0.7, 0.3]).mean(), rtol=1e-13)
    correct = jax.jit(tasks.correct)
    assert correct(odds, classes).tolist() == [False]
    assert correct(odds, jnp.array([[0], [2]])).tolist() == [True]


def test_no_answer_is_not_a_right_one():
    outputs = jnp.asarray(np.array([[[np.nan] * 3, [1.0, 0.0, 0.0]]]))
    assert tasks.correct(outputs, jnp.array([[0, 0]])).tolist() == [False, True]


def test_numpy_images_may_be_drawn_from_under_jit():
    images, labels = np.arange(12, dtype="float32").reshape(3, 4), np.array([7, 8, 9])
    draw = jax.jit(lambda key: tasks.sequential_digits(key, 5, images, labels))
    assert draw(KEY).xs.shape == (4, 5, 1)
