"""Weights to start from, or to go on from, so that gradients reach as far as is wanted.

`Cell.init` draws each gate's block by itself, so orthogonal recurrent weights are orthogonal gate
by gate. Any initialiser of `jax.nn.initializers` may be passed to it as `input_init` or
`recurrent_init`; `identity` is one more of that kind. The other functions here take params and
return changed ones: the bias of a gate set, biases drawn for a range of lags, gates drawn anew,
recurrent weights scaled to a bound or to a Lyapunov exponent.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from chex import PRNGKey
from jax import Array

from jaxrnn import _checks
from jaxrnn.analysis import lyapunov
from jaxrnn.cells.activations import sigmoid
from jaxrnn.cells.contract import Cell, Params
from jaxrnn.cells.drawing import GLOROT, ORTHOGONAL, Initializer, draw
from jaxrnn.cells.traits import Gate
from jaxrnn.numerics import norms
from jaxrnn.numerics.dtypes import accumulator
from jaxrnn.running.run import Run, check_run, precise, takes_run

__all__ = [
    "Scaling",
    "chrono",
    "identity",
    "redrawn",
    "scaled_to_bound",
    "scaled_to_exponent",
    "with_gate_bias",
]


def identity(scale: float = 1.0) -> Initializer:
    """The initialiser W = scale · 1: with relu units the IRNN, whose state stays as it was.

        W[j, k] = scale · [j = k]

    Args:
      scale: The factor of the identity, a finite number.

    Returns:
      A function (key, shape, dtype) ↦ array. It does not use the key, and raises a ValueError if
      the shape is not square.

    Raises:
      TypeError: If `scale` is not a real number.
      ValueError: If `scale` is not finite.

    Source:
      Le, Jaitly & Hinton, arXiv:1504.00941.

    >>> import jax, jaxrnn
    >>> cell, init = jaxrnn.rnn(jaxrnn.activations.relu), jaxrnn.initializers.identity()
    >>> cell.init(jax.random.key(0), 1, 2, recurrent_init=init).w_hh.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    _checks.check_real("scale", scale)

    def init(key: PRNGKey, shape: tuple[int, ...], dtype: Any = None) -> Array:
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError(f"shape: expected a square matrix (H, H), got {shape}")
        return jnp.asarray(scale, dtype) * jnp.eye(shape[0], dtype=dtype)

    return init


def with_gate_bias(cell: Cell, params: Params, gate: str, bias: float | Array) -> Params:
    """The params with one gate's block of b set.

        b[g·H : (g+1)·H] ← bias        g the place of the gate in `cell.gates`

    Args:
      cell: A cell in closed form.
      params: Its params.
      gate: One of `cell.gates`, "f" for an LSTM's forget gate.
      bias: A number, a scalar array, or `(H,)` in the dtype of b.

    Returns:
      The params; all but b are as they came.

    Raises:
      TypeError: If `cell` is not in closed form, `params` is not of its type or not real floats of
        one dtype, `bias` is neither a real number nor real floats, or `bias` is `(H,)` of another
        dtype than b.
      ValueError: If a leaf of `params` has another shape than the cell's, `gate` is not one of
        `cell.gates`, or `bias` is a number that is not finite or an array of another shape.

    Cost:
      One copy of b, O(G·H).

    Source:
      Jozefowicz, Zaremba & Sutskever, ICML 2015, for the forget gate; docs/lstm.md.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.gru()
    >>> params = cell.init(jax.random.key(0), 1, 2)
    >>> jaxrnn.initializers.with_gate_bias(cell, params, "z", 3.0).b.tolist()
    [0.0, 0.0, 3.0, 3.0, 0.0, 0.0]
    """
    _check(cell, params)
    _check_gate("gate", cell, gate)
    H = _units(cell, params)
    if getattr(bias, "shape", ()) == ():
        _checks.check_scalar("bias", bias)
    else:
        _checks.check_array("bias", bias)
        _checks.check_shape("bias", bias, (H,), "(H,)")
        _checks.check_dtype("bias", bias, params.b.dtype, "params.b")
    return _with_bias(cell, params, gate, jnp.broadcast_to(jnp.asarray(bias, params.b.dtype), H))


