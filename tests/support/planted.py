"""Cells with one wrong derivative each, and what `verify` has to say of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

import jaxrnn


def with_tangent(cell, tangent, name):
    return dataclasses.replace(cell, name=name, phi=cell.phi._replace(tangent=tangent))


def scaled(cell, field, factor=0.5):
    """One coefficient of the tangent off by a factor."""

    def tangent(p, ds, dv):
        return cell.phi.tangent(p._replace(**{field: factor * getattr(p, field)}), ds, dv)

    return with_tangent(cell, tangent, f"{cell.name}-{field}")


def swapped(cell, a, b):
    """Two coefficients exchanged."""

    def tangent(p, ds, dv):
        return cell.phi.tangent(p._replace(**{a: getattr(p, b), b: getattr(p, a)}), ds, dv)

    return with_tangent(cell, tangent, f"{cell.name}-{a}-for-{b}")


def one_unit(cell, field):
    """One coefficient wrong in its first unit only."""

    def tangent(p, ds, dv):
        wrong = getattr(p, field).at[..., 0].multiply(0.99)
        return cell.phi.tangent(p._replace(**{field: wrong}), ds, dv)

    return with_tangent(cell, tangent, f"{cell.name}-{field}-unit")


def with_coefficient(cell, field, wrong, name):
    """One coefficient as `wrong(state, u, a, right)` gives it."""

    def partials(s, u, a, *w):
        p = cell.phi.partials(s, u, a, *w)
        return p._replace(**{field: wrong(s, u, a, p)})

    phi = cell.phi._replace(partials=partials)
    return dataclasses.replace(cell, name=f"{cell.name}-{name}", phi=phi)


def entering(cell, wrong, name):
    """Tangents of the units as `wrong` gives them."""

    def enter(p, dw):
        return cell.phi.enter(p, wrong(*dw))

    phi = cell.phi._replace(enter=enter)
    return dataclasses.replace(cell, name=f"{cell.name}-{name}", phi=phi)


lstm, gru, rnn = jaxrnn.lstm(), jaxrnn.gru(), jaxrnn.rnn()
cifg, mgu, janet, ugrnn = jaxrnn.cifg(), jaxrnn.mgu(), jaxrnn.janet(), jaxrnn.ugrnn()
peephole, projected = jaxrnn.peephole_lstm(), jaxrnn.projected_lstm(2)
hard = jaxrnn.lstm(gate=jaxrnn.activations.hard_sigmoid)
soft = jaxrnn.activations.keras2_hard_sigmoid


# --- faults of one method, whatever it gives or is given -----------------------------


def with_method(cell, method, wrong, name):
    """The cell with one method replaced by `wrong(right, self, *arguments)`."""
    right = getattr(type(cell), method)

    def replaced(self, *arguments):
        return wrong(functools.partial(right, self), self, *arguments)

    kind = type("Planted", (type(cell),), {method: replaced})
    kind = jax.tree_util.register_static(dataclasses.dataclass(frozen=True)(kind))
    fields = {field.name: getattr(cell, field.name) for field in dataclasses.fields(cell)}
    return kind(**fields | {"name": f"{cell.name}-{method}-{name}"})


def given_out(spoil):
    """The fault of a result."""
    return lambda right, self, *arguments: jax.tree.map(spoil, right(*arguments))


def taken_in(spoil):
    """The fault of what params or state are."""
    return lambda right, self, *arguments: right(*spoil(self, *arguments))


def gates_swapped(self, params, state, x):
    """W_hh and W_ih with the rows of the first two gates exchanged."""
    H = state.h.shape[-1]

    def turned(leaf):
        return jnp.concatenate([leaf[H : 2 * H], leaf[:H], leaf[2 * H :]])

    wrong = {field: turned(getattr(params, field)) for field in ("w_ih", "w_hh")}
    return params._replace(**wrong), state, x


def no_output_rows(self, params, state, x):
    """W_hh without the rows of the output gate."""
    return params._replace(w_hh=params.w_hh.at[-state.h.shape[-1] :].set(0)), state, x


METHODS = {
    "50 % off": given_out(lambda leaf: 0.5 * leaf),
    "one entry 0.1 % off": given_out(lambda leaf: leaf.at[..., 0].multiply(1.001)),
    "transposed": given_out(lambda leaf: leaf.swapaxes(-1, -2)),
    "one step late": taken_in(lambda self, p, s, x: (p, self.update(p, s, self.project(p, x)), x)),
    "gates swapped": taken_in(gates_swapped),
    "no output feedback": taken_in(no_output_rows),
    "bias dropped": taken_in(lambda self, p, s, x: (p._replace(b=jnp.zeros_like(p.b)), s, x)),
}
JACOBIANS = ("state_jacobian", "input_jacobian", "param_jacobian")
# Closed form of the LSTM ↦ its faults. Only ∂s/∂s₋ has blocks that can be transposed.
SPOILT = {
    f"{method}: {fault}": with_method(lstm, method, wrong, fault)
    for method in JACOBIANS
    for fault, wrong in METHODS.items()
    if fault != "transposed" or method == "state_jacobian"
}  # fmt: skip


def without(field):
    """A drive to which one leaf's tangent does not belong."""

    def wrong(right, self, params, partials, state, x, dparams, dx):
        if dparams is not None:
            dparams = dparams._replace(**{field: jnp.zeros_like(getattr(dparams, field))})
        return right(params, partials, state, x, dparams, dx)

    return wrong


