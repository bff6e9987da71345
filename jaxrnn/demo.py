"""Training a tanh RNN and an LSTM on digits read pixel by pixel, and watching their gradients.

The data are scikit-learn's 1797 scans of 8×8 pixels (Alpaydin & Kaynak 1998), read as
sequences of 64 numbers; the class is asked for after the last pixel.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from chex import PRNGKey
from jax import Array

from jaxrnn.analysis import bptt, certificates, lyapunov, products
from jaxrnn.analysis.horizon import memory_horizon
from jaxrnn.analysis.jacobians import closed_form
from jaxrnn.cells.contract import Cell, State
from jaxrnn.cells.lstm import lstm
from jaxrnn.cells.rnn import rnn
from jaxrnn.diagnosis import GradientFlow, diagnose
from jaxrnn.numerics import norms
from jaxrnn.numerics.matrix_products import from_tree
from jaxrnn.running.run import Run
from jaxrnn.running.unrolling import unroll

__all__ = ["Data", "Flow", "Trained", "load_digits", "measured_flow", "run"]

# Time, or accuracy; other values were not measured.
HIDDEN = 64
CLASSES = 10
BATCH = 64
LEARNING_RATE = 5e-3
# Training steps in one call, and test images followed and certified, the last by singular values at
# every step and lag: time, or what is seen. Other values were not measured.
CHUNK = 50
WATCHED = 32
CERTIFIED = 4


class Data(NamedTuple):
    """Sequences, time-major, and their classes.

    Attributes:
      train_xs: `(T, N, 1)`.
      train_labels: `(N,)`.
      test_xs: `(T, M, 1)`.
      test_labels: `(M,)`.
    """

    train_xs: Array
    train_labels: Array
    test_xs: Array
    test_labels: Array


class Network(NamedTuple):
    """A cell's params and a linear read-out of the last output.

    Attributes:
      cell: The cell's params.
      w: `(classes, H)`.
      b: `(classes,)`.
    """

    cell: Any
    w: Array
    b: Array


class Flow(NamedTuple):
    """How the gradient of one network flows back through time; k counts from the first step.

    All but the accuracy is measured on M = 32 watched test images.

    Attributes:
      accuracy: The accuracy on all test images.
      adjoint_h: ‖∂E/∂h_k‖, mean over images, `(T,)`; c held fixed in an LSTM.
      adjoint_c: ‖∂E/∂c_k‖ likewise; None without a cell state.
      contribution: ‖∂E/∂θ|_k‖, the share of step k in the parameters' gradient, `(T,)`.
      spectral_norm: σ_max of the whole-state Jacobian of each step, `(T, M/2)`, for the first half
        of the images.
      forget: The forget gate, mean over images, `(T, H)`; None without one.
      horizon: The lag from which on ‖∂E/∂s_k‖ stays below 1 % of its size at the last step, of each
        image, `(M,)`.
      exponent: The leading Lyapunov exponent over an image, nats per step, `(M,)`.
      certificate: What is certain about every input, and along the first 4 images.
    """

    accuracy: Array
    adjoint_h: Array
    adjoint_c: Array | None
    contribution: Array
    spectral_norm: Array
    forget: Array | None
    horizon: Array
    exponent: Array
    certificate: certificates.Certificate

    @property
    def first_half_share(self) -> float:
        """Σ_{k ≤ T/2} ‖∂E/∂θ|_k‖ / Σ_k ‖∂E/∂θ|_k‖."""
        half = self.contribution.shape[0] // 2
        return float(self.contribution[:half].sum() / self.contribution.sum())

    @property
    def verdict(self) -> str:
        """The verdict for every input if the weights decide it, else along the first images."""
        weights, trajectory = self.certificate
        assert trajectory is not None
        if weights is not None and weights.statement().verdict != certificates.POSSIBLE:
            return weights.statement().verdict
        return trajectory.statement().verdict

    def summary(self) -> dict[str, float | str | None]:
        """The scalars of the record, by name."""
        return {
            "test_accuracy": float(self.accuracy),
            "adjoint_h_first_over_last": float(self.adjoint_h[0] / self.adjoint_h[-1]),
            # Also over ‖∂E/∂hₙ‖: the loss reads hₙ alone, so ∂E/∂cₙ at fixed hₙ is 0.
            "adjoint_c_first_over_h_last": (
                None if self.adjoint_c is None else float(self.adjoint_c[0] / self.adjoint_h[-1])
            ),
            "first_half_share": self.first_half_share,
            "median_spectral_norm": float(jnp.median(self.spectral_norm)),
            "mean_forget_gate": None if self.forget is None else float(self.forget.mean()),
            "memory_horizon": float(jnp.median(self.horizon)),
            "leading_exponent": float(self.exponent.mean()),
            "verdict": self.verdict,
        }


class Trained(NamedTuple):
    """One network, before and after training; the diagnosis is of the trained one.

    Attributes:
      name: The name of the network.
      before: The gradient's flow before training.
      after: The gradient's flow after training.
      diagnosis: The diagnosis of the trained network.
      steps: `(K,)`, the training steps at which the test accuracy was taken.
      accuracy: `(K,)`, the test accuracy there.
    """

    name: str
    before: Flow
    after: Flow
    diagnosis: GradientFlow
    steps: np.ndarray
    accuracy: np.ndarray


def load_digits(seed: int = 0) -> Data:
    """Four fifths of the images to train on, one fifth to test; pixels in [-1, 1].

    Args:
      seed: The seed of the split.

    Returns:
      The Data, float32, with the classes in equal shares on both sides.

    Raises:
      ImportError: If scikit-learn is missing; it names the extra to install.
    """
    # Not at the top: `jaxrnn.plot` imports this module without the extra that brings scikit-learn.
    try:
        from sklearn import datasets
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError(
            "the digits come with scikit-learn: pip install 'jaxrnn[demo]'"
        ) from error
    digits: Any = datasets.load_digits()
    pixels, labels = digits.data, digits.target
    parts = train_test_split(
        pixels / 8 - 1, labels, test_size=0.2, stratify=labels, random_state=seed
    )
    train, test = (jnp.asarray(part.T[..., None], jnp.float32) for part in parts[:2])
    return Data(train, jnp.asarray(parts[2]), test, jnp.asarray(parts[3]))


def uniform_init(key: PRNGKey, shape: tuple[int, ...], dtype: Any) -> Array:
    """U(±1/√H), torch's default for every recurrent weight: ‖∂h/∂h₋‖ is about 0.6 at first."""
    bound = HIDDEN**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def init_network(cell: Cell, key: PRNGKey) -> Network:
    """The same initialisation for every cell, but for the LSTM's forget bias of 1."""
    k_cell, k_out = jax.random.split(key)
    params = cell.init(
        k_cell, 1, HIDDEN, dtype=jnp.float32, input_init=uniform_init, recurrent_init=uniform_init
    )
    w = uniform_init(k_out, (CLASSES, HIDDEN), jnp.float32)
    return Network(params, w, jnp.zeros(CLASSES, jnp.float32))


