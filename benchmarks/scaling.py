"""How time and memory grow with T, B and H, next to what theory says.

LSTM, D = 32, float32. One size is doubled while the others stay; the slope is that of a line
through the three largest sizes in log-log, so 1 is linear. Memory is temporaries and results as
XLA plans them. All sizes of a row run interleaved.

    python -m benchmarks.scaling [--seconds 10] [--quick] [--out F]
"""

import json
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxrnn
from benchmarks import bptt, peers, timing

CELL = jaxrnn.lstm()
INPUTS = 32
# What a work grows with once it fills the machine: exponents of T, B, H in time and in memory.
THEORY = {
    "gradient": {"T": (1, 1), "B": (1, 1), "H": (2, 1)},
    "Jacobians": {"T": (1, 1), "B": (1, 1), "H": (2, 2)},
    "transport norms": {"T": (1, 0), "B": (1, 1), "H": (3, 2)},
    "contribution norms": {"T": (1, 1), "B": (1, 1), "H": (2, 1)},
}
BASE = {
    "gradient": {"T": 256, "B": 16, "H": 64},
    "Jacobians": {"T": 64, "B": 4, "H": 64},
    "transport norms": {"T": 64, "B": 4, "H": 32},
    "contribution norms": {"T": 256, "B": 16, "H": 64},
}
DOUBLINGS = 5  # from a quarter of the base to four times it


def program(work: str, params: Any, xs: Any, v: Any) -> timing.Candidate:
    """One work at one size."""
    run = jaxrnn.Run(CELL, params, xs)
    if work == "gradient":
        f = peers.loss_and_grads(lambda params, xs: jaxrnn.unroll(CELL, params, xs).h)
        return timing.Candidate("", f, (params, xs, v))
    if work == "Jacobians":
        return timing.Candidate("", jaxrnn.jacobians.closed_form, (run,))
    if work == "transport norms":
        return timing.Candidate("", jaxrnn.products.transport_norms, (run,))

    def norms(run, v):
        return jaxrnn.bptt.contribution_norms(run, lambda s: jnp.sum(v * s.h))

    return timing.Candidate("", norms, (run, v))


def sizes(work: str, axis: str, quick: bool) -> list[dict[str, int]]:
    """The base with one of its sizes doubled again and again."""
    base = {"T": 4, "B": 2, "H": 4} if quick else BASE[work]
    factors = [1, 2] if quick else [2.0**k for k in range(-2, DOUBLINGS - 2)]
    return [base | {axis: max(1, round(base[axis] * factor))} for factor in factors]


def slope(values: list[float], along: list[int]) -> float:
    """Of the line through the last three points, log against log."""
    return float(np.polyfit(np.log(along[-3:]), np.log(values[-3:]), 1)[0])


def measured(work: str, axis: str, options: Any) -> tuple[dict[str, Any], list[timing.Timing]]:
    """One work along one axis."""
    every = sizes(work, axis, options.quick)
    candidates = []
    for size in every:
        found = program(work, *bptt.arguments("lstm", size["T"], size["B"], INPUTS, size["H"]))
        candidates.append(timing.Candidate(f"{axis} = {size[axis]}", found.f, found.args))
    rows = timing.measure(
        candidates, reference=candidates[0].name, rounds=20, untimed=1, limit_s=options.seconds
    )
    along = [size[axis] for size in every]
    memory = [row.temp_bytes + row.output_bytes for row in rows]
    case = {
        "work": work,
        "axis": axis,
        "sizes": every,
        "time_slope": slope([row.median_s for row in rows], along),
        "memory_slope": slope(memory, along),
        "theory": THEORY[work][axis],
    }
    return case, rows


def main() -> None:
    options = timing.options(__doc__, seconds=10).parse_args()
    cases = []
    for work in THEORY:
        for axis in ("T", "B", "H"):
            case, rows = measured(work, axis, options)
            cases.append((case, rows))
            print(timing.table(f"\n{work}, {json.dumps(case['sizes'][0])} and on", rows, "first"))
            time, memory = case["theory"]
            if options.quick:
                continue  # no slope between two tiny sizes
            print(
                f"    time grows as {axis}^{case['time_slope']:.2f} (theory {time}), "
                f"memory as {axis}^{case['memory_slope']:.2f} (theory {memory})",
                flush=True,
            )
    if options.out:
        timing.write(options.out, cases)


if __name__ == "__main__":
    main()
