"""What the library says of a trajectory, said once more by NumPy alone: equations, complex steps.

Jacobians are complex steps of `reference.step`; the rest is what its definition says of them,
written with loops. Masks are written here as well. Nothing is shared with the library.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np

from tests.support import reference

TINY = 1e-200  # an imaginary step whose square vanishes


class Net(NamedTuple):
    """One case: NumPy arrays. params and state0 are tuples of leaves in the cell's order."""

    name: str  # of `table.ALL`
    params: tuple
    xs: np.ndarray  # (T, B, D)
    state0: tuple  # leaves (B, H)
    lengths: np.ndarray | None
    resets: np.ndarray | None


def derivative(f, *arguments):
    """Of f's outputs side by side, `(n,)`, by the entries of each argument: `(n, size)` each."""
    sizes = [np.size(a) for a in arguments]
    flat = np.concatenate([np.ravel(a) for a in arguments]).astype(complex)
    moved = flat + 1j * TINY * np.eye(flat.size)  # a case for each entry
    parts = np.split(moved, np.cumsum(sizes)[:-1], axis=1)
    shaped = [p.reshape(-1, *np.shape(a)) for p, a in zip(parts, arguments, strict=True)]
    J = np.concatenate(f(*shaped), axis=-1).imag.T / TINY
    return np.split(J, np.cumsum(sizes)[:-1], axis=1)


