"""The same bits every time: in one process, in fresh ones, and however a sequence is run."""

import functools
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from tests.support.fingerprint import bits, drawn, fingerprint, loss
from tests.support.profiles import short
from tests.support.table import CELLS

SMALL_SIZES = (11, 2, 3, 4)  # more steps than two chunks of 5
KINDS = ("rnn-tanh", "lstm", "gru")
each_kind = pytest.mark.parametrize("name", KINDS)
each_dtype = pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])


@pytest.mark.parametrize(
    ("name", "dtype", "fresh"),
    [("lstm", "float32", 1), ("lstm", "float32", 3), ("gru", "bfloat16", 3)],
)
@short(fresh=1)
def test_a_hundred_runs_and_fresh_processes_give_the_same_bits(name, dtype, fresh):
    here = {fingerprint(name, dtype) for _ in range(100)}
    assert len(here) == 1
    for _ in range(fresh):
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.fingerprint", name, dtype],
            cwd=pathlib.Path(__file__).parents[1], capture_output=True, text=True,
        )  # fmt: skip
        assert {done.stdout.strip()} == here, done.stderr[-3000:]


# --- however a sequence is run ------------------------------------------------------


def states(cell, case, chunk=None):
    return jaxrnn.unroll(cell, *case, chunk=chunk)


def gradients(cell, case, chunk=None):
    return jax.grad(lambda case: loss(states(cell, case, chunk)))(case)


def under_checkpoint(f, cell, case):
    return jax.checkpoint(functools.partial(f, cell))(case)


def gradients_of_checkpoint(cell, case):
    return jax.grad(jax.checkpoint(lambda case: loss(states(cell, case))))(case)


@each_dtype
@each_kind
@short(name="lstm", dtype="float32")
def test_eager_jit_and_checkpoint_give_the_same_bits(name, dtype):
    """States, gradients, and states beside gradients."""
    cell = CELLS[name]
    case = drawn(cell, dtype, *SMALL_SIZES)
    jitted = functools.partial(jax.jit, static_argnums=0)
    beside = jitted(lambda cell, case: jax.vjp(lambda case: states(cell, case), case)[0])
    checkpointed = jitted(functools.partial(under_checkpoint, states))
    ways = (jitted(states), beside, checkpointed)
    assert {bits(way(cell, case)) for way in ways} == {bits(states(cell, case))}
    ways = (jitted(gradients), jitted(gradients_of_checkpoint))
    assert {bits(way(cell, case)) for way in ways} == {bits(gradients(cell, case))}


@pytest.mark.parametrize("chunk", [1, 5])
@each_dtype
@each_kind
@short(name="gru", dtype="bfloat16", chunk=5)
def test_a_chunk_changes_a_few_ulp_at_most(name, dtype, chunk):
    """XLA sums another matmul in another order, in the states seldom and in gradients as a rule.

    Less than 4 eps of a leaf's largest entry over 11 steps; up to 6 over 64 steps of 16 × 32.
    """
    cell, eps = CELLS[name], float(jnp.finfo(dtype).eps)
    case = drawn(cell, dtype, *SMALL_SIZES)
    for f in (states, gradients):
        run = jax.jit(f, static_argnums=(0, 2))
        found = [jax.tree.leaves(run(cell, case, cut)) for cut in (chunk, None)]
        for got, want in zip(*found, strict=True):
            got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
            assert np.abs(got - want).max() <= 4 * eps * np.abs(want).max()
