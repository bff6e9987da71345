"""A diagnosis of a two-layer bidirectional LSTM: the first call, the second, and peak memory.

H = 256, D = 64, T = 512, B = 32, float32, random cotangents. The first call compiles. Beside it
four gradients of the same net, which is what four draws of cotangents come to at least.

    python -m benchmarks.diagnosis [--quick] [--out F]
"""

import json
import resource
import time

import jax

import jaxrnn
from benchmarks import timing
from jaxrnn import layers

SIZE = (512, 32, 64, 256)  # (T, B, D, H)


def main() -> None:
    options = timing.options(__doc__, seconds=0).parse_args()
    T, B, D, H = (32, 2, 3, 4) if options.quick else SIZE
    cell, keys = jaxrnn.lstm(), jax.random.split(jax.random.key(0), 5)
    sides = [
        cell.init(key, width, H) for key, width in zip(keys[:4], (D, D, 2 * H, 2 * H), strict=True)
    ]
    net = [layers.Layer(*sides[:2]), layers.Layer(*sides[2:])]
    xs = jax.random.normal(keys[4], (T, B, D))

    @jax.jit
    def gradient(net, xs):
        def loss(net):
            return (layers.outputs(layers.unroll_layers(cell, net, xs))[-1] ** 2).sum()

        return jax.grad(loss)(net)

    found = {}
    for name, call in (
        ("first call, s", lambda: jaxrnn.diagnose(cell, net, xs)),
        ("second call, s", lambda: jaxrnn.diagnose(cell, net, xs)),
        ("peak memory, GB", None),
        ("gradient, compiled, s", lambda: gradient(net, xs)),
        ("4 gradients, s", lambda: [jax.block_until_ready(gradient(net, xs)) for _ in range(4)]),
    ):
        if call is None:
            found[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        else:
            start = time.perf_counter()
            jax.block_until_ready(call())
            found[name] = time.perf_counter() - start
        print(f"{name:24}{found[name]:8.2f}")
    if options.out:
        size = {"T": T, "B": B, "D": D, "H": H, "layers": 2, "directions": 2}
        text = {"environment": timing.environment(), "size": size, "measured": found}
        options.out.write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main()
