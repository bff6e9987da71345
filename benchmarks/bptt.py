"""A training step, loss and gradient by params and inputs: ours beside what people use.

E = Σ v⊙h over all steps, from the zero state, float32. Peers: flax nnx, haiku, equinox, a
`lax.scan` with hoisted projection, torch with as many threads; the limit is the same matmuls
with nothing else. Frameworks that are not installed are left out.

    python -m benchmarks.bptt [--cells lstm,gru,rnn,relu] [--seconds 20] [--quick] [--out F]
"""

import argparse
import contextlib
import importlib.util
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from benchmarks import peers, timing
from benchmarks.torch_process import TorchProcess

SIZES = (  # (T, B, D, H)
    (64, 128, 1, 64),
    (256, 32, 64, 128),
    (512, 16, 128, 256),
    (128, 64, 64, 512),
    (1000, 1, 32, 64),
    (2048, 8, 32, 128),
)
CELLS = {
    "lstm": jaxrnn.lstm(),
    "gru": jaxrnn.gru(),
    "rnn": jaxrnn.rnn(),
    "relu": jaxrnn.rnn(jaxrnn.activations.relu),
}
OURS = "jaxrnn"
PEERS = ("flax", "haiku", "equinox", "torch")
OTHER_EQUATIONS = {"gru": ("haiku",)}  # reset before the matmul
SENTENCE = (
    "    {speedup:.2f}× the speed of {best}, the best JAX peer, with {memory:.2f} of its memory;\n"
    "    {speedup_with_same_equations:.2f}× that of {best_with_same_equations}, "
    "the best with the same equations"
)
NOT_PEERS = (OURS, "bare matmuls", "torch")


def arguments(kind: str, T: int, B: int, D: int, H: int) -> tuple[Any, Any, Any]:
    """Random params, inputs and cotangents in float32."""
    keys = jax.random.split(jax.random.key(0), 3)
    params = CELLS[kind].init(keys[0], D, H, dtype=jnp.float32)
    xs = jax.random.normal(keys[1], (T, B, D), jnp.float32)
    return params, xs, jax.random.normal(keys[2], (T, B, H), jnp.float32)


def candidates(
    kind: str, params: Any, xs: Any, v: Any, torch: TorchProcess | None
) -> list[timing.Candidate]:
    """Ours, the peers that are installed, and the limit."""
    ours = peers.loss_and_grads(lambda params, xs: jaxrnn.unroll(CELLS[kind], params, xs).h)
    found = [timing.Candidate(OURS, ours, (params, xs, v))]
    for peer in peers.available(kind, params, xs, v):
        found.append(timing.Candidate(peer.name, peer.f, peer.args))
    if torch is not None:
        found.append(timing.Candidate("torch", torch.clock(kind, params, xs, v), (), clock=True))
    return found


def summary(kind: str, rows: list[timing.Timing]) -> dict[str, Any]:
    """Our speed against the best JAX peer, torch and the limit; our memory against that peer's."""
    by_name = {row.name: row for row in rows}
    best = best_of(row for row in rows if row.name not in NOT_PEERS)
    same = best_of(r for r in rows if r.name not in (*NOT_PEERS, *OTHER_EQUATIONS.get(kind, ())))
    found: dict[str, Any] = {
        "best": best.name,
        "speedup": best.ratio[1],
        "quartiles": [best.ratio[0], best.ratio[2]],
        "best_with_same_equations": same.name,
        "speedup_with_same_equations": same.ratio[1],
        "memory": by_name[OURS].temp_bytes / best.temp_bytes,
    }
    for name in ("torch", "bare matmuls"):
        found[name] = by_name[name].ratio[1] if name in by_name else None
    return found


def best_of(rows: Iterable[timing.Timing]) -> timing.Timing:
    """The fastest."""
    return min(rows, key=lambda row: row.median_s)


def geometric_mean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def main() -> None:
    parser = timing.options(__doc__, seconds=20)
    parser.add_argument("--cells", default=",".join(CELLS))
    parser.add_argument("--no-torch", action="store_true")
    options = parser.parse_args()
    missing = [name for name in PEERS if importlib.util.find_spec(name) is None]
    if missing:
        print(f"not installed, so not measured: {', '.join(missing)}")
    on_cpu = jax.devices()[0].platform == "cpu"
    with contextlib.ExitStack() as stack:
        torch = None
        if on_cpu and peers.has_torch() and not options.no_torch:
            torch = stack.enter_context(TorchProcess(timing.cores()))
        cases = [
            case for kind in options.cells.split(",") for case in rows_of(kind, options, torch)
        ]
    if options.out:
        timing.write(options.out, cases)


def rows_of(kind: str, options: argparse.Namespace, torch: TorchProcess | None) -> list[Any]:
    """Measure and print every size of a kind of cell."""
    cases = []
    for size in ((16, 4, 3, 8),) if options.quick else SIZES:
        found = candidates(kind, *arguments(kind, *size), torch)
        rows = timing.measure(found, reference=OURS, rounds=60, untimed=1, limit_s=options.seconds)
        T, B, D, H = size
        print(timing.table(f"\n{kind} T={T} B={B} D={D} H={H} float32", rows, OURS))
        told = summary(kind, rows)
        print(SENTENCE.format(**told))
        cases.append(({"cell": kind, "T": T, "B": B, "D": D, "H": H, **told}, rows))
    for of in ("speedup", "speedup_with_same_equations"):
        each = [case[of] for case, _ in cases]
        mean, least = geometric_mean(each), min(each)
        print(f"{kind}: {of} {mean:.2f} in the geometric mean, least {least:.2f}")
    return cases


if __name__ == "__main__":
    main()
