"""QR, singular values and eigenvalues of stacks of matrices, without a deadlock on a CPU.

The work is done by `jax.numpy.linalg`. jaxlib 0.10.0 to 0.11.0 cuts a stack of matrices on a CPU
into pieces for one small thread pool. The call waits for its pieces on a thread of that same pool.
When as many such calls run at once as the pool has threads, two on a machine of two cores, no
thread is left for the pieces and the calls wait for ever. The calls may belong to one program, to
two programs in flight, or to the parts of one program on several devices.

A call with one matrix, or with a few small ones, is not cut and does not wait. With those versions
this module gives a CPU only such calls, also under `jax.vmap` and in derivatives.
docs/performance.md tells the story; tests/support/hang.py reproduces the deadlock in ten lines.

Later versions cut nothing (jax-ml/jax, commit 8599924), and the functions here are JAX's own.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
from jax import Array
from jax.custom_batching import custom_vmap
from jax.nn import initializers
from jax.sharding import PartitionSpec as P

__all__ = ["eigenvalues", "orthogonal", "qr", "singular_values", "symmetric_eigenvalues"]

VERSION = tuple(int(part) for part in jaxlib.__version__.split(".")[:3])
# 0.10.0, 0.10.2 and 0.11.0 hang in 9 of 10 runs, 0.11.1, 0.11.2 and 0.12.0 end;
# tests/numerics/test_factorizations.py tries both sides; docs/decisions/factorizations.md
MAY_WAIT_FOR_ITSELF = VERSION < (0, 11, 1)

# Of jaxlib/cpu/lapack_kernels.cc in those versions: a stack is cut from kMinWorkPerTask operations
# on, and no kernel counts more than 10 m n min(m, n) for a real matrix, three times that for a
# complex one. Read there, not tuned: more matrices a call would hang, fewer make more calls.
WORTH_CUTTING, OPERATIONS = 200_000, 10


def uncut(shape: tuple[int, ...], dtype: Any) -> int:
    """How many matrices of a shape one call may hold without being cut, at least 1."""
    m, n = shape
    each = OPERATIONS * (3 if jnp.issubdtype(dtype, jnp.complexfloating) else 1)
    return max((WORTH_CUTTING - 1) // max(each * m * n * min(m, n), 1), 1)


def few_at_a_time(
    f: Callable[[Array], Any], rank: int = 2, most: int | None = None
) -> Callable[[Array], Any]:
    """Let f, which takes arrays of `rank` axes, take any leading axes.

    An accelerator makes one call for all entries of the leading axes. A CPU makes several calls
    with up to `most` entries each, by default as many as `uncut` allows.
    """

    def each(a: Array) -> Any:
        lead, inner = a.shape[: a.ndim - rank], a.shape[a.ndim - rank :]
        few = uncut(inner, a.dtype) if most is None else most
        if math.prod(lead) <= few:
            return together(a)
        flat = a.reshape(math.prod(lead), *inner)
        found = jax.lax.map(f, flat, batch_size=few if few > 1 else None)
        return jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), found)

    def together(a: Array) -> Any:
        of_stacks = f
        for _ in range(a.ndim - rank):
            of_stacks = jax.vmap(of_stacks)
        return of_stacks(a)

    @custom_vmap
    def stacked(a: Array) -> Any:
        count = a.ndim - rank
        if count == 0:
            return f(a)
        split = jax.typeof(a).sharding
        # JAX loops over no axis that an explicit mesh splits: each device loops over its own part.
        if any(split.spec[:count]):
            spec = P(*split.spec[:count])
            return jax.shard_map(stacked, mesh=split.mesh, in_specs=spec, out_specs=spec)(a)
        return jax.lax.platform_dependent(a, cpu=each, default=together)

    @stacked.def_vmap
    def _(size: int, batched: Any, a: Array) -> tuple[Any, Any]:
        # `vmap` inside the loop would turn each call of one matrix into a call of a stack. So the
        # mapped axis becomes one more leading axis, outside of the loop.
        found = stacked(a)
        return found, jax.tree.map(lambda leaf: True, found)

    # Without this `jit`, a call outside of any `jax.jit` would be traced and compiled each time.
    return jax.jit(stacked)


def _transposed(a: Array) -> Array:
    return jnp.swapaxes(a, -1, -2)


def _diagonal(a: Array) -> Array:
    return jnp.diagonal(a, axis1=-2, axis2=-1)


def _product(*factors: Array) -> Array:
    # On accelerators a float32 matmul is TF32 or bfloat16 by default, of about three digits.
    exact = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    return functools.reduce(exact, factors)


def _native_qr(a: Array) -> tuple[Array, Array]:
    return tuple(jnp.linalg.qr(a))  # type: ignore[return-value]


def _native_svd(a: Array) -> tuple[Array, Array, Array]:
    return tuple(jnp.linalg.svd(a, full_matrices=False))  # type: ignore[return-value]


def _native_singular_values(a: Array) -> Array:
    return jnp.linalg.svd(a, compute_uv=False)


def _native_eigh(a: Array) -> tuple[Array, Array]:
    return tuple(jnp.linalg.eigh(a, symmetrize_input=False))  # type: ignore[return-value]


def _native_eigvalsh(a: Array) -> Array:
    return jnp.linalg.eigvalsh(a, symmetrize_input=False)


def _inverse_upper(r: Array) -> Array:
    # The identity is made of r, so that it varies over devices as r does.
    return jax.scipy.linalg.solve_triangular(r, jnp.eye(r.shape[-1], dtype=r.dtype) + 0 * r)


def _native_eig(a: Array) -> tuple[Array, Array]:
    return tuple(jnp.linalg.eig(a))  # type: ignore[return-value]


_few_inverse_upper = few_at_a_time(_inverse_upper)
_few_qr = few_at_a_time(_native_qr)
_few_svd = few_at_a_time(_native_svd)
_few_singular_values = few_at_a_time(_native_singular_values)
_few_eigh = few_at_a_time(_native_eigh)
_few_eigvalsh = few_at_a_time(_native_eigvalsh)
_few_eigvals = few_at_a_time(jnp.linalg.eigvals)
_few_eig = few_at_a_time(_native_eig)
_few_inverse = few_at_a_time(jnp.linalg.inv)


# JAX's own derivatives of QR and of eigenvalues solve systems with a whole stack, which is cut as
# well. Those below are made of matmuls, which are not, and of the functions above.

# --- QR -----------------------------------------------------------------------------


@jax.custom_jvp
def _inverse_of_upper(r: Array) -> Array:
    return _few_inverse_upper(r)


@_inverse_of_upper.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    inverse = _inverse_of_upper(*primals)
    return inverse, -_product(inverse, *tangents, inverse)


@jax.custom_jvp
def _qr(a: Array) -> tuple[Array, Array]:
    return _few_qr(a)


@_qr.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Any, Any]:
    """QᵀδA R⁻¹ = X: δR = triu(X) R + low(X)ᵀ R, δQ = δA R⁻¹ - Q δR R⁻¹."""
    q, r = _qr(*primals)
    moved = _product(*tangents, _inverse_of_upper(r))
    x = _product(_transposed(q), moved)
    low = jnp.tril(x, -1)
    turn = low - _transposed(low)
    return (q, r), (_product(q, turn - x) + moved, _product(x - turn, r))


# --- singular values ----------------------------------------------------------------


def _gaps(s: Array) -> Array:
    """1 / (sⱼ - sᵢ) off the diagonal, 0 on it."""
    n = s.shape[-1]
    off = s[..., None, :] - s[..., :, None]
    on = jnp.broadcast_to(jnp.eye(n, dtype=bool), off.shape)
    # The inner `where` keeps 1/0 out of the branch not taken: its derivative would be 0 · inf, NaN.
    return jnp.where(on, jnp.zeros_like(off), 1 / jnp.where(on, jnp.ones_like(off), off))


@jax.custom_jvp
def _svd(a: Array) -> tuple[Array, Array, Array]:
    return _few_svd(a)


@_svd.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Any, Any]:
    """Of a square matrix with distinct singular values, X = UᵀδA V."""
    u, s, vt = _svd(*primals)
    x = _product(_transposed(u), *tangents, _transposed(vt))
    gaps = _gaps(s * s)
    columns = jnp.broadcast_to(s[..., None, :], x.shape)
    rows = jnp.broadcast_to(s[..., :, None], x.shape)
    du = _product(u, gaps * (x * columns + rows * _transposed(x)))
    dv = _product(_transposed(vt), gaps * (rows * x + _transposed(x) * columns))
    return (u, s, vt), (du, _diagonal(x), _transposed(dv))


@jax.custom_jvp
def _singular_values(a: Array) -> Array:
    return _few_singular_values(a)


@_singular_values.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # Singular vectors are computed here alone, that is, only where a derivative is asked for.
    u, s, vt = _svd(*primals)
    return s, _diagonal(_product(_transposed(u), *tangents, _transposed(vt)))


# --- eigenvalues --------------------------------------------------------------------


@jax.custom_jvp
def _eigh(a: Array) -> tuple[Array, Array]:
    return _few_eigh(a)


@_eigh.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Any, Any]:
    """Of a symmetric matrix with distinct eigenvalues, X = VᵀδA V."""
    w, v = _eigh(*primals)
    x = _product(_transposed(v), *tangents, v)
    return (w, v), (_diagonal(x), _product(v, _gaps(w) * x))


@jax.custom_jvp
def _symmetric_eigenvalues(a: Array) -> Array:
    return _few_eigvalsh(a)


@_symmetric_eigenvalues.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    w, v = _eigh(*primals)
    return w, _diagonal(_product(_transposed(v), *tangents, v))


@jax.custom_jvp
def _eigenvalues(a: Array) -> Array:
    return _few_eigvals(a)


@_eigenvalues.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """δw = diag(V⁻¹δA V), of a matrix with distinct eigenvalues."""
    w, v = _few_eig(*primals)
    inverse = _few_inverse(v)
    return w, _diagonal(_product(inverse, tangents[0].astype(w.dtype), v))


@functools.cache
def _orthogonal(shape: tuple[int, ...], dtype: Any, rank: int) -> Callable[[Array], Array]:
    # One key at a time: `jax.vmap` over keys would make one call with the matrices of all.
    # Cached, since a function made anew at each call would be compiled anew at each call.
    of_key = lambda key: initializers.orthogonal()(key, shape, dtype)  # noqa: E731
    return few_at_a_time(of_key, rank=rank, most=1)


def qr(a: Array) -> tuple[Array, Array]:
    """(Q, R) of a `(*lead, m, n)`, m ≥ n: Q `(*lead, m, n)`, R `(*lead, n, n)`."""
    return _qr(a) if MAY_WAIT_FOR_ITSELF else _native_qr(a)


def singular_values(a: Array) -> Array:
    """σ of a `(*lead, n, n)`, largest first, `(*lead, n)`."""
    return _singular_values(a) if MAY_WAIT_FOR_ITSELF else _native_singular_values(a)


def symmetric_eigenvalues(a: Array) -> Array:
    """Eigenvalues of symmetric a `(*lead, n, n)`, smallest first, `(*lead, n)`."""
    return _symmetric_eigenvalues(a) if MAY_WAIT_FOR_ITSELF else _native_eigvalsh(a)


def eigenvalues(a: Array) -> Array:
    """Eigenvalues of a `(*lead, n, n)`, complex, `(*lead, n)`."""
    return _eigenvalues(a) if MAY_WAIT_FOR_ITSELF else jnp.linalg.eigvals(a)


def orthogonal(key: Array, shape: tuple[int, ...], dtype: Any = None) -> Array:
    """`jax.nn.initializers.orthogonal()`: an orthogonal matrix of the given shape."""
    if not MAY_WAIT_FOR_ITSELF:
        return initializers.orthogonal()(key, shape, dtype)
    return _orthogonal(tuple(shape), None if dtype is None else jnp.dtype(dtype), key.ndim)(key)
