"""Derivatives of tanh and σ in float32, where gradients vanish: closed form beside autodiff."""

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
    """Largest error up to |z|, in units in the last place of the true derivative."""

    where: str
    closed_ulp: float
    autodiff_ulp: float


def saturation() -> list[Saturation]:
    """The derivatives of tanh and σ for growing |z|, each against float64.

        a'(z) = k² e⁻ᵏᶻ / (1 + e⁻ᵏᶻ)²        k = 2 for tanh, 1 for σ; z ≥ 0

    That is the truth in float64, which subtracts nothing. Autodiff is `jax.grad` of the value.

    Returns: a list of Saturation(where, closed_ulp, autodiff_ulp), three of tanh and three of σ:
             the largest errors up to a |z|, in units in the last place of the true derivative.
    Raises:  nothing.
    Cost:    200,001 points each; takes a second.
    Source:  this library.

    >>> import jaxrnn
    >>> all(row.closed_ulp <= 4 for row in jaxrnn.verification.saturation())
    True
    """
    return [_row(a, k, limit) for a, k, limits in LIMITS for limit in limits]


def _row(activation: Activation, k: float, limit: float) -> Saturation:
    z = np.linspace(0, limit, POINTS, dtype=np.float32)
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
