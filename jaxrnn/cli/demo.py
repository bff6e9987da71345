"""`jaxrnn demo`."""

import datetime
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import optax

import jaxrnn
from jaxrnn import _checks
from jaxrnn.cli.writing import writing_to

__all__ = ["demo_command"]


def demo_command(out: pathlib.Path, quick: bool, seed: int) -> int:
    """Run the demo, print its table, and write figures, summary.json and the report.

    Args:
      out: The folder to write to.
      quick: 100 training steps instead of 2000.
      seed: The seed of the weights and of the batches.

    Returns:
      The exit code 0.

    Raises:
      ImportError: If an extra is missing.
      TypeError: If `seed` is no integer.
      ValueError: If `seed` is below 0, or `out` cannot be written to.
    """
    # Imported here: these need extras that the other commands do without.
    from tqdm import tqdm

    from jaxrnn import demo

    try:
        from jaxrnn import plot, report
    except ImportError as error:
        raise ImportError(f"{error.name} is missing; pip install 'jaxrnn[demo]'") from error

    _checks.check_integer("seed", seed, least=0)
    data = demo.load_digits(seed)
    # Before the training: who named a folder that cannot be made need not wait for that.
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
    runs = demo.run(
        data,
        steps=100 if quick else 2000,
        seed=seed,
        bar=lambda name, steps: tqdm(
            steps, desc=f"training the {name}", unit="×50 steps", disable=None
        ),
    )
    figures = {
        "gradient_flow.png": plot.gradient_flow(runs),
        "forget_gates.png": plot.forget_gates(runs[-1]),
    }
    summary = {
        "date": datetime.date.today().isoformat(),
        "versions": {
            "jaxrnn": jaxrnn.__version__,
            "jax": jax.__version__,
            "optax": optax.__version__,
        },
        "device": jax.devices()[0].device_kind,
        "seed": seed,
        "steps": int(runs[0].steps[-1]),
        "networks": {
            run.name: {"before": run.before.summary(), "after": run.after.summary()} for run in runs
        },
    }
    print(demo_table(runs))
    with writing_to(out):
        for file, figure in figures.items():
            plot.save(figure, out / file)
        (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        flows = {f"{run.name}, trained": run.diagnosis for run in runs}
        paths = report.write(flows, out)
    written = ", ".join([*figures, "summary.json", *[path.name for path in paths]])
    print(f"\nWritten to {out}/: {written}")
    return 0


def demo_table(runs: Sequence[Any]) -> str:
    """A table with the summaries of all nets side by side."""
    columns = [
        (r.name, when, getattr(r, when).summary()) for r in runs for when in ("before", "after")
    ]
    labels = {
        "test_accuracy": "test accuracy",
        "adjoint_h_first_over_last": "‖∂E/∂h₁‖ / ‖∂E/∂hₙ‖",
        "adjoint_c_first_over_h_last": "‖∂E/∂c₁‖ / ‖∂E/∂hₙ‖",
        "first_half_share": "gradient from first half",
        "median_spectral_norm": "σ_max of a step, median",
        "mean_forget_gate": "forget gate, mean",
        "memory_horizon": "horizon, steps to 1 %",
        "leading_exponent": "leading exponent, nats",
    }
    lines = ["", " " * 26 + "".join(f"{name:>12}" for name, _, _ in columns)]
    lines.append(" " * 26 + "".join(f"{when:>12}" for _, when, _ in columns))
    for field, label in labels.items():
        values = [summary[field] for _, _, summary in columns]
        cells = [f"{'–':>12}" if v is None else f"{v:>12.3g}" for v in values]
        lines.append(f"{label:26}" + "".join(cells))
    lines.append("")
    lines += [f"{name}, {when} training: {s['verdict']}" for name, when, s in columns]
    return "\n".join(lines)
