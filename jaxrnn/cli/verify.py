"""`jaxrnn verify`."""

import importlib
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jaxrnn
from jaxrnn import _checks, verification
from jaxrnn.cells.contract import Cell

__all__ = ["OURS", "verify_command"]

OURS = {
    "rnn[tanh]": jaxrnn.rnn(),
    "rnn[sigmoid]": jaxrnn.rnn(activation=jaxrnn.activations.sigmoid),
    "rnn[relu]": jaxrnn.rnn(activation=jaxrnn.activations.relu),
    "rnn[identity]": jaxrnn.rnn(activation=jaxrnn.activations.identity),
    "lstm": jaxrnn.lstm(),
    "gru": jaxrnn.gru(),
    "cifg": jaxrnn.cifg(),
    "mgu": jaxrnn.mgu(),
    "janet": jaxrnn.janet(),
    "ugrnn": jaxrnn.ugrnn(),
    "peephole_lstm": jaxrnn.peephole_lstm(),
    "projected_lstm": jaxrnn.projected_lstm(2),
    "lstm[hard]": jaxrnn.lstm(gate=jaxrnn.activations.hard_sigmoid),
    "gru[hard]": jaxrnn.gru(gate=jaxrnn.activations.keras2_hard_sigmoid),
}


def verify_command(names: Sequence[str], cases: int, seed: int, details: bool) -> int:
    """Verify cells and print a table.

    Args:
      names: Cells as in `find_cell`; none for all built-in ones.
      cases: How many random cases each shape and scale has.
      seed: The seed of the random cases.
      details: Whether the whole table of each cell is printed instead of one line.

    Returns:
      The exit code: 0 if every cell passed, else 1.

    Raises:
      TypeError: If an option is no integer, or a name stands for something else than a cell.
      ValueError: If an option is out of its range, or a name stands for nothing.
    """
    from tqdm import tqdm

    # Counts and names are checked before anything is printed or run.
    _checks.check_integer("cases", cases, least=1)
    _checks.check_integer("seed", seed, least=0)
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
        ours = all(name in OURS for name in names)
        if ours:
            print(activation_table())
        print(
            "numbers: complex steps (or differences), largest error over 1 + max|J|\n"
            "autodiff: jacfwd and jacrev, ‖error‖/‖J‖; float32: against float64 numbers\n"
            + ("All closed forms verified." if ours else "Verified.")
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
    """Errors of float32 derivatives near saturation, closed form and autodiff, in ulp."""
    rows = verification.saturation()
    lines = [f"\n{'float32 derivative':20}{'closed form':>18}{'autodiff':>18}"]
    for row in rows:
        lines.append(f"{row.where:20}{row.closed_ulp:>14.1f} ulp{row.autodiff_ulp:>14.3g} ulp")
    return "\n".join(lines) + "\n"


def find_cell(name: str) -> Cell:
    """A cell by name: a built-in one, or the one at `module:attribute`.

    Args:
      name: A key of `OURS`, or `module:attribute`.

    Returns:
      The cell.

    Raises:
      TypeError: If the attribute is not a cell.
      ValueError: If there is no such name, module or attribute.
    """
    if name in OURS:
        return OURS[name]
    module, _, attribute = name.partition(":")
    file = pathlib.PurePath(module)
    # `cells.py:bad` would be read as the module `py` of a package `cells`.
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
        raise ValueError(
            f"cell: cannot import {error.name}, asked for by {name}, from this folder or the "
            "installed packages; run it where the module is, or set PYTHONPATH"
        ) from error
    if not hasattr(found, attribute):
        raise ValueError(f"cell: module {module} has no attribute {attribute}")
    return checked_cell(name, getattr(found, attribute))


def checked_cell(name: str, found: Any) -> Cell:
    """`found` if it is a cell; else the refusal names `name`."""
    # `check_cell` says "cell:", which of several names does not tell.
    try:
        _checks.check_cell(found)
    except TypeError as error:
        hint = "; did you mean to call it? name a cell, e.g. cell = jaxrnn.lstm() in your module"
        raise TypeError(f"{name}: {error}{hint if callable(found) else ''}") from error
    return found
