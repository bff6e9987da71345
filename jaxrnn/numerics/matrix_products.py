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

    Args:    matrices: `(T, *batch, n, n)`, real floats.
    Returns: Scaled: value `(T, *batch, n, n)`, exponent `(T, *batch)`; entry i is Pᵢ.
    Raises:  TypeError or ValueError for anything but a stack of finite square matrices, naming
             the first step that is not finite (outside jit, where values are known).
    Cost:    T matmuls, O(T·B·n³); T steps deep.
    Source:  docs/derivations/products.md.

    >>> import jax.numpy as jnp
    >>> P = sequential(jnp.broadcast_to(jnp.float32([[1e3]]), (1000, 1, 1)))
    >>> f"{log_norm(P)[-1]:.2f} = 1000 log 1000"
    '6907.76 = 1000 log 1000'
    """
    check_matrices("matrices", matrices)
    one = rescaled(_identity(matrices), jnp.zeros(matrices.shape[1:-2], jnp.int32))

    def body(P: Scaled, J: Array) -> tuple[Scaled, Scaled]:
        P = rescaled(_matmul(J.astype(P.value.dtype), P.value), P.exponent)
        return P, P

    return jax.lax.scan(body, one, matrices)[1]


def associative(matrices: Array) -> Scaled:
    """`sequential`'s result by a parallel scan.

        Pᵢ = (Jᵢ ⋯ Jⱼ₊₁) (Jⱼ ⋯ J₀)        halves for every j at once

    Args:    as `sequential`.
    Returns: as `sequential`.
    Raises:  as `sequential`.
    Cost:    about 2T matmuls, O(log T) deep: for a GPU or TPU and small matrices.
    Source:  `jax.lax.associative_scan`.

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
    """The last product of a stack alone; the identity for T = 0.

        P = J_{T-1} ⋯ J₀

    Args:    as `sequential`.
    Returns: Scaled: value `(*batch, n, n)`, exponent `(*batch,)`.
    Raises:  as `sequential`.
    Cost:    T matmuls, O(T·B·n³) time, O(B·n²) memory.
    Source:  as `sequential`.

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
    """Log of the largest singular value, natural.

        log σ_max(P) = exponent · log 2 + log σ_max(value)

    Right whatever the exponent; -inf for a matrix of zeros.

    Args:    P: Scaled, value one array `(*lead, n, n)`, exponent `(*lead,)`.
    Returns: `(*lead,)`, in nats; NaN where an entry is not finite.
    Raises:  TypeError for what is not a Scaled.
    Cost:    a matmul and the eigenvalues of value · valueᵀ, O(n³) a matrix.
    Source:  docs/derivations/products.md.

    >>> import jax.numpy as jnp
    >>> float(log_norm(Scaled(jnp.float32([[0.5]]), jnp.int32(1))))
    0.0
    """
    _checks.check_instance("P", P, Scaled, "the Scaled of matrix_products or products")
    return log_of(norms.spectral(P.value), P.exponent)


def from_tree(J: Any) -> Array:
    """A Jacobian as one matrix, from its blocks.

        ⎡ ∂h/∂h₋  ∂h/∂c₋ ⎤
        ⎣ ∂c/∂h₋  ∂c/∂c₋ ⎦        of the LSTM; n = 2H

    Rows and columns are the leaves of the state in their order: of the LSTM h, then c.

    Args:    J: a state of states of `(*lead, H, H)`, such as `jaxrnn.jacobians.closed_form` gives.
    Returns: `(*lead, n, n)`.
    Raises:  TypeError or ValueError naming the block that is no matrix.
    Cost:    one copy of J.
    Source:  this library.

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
    rows = jax.tree.leaves(J, is_leaf=lambda node: node is not J)
    joined = [jnp.concatenate(jax.tree.leaves(row), axis=-1) for row in rows]
    return jnp.concatenate(joined, axis=-2)


def check_matrices(name: str, value: Any) -> None:
    """Raise unless `(T, *batch, n, n)`, finite where that can be known."""
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
    # Made of the matrices, so that it has their sharding.
    n = matrices.shape[-1]
    eye = jnp.broadcast_to(jnp.eye(n, dtype=matrices.dtype), matrices.shape[1:])
    return eye + jnp.zeros_like(matrices).sum(0)


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
