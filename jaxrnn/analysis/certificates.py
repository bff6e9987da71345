"""What is certain about vanishing and exploding, and the inequality that each statement rests on.

    ‖∂sₜ/∂sₖ‖ = ‖Jₜ ⋯ Jₖ₊₁‖ ≤ ∏ᵢ ‖Jᵢ‖          any cell, along a trajectory
    ‖Jᵢ‖ = ‖diag(a'(zᵢ)) W_hh‖ ≤ γ σ_max(W_hh)     one gate, any input, any length

A certificate is a bound that no product exceeds, rounding included. γσ_max < 1 certifies vanishing.
γσ_max > 1 permits an explosion and proves none. The spectral radius ρ decides for linear nets only.
For other nets the classical statement with ρ is `WeightBound.by_eigenvalue`, which is marked as no
certificate: W = [[8, 8], [-8, -8]] has ρ = 0, and a tanh net with it explodes.

Verdicts are read on the host: `print(certify(...))`, or `.statement()` of each part.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrnn import _checks
from jaxrnn.analysis import jacobians, products
from jaxrnn.cells.contract import Cell, Params
from jaxrnn.numerics import factorizations, norms, state_vectors
from jaxrnn.numerics.dtypes import accumulator
from jaxrnn.numerics.matrix_products import from_tree
from jaxrnn.numerics.tangents import moving
from jaxrnn.running.chunks import over_chunks
from jaxrnn.running.run import (
    Run,
    batch_of,
    check_some_state,
    first_state,
    precise,
    step_count,
    takes_run,
)
from jaxrnn.running.steps import Steps, trajectory

__all__ = [
    "Certificate",
    "Statement",
    "TrajectoryBounds",
    "WeightBound",
    "along",
    "certify",
    "of_weights",
]


def __getattr__(name: str) -> Any:
    """The new name of what was renamed."""
    renamed = "; it was renamed of_weights" if name == "from_weights" else ""
    raise AttributeError(f"module 'jaxrnn.certificates' has no attribute '{name}'{renamed}")


VANISHING = "vanishing certified"
EXCLUDED = "explosion excluded"
POSSIBLE = "explosion possible"
NONE = "no certificate"
# Numbers in the Jacobians that are formed at once, 16 MiB in float32: memory, or calls. Its time
# was not measured; docs/decisions/numbers-at-once.md
JACOBIAN_NUMBERS = 2**22
# ‖W^m‖^(1/m) is within cond^(1/m) of ρ, m = 2⁵²: matmuls, or digits. 2026-11-30, NumPy, float64,
# 50 normal W of H = 64: off by up to 1.7e-7 after 24, 1.5e-12 after 40, 1.1e-14 after 52.
SQUARINGS = 52


@dataclass(frozen=True)
class Statement:
    """A verdict, the inequality it rests on, and the same in words.

    Attributes:
      verdict: "vanishing certified", "explosion excluded", "explosion possible" or
        "no certificate".
      inequality: The inequality in symbols.
      sentence: The verdict in words, with its numbers.
    """

    verdict: str
    inequality: str
    sentence: str

    def __str__(self) -> str:
        """Three lines."""
        return f"{self.verdict}: {self.sentence}\n    {self.inequality}"


class WeightBound(NamedTuple):
    """What the recurrent weights of a one-gate cell say about every input and every length.

    Attributes:
      gamma: γ ≥ sup |a'|.
      sigma_max: The largest singular value of W_hh.
      spectral_radius: ρ(W_hh), the largest |eigenvalue|.
      linear: Whether a' is constant, so that ‖∂hₜ/∂hₖ‖ = ‖(γ W_hh)^(t-k)‖.
      bound: γσ_max with the rounding of a step added: ‖∂hₜ/∂hₖ‖ ≤ bound^(t-k).
    """

    gamma: Array
    sigma_max: Array
    spectral_radius: Array
    linear: Array
    bound: Array

    def statement(self) -> Statement:
        """The verdict of γσ_max and, for a linear net, of γρ."""
        sigma, rho = float(self.gamma * self.sigma_max), float(self.gamma * self.spectral_radius)
        inequality = "‖∂hₜ/∂hₖ‖ ≤ (γ σ_max(W_hh))^(t-k)"
        # A comparison with NaN is False: without this the last verdict below would be given.
        if math.isnan(sigma):
            return Statement(NONE, inequality, "γσ_max is NaN: the weights are not finite")
        # Up to `slack` a number counts as 1. `bound` / γσ_max is 1 and what rounding may add. For
        # weights of 0 there is nothing to divide by.
        slack = 1 + 2 * (float(self.bound) / sigma - 1) if sigma else 1.0
        if float(self.bound) < 1:
            return Statement(
                VANISHING,
                inequality,
                f"γσ_max = {sigma:.6g} < 1: each step shrinks a gradient",
            )
        if bool(self.linear) and rho * slack < 1:
            return Statement(
                VANISHING,
                "lim ‖(γ W_hh)ⁿ‖^(1/n) = γ ρ(W_hh), a' constant",
                f"γρ = {rho:.6g} < 1: gradients vanish in the end, after growing by up to "
                f"{sigma:.4g} in a step",
            )
        if sigma <= slack:
            return Statement(
                EXCLUDED, inequality, f"γσ_max = {sigma:.6g}, 1 to rounding: no gradient grows"
            )
        if bool(self.linear):
            certain = rho > slack
            return Statement(
                POSSIBLE,
                "lim ‖(γ W_hh)ⁿ‖^(1/n) = γ ρ(W_hh), a' constant",
                f"γρ = {rho:.6g}, γσ_max = {sigma:.6g}: "
                + ("gradients explode" if certain else "gradients may grow"),
            )
        return Statement(
            POSSIBLE,
            inequality,
            f"γσ_max = {sigma:.6g} > 1 permits growth by that factor a step; whether there is any "
            "depends on the inputs",
        )

    def by_eigenvalue(self) -> Statement:
        """The classical statement, ρ against 1/γ: no certificate unless the net is linear."""
        rho = float(self.gamma * self.spectral_radius)
        if bool(self.linear):
            return self.statement()
        side = "<" if rho < 1 else "≥"
        return Statement(
            NONE,
            "ρ(∏ diag(a') W_hh) is not bounded by (γ ρ(W_hh))^(t-k)",
            f"γρ = {rho:.9g} {side} 1, which decides nothing: a' changes from step to step, and "
            "ρ is no norm",
        )


class TrajectoryBounds(NamedTuple):
    """Bounds along given inputs. All are natural logs (nats) with leaves `(T, *batch)`.

    Attributes:
      step_upper: log σ_max(Jᵢ), rounding added.
      step_lower: log σ_min(Jᵢ), rounding taken off.
      upper: The sum of `step_upper` over i > k, the rounding of the sum added: an upper bound of
        log ‖∂s_{T-1}/∂sₖ‖.
      lower: The sum of `step_lower` over i > k, the rounding of the sum taken off: a lower bound of
        log ‖∂s_{T-1}/∂sₖ‖.
      product: log σ_max(∂s_{T-1}/∂sₖ) itself.
    """

    step_upper: Array
    step_lower: Array
    upper: Array
    lower: Array
    product: Array

    def statement(self) -> Statement:
        """The verdict for these inputs, of the worst example in the batch.

        Time must be the first axis. Give `jax.vmap` the argument `out_axes=1`, or use batch axes in
        place of the vmap.
        """
        inequality = "∏ σ_min(Jᵢ) ≤ ‖∂s_{T-1}/∂sₖ‖ ≤ ∏ σ_max(Jᵢ)"
        upper, product = np.asarray(self.upper), np.asarray(self.product)
        # An empty batch has no largest bound. NaN would pass through every comparison as False.
        if len(upper) < 2 or not upper.size:
            return Statement(NONE, inequality, "fewer than two steps: there is no product")
        if np.isnan(upper).any():
            return Statement(NONE, inequality, "NaN on these inputs: weights or states not finite")
        # The last entry has lag 0 and is always 0: it says nothing about growth.
        lag, whole, most = len(upper) - 1, upper[0].max(), upper[:-1].max()
        measured, grown = product[0].max(), product[:-1].max()
        seen = f"the product itself is e^{measured:.4g} over {lag} steps"
        if whole < 0 and most <= 0:
            return Statement(VANISHING, inequality, f"bounded by e^{whole:.4g}; {seen}")
        if most <= 0:
            return Statement(EXCLUDED, inequality, f"no lag grows; {seen}")
        if grown > 0:
            return Statement(
                POSSIBLE, inequality, f"some lag grows to e^{grown:.4g} on these inputs; {seen}"
            )
        return Statement(
            NONE, inequality, f"the bound permits e^{most:.4g}, but no lag grows here; {seen}"
        )


class Certificate(NamedTuple):
    """What holds for every input, and what holds along the given one.

    Attributes:
      weights: The bound by the weights; None if they bound nothing.
      trajectory: The bounds along the given inputs; None if no inputs were given.
    """

    weights: WeightBound | None
    trajectory: TrajectoryBounds | None

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))  # in a notebook, too

    def __str__(self) -> str:
        """A paragraph for each part."""
        lines = []
        if self.weights is not None:
            lines += [f"any input      {self.weights.statement()}"]
            lines += [f"by eigenvalue  {self.weights.by_eigenvalue()}"]
        if self.trajectory is not None:
            lines += [f"these inputs   {self.trajectory.statement()}"]
        return "\n".join(lines)


@takes_run
def certify(run: Run) -> Certificate:
    """Everything that can be certified of a run: from the weights, and along its inputs.

        ‖∂sₜ/∂sₖ‖ ≤ ∏ᵢ ‖Jᵢ‖,  k < i ≤ t        of one gate ‖Jᵢ‖ ≤ γ σ_max(W_hh)

    Args:
      run: A `jaxrnn.Run`. From the weights alone, see `of_weights`.

    Returns:
      Certificate(weights, trajectory). `weights` is None for a gated cell, whose c or whose gates
      have no bound before a trajectory is known, and for an activation without γ.

    Raises:
      TypeError: As in `along`.
      ValueError: As in `along`.

    Cost:
      That of `along`, and of `of_weights` for a cell that declares γ.

    Source:
      docs/derivations/certificates.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.rnn()
    >>> params = cell.init(jax.random.key(0), 3, 5)
    >>> small = params._replace(w_hh=params.w_hh / 2)
    >>> run = jaxrnn.Run(cell, small, jax.numpy.ones((7, 2, 3)))
    >>> jaxrnn.certificates.certify(run).weights.statement().verdict
    'vanishing certified'
    """
    bounds = along(run)
    known = run.cell.traits.slope is not None
    return Certificate(of_weights(run.cell, run.params) if known else None, bounds)


def of_weights(cell: Cell, params: Params) -> WeightBound:
    """γσ_max(W_hh) and ρ(W_hh) of a one-gate cell.

        ‖∂hₜ/∂hₖ‖ ≤ (γ σ_max(W_hh))^(t-k)        ρ(W_hh) = lim ‖W_hhᵐ‖^(1/m),  m = 2⁵² here

    Args:
      cell: A cell that declares its slope γ, such as `jaxrnn.rnn()`.
      params: The params of that cell.

    Returns:
      WeightBound(gamma, sigma_max, spectral_radius, linear, bound), scalars.

    Raises:
      TypeError: If `cell` is not a cell, or `params` are not of the type that the cell takes.
      ValueError: If the cell declares no γ, with the reason, or `params` do not fit the cell.

    Cost:
      O(H³): the eigenvalues of W Wᵀ for σ_max, and 52 squarings for ρ.

    Source:
      Pascanu, Mikolov & Bengio, ICML 2013, the final version

    >>> import jax.numpy as jnp, jaxrnn
    >>> W = jnp.array([[8.0, 8.0], [-8.0, -8.0]])
    >>> params = jaxrnn.RNNParams(jnp.zeros((2, 1)), W, jnp.zeros(2))
    >>> found = of_weights(jaxrnn.rnn(), params)
    >>> float(found.spectral_radius), round(float(found.sigma_max), 4)
    (0.0, 16.0)
    """
    _checks.check_cell(cell)
    cell.check_params(params)
    if cell.traits.slope is None:
        raise ValueError(
            f"cell: expected one gate with a bound γ on its slope, got {cell.name}: a gated cell's "
            "Jacobian, or that of an activation without γ, has no bound from the weights alone; "
            "certify along inputs: certificates.along(jaxrnn.Run(cell, params, xs))"
        )
    with precise():
        return _of_weights(cell, params)


@functools.partial(jax.jit, static_argnums=0)
def _of_weights(cell: Cell, params: Params) -> WeightBound:
    traits: Any = cell.traits
    W = traits.recurrent_weight(params)
    W = W.astype(accumulator(W.dtype))  # LAPACK knows no 16-bit numbers
    gamma, linear = jnp.asarray(traits.slope, W.dtype), jnp.asarray(traits.linear)
    sigma = norms.spectral(W)
    return WeightBound(gamma, sigma, _spectral_radius(W), linear, gamma * sigma * _up(W))


def _up(W: Array) -> Array:
    """One plus what rounding may add to the norm of a step, relative to it: 1 + 16 n eps."""
    return jnp.asarray(1 + 16 * W.shape[-1] * float(jnp.finfo(W.dtype).eps), W.dtype)


# By powers and not by eigenvalues: the square of the W in `of_weights` is exactly 0, and so is ρ;
# its computed eigenvalues are not 0.
@jax.custom_jvp
def _spectral_radius(W: Array) -> Array:
    """ρ = lim ‖W^m‖^(1/m) by repeated squaring, each power divided by its norm."""

    def square(carry: tuple[Array, Array], weight: Array) -> tuple[tuple[Array, Array], None]:
        M, log_rho = carry
        M = jnp.matmul(M, M, precision=jax.lax.Precision.HIGHEST)
        size = norms.norm(M, (0, 1))
        # A power that is 0 is divided by 1: 0 / 0 would be NaN. Its log norm is -inf and stays so.
        by = jnp.where(size > 0, size, jnp.ones_like(size))
        return (M / jnp.broadcast_to(by, M.shape), log_rho + weight * jnp.log(size)), None

    size = norms.norm(W, (0, 1))
    by = jnp.where(size > 0, size, jnp.ones_like(size))
    # The k-th squaring gives a power 2ᵏ, whose log norm counts 2⁻ᵏ: log ρ is their weighted sum.
    weights = jnp.asarray([2.0 ** -(k + 1) for k in range(SQUARINGS)], W.dtype)
    first = W / jnp.broadcast_to(by, W.shape), jnp.log(size)
    (_, log_rho), _ = jax.lax.scan(square, first, weights)
    return jnp.exp(log_rho)


@_spectral_radius.defjvp
def _spectral_radius_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """δ|λ| of the largest eigenvalue λ. ‖W^m‖^(1/m) tends to ρ, its derivative not to that of ρ."""
    sizes, moved = jax.jvp(lambda W: jnp.abs(factorizations.eigenvalues(W)), primals, tangents)
    return _spectral_radius(*primals), moved[jnp.argmax(sizes)]


@takes_run
def along(run: Run) -> TrajectoryBounds:
    """Per-step norms, the bounds they give for every lag up to the last state, and the product.

        Σ_{i>k} log σ_min(Jᵢ) ≤ log ‖∂s_{T-1}/∂sₖ‖ ≤ Σ_{i>k} log σ_max(Jᵢ)

    Args:
      run: A `jaxrnn.Run`.

    Returns:
      TrajectoryBounds(step_upper, step_lower, upper, lower, product), each `(T, *batch)` in nats.
      Entry k of the last three has lag T-1-k. The bounds of the last entry are 0.

    Raises:
      TypeError: If `run` is not a `jaxrnn.Run`; else as in `jaxrnn.unroll`.
      ValueError: If a leaf of the state is not a vector, or no leaf has an entry; else as in
        `jaxrnn.unroll`.

    Cost:
      That of `products.transport_norms`, and the singular values of T Jacobians `(n, n)`:
      O(T·B·n³). The Jacobians that exist at the same time have about 2²² entries, or are those of
      one step.

    Source:
      docs/derivations/certificates.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> bounds = jaxrnn.certificates.along(run)
    >>> bool((bounds.product <= bounds.upper).all() and (bounds.lower <= bounds.product).all())
    True
    """
    check_some_state(run)
    with precise():
        return of_steps(run)


@jax.jit
def of_steps(run: Run, steps: Steps | None = None) -> TrajectoryBounds:
    """`along` for a run that is checked and whose steps are known."""
    steps = trajectory(run) if steps is None else steps
    n = state_vectors.size(moving(first_state(run)))

    def extremes(nothing: None, steps: Steps) -> tuple[None, tuple[Array, Array]]:
        J = from_tree(jacobians.of_steps(jacobians.state_closed_form, run, steps))
        sigma = factorizations.singular_values(J.astype(accumulator(J.dtype)))
        return nothing, (sigma[..., 0], sigma[..., -1])

    # The Jacobians of a few steps at a time: all T of them would be T·B·n² numbers. With an empty
    # batch a step has 0 numbers, by which nothing can be divided.
    numbers = max(math.prod(batch_of(run)) * n * n, 1)
    chunk = max(min(JACOBIAN_NUMBERS // numbers, step_count(run)), 1)
    _, (most, least) = over_chunks(extremes, None, steps, chunk)
    # Rounding moves every singular value by a few eps of the largest, so the least may be lost in
    # it: then its bound is 0, whose log is -inf.
    off = 16 * n * float(jnp.finfo(most.dtype).eps)
    step_upper = norms.log(most) + math.log1p(off)
    step_lower = norms.log(jnp.maximum(least - off * most, jnp.zeros_like(least)))
    product = products.of_steps(run, steps)
    upper, lower = _after(step_upper, 1), _after(step_lower, -1)
    return TrajectoryBounds(step_upper, step_lower, upper, lower, product)


def _after(logs: Array, sign: int) -> Array:
    """The sum over later steps, 0 for the last, moved outwards by what rounding may do to it."""
    # A step of 0 has log -inf, which as a rounding error of the sum would give -inf + inf = NaN.
    finite = jnp.where(jnp.isfinite(logs), jnp.abs(logs), jnp.zeros_like(logs))
    off = sign * logs.shape[0] * float(jnp.finfo(logs.dtype).eps)

    def later(terms: Array) -> Array:
        summed = jnp.flip(jnp.cumsum(jnp.flip(terms, 0), 0), 0)
        return jnp.concatenate([summed[1:], jnp.zeros_like(terms[:1])])[: terms.shape[0]]

    return later(logs) + off * later(finite)