def _with_bias(cell: Cell, params: Params, gate: str, bias: Array) -> Params:
    # Params read from a file are NumPy arrays, which have no `.at`.
    blocks = jnp.asarray(params.b).reshape(len(cell.gates), -1)
    return params._replace(b=blocks.at[cell.gates.index(gate)].set(bias).ravel())


def chrono(
    cell: Cell, params: Params, key: PRNGKey, *, longest: float, shortest: float = 2.0
) -> Params:
    """Biases with which each unit forgets over a lag of its own, drawn from a range.

        f(b_f) = 1 - 1/τ      i(b_i) = 1/τ      τ ~ U(shortest, longest)

    f and i are the cell's own gates at zero input and state. For sigmoids b_f = log(τ - 1) = -b_i.

    Args:
      cell: A cell in closed form with a forget gate f (and an input gate i), or with an update gate
        z that keeps, as in `jaxrnn.gru`.
      params: Its params.
      key: One key from `jax.random.key`.
      longest: The longest lag in steps, at least `shortest`.
      shortest: The shortest lag in steps, at least 2.

    Returns:
      The params with those blocks of b set, the others as they were.

    Raises:
      TypeError: If `cell` is not in closed form, `params` is not of its type or not real floats of
        one dtype, `key` is not one key, or a lag is not a real number.
      ValueError: If a leaf of `params` has another shape than the cell's, a lag is not finite or
        out of its range, no gate of the cell keeps its state, or its gates are not between 0 and 1.

    Cost:
      H draws and a copy of b for each of the gates, O(G·H).

    Source:
      Tallec & Ollivier, Can recurrent neural networks warp time?, ICLR 2018.

    >>> import jax, jaxrnn
    >>> cell, key = jaxrnn.lstm(), jax.random.key(0)
    >>> params = jaxrnn.initializers.chrono(cell, cell.init(key, 1, 100), key, longest=400)
    >>> i, f, g, o = params.b.reshape(4, 100)
    >>> bool((i == -f).all()), f"{jax.nn.sigmoid(f).max():.3f}"                  # 1 - 1/400
    (True, '0.997')
    """
    _check(cell, params)
    _checks.check_key(key)
    _checks.check_real("shortest", shortest, least=2.0)
    _checks.check_real("longest", longest, least=shortest)
    by_role = {gate.role: gate for gate in cell.traits.gates}
    keep, write = by_role.get("keeps"), by_role.get("writes")
    if keep is None:
        raise ValueError(
            f"cell: expected a cell with a forget gate f or an update gate z, got {cell!r}; "
            "without a gate that keeps the state there is no lag to set"
        )
    for gate in (keep, write):
        if gate is not None and gate.range != (0.0, 1.0):
            raise ValueError(
                f"cell: expected {gate.title} gates between 0 and 1, got {cell!r} with gates "
                f"between {gate.range[0]:g} and {gate.range[1]:g}; a share of the state that is "
                "kept has no meaning there"
            )
    H, dtype = _units(cell, params), params.b.dtype
    wide = accumulator(dtype)
    # Lags are drawn in float32 at least: in bfloat16 those from 256 on are multiples of 2.
    lag = jax.random.uniform(key, (H,), wide, float(shortest), float(longest))
    params = _with_bias(cell, params, keep.name, _bias_for(keep, 1 - 1 / lag, lag).astype(dtype))
    # A GRU has no such gate: its 1 - z writes, and moves with z.
    if write is None:
        return params
    return _with_bias(cell, params, write.name, _bias_for(write, 1 / lag, lag).astype(dtype))


