"""The house: floors, public names, an import that touches nothing, comments that hide nothing."""

import ast
import importlib
import inspect
import io
import pathlib
import pkgutil
import re
import subprocess
import sys
import tokenize

import pytest

import jaxrnn

ROOT = pathlib.Path(jaxrnn.__file__).parent

DESIGN = ROOT.parent / "docs" / "design.md"
TESTS = pathlib.Path(__file__).parent


def drawn_floors():
    """Folder or module ↦ its floor, as docs/design.md draws them."""
    drawing = DESIGN.read_text().split("## Floors")[1].split("\n## ")[0]
    found, level = {}, None
    for line in drawing.splitlines():
        if item := re.match(r"    (..) ([a-z_]+)/? ", line):
            level = int(item[1]) if item[1].strip() else level
            found[item[2]] = level
    return found


FLOORS = drawn_floors()
LOOSE = {"matplotlib", "jinja2", "tyro", "tqdm", "sklearn"}  # only the top floors may import these
TOP = {"demo", "plot", "report", "cli"}


def modules():
    return [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def part(path):
    """The name under which a file appears in FLOORS."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def dotted(path):
    return ".".join(("jaxrnn", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


def imports(path):
    """Every module that a file imports, function bodies included."""
    known = {dotted(p) for p in ROOT.rglob("*.py")}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in known else node.module


def test_the_drawing_has_just_what_there_is():
    there = {part(path) for path in modules()}
    assert set(FLOORS) == there
    assert len([path for path in modules() if path.parent == ROOT]) <= 12


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_module_imports_only_from_floors_below(path):
    mine = part(path)
    for name in imports(path):
        other = [*name.split("."), ""][1]
        if name.split(".")[0] != "jaxrnn" or other == mine:
            continue
        if not other:  # the package's surface
            assert mine == "cli", f"{mine} imports jaxrnn itself"
            continue
        assert FLOORS[other] < FLOORS[mine], f"{mine} imports {other}"


def test_cells_never_import_each_other():
    machinery = {
        "activations", "affine", "contract", "contribution_sizes", "drawing", "gate_blocks",
        "input_axes",
        "pointwise_cell", "pointwise_checks", "pointwise_jacobians", "pointwise_map", "step_cell",
        "traits",
    }  # fmt: skip
    cells = {path.stem for path in (ROOT / "cells").glob("*.py")} - machinery - {"__init__"}
    assert cells >= {"rnn", "lstm", "gru", "reset_first_gru", "projected_lstm"}
    for path in (ROOT / "cells").glob("*.py"):
        names = {name.rpartition(".")[2] for name in imports(path)}
        assert not cells & names, path


def test_no_modules_import_each_other_in_a_circle():
    graph = {dotted(path): set(imports(path)) for path in modules()}

    def reach(start):
        found, todo = set(), [start]
        while todo:
            new = graph.get(todo.pop(), set()) - found
            found |= new
            todo += new
        return found

    reached = {name: reach(name) for name in graph}
    circles = {frozenset(other for other in reached[name] if name in reached.get(other, ()))
               for name in graph if name in reached[name]}  # fmt: skip
    assert sorted(map(sorted, circles)) == []


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_module_keeps_the_rules_of_the_house(path):
    text, names = path.read_text(), set(imports(path))
    assert "jax._src" not in text
    assert "config.update(" not in re.sub(r'"[^"]*"', "", text)
    assert part(path) in TOP or not {name.split(".")[0] for name in names} & LOOSE
    assert not re.fullmatch(r"utils|common|misc|base|helpers|types", path.stem)
    assert len(code_lines(text)) <= 250
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.stem)
def test_a_comparison_says_its_relative_tolerance(path):
    """NumPy's default of 1e-7 would let pass what is meant to agree to the last bits."""
    for call in ast.walk(ast.parse(path.read_text())):
        name = ast.unparse(call.func).split(".")[-1] if isinstance(call, ast.Call) else None
        said = {"assert_allclose": "rtol", "approx": "rel"}.get(name)
        if said and said not in {each.arg for each in call.keywords}:
            pytest.fail(f"line {call.lineno}: {name} without {said}")


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.stem)
def test_what_tests_share_is_in_support(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests"):
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            assert not [name for name in names if name.startswith("test_")]


def code_lines(text):
    """The numbers of the lines that hold code: no docstring, no comment, not empty."""
    docstrings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
        for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)
    }
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    return {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in layout
        for line in range(token.start[0], token.end[0] + 1)
    } - docstrings