def logits(network: Network, h: Array) -> Array:
    """`(*batch, H)` → `(*batch, classes)`."""
    scores = h @ network.w.T
    # In full, so that `jax_numpy_rank_promotion="raise"` lets it pass.
    return scores + jnp.broadcast_to(network.b, scores.shape)


def loss(cell: Cell, network: Network, xs: Array, labels: Array) -> Array:
    """Mean cross entropy after the last pixel."""
    scores = logits(network, unroll(cell, network.cell, xs).h[-1])
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


@functools.partial(jax.jit, static_argnums=0)
def accuracy(cell: Cell, network: Network, xs: Array, labels: Array) -> Array:
    """Share of images whose class scores highest."""
    scores = logits(network, unroll(cell, network.cell, xs).h[-1])
    return (scores.argmax(-1) == labels).mean()


def train(
    cell: Cell, network: Network, data: Data, steps: int, key: PRNGKey, bar: Callable[..., Any]
) -> tuple[Network, np.ndarray, np.ndarray]:
    """Adam with the gradient's norm clipped at 1 and a cosine schedule."""
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    def step(carry: tuple[Any, Any], key: PRNGKey) -> tuple[tuple[Any, Any], Array]:
        network, opt_state = carry
        rows = jax.random.choice(key, data.train_labels.shape[0], (BATCH,), replace=False)
        batch = data.train_xs[:, rows], data.train_labels[rows]
        value, grads = jax.value_and_grad(loss, argnums=1)(cell, network, *batch)
        updates, opt_state = optimizer.update(grads, opt_state, network)
        return (optax.apply_updates(network, updates), opt_state), value

    # Many steps in one call, so that Python stands between chunks only, not between steps.
    chunk = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys))
    carry, seen, reached = (network, optimizer.init(network)), [0], []
    reached.append(accuracy(cell, network, data.test_xs, data.test_labels))
    for start in (progress := bar(range(0, steps, CHUNK))):
        carry, losses = chunk(carry, jax.random.split(jax.random.fold_in(key, start), CHUNK))
        seen.append(start + CHUNK)
        reached.append(accuracy(cell, carry[0], data.test_xs, data.test_labels))
        if hasattr(progress, "set_postfix"):
            progress.set_postfix(loss=f"{losses.mean():.3f}", accuracy=f"{reached[-1]:.3f}")
    return carry[0], np.array(seen), np.array(reached)


