"""The norms of all T temporal contributions, beside one gradient and beside T gradients.

E = Σ v⊙h over all steps, float32. "One gradient" is a training step's, with respect to params.
"T gradients" take ∂E/∂θ|ₖ apart by plain autodiff: T copies of θ, one for each step, and the
norm of the gradient by each; where those do not fit into 4 GB the row is left out.

    python -m benchmarks.contributions [--seconds 20] [--quick] [--out F]
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

import jaxrnn
from benchmarks import bptt, timing

MOST_BYTES = 4e9
NORMS = "contribution_norms"


def candidates(kind: str, params: Any, xs: Any, v: Any) -> list[timing.Candidate]:
    """Programs of (params, xs, v), all with the same loss."""
    cell = bptt.CELLS[kind]

    def norms(params, xs, v):
        return jaxrnn.bptt.contribution_norms(
            jaxrnn.Run(cell, params, xs), lambda s: jnp.sum(v * s.h)
        )

    def one_gradient(params, xs, v):
        return jax.grad(lambda p: jnp.sum(v * jaxrnn.unroll(cell, p, xs).h))(params)

    def by_autodiff(params, xs, v):
        copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(xs), *leaf.shape)), params)

        def loss(copies):
            state0 = cell.init_state(params, xs.shape[1:-1])

            def step(state, item):
                new = cell.step(item[0], state, item[1])
                return new, new.h

            return jnp.sum(v * jax.lax.scan(step, state0, (copies, xs))[1])

        grads = jax.grad(loss)(copies)
        return jax.tree.map(lambda g: jnp.sqrt(jnp.sum(g * g, tuple(range(1, g.ndim)))), grads)

    found = [("one gradient", one_gradient), (NORMS, norms)]
    numbers = len(xs) * sum(math.prod(leaf.shape) for leaf in params)
    if 3 * xs.dtype.itemsize * numbers < MOST_BYTES:
        found.append(("T gradients", by_autodiff))
    return [timing.Candidate(name, f, (params, xs, v)) for name, f in found]


def main() -> None:
    parser = timing.options(__doc__, seconds=15)
    parser.add_argument("--cells", default="lstm,gru,rnn")
    options = parser.parse_args()
    cases = []
    for kind in options.cells.split(","):
        for T, B, D, H in ((16, 4, 3, 8),) if options.quick else bptt.SIZES:
            found = candidates(kind, *bptt.arguments(kind, T, B, D, H))
            rows = timing.measure(
                found, reference="one gradient", rounds=40, untimed=1, limit_s=options.seconds
            )
            title = f"\n{kind} T={T} B={B} D={D} H={H} float32"
            print(timing.table(title, rows, "one gradient"), flush=True)
            ratios = {row.name: row.ratio[1] for row in rows}
            case = {"cell": kind, "T": T, "B": B, "D": D, "H": H, NORMS: ratios[NORMS]}
            if "T gradients" in ratios:
                case["T gradients"] = ratios["T gradients"]
            cases.append((case, rows))
    if options.out:
        timing.write(options.out, cases)


if __name__ == "__main__":
    main()
