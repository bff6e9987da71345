"""The constants that were tuned for speed, each at a quarter, once and four times its value.

A public call is traced anew with the constant at each value, and the programs are timed in turn.
Ratios are to today's value, paired within a round. Where a value gives the same program as today's,
it is not timed. Sizes lie on either side of a threshold, since elsewhere it decides nothing.
float32; E = Σ v⊙h over all steps where a loss is needed.

    python -m benchmarks.constants [--seconds 3] [--quick] [--out F]
"""

import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

import jaxrnn
from benchmarks import bptt, timing
from jaxrnn.analysis import bptt as taken_apart
from jaxrnn.cells import affine
from jaxrnn.numerics import outer_products
from jaxrnn.running import chunks

TODAY = "today's"
FACTORS_OF_TODAY = {"a quarter": 0.25, TODAY: 1, "4 times": 4}


@dataclass(frozen=True)
class Tuned:
    """A constant and a call that it decides about."""

    module: ModuleType
    constant: str
    call: str
    kind: str
    size: tuple[int, int, int, int]  # (T, B, D, H)


CASES = (
    Tuned(chunks, "GATE_NUMBERS", "gradient", "lstm", (2048, 16, 32, 64)),
    Tuned(chunks, "WHOLE_UP_TO", "gradient", "rnn", (256, 32, 64, 128)),
    Tuned(chunks, "WHOLE_UP_TO", "gradient", "rnn", (512, 32, 64, 128)),
    Tuned(chunks, "KEEP_FROM", "gradient", "lstm", (32, 32, 64, 256)),
    Tuned(chunks, "KEEP_FROM", "gradient", "lstm", (16, 64, 64, 512)),
    Tuned(affine, "TURNED_BELOW", "gradient", "lstm", (32, 32, 64, 256)),
    Tuned(affine, "TURNED_BELOW", "gradient", "lstm", (16, 64, 64, 512)),
    Tuned(outer_products, "ENTRY_COST", "contribution_norms", "lstm", (32, 48, 64, 128)),
    Tuned(outer_products, "ENTRY_COST", "contribution_norms", "lstm", (32, 96, 64, 128)),
    Tuned(taken_apart, "ROW_NUMBERS", "credit_matrix", "lstm", (32, 32, 64, 128)),
)
QUICK = (Tuned(chunks, "WHOLE_UP_TO", "gradient", "rnn", (256, 32, 8, 128)),)


def program(call: str, kind: str) -> Callable[[Any, Any, Any], Any]:
    """A call as a function of (params, xs, v)."""
    cell = bptt.CELLS[kind]

    def gradient(params: Any, xs: Any, v: Any) -> Any:
        loss = lambda params, xs: jnp.sum(v * jaxrnn.unroll(cell, params, xs).h)  # noqa: E731
        return jax.value_and_grad(loss, argnums=(0, 1))(params, xs)

    def contribution_norms(params: Any, xs: Any, v: Any) -> Any:
        run = jaxrnn.Run(cell, params, xs)
        return jaxrnn.bptt.contribution_norms(run, lambda s: jnp.sum(v * s.h))

    def credit_matrix(params: Any, xs: Any, v: Any) -> Any:
        run = jaxrnn.Run(cell, params, xs)
        return jaxrnn.bptt.credit_matrix(run, lambda s: jnp.sum(v * s.h, (1, 2)))

    calls = (gradient, contribution_norms, credit_matrix)
    return {f.__name__: f for f in calls}[call]


@contextlib.contextmanager
def set_to(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    """A constant at another value; what was traced with the last one is forgotten."""
    before = getattr(module, name)
    jax.clear_caches()
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def measured(tuned: Tuned, args: Any, seconds: float) -> list[timing.Timing]:
    """The call with the constant at each value that gives a program of its own."""
    f, today = program(tuned.call, tuned.kind), getattr(tuned.module, tuned.constant)
    lowered = {}
    for name, factor in FACTORS_OF_TODAY.items():
        with set_to(tuned.module, tuned.constant, int(factor * today)):
            lowered[name] = jax.jit(f).lower(*args)
    text = lowered[TODAY].as_text()
    kept = {name: x for name, x in lowered.items() if name == TODAY or x.as_text() != text}
    compiled, took = {}, {}
    for name, x in kept.items():
        start = time.perf_counter()
        compiled[name] = x.compile()
        took[name] = time.perf_counter() - start
    rows = timing.measure(
        [timing.Candidate(name, x, args, jit=False) for name, x in compiled.items()],
        reference=TODAY,
        rounds=40,
        untimed=1,
        limit_s=seconds,
    )
    return [
        dataclasses.replace(
            row,
            compile_s=took[row.name],
            temp_bytes=int(compiled[row.name].memory_analysis().temp_size_in_bytes),
        )
        for row in rows
    ]


def main() -> None:
    parser = timing.options(__doc__, seconds=3)
    options = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    chosen, cases = QUICK if options.quick else CASES, []
    given = [bptt.arguments(tuned.kind, *tuned.size) for tuned in chosen]
    for tuned, args in zip(chosen, given, strict=True):
        rows = measured(tuned, args, options.seconds)
        value = getattr(tuned.module, tuned.constant)
        module = tuned.module.__name__.removeprefix("jaxrnn.")
        sizes = dict(zip("TBDH", tuned.size, strict=True))
        title = f"\n{module}.{tuned.constant} = {value}: {tuned.call}, {tuned.kind} {sizes}"
        print(timing.table(title, rows, TODAY), flush=True)
        case = {
            "module": module,
            "constant": tuned.constant,
            "value": value,
            "call": tuned.call,
            "cell": tuned.kind,
            **sizes,
        }
        cases.append((case, rows))
    out = options.out
    if out is None and not options.quick:
        name = f"constants_{jax.devices()[0].platform}.json"
        out = pathlib.Path(__file__).parent / "results" / name
    if out:
        # Other work on the machine shows in the load before the first program.
        timing.write(out, cases, load_before=load)


if __name__ == "__main__":
    main()
