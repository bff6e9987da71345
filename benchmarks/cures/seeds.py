"""Training five seeds at once, vmapped, beside one after the other, and beside one seed alone.

Ten updates of an LSTM and of a tanh RNN on the adding problem, T = 100, H = 64, batches of 32.

    python -m benchmarks.cures.seeds [--seconds 20] [--quick] [--out F]
"""

import functools

import jax
import optax

from benchmarks import timing
from benchmarks.cures.adding import TASK
from benchmarks.cures.training import Recipe, start, update
from jaxrnn import lstm, rnn

SEEDS, UPDATES, H, B = 5, 10, 64, 32


def main() -> None:
    options = timing.options(__doc__, seconds=20).parse_args()
    T, cases = 10 if options.quick else 100, []
    for cell in (lstm(), rnn()):
        recipe = Recipe(
            cell.name, cell, lambda key, inputs, c=cell: c.init(key, inputs, H), optax.adam(1e-3)
        )
        step = functools.partial(update, recipe, TASK, B, T)

        def one(network, keys, step=step, recipe=recipe):
            return jax.lax.scan(step, (network, recipe.optimizer.init(network)), keys)[0]

        def one_after_the_other(networks, keys, one=one):
            return [one(*pair) for pair in zip(networks, keys, strict=True)]

        networks = [start(recipe, TASK, key) for key in jax.random.split(jax.random.key(0), SEEDS)]
        keys = jax.random.split(jax.random.key(1), (SEEDS, UPDATES))
        stacked = jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *networks)
        found = [
            timing.Candidate("vmapped", jax.vmap(one), (stacked, keys)),
            timing.Candidate("one by one", one_after_the_other, (networks, list(keys))),
            timing.Candidate("one seed", one, (networks[0], keys[0])),
        ]
        rows = timing.measure(
            found, reference="vmapped", rounds=40, untimed=1, limit_s=options.seconds
        )
        print(timing.table(f"{cell.name}, {SEEDS} seeds, {UPDATES} updates", rows, "vmapped"))
        cases.append(({"cell": cell.name, "T": T, "H": H, "B": B, "seeds": SEEDS}, rows))
    if options.out:
        timing.write(options.out, cases)


if __name__ == "__main__":
    main()
