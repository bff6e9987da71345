"""Tables and pictures of the documentation, from the JSON that the benchmarks wrote.

A page has a place for each table:

    <!-- table: bptt_cpu -->
    <!-- end -->

and what stands between is made here, so that no figure of a page is older than its measurement.

    python -m benchmarks.render [--check] [--results FOLDER]
"""

import argparse
import json
import math
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import pictures

ROOT = pathlib.Path(__file__).parents[1]
PAGES = ("docs/performance.md", "docs/scaling.md")
PLACE = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
Record = dict[str, Any]


def rows_by_name(case: Record) -> dict[str, Record]:
    return {row["name"]: row for row in case["rows"]}


def ms(row: Record) -> str:
    return f"{1e3 * row['median_s']:.1f} ms"


def mb(*rows: Record) -> str:
    sizes = [row["temp_bytes"] / 1e6 for row in rows]
    return ", ".join(f"{size:.0f}" if size > 10 else f"{size:.2g}" for size in sizes) + " MB"


def quartiles(row: Record, digits: int = 2) -> str:
    low, middle, high = row["ratio"]
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def faster(row: Record, ours: Record) -> str:
    return f"{row['median_s'] / ours['median_s']:.1f}"


def size_of(case: Record, names: str) -> str:
    return ", ".join(str(case["case"][name]) for name in names.split())


def stack(record: Record) -> list[list[str]]:
    """Jacobian stacks."""
    out = [[
        "H, T", "bare write", "closed form", "× bare write [quartiles]", "jacfwd / closed form",
        "jacrev / closed form", "temporaries closed, jacrev",
    ]]  # fmt: skip
    for case in record["cases"]:
        row = rows_by_name(case)
        ours = row["closed_form"]
        out.append([
            size_of(case, "H T"), ms(row["bare_write"]), ms(ours), quartiles(ours),
            faster(row["jacfwd"], ours), faster(row["jacrev"], ours), mb(ours, row["jacrev"]),
        ])  # fmt: skip
    return out


def bptt(record: Record) -> list[list[str]]:
    """Training steps."""
    out = [[
        "cell", "T, B, D, H", "ours", "× best JAX peer [quartiles]", "× torch", "× bare matmuls",
        "temporaries, of the best peer's",
    ]]  # fmt: skip
    for case in record["cases"]:
        row, of = rows_by_name(case), case["case"]
        best, other = of["best_with_same_equations"], of["best"]
        note = "" if best == other else f" ({row[other]['ratio'][1]:.2f} {other})"
        torch, ours = of.get("torch"), row["jaxrnn"]
        out.append([
            of["cell"], size_of(case, "T B D H"), ms(ours), f"{quartiles(row[best])} {best}{note}",
            "–" if torch is None else f"{torch:.2f}", f"{of['bare matmuls']:.2f}",
            f"{mb(ours)}, {ours['temp_bytes'] / row[best]['temp_bytes']:.2f}",
        ])  # fmt: skip
    return out


def gated(record: Record) -> list[list[str]]:
    """Training steps of cells beside rnn, lstm and gru, a size in each column."""
    cells = list(dict.fromkeys(case["case"]["cell"] for case in record["cases"]))
    sizes = list(dict.fromkeys(size_of(case, "T B D H") for case in record["cases"]))
    out = [["× plain scan", *sizes, "geometric mean"]]
    for cell in cells:
        of = [case for case in record["cases"] if case["case"]["cell"] == cell]
        ratios = [rows_by_name(case)["plain scan"] for case in of]
        mean = math.exp(sum(math.log(row["ratio"][1]) for row in ratios) / len(ratios))
        out.append([cell, *map(quartiles, ratios), f"{mean:.2f}"])
    return out


def contributions(record: Record) -> list[list[str]]:
    """Norms of all contributions."""
    out = [[
        "cell", "T, B, D, H", "one gradient", "contribution_norms / one gradient",
        "taken apart / ours", "T gradients / ours", "temporaries ours, taken apart",
    ]]  # fmt: skip
    for case in record["cases"]:
        row = rows_by_name(case)
        names = ("one gradient", "contribution_norms", "T gradients")
        one, ours, apart = (row.get(name) for name in names)
        T = case["case"]["T"]
        out.append([
            case["case"]["cell"], size_of(case, "T B D H"), ms(one), quartiles(ours),
            "not run" if apart is None else faster(apart, ours),
            f"{T * one['median_s'] / ours['median_s']:.0f}",
            mb(ours) if apart is None else mb(ours, apart),
        ])  # fmt: skip
    return out


def transport(record: Record) -> list[list[str]]:
    """All ‖∂s_T/∂sₖ‖."""
    out = [["T, H", "ours", "jacrev of all / ours", "jacrev of the last / ours",
            "temporaries ours, last, all"]]  # fmt: skip
    for case in record["cases"]:
        row = rows_by_name(case)
        names = ("jaxrnn", "jacrev of the last", "jacrev of all")
        ours, last, every = (row.get(name) for name in names)
        factor = "not run" if every is None else f"{every['ratio'][1]:.0f}"
        out.append([
            size_of(case, "T H"), ms(ours), factor, quartiles(last),
            mb(*filter(None, (ours, last, every))),
        ])  # fmt: skip
    return out


