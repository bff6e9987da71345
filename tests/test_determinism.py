"""The same bits every time: in one process, in fresh ones, and however a sequence is run."""

import functools
import hashlib
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import clipping, jacobians, lyapunov
from tests.support import drawing
from tests.support.profiles import short
from tests.support.table import CELLS

# Matmuls that XLA gives to several threads, in the long profile without `-n`.
T, B, D, H = 8, 16, 8, 64
SMALL_SIZES = (11, 2, 3, 4)  # more steps than two chunks of 5
KINDS = ("rnn-tanh", "lstm", "gru")
each_kind = pytest.mark.parametrize("name", KINDS)
each_dtype = pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])


def drawn(cell, dtype, T=T, B=B, D=D, H=H):
    return drawing.drawn(cell, T, (B,), D, H, scale=H**-0.5, dtype=dtype)


def loss(states):
    return sum(jnp.sum(jnp.sin(leaf)) for leaf in states)


@functools.partial(jax.jit, static_argnums=0)
def everything(cell, *case):
    """States, gradients, Jacobians, clipped gradients, exponents."""
    gradients = jax.grad(lambda case: loss(jaxrnn.unroll(cell, *case)))(case)
    clip, run = clipping.clip_by_global_norm(1.0), jaxrnn.Run(cell, *case)
    return (
        jaxrnn.unroll(cell, *case),
        gradients,
        jacobians.closed_form(run),
        clip.update(gradients, clip.init(case)),
        lyapunov.exponents(run, count=4),
    )


def bits(tree):
    """A hash of every bit of every leaf."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()


def fingerprint(name, dtype):
    return bits(everything(CELLS[name], *drawn(CELLS[name], dtype)))


@pytest.mark.parametrize(("name", "dtype"), [("lstm", "float32"), ("gru", "bfloat16")])
@short(name="lstm", dtype="float32")
def test_a_hundred_runs_and_three_fresh_processes_give_the_same_bits(name, dtype):
    here = {fingerprint(name, dtype) for _ in range(100)}
    assert len(here) == 1
    code = (f"from tests import conftest; from tests.test_determinism import fingerprint; "
            f"print(fingerprint({name!r}, {dtype!r}))")  # fmt: skip
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code],
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
@short(name="gru", dtype="bfloat16")
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
@short(name="lstm", dtype="float32", chunk=5)
@short(name="gru", dtype="bfloat16", chunk=1)
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
