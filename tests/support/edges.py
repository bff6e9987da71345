"""Every public function of a net, what NumPy says in its place at any size, and what is refused.

The sizes are those of `test_edges.py`; NumPy's part is `oracle.py`, which needs a batch axis, an
example and an input.
"""

import copy
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxrnn
from jaxrnn import (
    bptt,
    jacobians,
    layers,
    matrix_products,
    paths,
    products,
    truncation,
)
from jaxrnn.analysis.certificates import certify, of_weights
from jaxrnn.analysis.lyapunov import exponents
from jaxrnn.nets.layers import Layer
from jaxrnn.running.unrolling import by_autodiff, last_state
from jaxrnn.training.clipping import clip_by_global_norm, clip_by_running_quantile, global_norm
from jaxrnn.training.initializers import scaled_to_exponent
from jaxrnn.training.regularizers import flossing, omega, omega_at_fixed_adjoints
from tests.support import drawing, memory_paths
from tests.support.oracle import Net, Truth
from tests.support.table import BARE_LSTM, CELLS, of_run

KINDS = {name: CELLS[name] for name in ("lstm", "gru", "rnn-tanh", "rnn-relu")}
KINDS["step"] = BARE_LSTM
SIZES = {  # (T, B or None for no batch axis, D, H)
    "T0": (0, 2, 3, 4), "T0-B0": (0, 0, 3, 4), "T0-alone": (0, None, 3, 4), "T0-H1": (0, 2, 3, 1),
    "T1": (1, 2, 3, 4), "T1-B0": (1, 0, 3, 4), "T1-B1": (1, 1, 3, 4), "T1-alone": (1, None, 3, 4),
    "T1-D0": (1, 2, 0, 4), "T1-B1-D1-H1": (1, 1, 1, 1), "B0": (3, 0, 3, 4), "B0-H1": (3, 0, 3, 1),
    "B1-D1": (3, 1, 1, 4), "alone": (3, None, 3, 4), "alone-D0": (3, None, 0, 4),
    "H1": (3, 2, 3, 1), "H1-D1": (3, 2, 1, 1), "D0": (3, 2, 0, 4),
}  # fmt: skip
# Each size with one cell at least, each single edge with several.
MET = {
    "lstm": ("T0", "T1", "B0", "H1", "alone-D0", "T1-B1-D1-H1"),
    "gru": ("T0-B0", "T1-D0", "B1-D1"),
    "rnn-tanh": ("T0-alone", "T1-B1", "B0-H1", "alone"),
    "rnn-relu": ("T0-H1", "T1-B0", "H1-D1"),
    "step": ("T0", "B0", "T1-alone", "D0"),
}


def drawn(name, size, many=(), seed=1):
    """(params, xs, state0) of a net of `KINDS`."""
    T, B, D, H = size
    batch, like = () if B is None else (B,), CELLS["lstm" if name == "step" else name]
    params, xs, state0 = drawing.drawn(like, T, batch, D, H, seed=seed, many=many)
    if name == "rnn-relu":  # no unit at rest: its logs are -inf
        params = params._replace(w_hh=abs(params.w_hh), b=4 + params.b)
    return jax.tree.map(np.array, (params, xs, state0))


def one_of(cases, i):
    return jax.tree.map(lambda leaf: leaf[i], cases)


# --- what NumPy says, `(·, B, ·)`, and its leaves with the batch axes of the case ------------


def truth(name, params, xs, state0):
    """The oracle's of at least one example and one input, cut to those that there are."""
    params, xs, state0 = jax.tree.map(np.float64, (params, xs, state0))
    (T, *batch, D), H, B = xs.shape, state0[0].shape[-1], int(np.prod(xs.shape[1:-1]))
    wide = np.zeros((T, max(B, 1), max(D, 1)))
    wide[:, :B, :D] = xs.reshape(T, B, D)
    rows = [np.concatenate([leaf.reshape(B, H), np.ones((max(1 - B, 0), H))]) for leaf in state0]
    none = np.zeros((len(params.w_ih), max(1 - D, 0)))
    whole = params._replace(w_ih=np.concatenate([params.w_ih, none], axis=1))
    t = Truth(Net("lstm" if name == "step" else name, tuple(whole), wide, tuple(rows), None, None))
    t.states, t.J, t.Jx = t.states[:, :B], t.J[:, :B], t.Jx[:, :B, :, :D]
    t.Jp, t.first = t.Jp[:, :B, :, none.size :], np.concatenate(rows, -1)[:B]
    t.case, t.B, t.batch = (name, params, xs, state0), B, tuple(batch)
    t.H, t.n, t.count = H, H * len(state0), len(state0)
    t.direct = t.states + slope(t)
    return t


