"""What docstrings of this project need beside napoleon, before it reads them.

An equation stands four columns in: a literal block. What reStructuredText would take for markup
(`*`, `|`, a trailing `_`) is text. `code` is the default role: single backticks stay as they are.
"""

import re
from collections.abc import Iterator
from typing import Any

SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Cost|Accuracy|Source):$")


def prepared(lines: list[str]) -> Iterator[str]:
    """The lines of a docstring with its equations marked and its text escaped."""
    section = equation = example = False
    for line, before in zip(lines, ["", *lines], strict=False):
        if line and not line.startswith(" "):
            section = bool(SECTION.match(line))
            if equation and before:
                yield ""
            equation = False
            example = line.startswith(">>>") or (example and bool(before))
        elif line.startswith("    ") and not (section or equation or example):
            equation = True
            yield from ("::", "")
        yield line if equation or example else escaped(line)


def escaped(text: str) -> str:
    """Plain text but for `code`."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if part.startswith("`") else _plain(part) for part in parts)


def _plain(text: str) -> str:
    return re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", text)


def process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """In place of what Sphinx read."""
    lines[:] = prepared(list(lines))


def skipped(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Fields of a NamedTuple say nothing of their own: its docstring names them."""
    return True if type(thing).__name__ == "_tuplegetter" else None


def setup(app: Any) -> dict[str, bool]:
    """Hook both in; napoleon reads at 500, after this."""
    app.connect("autodoc-skip-member", skipped)
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True}
