"""Every public function of a net, and every transformation of JAX, ready to be put together.

A row is a function of a tuple of arrays, a transformation a way to call it on `At`. Every number
of a case has at most 8 bits, so that it is the same case in every dtype.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

import jaxrnn
from jaxrnn import (
    bptt,
    certificates,
    clipping,
    jacobians,
    layers,
    lyapunov,
    paths,
    products,
    regularizers,
    truncation,
    unrolling,
)
from jaxrnn.numerics.dtypes import accumulator
from jaxrnn.numerics.matrix_products import from_tree
from jaxrnn.numerics.time_axis import entering_states
from tests.support.table import of_run

T, B, D, H = 4, 2, 2, 3
DTYPES = ("float64", "float32", "bfloat16", "float16")
MAIN = ("unroll", "jacobians.closed_form", "bptt.adjoints", "products.transport_norms",
        "clipping.global_norm")  # fmt: skip
SUMMED = ("bptt.contribution_norms", "bptt.temporal_contributions", "truncation.curve",
          "truncation.curve_of_last", "truncation.gradient")  # fmt: skip


# --- rows ---------------------------------------------------------------------------


class Row(NamedTuple):
    """A function of a case.

    call: a case ↦ a tree of arrays. draw: NumPy's generator ↦ a case. specs: its sharding.
    held: a case ↦ the function whose derivatives there are asked for, where they are not those of
        call.
    summed: whether what it gives is of a gradient by the params, summed over the batch.
    slack: how many times the error of others it may have.
    """

    call: Callable[..., Any]
    draw: Callable[[Any], tuple]
    specs: tuple = (P(), P(None, "batch"), P("batch"))
    held: Callable[..., Any] | None = None
    summed: bool = False
    slack: float = 1.0


def numbers(rng, *shape):
    return np.clip(np.round(64 * rng.normal(size=shape)), -127, 127) / 64


def like(cell):
    """The cell itself, or for a bare step the one whose params and state it has."""
    return cell if hasattr(cell, "shapes") else jaxrnn.lstm()


def drawn_params(cell, rng, D=D):
    shapes = like(cell).shapes(D, H)
    return type(shapes)(*[numbers(rng, *shape) / 2 for shape in shapes])


def case_of(cell, rng):
    kind = like(cell).state_type
    state0 = kind(*[numbers(rng, B, H) for _ in kind._fields])
    return drawn_params(cell, rng), numbers(rng, T, B, D), state0


def drawn_net(cell, rng):
    both = layers.Layer(drawn_params(cell, rng), drawn_params(cell, rng))
    return [both, layers.Layer(drawn_params(cell, rng, 2 * H))], numbers(rng, T, B, D)


def loss(states):
    """A sum over examples; every entry has its weight, the last step is coupled to the first."""
    total = 0.0
    for leaf in jax.tree.leaves(states):
        shape = (leaf.shape[0], *[1] * (leaf.ndim - 2), leaf.shape[-1])
        weights = np.cos(np.arange(math.prod(shape))).reshape(shape)
        total = total + jnp.sum(jnp.asarray(weights, leaf.dtype) * leaf + leaf[:1] * leaf[-1:])
    return total


def last_loss(state):
    return sum(jnp.sum(leaf * leaf + leaf) for leaf in jax.tree.leaves(state))


def each_loss(states):
    return (states.h**2).sum((1, 2))


def clipped(params, xs, state0):
    clip, tree = clipping.clip_by_global_norm(1.0), (params, xs, state0)
    updates, state = clip.update(tree, clip.init(tree))
    return updates, state.norm, state.factor


def clipped_twice(params, xs, state0):
    """The second gradient is above what the first made the threshold."""
    clip, tree = clipping.clip_by_running_quantile(0.5), (params, xs, state0)
    _, state = clip.update(tree, clip.init(tree))
    updates, state = clip.update(jax.tree.map(lambda leaf: 2 * leaf, tree), state)
    return updates, state.norm, state.factor, state.log_threshold


def omega_held(cell, *at):
    """Ω as a function of the params in each Jᵢ alone, from the dense Jacobians."""
    before = entering_states(at[2], jaxrnn.unroll(cell, *at))
    adjoints = bptt.adjoints(jaxrnn.Run(cell, *at), loss)
    wide = jnp.concatenate(adjoints, -1)

    def f(params, xs, state0):
        J = from_tree(cell.state_jacobian(params, before, at[1]))
        moved = jnp.einsum("tbij,tbi->tbj", J, wide)
        ratio = jnp.linalg.norm(moved, axis=-1) / jnp.linalg.norm(wide, axis=-1)
        return jnp.sum((ratio - 1) ** 2) / B

    return f


def rows(cell):
    """Every function of a cell, under the name by which `jaxrnn` has it."""
    one_gate = jaxrnn.rnn()

    def of(f, *own):
        return functools.partial(of_run(f, *own), cell)

    # What gives integers or NaN beside its numbers is asked for the numbers.
    calls = {
        "unroll": functools.partial(jaxrnn.unroll, cell),
        "unrolling.last_state": functools.partial(unrolling.last_state, cell),
        **{f"jacobians.{name}": of(getattr(jacobians, name)) for name in jacobians.__all__},
        **{f"bptt.{name}": of(getattr(bptt, name), loss)
           for name in ("adjoints", "contribution_norms", "temporal_contributions")},
        "bptt.credit_matrix": of(bptt.credit_matrix, each_loss),
        "truncation.curve": of(truncation.curve, loss),
        "truncation.curve_of_last": of(truncation.curve_of_last, last_loss),
        "truncation.gradient": of(truncation.gradient, loss, 2),
        "products.adjoint_norms": lambda p, x, s: of(products.adjoint_norms, s)(p, x, s),
        "products.frobenius_norms": of(products.frobenius_norms),
        "products.tangent_norms": lambda p, x, s: of(products.tangent_norms, s)(p, x, s),
        "products.transport": of(lambda run: products.transport(run, 0, 3).unscaled()),
        "products.transport_norms": of(products.transport_norms),
        "certificates.along": of(certificates.along),
        "paths.decompose": of(paths.decompose),
        "paths.transport": of(
            lambda run: [found.unscaled() for found in paths.transport(run, 0, 3)]),
        "lyapunov.exponents": of(
            lambda run: [getattr(lyapunov.exponents(run), leaf) for leaf in ("value", "windows")]),
        "regularizers.flossing": of(regularizers.flossing),
        **{f"regularizers.{name}": of(getattr(regularizers, name), loss)
           for name in ("omega", "omega_at_fixed_adjoints")},
    }  # fmt: skip
    table = {name: Row(call, functools.partial(case_of, cell)) for name, call in calls.items()}
    fixed = "regularizers.omega_at_fixed_adjoints"
    for name in SUMMED:
        table[name] = table[name]._replace(summed=True)
    # By design, 16 n eps σ_max is taken off σ_min; and the last column of a QR loses digits.
    for name, slack in (("certificates.along", 1024.0), ("lyapunov.exponents", 16.0)):
        table[name] = table[name]._replace(slack=slack)
    table[fixed] = table[fixed]._replace(held=functools.partial(omega_held, cell))
    of_net = {
        "layers.adjoints": lambda net, x: layers.adjoints(layers.runs(cell, net, x), loss),
        "layers.direct_adjoints": lambda net, x: layers.direct_adjoints(
            layers.runs(cell, net, x), loss
        ),
        "layers.runs": lambda net, x: layers.runs(cell, net, x),
        "layers.state_jacobians": lambda net, x: layers.state_jacobians(layers.runs(cell, net, x)),
        "layers.unroll_layers": lambda net, x: layers.unroll_layers(cell, net, x),
    }
    draw = functools.partial(drawn_net, cell)
    table |= {name: Row(call, draw, (P(), P(None, "batch"))) for name, call in of_net.items()}
    return table | {
        "layers.outputs": Row(
            lambda states: layers.outputs([layers.Layer(states, states)]),
            lambda rng: (cell.state_type(
                *[numbers(rng, T, B, H) for _ in cell.state_type._fields]),),
            (P(None, "batch"),)),
        "certificates.certify": Row(
            lambda p, x, s: floats(certificates.certify(jaxrnn.Run(one_gate, p, x, s))),
            functools.partial(case_of, one_gate), slack=1024.0),
        "certificates.of_weights": Row(
            lambda p: floats(certificates.of_weights(one_gate, p)),
            lambda rng: (drawn_params(one_gate, rng),), (P(),), slack=16.0),
        "clipping.clip_by_global_norm": Row(clipped, functools.partial(case_of, cell), (P(),) * 3),
        "clipping.clip_by_running_quantile":
            Row(clipped_twice, functools.partial(case_of, cell), (P(),) * 3),
        "clipping.global_norm": Row(
            lambda *tree: clipping.global_norm(tree), functools.partial(case_of, cell), (P(),) * 3),
    }  # fmt: skip


def floats(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


ROWS = rows(jaxrnn.lstm())


# --- transformations ----------------------------------------------------------------


class At(NamedTuple):
    """A case, another one; a direction of the case; three trees of weights for what comes out."""

    case: tuple
    other: tuple
    toward: tuple
    weights: Any  # leaves (3, …)


def point(row, dtype, seed=0):
    rng = np.random.default_rng(seed)
    case, other, toward = row.draw(rng), row.draw(rng), row.draw(rng)
    given = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (case, other, toward))
    out = jax.eval_shape(lambda case: row.call(*case), given[0])
    weights = jax.tree.map(lambda s: jnp.asarray(numbers(rng, 3, *s.shape), s.dtype), out)
    return At(*given, weights)


def stacked(at):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), at.case, at.other)


def mixed(call, weights):
    """Three numbers of what a call gives, summed in the accumulator of the widest leaf."""

    def f(case):
        found = jax.tree.leaves(call(case))
        wide = accumulator(max((y.dtype for y in found), key=lambda dtype: dtype.itemsize))
        terms = [
            (w.astype(wide) * y.astype(wide)[None]).reshape(3, -1).sum(1)
            for w, y in zip(jax.tree.leaves(weights), found, strict=True)
        ]
        return functools.reduce(jnp.add, terms)

    return f


def value_and_pulled(call, at):
    value, pull = jax.vjp(call, at.case)
    return {"value": value, "pulled": pull(jax.tree.map(lambda w: w[0], at.weights))[0]}


def linearized(call, at):
    value, along = jax.linearize(call, at.case)
    return {"value": value, "along": along(at.toward)}


def curved(call, at):
    gradient = jax.grad(lambda case: mixed(call, at.weights)(case)[0])
    return {"curved": jax.jvp(gradient, (at.case,), (at.toward,))[1]}


TRANSFORMS = {
    "eager": lambda call, at: {"value": call(at.case)},
    "jit": lambda call, at: {"value": jax.jit(call)(at.case)},
    "lower and compile": lambda call, at: {
        "value": jax.jit(call).lower(at.case).compile()(at.case)},
    "export": lambda call, at: {"value": jax.export.export(jax.jit(call))(at.case).call(at.case)},
    "vmap": lambda call, at: {"both": jax.jit(jax.vmap(call))(stacked(at))},
    "scan": lambda call, at: {"both": jax.jit(
        lambda both: jax.lax.scan(lambda _, case: (None, call(case)), None, both)[1])(stacked(at))},
}  # fmt: skip
DERIVATIVES = {
    "jvp": lambda call, at: dict(
        zip(("value", "along"), jax.jvp(call, (at.case,), (at.toward,)), strict=True)),
    "linearize": linearized,
    "jacfwd": lambda call, at: {"rows": jax.jacfwd(mixed(call, at.weights))(at.case)},
    "vjp": value_and_pulled,
    "jacrev": lambda call, at: {"rows": jax.jacrev(mixed(call, at.weights))(at.case)},
    "checkpoint": lambda call, at: value_and_pulled(jax.checkpoint(call), at),
    "hvp": curved,
}  # fmt: skip
# LLVM's optimisations are most of the time, and nothing that a derivative is made of.
QUICKLY = {"xla_backend_optimization_level": 0}


@functools.cache
def program(row, transform):
    """At ↦ what the transformation gives, a dict."""
    call = lambda case: row.call(*case)  # noqa: E731
    if transform in TRANSFORMS:
        return functools.partial(TRANSFORMS[transform], call)
    return jax.jit(functools.partial(DERIVATIVES[transform], call), compiler_options=QUICKLY)
