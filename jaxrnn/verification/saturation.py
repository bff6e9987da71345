"""The derivatives of tanh and σ in float32 where they vanish: closed form beside autodiff."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.cells.activations import Activation, sigmoid, tanh

__all__ = ["Saturation", "saturation"]

LIMITS = ((tanh, 2.0, (5.0, 9.0, 43.0)), (sigmoid, 1.0, (10.0, 17.0, 87.0)))
# Time, or the chance to meet the worst z: 2.5e-5 to 4.4e-4 apart. Other counts were not measured.
POINTS = 200_001


class Saturation(NamedTuple):
    """The largest errors up to some |z|, in units in the last place of the true derivative.

    Attributes:
      where: The activation and the largest |z|.
      closed_ulp: The error of the closed form.
      autodiff_ulp: The error of `jax.grad` of the value.
    """

    where: str
    closed_ulp: float
    autodiff_ulp: float


def saturation() -> list[Saturation]:
    """The derivatives of tanh and σ for growing |z|, each against float64.

        a'(z) = k² e⁻ᵏᶻ / (1 + e⁻ᵏᶻ)²        k = 2 for tanh, 1 for σ; z ≥ 0

    In float64 that formula is the truth: it subtracts nothing. Autodiff is `jax.grad` of the value.

    Returns:
      A list of Saturation(where, closed_ulp, autodiff_ulp), three of tanh and three of σ, each up
      to another |z|.

    Cost:
      200,001 points for each; about a second.

    >>> import jaxrnn
    >>> all(row.closed_ulp <= 4 for row in jaxrnn.verification.saturation())
    True
    """
    return [_row(a, k, limit) for a, k, limits in LIMITS for limit in limits]


def _row(activation: Activation, k: float, limit: float) -> Saturation:
    z = np.linspace(0, limit, POINTS, dtype=np.float32)
    # By NumPy, which has float64 without JAX's 64-bit mode. z itself is float32, so no input is
    # rounded.
    e = np.exp(-k * z.astype(np.float64))
    truth = k * k * e / (1 + e) ** 2
    closed = jax.jit(activation.derivative)(z)
    autodiff = jax.jit(jax.vmap(jax.grad(lambda v: jnp.sum(activation.value(v)))))(z)
    return Saturation(
        f"{activation.name}, |z| ≤ {limit:g}", _ulp(closed, truth), _ulp(autodiff, truth)
    )


def _ulp(got: jax.Array, truth: np.ndarray) -> float:
    spacing = np.spacing(truth.astype(np.float32)).astype(np.float64)
    return float(np.max(np.abs(np.asarray(got, np.float64) - truth) / spacing))
