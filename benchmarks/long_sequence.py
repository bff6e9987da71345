"""Gradients of a long sequence: time and memory with all states kept, and with segments.

LSTM, T = 16384, B = 8, D = H = 128, float32; gradients with respect to params and inputs. "all
states" has the loss Σ v⊙h, the others Σ h of the last state: by `unroll`, and by
`unrolling.last_state`, which keeps the states between segments only.

    python -m benchmarks.long_sequence [--seconds 60] [--quick] [--out F]
"""

import jax
import jax.numpy as jnp

import jaxrnn
from benchmarks import bptt, peers, timing

SIZE = (16384, 8, 128, 128)  # (T, B, D, H)
CELL = jaxrnn.lstm()
LAST = "last of unroll"


def main() -> None:
    options = timing.options(__doc__, seconds=60).parse_args()
    T, B, D, H = (64, 2, 3, 4) if options.quick else SIZE
    params, xs, v = bptt.arguments("lstm", T, B, D, H)

    def of_last(params, xs):
        return jnp.sum(jaxrnn.unroll(CELL, params, xs).h[-1])

    def of_segments(params, xs):
        return jnp.sum(jaxrnn.unrolling.last_state(CELL, params, xs).h)

    every = peers.loss_and_grads(lambda params, xs: jaxrnn.unroll(CELL, params, xs).h)
    found = [timing.Candidate("all states", every, (params, xs, v))]
    for name, f in ((LAST, of_last), ("last_state", of_segments)):
        found.append(timing.Candidate(name, jax.grad(f, argnums=(0, 1)), (params, xs)))
    rows = timing.measure(found, reference=LAST, rounds=15, untimed=1, limit_s=options.seconds)
    print(timing.table(f"lstm T={T} B={B} D={D} H={H} float32", rows, LAST))
    if options.out:
        timing.write(options.out, [({"cell": "lstm", "T": T, "B": B, "D": D, "H": H}, rows)])


if __name__ == "__main__":
    main()
