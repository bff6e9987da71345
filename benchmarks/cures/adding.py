"""The adding problem: which cures carry a gradient over T/2 steps and more.

Hidden units 32, batches of 32, Adam with a cosine schedule; solved when 95 % of 1,000 fresh
sequences are answered within 0.04.

    python -m benchmarks.cures.adding [--lengths 50 100 200 400] [--updates 1200] [--seeds 5]
        [--quick] [--out F.json] [--picture F.png]
"""

import functools

import optax

from benchmarks.cures import results
from benchmarks.cures.training import Recipe, Task
from jaxrnn import activations, clipping, gru, initializers, lstm, rnn, tasks

H = 32
TASK = Task(tasks.adding, tasks.squared_error, tasks.within, inputs=2, outputs=1, solved=0.95)


def drawn(cell, key, inputs, **options):
    return cell.init(key, inputs, H, dtype="float32", **options)


def with_chrono(cell, T, key, inputs):
    return initializers.chrono(cell, drawn(cell, key, inputs), key, longest=float(T))


def recipes(T: int, updates: int) -> list[Recipe]:
    adam = lambda rate: optax.adam(optax.cosine_decay_schedule(rate, updates))  # noqa: E731
    clipped = lambda rate: optax.chain(clipping.clip_by_global_norm(1.0), adam(rate))  # noqa: E731
    tanh, relu = rnn(), rnn(activations.relu)
    plain = functools.partial(drawn, tanh)
    irnn = functools.partial(drawn, relu, recurrent_init=initializers.identity())
    return [
        Recipe("tanh RNN", tanh, plain, adam(1e-3)),
        Recipe("tanh RNN + clip", tanh, plain, clipped(1e-3)),
        Recipe("tanh RNN + clip + Ω", tanh, plain, clipped(1e-3), omega=1.0 / T),
        Recipe("IRNN + clip", relu, irnn, clipped(1e-3)),
        Recipe("LSTM, forget bias 0", lstm(),
               functools.partial(drawn, lstm(), forget_bias=0.0), clipped(1e-2)),
        Recipe("LSTM, forget bias 1", lstm(),
               functools.partial(drawn, lstm(), forget_bias=1.0), clipped(1e-2)),
        Recipe("LSTM, chrono", lstm(), functools.partial(with_chrono, lstm(), T), clipped(1e-2)),
        Recipe("GRU", gru(), functools.partial(drawn, gru()), clipped(1e-2)),
    ]  # fmt: skip


def main() -> None:
    given = results.options(__doc__, lengths=(50, 100, 200, 400), updates=1200).parse_args()
    results.run_all(given, recipes, TASK, batch_size=32, shortest=20)


if __name__ == "__main__":
    main()