def comment_lines(text):
    """How many lines have a comment that is for readers, not for a tool."""
    comments = (
        t
        for t in tokenize.generate_tokens(io.StringIO(text).readline)
        if t.type == tokenize.COMMENT
    )
    return sum(not re.match(r"# (noqa|fmt|type):", token.string) for token in comments)


def test_comments_say_why_often_enough():
    """The mark: 0.06 of the code lines; ten admired packages have 0.02 to 0.22."""
    texts = [path.read_text() for path in ROOT.rglob("*.py")]
    code = sum(len(code_lines(text)) for text in texts)
    assert sum(comment_lines(text) for text in texts) >= 0.06 * code


def public_modules():
    found = [m.name for m in pkgutil.walk_packages([str(ROOT)], "jaxrnn.")]
    return [name for name in found if not {"plot", "report"} & set(name.split("."))]


@pytest.mark.parametrize("name", public_modules())
def test_every_public_name_exists_and_is_documented(name):
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        thing = getattr(module, public)
        # A type by name, such as `State`, says what it is in a comment beside it.
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert inspect.getdoc(thing), f"{name}.{public} has no docstring"


def test_all_lists_just_what_the_package_offers():
    offered = {
        name
        for name, thing in vars(jaxrnn).items()
        if not name.startswith("_") and (not inspect.ismodule(thing) or name in jaxrnn.__all__)
    }
    assert offered == set(jaxrnn.__all__)
    assert list(jaxrnn.__all__) == sorted(jaxrnn.__all__)


def test_no_function_shares_its_name_with_a_module_of_its_package():
    for name in jaxrnn.__all__:
        if not inspect.ismodule(getattr(jaxrnn, name)):
            assert not (ROOT / f"{name}.py").exists()
            assert not (ROOT / name).is_dir()


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "", "PYTHONPATH": str(ROOT.parent), **environment},
    )


def test_import_touches_no_backend():
    """A platform that does not exist is noticed only by what starts a backend."""
    imported = run_python("import jaxrnn", JAX_PLATFORMS="nowhere")
    assert imported.returncode == 0, imported.stderr
    used = run_python("import jaxrnn, jax; jax.devices()", JAX_PLATFORMS="nowhere")
    assert used.returncode != 0


def test_import_needs_no_extra():
    blocked = "import sys; sys.modules.update(dict.fromkeys({!r})); import jaxrnn"
    imported = run_python(blocked.format(sorted(LOOSE)))
    assert imported.returncode == 0, imported.stderr


@pytest.mark.parametrize("name", ["plot", "report"])
def test_what_needs_an_extra_is_imported_when_asked_for(name, monkeypatch):
    module = importlib.import_module(f"jaxrnn.{name}")
    monkeypatch.delattr(jaxrnn, name, raising=False)
    assert getattr(jaxrnn, name) is module


def test_command_without_its_extra_says_what_to_install():
    code = "import sys; sys.modules['tyro'] = None; from jaxrnn.cli import main; main(['verify'])"
    run = run_python(code)
    assert run.returncode == 1
    assert "pip install 'jaxrnn[cli]'" in run.stderr


class Printer:
    """What IPython hands to `_repr_pretty_`."""

    def __init__(self):
        self.written = []

    def text(self, text):
        self.written.append(text)


@pytest.mark.parametrize("record", [
    jaxrnn.lyapunov.Exponents, jaxrnn.truncation.Curve, jaxrnn.paths.CellPaths,
    jaxrnn.certificates.Certificate,
], ids=lambda record: record.__name__)  # fmt: skip
def test_a_record_shows_in_a_notebook_what_it_prints(record, monkeypatch):
    monkeypatch.setattr(record, "__str__", lambda self: "a table")
    printer = Printer()
    record(*[None] * len(record._fields))._repr_pretty_(printer, False)
    assert printer.written == ["a table"]


@pytest.mark.parametrize(
    ("name", "needs", "extra"),
    [("plot", "matplotlib", "plot"), ("report", "jinja2", "report"),
     ("strategies", "hypothesis", "test")],
)  # fmt: skip
def test_a_module_whose_extra_is_missing_says_what_to_install(name, needs, extra):
    program = f"import sys; sys.modules[{needs!r}] = None; import jaxrnn; jaxrnn.{name}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{needs} is missing; pip install 'jaxrnn[{extra}]'" in done.stderr
