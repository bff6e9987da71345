"""How far the last state's derivative reaches back, every lag at once, and what autodiff takes.

‖∂s_T/∂sₖ‖ for all k, LSTM, float32, batch 1: `products.frobenius_norms`, beside two ways by
autodiff of the whole scan with something added to every state: `jax.jacrev` of the last state by
all of what was added, `(n, T, n)`, and of all states by all of it, `(T, n, T, n)`, which holds
every transport there is.

    python -m benchmarks.transport [--seconds 10] [--quick] [--out F]
"""

from typing import Any

import jax
import jax.numpy as jnp

import jaxrnn
from benchmarks import bptt, timing

SIZES = ((50, 64), (200, 64), (800, 64), (200, 16), (200, 32), (200, 128))  # (T, H)
ALL_UP_TO = 3e9  # bytes of the Jacobian of all states
CELL = jaxrnn.lstm()
OURS = "jaxrnn"


def candidates(params: Any, xs: Any) -> list[timing.Candidate]:
    """Programs of (params, xs) that give T norms."""
    T, H = xs.shape[0], params.w_hh.shape[1]

    def ours(params, xs):
        return jaxrnn.products.frobenius_norms(jaxrnn.Run(CELL, params, xs))

    def states(params, xs, added):
        def step(state, item):
            x, add = item
            new = jax.tree.map(jnp.add, CELL.step(params, state, x), add)
            return new, new

        return jax.lax.scan(step, CELL.init_state(params), (xs, added))[1]

    def nothing(params):
        return jax.tree.map(lambda leaf: jnp.zeros((T, *leaf.shape)), CELL.init_state(params))

    def of_last(params, xs):
        def last(added):
            return jnp.concatenate([leaf[-1] for leaf in states(params, xs, added)])

        J = jax.jacrev(last)(nothing(params))  # leaves (n, T, H)
        square = sum(jnp.sum(leaf * leaf, axis=(0, 2)) for leaf in J)
        return jnp.log(square) / 2

    def of_all(params, xs):
        def every(added):
            return jnp.concatenate(states(params, xs, added), axis=1)

        J = jax.jacrev(every)(nothing(params))  # leaves (T, n, T, H)
        square = sum(jnp.sum(leaf[-1] ** 2, axis=(0, 2)) for leaf in J)
        return jnp.log(square) / 2

    programs = [(OURS, ours), ("jacrev of the last", of_last)]
    if 4 * (2 * H * T) ** 2 < ALL_UP_TO:
        programs.append(("jacrev of all", of_all))
    return [timing.Candidate(name, f, (params, xs)) for name, f in programs]


def main() -> None:
    options = timing.options(__doc__, seconds=10).parse_args()
    cases = []
    for T, H in ((10, 4),) if options.quick else SIZES:
        params, xs, _ = bptt.arguments("lstm", T, 1, 16, H)
        rows = timing.measure(
            candidates(params, xs[:, 0]),
            reference=OURS,
            rounds=20,
            untimed=1,
            limit_s=options.seconds,
        )
        print(timing.table(f"\nlstm T={T} H={H}", rows, OURS), flush=True)
        cases.append(({"cell": "lstm", "T": T, "H": H}, rows))
    if options.out:
        timing.write(options.out, cases)


if __name__ == "__main__":
    main()
