"""Pointwise nonlinearities: value, derivative and derivative bound γ.

Each derivative is computed from the pre-activation z, never from the value a(z). `1 - tanh²` and
`σ(1-σ)` lose every digit once the value has rounded to ±1. In float32 they are 0.2 % off at |z| = 5
and exactly 0 from |z| of 8 to 9. There gradients vanish, and there a diagnosis has to be right. The
forms

    σ'(z) = r (1-r),  r = σ(-|z|) ≤ ½        tanh'(z) = 4 σ'(2z)

subtract from 1 only numbers of at most ½. So they keep all digits down to the smallest normal
number.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrnn import _checks

__all__ = [
    "Activation",
    "hard_sigmoid",
    "hard_tanh",
    "identity",
    "keras2_hard_sigmoid",
    "relu",
    "sigmoid",
    "sigmoid_pair",
    "softplus",
    "softsign",
    "tanh",
]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Activation:
    """A pointwise map a(z) with its derivative and a bound on the derivative.

    Calling the activation calls `value`. It is static for `jax.jit`. Two activations are equal if
    their fields are equal.

    Attributes:
      name: How it is printed.
      value: z ↦ a(z), any shape.
      derivative: z ↦ a'(z), computed from the pre-activation z, any shape.
      gamma: γ = sup |a'| or a number above it; None if no bound is known.
      linear: Whether a' is the constant γ.
      range: (inf a, sup a), with ±inf where a has no bound or none is known.
      complement: z ↦ 1 - a(z) for a gate that keeps what it does not write, as σ(-z) is of σ(z); by
        default 1 minus the value, which loses its digits where a(z) is near 1.
      both: z ↦ (a(z), a'(z)), where they share work; by default one after the other.

    Raises:
      TypeError: If `value`, `derivative`, `complement` or `both` is no function, or `gamma` no real
        number.
      ValueError: If `gamma` is below 0, NaN or inf, or `range` is not (lowest, highest).

    >>> import jax.numpy as jnp
    >>> softsign = Activation("softsign", lambda z: z / (1 + abs(z)),
    ...                       lambda z: (1 + abs(z)) ** -2., gamma=1.0)
    >>> float(softsign(jnp.float32(1.0))), softsign.gamma
    (0.5, 1.0)
    """

    name: str
    value: Callable[[Array], Array]
    derivative: Callable[[Array], Array]
    gamma: float | None = None
    linear: bool = False
    range: tuple[float, float] = (-math.inf, math.inf)
    complement: Callable[[Array], Array] | None = None
    both: Callable[[Array], tuple[Array, Array]] | None = None

    def __post_init__(self) -> None:
        _checks.check_callable("activation.value", self.value, "z -> a(z)")
        _checks.check_callable("activation.derivative", self.derivative, "z -> a'(z)")
        if self.gamma is not None:
            _checks.check_real("activation.gamma", self.gamma, least=0.0)
        _checks.check_range("activation.range", self.range)
        if self.complement is not None:
            _checks.check_callable("activation.complement", self.complement, "z -> 1 - a(z)")
        if self.both is not None:
            _checks.check_callable("activation.both", self.both, "z -> (a(z), a'(z))")

    def __call__(self, z: Array) -> Array:
        """a(z)."""
        return self.value(z)

    def pair(self, z: Array) -> tuple[Array, Array]:
        """(a(z), a'(z))."""
        return (self.value(z), self.derivative(z)) if self.both is None else self.both(z)

    def one_minus(self, z: Array) -> Array:
        """1 - a(z)."""
        return 1 - self.value(z) if self.complement is None else self.complement(z)

    def __repr__(self) -> str:
        return f"Activation({self.name}, γ={self.gamma})"


def check_activation(name: str, value: Any) -> None:
    """Refuse what is no `Activation`, such as a bare function."""
    if isinstance(value, str):
        known = [each for each, leaf in globals().items() if isinstance(leaf, Activation)]
        hint = f"jaxrnn.activations.{value}" if value in known else f"one of {', '.join(known)}"
        raise TypeError(
            f"{name}: expected a jaxrnn.activations.Activation, got {value!r}; use {hint}"
        )
    _checks.check_instance(
        name,
        value,
        Activation,
        "a jaxrnn.activations.Activation",
        "use jaxrnn.activations.tanh, or wrap your function with its derivative: "
        "Activation(name, value, derivative, gamma)",
    )


@dataclass(frozen=True)
class Given:
    """`f` with its first arguments given, such as the activations of a cell.

    A closure or a `functools.partial` would do the same, but two of them are never equal, so that
    `jax.jit` would compile equal cells twice, and closures do not pickle.
    """

    f: Callable[..., Any]
    first: tuple[Any, ...]

    def __call__(self, *rest: Any, **options: Any) -> Any:
        """`f` of the given arguments and the rest."""
        return self.f(*self.first, *rest, **options)


def _tanh_derivative(z: Array) -> Array:
    return 4 * _sigmoid_derivative(2 * z)


def _sigmoid_derivative(z: Array) -> Array:
    r = _tail(z)
    return r * (1 - r)


def _tail(z: Array) -> Array:
    """σ(-|z|), at most ½."""
    # Not `abs(z)`, whose derivatives are wrong at 0. r(1-r) is the same analytic function in both
    # branches here, so its derivatives of every order are right at 0 too.
    e = jnp.exp(jnp.where(z >= 0, -z, z))
    return e / (1 + e)


def sigmoid_pair(z: Array) -> tuple[Array, Array]:
    """(σ(z), σ'(z)) from one exponential.

        r = σ(-|z|) = e^-|z| / (1 + e^-|z|)
        σ(z) = 1 - r where z ≥ 0, else r        σ'(z) = r (1 - r)

    Args:
      z: Pre-activations, any shape, real or complex floats.

    Returns:
      (σ(z), σ'(z)), each of the shape and dtype of z.

    Raises:
      TypeError: If `z` is no array of floats.

    Cost:
      One exponential and one division for each entry.

    Accuracy:
      A few ulp of each of the two numbers. `verification.saturation` measures the errors of σ'.

    >>> import jax.numpy as jnp
    >>> [float(part) for part in sigmoid_pair(jnp.float32(0.0))]
    [0.5, 0.25]
    """
    _checks.check_array("z", z, kind=jnp.inexact)
    r = _tail(z)
    return jnp.where(z >= 0, 1 - r, r), r * (1 - r)


def sigmoid_parts(z: Array) -> tuple[Array, Array, Array]:
    """(σ(z), σ(-z), σ'(z)) from one exponential, unchecked; σ(-z) is 1 - σ(z) to its last digit."""
    r = _tail(z)
    return jnp.where(z >= 0, 1 - r, r), jnp.where(z >= 0, r, 1 - r), r * (1 - r)


def _relu_derivative(z: Array) -> Array:
    # Not `where(z > 0, 1, 0)`: of a NaN pre-activation that would give 0, and hide it.
    return jnp.heaviside(z, jnp.zeros_like(z))


# Wrapped in functions of this module: JAX's own are compiled objects, which do not pickle.


def _tanh_value(z: Array) -> Array:
    return jnp.tanh(z)


def _sigmoid_value(z: Array) -> Array:
    return jax.nn.sigmoid(z)


def _relu_value(z: Array) -> Array:
    return jax.nn.relu(z)


def _identity_value(z: Array) -> Array:
    return z


def _one(z: Array) -> Array:
    return jnp.ones_like(z)


def _sigmoid_complement(z: Array) -> Array:
    return jax.nn.sigmoid(-z)


def _ramp(slope: float, least: float, most: float, z: Array) -> Array:
    # Not `clip`, whose derivative at an end depends on how it is written. A NaN stays a NaN.
    line = slope * z + (least + most) / 2
    low, high = (jnp.full_like(line, end) for end in (least, most))
    return jnp.where(line <= least, low, jnp.where(line >= most, high, line))


def _ramp_derivative(slope: float, least: float, most: float, z: Array) -> Array:
    # The slope between both ends, 0 at them and beyond; of a NaN it is NaN.
    reach = (most - least) / 2 / slope
    return slope * jnp.heaviside(reach - abs(z), jnp.zeros_like(z))


def _ramp_mirrored(slope: float, least: float, most: float, z: Array) -> Array:
    return _ramp(slope, least, most, -z)


def _softplus_value(z: Array) -> Array:
    return jnp.logaddexp(z, jnp.zeros_like(z))


def _softsign_value(z: Array) -> Array:
    return z / (1 + _magnitude(z))


def _softsign_derivative(z: Array) -> Array:
    return 1 / jnp.square(1 + _magnitude(z))


def _magnitude(z: Array) -> Array:
    # Not `abs`, which of a complex number is real: complex steps would lose the derivative.
    return jnp.where(z >= 0, z, -z)


tanh = Activation("tanh", _tanh_value, _tanh_derivative, gamma=1.0, range=(-1.0, 1.0))
"""tanh(z); tanh'(z) = 4 σ'(2z), within 4 ulp for |z| ≤ 43 in float32; γ = 1."""

sigmoid = Activation(
    "sigmoid",
    _sigmoid_value,
    _sigmoid_derivative,
    gamma=0.25,
    range=(0.0, 1.0),
    complement=_sigmoid_complement,
    both=sigmoid_pair,
)
"""1/(1+e⁻ᶻ); σ'(z) = r(1-r), r = σ(-|z|), within 4 ulp for |z| ≤ 87 in float32; γ = ¼."""

relu = Activation("relu", _relu_value, _relu_derivative, gamma=1.0, range=(0.0, math.inf))
"""max(z, 0); its derivative is 1 for z > 0 and 0 for z ≤ 0 (at 0 by convention); γ = 1."""

hard_sigmoid = Activation(
    "hard_sigmoid",
    Given(_ramp, (1 / 6, 0.0, 1.0)),
    Given(_ramp_derivative, (1 / 6, 0.0, 1.0)),
    gamma=1 / 6,
    range=(0.0, 1.0),
    complement=Given(_ramp_mirrored, (1 / 6, 0.0, 1.0)),
)
"""min(max(z/6 + ½, 0), 1), of torch, of `jax.nn` and of keras 3; γ = 1/6."""

keras2_hard_sigmoid = Activation(
    "keras2_hard_sigmoid",
    Given(_ramp, (0.2, 0.0, 1.0)),
    Given(_ramp_derivative, (0.2, 0.0, 1.0)),
    gamma=0.2,
    range=(0.0, 1.0),
    complement=Given(_ramp_mirrored, (0.2, 0.0, 1.0)),
)
"""min(max(z/5 + ½, 0), 1), of keras 1 and 2, and of ONNX by default; γ = 1/5."""

hard_tanh = Activation(
    "hard_tanh",
    Given(_ramp, (1.0, -1.0, 1.0)),
    Given(_ramp_derivative, (1.0, -1.0, 1.0)),
    gamma=1.0,
    range=(-1.0, 1.0),
)
"""min(max(z, -1), 1); its derivative is 0 at ±1 (by convention) and beyond; γ = 1."""

softsign = Activation(
    "softsign", _softsign_value, _softsign_derivative, gamma=1.0, range=(-1.0, 1.0)
)
"""z/(1 + |z|), whose derivative (1 + |z|)⁻² falls off slowly; γ = 1."""

softplus = Activation("softplus", _softplus_value, _sigmoid_value, gamma=1.0, range=(0.0, math.inf))
"""log(1 + eᶻ), a smooth relu; its derivative is σ(z); γ = 1."""

identity = Activation("identity", _identity_value, _one, gamma=1.0, linear=True)
"""z; its derivative is 1; γ = 1. It makes the linear network of the classical analysis."""
