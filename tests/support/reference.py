"""The cells once more, in NumPy, from their equations; and their complex-step Jacobians.

Nothing here is shared with the library: names, layout of the code and arithmetic are its own.
All arrays have a leading axis of cases, N.
"""

import functools

import numpy as np


def logistic(z):
    return 1.0 / (1.0 + np.exp(-z))


def rectify(z):
    return np.where(z.real > 0, z, 0.0)


def ramp(z, slope):
    """min(max(slope·z + ½, 0), 1), the hard sigmoid."""
    line = slope * z + 0.5
    return np.where(line.real <= 0, 0.0, np.where(line.real >= 1, 1.0, line))


def bent(z):
    """z/(1 + |z|), the softsign."""
    return z / (1 + np.where(z.real >= 0, z, -z))


ACTIVATIONS = {"tanh": np.tanh, "sigmoid": logistic, "relu": rectify, "identity": lambda z: z}


def matvec(W, v):
    return (W @ v[..., None])[..., 0]


def rnn_step(kind, params, h, x):
    w_ih, w_hh, b = params
    return (ACTIVATIONS[kind](matvec(w_ih, x) + matvec(w_hh, h) + b),)


def blocks(z, count):
    """The gate blocks of `(…, count·H)`."""
    H = z.shape[-1] // count
    return [z[..., k * H : (k + 1) * H] for k in range(count)]


def lstm_step(params, h, c, x, gate=logistic, squash=np.tanh):
    w_ih, w_hh, b = params
    z = matvec(w_ih, x) + matvec(w_hh, h) + b
    in_gate, forget, candidate, out_gate = blocks(z, 4)
    c_new = gate(forget) * c + gate(in_gate) * squash(candidate)
    return gate(out_gate) * squash(c_new), c_new


def gru_step(params, h, x, gate=logistic, squash=np.tanh):
    w_ih, w_hh, b, b_hn = params
    H = h.shape[-1]
    u, a = matvec(w_ih, x) + b, matvec(w_hh, h)
    reset = gate(u[..., :H] + a[..., :H])
    keep = gate(u[..., H : 2 * H] + a[..., H : 2 * H])
    candidate = squash(u[..., 2 * H :] + reset * (a[..., 2 * H :] + b_hn))
    return ((1 - keep) * candidate + keep * h,)


def cifg_step(params, h, c, x):
    w_ih, w_hh, b = params
    forget, candidate, out_gate = blocks(matvec(w_ih, x) + matvec(w_hh, h) + b, 3)
    c_new = logistic(forget) * c + (1 - logistic(forget)) * np.tanh(candidate)
    return logistic(out_gate) * np.tanh(c_new), c_new


def janet_step(params, h, x):
    w_ih, w_hh, b = params
    forget, candidate = blocks(matvec(w_ih, x) + matvec(w_hh, h) + b, 2)
    return (logistic(forget) * h + (1 - logistic(forget - 1)) * np.tanh(candidate),)


def mgu_step(params, h, x):
    w_ih, w_hh, b, b_hn = params
    (uf, un), (af, an) = blocks(matvec(w_ih, x) + b, 2), blocks(matvec(w_hh, h), 2)
    forget = logistic(uf + af)
    return ((1 - forget) * np.tanh(un + forget * (an + b_hn)) + forget * h,)


def ugrnn_step(params, h, x):
    w_ih, w_hh, b = params
    update, candidate = blocks(matvec(w_ih, x) + matvec(w_hh, h) + b, 2)
    return (logistic(update) * h + (1 - logistic(update)) * np.tanh(candidate),)


def peephole_step(params, h, c, x):
    w_ih, w_hh, b, p_in, p_forget, p_out = params
    zi, zf, zg, zo = blocks(matvec(w_ih, x) + matvec(w_hh, h) + b, 4)
    c_new = logistic(zf + p_forget * c) * c + logistic(zi + p_in * c) * np.tanh(zg)
    return logistic(zo + p_out * c_new) * np.tanh(c_new), c_new


def antisymmetric_step(params, h, x):
    w_ih, w_hh, b = params
    W = w_hh - np.swapaxes(w_hh, -1, -2) - 0.1 * np.eye(w_hh.shape[-1])
    return (np.tanh(matvec(w_ih, x) + matvec(W, h) + b),)


def projected_step(params, h, c, x):
    w_ih, w_hh, b, w_hr = params
    zi, zf, zg, zo = blocks(matvec(w_ih, x) + matvec(w_hh, h) + b, 4)
    c_new = logistic(zf) * c + logistic(zi) * np.tanh(zg)
    return matvec(w_hr, logistic(zo) * np.tanh(c_new)), c_new


STEPS = {
    "lstm": lstm_step,
    "gru": gru_step,
    "cifg": cifg_step,
    "janet": janet_step,
    "mgu": mgu_step,
    "ugrnn": ugrnn_step,
    "peephole_lstm": peephole_step,
    "projected_lstm": projected_step,
    "antisymmetric": antisymmetric_step,
    "lstm-hard": functools.partial(lstm_step, gate=functools.partial(ramp, slope=1 / 6)),
    "lstm-softsign": functools.partial(lstm_step, squash=bent),
    "gru-hard": functools.partial(gru_step, gate=functools.partial(ramp, slope=0.2)),
}


def step(name, params, state, x):
    """The next state as a tuple, for a cell of `table.CELLS`."""
    if name.startswith("rnn-"):
        return rnn_step(name[4:], params, *state, x)
    return STEPS[name](params, *state, x)


def complex_step_jacobian(name, params, state, x, h=1e-200):
    """∂s/∂s₋ by Im s(s₋ + ih e)/h: a tuple over outputs of tuples over inputs, (N, H, H)."""
    blocks = [[None] * len(state) for _ in state]
    for into in range(len(state)):
        columns = []
        for k in range(state[into].shape[-1]):
            moved = [leaf.astype(complex) for leaf in state]
            moved[into][..., k] += 1j * h
            columns.append([out.imag / h for out in step(name, params, tuple(moved), x)])
        for out in range(len(state)):
            blocks[out][into] = np.stack([column[out] for column in columns], axis=-1)
    return blocks


def rounded_sums(params, state, x, generator):
    """Params whose biases are off by what rounding may do to the pre-activations.

    A sum of n products is off by at most n eps Σ|terms|; the signs are drawn.
    """
    w_ih, w_hh, b, *rest = params
    n = w_ih.shape[-1] + w_hh.shape[-1] + 1
    terms = matvec(np.abs(w_ih), np.abs(x)) + matvec(np.abs(w_hh), np.abs(state[0])) + np.abs(b)
    off = n * 2.0**-52 * terms * generator.choice([-1.0, 1.0], size=terms.shape)
    H = state[0].shape[-1]
    if len(rest) == 1 and rest[0].ndim == b.ndim:  # in the sum that the reset gate multiplies
        rest = [rest[0] + off[..., -H:]]
    return (w_ih, w_hh, b + off, *rest)