class Truth:
    """Everything of one net, formed when asked for. n is the size of a state, P of the params."""

    def __init__(self, net):
        self.net = net
        self.T, self.B = net.xs.shape[:2]
        self.states, self.J, self.Jx, self.Jp, self.before = self._trajectory()

    def _trajectory(self):
        """States, ∂s/∂s₋ `(T, B, n, n)`, ∂s/∂x, ∂s/∂θ likewise; what each step starts from."""
        net, n = self.net, sum(leaf.shape[-1] for leaf in self.net.state0)
        state, found = net.state0, []
        for t, x in enumerate(net.xs):
            fresh = np.zeros(self.B, bool) if net.resets is None else net.resets[t]
            held = np.zeros(self.B, bool) if net.lengths is None else t >= net.lengths
            begin = tuple(
                np.where(fresh[:, None], a, b) for a, b in zip(net.state0, state, strict=True)
            )
            new = reference.step(net.name, net.params, begin, x)
            row = []
            for b in range(self.B):
                row.append(self._derivatives(tuple(leaf[b] for leaf in begin), x[b]))
                row[-1][0] *= not fresh[b]
                if held[b]:
                    row[-1] = [np.eye(len(row[-1][0])), 0 * row[-1][1], 0 * row[-1][2]]
            state = tuple(np.where(held[:, None], a, b) for a, b in zip(state, new, strict=True))
            together = np.concatenate(state, -1), np.concatenate(begin, -1)
            found.append([together[0], *map(np.stack, zip(*row, strict=True)), together[1]])
        D, P = net.xs.shape[-1], sum(p.size for p in net.params)
        shapes = (n,), (n, n), (n, D), (n, P), (n,)
        if not found:
            return [np.zeros((0, self.B, *shape)) for shape in shapes]
        return list(map(np.stack, zip(*found, strict=True)))

    def _derivatives(self, state, x):
        def f(*arguments):
            *state, x = arguments[: len(self.net.state0) + 1]
            params = arguments[len(self.net.state0) + 1 :]
            return reference.step(self.net.name, params, tuple(state), x)

        found = derivative(f, *state, x, *self.net.params)
        k = len(state)
        return [np.concatenate(found[:k], 1), found[k], np.concatenate(found[k + 1 :], 1)]

    # --- of a loss ------------------------------------------------------------------

    def loss(self, states):
        """Reads every entry with a weight of its own and couples the first step to the last."""
        weights = np.cos(np.arange(states.size)).reshape(states.shape)
        return (weights * states + 0.5 * states * states).sum() + states[0].sum() * states[-1].sum()

    @functools.cached_property
    def direct(self):
        """∂E/∂sₖ at fixed other states."""
        s = self.states
        found = np.cos(np.arange(s.size)).reshape(s.shape) + s
        found[0] += s[-1].sum()
        found[-1] += s[0].sum()
        return found

    @functools.cached_property
    def adjoints(self):
        """λₖ = ḡₖ + Jₖ₊₁ᵀ λₖ₊₁, `(T, B, n)`."""
        found = self.direct.copy()
        for t in range(self.T - 2, -1, -1):
            found[t] += np.einsum("bij,bi->bj", self.J[t + 1], found[t + 1])
        return found

    @functools.cached_property
    def contributions(self):
        """∂E/∂θ|ₖ, `(T, P)`."""
        return np.einsum("tbip,tbi->tp", self.Jp, self.adjoints)

    @functools.cached_property
    def input_gradient(self):
        return np.einsum("tbid,tbi->tbd", self.Jx, self.adjoints)

    @functools.cached_property
    def state0_gradient(self):
        """By what precedes the first step, and by what a reset goes back to; `(B, n)`."""
        found = np.einsum("bij,bi->bj", self.J[0], self.adjoints[0])
        if self.net.resets is None:
            return found
        for t, b in itertools.product(range(self.T), range(self.B)):
            live = self.net.lengths is None or t < self.net.lengths[b]
            if self.net.resets[t, b] and live:
                begin = tuple(leaf[b] for leaf in self.net.state0)
                J = self._derivatives(begin, self.net.xs[t, b])[0]
                found[b] += J.T @ self.adjoints[t, b]
        return found

    def truncated(self, window):
        """The gradient in which every term ∂Eₜ/∂θ|ₖ has t - k < window, `(P,)`.

        What is read of a held state is read at the last step before.
        """
        total = np.zeros(self.Jp.shape[-1])
        for t, b in itertools.product(range(self.T), range(self.B)):
            last = t if self.net.lengths is None else min(t, self.net.lengths[b] - 1)
            adjoint = self.direct[t, b]
            for k in range(last, max(last - window, -1), -1):
                total += self.Jp[k, b].T @ adjoint
                adjoint = self.J[k, b].T @ adjoint
        return total

    # --- of products ----------------------------------------------------------------

    def transport(self, k, t):
        """∂sₜ/∂sₖ, `(B, n, n)`."""
        n = self.J.shape[-1]
        found = np.broadcast_to(np.eye(n), (self.B, n, n))
        for i in range(t, k, -1):
            found = found @ self.J[i]
        return found

    @functools.cached_property
    def transports(self):
        """∂s_{T-1}/∂sₖ for every k, `(T, B, n, n)`."""
        return np.stack([self.transport(k, self.T - 1) for k in range(self.T)])

    @functools.cached_property
    def singular_values(self):
        return np.linalg.svd(self.J, compute_uv=False)

    @functools.cached_property
    def exponents(self):
        """Lyapunov exponents from QR of every step, from the library's first columns, `(B, n)`."""
        n = self.J.shape[-1]
        Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))
        total = np.zeros((self.B, n))
        for J in self.J:
            Q, R = np.linalg.qr(J @ Q)
            total += np.log(np.abs(np.diagonal(R, axis1=-2, axis2=-1)))
        return -np.sort(-total / self.T, axis=-1)

    @functools.cached_property
    def omega(self):
        """Σᵢ (‖Jᵢᵀ λᵢ‖ / ‖λᵢ‖ - 1)² over steps with a gradient, the mean over the batch."""
        total = 0.0
        for t, b in itertools.product(range(self.T), range(self.B)):
            fresh = self.net.resets is not None and self.net.resets[t, b]
            adjoint = self.adjoints[t, b]
            held = self.net.lengths is not None and t >= self.net.lengths[b]
            if fresh or held or not adjoint.any():
                continue
            ratio = np.linalg.norm(self.J[t, b].T @ adjoint) / np.linalg.norm(adjoint)
            total += (ratio - 1) ** 2
        return total / self.B
