"""Every claim of `properties.py` for nets, shapes and masks that hypothesis draws.

Each example is a shape, and many nets of that shape in one mapped program.
"""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxrnn
from tests.support.modes import tol
from tests.support.oracle import Net, Truth
from tests.support.properties import PROPERTIES
from tests.support.table import CELLS

NETS = 8  # in one program
SCALES = (1e-6, 0.1, 0.5, 1.0, 2.0)  # of all weights of a net


@st.composite
def shapes(draw, names):
    """(name, D, H, T, B, seed, masked)."""
    return (
        draw(st.sampled_from(names)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 5)),
        draw(st.integers(1, 2)),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.booleans()),
    )


def nets_of(name, D, H, T, B, seed, masked=False):
    """NETS nets of one shape, each of a scale of its own."""
    generator = np.random.default_rng(seed)
    normal, cell = generator.normal, CELLS[name]
    found = []
    for _ in range(NETS):
        scale = generator.choice(SCALES)
        params = tuple(scale * normal(size=shape) for shape in cell.shapes(D, H))
        state0 = tuple(normal(size=(B, H)) for _ in cell.state_type._fields)
        lengths = generator.integers(0, T + 1, size=B) if masked else None
        resets = generator.random((T, B)) < 0.2 if masked else None
        found.append(Net(name, params, normal(size=(T, B, D)), state0, lengths, resets))
    return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def called(call, cell, params, xs, state0, masks):
    def one(params, xs, state0, masks):
        return call(jaxrnn.Run(cell, params, xs, state0, **masks))

    return jax.vmap(one)(params, xs, state0, masks)


def asked(call, cell, nets):
    """The library's answers, leading axis of nets."""
    given = jax.tree.map(lambda *leaves: np.stack(leaves), *[net[1:4] for net in nets])
    params = type(cell.shapes(1, 1))(*given[0])
    masks = {}
    if nets[0].lengths is not None:
        masks = {"lengths": np.stack([net.lengths for net in nets]),
                 "resets": np.stack([net.resets for net in nets])}  # fmt: skip
    return called(call, cell, params, given[1], cell.state_type(*given[2]), masks)


def told(truth, nets):
    """The oracle's."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *[truth(Truth(net)) for net in nets])


def errors(of, got, want):
    """The largest error of each leaf of each net, over the size of that leaf."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    found = []
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        assert a.shape == b.shape
        axes = tuple(range(1, b.ndim))
        size = np.abs(b).max(axis=axes, initial=0) + of.scale
        error = np.abs(np.asarray(a) - b).max(axis=axes, initial=0)
        found.append(error / np.where((size == 0) & (error == 0), 1, size))
    return np.stack(found)


def check(of, got, want):
    """Net by net and leaf by leaf, so that a large one does not excuse a small one."""
    with np.errstate(divide="ignore"):
        found = errors(of, got, want)
    assert np.all(found <= tol(of.rtol)), found.max()


@pytest.mark.parametrize("name", PROPERTIES)
def test_it_holds_for_every_net(name):
    of = PROPERTIES[name]

    @given(shapes(of.cells))
    def holds(shape):
        nets = nets_of(*shape[:-1], masked=of.masked and shape[-1])
        check(of, asked(of.call, CELLS[shape[0]], nets), told(of.truth, nets))

    holds()
