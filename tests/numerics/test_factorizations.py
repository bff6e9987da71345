"""Factorizations: JAX's own numbers, derivatives of their definitions, and no call that hangs."""

import functools
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxrnn
from jaxrnn.numerics import factorizations
from tests.support.table import split

EPS = float(np.finfo(np.float64).eps)


def stack(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def symmetric(a):
    return (a + np.swapaxes(a, -1, -2)) / 2


# What each gives, as NumPy does it, one matrix at a time.
NUMPY = {
    "qr": lambda a: np.linalg.qr(a)[1],
    "singular_values": lambda a: np.linalg.svd(a, compute_uv=False),
    "symmetric_eigenvalues": np.linalg.eigvalsh,
    "eigenvalues": lambda a: np.sort(np.abs(np.linalg.eigvals(a))),
}


def ours(name, a):
    if name == "qr":
        return factorizations.qr(a)[1]
    if name == "eigenvalues":
        return jnp.sort(jnp.abs(factorizations.eigenvalues(a)), axis=-1)
    return getattr(factorizations, name)(a)


def stack_for(name, *shape):
    a = stack(*shape)
    return symmetric(a) if name == "symmetric_eigenvalues" else a


@pytest.mark.parametrize("name", NUMPY)
@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (0,), (2, 0)])
def test_values_for_any_leading_axes(name, lead):
    a = stack_for(name, *lead, 5, 5)
    found = ours(name, jax.device_put(a))
    flat = a.reshape(-1, 5, 5) if a.size else a.reshape(0, 5, 5)
    expected = np.array([NUMPY[name](one) for one in flat]).reshape(found.shape)
    if name == "qr":  # the signs of R's rows are free
        found, expected = np.abs(np.asarray(found)), np.abs(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=200 * EPS * 10)


@pytest.mark.parametrize("name", NUMPY)
@pytest.mark.parametrize(("lead", "n"), [((7, 20), 6), ((2, 2), 27)])
def test_values_where_a_stack_takes_several_calls(name, lead, n):
    """92 of 6×6 at a time and the 48 that are left; one of 27×27 at a time."""
    a = stack_for(name, *lead, n, n)
    found = ours(name, jax.device_put(a))
    flat = a.reshape(-1, n, n)
    expected = np.array([NUMPY[name](one) for one in flat]).reshape(found.shape)
    if name == "qr":  # the signs of R's rows are free
        found, expected = np.abs(np.asarray(found)), np.abs(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e4 * EPS * n)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, lambda f: jax.vmap(jax.vmap(f))])
def test_mapped_axes_are_leading_axes(transform):
    a = jnp.asarray(stack(2, 3, 4, 4))
    q, r = transform(factorizations.qr)(a)
    np.testing.assert_array_equal(np.asarray(q), np.asarray(factorizations.qr(a)[0]))
    np.testing.assert_allclose(np.einsum("...ij,...jk->...ik", q, r), a, rtol=0, atol=50 * EPS)


@pytest.mark.parametrize("name", NUMPY)
def test_derivative_against_differences_of_numpy(name):
    """Fourth order, step 1e-3: right to about 1e-11 where the values are of size 1."""
    a, da = stack_for(name, 4, 4), stack_for(name, 4, 4, 1)[..., 0]
    if name == "symmetric_eigenvalues":
        da = symmetric(da)

    def along(t):
        found = NUMPY[name](a + t * da)
        return found * np.sign(np.diagonal(found))[:, None] if name == "qr" else found

    h = 1e-3
    expected = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
    f = functools.partial(ours, name)
    value, found = jax.jit(lambda a, da: jax.jvp(f, (a,), (da,)))(a, da)
    value, found = np.asarray(value), np.asarray(found)
    if name == "qr":
        found = found * np.sign(np.diagonal(value))[:, None]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["qr", "singular_values", "symmetric_eigenvalues"])
