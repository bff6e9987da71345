"""The dense LSTM Jacobian stack: closed form, jacfwd, jacrev, and the bare write.

All candidates take the same previous states and inputs and return the same four blocks
(T, H, H). The limit is a program that only writes as many bytes.

    python -m benchmarks.jacobian_stack [--seconds 60] [--pages kept|fresh] [--quick] [--out F]
"""

import jax
import jax.numpy as jnp

import jaxrnn
from benchmarks import timing
from jaxrnn.cells.contract import over_leading_axes

# T is chosen so that every stack has 128 MiB, more than the caches of a few cores.
SIZES = ((32, 8192), (64, 2048), (128, 512), (256, 128))  # (H, T)
INPUT_SIZE = 16


def candidates(H: int, T: int) -> list[timing.Candidate]:
    """The four programs; `params, states, xs` are their arguments."""
    cell = jaxrnn.lstm()

    def closed_form(params, states, xs):
        return cell.state_jacobian(params, states, xs)

    def jacfwd(params, states, xs):
        f = jax.jacfwd(cell.step, argnums=1)
        return over_leading_axes(f, 1, (None, 0, 0))(params, states, xs)

    def jacrev(params, states, xs):
        f = jax.jacrev(cell.step, argnums=1)
        return over_leading_axes(f, 1, (None, 0, 0))(params, states, xs)

    def bare_write(params, states, xs):
        return [jnp.broadcast_to(states.h[0, 0] + i, (T, H, H)) for i in range(4)]

    return [timing.Candidate(f.__name__, f) for f in (bare_write, closed_form, jacfwd, jacrev)]


def arguments(H: int, T: int):
    """Random params, states and inputs in float32."""
    keys = jax.random.split(jax.random.key(0), 4)
    params = jaxrnn.lstm().init(keys[0], INPUT_SIZE, H, dtype=jnp.float32)
    h, c = (jax.random.normal(k, (T, H), jnp.float32) for k in keys[1:3])
    return params, jaxrnn.LSTMState(h, c), jax.random.normal(keys[3], (T, INPUT_SIZE), jnp.float32)


def main() -> None:
    parser = timing.options(__doc__, seconds=60)
    parser.add_argument("--pages", choices=("kept", "fresh"), default="kept")
    options = parser.parse_args()
    timing.settle_allocator(options.pages)
    cases = []
    for H, T in ((32, 64),) if options.quick else SIZES:
        rows = timing.measure(
            candidates(H, T),
            arguments(H, T),
            reference="bare_write",
            rounds=40,
            limit_s=options.seconds,
        )
        print(
            timing.table(f"\nLSTM H={H} T={T} float32, {options.pages} pages", rows, "bare_write")
        )
        by_name = {row.name: row for row in rows}
        for peer in ("jacfwd", "jacrev"):
            factor = by_name[peer].median_s / by_name["closed_form"].median_s
            print(f"    closed form is {factor:.1f}× faster than {peer}")
        cases.append(({"cell": "lstm", "H": H, "T": T, "pages": options.pages}, rows))
    if options.out:
        timing.write(options.out, cases)


if __name__ == "__main__":
    main()
