"""The command `jaxrnn`. Needs the extra: `pip install 'jaxrnn[cli]'`."""

import contextlib
import datetime
import importlib
import json
import pathlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import jax
import optax

import jaxrnn
from jaxrnn import arguments, verification
from jaxrnn.cell import Cell

__all__ = ["main"]

OURS = {
    "rnn[tanh]": jaxrnn.rnn(),
    "rnn[sigmoid]": jaxrnn.rnn(activation=jaxrnn.activations.sigmoid),
    "rnn[relu]": jaxrnn.rnn(activation=jaxrnn.activations.relu),
    "rnn[identity]": jaxrnn.rnn(activation=jaxrnn.activations.identity),
    "lstm": jaxrnn.lstm(),
    "gru": jaxrnn.gru(),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a subcommand; exit 0 if all is well, 1 if a check failed, 2 on bad input."""
    try:
        import tqdm  # noqa: F401
        import tyro
    except ImportError as error:
        sys.exit(f"jaxrnn: {error.name} is missing; pip install 'jaxrnn[cli]'")

    def verify(
        cells: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
        cases: int = 32,
        seed: int = 0,
        details: bool = False,
    ) -> int:
        """Hold every closed form against references that know nothing of it.

        Args:
            cells: names of ours, or yours as `module:attribute`; all of ours by default.
            cases: random cases for each shape and scale.
            seed: of the random cases.
            details: print the whole table of each cell, not one line.
        """
        return verify_command(cells, cases, seed, details)

    def demo(
        out: pathlib.Path = pathlib.Path("jaxrnn-demo"), quick: bool = False, seed: int = 0
    ) -> int:
        """Train a tanh RNN and an LSTM on pixel-by-pixel digits and watch their gradients.

        Args:
            out: folder for the figures and summary.json.
            quick: 100 training steps instead of 2000.
            seed: of the weights and of the batches.
        """
        return demo_command(out, quick, seed)

    commands = {"verify": verify, "demo": demo}
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            commands, prog="jaxrnn", args=argv, description=jaxrnn.__doc__.splitlines()[0]
        )
    except (ValueError, TypeError, ImportError) as error:
        if not raised_here(error):
            raise
        print(f"jaxrnn: {error}", file=sys.stderr)
        code = 2
    sys.exit(code)


def raised_here(error: Exception) -> bool:
    """Whether the package itself refused something; what others raise keeps its traceback."""
    innermost = traceback.extract_tb(error.__traceback__)[-1].filename
    return pathlib.Path(innermost).is_relative_to(pathlib.Path(__file__).parent)


def verify_command(names: Sequence[str], cases: int, seed: int, details: bool) -> int:
    """Print a table; 0 if every cell passed, else 1."""
    from tqdm import tqdm

    # Counts and names are checked before anything is printed or run.
    arguments.check_size("cases", cases, least=1)
    arguments.check_size("seed", seed, least=0)
    cells = {name: find_cell(name) for name in names} or OURS
    failed = []
    if not details:
        print(f"{'cell':16}{'cases':>7}{'numbers':>10}{'autodiff':>10}{'float32':>10}")
    for name, cell in cells.items():
        report = jaxrnn.verify(
            cell,
            cases=cases,
            seed=seed,
            progress=lambda shapes, n=name: tqdm(shapes, desc=n, leave=False, disable=None),
        )
        print(str(report) + "\n" if details or not report.passed else one_line(name, report))
        if not report.passed:
            failed.append(name)
    if failed:
        print(f"FAILED: {', '.join(failed)}")
        return 1
    if not details:
        print(activation_table())
        print(
            "numbers: complex steps (or differences), largest error over 1 + max|J|\n"
            "autodiff: jacfwd and jacrev, ‖error‖/‖J‖; float32: against float64 numbers\n"
            "All closed forms verified."
        )
    return 0


def one_line(name: str, report: verification.Report) -> str:
    """The largest error of each kind of reference."""

    def largest(*references: str) -> float:
        return max(c.error for c in report.checks if c.reference in references)

    numbers = largest("complex step", "differences")
    return (
        f"{name:16}{report.cases:>7}{numbers:>10.1e}{largest('jacfwd', 'jacrev'):>10.1e}"
        f"{largest('float64'):>10.1e}  ok"
    )


def activation_table() -> str:
    """float32 derivatives near saturation: closed form and autodiff, in ulp of the truth."""
    rows = verification.saturation()
    lines = [f"\n{'float32 derivative':20}{'closed form':>18}{'autodiff':>18}"]
    for row in rows:
        lines.append(f"{row.where:20}{row.closed_ulp:>14.1f} ulp{row.autodiff_ulp:>14.3g} ulp")
    return "\n".join(lines) + "\n"


def find_cell(name: str) -> Cell:
    """One of ours by name, or the cell at `module:attribute`."""
    if name in OURS:
        return OURS[name]
    module, _, attribute = name.partition(":")
    file = pathlib.PurePath(module)
    if attribute and file.suffix == ".py":
        where = "" if file.parent == pathlib.PurePath() else f" in the folder {file.parent}"
        raise ValueError(
            f"cell: expected module:attribute, got the file name {file.name}; "
            f"write {file.stem}:{attribute}{where}"
        )
    if not attribute or module[:1] in ("", "."):
        raise ValueError(f"cell: expected one of {', '.join(OURS)} or module:attribute, got {name}")
    sys.path.insert(0, "")  # a cell in the current folder is found, as with python -m
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"cell: cannot import {error.name}, asked for by {name}") from error
    if not hasattr(found, attribute):
        raise ValueError(f"cell: module {module} has no attribute {attribute}")
    return checked_cell(name, getattr(found, attribute))


def checked_cell(name: str, found: Any) -> Cell:
    """What stands at `name`, if it is a cell; else say which name it was."""
    try:
        arguments.check_cell(found)
    except TypeError as error:
        hint = "; did you mean to call it? name a cell, e.g. cell = jaxrnn.lstm() in your module"
        raise TypeError(f"{name}: {error}{hint if callable(found) else ''}") from error
    return found


def demo_command(out: pathlib.Path, quick: bool, seed: int) -> int:
    """Run the demo, print its table, write figures and summary.json."""
    from tqdm import tqdm

    from jaxrnn import demo

    try:
        from jaxrnn import plot
    except ImportError as error:
        raise ImportError(f"{error.name} is missing; pip install 'jaxrnn[demo]'") from error

    arguments.check_size("seed", seed, least=0)
    data = demo.load_digits(seed)
    with writing_to(out):  # before the training: a folder that cannot be is not worth the wait
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
    print(f"\nWritten to {out}/: gradient_flow.png, forget_gates.png, summary.json")
    return 0


@contextlib.contextmanager
def writing_to(out: pathlib.Path) -> Iterator[None]:
    """Name the argument when a write fails. Around the writes alone: other OSErrors are no input's.

    Raises: ValueError for an OSError.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(f"out: cannot write to {out}: {error}") from error


def demo_table(runs: Sequence[Any]) -> str:
    """The summaries side by side."""
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
