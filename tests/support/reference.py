"""The three cells once more, in NumPy, from their equations; and their complex-step Jacobians.

Nothing here is shared with the library: names, layout of the code and arithmetic are its own.
All arrays have a leading axis of cases, N.
"""

import numpy as np


def logistic(z):
    return 1.0 / (1.0 + np.exp(-z))


def rectify(z):
    return np.where(z.real > 0, z, 0.0)


ACTIVATIONS = {"tanh": np.tanh, "sigmoid": logistic, "relu": rectify, "identity": lambda z: z}


def matvec(W, v):
    return (W @ v[..., None])[..., 0]


def rnn_step(kind, params, h, x):
    w_ih, w_hh, b = params
    return (ACTIVATIONS[kind](matvec(w_ih, x) + matvec(w_hh, h) + b),)


def lstm_step(params, h, c, x):
    w_ih, w_hh, b = params
    H = h.shape[-1]
    z = matvec(w_ih, x) + matvec(w_hh, h) + b
    in_gate, forget, candidate, out_gate = (z[..., k * H : (k + 1) * H] for k in range(4))
    c_new = logistic(forget) * c + logistic(in_gate) * np.tanh(candidate)
    return logistic(out_gate) * np.tanh(c_new), c_new


def gru_step(params, h, x):
    w_ih, w_hh, b, b_hn = params
    H = h.shape[-1]
    u, a = matvec(w_ih, x) + b, matvec(w_hh, h)
    reset = logistic(u[..., :H] + a[..., :H])
    keep = logistic(u[..., H : 2 * H] + a[..., H : 2 * H])
    candidate = np.tanh(u[..., 2 * H :] + reset * (a[..., 2 * H :] + b_hn))
    return ((1 - keep) * candidate + keep * h,)


def step(name, params, state, x):
    """The next state as a tuple, for a cell of `table.CELLS`."""
    if name.startswith("rnn-"):
        return rnn_step(name[4:], params, *state, x)
    return {"lstm": lstm_step, "gru": gru_step}[name](params, *state, x)


def complex_step_jacobian(name, params, state, x, h=1e-200):
    """∂s/∂s₋ by Im s(s₋ + ih e)/h: a tuple over outputs of tuples over inputs, (N, H, H)."""
    H = state[0].shape[-1]
    blocks = [[None] * len(state) for _ in state]
    for into in range(len(state)):
        columns = []
        for k in range(H):
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
    inner = [bias + off[..., -H:] for bias in rest]  # the sum that the reset gate multiplies
    return (w_ih, w_hh, b + off, *inner)
