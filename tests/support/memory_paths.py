"""The paths of an LSTM's memory in NumPy: gates, the blocks of a step, their products."""

import jax
import numpy as np

from tests.support import reference

PATHS = ("memory", "i", "f", "g", "o")


def gates(params, h, c, x):
    """Gates and new state of one step, in NumPy."""
    w_ih, w_hh, b = params
    z = reference.matvec(w_ih, x) + reference.matvec(w_hh, h) + b
    n = h.shape[-1]
    i, f, o = (reference.logistic(z[..., k * n : (k + 1) * n]) for k in (0, 1, 3))
    g = np.tanh(z[..., 2 * n : 3 * n])
    c_new = f * c + i * g
    return i, f, g, o, o * np.tanh(c_new), c_new


def trajectory(params, xs, state0):
    """(params, steps) in NumPy; each step is (c before, i, f, g, o, h, c)."""
    params, xs, (h, c) = jax.tree.map(np.asarray, (tuple(params), xs, tuple(state0)))
    steps = []
    for x in xs:
        before = c
        i, f, g, o, h, c = gates(params, h, c, x)
        steps.append((before, i, f, g, o, h, c))
    return params, xs, steps


def diag(v):
    return v[..., None] * np.eye(v.shape[-1])


def blocks(params, step):
    """What each path of a step passes on: memory (c → c) and (h → c) of a gate, (h → h) of o."""
    before, i, f, g, o, _, c = step
    W = dict(zip("ifgo", np.split(params[1], 4), strict=True))
    F = diag(f)
    B = {"i": diag(g * i * (1 - i)) @ W["i"], "f": diag(before * f * (1 - f)) @ W["f"],
         "g": diag(i * (1 - g * g)) @ W["g"]}  # fmt: skip
    r = diag(o * (1 - np.tanh(c) ** 2))
    E = diag(np.tanh(c) * o * (1 - o)) @ W["o"]
    return F, B, r, E


def products(params, steps, k, t, alpha=None):
    """(exact, four-term, forget) from the blocks, path p of every step multiplied by alpha[p]."""
    alpha = dict.fromkeys(PATHS, 1.0) if alpha is None else alpha
    _, _, r, _ = blocks(params, steps[k])
    one = np.broadcast_to(np.eye(r.shape[-1]), r.shape)
    by_h, by_c, four_term, forget = r, one, one, one
    for i in range(k + 1, t + 1):
        readout, (F, B, r, E) = r, blocks(params, steps[i])
        B = sum(alpha[g] * B[g] for g in B)
        four_term, forget = (F + B @ readout) @ four_term, F @ forget
        by_c, old = alpha["memory"] * F @ by_c + B @ by_h, by_h
        by_h = r @ by_c + alpha["o"] * E @ old
    return by_c, four_term, forget
