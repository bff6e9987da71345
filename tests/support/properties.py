"""What must hold for every net: the library's call, and what the oracle says in its place.

A property is asked of a run, so that the run of a cell with a planted fault can be asked too.
Every result is a tree of arrays whose leading axis is the batch of nets.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import (
    bptt,
    certificates,
    jacobians,
    lyapunov,
    paths,
    products,
    regularizers,
    truncation,
)
from jaxrnn.numerics.matrix_products import from_tree
from tests.support.table import ALL


class Property(NamedTuple):
    """One thing that the library claims.

    call: a run with its own state0 ↦ a tree of arrays, by the library.
    truth: Truth ↦ the same tree by the oracle.
    masked: whether it may be asked of sequences with lengths and resets.
    cells: which of `table.ALL` it is about.
    scale: added to the largest entry of a leaf, of which `rtol` is what may be off.
    """

    call: Callable[..., Any]
    truth: Callable[[Any], Any]
    masked: bool = True
    cells: tuple[str, ...] = tuple(ALL)
    scale: float = 0.0
    rtol: float = 1e-12


def side_by_side(state):
    return jnp.concatenate(jax.tree.leaves(state), axis=-1)


def flat(tree, lead=0):
    """Leaves side by side behind `lead` axes."""
    return jnp.concatenate(
        [leaf.reshape(*leaf.shape[:lead], -1) for leaf in jax.tree.leaves(tree)], -1
    )


def loss(states):
    """`Truth.loss` of the library's states."""
    s = side_by_side(states)
    weights = jnp.asarray(np.cos(np.arange(s.size)).reshape(s.shape), s.dtype)
    return (weights * s + 0.5 * s * s).sum() + s[0].sum() * s[-1].sum()


def rows(tree, lead):
    """Blocks by (output leaf, input leaf) as one matrix, for Jacobians by inputs or params."""
    return jnp.concatenate([flat(row, lead) for row in tree], axis=lead - 1)


def by_inputs(run):
    found = jacobians.wrt_inputs(run)
    return jnp.concatenate(list(found), axis=-2)


def by_params(run):
    found = jacobians.wrt_params(run)
    return jnp.concatenate([flat(row, 3) for row in found], axis=-2)


def state_jacobian(run):
    return from_tree(jacobians.closed_form(run))


def gradients(run):
    masks = {"lengths": run.lengths, "resets": run.resets}

    def of_states(params, xs, state0):
        return loss(jaxrnn.unroll(run.cell, params, xs, state0, **masks))

    found = jax.grad(of_states, (0, 1, 2))(run.params, run.xs, run.state0)
    return {"params": flat(found[0]), "xs": found[1], "state0": side_by_side(found[2])}


def tangent(run):
    """Forward along the input Jacobian of the first step, one unit of x after another."""

    def pushed(column):
        dxs = jnp.zeros_like(run.xs).at[0, :, column].set(1.0)

        def states(xs):
            return side_by_side(dataclasses.replace(run, xs=xs).states())

        return jax.jvp(states, (run.xs,), (dxs,))[1][-1]

    return jnp.stack([pushed(d) for d in range(run.xs.shape[-1])], axis=-1)


def measured(run):
    found = bptt.contribution_norms(run, loss)
    norm = jnp.sqrt(sum(leaf**2 for leaf in jax.tree.leaves(found.norm)))
    inner = sum(jax.tree.leaves(found.inner))
    return {"norm": norm, "inner": inner, "total": flat(found.total)}


def truth_measured(t):
    total = t.contributions.sum(0)
    return {"norm": np.linalg.norm(t.contributions, axis=1), "inner": t.contributions @ total,
            "total": total}  # fmt: skip


def curve(run):
    return truncation.curve(run, loss)._asdict()


def truth_curve(t):
    whole = t.contributions.sum(0)
    cut = [t.truncated(K) for K in range(1, t.T + 1)]
    size = np.linalg.norm
    if not size(whole):  # every sequence has length 0
        return {"bias": np.zeros(t.T), "cosine": np.ones(t.T)}
    return {"bias": np.stack([size(g - whole) / size(whole) for g in cut]),
            "cosine": np.stack([g @ whole / size(g) / size(whole) for g in cut])}  # fmt: skip


def last_of_norms(f):
    """Norms themselves: their logs have no digits where a net forgets."""
    return lambda run: jnp.exp(f(run))


def ones_like(state0):
    return jax.tree.map(jnp.ones_like, state0)


def transport_of_all(run):
    found = products.transport(run, 0, run.xs.shape[0] - 1)
    return from_tree(found.unscaled())