def late_drive(right, self, params, partials, state, x, dparams, dx):
    """δW_hh meets the state that the step before started from."""
    return right(params, partials, jax.tree.map(lambda s: jnp.roll(s, 1, 0), state), x, dparams, dx)


def transposed_push(right, self, params, partials, dstate, drive):
    """Each gate's block of W_hh transposed."""
    H = params.w_hh.shape[-1]
    blocks = [params.w_hh[k : k + H].T for k in range(0, len(params.w_hh), H)]
    return right(params._replace(w_hh=jnp.concatenate(blocks)), partials, dstate, drive)


TANGENTS = {
    "drive: bias dropped": with_method(lstm, "drive", without("b"), "no-bias"),
    "drive: W_ih dropped": with_method(lstm, "drive", without("w_ih"), "no-w_ih"),
    "drive: GRU's inner bias dropped": with_method(gru, "drive", without("b_hn"), "no-b_hn"),
    "drive: 50 % off": with_method(lstm, "drive", given_out(lambda leaf: 0.5 * leaf), "half"),
    "push: transposed": with_method(lstm, "push", transposed_push, "transposed"),
    "push: one entry 0.1 % off": with_method(
        gru, "push", given_out(lambda leaf: leaf.at[..., 0].multiply(1.001)), "entry"
    ),
}  # fmt: skip


def with_merge(cell, merge, name):
    return dataclasses.replace(cell, name=name, phi=cell.phi._replace(merge=merge))


