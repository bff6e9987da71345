"""The gradient of cells beside rnn, lstm and gru: ours beside a plain scan of the same equations.

E = Σ v⊙h over all steps, from the zero state, float32. The plain scan is a `lax.scan` by hand with
the input projection before it, which JAX differentiates as it is.

    python -m benchmarks.gated [--cells cifg,mgu,…] [--seconds 8] [--quick] [--out F]
"""

from typing import Any

import jax
import jax.numpy as jnp

import jaxrnn
from benchmarks import peers, timing
from benchmarks.bptt import SIZES, geometric_mean

sigmoid, tanh = jax.nn.sigmoid, jnp.tanh


def blocks(params: Any, state: Any, u: Any, count: int) -> Any:
    return jnp.split(u + state.h @ params.w_hh.T, count, axis=-1)


def cifg(params: Any, state: Any, u: Any) -> Any:
    f, g, o = blocks(params, state, u, 3)
    c = sigmoid(f) * state.c + (1 - sigmoid(f)) * tanh(g)
    return state._replace(h=sigmoid(o) * tanh(c), c=c)


def janet(params: Any, state: Any, u: Any) -> Any:
    f, c = blocks(params, state, u, 2)
    return state._replace(h=sigmoid(f) * state.h + sigmoid(1 - f) * tanh(c))


def ugrnn(params: Any, state: Any, u: Any) -> Any:
    g, c = blocks(params, state, u, 2)
    return state._replace(h=sigmoid(g) * state.h + (1 - sigmoid(g)) * tanh(c))


def mgu(params: Any, state: Any, u: Any) -> Any:
    (uf, un), (af, an) = jnp.split(u, 2, -1), jnp.split(state.h @ params.w_hh.T, 2, -1)
    f = sigmoid(uf + af)
    return state._replace(h=(1 - f) * tanh(un + f * (an + params.b_hn)) + f * state.h)


def peephole_lstm(params: Any, state: Any, u: Any) -> Any:
    i, f, g, o = blocks(params, state, u, 4)
    kept = sigmoid(f + params.p_f * state.c) * state.c
    c = kept + sigmoid(i + params.p_i * state.c) * tanh(g)
    return state._replace(h=sigmoid(o + params.p_o * c) * tanh(c), c=c)


def projected_lstm(params: Any, state: Any, u: Any) -> Any:
    i, f, g, o = blocks(params, state, u, 4)
    c = sigmoid(f) * state.c + sigmoid(i) * tanh(g)
    return state._replace(h=(sigmoid(o) * tanh(c)) @ params.w_hr.T, c=c)


def hard_lstm(params: Any, state: Any, u: Any) -> Any:
    i, f, g, o = blocks(params, state, u, 4)
    gate = jax.nn.hard_sigmoid
    c = gate(f) * state.c + gate(i) * tanh(g)
    return state._replace(h=gate(o) * tanh(c), c=c)


CELLS = {
    "cifg": (lambda H: jaxrnn.cifg(), cifg),
    "mgu": (lambda H: jaxrnn.mgu(), mgu),
    "janet": (lambda H: jaxrnn.janet(), janet),
    "ugrnn": (lambda H: jaxrnn.ugrnn(), ugrnn),
    "peephole_lstm": (lambda H: jaxrnn.peephole_lstm(), peephole_lstm),
    "projected_lstm": (lambda H: jaxrnn.projected_lstm(H // 2), projected_lstm),
    "lstm[hard]": (lambda H: jaxrnn.lstm(jaxrnn.activations.hard_sigmoid), hard_lstm),
}


def candidates(kind: str, T: int, B: int, D: int, H: int) -> list[timing.Candidate]:
    """Ours, and the plain scan."""
    make, step = CELLS[kind]
    cell, keys = make(H), jax.random.split(jax.random.key(0), 3)
    params = cell.init(keys[0], D, H, dtype=jnp.float32)
    xs = jax.random.normal(keys[1], (T, B, D), jnp.float32)
    state0 = cell.init_state(params, (B,))
    v = jax.random.normal(keys[2], (T, *state0.h.shape), jnp.float32)

    def plain(params: Any, xs: Any) -> Any:
        def body(state: Any, u: Any) -> Any:
            new = step(params, state, u)
            return new, new.h

        return jax.lax.scan(body, state0, xs @ params.w_ih.T + params.b)[1]

    def ours(params: Any, xs: Any) -> Any:
        return jaxrnn.unroll(cell, params, xs).h

    return [
        timing.Candidate(name, peers.loss_and_grads(f), (params, xs, v))
        for name, f in (("jaxrnn", ours), ("plain scan", plain))
    ]


def main() -> None:
    parser = timing.options(__doc__, seconds=8)
    parser.add_argument("--cells", default=",".join(CELLS))
    options = parser.parse_args()
    cases = []
    for kind in options.cells.split(","):
        ratios = []
        for T, B, D, H in ((16, 4, 3, 8),) if options.quick else SIZES:
            found = candidates(kind, T, B, D, H)
            rows = timing.measure(
                found, reference="jaxrnn", rounds=40, untimed=1, limit_s=options.seconds
            )
            print(timing.table(f"\n{kind} T={T} B={B} D={D} H={H} float32", rows, "jaxrnn"))
            plain = {row.name: row for row in rows}["plain scan"].ratio
            ratios.append(plain[1])
            told = {"speedup": plain[1], "quartiles": [plain[0], plain[2]]}
            cases.append(({"cell": kind, "T": T, "B": B, "D": D, "H": H, **told}, rows))
        print(f"{kind}: {geometric_mean(ratios):.2f} × the plain scan, least {min(ratios):.2f}")
    if options.out:
        timing.write(options.out, cases)


if __name__ == "__main__":
    main()