def slope(t, first=1):
    """∂E/∂s - s of `energy`, whose first leaf is number `first`."""
    return np.repeat(first + np.arange(t.count), t.H)


def read(t, weights):
    """The same steps under a loss that weights each step's energy."""
    t = copy.copy(t)
    t.direct = (t.states + slope(t)) * np.reshape(weights, (-1, 1, 1))
    return t


def shaped(t, a, tail):
    at = a.ndim - tail
    return a.reshape((*a.shape[: at - 1], *t.batch, *a.shape[at:]))


def by_leaf(t, a, tail=1):
    return np.split(shaped(t, a, tail), t.count, axis=-tail)


def blocks(t, J):
    return [block for row in by_leaf(t, J, 2) for block in np.split(row, t.count, axis=-1)]


def by_param(t, a):
    ends = np.cumsum([p.size for p in t.case[1]])[:-1]
    parts = zip(np.split(a, ends, axis=-1), t.case[1], strict=True)
    return [part.reshape(*a.shape[:-1], *p.shape) for part, p in parts]


def logs(t, *sizes):
    return [shaped(t, np.log(size), 0) for size in sizes]


def norm(a, axes=2):
    return np.linalg.norm(a, axis=(-2, -1)[-axes:])


def spectral(M):
    return np.linalg.norm(M, 2, axis=(-2, -1))


def transports(t):
    return np.array([t.transport(k, t.T - 1) for k in range(t.T)]).reshape(t.J.shape)


def from_first(t):
    return np.array([t.transport(0, k) for k in range(t.T)]).reshape(t.J.shape)


def product(t):
    one = np.broadcast_to(np.eye(t.n), (t.B, t.n, t.n))
    return functools.reduce(lambda P, J: J @ P, t.J, one)


def cumulative(t):
    found = itertools.accumulate(t.J, lambda P, J: J @ P)
    return [shaped(t, np.array(list(found)).reshape(t.J.shape), 2)]


def contribution_sizes(t):
    total = t.contributions.sum(0)
    each = [c.reshape(t.T, g.size) for c, g in
            zip(by_param(t, t.contributions), by_param(t, total), strict=True)]  # fmt: skip
    inner = [c @ g.ravel() for c, g in zip(each, by_param(t, total), strict=True)]
    return [*[norm(c, 1) for c in each], *inner, *by_param(t, total)]


def curve(t):
    g, cut = t.contributions.sum(0), [t.truncated(K) for K in range(1, t.T + 1)]
    bias = [norm(c - g, 1) / (norm(g, 1) or 1) for c in cut]
    cosine = [c @ g / norm(c, 1) / norm(g, 1) if g.any() else 1 for c in cut]
    return [np.array(bias), np.array(cosine)]


def credit(t):
    found = [norm(by_each) for unit in np.eye(t.T) for by_each in
             np.split(read(t, unit).adjoints, t.count, -1)]  # fmt: skip
    return list(np.array(found).reshape(t.T, t.count, t.T).swapaxes(0, 1))


def bounds(t):
    sigma = np.linalg.svd(t.J, compute_uv=False)
    steps = [np.log(sigma[..., 0]), np.log(sigma[..., -1])]
    later = [np.flip(np.cumsum(np.flip(s, 0), 0), 0) - s for s in steps]
    return [shaped(t, a, 0) for a in (*steps, *later, np.log(spectral(transports(t))))]


def through_c(t, k, last):
    """∂cₜ/∂cₖ: exact, by four terms a step, by forget gates."""
    params, _, steps = memory_paths.trajectory(*t.case[1:])
    return memory_paths.products(params, steps, k, last)


def one_step_of_c(t):
    """By four terms; nothing made h₀ of c₀."""
    later = [through_c(t, i - 1, i)[1] for i in range(1, t.T)]
    return [np.array([*blocks(t, t.J)[3][:1], *later]).reshape(t.T, *t.batch, t.H, t.H)]


