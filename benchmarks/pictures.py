"""The pictures of the performance pages, from the JSON of the benchmarks."""

import json
import pathlib
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

AXES = ("T", "B", "H")
PROGRAMS = ("bare matmuls", "hoisted scan", "flax nnx", "haiku", "equinox", "torch")


def scaling(record: dict[str, Any]) -> Figure:
    """Time and memory against each size, log-log, with the slope that theory gives dashed."""
    cases = {(c["case"]["work"], c["case"]["axis"]): c for c in record["cases"]}
    works = list(dict.fromkeys(work for work, _ in cases))
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    panels = figure.subplots(2, len(AXES), sharex="col")
    for column, axis in enumerate(AXES):
        for color, work in enumerate(works):
            case = cases[work, axis]
            along = [size[axis] for size in case["case"]["sizes"]]
            rows = case["rows"]
            values = (
                [1e3 * row["median_s"] for row in rows],
                [(row["temp_bytes"] + row["output_bytes"]) / 1e6 for row in rows],
            )
            for panel, ys, power in zip(
                panels[:, column], values, case["case"]["theory"], strict=True
            ):
                panel.loglog(along, ys, "o-", color=f"C{color}", ms=4, label=work)
                line = [ys[-1] * (x / along[-1]) ** power for x in along]
                panel.loglog(along, line, "--", color=f"C{color}", lw=0.8)
        panels[1, column].set_xlabel(axis)
    panels[0, 0].set_ylabel("ms")
    panels[1, 0].set_ylabel("MB, temporaries and result")
    panels[0, 0].legend(fontsize=8)
    return figure


def training(record: dict[str, Any]) -> Figure:
    """Each program's time over ours, and the limit's, by size."""
    figure = Figure(figsize=(10, 3.4 * 2), layout="constrained")
    panels = figure.subplots(2, 2).ravel()
    kinds = list(dict.fromkeys(case["case"]["cell"] for case in record["cases"]))
    for panel, kind in zip(panels, kinds, strict=False):
        cases = [case for case in record["cases"] if case["case"]["cell"] == kind]
        for color, name in enumerate(PROGRAMS):
            points = [
                (place, row["ratio"])
                for place, case in enumerate(cases)
                for row in case["rows"]
                if row["name"] == name
            ]
            if not points:
                continue
            at = [place + (color - len(PROGRAMS) / 2) * 0.1 for place, _ in points]
            middle = [ratio[1] for _, ratio in points]
            spread = [[r[1] - r[0] for _, r in points], [r[2] - r[1] for _, r in points]]
            marker = "_" if name == "bare matmuls" else "o"
            style = {"fmt": marker, "ms": 5, "lw": 1, "color": f"C{color}"}
            panel.errorbar(at, middle, spread, label=name, **style)
        sizes = ["{T}, {B},\n{D}, {H}".format(**case["case"]) for case in cases]
        panel.set_xticks(range(len(cases)), sizes, fontsize=8)
        panel.axhline(1, color="black", lw=0.8)
        panel.set_yscale("log")
        panel.set_title(f"{kind}: time / ours", fontsize=10)
    panels[0].legend(fontsize=7, ncols=2)
    return figure


def draw(results: pathlib.Path, into: pathlib.Path) -> None:
    """Every picture whose JSON is there."""
    for name, make in (("scaling", scaling), ("bptt", training)):
        for path in sorted(results.glob(f"{name}_*.json")):
            figure = make(json.loads(path.read_text()))
            FigureCanvasAgg(figure)
            figure.savefig(into / f"{path.stem}.png", dpi=110)
