"""Mutation testing with mutmut, in a copy of the tree, of the modules that hold the closed forms.

mutmut leaves decorated functions alone, and here most of the arithmetic stands under `jax.jit`. In
the copy each decorator is therefore a call after its function, `f = jit(f)`. Programs that do not
change from mutant to mutant come from JAX's compilation cache on disk.

    python -m tests.mutation [PATTERN …] [--into FOLDER] [--children 2]

A pattern is one of mutmut's, such as `jaxrnn.cells.lstm*`. mutmut remembers what it has run in the
folder; `mutmut results` there lists what survived, `mutmut show NAME` its difference.
"""

import argparse
import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = (
    "cells/rnn", "cells/lstm", "cells/gru", "cells/reset_first", "pointwise_cell", "jacobians",
    "bptt", "products", "matrix_products", "certificates", "paths", "chains", "clipping",
)  # fmt: skip
TESTS = (
    "cells", "unrolling", "jacobians", "properties", "bptt", "products", "certificates", "paths",
    "clipping", "bad_input",
)  # fmt: skip
CONFIG = """
[tool.mutmut]
source_paths = ["jaxrnn"]
only_mutate = [{modules}]
also_copy = ["benchmarks", "docs", "README.md", "LICENSE"]
process_isolation = "forkserver"
forkserver_warmup = "import"
preload_modules_file = "preload.txt"
pytest_add_cli_args = ["-p", "no:xdist", "-p", "no:randomly", "-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = [{tests}]
do_not_mutate_patterns = ['raise \\w+', '__all__']
"""
CACHE = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
}


def undecorated(source: str) -> str:
    """The module with `f = decorator(f)` after each function in place of its decorators."""
    lines = source.splitlines(keepends=True)
    for node in reversed(ast.parse(source).body):
        if not isinstance(node, ast.FunctionDef) or not node.decorator_list:
            continue
        calls = [
            f"{node.name} = ({ast.unparse(decorator)})({node.name})\n"
            for decorator in reversed(node.decorator_list)
        ]
        first = node.decorator_list[0].lineno - 1
        lines[first : node.end_lineno] = [
            *lines[node.lineno - 1 : node.end_lineno], "\n\n", *calls
        ]  # fmt: skip
    return "".join(lines)


def copied(into: Path) -> None:
    """The tree as git has it, made ready for mutmut."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, into / name)
    paths = [f"jaxrnn/{module}.py" for module in MODULES]
    for path in paths:
        (into / path).write_text(undecorated((into / path).read_text()))
    quoted = {
        "modules": ", ".join(f'"{path}"' for path in paths),
        "tests": ", ".join(f'"tests/test_{name}.py"' for name in TESTS),
    }
    with (into / "pyproject.toml").open("a") as file:
        file.write(CONFIG.format(**quoted))
    (into / "preload.txt").write_text("jax\njax.numpy\noptax\nchex\nhypothesis\npytest\nnumpy\n")


def main() -> None:
    """Copy, unless that was done before, and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("patterns", nargs="*")
    parser.add_argument("--into", type=Path, default=Path("mutation"))
    parser.add_argument("--children", type=int, default=os.cpu_count())
    given = parser.parse_args()
    into = given.into.resolve()
    if not (into / "pyproject.toml").exists():
        copied(into)
    environment = os.environ | CACHE | {"JAX_COMPILATION_CACHE_DIR": str(into / "compiled")}
    command = [sys.executable, "-m", "mutmut"]
    run = [*command, "run", "--max-children", str(given.children), *given.patterns]
    subprocess.run(run, cwd=into, env=environment, check=True)
    subprocess.run([*command, "export-cicd-stats"], cwd=into, check=True)
    print((into / "mutants" / "mutmut-cicd-stats.json").read_text())


if __name__ == "__main__":
    main()