def decomposed(t):
    found = []
    for k in range(t.T):
        exact, four, forget = through_c(t, k, t.T - 1)
        found += [np.log(norm(M)) for M in (exact, four, forget)]
        found += [norm(M - exact) / norm(exact) for M in (four, forget)]
        found += [np.full(t.batch, float(k < t.T - 1))]
    return list(np.array(found).reshape(t.T, 6, *t.batch).swapaxes(0, 1))


def horizon(t):
    """From the first step on whose norm, or that of one before, is above half of that at lag 0."""
    felt = np.cumsum(spectral(transports(t)) > 0.5, axis=0) > 0
    return [shaped(t, felt.sum(0), 0)]


def flossed(t):
    v = np.random.default_rng(0).normal(size=t.n)
    rate = np.log(norm(product(t) @ v, 1) / norm(v, 1)) / t.T
    return [np.sum((rate - 0.1) ** 2) / max(t.B, 1)]


def turned(t):
    return truth(*t.case[:2], t.case[2][::-1], t.case[3])


def two_layers(t):
    """Both layers, each with what the loss and the layer above read of it."""
    name, params, _, state0 = t.case
    top = truth(name, params._replace(w_ih=params.w_hh), by_leaf(t, t.states)[0], state0)
    top.direct = top.states + slope(top, 1 + t.count)
    t.direct[..., : t.H] += top.input_gradient
    return t, top


# --- the functions ----------------------------------------------------------------------


class Function(NamedTuple):
    """A public function as one of the arguments of `jaxrnn.unroll`, of which its run is made.

    call: (cell, params, xs, state0, **masks) ↦ a tree of arrays; want: truth ↦ its leaves.
    rows: the axis of the batch in every leaf; else what joins those of two examples, or None.
    causal: whether nothing that follows a step changes its entry.
    smooth: the leaves that have a gradient; None are all of them.
    masked: whether it takes lengths, and does not hand the padding on.
    """

    call: Callable[..., Any]
    want: Callable[[Any], list]
    rows: int | Callable | None = 1
    causal: bool = False
    smooth: tuple[int, ...] | None = None
    masked: bool = True


# Compiled, for where the library asks for its slope without `jit`.
@jax.jit
def energies(states):
    each = enumerate(jax.tree.leaves(states), 1)
    return sum((j * s + 0.5 * s * s).sum(tuple(range(1, s.ndim))) for j, s in each)


@jax.jit
def energy(states):
    """Reads every example by itself."""
    return energies(jax.tree.map(lambda s: s[None], states)).sum()


def of_loss(f, loss=energy):
    return of_run(f, loss)


def of_state(f):
    return lambda cell, p, xs, s0, **masks: of_run(f, s0)(cell, p, xs, s0, **masks)


def of_states(f):
    return lambda *case, **masks: f(jaxrnn.unroll(*case, **masks))


def clipped_by(clip):
    return of_states(lambda states: clip.update(states, clip.init(states))[0])


def unscaled(tree):
    is_scaled = lambda node: hasattr(node, "unscaled")  # noqa: E731
    free = lambda node: node.unscaled() if is_scaled(node) else node  # noqa: E731
    return jax.tree.map(free, tree, is_leaf=is_scaled)


def of_stack(f):
    return lambda *case, **masks: unscaled(f(stack(*case, **masks)))


@of_run
def stack(run):
    return matrix_products.from_tree(jacobians.closed_form(run))


def first_to_last(f):
    return of_run(lambda run: unscaled(f(run, 0, len(run.xs) - 1)))


def both_ways(f):
    return lambda cell, p, xs, s0, **m: f(cell, [Layer(p, p)], xs, [Layer(s0, s0)], **m)


def stacked(f):
    def call(cell, p, xs, s0, **masks):
        net = [Layer(p), Layer(p._replace(w_ih=p.w_hh))]
        return f(layers.runs(cell, net, xs, [Layer(s0)] * 2, **masks), energy)

    return call


def windowed(cell, p, xs, s0, **masks):
    return truncation.gradient(jaxrnn.Run(cell, p, xs, s0, **masks), energy, max(len(xs) - 1, 1))


@of_run
def decompose(run):
    *found, shares = paths.decompose(run)
    return *found, sum(shares.values())


