"""Docstrings as this project writes them, made into reStructuredText for Sphinx.

An equation stands four columns in, a section is `Args:    name: meaning; shape`, an example
begins with `>>>`. The sections become field lists, equations literal blocks, and what Sphinx would
take for markup (`*`, `|`, a trailing `_`) is text.
"""

import inspect
import re
from collections.abc import Iterator
from typing import Any

SECTIONS = ("Args", "Returns", "Raises", "Cost", "Accuracy", "Source", "Attributes")
HEAD = re.compile(rf"({'|'.join(SECTIONS)}):(?: +(.*))?$")
NAMED = re.compile(r"[a-z_]\w*(, \w+)*: \S")
ARGUMENT = re.compile(r"(\*{0,2}[A-Za-z_][\w, *]*): (.*)")


def converted(text: str) -> list[str]:
    """The docstring's lines as reStructuredText."""
    return [line for block in blocks(inspect.cleandoc(text)) for line in [*rendered(block), ""]]


def blocks(text: str) -> Iterator[list[str]]:
    """Runs of lines of one kind, apart at empty lines and at the head of each section."""
    block: list[str] = []
    for line in text.splitlines():
        new_kind = block and line and line.startswith("    ") != block[0].startswith("    ")
        inside = block and HEAD.match(block[0]) and line.startswith("  ")
        if not line or HEAD.match(line) or (new_kind and not inside):
            if block:
                yield block
            block = []
        if line:
            block.append(line)
    if block:
        yield block


def rendered(block: list[str]) -> list[str]:
    """One block."""
    section = HEAD.match(block[0])
    if section:
        return field(section[1], [section[2] or "", *(line.strip() for line in block[1:])])
    if block[0].startswith(">>>"):
        return block
    if block[0].startswith("    "):
        return ["::", "", *block]
    if NAMED.match(block[0]):  # the fields of a record
        return listed([line.strip() for line in block], "")
    return [escaped(line.strip()) for line in block]


def field(name: str, lines: list[str]) -> list[str]:
    """A field; arguments as a list below it."""
    if name not in ("Args", "Attributes"):
        return [f":{name}: {escaped(' '.join(lines))}"]
    return [f":{name}:", *listed(lines, "    ")]


def listed(lines: list[str], indent: str) -> list[str]:
    """`name: meaning` line by line; what has no name goes on from the line before."""
    out: list[str] = []
    for line in filter(None, lines):
        argument = ARGUMENT.match(line)
        if argument:
            out.append(f"``{argument[1]}``: {escaped(argument[2])}")
        elif out:
            out[-1] += f" {escaped(line)}"
        else:
            out.append(escaped(line))
    return [f"{indent}| {line}" for line in out]


def escaped(text: str) -> str:
    """Plain text but for `code`, which becomes ``code``."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(
        f"``{part[1:-1]}``" if part.startswith("`") and len(part) > 2 else _plain(part)
        for part in parts
    )


def _plain(text: str) -> str:
    return re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", text)


def process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """In place of what Sphinx read."""
    lines[:] = converted("\n".join(lines))


def skipped(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Fields of a NamedTuple say nothing of their own: its docstring names them."""
    return True if type(thing).__name__ == "_tuplegetter" else None


def setup(app: Any) -> dict[str, bool]:
    """Hook both in."""
    app.connect("autodoc-skip-member", skipped)
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True}
