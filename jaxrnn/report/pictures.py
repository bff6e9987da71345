"""The figures of a report: inline SVG whose lines and text take their colour from the page."""

import io
import re
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from jaxrnn.analysis.gate_statistics import GateStatistics
from jaxrnn.diagnosis import GradientFlow, LayerFlow
from jaxrnn.plot import PATHS
from jaxrnn.report.curves import (
    INK,
    LN10,
    STYLE,
    STYLES,
    Titled,
    adjoints,
    contributions,
    drawn,
    reach,
    remedies,
)

__all__ = ["EmbeddedPicture", "pictures"]

KEEPING = {"f": "forget gate", "z": "update gate", "h": "output"}  # the gate worth a map


class EmbeddedPicture(NamedTuple):
    """A figure of the report.

    Attributes:
      caption: What it shows, in one line.
      alt: Its numbers in words, for readers who cannot see it.
      svg: The figure itself.
    """

    caption: str
    alt: str
    svg: str


def pictures(flow: GradientFlow, salt: str = "") -> list[EmbeddedPicture]:
    """Every figure for which a diagnosis has numbers; `salt` keeps the ids of two nets apart."""
    found = [
        reach(flow),
        *remedies(flow),
        adjoints(flow),
        contributions(flow),
        *_gate_maps(flow),
        _gates(flow),
    ]
    found += [_spectra(flow), _exponents(flow), *_paths(flow), _norms(flow)]
    return [
        EmbeddedPicture(caption, alt, _svg(figure, f"{salt}-{number}", alt))
        for number, (caption, alt, figure) in enumerate(each for each in found if each is not None)
    ]


