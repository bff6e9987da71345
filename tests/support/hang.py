"""A program that waits for itself for good, with jaxlib 0.10.0 to 0.11.0 on a CPU of two cores.

`python -m tests.support.hang MODULE` factorizes stacks of matrices with MODULE.qr, side by side
in one program. `jax.numpy.linalg` hangs there within seconds; `jaxrnn.factorizations` must not.
"""

import importlib
import sys

import jax


def main(module, rounds=50):
    qr = importlib.import_module(module).qr
    xs = [jax.random.normal(jax.random.key(k), (64, 48, 48)) for k in range(8)]
    # The products leave each factorization to a thread of the pool that it then waits for.
    program = jax.jit(lambda xs: [qr(jax.numpy.tanh(x @ x)) for x in xs])
    for _ in range(rounds):
        jax.block_until_ready(program(xs))


if __name__ == "__main__":
    main(sys.argv[1])
