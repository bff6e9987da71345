"""Truncated backpropagation through time, and what it leaves out.

A window of K carries every term of the loss back through at most K steps:

    G_K = Σₜ Σ_{k=t-K+1..t} ∂Eₜ/∂θ|ₖ        ∂E = Σₜ ∂Eₜ, ∂Eₜ what E reads of sₜ directly

so that K = 1 sees one step and K = T is the whole gradient. By lag ℓ = t - k, for all k at once,

    λ⁽⁰⁾ₖ = ∂E/∂sₖ|direct      λ⁽ℓ⁾ₖ = Jₖ₊₁ᵀ λ⁽ℓ⁻¹⁾ₖ₊₁      G_K = Σ_{ℓ<K} Σₖ (∂sₖ/∂θ)ᵀ λ⁽ℓ⁾ₖ

The window slides with t: every term sees K steps, or all that there are. Training code usually
detaches the state every K steps instead. There a term right after a cut sees one step, and only a
term right before the next cut sees K, so that the bias depends on where the cuts fall.

A held step does not count as a step. What the loss reads of a held state it reads at the last step
of its sequence, and lags are counted from there. A reset ends the way back. `state0` counts as a
constant, as in `jaxrnn.bptt`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrnn import _checks
from jaxrnn.cells.contract import Loss, Params, State
from jaxrnn.numerics import dtypes, norms
from jaxrnn.numerics.tangents import moving
from jaxrnn.numerics.time_axis import select
from jaxrnn.running.adjoint import (
    direct_adjoints,
    run_back,
    through_step,
    to_drive,
    to_params,
)
from jaxrnn.running.run import Run, check_run, first_state, precise, step_count, takes_run
from jaxrnn.running.steps import Steps, linearised, trajectory

__all__ = ["Curve", "curve", "curve_of_last", "gradient"]


class Curve(NamedTuple):
    """How far the truncated gradient G_K is from the gradient g; entry K-1 belongs to window K.

    Attributes:
      bias: ‖G_K - g‖ / ‖g‖ over all leaves of the params together, `(T,)`. Where g is 0 it is 0 if
        G_K is 0 too, else inf.
      cosine: The cosine of the angle between G_K and g, `(T,)`. It is 0 where one of them is 0, and
        1 where both are.

    >>> import jax.numpy as jnp
    >>> print(Curve(jnp.array([0.5, 0.1, 0.2, 0.0]), jnp.array([0.9, 1.0, 0.98, 1.0])))
    window  bias     cosine
         1  5.0e-01  +0.9000
         2  1.0e-01  +1.0000
         4  0.0e+00  +1.0000
    """

    bias: Array  # (T,)
    cosine: Array  # (T,)

    def smallest_window(self, epsilon: float) -> int:
        """The smallest K such that no window of K or more has a bias above epsilon.

        It is read on the host.

        Args:
          epsilon: The largest bias that is allowed, above 0.

        Returns:
          K. It is T if every shorter window fails, because K = T is the gradient itself, whatever
          rounding left in its entry. NaN counts as failing. It is 0 for an empty sequence.

        Raises:
          TypeError: If epsilon is not a real number.
          ValueError: If epsilon is not finite and above 0, or if this is a stack of curves.

        >>> import jax.numpy as jnp
        >>> Curve(jnp.array([0.5, 0.1, 0.2, 0.0]), jnp.ones(4)).smallest_window(0.15)
        4
        """
        _checks.check_real("epsilon", epsilon, above=0.0)
        bias = np.asarray(self.bias)
        if bias.ndim != 1:
            raise ValueError(f"bias: expected one curve (T,), got shape {bias.shape}")
        # Not `>`: NaN compares False, and must fail. The last entry holds only rounding.
        (failing,) = np.nonzero(~(bias[:-1] <= epsilon))
        return int(min(bias.size, failing[-1] + 2 if failing.size else 1))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))  # in a notebook, too

    def __str__(self) -> str:
        """Bias and cosine for windows 1, 2, 4, … and T."""
        bias, cosine = np.asarray(self.bias), np.asarray(self.cosine)
        if bias.ndim != 1:
            return repr(self)
        windows = sorted({2**i for i in range(bias.size.bit_length())} | {bias.size})
        rows = [f"{K:6d}  {bias[K - 1]:.1e}  {cosine[K - 1]:+.4f}" for K in windows if K]
        return "\n".join(["window  bias     cosine", *rows])


@takes_run
def gradient(run: Run, loss: Loss, window: int) -> Params:
    """The gradient of the loss truncated to `window` steps.

        G_K = Σₜ Σ_{k=t-K+1..t} ∂Eₜ/∂θ|ₖ

    Args:
      run: A `jaxrnn.Run`.
      loss: A function of the states that returns one real number E.
      window: K, an integer in [1, T]; K = T gives the gradient.

    Returns:
      The tree of the params.

    Raises:
      TypeError: If `window` is not an integer; else as in `jaxrnn.bptt.adjoints`.
      ValueError: If `window` is out of range; else as in `jaxrnn.bptt.adjoints`.

    Cost:
      K - 1 adjoint steps, each for all T at once: O(K·T·B·G·H²). All K share one compilation. The
      loop is as long as the window, so JAX differentiates it only forward (`jax.jvp`).

    Source:
      Williams & Peng, Neural Computation 2, 1990, whose window slides as well

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.rnn()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> jaxrnn.truncation.gradient(run, lambda s: s.h.sum(), 3).w_hh.shape
    (5, 5)
    """
    check_run(run)
    _checks.check_integer("window", window, least=1, most=step_count(run))
    with precise():
        return _gradient(run, *direct_adjoints(run, loss), window)


@takes_run
def curve(run: Run, loss: Loss) -> Curve:
    """Bias and cosine of the truncated gradient for every window, in one pass over the lags.

        bias_K = ‖G_K - g‖ / ‖g‖        cosine_K = ⟨G_K, g⟩ / (‖G_K‖ ‖g‖)

    Args:
      run: A `jaxrnn.Run`.
      loss: A function of the states that returns one real number E.

    Returns:
      A Curve, entry K-1 for window K. `curve(...).smallest_window(0.01)` gives a window to use.

    Raises:
      TypeError: As in `jaxrnn.bptt.adjoints`.
      ValueError: As in `jaxrnn.bptt.adjoints`.

    Cost:
      T lags, each an adjoint step and a gradient's matmuls for all T: O(T²·B·P) time, O(P) memory
      beside the trajectory. `curve_of_last` needs O(T·B·P) time.

    Accuracy:
      A bias below a few eps is rounding.

    Source:
      docs/derivations/bptt.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.rnn()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> jaxrnn.truncation.curve(run, lambda states: states.h.sum()).bias.shape
    (7,)
    """
    with precise():
        return _curve(run, *direct_adjoints(run, loss))


@takes_run
def curve_of_last(run: Run, loss: Loss) -> Curve:
    """`curve` for a loss on the last state alone, at the cost of a few gradients.

        G_K = Σ_{k>n-K} (∂sₖ/∂θ)ᵀ λₖ        n the length of a sequence

    Window K sees the last K steps of each sequence, and G_K is a running sum from the back.

    Args:
      run: A `jaxrnn.Run`.
      loss: A function of the last state, leaves `(*batch, H)`, that returns one real number. It is
        not the loss of `curve`: its `s.h[-1]` would here be the last example, or without a batch
        the last unit.

    Returns:
      A Curve, as in `curve`.

    Raises:
      TypeError: If `run` is not a `jaxrnn.Run`, or `loss` is not a function from the last state to
        a real number.
      ValueError: If the parts of `run` do not fit each other, or `loss` does not return a scalar.

    Cost:
      One `unroll`, one adjoint scan, then O(B·P) for each of T lags.

    Accuracy:
      As in `curve`.

    Source:
      docs/derivations/bptt.md

    >>> import jax, jaxrnn
    >>> cell = jaxrnn.lstm()
    >>> run = jaxrnn.Run(cell, cell.init(jax.random.key(0), 3, 5), jax.numpy.ones((7, 2, 3)))
    >>> jaxrnn.truncation.curve_of_last(run, lambda s: s.h.sum()).cosine.shape
    (7,)
    """
    check_run(run)
    _checks.check_callable("loss", loss, "(last state) -> scalar")
    last = jax.eval_shape(first_state, run)
    _checks.check_loss("loss", loss, last, ())
    # Without a step there is no last state to read, and no window: a curve of no entries.
    if step_count(run) == 0:
        of = jax.tree.leaves(moving(last))[0].dtype
        return Curve(*[jnp.zeros(0, dtypes.accumulator(of))] * 2)

    def of_all(states: State) -> Array:
        return loss(jax.tree.map(lambda s: s[-1], states))

    with precise():
        return _curve_of_last(run, *direct_adjoints(run, of_all))


@jax.jit
def _gradient(run: Run, states: State, direct: State, window: Any) -> Params:
    steps = linearised(run, trajectory(run, states))
    direct = _at_live_steps(direct, steps.held)

    def longer(_: Any, adjoint: State) -> State:
        return jax.tree.map(jnp.add, direct, _one_lag_back(run, steps, adjoint))

    # `window` is traced, so that all windows share one program. A loop of traced length is a while
    # loop, which JAX does not differentiate in reverse.
    return _pulled(run, steps, jax.lax.fori_loop(1, window, longer, direct))


@jax.jit
def _curve(run: Run, states: State, direct: State) -> Curve:
    steps = linearised(run, trajectory(run, states))
    g = _pulled(run, steps, run_back(run, steps, direct))

    def longer(carry: Any, _: None) -> tuple[Any, Curve]:
        of_lag, total = carry
        total = _added(total, _pulled(run, steps, of_lag))
        return (_one_lag_back(run, steps, of_lag), total), _against(total, g)

    # One lag at a time: the adjoints of all lags would be T times the trajectory.
    first = (_at_live_steps(direct, steps.held), _zeros(g))
    return jax.lax.scan(longer, first, None, length=step_count(run))[1]


@jax.jit
def _curve_of_last(run: Run, states: State, direct: State) -> Curve:
    steps = linearised(run, trajectory(run, states))
    # E reads one state, so that each step has one lag and all of its adjoint belongs to that lag.
    # The adjoints are those of the whole gradient; only the sum over steps is cut.
    drives = to_drive(run, steps, run_back(run, steps, direct))
    g = to_params(run, steps, drives)

    def longer(total: Any, step: Any) -> tuple[Any, Curve]:
        total = _added(total, to_params(run, *step))
        return total, _against(total, g)

    return jax.lax.scan(longer, _zeros(g), _by_lag(steps, drives))[1]


def _at_live_steps(direct: State, held: Array | None) -> State:
    """What the loss reads of a held state, moved to the last step that its sequence takes."""
    if held is None:
        return direct
    # A held step passes an adjoint on unchanged, so the gradient is the same. Left where it was, a
    # window would be used up by padding.
    zero = jax.tree.map(jnp.zeros_like, direct)
    beyond = jax.tree.map(lambda g: g.sum(0), select(held, direct, zero))
    beyond = jax.tree.map(lambda g, like: jnp.broadcast_to(g, like.shape), beyond, direct)
    last = ~held & jnp.concatenate([held[1:], jnp.ones_like(held[:1])])
    moved = select(last, jax.tree.map(jnp.add, direct, beyond), direct)
    return select(held, zero, moved)


def _one_lag_back(run: Run, steps: Steps, adjoint: State) -> State:
    """Jₖ₊₁ᵀ λₖ₊₁ at every k; nothing comes from beyond the end."""
    back = through_step(run, steps, adjoint)
    return jax.tree.map(lambda b: jnp.concatenate([b[1:], jnp.zeros_like(b[:1])]), back)


def _pulled(run: Run, steps: Steps, adjoint: State) -> Params:
    """Σₖ (∂sₖ/∂θ)ᵀ λₖ."""
    return to_params(run, steps, to_drive(run, steps, adjoint))


def _by_lag(steps: Steps, drives: Any) -> tuple[Steps, Any]:
    """The steps with lag in place of time; drives are 0 before a sequence's first step."""
    if steps.held is None:
        return jax.tree.map(lambda leaf: jnp.flip(leaf, 0), (steps, drives))
    lag = jnp.arange(steps.held.shape[0]).reshape(-1, *[1] * (steps.held.ndim - 1))
    step = jnp.sum(~steps.held, axis=0, keepdims=True) - 1 - lag  # (T, *batch)

    def taken(leaf: Array) -> Array:
        # A negative index would count from the end; those drives are set to 0 below.
        index = jnp.maximum(step, 0).reshape(*step.shape, *[1] * (leaf.ndim - step.ndim))
        return jnp.take_along_axis(leaf, index, axis=0)

    steps, drives = jax.tree.map(taken, (steps, drives))
    return steps, select(step < 0, jax.tree.map(jnp.zeros_like, drives), drives)


def _zeros(tree: Any) -> Params:
    """Zeros in a dtype wide enough to add up T terms in."""
    return jax.tree.map(lambda g: jnp.zeros_like(g, dtypes.accumulator(g.dtype)), tree)


def _added(total: Any, more: Any) -> Params:
    return jax.tree.map(lambda t, m: t + m.astype(t.dtype), total, more)


def _against(total: Any, g: Any) -> Curve:
    """Bias and cosine of one window."""
    off = norms.tree_norm(jax.tree.map(lambda t, full: t - full.astype(t.dtype), total, g))
    size = norms.tree_norm(g)
    # 0 / 0 counts as no bias; a G_K that is not 0 beside a g of 0 is divided by 0, which gives inf.
    undefined = (size == 0) & (off == 0)
    bias = jnp.where(undefined, off, off / jnp.where(undefined, jnp.ones_like(size), size))
    return Curve(bias, norms.cosine(total, g))
