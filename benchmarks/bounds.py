"""How tight the bounds of `certificates` are: what they promise over what is, in nats per step.

100,000 random nets, T = 20, H = 8: leaves N(0, s²/H) with s drawn log-uniformly from [0.1, 10].
"along" is ∏ σ_max(Jᵢ), "weights" (γσ_max)^lag, each over the measured ‖∂s_T/∂sₖ‖, by lag.

    python -m benchmarks.bounds [--quick] [--out F]
"""

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from benchmarks import timing
from jaxrnn import certificates

CELLS = {
    "rnn[tanh]": jaxrnn.rnn(),
    "rnn[sigmoid]": jaxrnn.rnn(jaxrnn.activations.sigmoid),
    "rnn[relu]": jaxrnn.rnn(jaxrnn.activations.relu),
    "rnn[identity]": jaxrnn.rnn(jaxrnn.activations.identity),
    "lstm": jaxrnn.lstm(),
    "gru": jaxrnn.gru(),
}
NETS, T, D, H = 100_000, 20, 4, 8
LAGS = (1, 5, 19)
QUANTILES = (0.1, 0.5, 0.9)


def drawn(cell: Any, N: int) -> tuple[Any, Any]:
    """(params, xs) of N nets."""
    generator = np.random.default_rng(0)
    scale = 10.0 ** generator.uniform(-1, 1, size=N) / np.sqrt(H)
    leaves = [
        scale.reshape(-1, *[1] * len(shape)) * generator.normal(size=(N, *shape))
        for shape in cell.shapes(D, H)
    ]
    params = type(cell.shapes(D, H))(*[jnp.asarray(leaf, jnp.float32) for leaf in leaves])
    return params, jnp.asarray(generator.normal(size=(N, T, D)), jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def gaps(cell: Any, params: Any, xs: Any) -> dict[str, Any]:
    """Bound minus product, `(N, T)` in nats."""

    def one(params: Any, xs: Any) -> dict[str, Any]:
        bounds = certificates.along(jaxrnn.Run(cell, params, xs))
        found = {"along": bounds.upper - bounds.product}
        if cell.traits.slope is not None:
            bound = certificates.of_weights(cell, params).bound
            lag = jnp.arange(T - 1, -1, -1)
            found["weights"] = lag * jnp.log(bound) - bounds.product
        return found

    return jax.vmap(one)(params, xs)


def main() -> None:
    options = timing.options(__doc__, seconds=0).parse_args()
    N = (600 if options.quick else NETS) // len(CELLS)
    cases = []
    print(f"{'cell':16}{'bound':10}" + "".join(f"{f'lag {lag}':>24}" for lag in LAGS))
    for name, cell in CELLS.items():
        for bound, gap in gaps(cell, *drawn(cell, N)).items():
            gap = np.asarray(gap, np.float64)
            assert not (gap < 0).any(), "a product above its bound"
            row = {}
            for lag in LAGS:
                each = gap[:, T - 1 - lag] / lag
                # A product that is 0, as relu makes them, has no ratio.
                row[lag] = np.quantile(each[np.isfinite(each)], QUANTILES).tolist()
            shown = [f"{m:10.4f} [{a:.3f}, {b:.3f}]" for a, m, b in row.values()]
            print(f"{name:16}{bound:10}" + "".join(f"{cells:>24}" for cells in shown), flush=True)
            cases.append({"cell": name, "bound": bound, "nets": N, "nats_per_step": row})
    if options.out:
        result = {"environment": timing.environment(), "cases": cases}
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