def _svg(figure: Figure, salt: str, alt: str) -> str:
    out = io.StringIO()
    # Salted ids and no date: the same diagnosis gives the same page, and no two figures of a page
    # share the id of a clip path.
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    svg = out.getvalue()[out.getvalue().index("<svg") :]
    # Without a size of its own the figure follows the width of the page.
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    # Matplotlib numbers these ids from 1 in each figure: in one page they would not be unique.
    svg = re.sub(r' id="[a-zA-Z]+[\w.]*_\d+"', "", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    label = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace(INK, "currentColor").replace(
        "<svg", f'<svg role="img" aria-label="{label}"', 1
    )


def _gate_maps(flow: GradientFlow) -> list[Titled]:
    found = []
    for name, layer in zip(flow.names, flow.layers, strict=True):
        for gate, words in KEEPING.items():
            if gate in _seen(layer):
                found.append(_gate_map(name, words, np.asarray(_seen(layer)[gate].over_time), gate))
                break
    return found


def _seen(layer: LayerFlow) -> dict[str, GateStatistics]:
    """The gates that were seen in some step."""
    # Where no step is finite, every mean is NaN and there is nothing to draw.
    gates = layer.gates or {}
    return {name: each for name, each in gates.items() if np.isfinite(np.asarray(each.mean)).any()}


def _gate_map(name: str, words: str, gate: np.ndarray, short: str) -> Titled:
    gate = gate[:, np.argsort(np.nanmean(gate, axis=0))] if gate.size else gate
    # A gate has the colours of its range [0, 1], an output of whatever range only those it takes.
    least, most = (0.0, 1.0) if short != "h" else (None, None)

    def draw(axes: Any) -> None:
        image = axes.imshow(
            gate.T, aspect="auto", origin="lower", vmin=least, vmax=most, cmap="cividis",
            extent=(0, gate.shape[0], 0, gate.shape[1]), interpolation="nearest",
        )  # fmt: skip
        axes.set(xlabel="step", ylabel="unit, sorted by mean")
        axes.figure.colorbar(image, ax=axes, label=f"{words}, mean over examples")

    alt = (
        f"Heat map of the {words} of {name} over {gate.shape[0]} steps and {gate.shape[1]} units: "
        f"mean {np.nanmean(gate):.2g}, units from {np.nanmean(gate, 0).min():.2g} to "
        f"{np.nanmean(gate, 0).max():.2g}"
    )
    return f"The {words} over time, {name}", alt, drawn(draw)


def _gates(flow: GradientFlow) -> Titled | None:
    bars = [
        (
            f"{name.removeprefix('layer ')}: {gate}",  # short: labels take the width of the bars
            *(float(np.mean(s)) for s in (each.low, each.high)),
        )
        for name, layer in zip(flow.names, flow.layers, strict=True)
        for gate, each in _seen(layer).items()
    ]
    if not bars:
        return None

    def draw(axes: Any) -> None:
        names, low, high = zip(*reversed(bars), strict=True)  # barh begins at the bottom
        low, high = np.array(low), np.array(high)
        between = 1 - low - high
        axes.barh(names, low, color=PATHS[1], label="low")
        axes.barh(names, between, left=low, color="0.6", label="between")
        axes.barh(names, high, left=low + between, color=PATHS[0], label="high")
        axes.set(xlabel="share of steps", xlim=(0, 1))
        axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    alt = "Share of steps low and high. " + "; ".join(f"{n}: {a:.0%}, {b:.0%}" for n, a, b in bars)
    caption = "Gates at the ends of their range: below a tenth of it, above nine tenths"
    return caption, alt, drawn(draw, max(3.0, 0.28 * len(bars) + 1.0))


def _watched(flow: GradientFlow) -> list[tuple[str, LayerFlow]]:
    both = zip(flow.names, flow.layers, strict=True)
    return [(name, layer) for name, layer in both if layer.exponents is not None]


def _spectra(flow: GradientFlow) -> Titled | None:
    watched = _watched(flow)
    if not watched:
        return None

    def draw(axes: Any) -> None:
        for number, (name, layer) in enumerate(watched):
            sigma = np.asarray(layer.spectrum)
            shown = np.where(sigma > 0, sigma, np.nan)  # the axis is logarithmic
            index = np.arange(1, sigma.shape[1] + 1)
            axes.plot(index, shown.T, color=PATHS[number % 5], alpha=0.35, linewidth=0.8)
            axes.plot([], [], color=PATHS[number % 5], label=name)  # one entry for all the steps
        axes.axhline(1.0, color=INK, linewidth=0.6, alpha=0.4)
        axes.set(xlabel="singular value, largest first", ylabel="σ of ∂sᵢ/∂sᵢ₋₁", yscale="log")
        axes.legend()

    alt = "Singular values of one step. " + "; ".join(
        f"{name}: largest {np.median(np.asarray(layer.spectrum)[:, 0]):.3g}, "
        f"smallest {np.median(np.asarray(layer.spectrum)[:, -1]):.3g}"
        for name, layer in watched
    )
    return "Singular values of the steps of one example", alt, drawn(draw)


def _exponents(flow: GradientFlow) -> Titled | None:
    watched = _watched(flow)
    if not watched:
        return None

    def mean(layer: LayerFlow) -> tuple[np.ndarray, np.ndarray]:
        assert layer.exponents is not None
        value, error = np.asarray(layer.exponents.value), np.asarray(layer.exponents.error)
        # The error is inf where it is not known: then there is no bar.
        error = np.sqrt((error**2).mean(0))
        return value.mean(0), np.where(np.isfinite(error), error, 0.0)

    def draw(axes: Any) -> None:
        for number, (name, layer) in enumerate(watched):
            value, error = mean(layer)
            value = np.where(np.isfinite(value), value, np.nan)
            index = np.arange(1, value.size + 1) + 0.08 * number  # bars beside one another
            axes.errorbar(
                index, value, error, color=PATHS[number % 5], marker="o",
                markersize=3, linewidth=1, linestyle=STYLES[number // 5 % 4], label=name,
            )  # fmt: skip
        axes.axhline(0.0, color=INK, linewidth=0.6, alpha=0.4)
        axes.set(xlabel="exponent, largest first", ylabel="nats per step")
        axes.legend()

    alt = "Lyapunov exponents. " + "; ".join(
        f"{name}: leading {mean(layer)[0][0]:+.3g} nats a step" for name, layer in watched
    )
    return "Leading Lyapunov exponents: above 0 gradients grow", alt, drawn(draw)


def _paths(flow: GradientFlow) -> list[Titled]:
    found = []
    for name, layer in _watched(flow):
        if layer.paths is None or len(layer.paths.exact) < 3:
            continue
        # From the last step back, without lag 0: no path has been taken there, and shares are 0.
        shares = {
            path: np.median(np.asarray(share), axis=1)[-2::-1]
            for path, share in layer.paths.shares.items()
        }
        shares = {path: shares[path] for path in sorted(shares, key=lambda p: p != "memory")}

        def draw(axes: Any, shares: dict[str, np.ndarray] = shares) -> None:
            for (path, share), color in zip(shares.items(), PATHS, strict=False):
                axes.plot(np.arange(1, share.size + 1), share, color=color, label=path)
            axes.axhline(0.0, color=INK, linewidth=0.6, alpha=0.4)
            axes.set(xlabel="lag", ylabel="share of ∂c_t/∂c_k")
            axes.legend(ncols=2)

        last = "; ".join(f"{path} {share[-1]:.0%}" for path, share in shares.items())
        alt = f"Share of each path by lag, {name}; at the longest lag {last}"
        found.append((f"What carries the cell state back, {name}", alt, drawn(draw)))
    return found


def _norms(flow: GradientFlow) -> Titled | None:
    logs = {
        name: np.sort(np.asarray(layer.gradient, np.float64)) / LN10
        for name, layer in zip(flow.names, flow.layers, strict=True)
    }
    logs = {name: each[np.isfinite(each)] for name, each in logs.items()}
    if not any(each.size for each in logs.values()):
        return None

    def draw(axes: Any) -> None:
        for number, (name, each) in enumerate(logs.items()):
            share = np.arange(1, each.size + 1) / max(each.size, 1)
            color, style = PATHS[number % 5], STYLES[number // 5 % 4]
            axes.step(each, share, where="post", color=color, linestyle=style, label=name)
        axes.set(
            xlabel="log₁₀ ‖gradient of an example‖", ylabel="share of examples", ylim=(0, 1.02)
        )
        axes.legend()

    alt = "Distribution of the examples' gradient norms. " + "; ".join(
        f"{name}: median 10^{np.median(each):.2g}" for name, each in logs.items() if each.size
    )
    return "How the gradients of the examples spread", alt, drawn(draw)
