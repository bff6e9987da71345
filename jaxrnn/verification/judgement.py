"""From pairs of derivatives to checks: the measure of an error, and what is allowed.

    numbers     max |closed - reference| / size               at most 2e-14, every case
    autodiff    ‖closed - autodiff‖_F / ‖autodiff‖_F          at most 1e-13, all cases as one stack

Differences have an error of their own. Ten times that error is subtracted, and what remains may be
1e-9. Autodiff is a reference up to scale 10 only: beyond, 1 - tanh² has itself lost its digits.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrnn.verification import gates
from jaxrnn.verification.pair import Pair
from jaxrnn.verification.report import Check, Worst

__all__ = ["DrawnCases", "block_names", "judge", "leaf_names"]

# Of 1 + max|J|: right forms fail, or wrong ones pass. Up to scale 1 the largest of 1,080,000 errors
# is 1.4e-15 (docs/assets/evidence.json, 2026-11-21); docs/decisions/verification-tolerance.md
ALLOWED = {
    "complex_step": 2e-14,
    "differences": 1e-9,
    "jax.vjp": 2e-14,
    "float64": gates.ALLOWED_FLOAT32,
}
# Autodiff beside the closed form, up to a scale of the weights. Not measured.
ALLOWED_AUTODIFF = 1e-13
LARGEST_AUTODIFF_SCALE = 10.0


class DrawnCases(NamedTuple):
    """Which cases were drawn, so that the worst can be named; N cases, the leading axis.

    Attributes:
      input_size: D.
      hidden_size: H.
      scales: The standard deviation of the params of each case, `(N,)`.
      keys: The words of each case's key, `(N, words)`.
      finite: Whether the step itself stayed finite, `(N,)`.
    """

    input_size: int
    hidden_size: int
    scales: np.ndarray
    keys: np.ndarray
    finite: np.ndarray


def judge(
    family: str, reference: str, names: list[str], pair: Pair, drawn: DrawnCases
) -> list[Check]:
    """A Check for each block; `names` label the leaves of the pair in tree order."""
    structures = jax.tree.structure(pair.closed), jax.tree.structure(pair.reference)
    if structures[0] != structures[1]:
        raise TypeError(f"{family}: expected the tree {structures[1]}, got {structures[0]}")
    closed = [np.asarray(leaf) for leaf in jax.tree.leaves(pair.closed)]
    expected = [np.asarray(leaf) for leaf in jax.tree.leaves(pair.reference)]
    admitted = [0.0] * len(closed)
    if pair.error is not None:
        admitted = [np.asarray(leaf) for leaf in jax.tree.leaves(pair.error)]
    sizes = [np.asarray(leaf) for leaf in jax.tree.leaves(pair.size)]
    # One number for a case serves all blocks; a tree has its own for each.
    sizes = sizes if len(sizes) == len(closed) else sizes * len(closed)
    measure = _autodiff if reference in ("jacfwd", "jacrev") else _numbers
    allowed = ALLOWED.get(reference, ALLOWED_AUTODIFF)
    checks = []
    rows = zip(names, closed, expected, admitted, sizes, strict=True)
    for name, got, want, own, size in rows:
        if got.shape != want.shape:
            raise ValueError(f"{family}, {name}: expected shape {want.shape}, got {got.shape}")
        # inf - inf is NaN with a warning; the lines after it decide what that means.
        with np.errstate(invalid="ignore"):
            wrong = np.maximum(np.abs(got - want) - 10 * own, 0)
        # A closed form that is NaN or inf where the reference is finite is wrong without bound.
        wrong = np.where(np.isfinite(got), wrong, np.inf)
        # A reference that is NaN or inf itself judges nothing.
        wrong[~np.isfinite(want)] = 0.0
        # Where the step itself overflows there is nothing to compare.
        wrong[~drawn.finite] = 0.0
        error, entry = measure(wrong, want, size, drawn)
        judged = want[drawn.finite]
        if np.isfinite(judged).sum() < 0.5 * judged.size:
            error = np.inf  # a reference that is mostly NaN or inf verifies nothing
        worst = _worst(entry, got, want, drawn) if got.size else None
        label = reference.replace("_", " ")
        checks.append(Check(error, allowed, family, name, label, worst))
    return checks


def _numbers(wrong: Any, want: Any, size: Any, drawn: DrawnCases) -> tuple[float, int]:
    """The worst entry of all, relative to its own size or to that of its case."""
    relative = wrong / size.reshape(*size.shape, *[1] * (wrong.ndim - size.ndim))
    # inf over an infinite size would be NaN.
    relative = np.where(np.isfinite(wrong), relative, wrong)
    return float(np.max(relative, initial=0.0)), int(np.argmax(relative)) if relative.size else 0


def _autodiff(wrong: Any, want: Any, size: Any, drawn: DrawnCases) -> tuple[float, int]:
    """The Frobenius norm of the difference over that of the reference, all cases as one stack."""
    judged = (drawn.scales <= LARGEST_AUTODIFF_SCALE) & drawn.finite
    wrong = np.where(judged.reshape(-1, *[1] * (wrong.ndim - 1)), wrong, 0.0)
    norm = np.linalg.norm(np.where(np.isfinite(want), want, 0.0)[judged].ravel())
    error = np.linalg.norm(wrong.ravel())
    # Where the whole reference is 0, such as a block without influence, the error is absolute.
    return float(error / norm if norm > 0 else error), int(np.argmax(wrong)) if wrong.size else 0


def _worst(flat: int, got: Any, want: Any, drawn: DrawnCases) -> Worst:
    index = tuple(int(i) for i in np.unravel_index(flat, got.shape))
    return Worst(
        drawn.input_size,
        drawn.hidden_size,
        float(drawn.scales[index[0]]),
        tuple(int(word) for word in drawn.keys[index[0]]),
        index[1:],
        float(got[index]),
        float(want[index]),
    )


def block_names(out: Any, into: Any, suffix: str = "") -> list[str]:
    """`∂h/∂c₋` and the like, in the order of the leaves of `jax.jacfwd`'s tree."""
    bare = "s" if suffix else "θ"
    return [f"∂{o}/∂{i}{suffix}" for o in leaf_names(out, "s") for i in leaf_names(into, bare)]


def leaf_names(tree: Any, bare: str) -> list[str]:
    """Dotted paths of the leaves; `bare` for a tree that is one leaf."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return [jax.tree_util.keystr(path, simple=True, separator=".") or bare for path in paths]
