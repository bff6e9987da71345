"""What is said about vanishing and exploding gradients, each claim run and measured.

Every function makes a small net, measures it with the functions that serve any net, and returns a
`Phenomenon`: the claim, the numbers, the norms against lag, and the run itself.

    for case in ALL: print(case())
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrnn import _checks
from jaxrnn.analysis import certificates, jacobians, lyapunov, paths, products
from jaxrnn.analysis.horizon import memory_horizon
from jaxrnn.cells import activations
from jaxrnn.cells.lstm import LSTMParams, lstm
from jaxrnn.cells.rnn import RNNParams, RNNState, rnn
from jaxrnn.cells.step_cell import from_step
from jaxrnn.running.run import Run

__all__ = [
    "ALL",
    "Phenomenon",
    "exploding",
    "exploding_lstm",
    "exploding_without_eigenvalues",
    "forget_bias",
    "remembering",
    "vanishing",
    "without_cell_state",
]

D, H, T = 2, 32, 201  # lags up to 200
# Units of the net whose exponent is that of many: time, or how near; other sizes were not measured.
MANY_UNITS = 64
FAINT = 0.01  # times the usual weights: gates stay at their bias


@dataclasses.dataclass(frozen=True)
class Phenomenon:
    """A claim and what was measured.

    Attributes:
      claim: The claim in a sentence.
      numbers: What was measured, by name.
      log_norms: log σ_max(∂s_{T-1}/∂sₖ) in nats, `(T,)`, by the name of the net.
      runs: The runs by the same names, so that everything can be measured again.
    """

    claim: str
    numbers: dict[str, Any]
    log_norms: dict[str, Array]
    runs: dict[str, Run]

    def __str__(self) -> str:
        """The claim, then a line for each number."""
        wide = max(map(len, self.numbers))
        lines = [f"  {name:{wide}}  {_shown(value)}" for name, value in self.numbers.items()]
        return "\n".join([self.claim, *lines])


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{float(value):.4g}"


def _inputs(steps: int = T, scale: float = 1.0) -> Array:
    return scale * jax.random.normal(jax.random.key(1), (steps, D))


def _norms(runs: dict[str, Run]) -> dict[str, Array]:
    return {name: products.transport_norms(run) for name, run in runs.items()}


def _largest_forget_gate(run: Run) -> Array:
    return jacobians.c_partial(run).max()  # ∂c/∂c₋ at fixed h₋ is diag(f)


def vanishing(scale: float = 0.9) -> Phenomenon:
    """γσ_max < 1: no input keeps the gradient of a tanh net alive.

        W_hh = scale · Q, QᵀQ = 1        ‖∂hₜ/∂hₖ‖ ≤ (γ σ_max(W_hh))^(t-k) = scale^(t-k)

    Args:
      scale: The factor of the orthogonal W_hh, above 0 and below 1.

    Returns:
      A Phenomenon with γσ_max, the verdict, bound and measured norm at lag 100, and the horizon.
      Its log_norms and runs are those of "tanh RNN", `(201,)`.

    Raises:
      TypeError: If `scale` is not a real number.
      ValueError: If `scale` is not above 0 and below 1.

    Cost:
      `products.transport_norms` and `certificates.certify` with T = 201, H = 32.

    Source:
      Pascanu, Mikolov & Bengio, ICML 2013; docs/derivations/certificates.md.
    """
    _checks.check_real("scale", scale, above=0.0)
    if scale >= 1:
        raise ValueError(f"scale: expected a number below 1, where the claim holds, got {scale}")
    params = rnn().init(jax.random.key(0), D, H)
    run = Run(rnn(), params._replace(w_hh=scale * params.w_hh), _inputs())
    found = certificates.certify(run)
    bound = found.weights
    assert bound is not None
    runs: dict[str, Run] = {"tanh RNN": run}
    norms = _norms(runs)
    return Phenomenon(
        f"A tanh net whose W_hh is {scale:g} times orthogonal forgets, whatever it reads.",
        {
            "γσ_max": bound.gamma * bound.sigma_max,
            "verdict": bound.statement().verdict,
            "bound at lag 100": bound.bound**100,
            "measured at lag 100": jnp.exp(norms["tanh RNN"][-101]),
            "horizon, lag of 1 %": memory_horizon(norms["tanh RNN"]),
        },
        norms,
        runs,
    )


def exploding(gain: float = 3.0) -> Phenomenon:
    """Weights N(0, gain²/H), small input weights: a chaotic tanh net.

        W_hh[j, k] ~ N(0, gain²/H)        gain > 1, H large: λ₁ > 0

    Args:
      gain: The gain, above 1. With the H = 64 of this net λ₁ > 0 from a gain of about 2 on. Where
        λ₁ is not above 0, the claim is that this net does not explode.

    Returns:
      A Phenomenon with γσ_max, both verdicts, λ₁ in nats per step with its standard error, and the
      norm at lag 200. Its log_norms and runs are those of "tanh RNN", `(402,)`.

    Raises:
      TypeError: If `gain` is not a real number.
      ValueError: If `gain` is not finite or not above 1.

    Cost:
      `products.transport_norms`, `certificates.certify` and one exponent with T = 402, H = 64.

    Source:
      Sompolinsky, Crisanti & Sommers, Physical Review Letters 61, 1988.
    """
    _checks.check_real("gain", gain)
    if gain <= 1:
        raise ValueError(f"gain: expected a number above 1, where the claim holds, got {gain}")
    k_w, k_in = jax.random.split(jax.random.key(0))
    W = gain * jax.random.normal(k_w, (MANY_UNITS, MANY_UNITS)) / np.sqrt(MANY_UNITS)
    params = RNNParams(0.1 * jax.random.normal(k_in, (MANY_UNITS, D)), W, jnp.zeros(MANY_UNITS))
    runs: dict[str, Run] = {"tanh RNN": Run(rnn(), params, _inputs(2 * T))}
    norms = _norms(runs)
    found = certificates.certify(runs["tanh RNN"])
    assert found.weights is not None
    assert found.trajectory is not None
    rate = lyapunov.exponents(runs["tanh RNN"], count=1, warmup=T // 2)
    end = "explodes: tanh does not saturate enough."
    if not rate.value[0] > 0:
        end = f"does not explode at H = {MANY_UNITS}, driven by small inputs."
    return Phenomenon(
        f"A tanh net with weights N(0, {gain:g}²/H) {end}",
        {
            "γσ_max": found.weights.gamma * found.weights.sigma_max,
            "from the weights": found.weights.statement().verdict,
            "along the inputs": found.trajectory.statement().verdict,
            "leading exponent, nats per step": rate.value[0],
            "its standard error": rate.error[0],
            "measured at lag 200": jnp.exp(norms["tanh RNN"][-201]),
        },
        norms,
        runs,
    )


def exploding_without_eigenvalues(steps: int = 21) -> Phenomenon:
    """W = [[2, 2], [-2, -2]]: ρ = 0, and the gradient doubles at each step.

        h* = tanh(W h* + b) = (0, 1)    K = diag(1 - h*²) W = [[2, 2], [0, 0]],  K² = 2K
        ‖∂hₜ/∂hₖ‖ = 2^(t-k-1) ‖K‖ = 2^(t-k) √2

    The fixed point h* is unstable: a rounding error would double at each step as well. There is
    none, since these values are exact in every dtype: tanh(0) = 0, and tanh(40) rounds to 1, where
    1 - h*² is 1e-34. The first input leads to h*.

    Args:
      steps: The number of steps T, at least 3.

    Returns:
      A Phenomenon with ρ, γσ_max, both verdicts, the growth per step, and the norm at lag T - 1.
      Its log_norms and runs are those of "tanh RNN", `(T,)`.

    Raises:
      TypeError: If `steps` is not an integer.
      ValueError: If `steps` is below 3.

    Cost:
      `products.transport_norms` with H = 2.

    Source:
      docs/derivations/certificates.md, which has the same with h* = (0, ½).

    >>> import jaxrnn
    >>> found = jaxrnn.phenomena.exploding_without_eigenvalues(steps=9)
    >>> f"{found.numbers['growth per step']:.1f}"
    '2.0'
    """
    _checks.check_integer("steps", steps, least=3)
    W = jnp.array([[2.0, 2.0], [-2.0, -2.0]])
    # At h* = (0, 1) the pre-activation is W h* + b = (2, -2) + b = (0, 40). The first input adds
    # the same (2, -2), so that h₁ = h*; all others are 0.
    params = RNNParams(jnp.array([[2.0], [-2.0]]), W, jnp.array([-2.0, 42.0]))
    runs: dict[str, Run] = {"tanh RNN": Run(rnn(), params, jnp.zeros((steps, 1)).at[0].set(1.0))}
    bound, norms = certificates.of_weights(rnn(), params), _norms(runs)
    last = norms["tanh RNN"]
    return Phenomenon(
        "Every eigenvalue of W_hh is 0, and the gradient of a tanh net doubles at each step.",
        {
            "ρ(W_hh)": bound.spectral_radius,
            "γσ_max": bound.gamma * bound.sigma_max,
            "by eigenvalue": bound.by_eigenvalue().verdict,
            "from the weights": bound.statement().verdict,
            # From lag 1 to lag 2: from lag 0 to lag 1 the norm grows by ‖K‖ = 2√2.
            "growth per step": jnp.exp(last[-3] - last[-2]),
            f"measured at lag {steps - 1}": jnp.exp(last[0]),
        },
        norms,
        runs,
    )


def remembering(bias: float = 6.0) -> Phenomenon:
    """A forget gate near 1 holds what a tanh net has lost.

        f ≈ σ(b), small weights        ∂cₜ/∂cₖ ≈ σ(b)^(t-k)

    Args:
      bias: The bias b of every forget gate. From about 4 on it holds 1 % for 200 steps; where it
        does not, the claim says so.

    Returns:
      A Phenomenon with the norms of an LSTM and of a tanh net at lag 200, the share of the memory
      path, and the error of the forget gates alone. Its log_norms and runs are those of "LSTM" and
      "tanh RNN", `(201,)`.

    Raises:
      TypeError: If `bias` is not a real number.
      ValueError: If `bias` is not finite.

    Cost:
      `products.transport_norms` of both and `paths.decompose` with T = 201, H = 32.

    Source:
      Gers, Schmidhuber & Cummins 2000; docs/lstm.md.
    """
    _checks.check_real("bias", bias)
    cell, xs = lstm(), _inputs()
    params = cell.init(jax.random.key(0), D, H, forget_bias=bias)
    params = params._replace(w_hh=FAINT * params.w_hh, w_ih=FAINT * params.w_ih)
    plain = rnn().init(jax.random.key(0), D, H)
    runs: dict[str, Run] = {"LSTM": Run(cell, params, xs), "tanh RNN": Run(rnn(), plain, xs)}
    norms = _norms(runs)
    along = paths.decompose(runs["LSTM"])
    end = "holds for hundreds of steps."
    if not memory_horizon(norms["LSTM"]) >= T:
        end = f"does not hold for {T - 1} steps."
    return Phenomenon(
        f"With forget bias {bias:g} an LSTM's cell state {end}",
        {
            "LSTM, ‖∂s/∂s‖ at lag 200": jnp.exp(norms["LSTM"][0]),
            "tanh RNN, ‖∂h/∂h‖ at lag 200": jnp.exp(norms["tanh RNN"][0]),
            "share of the memory path at lag 200": along.shares["memory"][0],
            "forget gates alone are off by": along.forget_error[0],
        },
        norms,
        runs,
    )


def exploding_lstm(scale: float = 6.0) -> Phenomenon:
    """Every forget gate is below ½, and the gradient explodes, through one gate's weights.

        h → g → c → h:  ∂cᵢ/∂hᵢ₋₁ = diag(iᵢ (1 - gᵢ²)) W_g,  W_g = scale · Q, QᵀQ = 1

    Args:
      scale: The factor of the orthogonal W_g, above 0. From about 1 on λ₁ > 0, until tanh
        saturates. Where λ₁ is not above 0, the claim is that this LSTM does not explode.

    Returns:
      A Phenomenon with the largest forget gate, the norm and ∏ f at lag 20, the verdict, λ₁ in nats
      per step, and the path with the largest share, with that share. Its log_norms and runs are
      those of "LSTM", `(21,)`.

    Raises:
      TypeError: If `scale` is not a real number.
      ValueError: If `scale` is not finite or not above 0.

    Cost:
      `products.transport_norms`, `paths.decompose` and `certificates.along` with T = 21, one
      exponent with T = 201; H = 32.

    Source:
      docs/lstm.md
    """
    _checks.check_real("scale", scale, above=0.0)
    cell, xs = lstm(), _inputs(scale=0.1)
    params = cell.init(jax.random.key(0), D, H, forget_bias=-2.0)
    W = params.w_hh.reshape(4, H, H)
    # Recurrent weights of the candidate alone; i and o open, f shut.
    W = jnp.zeros_like(W).at[2].set(scale * W[2])
    b = jnp.repeat(jnp.array([3.0, -2.0, 0.0, 3.0]), H)
    params = LSTMParams(0.1 * params.w_ih, W.reshape(4 * H, H), b)
    # 20 steps, because the net is chaotic: how a bit is rounded decides on which trajectory later
    # states are. The share of the path at lag 200 was 0.95 or 1.38 as XLA compiled it.
    runs: dict[str, Run] = {"LSTM": Run(cell, params, xs[:21])}
    norms = _norms(runs)
    along = paths.decompose(runs["LSTM"])
    shares = {name: float(share[0]) for name, share in along.shares.items()}
    # λ₁ is a mean over the trajectory, so that all steps may count.
    rate = lyapunov.exponents(Run(cell, params, xs), count=1, warmup=20).value[0]
    claim = "Forget gates below 1 exclude no explosion: the other paths grow on their own."
    if not rate > 0:
        claim = f"An LSTM whose W_g is {scale:g} times orthogonal does not explode."
    return Phenomenon(
        claim,
        {
            "largest forget gate": _largest_forget_gate(runs["LSTM"]),
            "measured at lag 20": jnp.exp(norms["LSTM"][0]),
            "∏ of the forget gates, lag 20": jnp.exp(along.forget[0]),
            "verdict": str(certificates.along(runs["LSTM"]).statement().verdict),
            "leading exponent, nats per step": rate,
            "the path that does it": max(shares, key=lambda name: shares[name]),
            "its share at lag 20": max(shares.values()),
        },
        norms,
        runs,
    )


def without_cell_state() -> Phenomenon:
    """hₜ = oₜ: the LSTM without c is `rnn(sigmoid)`, with γ = ¼.

        hᵢ = σ(W_o xᵢ + U_o hᵢ₋₁ + b_o)        ‖∂hₜ/∂hₖ‖ ≤ (¼ σ_max(U_o))^(t-k)

    Returns:
      A Phenomenon with the largest difference of log norms to the RNN, γσ_max, the verdict, and
      norms at lag 20. Its log_norms and runs are those of "LSTM", "hₜ = oₜ" and "sigmoid RNN",
      `(201,)`.

    Cost:
      `products.transport_norms` of all three with T = 201, H = 32.

    Source:
      docs/lstm.md
    """
    cell, xs = lstm(), _inputs()
    params = cell.init(jax.random.key(0), D, H)

    def ablated(params: LSTMParams, state: RNNState, x: Array) -> RNNState:
        z = params.w_ih @ x + params.w_hh @ state.h + params.b
        return RNNState(h=jax.nn.sigmoid(z[3 * H :]))  # the output gate, and nothing else

    stripped = from_step(ablated, init_state=lambda params: RNNState(jnp.zeros(H, xs.dtype)))
    plain = RNNParams(*[leaf[3 * H :] for leaf in params])
    runs: dict[str, Run] = {
        "LSTM": Run(cell, params, xs),
        "hₜ = oₜ": Run(stripped, params, xs),
        "sigmoid RNN": Run(rnn(activations.sigmoid), plain, xs),
    }
    norms = _norms(runs)
    bound = certificates.of_weights(rnn(activations.sigmoid), plain)
    off = jnp.abs(norms["hₜ = oₜ"] - norms["sigmoid RNN"]).max()
    return Phenomenon(
        "Without its cell state the LSTM is a sigmoid RNN, and vanishes like one.",
        {
            "largest difference of log norms to the RNN": off,
            "γσ_max": bound.gamma * bound.sigma_max,
            "verdict": bound.statement().verdict,
            "hₜ = oₜ, ‖∂h/∂h‖ at lag 20": jnp.exp(norms["hₜ = oₜ"][-21]),
            "LSTM, ‖∂s/∂s‖ at lag 20": jnp.exp(norms["LSTM"][-21]),
        },
        norms,
        runs,
    )


def forget_bias(biases: tuple[float, ...] = (-1.0, 0.0, 1.0, 2.0, 3.0, 4.0)) -> Phenomenon:
    """The memory horizon against the forget bias b, beside that of a gate held at σ(b).

        σ(b)^l = 0.01        l = log 0.01 / log σ(b) = 4.6 / log(1 + e⁻ᵇ)

    Args:
      biases: A tuple of finite numbers, at least one.

    Returns:
      A Phenomenon that has, for each b, a line with the horizons of small and of usual weights, in
      steps; 804 means that no end was seen. Its log_norms and runs are those of "bias {b}" and
      "bias {b}, usual weights", `(804,)`.

    Raises:
      TypeError: If `biases` is not a tuple, is empty, or has an entry that is not a real number.
      ValueError: If an entry is not finite.

    Cost:
      `products.transport_norms` with T = 804, H = 32, twice for each b.

    Source:
      Jozefowicz, Zaremba & Sutskever, ICML 2015; docs/lstm.md.
    """
    if not isinstance(biases, tuple) or not biases:
        raise TypeError(f"biases: expected a tuple of at least one number, got {biases!r}")
    for bias in biases:
        _checks.check_real("biases", bias)
    # Small weights with a bias of 4 have a horizon of 303 steps, beyond T.
    cell, xs = lstm(), _inputs(4 * T)
    runs: dict[str, Run] = {}
    for b in biases:
        params = cell.init(jax.random.key(0), D, H, forget_bias=b)
        small = params._replace(w_hh=FAINT * params.w_hh, w_ih=FAINT * params.w_ih)
        runs[f"bias {b:g}"] = Run(cell, small, xs)
        runs[f"bias {b:g}, usual weights"] = Run(cell, params, xs)
    norms = _norms(runs)
    numbers: dict[str, Any] = {}
    for b in biases:
        small, usual = (norms[f"bias {b:g}{rest}"] for rest in ("", ", usual weights"))
        horizons = int(memory_horizon(small)), int(memory_horizon(usual))
        alone = np.log(0.01) / np.log(1 / (1 + np.exp(-b)))
        numbers[f"forget bias {b:g}"] = (
            f"{horizons[0]:4d} steps (a gate of σ(b): {alone:5.1f}), "
            f"{horizons[1]:4d} with usual weights"
        )
    return Phenomenon(
        "A gate held at σ(b) forgets in 4.6/log(1 + e⁻ᵇ) steps; feedback through W_hh adds to it.",
        numbers,
        norms,
        runs,
    )


ALL: tuple[Callable[[], Phenomenon], ...] = (
    vanishing,
    exploding,
    exploding_without_eigenvalues,
    remembering,
    exploding_lstm,
    without_cell_state,
    forget_bias,
)
