"""Temporal order in the setting of Pascanu, Mikolov & Bengio (2013): SGD, clipping, and Ω.

A tanh network of 50 units, every weight N(0, 0.1²), batches of 20, SGD at 0.01; clipping at 1; Ω
with weight 4, as the mean over the steps. Solved when fewer than 1 % of 1,000 fresh sequences are
answered wrongly.

    python -m benchmarks.cures.temporal_order [--lengths 50 100] [--updates 12000] [--seeds 5]
        [--quick] [--out F.json] [--picture F.png]
"""

import functools

import jax
import optax

from benchmarks.cures import results
from benchmarks.cures.training import Recipe, Task
from jaxrnn import clipping, rnn, tasks

H = 50
TASK = Task(
    tasks.temporal_order, tasks.cross_entropy, tasks.correct, inputs=6, outputs=4, solved=0.99
)
NORMAL = jax.nn.initializers.normal(0.1)


def drawn(key, inputs):
    return rnn().init(key, inputs, H, dtype="float32", input_init=NORMAL, recurrent_init=NORMAL)


def recipes(T: int, updates: int) -> list[Recipe]:
    recipe = functools.partial(Recipe, cell=rnn(), init=drawn, readout=NORMAL)
    clipped = optax.chain(clipping.clip_by_global_norm(1.0), optax.sgd(0.01))
    return [
        recipe("SGD", optimizer=optax.sgd(0.01)),
        recipe("SGD + clip", optimizer=clipped),
        recipe("SGD + clip + Ω", optimizer=clipped, omega=4.0 / T),
    ]


def main() -> None:
    given = results.options(__doc__, lengths=(50, 100), updates=12_000).parse_args()
    results.run_all(given, recipes, TASK, batch_size=20, shortest=20)


if __name__ == "__main__":
    main()
