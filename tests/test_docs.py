"""The documentation: pages of the reference, docstrings, links, and tables made from JSON."""

import inspect
import pathlib
import re

import docstring_parser
import pytest

from benchmarks import render
from docs import docstrings
from tests.support import transform_table
from tests.support.public import MODULES, offered, resolved

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "tests" / "README.md"])
NAMED = re.compile(r"\.\. auto(?:function|class|data):: (\S+)")
SECTIONS = ("Args", "Returns", "Raises", "Cost", "Accuracy", "Source")


def reference(module):
    return NAMED.findall((DOCS / "api" / f"{module}.md").read_text())


@pytest.mark.parametrize("name", ["jaxrnn", *sorted(MODULES)])
def test_the_reference_has_just_what_a_module_offers(name):
    assert sorted(reference(name)) == sorted(offered(name))


def test_every_module_has_its_page():
    pages = {path.stem for path in (DOCS / "api").glob("*.md")} - {"index"}
    assert pages == MODULES | {"jaxrnn"}
    listed = (DOCS / "api" / "index.md").read_text().split("```")[1].split()
    assert set(listed[3:]) == pages


def functions():
    for page in sorted({"jaxrnn", *MODULES}):
        for full in reference(page):
            thing = resolved(full)
            if callable(thing) and not inspect.isclass(thing) and not is_record(thing):
                yield pytest.param(thing, id=full)


def is_record(thing):
    """An instance, such as `activations.tanh`, documented by its class."""
    return not hasattr(thing, "__name__")


@pytest.mark.parametrize("function", list(functions()))
def test_a_docstring_says_what_goes_in_and_what_comes_out(function):
    """Google style, as editors read it: every parameter by name, and no section without words."""
    read = docstring_parser.parse_from_object(function, docstring_parser.DocstringStyle.GOOGLE)
    told = {name for item in read.params for name in item.arg_name.split(", ")}
    assert told == set(inspect.signature(function).parameters)
    assert read.returns is not None
    assert read.returns.description
    for item in (*read.params, *read.raises):
        assert item.description
    headings = re.findall(r"^([A-Z]\w+):\s*$", inspect.getdoc(function), re.MULTILINE)
    assert headings == [name for name in SECTIONS if name in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?:|#", target):
            assert (page.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("name", render.PAGES)
def test_tables_are_those_of_the_committed_json(name):
    text = (ROOT / name).read_text()
    assert "<!-- table:" in text
    assert render.filled(text, ROOT / "benchmarks" / "results") == text


def test_the_table_of_transformations_is_the_one_that_is_tested():
    text = (DOCS / "transforms.md").read_text()
    assert transform_table.filled(text) == text


def test_a_docstring_becomes_restructured_text():
    made = "\n".join(docstrings.prepared(inspect.cleandoc(
        """One line of `code_` and |x| * y_.

            z = W h₋ * |x|

        Args:
          a: first; `(T, *batch)`.
            more of it.
          *b: second.

        >>> 1 * 1
        1
        """
    ).splitlines()))  # fmt: skip
    assert r"One line of `code_` and \|x\| \* y\_." in made
    assert "::\n\n    z = W h₋ * |x|\n" in made
    assert "Args:\n  a: first; `(T, *batch)`.\n    more of it.\n  \\*b: second.\n" in made
    assert ">>> 1 * 1\n1" in made