def no_output_feedback(p, du, da):
    return du + da.at[..., 3 * (da.shape[-1] // 4) :].set(0)


def reset_before_matmul(p, du, da):
    """What a GRU would read whose candidate sees aⁿ unscaled."""
    return du + da


def from_the_value(p, ds, dv):
    """The forget gate's own value in place of its derivative."""
    return lstm.phi.tangent(p._replace(kf=p.f), ds, dv)


# cell, and words that `report.located` must contain, and words that it must not
FAULTS = {
    "lstm ki 50 % off": (scaled(lstm, "ki"), ["gate i", "∂c"], ["gate f", "gate g", "gate o"]),
    "lstm kf 50 % off": (scaled(lstm, "kf"), ["gate f", "∂c"], ["gate i", "gate g", "gate o"]),
    "lstm kg 50 % off": (scaled(lstm, "kg"), ["gate g", "∂c"], ["gate i", "gate f", "gate o"]),
    "lstm ko 50 % off": (scaled(lstm, "ko"), ["gate o", "∂h"], ["gate i", "gate f", "∂c/"]),
    "lstm f 1e-12 off": (scaled(lstm, "f", 1 + 1e-12), ["∂c/∂c₋"], ["gate f:"]),
    "lstm r without o": (scaled(lstm, "r", 2.0), ["∂h/∂c₋", "∂h/∂u"], ["∂c/"]),
    "lstm i and g swapped": (swapped(lstm, "ki", "kg"), ["gate i", "gate g"], ["gate f", "gate o"]),
    "lstm one unit 1 % off": (one_unit(lstm, "kf"), ["gate f"], ["gate i", "gate g", "gate o"]),
    "lstm no output feedback": (
        with_merge(lstm, no_output_feedback, "no-feedback"), ["gate o: ∂h/∂a"], ["∂h/∂u", "∂c/"],
    ),
    "lstm value for derivative": (
        with_tangent(lstm, from_the_value, "value"), ["gate f"], ["gate i"],
    ),
    "gru kr 50 % off": (scaled(gru, "kr"), ["gate r"], ["gate z", "gate n"]),
    "gru kz sign": (scaled(gru, "kz", -1.0), ["gate z"], ["gate r", "gate n"]),
    "gru z 1e-12 off": (scaled(gru, "z", 1 + 1e-12), ["∂h/∂h₋"], ["gate r", "gate z", "gate n"]),
    "gru reset before the matmul": (
        with_merge(gru, reset_before_matmul, "reset-before"), ["gate n: ∂h/∂a"], ["∂h/∂u"],
    ),
    "rnn 1e-9 off": (scaled(rnn, "k", 1 + 1e-9), ["gate h"], []),
    "cifg f writes nothing": (
        with_coefficient(cifg, "kf", lambda s, u, a, p: s.c * p.f * (1 - p.f), "no-writing"),
        ["gate f", "∂c"], ["gate g", "gate o"],
    ),
    "cifg ko 50 % off": (scaled(cifg, "ko"), ["gate o", "∂h"], ["gate f", "gate g", "∂c/"]),
    "janet without its β": (
        with_coefficient(janet, "kf", lambda s, u, a, p: (s.h - 0.5) * p.f * (1 - p.f), "no-beta"),
        ["gate f"], ["gate c"],
    ),
    "ugrnn kc 50 % off": (scaled(ugrnn, "kc"), ["gate c"], ["gate g"]),
    "ugrnn g 1e-12 off": (scaled(ugrnn, "g", 1 + 1e-12), ["∂h/∂h₋"], ["gate g", "gate c"]),
    "mgu resets before the matmul": (
        with_merge(mgu, reset_before_matmul, "reset-before"), ["gate n: ∂h/∂a"], ["∂h/∂u"],
    ),
    "mgu kf without the reset": (
        with_coefficient(mgu, "kf", lambda s, u, a, p: s.h * p.f * (1 - p.f), "no-reset"),
        ["gate f"], ["gate n"],
    ),
    "peephole's q is f": (
        with_coefficient(peephole, "q", lambda s, u, a, p: 0.5 * p.q, "q"),
        ["∂c/∂c₋", "∂h/∂c₋"], ["gate i", "gate f", "gate o", "∂c/∂p_f"],
    ),
    "peephole p_f 50 % off": (
        entering(peephole, lambda i, f, o: (i, 0.5 * f, o), "p_f"),
        ["∂c/∂p_f"], ["∂c/∂p_i", "gate f"],
    ),
    "peephole p_o sign": (
        entering(peephole, lambda i, f, o: (i, f, -o), "p_o"),
        ["∂h/∂p_o"], ["∂c/∂p_f", "gate o"],
    ),
    "projected r 50 % off": (scaled(projected, "r"), ["∂h/∂c₋"], ["∂c/"]),
    "projected kg 50 % off": (scaled(projected, "kg"), ["gate g"], ["gate i", "gate o"]),
    "hard sigmoid of another slope": (
        dataclasses.replace(
            hard, name="hard-slope",
            phi=hard.phi._replace(partials=jaxrnn.lstm(gate=soft).phi.partials)),
        ["gate i", "gate f", "gate o"], [],
    ),
}  # fmt: skip


def transposed(params, state, x):
    """∂h/∂h₋ of a tanh network, transposed."""
    z = params.w_ih @ x + params.w_hh @ state.h + params.b
    return jaxrnn.RNNState(h=jaxrnn.RNNState(h=(jnp.diag(1 - jnp.tanh(z) ** 2) @ params.w_hh).T))


def one_step_late(params, state, x):
    """∂h/∂h₋ of a tanh network at the state before the step."""
    return jaxrnn.RNNState(h=jaxrnn.RNNState(h=jnp.diag(1 - state.h**2) @ params.w_hh))


def right(params, state, x):
    """∂h/∂h₋ of a tanh network."""
    z = params.w_ih @ x + params.w_hh @ state.h + params.b
    return jaxrnn.RNNState(h=jaxrnn.RNNState(h=jnp.diag(1 - jnp.tanh(z) ** 2) @ params.w_hh))


def one_example(params, state, x):
    z = params.w_ih @ x + params.w_hh @ state.h + params.b
    return jaxrnn.RNNState(h=jnp.tanh(z))


def by_hand(jacobian):
    """A bare step with a Jacobian written by hand."""
    return jaxrnn.from_step(
        one_example, init=rnn.init, init_state=rnn.init_state, jacobian=jacobian, name="by-hand"
    )


@jax.custom_vjp
def forgetful(z):
    return jnp.tanh(z)


forgetful.defvjp(lambda z: (jnp.tanh(z), z), lambda z, ct: (0.5 * ct,))


@jax.custom_jvp
def careless(z):
    return jnp.tanh(z)


careless.defjvp(lambda primals, tangents: (jnp.tanh(primals[0]), 0.9 * tangents[0]))


def careless_step(params, state, x):
    z = params.w_ih @ x + params.w_hh @ state.h + params.b
    return jaxrnn.RNNState(h=careless(z))


def detached_step(params, state, x):
    """A step whose recurrent path was cut by mistake."""
    z = params.w_ih @ x + params.w_hh @ jax.lax.stop_gradient(state.h) + params.b
    return jaxrnn.RNNState(h=jnp.tanh(z))


def bare(step):
    return jaxrnn.from_step(step, init=rnn.init, init_state=rnn.init_state)


wrong_forget_gate = FAULTS["lstm kf 50 % off"][0]  # what the command-line test names
