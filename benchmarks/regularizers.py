"""What a regulariser adds to a training step: the gradient of a loss, alone and with each of them.

E = Σ v⊙h on the last state, float32, random inputs; Ω, Ω at fixed adjoints, flossing of one
exponent.

    python -m benchmarks.regularizers [--cells rnn,lstm,gru] [--seconds 15] [--quick] [--out F]
"""

import jax
import jax.numpy as jnp

import jaxrnn
from benchmarks import timing
from jaxrnn import regularizers

CELLS = {"rnn": jaxrnn.rnn(), "lstm": jaxrnn.lstm(), "gru": jaxrnn.gru()}
SIZES = ((100, 20, 6, 50), (200, 32, 2, 64))  # (T, B, D, H); the first is Pascanu's
ALONE = "loss alone"


def gradients(cell, params, xs, v):
    """Name ↦ params ↦ the gradient of the loss and one penalty."""
    run = jaxrnn.Run(cell, params, xs)

    def loss(states):
        return jnp.sum(v * states.h[-1])

    def alone(params):
        return loss(jaxrnn.unroll(cell, params, xs))

    penalties = {
        "with Ω": lambda run: regularizers.omega(run, loss),
        "with Ω at fixed adjoints": lambda run: regularizers.omega_at_fixed_adjoints(run, loss),
        "with flossing": regularizers.flossing,
    }
    found = {ALONE: jax.grad(alone)}
    for name, penalty in penalties.items():
        found[name] = jax.grad(lambda p, penalty=penalty: alone(p) + penalty(run.at(p)))
    return found


def main() -> None:
    parser = timing.options(__doc__, seconds=15)
    parser.add_argument("--cells", default=",".join(CELLS))
    options = parser.parse_args()
    cases = []
    for kind in options.cells.split(","):
        for T, B, D, H in ((8, 2, 3, 4),) if options.quick else SIZES:
            keys = jax.random.split(jax.random.key(0), 3)
            params = CELLS[kind].init(keys[0], D, H, dtype=jnp.float32)
            xs = jax.random.normal(keys[1], (T, B, D), jnp.float32)
            v = jax.random.normal(keys[2], (B, H), jnp.float32)
            found = [
                timing.Candidate(name, f, (params,))
                for name, f in gradients(CELLS[kind], params, xs, v).items()
            ]
            rows = timing.measure(
                found, reference=ALONE, rounds=40, untimed=1, limit_s=options.seconds
            )
            print(timing.table(f"\n{kind} T={T} B={B} D={D} H={H} float32", rows, ALONE))
            cases.append(({"cell": kind, "T": T, "B": B, "D": D, "H": H}, rows))
    if options.out:
        timing.write(options.out, cases)


if __name__ == "__main__":
    main()