def _bias_for(gate: Gate, share: Array, lag: Array) -> Array:
    """The pre-activation at which a gate lets `share` through, 1 - 1/lag or 1/lag."""
    value = gate.value
    if value is None or value == sigmoid.value:
        # logit(1 - 1/τ) without the cancellation in 1 - share; a gate that is not known is taken
        # for a sigmoid.
        bias = jnp.log(lag - 1)
        return bias if gate.role == "keeps" else -bias

    def halved(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        below = value(middle) < share
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    # Any gate that rises: hard sigmoids have a straight inverse, others none that is known here.
    ends = jnp.full_like(lag, -64.0), jnp.full_like(lag, 64.0)
    low, high = jax.lax.fori_loop(0, 64, halved, ends)
    return (low + high) / 2


def redrawn(
    cell: Cell,
    params: Params,
    key: PRNGKey,
    gates: tuple[str, ...],
    *,
    input_init: Initializer = GLOROT,
    recurrent_init: Initializer = ORTHOGONAL,
) -> Params:
    """The params with the weights of some gates drawn anew, each gate by itself, their bias 0.

        W_ih[g] ~ input_init    W_hh[g] ~ recurrent_init    b[g] = b_hg = 0    for each g of gates

    Args:
      cell: A cell in closed form.
      params: Its params.
      key: One key from `jax.random.key`.
      gates: A tuple of some of `cell.gates`.
      input_init: The initialiser of each block of W_ih, as in `Cell.init`.
      recurrent_init: The initialiser of each block of W_hh, as in `Cell.init`.

    Returns:
      The params; every other gate as it was. The GRU's b_hn belongs to gate n, a peephole p_i to
      gate i; both become 0.

    Raises:
      TypeError: If `cell` is not in closed form, `params` is not of its type or not real floats of
        one dtype, `key` is not one key, `gates` is not a tuple of strings, or an initialiser is not
        a function or gives an array of another dtype.
      ValueError: If a leaf of `params` has another shape than the cell's, `gates` is empty, names a
        gate twice or names one that the cell does not have, or an initialiser gives an array of
        another shape.

    Cost:
      For each gate a QR of `(H, H)`, O(H³), and H·D draws; one copy of the params.

    >>> import jax, jaxrnn
    >>> cell, key = jaxrnn.lstm(), jax.random.key(1)
    >>> params = cell.init(jax.random.key(0), 1, 2)
    >>> new = jaxrnn.initializers.redrawn(cell, params, key, ("o",))
    >>> (new.w_hh == params.w_hh).reshape(4, 4).all(1).tolist()
    [True, True, True, False]
    """
    _check(cell, params)
    _checks.check_names("gates", gates)
    for gate in gates:
        _check_gate("gates", cell, gate)
    H, D, columns = _units(cell, params), params.w_ih.shape[1], params.w_hh.shape[1]
    dtype = params.w_hh.dtype
    drawn = draw(key, len(gates), D, H, dtype, input_init, recurrent_init, columns)
    at = jnp.asarray([cell.gates.index(gate) for gate in gates])

    def put(old: Array, new: Array) -> Array:
        # `old` may be a NumPy array, which has no `.at`.
        blocks = jnp.asarray(old).reshape(len(cell.gates), H, *old.shape[1:])
        return blocks.at[at].set(new.reshape(len(gates), H, *old.shape[1:])).reshape(old.shape)

    w_ih, w_hh = (put(*pair) for pair in zip((params.w_ih, params.w_hh), drawn, strict=True))
    b = put(params.b, jnp.zeros(len(gates) * H, params.b.dtype))
    # What acts inside a gate is a leaf of its own: the GRU's b_hn, a peephole.
    names = [name for gate in gates for name in (f"b_h{gate}", f"p_{gate}")]
    inner = [name for name in names if name in params._fields]
    zeros = {name: jnp.zeros_like(getattr(params, name)) for name in inner}
    return params._replace(w_ih=w_ih, w_hh=w_hh, b=b, **zeros)


def scaled_to_bound(cell: Cell, params: Params, target: float = 1.0) -> Params:
    """The params with W_hh scaled so that γσ_max(W_hh) is the target: no step stretches more.

        W_hh ← W_hh · target / (γ σ_max(W_hh))        γ = sup |a'|

    With a target below 1, `jaxrnn.certificates.of_weights` then says vanishing certified.

    Args:
      cell: A cell of one gate whose slope is bounded, as `jaxrnn.rnn`.
      params: Its params.
      target: The wanted γσ_max, above 0.

    Returns:
      The params. W_hh = 0 stays 0.

    Raises:
      TypeError: If `cell` is not in closed form, `params` is not of its type or not real floats of
        one dtype, or `target` is not a real number.
      ValueError: If a leaf of `params` has another shape than the cell's, `target` is not finite or
        not above 0, or the cell has several gates or no bound on its slope.

    Cost:
      O(H³), once.

    Accuracy:
      Each weight is rounded after the scaling, so γσ_max may end above the target by a rounding.
      Where that matters, as in 16 bits, aim lower.

    Source:
      docs/derivations/certificates.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.rnn()
    >>> params = cell.init(jax.random.key(0), 1, 8, recurrent_init=jax.nn.initializers.normal())
    >>> params = jaxrnn.initializers.scaled_to_bound(cell, params, 0.95)
    >>> f"{jax.numpy.linalg.norm(params.w_hh, 2):.3f}"
    '0.950'
    """
    _check(cell, params)
    _checks.check_real("target", target, above=0.0)
    slope = cell.traits.slope
    if slope is None or len(cell.gates) != 1:
        raise ValueError(
            f"cell: expected a cell of one gate with a bounded slope, got {cell!r}, whose weights "
            "alone give no bound; use scaled_to_exponent"
        )
    recurrent: Any = cell.traits.recurrent_weight
    if recurrent(params) is not params.w_hh:
        raise ValueError(
            f"cell: expected a cell whose recurrent weight is params.w_hh, got {cell!r}, which "
            "makes it of its params; use scaled_to_exponent"
        )
    # The largest entry becomes 1, so that neither σ_max nor the factor leaves the dtype.
    unit, _ = norms.scaled(params.w_hh, (0, 1))
    bound = slope * norms.spectral(unit)
    # The divisor is never 0: else the gradient at W_hh = 0 would be inf · 0. It is `0 * bound`, not
    # 0, so that NaN in W_hh stays NaN.
    factor = jnp.where(bound > 0, target / jnp.where(bound > 0, bound, 1 + 0 * bound), 0 * bound)
    return params._replace(w_hh=_times(unit, factor).astype(params.w_hh.dtype))


class Scaling(NamedTuple):
    """What `scaled_to_exponent` found.

    Attributes:
      params: The params with W_hh multiplied by `factor`.
      factor: A scalar.
      exponent: Their leading Lyapunov exponent, the mean over the batch, in nats per step. Compare
        it with the target.
    """

    params: Params
    factor: Array
    exponent: Array


# W_hh is made at most 64 times larger or smaller, in 25 steps on a grid, then 24 halvings: runs, or
# digits. 2·log 64/24·2⁻²⁴ leaves the factor right to 2e-8; the values were not measured.
FACTORS = 2.0**6
GRID, HALVINGS = 25, 24


@takes_run
def scaled_to_exponent(run: Run, target: float, *, warmup: int = 0) -> Scaling:
    """The params with W_hh scaled so that the leading Lyapunov exponent on a batch is the target.

        W_hh ← α W_hh        mean over the batch of λ₁(α) = target

    Factors α from 1/64 to 64 are tried on a grid. Of the intervals over which λ₁ - target changes
    its sign, the one nearest to α = 1 is then halved 24 times. The sign may never change, as where
    the forget gates alone keep λ₁ above the target, or change in a jump, as where relu units die.
    Then the nearest exponent that was seen is taken: compare `exponent` with the target. An example
    whose λ₁ is -inf, its Jacobians 0 in the end, is left out of the mean. Where no exponent is
    finite the factor is 1. For a linear net λ₁(α) = λ₁(1) + log α.

    Args:
      run: A `jaxrnn.Run` of a cell in closed form, with at least one step of one example, without
        lengths and resets.
      target: The wanted λ₁ in nats per step, a finite number.
      warmup: Steps at the start that are not counted, as in `jaxrnn.lyapunov.exponents`.

    Returns:
      Scaling(params, factor, exponent).

    Raises:
      TypeError: If `run` is no run, its cell is not in closed form, `target` is not a real number,
        or `warmup` no integer.
      ValueError: If `target` is not finite, the run has no step or no example, has lengths or
        resets, or `warmup` is not in [0, T).
      NotImplementedError: If an explicit mesh splits the inputs.

    Cost:
      51 times the leading exponent of the batch.

    Source:
      docs/derivations/lyapunov.md, for the exponents.

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.rnn(jaxrnn.activations.identity)              # orthogonal: λ₁ = 0
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 1, 8), jax.numpy.ones((100, 4, 1)))
    >>> found = jaxrnn.initializers.scaled_to_exponent(run, -0.05)
    >>> f"{found.factor:.3f}, {found.exponent:.3f}"                 # e^-0.05
    '0.951, -0.050'
    """
    check_run(run)
    _check(run.cell, run.params)
    _checks.check_real("target", target)
    if 0 in run.xs.shape[:-1]:
        raise ValueError(
            f"xs: expected at least one step of one example, got {_checks.describe(run.xs)}"
        )
    # Here rather than in `exponents` alone: a static argument of `jit` must have a hash first.
    _checks.check_integer("warmup", warmup, least=0)
    with precise():
        return _scaled_to_exponent(run, jnp.asarray(target, run.xs.dtype), warmup)


@functools.partial(jax.jit, static_argnums=2)
def _scaled_to_exponent(run: Run, target: Array, warmup: int) -> Scaling:
    params: Params = run.params

    def scaled(log: Array) -> Params:
        return params._replace(w_hh=_times(params.w_hh, jnp.exp(log)))

    def off(log: Array) -> Array:
        found = lyapunov.exponents(run.at(scaled(log)), count=1, warmup=warmup).value
        live = found != -jnp.inf
        mean = jnp.where(live, found, jnp.zeros_like(found)).sum() / jnp.maximum(
            live.sum(), 1
        ).astype(found.dtype)
        return jnp.where(live.any(), mean, -jnp.inf) - target.astype(found.dtype)

    # The search is in log α, in which λ₁ of a linear net has a slope of 1. It is in float32 at
    # least: in 16 bits the halvings would end early.
    most = math.log(FACTORS)
    grid = jnp.linspace(-most, most, GRID, dtype=accumulator(params.w_hh.dtype))
    values = jax.lax.map(off, grid)  # one by one: the states of one run at a time in memory
    distance = jnp.asarray([abs(i + 0.5 - (GRID - 1) / 2) for i in range(GRID - 1)], grid.dtype)
    # The comparison is False for NaN, which so counts as no change. Signs, since a product of
    # values could be inf · 0.
    changes = jnp.sign(values[:-1]) * jnp.sign(values[1:]) <= 0
    at = jnp.argmin(jnp.where(changes, distance, jnp.full_like(distance, GRID)))

    def halved(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = ends
        half = (low + high) / 2
        same = jnp.sign(off(half)) == jnp.sign(values[at])
        return (jnp.where(same, half, low), jnp.where(same, high, half)), None

    (low, high), _ = jax.lax.scan(halved, (grid[at], grid[at + 1]), length=HALVINGS)
    # Where the sign changed in a jump, λ₁ at this root may be far from the target. So the root is
    # one candidate beside the grid, and the nearest of all is taken.
    root = (low + high) / 2
    logs = jnp.concatenate([jnp.where(changes.any(), root, grid[at])[None], grid])
    distances = jnp.abs(jnp.concatenate([off(logs[0])[None], values]))
    known = jnp.isfinite(distances)
    log = logs[jnp.argmin(jnp.where(known, distances, jnp.full_like(distances, jnp.inf)))]
    # Without any finite distance `argmin` is a mere 0: then α = 1, and the weights stay.
    log = jnp.where(known.any(), log, 0 * log)
    value = off(log)
    return Scaling(scaled(log), jnp.exp(log), value + target.astype(value.dtype))


def _times(weight: Array, factor: Array) -> Array:
    # In float32 at least: in 16 bits the factor would be rounded before the product is.
    wide = weight.astype(accumulator(weight.dtype))
    return (wide * jnp.broadcast_to(factor.astype(wide.dtype), wide.shape)).astype(weight.dtype)


def _check(cell: Any, params: Params) -> None:
    _checks.check_cell(cell)
    if not cell.traits.gates:
        got = getattr(cell, "name", None) or _checks.describe(cell)
        raise TypeError(
            "cell: expected a cell in closed form, such as jaxrnn.lstm(), whose weights are known "
            f"by gates, got {got}"
        )
    cell.check_params(params)


def _units(cell: Cell, params: Params) -> int:
    """H."""
    # Not the columns of w_hh, of which a cell with an output projection has fewer.
    return params.b.shape[0] // len(cell.gates)


def _check_gate(name: str, cell: Cell, gate: Any) -> None:
    if gate not in cell.gates:
        raise ValueError(f"{name}: expected one of {', '.join(cell.gates)}, got {gate!r}")
