"""Clipping a tree of 10 million parameters: ours beside optax's, and beside one pass over it.

Gradients of norm 1 that are clipped at ½, in float32; and of norm 1e25, which optax takes for 0.

    python -m benchmarks.clipping [--seconds 20] [--quick] [--out F]
"""

import jax
import jax.numpy as jnp
import optax

from benchmarks import timing
from jaxrnn import clipping

LEAVES = 10


def main() -> None:
    options = timing.options(__doc__, seconds=20).parse_args()
    size = 1000 if options.quick else 1_000_000
    keys = jax.random.split(jax.random.key(0), LEAVES)
    unit = [jax.random.normal(key, (size,)) / (LEAVES * size) ** 0.5 for key in keys]

    def clip(transformation):
        def run(tree):
            return transformation.update(tree, transformation.init(tree))[0]

        return run

    def one_pass(tree):
        return jax.tree.map(lambda leaf: leaf * 0.5, tree)

    ours, theirs = clipping.clip_by_global_norm(0.5), optax.clip_by_global_norm(0.5)
    cases = []
    for scale in (1.0, 1e25):
        tree = jax.tree.map(lambda leaf, s=scale: jnp.float32(s) * leaf, unit)
        found = [
            timing.Candidate("optax", clip(theirs), (tree,)),
            timing.Candidate("jaxrnn", clip(ours), (tree,)),
            timing.Candidate("one pass", one_pass, (tree,)),
        ]
        rows = timing.measure(
            found, reference="optax", rounds=40, untimed=2, limit_s=options.seconds
        )
        print(timing.table(f"{LEAVES * size:.0e} parameters of norm {scale:g}", rows, "optax"))
        cases.append(({"parameters": LEAVES * size, "norm": scale}, rows))
    if options.out:
        timing.write(options.out, cases)


if __name__ == "__main__":
    main()
