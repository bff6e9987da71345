"""Clipping by the norm of the gradient, at any size that the gradient's own dtype can hold.

    g ← g · min(1, c / ‖g‖)        ‖g‖ = √Σ g² over every entry of every leaf

In float32 the square of 1e25 is inf and that of 1e-25 is 0, long before the norm itself leaves the
dtype. Where that may matter, the leaves are first divided by a power of two, which changes no
digit. Everywhere else the result is that of `optax.clip_by_global_norm` bit for bit.

A gradient with NaN or inf in it cannot be clipped. What happens then is the caller's choice, a
function: `propagate`, `skip`, `flag`, or one of your own.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from chex import ArrayTree
from jax import Array

from jaxrnn import _checks
from jaxrnn.cells.contract import Params, State
from jaxrnn.numerics.dtypes import accumulator
from jaxrnn.numerics.scaled import log_of, times_power

__all__ = [
    "ClipState",
    "QuantileState",
    "clip_by_global_norm",
    "clip_by_running_quantile",
    "flag",
    "global_norm",
    "propagate",
    "skip",
]


class ClipState(NamedTuple):
    """What was done, for a log; all scalars.

    Attributes:
      norm: ‖g‖ before clipping. It is inf where g fits its dtype and ‖g‖ does not.
      factor: What g was multiplied by, in (0, 1].
      clipped: How many steps were clipped.
      nonfinite: How many steps had a gradient with NaN or inf in it.
      flagged: Whether `flag` has put zeros in the place of a gradient, at any step so far.
    """

    norm: Array
    factor: Array
    clipped: Array
    nonfinite: Array
    flagged: Array


Policy = Callable[[ArrayTree, Any], tuple[ArrayTree, Any]]


def propagate(updates: ArrayTree, state: State) -> tuple[ArrayTree, Any]:
    """Pass a gradient with NaN or inf on as it is.

    Args:
      updates: The gradient, a tree.
      state: A ClipState or QuantileState.

    Returns:
      (updates, state), both as they came.

    >>> import jax.numpy as jnp, jaxrnn
    >>> jaxrnn.clipping.propagate(jnp.array([jnp.inf]), None)[0].tolist()
    [inf]
    """
    return updates, state


def skip(updates: ArrayTree, state: State) -> tuple[ArrayTree, Any]:
    """Put zeros in the place of the gradient.

    Only the gradient is skipped. What comes after in the chain still takes a step of its own.

    Args:
      updates: The gradient, a tree of arrays.
      state: A ClipState or QuantileState.

    Returns:
      (zeros, state). The zeros have the shapes and dtypes of `updates`; the state is as it came.

    Cost:
      One write of the leaves, at every update: the choice between the clipped gradient and the
      zeros is made at run time.

    >>> import jax.numpy as jnp, jaxrnn
    >>> jaxrnn.clipping.skip(jnp.array([jnp.inf]), None)[0].tolist()
    [0.0]
    """
    return jax.tree.map(jnp.zeros_like, updates), state


def flag(updates: ArrayTree, state: State) -> tuple[ArrayTree, Any]:
    """Put zeros in the place of the gradient and set `flagged`, which stays True from then on.

    Args:
      updates: The gradient, a tree of arrays.
      state: A ClipState or QuantileState.

    Returns:
      (zeros, state). The zeros are those of `skip`; `flagged` is True in the state.

    Cost:
      That of `skip`.

    >>> import jax.numpy as jnp, jaxrnn
    >>> clip = jaxrnn.clipping.clip_by_global_norm(1.0, nonfinite=flag)
    >>> _, state = clip.update(jnp.array([jnp.nan]), clip.init(jnp.zeros(1)))
    >>> bool(state.flagged)
    True
    """
    return skip(updates, state._replace(flagged=jnp.ones_like(state.flagged)))


def clip_by_global_norm(
    max_norm: float | Array, nonfinite: Policy = propagate
) -> optax.GradientTransformation:
    """Scale the gradient down to ‖g‖ = max_norm where its norm is larger.

        g ← g · min(1, c / ‖g‖)        ‖g‖ = √Σ g² over every entry of every leaf

    Args:
      max_norm: The threshold c > 0, a number. A scalar array is taken too, without a check of its
        value. `optax.inject_hyperparams(clip_by_global_norm, static_args="nonfinite")` passes one,
        for a threshold that changes while you train.
      nonfinite: What to do with a gradient that has NaN or inf in it: a function from (updates,
        ClipState) to the same, `propagate`, `skip`, `flag` or your own. It is called in every
        update; its result is used only where the gradient has NaN or inf in it.

    Returns:
      An `optax.GradientTransformation` whose state is a ClipState. Its `init` and `update` raise a
      TypeError for a leaf that is not an array of real floats, and a ValueError for a tree without
      leaves.

    Raises:
      TypeError: If `max_norm` is neither a real number nor an array of real floats, or `nonfinite`
        is not a function.
      ValueError: If the number `max_norm` is not finite or not above 0, or the array not a scalar.

    Cost:
      One pass over the leaves for the norm, two more where a square might leave the dtype, and one
      to scale.

    Source:
      Pascanu, Mikolov & Bengio, ICML 2013.

    >>> import jax.numpy as jnp, jaxrnn
    >>> clip = jaxrnn.clipping.clip_by_global_norm(1.0)
    >>> huge = {"w": jnp.float32([3e38, 3e38])}                    # of norm 4.2e38, beyond float32
    >>> updates, state = clip.update(huge, clip.init(huge))
    >>> [f"{x:.4f}" for x in updates["w"]], int(state.clipped)
    (['0.7071', '0.7071'], 1)
    """
    _checks.check_scalar("max_norm", max_norm, above=0.0)
    _checks.check_callable("nonfinite", nonfinite, "(updates, state) -> (updates, state)")

    def init(params: Params) -> ClipState:
        _check_tree("params", params)
        return _first_state(_widest(jax.tree.leaves(params)))

    def update(updates: Any, state: State, params: Params = None) -> tuple[Any, Any]:
        _check_tree("updates", updates)
        size, exponent = _scaled_norm(updates)
        c = jnp.asarray(max_norm, size.dtype)
        # Strictly below, as in optax: a norm of just c is divided and multiplied there as well.
        within = times_power(size, exponent) < c
        return _clipped(updates, state, size, exponent, c, within, nonfinite)

    return optax.GradientTransformation(init, update)


def _first_state(dtype: Any) -> ClipState:
    zero = jnp.zeros((), jnp.int32)
    return ClipState(jnp.zeros((), dtype), jnp.ones((), dtype), zero, zero, jnp.zeros((), bool))


def _clipped(
    updates: ArrayTree,
    state: State,
    size: Array,
    exponent: Array,
    c: Array,
    within: Array,
    nonfinite: Policy,
) -> tuple[ArrayTree, Any]:
    """The updates scaled, or what the policy makes of them, and the state that says so."""
    norm = times_power(size, exponent)
    finite, one = jnp.isfinite(size), jnp.ones_like(size)

    def scaled(leaf: Array) -> Array:
        # In the order of optax, (t / ‖g‖) c, so that it rounds as optax does. The divisor is never
        # 0: 0/0 is NaN, and `jax_debug_nans` raises for it although `where` drops it.
        unit = times_power(leaf.astype(size.dtype), -exponent) / jnp.where(size == 0, one, size)
        return jnp.where(within, leaf, (unit * c).astype(leaf.dtype))

    factor = times_power(c / jnp.where(size > 0, size, one), -exponent)
    factor = jnp.where(within, one, factor)
    state = state._replace(
        norm=norm,
        factor=factor,
        clipped=state.clipped + (finite & (factor < 1)).astype(jnp.int32),
        nonfinite=state.nonfinite + (~finite).astype(jnp.int32),
    )
    # The policy gets the gradient as it came, which nothing has multiplied yet: its factor is 1.
    fallen_back = nonfinite(updates, state._replace(factor=one))
    good = jax.tree.map(scaled, updates), state
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), good, fallen_back)


class QuantileState(NamedTuple):
    """A ClipState and the threshold.

    Attributes:
      norm: As in `ClipState`.
      factor: As in `ClipState`.
      clipped: As in `ClipState`.
      nonfinite: As in `ClipState`.
      flagged: As in `ClipState`.
      log_threshold: The natural logarithm of the threshold, inf before the first gradient.
    """

    norm: Array
    factor: Array
    clipped: Array
    nonfinite: Array
    flagged: Array
    log_threshold: Array


def clip_by_running_quantile(
    quantile: float, rate: float = 0.05, nonfinite: Policy = propagate
) -> optax.GradientTransformation:
    """Clip at a running quantile of the norms seen so far.

        log c ← log c + η (q - [‖g‖ ≤ c])        c = ‖g‖ at first

    The threshold rests where a share q of the norms lies below it: there the steps up and the steps
    down balance. It moves in its logarithm, so that the scale of the gradient does not matter. A
    gradient is compared with the threshold that the gradients before it have left.

    Args:
      quantile: The share q in (0, 1).
      rate: The step η > 0, in nats an update.
      nonfinite: As in `clip_by_global_norm`, with a QuantileState. A gradient that is 0, or has NaN
        or inf in it, does not move the threshold.

    Returns:
      An `optax.GradientTransformation` whose state is a QuantileState. Its `init` and `update`
      raise the errors of those of `clip_by_global_norm`.

    Raises:
      TypeError: If `quantile` or `rate` is not a real number, or `nonfinite` is not a function.
      ValueError: If `quantile` is not in (0, 1), or `rate` is not finite or not above 0.

    Cost:
      That of `clip_by_global_norm`, and a few scalars.

    Source:
      Robbins & Monro 1951, for the quantile; Seetharaman et al. 2020, for clipping at one.

    >>> import jax, jax.numpy as jnp, jaxrnn
    >>> clip = jaxrnn.clipping.clip_by_running_quantile(0.9)
    >>> state, update = clip.init(jnp.zeros(1)), jax.jit(clip.update)
    >>> for x in jnp.exp(jax.random.normal(jax.random.key(0), (2000, 1))):
    ...     _, state = update(x, state)
    >>> abs(float(state.log_threshold) - 1.28) < 0.3         # of normal logs, 9 in 10 are below
    True
    """
    for name, value in (("quantile", quantile), ("rate", rate)):
        _checks.check_real(name, value, above=0.0)
    if quantile >= 1:
        raise ValueError(f"quantile: expected a number in (0, 1), got {quantile}")
    _checks.check_callable("nonfinite", nonfinite, "(updates, state) -> (updates, state)")

    def init(params: Params) -> QuantileState:
        _check_tree("params", params)
        first = _first_state(_widest(jax.tree.leaves(params)))
        # inf, not NaN, for "no threshold yet": under `jax_debug_nans` a NaN raises here already. It
        # also clips nothing, so that the first gradient needs no case of its own.
        return QuantileState(*first, jnp.full_like(first.norm, jnp.inf))

    def update(updates: Any, state: State, params: Params = None) -> tuple[Any, Any]:
        _check_tree("updates", updates)
        size, exponent = _scaled_norm(updates)
        log = log_of(size, exponent)
        seen = jnp.isfinite(log)  # the log is -inf for a gradient of 0
        threshold = jnp.where(jnp.isinf(state.log_threshold) & seen, log, state.log_threshold)
        # Logs are compared: e^(log ‖g‖) rounds to another number than ‖g‖, and may be beyond the
        # dtype.
        within = log <= threshold
        # A finite c: a threshold beyond the dtype would be inf, and times an entry of 0 NaN.
        most = jnp.asarray(jnp.finfo(log.dtype).max, log.dtype)
        c = jnp.minimum(jnp.exp(threshold), most)
        out, new = _clipped(updates, state, size, exponent, c, within, nonfinite)
        step = rate * (quantile - within.astype(log.dtype))
        return out, new._replace(log_threshold=jnp.where(seen, threshold + step, threshold))

    return optax.GradientTransformation(init, update)


def global_norm(tree: ArrayTree) -> Array:
    """The norm over every entry of every leaf, for any magnitude; its gradient at 0 is 0.

        ‖x‖ = √Σ x²        ∂‖x‖/∂x = x / ‖x‖, and 0 where ‖x‖ = 0

    Args:
      tree: Leaves of real floating dtypes, any shapes. 16-bit ones are summed in float32.

    Returns:
      A scalar of the widest dtype, inf only where the norm itself is beyond it. The squares are
      added in the order of `optax.global_norm`.

    Raises:
      TypeError: If a leaf is not an array of real floats.
      ValueError: If the tree has no leaves.

    Cost:
      One pass over the leaves; two more where a square might leave the dtype.

    >>> import jax.numpy as jnp
    >>> [f"{global_norm([jnp.float32([3 * s, 4 * s])]):.1g}" for s in (1e-25, 2e37)]
    ['5e-25', '1e+38']
    """
    _check_tree("tree", tree)
    return _global_norm(tree)


# Written out, because the derivative of a square root at 0 is inf, and times 0 NaN.
@jax.custom_jvp
def _global_norm(tree: ArrayTree) -> Array:
    size, exponent = _scaled_norm(tree)
    return times_power(size, exponent)


@_global_norm.defjvp
def _global_norm_jvp(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Array, Array]:
    """⟨x, δx⟩ / ‖x‖, with x / ‖x‖ formed first; 0 where x = 0."""
    (tree,), (dtree,) = primals, tangents
    size, exponent = _scaled_norm(tree)
    by = jnp.where(size > 0, size, jnp.ones_like(size))
    unit = jax.tree.map(lambda x: times_power(x.astype(size.dtype), -exponent) / by, tree)
    parts = jax.tree.map(lambda u, d: jnp.sum(u * d.astype(u.dtype)), unit, dtree)
    zero = jnp.zeros_like(size)
    return times_power(size, exponent), sum(jax.tree.leaves(parts), start=zero)


@jax.jit  # so that a call outside of any jit compiles the branches once
def _scaled_norm(tree: ArrayTree) -> tuple[Array, Array]:
    """(n, e) with ‖x‖ = n · 2^e; e is 0 where no square can leave the dtype."""
    leaves = jax.tree.leaves(tree)
    dtype = _widest(leaves)
    info = jnp.finfo(dtype)
    plain = _root(leaves, dtype)
    count = sum(leaf.size for leaf in leaves)
    # Each square that underflows is below tiny, so that all of them lose less than count · tiny.
    # That is an eps of least², below rounding.
    least = math.sqrt(count * float(info.tiny) / float(info.eps))
    most = math.sqrt(float(info.max)) / 4
    # A norm above most may have overflowed. NaN fails both comparisons and is computed again, too.
    trusted = (plain >= least) & (plain <= most)

    def again(_: None) -> tuple[Array, Array]:
        # Widened first: with jaxlib 0.12 on the CPU, mapped maxima of bfloat16 differ from run to
        # run.
        tops = [jnp.max(jnp.abs(leaf.astype(dtype)), initial=0) for leaf in leaves]
        top = jnp.max(jnp.stack(tops))
        known = jnp.isfinite(top)  # NaN and inf have no exponent; they stay in the leaves
        exponent = jnp.where(known, jnp.frexp(top)[1], jnp.zeros_like(plain, jnp.int32))
        return _root(leaves, dtype, -exponent), exponent

    # A condition, not `where`: the two further passes are made only where they are needed.
    return jax.lax.cond(trusted, lambda _: (plain, jnp.zeros_like(plain, jnp.int32)), again, None)


def _root(leaves: list[Array], dtype: Any, power: Array | None = None) -> Array:
    """√Σ (x 2^power)², added up in the order in which optax adds."""
    wide = [leaf.astype(dtype) for leaf in leaves]
    if power is not None:
        wide = [times_power(leaf, power) for leaf in wide]
    squares = [jnp.sum(leaf * leaf) for leaf in wide]
    return jnp.sqrt(sum(squares[1:], start=squares[0]))


def _widest(leaves: list[Array]) -> Any:
    return max((accumulator(leaf.dtype) for leaf in leaves), key=lambda dtype: dtype.itemsize)


def _check_tree(name: str, tree: Any) -> None:
    """Refuse a tree without leaves, and a leaf that is not an array of real floats."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        raise ValueError(f"{name}: expected a tree with arrays, got {tree!r} without any")
    for path, leaf in leaves:
        _checks.check_array(name + jax.tree_util.keystr(path), leaf)
