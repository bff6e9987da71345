"""What the experiments share: a command line, a table, JSON and a picture."""

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks import timing
from benchmarks.cures.training import Recipe, Run, Task, train

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")


def options(
    doc: str, *, lengths: Sequence[int], updates: int, seeds: int = 5
) -> argparse.ArgumentParser:
    """What every experiment's command line has."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=list(lengths), metavar="T")
    parser.add_argument("--updates", type=int, default=updates)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--only", default="", help="recipes with this in their name")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each row")
    parser.add_argument("--quick", action="store_true", help="one short length, 200 updates")
    parser.add_argument("--out", type=pathlib.Path, default=None, help="write JSON here")
    parser.add_argument("--picture", type=pathlib.Path, default=None, help="write a PNG here")
    return parser


def run_all(
    given: argparse.Namespace,
    recipes: Any,  # (T, updates) -> the recipes
    task: Task,
    *,
    batch_size: int,
    shortest: int,
) -> list[dict[str, Any]]:
    """Train every recipe at every length, print a table as it grows, write what was asked for."""
    lengths = [shortest] if given.quick else given.lengths
    updates = 200 if given.quick else given.updates
    rows, runs = [], []
    print(f"{'':26}{'T':>6}  {'solved':>8}  {'median update':>14}  {'right at best':>14}  {'s':>6}")
    for T in lengths:
        for recipe in recipes(T, updates):
            if given.only not in recipe.name:
                continue
            run = train(
                recipe, task, T, batch_size=batch_size, steps=updates, every=min(100, updates),
                seeds=given.seeds, limit_s=given.seconds,
            )  # fmt: skip
            rows.append({"recipe": recipe.name, "T": T, "seeds": given.seeds, **run.record()})
            runs.append((recipe, T, run))
            print(line(rows[-1]), flush=True)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"environment": timing.environment(), "batch_size": batch_size, "rows": rows}
        given.out.write_text(json.dumps(record, indent=1) + "\n")
    if given.picture:
        given.picture.parent.mkdir(parents=True, exist_ok=True)
        picture(runs).savefig(given.picture, dpi=120)
    return rows


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    solved = [at for at in row["solved_at"] if at is not None]
    middle = f"{int(np.median(solved))}" if solved else "–"
    right = f"{np.median(row['right']):.0%}"
    return (
        f"{row['recipe']:26}{row['T']:6d}  {len(solved):4d} / {row['seeds']}  {middle:>14}  "
        f"{right:>14}  {row['seconds']:6.0f}"
    )


def picture(runs: Sequence[tuple[Recipe, int, Run]]) -> Figure:
    """Left: seeds that solved the task against T. Right: the longest T, answers against updates."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    names = list(dict.fromkeys(recipe.name for recipe, _, _ in runs))
    longest = max(T for _, T, _ in runs)
    for n, name in enumerate(names):
        style = {"color": COLORS[n % len(COLORS)], "linestyle": ("-", "--", ":")[n % 3]}
        mine = [(T, run) for recipe, T, run in runs if recipe.name == name]
        share = [np.mean([at is not None for at in run.solved_at]) for _, run in mine]
        # A little apart, so that curves on each other are all seen.
        left.plot([T for T, _ in mine], np.array(share) + 0.012 * (n - len(names) / 2), marker="o",
                  label=name, **style)  # fmt: skip
        for T, run in mine:
            if longest == T:
                middle = np.median(run.right, axis=1)
                low, high = run.right.min(1), run.right.max(1)
                right.plot(run.steps, middle, label=name, **style)
                right.fill_between(run.steps, low, high, color=style["color"], alpha=0.1)
    left.set(xlabel="T", ylabel="share of the seeds that solve it", ylim=(-0.08, 1.08))
    right.set(xlabel="updates", ylabel="sequences answered rightly", ylim=(-0.02, 1.02),
              title=f"T = {longest}: median and range of the seeds")  # fmt: skip
    for axes in (left, right):
        axes.grid(alpha=0.25, linewidth=0.6)
    left.legend(fontsize=8)
    return figure
