"""Products of a stack of matrices, in scaled form.

    Pᵢ = Jᵢ Jᵢ₋₁ ⋯ J₀        P = value · 2^exponent

`sequential` and `associative` are two algorithms for the same stack of products, `product` gives
the last one alone. They serve any matrices; for a cell's own, which need not exist as a stack,
see `jaxrnn.products`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrnn import _checks
from jaxrnn.numerics import norms
from jaxrnn.numerics.scaled import Scaled, log_of, rescaled

__all__ = ["associative", "from_tree", "log_norm", "product", "sequential"]


def sequential(matrices: Array) -> Scaled:
    """Every product of a stack, one after the other.

        Pᵢ = Jᵢ Pᵢ₋₁        i = 0 … T-1, P₋₁ = 1

    Args:
      matrices: The stack J, real floats `(T, *batch, n, n)`.

    Returns:
      Scaled: value `(T, *batch, n, n)`, exponent `(T, *batch)`. Entry i is Pᵢ.

    Raises:
      TypeError: If `matrices` is no array of real floats.
      ValueError: If the matrices are not square, or if an entry is NaN or inf. The message names
        the first such step. Under `jit` values are not known and are not looked at.

    Cost:
      T matmuls, O(T·B·n³), one after the other.

    Source:
      docs/derivations/products.md

    >>> import jax.numpy as jnp
    >>> P = sequential(jnp.broadcast_to(jnp.float32([[1e3]]), (1000, 1, 1)))
    >>> f"{log_norm(P)[-1]:.2f} = 1000 log 1000"
    '6907.76 = 1000 log 1000'
    """
    check_matrices("matrices", matrices)
    one = rescaled(_identity(matrices), jnp.zeros(matrices.shape[1:-2], jnp.int32))

    def body(P: Scaled, J: Array) -> tuple[Scaled, Scaled]:
        # `rescaled` has widened 16-bit matrices to float32, so each factor must follow.
        P = rescaled(_matmul(J.astype(P.value.dtype), P.value), P.exponent)
        return P, P

    return jax.lax.scan(body, one, matrices)[1]


def associative(matrices: Array) -> Scaled:
    """The same products as `sequential`, by a parallel scan (`jax.lax.associative_scan`).

        Pᵢ = (Jᵢ ⋯ Jⱼ₊₁) (Jⱼ ⋯ J₀)        both factors for many j at once

    Args:
      matrices: The stack J, real floats `(T, *batch, n, n)`.

    Returns:
      Scaled: value `(T, *batch, n, n)`, exponent `(T, *batch)`. Entry i is Pᵢ.

    Raises:
      TypeError: As in `sequential`.
      ValueError: As in `sequential`.

    Cost:
      About 2T matmuls, but only O(log T) of them one after the other. This suits a GPU or TPU and
      small matrices.

    >>> import jax.numpy as jnp
    >>> associative(jnp.stack([jnp.eye(2)] * 5)).exponent.tolist()
    [1, 1, 1, 1, 1]
    """
    check_matrices("matrices", matrices)
    scaled = rescaled(matrices, jnp.zeros(matrices.shape[:-2], jnp.int32))

    def combine(earlier: Scaled, later: Scaled) -> Scaled:
        value = _matmul(later.value, earlier.value)
        return rescaled(value, earlier.exponent + later.exponent)

    return jax.lax.associative_scan(combine, scaled)


def product(matrices: Array) -> Scaled:
    """Only the last product of a stack; the identity for T = 0.

        P = J_{T-1} ⋯ J₀

    Args:
      matrices: The stack J, real floats `(T, *batch, n, n)`.

    Returns:
      Scaled: value `(*batch, n, n)`, exponent `(*batch,)`.

    Raises:
      TypeError: As in `sequential`.
      ValueError: As in `sequential`.

    Cost:
      T matmuls: O(T·B·n³) time, O(B·n²) memory.

    Source:
      docs/derivations/products.md

    >>> import jax.numpy as jnp
    >>> product(jnp.float32([[[2.0]], [[3.0]]])).unscaled().tolist()
    [[6.0]]
    """
    check_matrices("matrices", matrices)
    one = rescaled(_identity(matrices), jnp.zeros(matrices.shape[1:-2], jnp.int32))

    def body(P: Scaled, J: Array) -> tuple[Scaled, None]:
        return rescaled(_matmul(J.astype(P.value.dtype), P.value), P.exponent), None

    return jax.lax.scan(body, one, matrices)[0]


def log_norm(P: Scaled) -> Array:
    """The natural logarithm of the largest singular value.

        log σ_max(P) = exponent · log 2 + log σ_max(value)

    Args:
      P: A Scaled whose value is one array `(*lead, n, n)`, with exponent `(*lead,)`.

    Returns:
      `(*lead,)`, in nats, right for every exponent. It is -inf for a matrix of zeros, and NaN where
      an entry is NaN or inf.

    Raises:
      TypeError: If `P` is not a Scaled.

    Cost:
      For each matrix a matmul and the eigenvalues of value · valueᵀ, O(n³).

    Source:
      docs/derivations/products.md

    >>> import jax.numpy as jnp
    >>> float(log_norm(Scaled(jnp.float32([[0.5]]), jnp.int32(1))))
    0.0
    """
    _checks.check_instance("P", P, Scaled, "the Scaled of matrix_products or products")
    return log_of(norms.spectral(P.value), P.exponent)


def from_tree(J: Any) -> Array:
    """A Jacobian as one matrix, put together from its blocks.

        ⎡ ∂h/∂h₋  ∂h/∂c₋ ⎤
        ⎣ ∂c/∂h₋  ∂c/∂c₋ ⎦        for the LSTM; n = 2H

    Rows and columns follow the leaves of the state: for the LSTM first h, then c. A leaf without
    tangents, None in J, has none.

    Args:
      J: A state of states with leaves `(*lead, H, H)`, as `jaxrnn.jacobians.closed_form` gives it.

    Returns:
      `(*lead, n, n)`.

    Raises:
      TypeError: If a block is no array of real floats.
      ValueError: If a block is no matrix.

    Cost:
      One copy of J.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> J = jaxrnn.jacobians.closed_form(run)
    >>> from_tree(J).shape
    (7, 2, 10, 10)
    """
    for path, block in jax.tree_util.tree_leaves_with_path(J):
        name = "J" + jax.tree_util.keystr(path)
        _checks.check_array(name, block)
        if block.ndim < 2:
            raise ValueError(
                f"{name}: expected matrices (*lead, H, H), got {_checks.describe(block)}"
            )
    # The outer state alone is opened: each of its leaves is one row of blocks, itself a state.
    rows = jax.tree.leaves(J, is_leaf=lambda node: node is not J)
    joined = [jnp.concatenate(jax.tree.leaves(row), axis=-1) for row in rows if row is not None]
    return jnp.concatenate(joined, axis=-2)


def check_matrices(name: str, value: Any) -> None:
    """Raise unless the shape is `(T, *batch, n, n)` and, where values are known, all are finite."""
    _checks.check_array(name, value)
    if value.ndim < 3 or value.shape[-1] != value.shape[-2]:
        raise ValueError(
            f"{name}: expected square matrices (T, *batch, n, n), got {_checks.describe(value)}"
        )
    if isinstance(value, jax.core.Tracer):
        return
    finite = np.isfinite(np.asarray(value, np.float64)).all(axis=tuple(range(1, value.ndim)))
    if not finite.all():
        step = int(np.argmin(finite))
        raise ValueError(f"{name}: expected finite entries, got NaN or inf first in step {step}")


def _identity(matrices: Array) -> Array:
    # Made of the matrices, so that it has their sharding: a scan's carry may not change its type.
    n = matrices.shape[-1]
    eye = jnp.broadcast_to(jnp.eye(n, dtype=matrices.dtype), matrices.shape[1:])
    return eye + jnp.zeros_like(matrices).sum(0)


def _matmul(a: Array, b: Array) -> Array:
    # By default an accelerator rounds the factors of a float32 matmul to TF32 or bfloat16.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
