"""The house: floors, public names, an import that touches nothing, comments that hide nothing."""

import ast
import importlib
import inspect
import pathlib
import pkgutil
import re
import subprocess
import sys

import pytest

import jaxrnn

ROOT = pathlib.Path(jaxrnn.__file__).parent

FLOORS = (
    ("traits", "factorizations"),
    ("arguments",),
    ("activations", "cell", "pointwise", "projections", "tasks", "time_axis", "zeros"),
    ("norms",),
    ("outer_products", "scaling", "horizon"),
    ("matrix_products", "state_vectors", "affine_gradients", "clipping"),
    ("pointwise_cell", "step_cell"),
    ("cells",),
    ("tangent_scan",),
    ("unrolling",),
    ("run",),
    ("linearisation",),
    ("chains",),
    ("transposition",),
    ("jacobians",),
    ("bptt", "truncation", "products", "lyapunov", "paths"),
    ("example_gradients", "gate_statistics"),
    ("certificates", "layers", "regularizers", "initializers"),
    ("convert",),
    ("diagnosis",),
    ("verification",),
    ("strategies",),
    ("phenomena",),
    ("demo",),
    ("plot",),
    ("report",),
    ("cli",),
)
LOOSE = {"matplotlib", "jinja2", "tyro", "tqdm", "sklearn"}  # only the top floors may import these
TOP = {"demo", "plot", "report", "cli"}


def modules():
    return [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def part(path):
    """The name under which a file appears in FLOORS."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path):
    """Every module that a file imports, function bodies included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module == "jaxrnn":
                yield from (f"jaxrnn.{alias.name}" for alias in node.names)


def floor(name):
    found = [i for i, names in enumerate(FLOORS) if name in names]
    assert found, f"{name} stands on no floor: add it to FLOORS"
    return found[0]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_module_imports_only_from_floors_below(path):
    mine = part(path)
    for name in imports(path):
        if not name.startswith("jaxrnn.") or mine == "cli":
            continue  # the command line is a user of the package: it may import its surface
        other = name.split(".")[1]
        if other == mine:
            assert mine != "cells", "cells never import each other"
            continue
        assert floor(other) < floor(mine), f"{mine} imports {other}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_module_keeps_the_rules_of_the_house(path):
    text, names = path.read_text(), set(imports(path))
    assert "jax._src" not in text
    assert "config.update(" not in re.sub(r'"[^"]*"', "", text)
    assert part(path) in TOP or not {name.split(".")[0] for name in names} & LOOSE
    assert not re.fullmatch(r"utils|common|misc|base|helpers|types", path.stem)
    assert text.count("\n") <= 400
    assert ast.get_docstring(ast.parse(text))


def public_modules():
    found = [m.name for m in pkgutil.walk_packages([str(ROOT)], "jaxrnn.")]
    return [name for name in found if not {"plot", "report"} & set(name.split("."))]


@pytest.mark.parametrize("name", public_modules())
def test_every_public_name_exists_and_is_documented(name):
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        thing = getattr(module, public)
        if callable(thing):
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
    monkeypatch.delattr(jaxrnn, name)
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
