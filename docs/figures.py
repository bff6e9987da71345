"""The figures of the documentation: `python -m docs.figures` from the root of the repository."""

import pathlib

import jax

import jaxrnn
from jaxrnn import plot

T, B, D, H = 100, 16, 2, 32


def contributions() -> None:
    """‖∂E/∂W_hh|ₖ‖ against lag for a tanh network and an LSTM that remembers."""
    xs = jax.random.normal(jax.random.key(1), (T, B, D))
    nets = {
        "tanh RNN": (jaxrnn.rnn(), {}),
        "LSTM, forget bias 1": (jaxrnn.lstm(), {"forget_bias": 1.0}),
        "LSTM, forget bias 3": (jaxrnn.lstm(), {"forget_bias": 3.0}),
    }
    sizes = {}
    for name, (cell, options) in nets.items():
        params = cell.init(jax.random.key(0), D, H, **options)
        sizes[name] = jaxrnn.bptt.contribution_norms(
            cell, params, xs, lambda states: (states.h[-1] ** 2).sum()
        )
    figure = plot.contributions({name: found.norm.w_hh for name, found in sizes.items()})
    plot.save(figure, pathlib.Path("docs/assets/contributions.png"))


if __name__ == "__main__":
    contributions()