@of_run
def half_felt(run):
    return jaxrnn.memory_horizon(products.transport_norms(run), 0.5, lengths=run.lengths)


def rescaled(cell, p, xs, s0):
    """What it says of the leading exponent, less that exponent."""
    found = scaled_to_exponent(jaxrnn.Run(cell, p, xs, s0), -0.1)
    return found.exponent - exponents(jaxrnn.Run(cell, found.params, xs, s0), count=1).value.mean()


def mean(a, b):
    return (a + b) / 2


FUNCTIONS = {
    "unroll": Function(jaxrnn.unroll, lambda t: by_leaf(t, t.states), causal=True),
    "by_autodiff": Function(by_autodiff, lambda t: by_leaf(t, t.states), causal=True),
    "last_state": Function(last_state, lambda t: by_leaf(t, [t.first, *t.states][-1]), rows=0),
    "closed_form": Function(of_run(jacobians.closed_form), lambda t: blocks(t, t.J), causal=True),
    "forward_mode": Function(of_run(jacobians.forward_mode), lambda t: blocks(t, t.J), causal=True),
    "reverse_mode": Function(of_run(jacobians.reverse_mode), lambda t: blocks(t, t.J), causal=True),
    "wrt_inputs": Function(
        of_run(jacobians.wrt_inputs), lambda t: by_leaf(t, t.Jx, 2), causal=True),
    "wrt_params": Function(of_run(jacobians.wrt_params), lambda t: [
        leaf for row in by_leaf(t, t.Jp, 2) for leaf in by_param(t, row)], causal=True),
    "c_partial": Function(of_run(jacobians.c_partial), lambda t: blocks(t, t.J)[3:], causal=True),
    "c_path": Function(of_run(jacobians.c_path), one_step_of_c, causal=True),
    "adjoints": Function(of_loss(bptt.adjoints), lambda t: by_leaf(t, t.adjoints)),
    "temporal_contributions": Function(
        of_loss(bptt.temporal_contributions), lambda t: by_param(t, t.contributions), np.add),
    "contribution_norms": Function(of_loss(bptt.contribution_norms), contribution_sizes, None),
    "credit_matrix": Function(of_loss(bptt.credit_matrix, energies), credit, np.hypot),
    "gradient": Function(windowed, lambda t: by_param(t, t.truncated(max(t.T - 1, 1))), np.add),
    # The longest window leaves rounding out, whose norm has no gradient.
    "curve": Function(of_loss(truncation.curve), curve, None, smooth=(1,)),
    "curve_of_last": Function(of_loss(truncation.curve_of_last), lambda t: curve(
        read(t, np.arange(t.T) == t.T - 1)), None, smooth=(1,)),
    "transport": Function(
        first_to_last(products.transport), lambda t: blocks(t, t.transport(0, t.T - 1)), 0),
    "transport_norms": Function(
        of_run(products.transport_norms), lambda t: logs(t, spectral(transports(t)))),
    "frobenius_norms": Function(
        of_run(products.frobenius_norms), lambda t: logs(t, norm(transports(t)))),
    "adjoint_norms": Function(of_state(products.adjoint_norms), lambda t: logs(
        t, norm(t.first[:, None] @ transports(t)))),
    "tangent_norms": Function(of_state(products.tangent_norms), lambda t: logs(
        t, norm(from_first(t) @ t.first[..., None])), causal=True),
    "from_tree": Function(of_stack(lambda J: J), lambda t: [shaped(t, t.J, 2)], causal=True),
    "sequential": Function(of_stack(matrix_products.sequential), cumulative, causal=True),
    "associative": Function(of_stack(matrix_products.associative), cumulative, causal=True),
    "product": Function(
        of_stack(matrix_products.product), lambda t: [shaped(t, product(t), 2)], 0),
    "log_norm": Function(
        of_stack(lambda J: matrix_products.log_norm(matrix_products.product(J))),
        lambda t: logs(t, spectral(product(t))), 0),
    "certify": Function(of_run(lambda run: certify(run).trajectory), bounds),
    "of_weights": Function(lambda cell, p, xs, s0: of_weights(cell, p)[1:3], lambda t: [
        spectral(t.case[1].w_hh), np.abs(np.linalg.eigvals(t.case[1].w_hh)).max()],
        None, masked=False),
    "decompose": Function(decompose, decomposed, smooth=(0, 1, 2)),
    "paths.transport": Function(
        first_to_last(paths.transport), lambda t: through_c(t, 0, t.T - 1), 0),
    "exponents": Function(of_run(lambda run: exponents(run).value),
        lambda t: [shaped(t, t.exponents, 1)], 0, masked=False),
    "flossing": Function(
        of_run(functools.partial(flossing, target=0.1)), flossed, mean, masked=False),
    "omega": Function(of_loss(omega), lambda t: [t.omega if t.B else 0], mean),
    "omega_at_fixed_adjoints": Function(
        of_loss(omega_at_fixed_adjoints), lambda t: [t.omega if t.B else 0], mean),
    "global_norm": Function(
        of_states(global_norm), lambda t: [norm(t.states.ravel(), 1)], np.hypot),
    "clip_by_global_norm": Function(clipped_by(clip_by_global_norm(0.5)), lambda t: by_leaf(
        t, t.states * min(1, 0.5 / (norm(t.states.ravel(), 1) or 1))), None),
    "clip_by_running_quantile": Function(
        clipped_by(clip_by_running_quantile(0.5)), lambda t: by_leaf(t, t.states), None),
    "memory_horizon": Function(half_felt, horizon, 0, smooth=()),
    "scaled_to_exponent": Function(rescaled, lambda t: [0], None, smooth=(), masked=False),
    "unroll_layers": Function(both_ways(layers.unroll_layers), lambda t: [
        *by_leaf(t, t.states), *by_leaf(t, turned(t).states[::-1])]),
    "runs": Function(both_ways(layers.runs), lambda t: jax.tree.leaves(
        [t.case[1:], turned(t).case[1:]]), None, masked=False),
    "state_jacobians": Function(
        both_ways(lambda *a, **m: layers.state_jacobians(layers.runs(*a, **m))), lambda t: [
        *blocks(t, t.J), *blocks(t, turned(t).J[::-1])]),
    "layers.adjoints": Function(stacked(layers.adjoints), lambda t: [
        leaf for at in two_layers(t) for leaf in by_leaf(at, at.adjoints)]),
    "direct_adjoints": Function(stacked(lambda *a: layers.direct_adjoints(*a)[1]),
        lambda t: [leaf for at in two_layers(t) for leaf in by_leaf(at, at.direct)]),
}  # fmt: skip

