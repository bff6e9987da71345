"""A training step, loss and gradient by params and inputs: ours beside what people use.

E = Σ v⊙h over all steps, from the zero state, float32. Peers: flax nnx, haiku, equinox, a
`lax.scan` with hoisted projection, torch with as many threads; the limit is the same matmuls
with nothing else. Frameworks that are not installed are left out.

    python -m benchmarks.bptt [--cells lstm,gru,rnn] [--seconds 20] [--quick] [--out F]
"""

import argparse
import pathlib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from benchmarks import peers, timing

SIZES = (  # (T, B, D, H)
    (64, 128, 1, 64),
    (256, 32, 64, 128),
    (512, 16, 128, 256),
    (128, 64, 64, 512),
    (1000, 1, 32, 64),
    (2048, 8, 32, 128),
)
CELLS = {"lstm": jaxrnn.lstm(), "gru": jaxrnn.gru(), "rnn": jaxrnn.rnn()}
OURS = "jaxrnn"
OTHER_EQUATIONS = {"gru": ("haiku",), "rnn": ("haiku",)}  # reset before the matmul; relu
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


def candidates(kind: str, params: Any, xs: Any, v: Any, torch: bool) -> list[timing.Candidate]:
    """Ours, the peers that are installed, and the limit."""
    ours = peers.loss_and_grads(lambda params, xs: jaxrnn.unroll(CELLS[kind], params, xs).h)
    found = [timing.Candidate(OURS, ours, (params, xs, v))]
    for peer in peers.available(kind, params, xs, v):
        found.append(timing.Candidate(peer.name, peer.f, peer.args))
    run = peers.torch_peer(kind, params, xs, v) if torch else None
    if run is not None:
        found.append(timing.Candidate("torch", lambda: run()[0].item(), (), jit=False))
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", default="lstm,gru,rnn")
    parser.add_argument("--seconds", type=float, default=20, help="for each row")
    # torch's GRU took 15 s in place of 5 ms at B = 1 beside XLA's threads, spoiling the rest.
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one small size, few rounds")
    parser.add_argument("--out", type=pathlib.Path, default=None, help="write JSON here")
    options = parser.parse_args()
    if jax.devices()[0].platform == "cpu" and peers.has_torch():
        peers.configure_torch(timing.cores())
    cases = []
    for kind in options.cells.split(","):
        told = []
        for size in ((16, 4, 3, 8),) if options.quick else SIZES:
            found = candidates(kind, *arguments(kind, *size), torch=not options.no_torch)
            rows = timing.measure(
                found, reference=OURS, rounds=60, untimed=1, limit_s=options.seconds
            )
            T, B, D, H = size
            print(timing.table(f"\n{kind} T={T} B={B} D={D} H={H} float32", rows, OURS))
            told.append(summary(kind, rows))
            print(SENTENCE.format(**told[-1]))
            cases.append(({"cell": kind, "T": T, "B": B, "D": D, "H": H, **told[-1]}, rows))
        for of in ("speedup", "speedup_with_same_equations"):
            each = [row[of] for row in told]
            mean, least = geometric_mean(each), min(each)
            print(f"{kind}: {of} {mean:.2f} in the geometric mean, least {least:.2f}")
    if options.out:
        timing.write(options.out, cases)


if __name__ == "__main__":
    main()
