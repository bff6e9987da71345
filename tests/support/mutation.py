"""Mutation testing of the modules that hold the closed forms: mutants by mutmut, a sample run.

mutmut makes some five thousand, and a run of them all takes a day: of those that a pattern names, a
sample is drawn at random. Each is run in a fork of a process that has only imported JAX and pytest,
the tests of its module and its function first and the quickest of them before others, until one
fails; what no test has killed when the time for it is over counts as alive. JAX's compilation cache
on disk holds what no mutant changes. A second run in the same folder keeps what was killed and runs
the rest.

mutmut leaves decorated functions alone, and here most of the arithmetic stands under `jax.jit`. In
the copy each decorator is therefore a call after its function, `f = jit(f)`.

    python -m tests.support.mutation [PATTERN …] [--sample 200] [--seed 0] [--seconds 240]
                                     [--into FOLDER]

A pattern is one of names, such as `jaxrnn.cells.lstm*`. `mutmut show NAME` in the folder shows what
a mutant changes.
"""

import argparse
import ast
import fnmatch
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MODULES = {  # ↦ its own tests
    "cells/rnn": ("cells", "jacobians", "gate_statistics"),
    "cells/lstm": ("cells", "jacobians", "gate_statistics"),
    "cells/gru": ("cells", "jacobians", "gate_statistics"),
    "cells/reset_first_gru": ("convert",),
    "cells/pointwise_cell": ("cells", "jacobians", "unrolling"),
    "analysis/jacobians": ("jacobians",), "analysis/bptt": ("bptt",),
    "analysis/products": ("products",), "numerics/matrix_products": ("products",),
    "analysis/path_rows": ("paths", "products"), "analysis/certificates": ("certificates",),
    "analysis/paths": ("paths",), "training/clipping": ("clipping",),
}  # fmt: skip
TESTS = (
    "bad_input", "bptt", "cells", "certificates", "clipping", "convert", "edges",
    "gate_statistics", "jacobians", "layers", "paths", "products", "properties", "regularizers",
    "run", "truncation", "unrolling", "verification",
)  # fmt: skip
CONFIG = """
[tool.mutmut]
source_paths = ["jaxrnn"]
only_mutate = [{modules}]
also_copy = ["benchmarks", "docs", "README.md", "LICENSE"]
do_not_mutate_patterns = ['raise \\w+', '__all__']
"""
GENERATE = (
    "from pathlib import Path; from mutmut import __main__ as m; Path('mutants').mkdir(); "
    "m.set_mutant_under_test('mutant_generation'); m.copy_src_dir(); m.copy_also_copy_files(); "
    "m.setup_source_paths(); m.create_mutants(2)"
)
UNKNOWN = 0.5  # seconds that a test is taken to last before it was run
ENDED = {0: "alive", 1: "killed", 2: "killed"}  # by pytest's exit code; 2 if it cannot import
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
    """The tree as git has it, and its mutants."""
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
    modules = ", ".join(f'"{path}"' for path in paths)
    with (into / "pyproject.toml").open("a") as file:
        file.write(CONFIG.format(modules=modules))
    subprocess.run([sys.executable, "-c", GENERATE], cwd=into, check=True, capture_output=True)


def mutants(into: Path, patterns: list[str]) -> list[str]:
    """Names of all, or of those that a pattern meets."""
    found = []
    for path in sorted((into / "mutants").rglob("*.meta")):
        found += json.loads(path.read_text())["exit_code_by_key"]
    return [n for n in found if not patterns or any(fnmatch.fnmatch(n, p) for p in patterns)]


def nearest(name: str) -> tuple[str, ...]:
    """What the tests of a mutant's module and those of its function have in their ids."""
    module, _, function = name.removeprefix("jaxrnn.").partition(".x")
    words = re.split("ǁ|__mutmut", function)[-2].lower().split("_")
    files = [f"/test_{test}.py" for test in MODULES[module.replace(".", "/")]]
    return (*files, *[word for word in words if len(word) > 3])


