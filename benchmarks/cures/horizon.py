"""How far the gradient reaches back on the digits, before and after training, for each cure.

scikit-learn's 8×8 digits read pixel by pixel, 64 steps; 64 hidden units, batches of 64, Adam at
2e-3 with a cosine schedule. The horizon is the lag at which ‖∂E/∂sₖ‖ has fallen under 1 % for good,
the median over 100 test images; 64 is the whole image.

    python -m benchmarks.cures.horizon [--updates 800] [--seeds 3] [--quick] [--out F.json]
        [--picture F.png]
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import jaxrnn
from benchmarks import timing
from benchmarks.cures import results
from benchmarks.cures.training import Recipe, Task, answers, train
from jaxrnn import (
    activations,
    clipping,
    demo,
    gru,
    initializers,
    lstm,
    rnn,
    tasks,
)

H, WATCHED = 64, 100


def recipes(updates: int, xs: jax.Array) -> list[Recipe]:
    adam = optax.adam(optax.cosine_decay_schedule(2e-3, updates))
    clipped = optax.chain(clipping.clip_by_global_norm(1.0), adam)
    relu = rnn(activations.relu)

    def drawn(cell, key, inputs, **options):
        return cell.init(key, inputs, H, dtype="float32", **options)

    def uniform(cell, key, inputs, **options):
        return drawn(cell, key, inputs, input_init=demo.uniform_init,
                     recurrent_init=demo.uniform_init, **options)  # fmt: skip

    def at_exponent(key, inputs):
        params = uniform(rnn(), key, inputs)
        return initializers.scaled_to_exponent(jaxrnn.Run(rnn(), params, xs[:, :16]), 0.0).params

    def chrono(key, inputs):
        return initializers.chrono(lstm(), uniform(lstm(), key, inputs), key, longest=64.0)

    plain = functools.partial(uniform, rnn())
    irnn = functools.partial(drawn, relu, recurrent_init=initializers.identity())
    return [
        Recipe("tanh RNN", rnn(), plain, adam),
        Recipe("tanh RNN + clip", rnn(), plain, clipped),
        Recipe("tanh RNN + clip + Ω", rnn(), plain, clipped, omega=4.0 / xs.shape[0]),
        Recipe("tanh RNN, orthogonal", rnn(), functools.partial(drawn, rnn()), clipped),
        Recipe("tanh RNN, λ₁ = 0", rnn(), at_exponent, clipped),
        Recipe("IRNN", relu, irnn, clipped),
        Recipe("LSTM, forget bias 0", lstm(),
               functools.partial(uniform, lstm(), forget_bias=0.0), clipped),
        Recipe("LSTM, forget bias 1", lstm(), functools.partial(uniform, lstm()), clipped),
        Recipe("LSTM, chrono", lstm(), chrono, clipped),
        Recipe("GRU", gru(), functools.partial(uniform, gru()), clipped),
    ]  # fmt: skip


def horizon(recipe: Recipe, network, xs, labels) -> float:
    """Median over the images, in steps."""

    def error(states):
        return tasks.cross_entropy(answers(network, states.h[-1:]), labels[None])

    run = jaxrnn.Run(recipe.cell, network.cell, xs)
    last = jax.tree.map(lambda leaf: leaf[-1], jaxrnn.bptt.adjoints(run, error))
    logs = jaxrnn.products.adjoint_norms(run, last)
    return float(jnp.median(jaxrnn.memory_horizon(logs)))


def main() -> None:
    given = results.options(__doc__, lengths=(64,), updates=800, seeds=3).parse_args()
    data = demo.load_digits()
    images, labels = data.train_xs[..., 0].T, data.train_labels
    xs, shown = data.test_xs[:, :WATCHED], data.test_labels[:WATCHED]

    def draw(key, batch_size, T):
        return tasks.sequential_digits(key, batch_size, images, labels)

    task = Task(draw, tasks.cross_entropy, tasks.correct, inputs=1, outputs=10, solved=2.0)
    updates = 50 if given.quick else given.updates
    rows = []
    print(f"{'':24}{'horizon before':>16}{'after':>8}{'test accuracy':>16}")
    for recipe in recipes(updates, data.train_xs):
        run = train(recipe, task, 64, batch_size=64, steps=updates, every=min(100, updates),
                    seeds=given.seeds)  # fmt: skip
        found = {"recipe": recipe.name, "updates": updates, "before": [], "after": [], "right": []}
        for seed in range(given.seeds):
            first, last = (jax.tree.map(lambda leaf, n=seed: leaf[n], network)
                           for network in (run.first, run.last))  # fmt: skip
            found["before"].append(horizon(recipe, first, xs, shown))
            found["after"].append(horizon(recipe, last, xs, shown))
            h = jaxrnn.unroll(recipe.cell, last.cell, data.test_xs).h[-1:]
            right = tasks.correct(answers(last, h), data.test_labels[None]).mean()
            found["right"].append(round(float(right), 4))
        rows.append(found)
        middle = [np.median(found[name]) for name in ("before", "after", "right")]
        print(f"{recipe.name:24}{middle[0]:16.0f}{middle[1]:8.0f}{middle[2]:16.1%}", flush=True)
    if given.out:
        record = {"environment": timing.environment(), "seeds": given.seeds, "rows": rows}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(record, indent=1) + "\n")
    if given.picture:
        given.picture.parent.mkdir(parents=True, exist_ok=True)
        picture(rows).savefig(given.picture, dpi=120)


def picture(rows) -> Figure:
    """A bar for each recipe before and after, the accuracy beside it."""
    figure = Figure(figsize=(9, 0.5 * len(rows) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes, at = figure.subplots(), np.arange(len(rows))
    for n, (name, color) in enumerate((("before", "0.7"), ("after", results.COLORS[0]))):
        middle = [np.median(row[name]) for row in rows]
        axes.barh(at + 0.4 * n - 0.2, middle, 0.38, color=color, label=f"{name} training")
    for y, row in zip(at, rows, strict=True):
        top = max(np.median(row["before"]), np.median(row["after"]))
        axes.text(top + 1, y, f"{np.median(row['right']):.0%} right", va="center", fontsize=9)
    axes.set_yticks(at, [row["recipe"] for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel="memory horizon: steps until 1 % of the gradient is left", xlim=(0, 76))
    axes.grid(alpha=0.25, linewidth=0.6, axis="x")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


if __name__ == "__main__":
    main()
