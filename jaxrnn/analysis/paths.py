"""How a cell state reaches a later one: ∂cₜ/∂cₖ through (h, c), its approximations, its paths.

    ∂cₜ/∂cₖ = [0 1] Jₜ ⋯ Jₖ₊₁ [diag(rₖ); 1]      exact; hₖ = oₖ ⊙ tanh(cₖ) moves with cₖ
            ≈ ∏ᵢ (diag(fᵢ) + ∂cᵢ/∂hᵢ₋₁ diag(rᵢ₋₁))   four terms a step: W_o drops out
            ≈ ∏ᵢ diag(fᵢ)                          the forget gates alone

r = o (1 - tanh² c) is the read-out ∂h/∂c. Between k and t a route takes one path at each step:
either the memory itself, c₋ → c times f, or one gate's rows of W_hh, h₋ → gate → c or h. So ∂cₜ/∂cₖ
is a sum over sequences of such choices, and each path p has a share of it,

    share_p = ∂ log ‖∂cₜ/∂cₖ‖_F / ∂ log αₚ / (t-k)      αₚ multiplies p in every step; Σₚ = 1

A share is below 0 where p works against the other paths. In the LSTM the paths are memory, i
(through the input gate), f (through the forget gate's own dependence on h), g (the candidate) and o
(the output gate). Norms are Frobenius norms; products are kept as a value and a power of two.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrnn import _checks
from jaxrnn.analysis.jacobians import check_readout
from jaxrnn.analysis.path_rows import Chains, by_c, first_rows, readouts, rows_back
from jaxrnn.numerics import norms
from jaxrnn.numerics.scaled import Scaled, log_of, rescaled, times_power
from jaxrnn.running.run import Run, check_vector_state, first_state, precise, takes_run, until
from jaxrnn.running.steps import Steps, linearised, trajectory

__all__ = ["CellPaths", "CellProducts", "decompose", "transport"]

MEMORY = "memory"
TABLE_LAGS = (1, 2, 5)  # of each decade that a table shows


class CellPaths(NamedTuple):
    """∂c_{T-1}/∂cₖ for every k. Leaves are `(T, *batch)`; entry k has lag T-1-k.

    Attributes:
      exact: log ‖∂c_{T-1}/∂cₖ‖_F in nats.
      four_term: The same log of the norm for the approximation by four terms a step.
      forget: The same log of the norm for the approximation by forget gates alone.
      four_term_error: ‖approximation - exact‖_F / ‖exact‖_F of four terms a step; 0 where both are
        0.
      forget_error: The same for forget gates alone.
      shares: "memory" and the name of each gate ↦ the share of that path; 0 at lag 0 and where
        exact is 0.
    """

    exact: Array
    four_term: Array
    forget: Array
    four_term_error: Array
    forget_error: Array
    shares: dict[str, Array]

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))  # in a notebook, too

    def __str__(self) -> str:
        """A table over lags, medians over the batch.

        Time must be the first axis. Give `jax.vmap` the argument `out_axes=1`, or use batch axes in
        place of the vmap. Padding counts as steps.
        """
        names = sorted(self.shares, key=lambda name: name != MEMORY)  # jit sorts a dict's names
        lines = [
            f"{'':6}{'‖∂c/∂c‖':>10}{'error of':>11}{'':9}   share of each path",
            f"{'lag':>6}{'exact':>10}{'4 terms':>11}{'f alone':>9}   "
            + "".join(f"{name:>8}" for name in names),
        ]
        T = len(self.exact)
        for lag in (m * 10**e for e in range(7) for m in TABLE_LAGS if m * 10**e < T):
            at = jax.tree.map(lambda leaf, k=T - 1 - lag: np.median(np.asarray(leaf)[k]), self)
            lines.append(
                f"{lag:6d}{np.exp(at.exact):10.2e}{at.four_term_error:11.2g}"
                f"{at.forget_error:9.2g}   " + "".join(f"{at.shares[name]:8.1%}" for name in names)
            )
        return "\n".join(lines)


class CellProducts(NamedTuple):
    """∂cₜ/∂cₖ in three ways, each a Scaled with value `(*batch, H, H)`.

    Attributes:
      exact: The derivative itself.
      four_term: The product of four terms a step.
      forget: The product of the forget gates alone.
    """

    exact: Scaled
    four_term: Scaled
    forget: Scaled


@takes_run
def decompose(run: Run) -> CellPaths:
    """∂c_{T-1}/∂cₖ for every k: its size, what the approximations miss, which path carries it.

        ∂cₜ/∂cₖ = [0 1] Jₜ ⋯ Jₖ₊₁ [diag(rₖ); 1]        t = T-1, rₖ = oₖ (1 - tanh² cₖ)
        share_p = ∂ log ‖∂cₜ/∂cₖ‖_F / ∂ log αₚ / (t-k)      αₚ multiplies path p in every step

    Args:
      run: A `jaxrnn.Run` of a cell with a state (h, c) and a `Pointwise.readout`, such as
        `jaxrnn.lstm()`.

    Returns:
      CellPaths, leaves `(T, *batch)`, entry k of lag T-1-k. For another last step t make the run of
      `xs[:t+1]`.

    Raises:
      TypeError: If `run` is not a `jaxrnn.Run`, the state has no c or the cell has no read-out;
        else as in `jaxrnn.unroll`.
      ValueError: If a leaf of the state is not a vector; else as in `jaxrnn.unroll`.

    Cost:
      One `unroll`, then T adjoint steps of 7H + 1 rows: O(T·B·G²·H³) time, O(B·G·H²) memory beside
      the trajectory.

    Source:
      docs/lstm.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> found = jaxrnn.paths.decompose(run)
    >>> list(found.shares), found.exact.shape
    (['memory', 'i', 'f', 'g', 'o'], (7, 2))
    """
    check_vector_state(run)
    check_readout(run)
    with precise():
        return of_steps(run)


@takes_run
def transport(run: Run, k: int, t: int) -> CellProducts:
    """∂cₜ/∂cₖ itself, and its approximations, for any k ≤ t.

        exact [0 1] Jₜ ⋯ Jₖ₊₁ [diag(rₖ); 1]    four_term ∏ᵢ (diag(fᵢ) + ∂cᵢ/∂hᵢ₋₁ diag(rᵢ₋₁))
        forget ∏ᵢ diag(fᵢ)                     k < i ≤ t

    `products.transport(...).value.c.c` is another derivative: of cₜ by cₖ at fixed hₖ.

    Args:
      run: A `jaxrnn.Run`, as in `decompose`.
      k: Index of the earlier state, 0 ≤ k ≤ t.
      t: Index of the later state, t < T.

    Returns:
      CellProducts(exact, four_term, forget), each a Scaled with value `(*batch, H, H)`.
      `.exact.unscaled()` is a plain matrix.

    Raises:
      TypeError: If `k` or `t` is not an integer; else as in `decompose`.
      ValueError: If `k` or `t` is out of range; else as in `decompose`.

    Cost:
      One `unroll` to t, then t - k adjoint steps of 2H + 1 rows: O((t-k)·B·G·H³).

    Source:
      docs/lstm.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> jaxrnn.paths.transport(run, 1, 4).exact.value.shape
    (2, 5, 5)
    """
    check_vector_state(run)
    check_readout(run)
    _checks.check_integer("t", t, least=0, most=run.xs.shape[0] - 1)
    _checks.check_integer("k", k, least=0, most=t)
    with precise():
        return _transport(until(run, t), k)


def _names(run: Run) -> tuple[str, ...]:
    return (MEMORY, *run.cell.gates)


def of_steps(run: Run, steps: Steps | None = None) -> CellPaths:
    """`decompose` for a run that is checked and whose steps are known."""
    found = _decompose(run, steps)
    # `jax.jit` sorts the names of a dict; a table wants the memory first.
    return found._replace(shares={name: found.shares[name] for name in _names(run)})


@jax.jit
def _decompose(run: Run, steps: Steps | None) -> CellPaths:
    first = first_rows(first_state(run), len(run.cell.gates) + 1)
    measure = functools.partial(_measured, _names(run))
    steps = trajectory(run) if steps is None else steps
    return rows_back(run, steps, first, measure)[1]


# k is static, since it cuts the arrays: every other k compiles anew.
@functools.partial(jax.jit, static_argnums=1)
def _transport(run: Run, k: int) -> CellProducts:
    first, steps = first_rows(first_state(run), 0), trajectory(run)  # no paths: H rows are enough
    # Step k itself is not gone through. It gives the read-out that makes hₖ move with cₖ.
    at, after = (jax.tree.map(lambda leaf, cut=cut: leaf[cut], steps)
                 for cut in (slice(k, k + 1), slice(k + 1, None)))  # fmt: skip
    chains, _ = rows_back(run, after, first, lambda chains, readout: None)
    return _matrices(chains, readouts(run, linearised(run, at))[0])


def _matrices(chains: Chains, readout: Array) -> CellProducts:
    H = readout.shape[-1]
    exact = by_c(chains.exact.value, readout)[..., :H, :]
    diagonal = chains.forget.value.c[..., 0, :]
    on = jnp.broadcast_to(jnp.eye(H, dtype=exact.dtype), exact.shape)
    forget = on * jnp.broadcast_to(diagonal[..., None], exact.shape)
    return CellProducts(
        rescaled(exact, chains.exact.exponent),
        rescaled(by_c(chains.four_term.value, readout), chains.four_term.exponent),
        rescaled(forget, chains.forget.exponent),
    )


def _measured(names: tuple[str, ...], chains: Chains, readout: Array) -> CellPaths:
    found = _matrices(chains, readout)
    exact = found.exact
    exact_log, four_term, forget = [
        log_of(norms.norm(P.value, (-2, -1)), P.exponent) for P in found
    ]
    size = norms.norm(exact.value, (-2, -1))
    errors = [_error(P, exact, size) for P in (found.four_term, found.forget)]
    # ∂ log ‖P‖ / ∂ log α = ⟨P, ∂P/∂log α⟩ / ‖P‖² for each path, in the units of `exact`.
    H = readout.shape[-1]
    derivatives = by_c(chains.exact.value, readout)[..., H:, :]
    derivatives = times_power(derivatives, chains.exact.exponent - exact.exponent)
    # A reset makes P exactly 0: 0 / 1 is then a share of 0 in place of NaN.
    by = jnp.where(size > 0, size, jnp.ones_like(size))[..., None, None]
    unit = exact.value / jnp.broadcast_to(by, exact.value.shape)
    # At lag 0, and in padding, no step is taken: the derivative is 0 and is divided by 1.
    taken = jnp.maximum(chains.taken, jnp.ones_like(chains.taken)).astype(unit.dtype)
    shares = {}
    for name, each in zip(names, jnp.split(derivatives, len(names), axis=-2), strict=True):
        inner = jnp.sum(unit * (each / jnp.broadcast_to(by, each.shape)), axis=(-2, -1))
        shares[name] = inner / taken
    return CellPaths(exact_log, four_term, forget, errors[0], errors[1], shares)


def _error(approximation: Scaled, exact: Scaled, size: Array) -> Array:
    """‖A - E‖_F / ‖E‖_F; inf where only E is 0, or where the ratio is beyond the dtype."""
    moved = times_power(approximation.value, approximation.exponent - exact.exponent)
    off = norms.norm(moved - exact.value, (-2, -1))
    # Divided by 1 where E is 0, since 0 / 0 on the branch not taken would be NaN in the derivative.
    by = jnp.where(size > 0, size, jnp.ones_like(size))
    beyond = jnp.where(off > 0, jnp.full_like(off, math.inf), off)
    return jnp.where(size > 0, off / by, beyond)