def adjoint_sizes(run):
    return jnp.exp(products.adjoint_norms(run, ones_like(run.state0)))


def tangent_sizes(run):
    return jnp.exp(products.tangent_norms(run, ones_like(run.state0)))


def truth_tangent_sizes(t):
    return np.stack([np.linalg.norm(t.transport(0, i).sum(-1), axis=-1) for i in range(t.T)])


def bounds(run):
    found = certificates.along(run)
    return {"step": jnp.exp(found.step_upper), "all": jnp.exp(found.upper)}


def truth_bounds(t):
    most = t.singular_values[..., 0]
    later = [np.prod(most[k + 1 :], axis=0) for k in range(t.T)]
    return {"step": most, "all": np.stack(later)}


def weight_bound(run):
    found = certificates.of_weights(run.cell, run.params)
    return {"gamma σ": found.gamma * found.sigma_max, "bound": found.bound}


def truth_weight_bound(t):
    gamma = {"rnn-sigmoid": 0.25}.get(t.net.name, 1.0)
    value = gamma * np.linalg.norm(t.net.params[1], 2)
    return {"gamma σ": value, "bound": value}


def c_to_c(run):
    found = paths.transport(run, 0, run.xs.shape[0] - 1)
    return found.exact.unscaled()


def truth_c_to_c(t):
    """[0 1] Jₜ ⋯ J₁ [∂h/∂c; 1] from the first step on."""
    H = t.net.state0[0].shape[-1]
    h, c = t.states[0, :, :H], t.states[0, :, H:]
    readout = h / np.tanh(c) * (1 - np.tanh(c) ** 2)
    whole = t.transport(0, t.T - 1)[:, H:]
    return whole[..., :H] * readout[:, None, :] + whole[..., H:]


ONE_GATE = ("rnn-tanh", "rnn-sigmoid", "rnn-relu", "rnn-identity")
SMOOTH = (
    "rnn-tanh", "rnn-sigmoid", "lstm", "gru", "cifg", "janet", "mgu", "ugrnn", "peephole_lstm",
)  # fmt: skip

PROPERTIES = {
    "state Jacobian": Property(state_jacobian, lambda t: t.J),
    "input Jacobian": Property(by_inputs, lambda t: t.Jx),
    "param Jacobian": Property(by_params, lambda t: t.Jp),
    "tangent of unroll": Property(
        tangent,
        lambda t: np.stack([t.transport(0, t.T - 1)[b] @ t.Jx[0, b] for b in range(t.B)]),
    ),
    "gradient of unroll": Property(gradients, lambda t: {
        "params": t.contributions.sum(0), "xs": t.input_gradient, "state0": t.state0_gradient}),
    "adjoints": Property(
        lambda run: side_by_side(bptt.adjoints(run, loss)), lambda t: t.adjoints),
    "temporal contributions": Property(
        lambda run: flat(bptt.temporal_contributions(run, loss), 1), lambda t: t.contributions),
    "contribution norms": Property(measured, truth_measured),
    "truncated gradient": Property(
        lambda run: flat(truncation.gradient(run, loss, min(2, run.xs.shape[0]))),
        lambda t: t.truncated(2)),
    "truncation curve": Property(curve, truth_curve, scale=1.0),
    "transport": Property(transport_of_all, lambda t: t.transport(0, t.T - 1)),
    "transport norms": Property(
        last_of_norms(products.transport_norms),
        lambda t: np.linalg.norm(t.transports, 2, axis=(-2, -1))),
    "Frobenius norms": Property(
        last_of_norms(products.frobenius_norms),
        lambda t: np.linalg.norm(t.transports, axis=(-2, -1))),
    "adjoint norms": Property(
        adjoint_sizes, lambda t: np.linalg.norm(t.transports.sum(-2), axis=-1)),
    "tangent norms": Property(tangent_sizes, truth_tangent_sizes),
    "bounds along a trajectory": Property(bounds, truth_bounds),
    "bound by the weights": Property(weight_bound, truth_weight_bound, False, ONE_GATE),
    "cell-state transport": Property(c_to_c, truth_c_to_c, False, ("lstm", "cifg")),
    "omega": Property(
        lambda run: regularizers.omega(run, loss), lambda t: t.omega, scale=1.0),
    # The last column of a QR has lost the digits of the matrix's condition number.
    "Lyapunov exponents": Property(
        lambda run: lyapunov.exponents(run).value, lambda t: t.exponents, False, SMOOTH, 1.0, 1e-6),
}  # fmt: skip
