"""The figures of the documentation: `python -m docs.figures` from the root of the repository."""

import json
import pathlib

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import jaxrnn
from jaxrnn import phenomena, plot

T, B, D, H = 100, 16, 2, 32
ASSETS = pathlib.Path("docs/assets")


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
        run = jaxrnn.Run(cell, params, xs)
        sizes[name] = jaxrnn.bptt.contribution_norms(run, lambda s: (s.h[-1] ** 2).sum())
    figure = plot.contributions({name: found.norm.w_hh for name, found in sizes.items()})
    plot.save(figure, ASSETS / "contributions.png")


def paths() -> None:
    """The LSTM's ∂cₜ/∂cₖ: errors of the approximations and shares of the paths against lag."""
    params = jaxrnn.lstm().init(jax.random.key(0), D, H)
    xs = jax.random.normal(jax.random.key(1), (T, B, D))
    found = jaxrnn.paths.decompose(jaxrnn.Run(jaxrnn.lstm(), params, xs))
    plot.save(plot.cell_paths(found), ASSETS / "lstm_paths.png")


def horizons() -> None:
    """Memory horizon against forget bias: a constant gate, gates at their bias, usual weights."""
    found, biases = phenomena.forget_bias(), np.arange(-1, 5)
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    fine = np.linspace(-1, 4)
    axes.plot(fine, np.log(100) / np.log1p(np.exp(-fine)), color="0.5", label="a gate of σ(b)")
    for rest, name, color in (("", "W_hh small", plot.COLORS[0]),
                              (", usual weights", "W_hh orthogonal", plot.COLORS[1])):  # fmt: skip
        curves = [found.log_norms[f"bias {b}{rest}"] for b in biases]
        horizon = [float(jaxrnn.memory_horizon(curve)) for curve in curves]
        axes.plot(biases, horizon, "o", color=color, label=name)
    axes.axhline(len(curves[0]), color="0.5", linewidth=0.8, linestyle=":")
    axes.set(xlabel="forget bias b", ylabel="steps until 1 % is left", yscale="log",
             title="Memory horizon of an LSTM; dotted: as far as was looked")  # fmt: skip
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    plot.save(figure, ASSETS / "forget_bias.png")


def transport_growth() -> None:
    """Time of all ‖∂s_T/∂sₖ‖ against T and against H, from the benchmark's JSON."""
    cases = json.loads(pathlib.Path("benchmarks/results/transport_cpu.json").read_text())["cases"]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, along, fixed in zip(figure.subplots(1, 2, sharey=True), "TH", "HT", strict=True):
        value = {"H": 64, "T": 200}[fixed]
        chosen = [c for c in cases if c["case"][fixed] == value]
        for name, color in zip(("jaxrnn", "jacrev of the last", "jacrev of all"), plot.COLORS,
                               strict=True):  # fmt: skip
            points = sorted(
                (c["case"][along], 1e3 * row["median_s"])
                for c in chosen
                for row in c["rows"]
                if row["name"] == name
            )
            axes.plot(*np.transpose(points), "o-", color=color, label=name)
        axes.set(title=f"{fixed} = {value}", xlabel=along, xscale="log", yscale="log")
        ticks = sorted({c["case"][along] for c in chosen})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
        if along == "T":
            axes.set_ylabel("milliseconds for all lags")
    plot.save(figure, ASSETS / "transport_growth.png")


if __name__ == "__main__":
    for draw in (contributions, paths, horizons, transport_growth):
        draw()