def test_second_derivative_and_reverse_mode_agree_with_forward(name):
    a = stack_for(name, 2, 4, 4)

    def f(a):
        a = (a + jnp.swapaxes(a, -1, -2)) / 2 if name == "symmetric_eigenvalues" else a
        return jnp.sum(jnp.sin(ours(name, a)))

    slope = jax.jit(jax.grad(f))
    forward = jax.jit(jax.jacfwd(f))(a)
    np.testing.assert_allclose(slope(a), forward, rtol=0, atol=1e4 * EPS)
    both = jax.jit(lambda a: [by(jax.grad(f))(a) for by in (jax.jacfwd, jax.jacrev)])
    twice, reverse = map(np.asarray, both(a))
    np.testing.assert_allclose(reverse, twice, rtol=0, atol=1e5 * EPS)
    h = 1e-5  # the gradient, by differences of itself
    move = np.zeros_like(a)
    move[0, 1, 2] = h
    expected = (np.asarray(slope(a + move)) - np.asarray(slope(a - move))) / (2 * h)
    np.testing.assert_allclose(twice[..., 0, 1, 2], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "f", [jaxrnn.products.transport_norms, jaxrnn.certificates.along, jaxrnn.paths.decompose]
)
def test_examples_that_an_explicit_mesh_splits_stay_split(f):
    """The types alone: test_transforms.py compares the numbers, on two devices."""
    cell, (across, mesh) = jaxrnn.lstm(), split(jnp.zeros((5, 4, 3)))
    params = cell.init(jax.random.key(0), 3, 14)  # n = 28: each matrix is a call of its own
    with jax.sharding.use_abstract_mesh(mesh):
        found = jax.eval_shape(lambda p, xs: f(jaxrnn.Run(cell, p, xs)), params, across)
    assert {leaf.sharding.spec for leaf in jax.tree.leaves(found)} == {P(None, "batch")}


def test_orthogonal_is_that_of_jax_for_one_key_and_for_many():
    theirs = jax.nn.initializers.orthogonal()
    keys = jax.random.split(jax.random.key(0), 3)
    found = jax.vmap(lambda key: factorizations.orthogonal(key, (4, 4), jnp.float32))(keys)
    for key, each in zip(keys, found, strict=True):
        np.testing.assert_array_equal(each, theirs(key, (4, 4), jnp.float32))


def held(call, n):
    """How many matrices (n, n) the largest operand or result of a line of lowered text has."""
    shapes = [[int(size) for size in found.split("x")] for found in
              re.findall(r"tensor<((?:\d+x)*\d+)x[a-z]+\d*", call)]  # fmt: skip
    return max(int(np.prod(shape[:-2])) for shape in shapes if shape[-2:] == [n, n])


@pytest.mark.skipif(not factorizations.MAY_WAIT_FOR_ITSELF, reason="this jaxlib cuts no stack")
@pytest.mark.parametrize("name", NUMPY)
@pytest.mark.parametrize(("n", "most"), [(6, 92), (27, 1)])
def test_no_call_holds_a_stack_that_is_worth_cutting(name, n, most):
    """On a CPU; an accelerator keeps its call for the whole stack. 10 n³ · most < 200,000."""

    def mapped(a):
        return jax.vmap(jax.vmap(functools.partial(ours, name)))(a)

    def losses(a):
        return jnp.sum(jnp.sin(mapped(a)))

    a = jnp.zeros((2, 3, 64, n, n))
    for f in (mapped, jax.grad(losses)):
        text = jax.jit(f).lower(a).as_text()
        calls = [line for line in text.splitlines() if "custom_call @lapack" in line]
        assert calls
        assert max(held(call, n) for call in calls) <= most


def test_few_small_matrices_are_one_call():
    a = jnp.zeros((4, 5, 6, 6))
    text = jax.jit(factorizations.singular_values).lower(a).as_text()
    calls = [line for line in text.splitlines() if "custom_call @lapack" in line]
    assert [held(call, 6) for call in calls] == [20]


def run_on_two_cores(module, rounds, seconds):
    """The exit code of tests/support/hang.py with a module's functions; None if it did not end."""
    # A worker of this suite keeps to one core, and its children would.
    code = "import os; hasattr(os, 'sched_setaffinity') and os.sched_setaffinity(0, (0, 1)); "
    code += f"from tests.support import hang; hang.main({module!r}, {rounds})"
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    try:
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, timeout=seconds, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return None


needs_two_cores = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core: nothing is cut")


@needs_two_cores
def test_factorizations_side_by_side_end():
    assert run_on_two_cores("jaxrnn.numerics.factorizations", 50, 300) == 0


@pytest.mark.long
@needs_two_cores
def test_those_of_jax_hang_with_the_versions_that_cut_stacks_and_no_others():
    """Where this fails, the versions in factorizations.py are no longer right."""
    ended = run_on_two_cores("jax.numpy.linalg", 500, 120) == 0
    assert ended == (not factorizations.MAY_WAIT_FOR_ITSELF)
