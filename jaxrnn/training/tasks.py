"""The tasks on which recurrent networks have been told apart since 1997: long lags, known answers.

Each is a pure function of a key, a batch size and T that draws a `Batch`. A network reads `xs` and
answers at the last N steps; with a linear read-out of `states.h[-N:]` that is `(N, B, outputs)`.

    task                   reads                      answers             solved, as in its paper
    adding                 2 numbers a step           1 number at last    |error| < 0.04
    temporal_order         1 of 6 symbols             1 of 4 classes      the class
    temporal_order_3       1 of 6 symbols             1 of 8 classes      the class
    random_permutation     1 of 100 symbols           1 of 100 at last    the symbol
    copying                1 of 10 symbols            1 of 10 a step      every symbol
    noiseless_memorisation 1 of 4 symbols             1 of 3 a step       every symbol
    sequential_digits      1 pixel a step             1 of 10 digits      the digit

`squared_error` and `cross_entropy` are the losses. `within` and `correct` say which sequences are
answered correctly.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from chex import PRNGKey
from jax import Array

from jaxrnn import _checks

__all__ = [
    "Batch",
    "adding",
    "copying",
    "correct",
    "cross_entropy",
    "noiseless_memorisation",
    "random_permutation",
    "sequential_digits",
    "squared_error",
    "temporal_order",
    "temporal_order_3",
    "within",
]


class Batch(NamedTuple):
    """Sequences, and the answers that are asked for at their last N steps.

    Attributes:
      xs: `(T, B, D)`; symbols are one-hot.
      targets: Numbers `(N, B, outputs)`, or classes `(N, B)`, integers.
    """

    xs: Array
    targets: Array


# --- losses and criteria --------------------------------------------------------------


def squared_error(outputs: Array, targets: Array) -> Array:
    """The mean squared error over steps, batch and outputs.

        Σ (output - target)² / (N·B·K)        K outputs

    Args:
      outputs: `(N, B, K)`, real floats.
      targets: `(N, B, K)`, real floats. They are cast to the dtype of `outputs`.

    Returns:
      A scalar.

    Raises:
      TypeError: If an argument is not an array of real floats.
      ValueError: If the shapes differ.

    Source:
      Hochreiter & Schmidhuber 1997, for `adding`.

    >>> import jax.numpy as jnp
    >>> float(squared_error(jnp.full((1, 2, 1), 3.0), jnp.ones((1, 2, 1))))
    4.0
    """
    _checks.check_array("outputs", outputs)
    _checks.check_array("targets", targets)
    _checks.check_shape("outputs", outputs, targets.shape, "as the targets, (N, B, outputs)")
    return jnp.mean((outputs - targets.astype(outputs.dtype)) ** 2)


def cross_entropy(outputs: Array, targets: Array) -> Array:
    """The mean cross entropy in nats.

        -Σ_nb log softmax(outputs[n, b])[targets[n, b]] / (N·B)

    Args:
      outputs: `(N, B, classes)`, real floats, the log odds of the classes.
      targets: `(N, B)`, integers in [0, classes). Their values are not checked.

    Returns:
      A scalar, the mean of `optax.softmax_cross_entropy_with_integer_labels`.

    Raises:
      TypeError: If `outputs` is not an array of real floats, or `targets` not one of integers.
      ValueError: If the shapes do not fit.

    >>> import jax.numpy as jnp
    >>> f"{cross_entropy(jnp.zeros((1, 2, 4)), jnp.array([[0, 3]])):.4f}"          # log 4
    '1.3863'
    """
    _check_classes(outputs, targets)
    return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()


def within(outputs: Array, targets: Array, error: float = 0.04) -> Array:
    """Which sequences have every number within `error`; False where an output is NaN.

        |outputs[n, b, k] - targets[n, b, k]| < error        for every n and k

    Args:
      outputs: `(N, B, K)`, real floats.
      targets: `(N, B, K)`, real floats. They are cast to the dtype of `outputs`.
      error: The allowed distance, above 0.

    Returns:
      Booleans `(B,)`.

    Raises:
      TypeError: If `outputs` or `targets` is not an array of real floats, or `error` not a real
        number.
      ValueError: If the shapes differ, or `error` is not finite or not above 0.

    Source:
      Hochreiter & Schmidhuber 1997, whose error is 0.04.

    >>> import jax.numpy as jnp
    >>> within(jnp.float32([[[0.5], [0.5]]]), jnp.float32([[[0.53], [0.55]]])).tolist()
    [True, False]
    """
    _checks.check_real("error", error, above=0.0)
    _checks.check_array("outputs", outputs)
    _checks.check_array("targets", targets)
    _checks.check_shape("outputs", outputs, targets.shape, "as the targets, (N, B, outputs)")
    off = jnp.abs(outputs - targets.astype(outputs.dtype))
    # Below, rather than not above: NaN is not below anything.
    return jnp.all(off < jnp.asarray(error, off.dtype), axis=(0, 2))


def correct(outputs: Array, targets: Array) -> Array:
    """Which sequences have every class right; False where an output is NaN.

        argmax_c outputs[n, b, c] = targets[n, b]        for every n

    Args:
      outputs: `(N, B, classes)`, real floats, the log odds of the classes.
      targets: `(N, B)`, integers in [0, classes). Their values are not checked.

    Returns:
      Booleans `(B,)`.

    Raises:
      TypeError: If `outputs` is not an array of real floats, or `targets` not one of integers.
      ValueError: If the shapes do not fit.

    >>> import jax.numpy as jnp
    >>> correct(jnp.float32([[[1.0, 0.0], [1.0, 0.0]]]), jnp.array([[0, 1]])).tolist()
    [True, False]
    """
    _check_classes(outputs, targets)
    right = outputs.argmax(-1).astype(targets.dtype) == targets
    # argmax takes NaN for the largest entry, which may stand at the right class.
    return jnp.all(right & ~jnp.any(jnp.isnan(outputs), axis=-1), axis=0)


def _check_classes(outputs: Array, targets: Array) -> None:
    _checks.check_array("outputs", outputs)
    _checks.check_array("targets", targets, kind=jnp.integer)
    if outputs.ndim != targets.ndim + 1:
        raise ValueError(
            f"outputs: expected (N, B, classes) for targets {_checks.describe(targets)}, got "
            f"{_checks.describe(outputs)}"
        )
    shape = (*targets.shape, outputs.shape[-1])
    _checks.check_shape("outputs", outputs, shape, "(N, B, classes)")


# --- tasks ----------------------------------------------------------------------------


def adding(key: PRNGKey, batch_size: int, T: int) -> Batch:
    """Add the two numbers that are marked, both in the first half of the sequence.

        y = ½ + (X₁ + X₂)/4        numbers in U(-1, 1)

    The mark is 1 at the two marked steps, -1 at the first and the last step, and 0 elsewhere. One
    marked step is among the first ten, the other is another one of the first T/2 - 1. So the
    shortest lag is T/2 + 1. A number that is marked at the first step counts as 0, and its mark is
    1.

    An output of ½ has a squared error of 1/24 = 0.042, or a little less, because of the marks at
    the first step.

    Args:
      key: One key from `jax.random.key`.
      batch_size: The number of sequences B ≥ 0.
      T: The number of steps, at least 6. (The paper draws each length from T to 1.1 T.)

    Returns:
      Batch(xs `(T, B, 2)`, targets `(1, B, 1)`), in JAX's default float.

    Raises:
      TypeError: If `key` is not one key, or `batch_size` or `T` is not an integer.
      ValueError: If `batch_size` is below 0 or `T` below 6.

    Source:
      Hochreiter & Schmidhuber 1997, experiment 4.

    >>> import jax, jaxrnn
    >>> xs, targets = jaxrnn.tasks.adding(jax.random.key(0), 5, 50)
    >>> xs.shape, targets.shape, (xs[:, 0, 1] == 1).sum().item()
    ((50, 5, 2), (1, 5, 1), 2)
    """
    _check(key, batch_size, T, least=6, why="two marks in the first T/2 - 1 steps")
    k_value, k_first, k_second = jax.random.split(key, 3)
    values = jax.random.uniform(k_value, (T, batch_size), minval=-1.0)
    half = T // 2 - 1
    first = jax.random.randint(k_first, (batch_size,), 0, min(10, half))
    # One step fewer to choose from, then moved up past the first: uniform over all steps but that.
    second = jax.random.randint(k_second, (batch_size,), 0, half - 1)
    second = jnp.where(second >= first, second + 1, second)
    marks = jnp.zeros_like(values).at[jnp.array([0, T - 1])].set(-1)
    rows = jnp.arange(batch_size)
    # After the -1: a mark at the first step takes its place.
    marks = marks.at[first, rows].set(1).at[second, rows].set(1)
    chosen = [jnp.where(at > 0, values[at, rows], 0 * values[0]) for at in (first, second)]
    targets = 0.5 + (chosen[0] + chosen[1]) / 4
    return Batch(jnp.stack([values, marks], axis=-1), targets[None, :, None])


def temporal_order(key: PRNGKey, batch_size: int, T: int) -> Batch:
    """Say which two of the symbols A and B came, in their order, among four other symbols.

        y = 2 X₁ + X₂        X = 0 for A, 1 for B

    The first stands in [T/10, 2T/10), the second in [5T/10, 6T/10).

    Args:
      key: One key from `jax.random.key`.
      batch_size: The number of sequences B ≥ 0.
      T: The number of steps, at least 10.

    Returns:
      Batch(xs `(T, B, 6)`, targets `(1, B)`), the classes 0 to 3.

    Raises:
      TypeError: If `key` is not one key, or `batch_size` or `T` is not an integer.
      ValueError: If `batch_size` is below 0 or `T` below 10.

    Source:
      Hochreiter & Schmidhuber 1997, experiment 6a; positions of Pascanu et al. 2013, who call it
      solved with fewer than 1 % of 10,000 sequences wrong.

    >>> import jax, jaxrnn
    >>> xs, targets = jaxrnn.tasks.temporal_order(jax.random.key(0), 5, 50)
    >>> xs.shape, targets.shape, (xs[:, 0, :2].sum()).item()
    ((50, 5, 6), (1, 5), 2.0)
    """
    return _order(key, batch_size, T, (1, 5))


def temporal_order_3(key: PRNGKey, batch_size: int, T: int) -> Batch:
    """Say which three of the symbols A and B came, in their order, among four other symbols.

        y = 4 X₁ + 2 X₂ + X₃        X = 0 for A, 1 for B

    They stand in [T/10, 2T/10), [3T/10, 4T/10) and [6T/10, 7T/10).

    Args:
      key: One key from `jax.random.key`.
      batch_size: The number of sequences B ≥ 0.
      T: The number of steps, at least 10.

    Returns:
      Batch(xs `(T, B, 6)`, targets `(1, B)`), the classes 0 to 7.

    Raises:
      TypeError: If `key` is not one key, or `batch_size` or `T` is not an integer.
      ValueError: If `batch_size` is below 0 or `T` below 10.

    Source:
      Hochreiter & Schmidhuber 1997, experiment 6b; positions of Pascanu et al. 2013.

    >>> import jax, jaxrnn
    >>> jaxrnn.tasks.temporal_order_3(jax.random.key(0), 5, 50).targets.max().item() < 8
    True
    """
    return _order(key, batch_size, T, (1, 3, 6))


def _order(key: PRNGKey, batch_size: int, T: int, tenths: tuple[int, ...]) -> Batch:
    _check(key, batch_size, T, least=10, why="a step in each tenth")
    k_noise, k_at, k_symbol = jax.random.split(key, 3)
    symbols = jax.random.randint(k_noise, (T, batch_size), 2, 6)
    rows = jnp.arange(batch_size)
    target = jnp.zeros_like(rows)
    for n, tenth in enumerate(tenths):
        ends = tenth * T // 10, (tenth + 1) * T // 10
        at = jax.random.randint(jax.random.fold_in(k_at, n), (batch_size,), *ends)
        symbol = jax.random.randint(jax.random.fold_in(k_symbol, n), (batch_size,), 0, 2)
        symbols, target = symbols.at[at, rows].set(symbol), 2 * target + symbol
    return Batch(jax.nn.one_hot(symbols, 6), target[None])


def random_permutation(key: PRNGKey, batch_size: int, T: int) -> Batch:
    """Say which of two symbols came first, after T - 1 others that carry no information.

        y = x₀        x₀ = 0 or 1, x₁ … x_{T-1} in 2 … 99

    The others are 2 … 99 in a random order, again and again: each run of 98 of them, counted from
    the second step on, has every symbol once.

    Args:
      key: One key from `jax.random.key`.
      batch_size: The number of sequences B ≥ 0.
      T: The number of steps, at least 2.

    Returns:
      Batch(xs `(T, B, 100)`, targets `(1, B)`). The target is the first symbol, asked for after the
      last.

    Raises:
      TypeError: If `key` is not one key, or `batch_size` or `T` is not an integer.
      ValueError: If `batch_size` is below 0 or `T` below 2.

    Cost:
      O(T·B·100), and ⌈(T-1)/98⌉ permutations of 98 symbols for each sequence.

    Source:
      Hochreiter & Schmidhuber 1997, experiment 2b; Martens & Sutskever 2011.

    >>> import jax, jaxrnn
    >>> xs, targets = jaxrnn.tasks.random_permutation(jax.random.key(0), 5, 50)
    >>> (xs[0].argmax(-1) == targets[0]).all().item()
    True
    """
    _check(key, batch_size, T, least=2, why="a first symbol and another")
    k_first, k_rest = jax.random.split(key)
    first = jax.random.randint(k_first, (1, batch_size), 0, 2)
    # As many whole permutations as cover T - 1 steps; what is left of the last one is cut off.
    rounds = -(-(T - 1) // 98)
    keys = jax.random.split(k_rest, (rounds, batch_size))
    draw = jax.vmap(jax.vmap(lambda k: 2 + jax.random.permutation(k, 98)))
    rest = jnp.moveaxis(draw(keys), 1, 2).reshape(rounds * 98, batch_size)[: T - 1]
    symbols = jnp.concatenate([first, rest.astype(first.dtype)])
    return Batch(jax.nn.one_hot(symbols, 100), first)


def copying(key: PRNGKey, batch_size: int, T: int) -> Batch:
    """Repeat ten symbols of eight kinds after T blank steps.

        y_{T+10+j} = xⱼ,  j = 0 … 9        yᵢ = 0 before

    A sequence has ten symbols (1 … 8), T - 1 blanks (0), a signal (9) and ten blanks. The answer is
    T + 10 blanks, then the ten symbols.

    Without a memory the best cross entropy is 10 log 8 / (T + 20).

    Args:
      key: One key from `jax.random.key`.
      batch_size: The number of sequences B ≥ 0.
      T: The delay, at least 1. The sequences have T + 20 steps.

    Returns:
      Batch(xs `(T + 20, B, 10)`, targets `(T + 20, B)`).

    Raises:
      TypeError: If `key` is not one key, or `batch_size` or `T` is not an integer.
      ValueError: If `batch_size` is below 0 or `T` below 1.

    Source:
      Hochreiter & Schmidhuber 1997, in the form of Arjovsky, Shah & Bengio 2016.

    >>> import jax, jaxrnn
    >>> xs, targets = jaxrnn.tasks.copying(jax.random.key(0), 5, 100)
    >>> (xs[:10].argmax(-1) == targets[-10:]).all().item()
    True
    """
    _check(key, batch_size, T, least=1, why="a signal")
    symbols = jax.random.randint(key, (10, batch_size), 1, 9)
    blank = jnp.zeros((T + 20, batch_size), symbols.dtype)
    read = blank.at[:10].set(symbols).at[T + 9].set(9)
    return Batch(jax.nn.one_hot(read, 10), blank.at[-10:].set(symbols))


def noiseless_memorisation(key: PRNGKey, batch_size: int, T: int) -> Batch:
    """Repeat five bits after T steps that carry no information.

        y_{T+5+j} = xⱼ,  j = 0 … 4        yᵢ = 2 before

    A sequence has five bits (0, 1), T - 1 distractors (2), a trigger (3) and five distractors. The
    answer is the distractor (2) until the trigger has come, then the five bits.

    Args:
      key: One key from `jax.random.key`.
      batch_size: The number of sequences B ≥ 0.
      T: The delay, at least 1. The sequences have T + 10 steps.

    Returns:
      Batch(xs `(T + 10, B, 4)`, targets `(T + 10, B)`).

    Raises:
      TypeError: If `key` is not one key, or `batch_size` or `T` is not an integer.
      ValueError: If `batch_size` is below 0 or `T` below 1.

    Source:
      Hochreiter & Schmidhuber 1997; the 5-bit problem of Martens & Sutskever 2011.

    >>> import jax, jaxrnn
    >>> xs, targets = jaxrnn.tasks.noiseless_memorisation(jax.random.key(0), 5, 100)
    >>> (xs[:5].argmax(-1) == targets[-5:]).all().item()
    True
    """
    _check(key, batch_size, T, least=1, why="a trigger")
    bits = jax.random.randint(key, (5, batch_size), 0, 2)
    nothing = jnp.full((T + 10, batch_size), 2, bits.dtype)
    read = nothing.at[:5].set(bits).at[T + 4].set(3)
    return Batch(jax.nn.one_hot(read, 4), nothing.at[-5:].set(bits))


def sequential_digits(key: PRNGKey, batch_size: int, images: Array, labels: Array) -> Batch:
    """Say which digit was read, pixel by pixel; T is the number of pixels.

        xᵢ = images[n, i],  i = 0 … T-1        y = labels[n], n drawn for each of the batch

    Args:
      key: One key from `jax.random.key`.
      batch_size: The number of sequences B ≥ 0.
      images: `(N, T)`, real floats, N ≥ 1, drawn with replacement.
      labels: `(N,)`, integers.

    Returns:
      Batch(xs `(T, B, 1)`, targets `(1, B)`).

    Raises:
      TypeError: If `key` is not one key, `batch_size` is not an integer, `images` is not an array
        of real floats, or `labels` not one of integers.
      ValueError: If `batch_size` is below 0, the shapes do not fit, or there is no image or no
        pixel.

    Source:
      Le, Jaitly & Hinton 2015, for MNIST; `jaxrnn demo` reads scikit-learn's 8×8 digits.

    >>> import jax, jax.numpy as jnp, jaxrnn
    >>> images, labels = jnp.zeros((3, 64)), jnp.arange(3)
    >>> jaxrnn.tasks.sequential_digits(jax.random.key(0), 5, images, labels).xs.shape
    (64, 5, 1)
    """
    _checks.check_key(key)
    _checks.check_integer("batch_size", batch_size, least=0)
    _checks.check_array("images", images)
    _checks.check_shape("images", images, (None, None), "(N, T)")
    _checks.check_array("labels", labels, kind=jnp.integer)
    _checks.check_shape("labels", labels, images.shape[:1], "(N,), one for each image")
    if not images.size:
        raise ValueError(
            f"images: expected at least one image with pixels, got {_checks.describe(images)}"
        )
    rows = jax.random.randint(key, (batch_size,), 0, images.shape[0])
    # A NumPy array cannot be indexed by `rows` under `jit`.
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    return Batch(images[rows].T[..., None], labels[rows][None])


def _check(key: PRNGKey, batch_size: int, T: int, *, least: int, why: str) -> None:
    _checks.check_key(key)
    _checks.check_integer("batch_size", batch_size, least=0)
    _checks.check_integer("T", T, least=1)
    if least > T:
        raise ValueError(f"T: expected at least {least} steps, for {why}, got {T}")