GATED, NO_C = {"lstm", "gru", "step"}, {"gru", "rnn-tanh", "rnn-relu"}
NO_STEP = {size for size, (T, *_) in SIZES.items() if T == 0}
NOTHING = NO_STEP | {size for size, (_, B, *_) in SIZES.items() if B == 0}
REFUSALS = [  # functions, cells, sizes, error, words
    ({"c_partial"}, NO_C, SIZES, TypeError, r"^cell: expected a cell with a state \(h, c\)"),
    ({"c_path", "decompose", "paths.transport"}, NO_C, SIZES, TypeError, "^cell: .* with a state"),
    ({"c_path", "decompose", "paths.transport"}, {"step"}, SIZES, TypeError, "^cell: .* read-out"),
    ({"of_weights"}, GATED, SIZES, ValueError, "^cell: expected one gate"),
    ({"scaled_to_exponent"}, {"step"}, SIZES, TypeError, "^cell: expected a cell in closed form"),
    ({"scaled_to_exponent"}, KINDS, NOTHING, ValueError, "^xs: .* one step of one example"),
    ({"exponents", "flossing"}, KINDS, NO_STEP, ValueError, "^xs: expected at least one step"),
    (
        {"transport", "paths.transport"},
        KINDS,
        NO_STEP,
        ValueError,
        r"^t: .* in \[0, -1\], an empty range",
    ),
    ({"gradient"}, KINDS, NO_STEP, ValueError, r"^window: .* in \[1, 0\], an empty range"),
    ({"memory_horizon"}, KINDS, NO_STEP, ValueError, "^log_norms: expected .* T ≥ 1"),
]


def refusal(f, name, size):
    """(error, words) where that is what is documented."""
    return next((said for functions, cells, sizes, *said in REFUSALS
                 if f in functions and name in cells and size in sizes), None)  # fmt: skip