class QuickFirst:
    """A plugin that runs near tests first, by the time that they took before, and notes it."""

    def __init__(self, path: Path, near: tuple[str, ...]) -> None:
        self.path, self.near = path, near

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        known = dict(json.loads(line) for line in lines)

        def order(item: Any) -> tuple[bool, float]:
            far = not any(part in item.nodeid.lower() for part in self.near)
            return far, known.get(item.nodeid, UNKNOWN)

        items.sort(key=order)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" and report.passed:
            with self.path.open("a") as file:
                file.write(json.dumps([report.nodeid, report.duration]) + "\n")


def started(name: str, into: Path) -> int:
    """The process in which a mutant is tested; it ends with pytest's exit code."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    os.chdir(into / "mutants")
    os.environ.update(CACHE, JAX_COMPILATION_CACHE_DIR=str(into / "compiled"))
    os.environ["MUTANT_UNDER_TEST"] = name
    sys.path.insert(0, str(into / "mutants"))
    for module in [m for m in sys.modules if m.split(".")[0] == "tests"]:
        del sys.modules[module]  # this one: the mutant's tests are in its own folder
    log = os.open(into / "logs" / f"{name}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import pytest

    code = 3
    try:
        plugins = ("xdist", "cacheprovider", "randomly", "cov")
        given = [argument for name in plugins for argument in ("-p", f"no:{name}")]
        files = [str(file) for test in TESTS for file in Path("tests").rglob(f"test_{test}.py")]
        plugin = QuickFirst(into / "durations.jsonl", nearest(name))
        code = int(pytest.main([*given, "-x", "-q", *files], plugins=[plugin]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(names: list[str], into: Path, seconds: float, children: int) -> dict[str, str]:
    """Name ↦ killed, alive, or out of time, each said as it comes."""
    import chex  # noqa: F401  what every child has imported already
    import jax  # noqa: F401
    import optax  # noqa: F401
    import pytest  # noqa: F401

    (into / "logs").mkdir(exist_ok=True)
    results = into / "results.json"
    before = json.loads(results.read_text()) if results.exists() else {}
    found = {name: "killed" for name in names if before.get(name) == "killed"}
    waiting = [name for name in reversed(names) if name not in found]
    waiting.sort(key=lambda name: name not in before)  # popped from the end: new ones first
    running: dict[int, tuple[str, float]] = {}
    while waiting or running:
        while waiting and len(running) < children:
            name = waiting.pop()
            running[started(name, into)] = (name, time.monotonic())
        time.sleep(0.2)
        for pid, (name, began) in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            took = time.monotonic() - began
            if ended:
                code = os.waitstatus_to_exitcode(status)
                found[name] = ENDED.get(code, "not run")
            elif took > seconds:
                os.killpg(pid, 9)
                os.waitpid(pid, 0)
                found[name] = "out of time"
            else:
                continue
            del running[pid]
            print(f"{len(found):4}/{len(names)}  {found[name]:12}{took:6.0f} s  {name}", flush=True)
            results.write_text(json.dumps(before | found, indent=1))
    return found


def main() -> None:
    """Copy and mutate, unless that was done before, draw, run, and say the score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("patterns", nargs="*")
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=240, help="for each mutant")
    parser.add_argument("--into", type=Path, default=Path("mutation"))
    parser.add_argument("--children", type=int, default=os.cpu_count())
    given = parser.parse_args()
    into = given.into.resolve()
    if not (into / "mutants").exists():
        copied(into)
    names = mutants(into, given.patterns)
    drawn = random.Random(given.seed).sample(names, min(given.sample, len(names)))
    found = run(drawn, into, given.seconds, given.children)
    dead = sum(result == "killed" for result in found.values())
    print(f"{dead} of {len(found)} drawn from {len(names)} killed")


if __name__ == "__main__":
    main()
