"""The figures of docs/accuracy.md: the largest errors over many random cases.

    python -m tests.support.evidence [jacobians] [properties] [--cases 5000] [--examples 40]
                                     [--out F.json]

What is compared, and with what, is in `jacobian_cases.py` and `properties.py`; this draws
more cases and reports the errors instead of judging them.
"""

import argparse
import datetime
import json
import platform

import jax
import numpy as np
from tqdm import tqdm

from tests import conftest  # noqa: F401   64-bit mode, strict promotion
from tests.support import jacobian_cases, reference
from tests.support import nets as of_nets
from tests.support.properties import PROPERTIES
from tests.support.table import ALL, SCALES, SHAPES


def jacobians(cases):
    """Cell ↦ cases, and the largest |error| / (1 + max |J|) over every entry, by scale."""
    found = {}
    for name, cell in tqdm(ALL.items(), desc="jacobians"):
        by_scale = dict.fromkeys(SCALES, 0.0)
        for index, scale in enumerate(SCALES):
            for shape in SHAPES:
                case = jacobian_cases.drawn(cell, *shape, 100 + index, scale, cases)
                J = jacobian_cases.closed(cell, *case)
                params, state, x = jax.tree.map(np.asarray, case)
                want = reference.complex_step_jacobian(name, tuple(params), tuple(state), x)
                size = np.max([np.abs(b).max((1, 2)) for row in want for b in row], axis=0)
                error = np.max(jacobian_cases.worst(J, want) / (1 + size))
                by_scale[scale] = max(by_scale[scale], float(error))
        found[name] = {"cases": cases * len(SCALES) * len(SHAPES), "error": by_scale}
    return found


def properties(examples):
    """Property ↦ nets, and the largest error of an entry over the largest entry of its leaf."""
    found, generator = {}, np.random.default_rng(0)
    for name, of in tqdm(PROPERTIES.items(), desc="properties"):
        worst = 0.0
        for _ in range(examples):
            D, H, T, B = (int(generator.integers(1, most + 1)) for most in (3, 3, 5, 2))
            cell = str(generator.choice(of.cells))
            masked = of.masked and bool(generator.integers(2))
            nets = of_nets.nets_of(cell, D, H, T, B, int(generator.integers(2**32)), masked)
            got = of_nets.asked(of.call, ALL[cell], nets)
            error = of_nets.errors(of, got, of_nets.told(of.truth, nets))
            worst = max(worst, float(error.max(initial=0)))
        found[name] = {"nets": examples * of_nets.NETS, "error": worst, "allowed": of.rtol}
    return found


def table(found):
    """Aligned columns; a cell's errors by scale, a property's beside what is allowed."""
    rows = []
    for name, row in found.items():
        if isinstance(row["error"], dict):
            rows.append([name, f"{row['cases']:,}", *[f"{e:.1e}" for e in row["error"].values()]])
        else:
            rows.append([name, f"{row['nets']:,}", f"{row['error']:.1e}", f"{row['allowed']:.0e}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{text:<{w}}" if k == 0 else f"{text:>{w}}" for k, (text, w) in
                  enumerate(zip(row, widths, strict=True))) for row in rows
    )  # fmt: skip


def main():
    """Draw, print, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=["jacobians", "properties"])
    parser.add_argument("--cases", type=int, default=5000, help="of each shape and scale")
    parser.add_argument("--examples", type=int, default=40, help="shapes of each property")
    parser.add_argument("--out", help="a JSON file for the figures")
    given = parser.parse_args()
    found = {
        what: {"jacobians": jacobians, "properties": properties}[what](
            given.cases if what == "jacobians" else given.examples
        )
        for what in given.what
    }
    for what, rows in found.items():
        print(f"\n{what}\n{table(rows)}")
    if given.out:
        made = {"date": str(datetime.date.today()), "jax": jax.__version__,
                "python": platform.python_version(), "numpy": np.__version__}  # fmt: skip
        with open(given.out, "w") as file:
            json.dump({"made": made, **found}, file, indent=1)


if __name__ == "__main__":
    main()