@functools.partial(jax.jit, static_argnums=0)
def measured_flow(cell: Cell, network: Network, data: Data) -> Flow:
    """The gradient's way back: adjoints, contributions, Jacobians of the whole state.

    Args:
      cell: The cell.
      network: Its params and the read-out.
      data: The Data of `load_digits`, of which test images are read.

    Returns:
      A Flow.
    """
    xs, error = data.test_xs[:, :WATCHED], _error(network, data)
    run = Run(cell, network.cell, xs)
    adjoints = bptt.adjoints(run, error)
    sizes = {f: jnp.linalg.norm(leaf, axis=-1).mean(1) for f, leaf in adjoints._asdict().items()}
    # The loss reads the last state alone, so that its adjoint there is where the horizon starts.
    last = jax.tree.map(lambda leaf: leaf[-1], adjoints)
    J = closed_form(run)
    return Flow(
        accuracy=accuracy(cell, network, data.test_xs, data.test_labels),
        adjoint_h=sizes["h"],
        adjoint_c=sizes.get("c"),
        contribution=_sizes(run, error),
        spectral_norm=norms.spectral(from_tree(jax.tree.map(lambda b: b[:, : WATCHED // 2], J))),
        forget=jnp.diagonal(J.c.c, axis1=-2, axis2=-1).mean(1) if hasattr(J, "c") else None,
        horizon=memory_horizon(products.adjoint_norms(run, last)),
        exponent=lyapunov.exponents(run, count=1).value[:, 0],
        certificate=certificates.certify(Run(cell, network.cell, xs[:, :CERTIFIED])),
    )


def diagnosed(cell: Cell, network: Network, data: Data) -> GradientFlow:
    """The diagnosis of a network on the watched images, with its own loss."""
    xs = data.test_xs[:, :WATCHED]
    return diagnose(cell, network.cell, xs, _error(network, data))


def _error(network: Network, data: Data) -> Callable[[Any], Array]:
    """Cross entropy of the watched images after the last pixel, summed."""
    labels = data.test_labels[:WATCHED]

    def error(states: State) -> Array:
        scores = logits(network, states.h[-1])
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).sum()

    return error


def _sizes(run: Run, error: Callable[[Any], Array]) -> Array:
    """‖∂E/∂θ|_k‖ for each step, hₖ₋₁ held constant, all leaves together; `(T,)`."""
    leaves = jax.tree.leaves(bptt.contribution_norms(run, error).norm)
    return jnp.linalg.norm(jnp.stack(leaves), axis=0)


def run(
    data: Data,
    *,
    steps: int,
    seed: int = 0,
    bar: Callable[[str, Iterable[int]], Any] = lambda name, steps: steps,
) -> list[Trained]:
    """Train and measure the tanh RNN and the LSTM.

    Args:
      data: The Data of `load_digits`.
      steps: The number of training steps, a multiple of 50.
      seed: The seed of the weights and of the batches.
      bar: A function (name, range) ↦ an iterable over the range that may show a progress bar.

    Returns:
      A list with one `Trained` for each network.

    Raises:
      ValueError: If `steps` is not a positive multiple of 50.
    """
    if steps <= 0 or steps % CHUNK:
        raise ValueError(f"steps: expected a positive multiple of {CHUNK}, got {steps}")
    runs = []
    for name, cell in (("tanh RNN", rnn()), ("LSTM", lstm())):
        k_init, k_train = jax.random.split(jax.random.key(seed))
        network = init_network(cell, k_init)
        before = measured_flow(cell, network, data)
        trained, seen, reached = train(
            cell, network, data, steps, k_train, functools.partial(bar, name)
        )
        after, diagnosis = measured_flow(cell, trained, data), diagnosed(cell, trained, data)
        runs.append(Trained(name, before, after, diagnosis, seen, reached))
    return runs
