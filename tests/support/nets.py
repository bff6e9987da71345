"""Many nets of one shape: what the library says of them in one mapped program, and the oracle."""

import functools

import jax
import numpy as np

import jaxrnn
from tests.support.drawing import shapes_of
from tests.support.modes import tol
from tests.support.oracle import Net, Truth
from tests.support.table import ALL

NETS = 8  # in one program
SCALES = (1e-6, 0.1, 0.5, 1.0, 2.0)  # of all weights of a net


def nets_of(name, D, H, T, B, seed, masked=False):
    """NETS nets of one shape, each of a scale of its own."""
    generator = np.random.default_rng(seed)
    normal, cell = generator.normal, ALL[name]
    found = []
    for _ in range(NETS):
        scale = generator.choice(SCALES)
        of_params, of_state = shapes_of(cell, D, H)
        params = tuple(scale * normal(size=shape) for shape in of_params)
        state0 = tuple(normal(size=(B, *shape)) for shape in of_state)
        lengths = generator.integers(0, T + 1, size=B) if masked else None
        resets = generator.random((T, B)) < 0.2 if masked else None
        found.append(Net(name, params, normal(size=(T, B, D)), state0, lengths, resets))
    return found


@functools.lru_cache(maxsize=4)
def truths_of(*shape):
    """The oracles of `nets_of`, one after another for every property that is asked of a shape."""
    return [Truth(net) for net in nets_of(*shape)]


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
    return told_by(truth, map(Truth, nets))


def told_by(truth, truths):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *map(truth, truths))


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
