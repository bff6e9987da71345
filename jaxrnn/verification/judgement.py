"""From pairs of derivatives to checks: the measure of an error, and what is allowed.

    numbers     max |closed - reference| / size               at most 2e-14, every case
    autodiff    ‖closed - autodiff‖_F / ‖autodiff‖_F          at most 1e-13, all cases as one stack

Differences as numerical reference admit an error of their own, which is subtracted
tenfold; what remains may be 1e-9. Autodiff is a reference only up to scale 10: beyond,
1 - tanh² has itself lost its digits.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrnn.verification import gates
from jaxrnn.verification.pair import Pair
from jaxrnn.verification.report import Check, Worst

__all__ = ["Drawn", "block_names", "judge", "leaf_names"]

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


class Drawn(NamedTuple):
    """Which cases were drawn, so that the worst can be named; cases leading."""

    input_size: int
    hidden_size: int
    scales: np.ndarray  # (N,)
    keys: np.ndarray  # (N, words)
    finite: np.ndarray  # (N,) whether the step itself stayed finite


def judge(family: str, reference: str, names: list[str], pair: Pair, drawn: Drawn) -> list[Check]:
    """One check a block; `names` label the leaves of the pair in tree order."""
    structures = jax.tree.structure(pair.closed), jax.tree.structure(pair.reference)
    if structures[0] != structures[1]:
        raise TypeError(f"{family}: expected the tree {structures[1]}, got {structures[0]}")
    closed = [np.asarray(leaf) for leaf in jax.tree.leaves(pair.closed)]
    expected = [np.asarray(leaf) for leaf in jax.tree.leaves(pair.reference)]
    admitted = [0.0] * len(closed)
    if pair.error is not None:
        admitted = [np.asarray(leaf) for leaf in jax.tree.leaves(pair.error)]
    sizes = [np.asarray(leaf) for leaf in jax.tree.leaves(pair.size)]
    sizes = sizes if len(sizes) == len(closed) else sizes * len(closed)
    measure = _autodiff if reference in ("jacfwd", "jacrev") else _numbers
    allowed = ALLOWED.get(reference, ALLOWED_AUTODIFF)
    checks = []
    rows = zip(names, closed, expected, admitted, sizes, strict=True)
    for name, got, want, own, size in rows:
        if got.shape != want.shape:
            raise ValueError(f"{family}, {name}: expected shape {want.shape}, got {got.shape}")
        with np.errstate(invalid="ignore"):  # inf - inf, judged by the next line
            wrong = np.maximum(np.abs(got - want) - 10 * own, 0)
        wrong = np.where(np.isfinite(got) | ~np.isfinite(want), wrong, np.inf)
        # Where the step itself overflows there is nothing to compare.
        wrong[~drawn.finite] = 0.0
        error, entry = measure(np.where(np.isnan(wrong), 0.0, wrong), want, size, drawn)
        judged = want[drawn.finite]
        if np.isfinite(judged).sum() < 0.5 * judged.size:
            error = np.inf  # a reference that is mostly no number verifies nothing
        worst = _worst(entry, got, want, drawn) if got.size else None
        label = reference.replace("_", " ")
        checks.append(Check(error, allowed, family, name, label, worst))
    return checks


def _numbers(wrong: Any, want: Any, size: Any, drawn: Drawn) -> tuple[float, int]:
    """The worst entry of all, relative to its size or its case's."""
    relative = wrong / size.reshape(*size.shape, *[1] * (wrong.ndim - size.ndim))
    relative = np.where(np.isfinite(wrong), relative, wrong)
    return float(np.max(relative, initial=0.0)), int(np.argmax(relative)) if relative.size else 0


def _autodiff(wrong: Any, want: Any, size: Any, drawn: Drawn) -> tuple[float, int]:
    """The stack's Frobenius norm of the difference over that of the reference."""
    judged = (drawn.scales <= LARGEST_AUTODIFF_SCALE) & drawn.finite
    wrong = np.where(judged.reshape(-1, *[1] * (wrong.ndim - 1)), wrong, 0.0)
    norm = np.linalg.norm(np.where(np.isfinite(want), want, 0.0)[judged].ravel())
    error = np.linalg.norm(wrong.ravel())
    return float(error / norm if norm > 0 else error), int(np.argmax(wrong)) if wrong.size else 0


def _worst(flat: int, got: Any, want: Any, drawn: Drawn) -> Worst:
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
    """`∂h/∂c₋`, … in the order of the leaves of `jax.jacfwd`'s tree."""
    bare = "s" if suffix else "θ"
    return [f"∂{o}/∂{i}{suffix}" for o in leaf_names(out, "s") for i in leaf_names(into, bare)]


def leaf_names(tree: Any, bare: str) -> list[str]:
    """Dotted paths of the leaves; `bare` for a tree that is one leaf."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return [jax.tree_util.keystr(path, simple=True, separator=".") or bare for path in paths]
