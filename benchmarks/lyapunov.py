"""Lyapunov exponents of the LSTM's full state: ours beside its limit and beside jacfwd + QR.

The limit has the same matmuls and QR factorisations and nothing else; "jacfwd + QR" multiplies
Q by the dense Jacobian that `jax.jacfwd` gives at each step. float32, batch 1, a QR every step.

    python -m benchmarks.lyapunov [--seconds 10] [--quick] [--out F]
"""

from typing import Any

import jax
import jax.numpy as jnp

import jaxrnn
from benchmarks import bptt, timing

SIZES = ((500, 32, 64), (500, 32, 8), (300, 64, 128), (300, 64, 8), (100, 128, 256), (100, 128, 8))
CELL = jaxrnn.lstm()
OURS = "jaxrnn"


def candidates(params: Any, xs: Any, count: int) -> list[timing.Candidate]:
    """Programs of (params, xs) that give `count` numbers."""
    H = params.w_hh.shape[1]

    def ours(params, xs):
        return jaxrnn.lyapunov.exponents(jaxrnn.Run(CELL, params, xs), count=count).value

    def bare(params, xs):
        def step(Q, x):
            z = params.w_hh @ Q[:H]
            moved = jnp.concatenate([z[:H] + z[H : 2 * H], z[2 * H : 3 * H] + z[3 * H :]])
            Q, R = jnp.linalg.qr(moved + x * Q)
            return Q, jnp.log(jnp.abs(jnp.diag(R)))

        return jax.lax.scan(step, jnp.eye(2 * H, count), xs[:, 0])[1].mean(0)

    def by_jacfwd(params, xs):
        def step(carry, x):
            state, Q = carry
            J = jax.jacfwd(CELL.step, argnums=1)(params, state, x)
            dense = jnp.block([[J.h.h, J.h.c], [J.c.h, J.c.c]])
            Q, R = jnp.linalg.qr(dense @ Q)
            return (CELL.step(params, state, x), Q), jnp.log(jnp.abs(jnp.diag(R)))

        first = CELL.init_state(params), jnp.eye(2 * H, count)
        return jax.lax.scan(step, first, xs)[1].mean(0)

    programs = ((OURS, ours), ("bare matmuls + QR", bare), ("jacfwd + QR", by_jacfwd))
    return [timing.Candidate(name, f, (params, xs)) for name, f in programs]


def main() -> None:
    options = timing.options(__doc__, seconds=10).parse_args()
    cases = []
    for T, H, count in ((20, 4, 8),) if options.quick else SIZES:
        params, xs, _ = bptt.arguments("lstm", T, 1, 16, H)
        rows = timing.measure(
            candidates(params, xs[:, 0], count),
            reference=OURS,
            rounds=30,
            untimed=1,
            limit_s=options.seconds,
        )
        print(timing.table(f"\nlstm T={T} H={H}, {count} of {2 * H} exponents", rows, OURS))
        cases.append(({"cell": "lstm", "T": T, "H": H, "count": count}, rows))
    if options.out:
        timing.write(options.out, cases)


if __name__ == "__main__":
    main()