def lyapunov(record: Record) -> list[list[str]]:
    """Lyapunov exponents."""
    out = [["T, H, exponents", "ours", "bare matmuls + QR / ours", "jacfwd + QR / ours"]]
    for case in record["cases"]:
        row, of = rows_by_name(case), case["case"]
        out.append([
            f"{of['T']}, {of['H']}, {of['count']} of {2 * of['H']}", ms(row["jaxrnn"]),
            quartiles(row["bare matmuls + QR"]), f"{row['jacfwd + QR']['ratio'][1]:.2f}",
        ])  # fmt: skip
    return out


def regularizers(record: Record) -> list[list[str]]:
    """Penalties beside the loss."""
    names = ("with Ω", "with Ω at fixed adjoints", "with flossing")
    out = [["cell", "T, B, D, H", "loss alone", *(f"{name} / alone" for name in names)]]
    for case in record["cases"]:
        row = rows_by_name(case)
        out.append([
            case["case"]["cell"], size_of(case, "T B D H"), ms(row["loss alone"]),
            *(quartiles(row[name]) for name in names),
        ])  # fmt: skip
    return out


def clipping(record: Record) -> list[list[str]]:
    """Clipping beside optax."""
    out = [["parameters", "norm", "optax", "jaxrnn / optax", "one pass / optax"]]
    for case in record["cases"]:
        row, of = rows_by_name(case), case["case"]
        out.append([
            f"{of['parameters']:,}", f"{of['norm']:g}", ms(row["optax"]),
            quartiles(row["jaxrnn"]), quartiles(row["one pass"]),
        ])  # fmt: skip
    return out


def long_sequence(record: Record) -> list[list[str]]:
    """One long sequence."""
    out = [["T, B, D, H", "program", "time", "× last of unroll", "temporaries"]]
    for case in record["cases"]:
        for row in case["rows"]:
            out.append([
                size_of(case, "T B D H"), row["name"], ms(row), quartiles(row), mb(row)
            ])  # fmt: skip
    return out


def diagnosis(record: Record) -> list[list[str]]:
    """One diagnosis."""
    size = ", ".join(f"{name} = {value}" for name, value in record["size"].items())
    return [["what", size], *([name, f"{x:.1f}"] for name, x in record["measured"].items())]


def scaling(record: Record) -> list[list[str]]:
    """Growth with each size."""
    out = [["work", "size", "from … to", "time, first … last", "time ∝", "theory",
            "memory ∝", "theory"]]  # fmt: skip
    for case in record["cases"]:
        of, rows = case["case"], case["rows"]
        axis = of["axis"]
        time, memory = of["theory"]
        out.append([
            of["work"], axis, f"{of['sizes'][0][axis]} … {of['sizes'][-1][axis]}",
            f"{ms(rows[0])} … {ms(rows[-1])}", f"{axis}^{of['time_slope']:.2f}",
            f"{axis}^{time}", f"{axis}^{of['memory_slope']:.2f}", f"{axis}^{memory}",
        ])  # fmt: skip
    return out


def constants(record: Record) -> list[list[str]]:
    """Tuned constants at other values."""
    others = ("a quarter", "4 times")
    out = [[
        "constant", "today's", "call", "cell", "T, B, D, H", "time",
        *(f"{name} / today's" for name in others), "temporaries a quarter, today's, 4 times",
    ]]  # fmt: skip
    for case in record["cases"]:
        row, of = rows_by_name(case), case["case"]
        sizes = [
            mb(row[name]) if name in row else "–" for name in (others[0], "today's", others[1])
        ]
        out.append([
            f"`{of['module']}.{of['constant']}`", f"{of['value']}", f"`{of['call']}`", of["cell"],
            size_of(case, "T B D H"), ms(row["today's"]),
            *(quartiles(row[name]) if name in row else "same program" for name in others),
            ", ".join(sizes),
        ])  # fmt: skip
    return out


MAKERS: dict[str, Callable[[Record], list[list[str]]]] = {
    "jacobian_stack": stack, "bptt": bptt, "gated": gated, "contributions": contributions,
    "transport": transport, "lyapunov": lyapunov, "regularizers": regularizers,
    "clipping": clipping,
    "long_sequence": long_sequence, "diagnosis": diagnosis, "scaling": scaling,
    "constants": constants,
}  # fmt: skip


def table(path: pathlib.Path) -> str:
    """The Markdown of one JSON: where and when, then its rows."""
    record = json.loads(path.read_text())
    where = record["environment"]
    maker = next(make for name, make in MAKERS.items() if path.stem.startswith(name))
    head, *rows = maker(record)
    device = f"{where['cores']} cores of {where['cpu']}"
    if where["platform"] != "cpu":
        device = where["device"]
    lines = [
        f"*{where['date']}, {device}, jax {where['jax']}, Python {where['python']}, "
        f"`benchmarks/results/{path.name}`:*",
        "",
        *("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows]),
    ]
    return "\n".join(lines) + "\n"


def filled(text: str, results: pathlib.Path) -> str:
    """A page with each of its tables made anew."""

    def made(match: re.Match[str]) -> str:
        path = results / f"{match[2]}.json"
        if not path.exists():
            sys.exit(f"{path} is missing: jaxrnn bench --out {results} measures it")
        return match[1] + table(path) + match[4]

    return PLACE.sub(made, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a page is old")
    options = parser.parse_args()
    old = []
    for name in PAGES:
        page = ROOT / name
        text = page.read_text()
        made = filled(text, options.results)
        if made != text:
            old.append(name)
            if not options.check:
                page.write_text(made)
    if options.check:
        print("\n".join(f"{name} is older than its JSON" for name in old) or "up to date")
        sys.exit(bool(old))
    pictures.draw(options.results, ROOT / "docs" / "assets")


if __name__ == "__main__":
    main()
