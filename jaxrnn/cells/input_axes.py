"""The axes that one example's input has, leaf by leaf; all axes before them are leading ones."""

from typing import Any, NamedTuple

import jax

from jaxrnn import _checks
from jaxrnn.numerics.tangents import has_tangent

__all__ = ["VECTOR", "InputAxes", "check_vector", "input_axes"]


class InputAxes(NamedTuple):
    """The tree of an input and how many axes each of its leaves has for one example.

    Attributes:
      structure: The tree; a single leaf for an input that is one array.
      counts: The number of axes of each leaf.
    """

    structure: Any
    counts: tuple[int, ...]

    def parts(self, x: Any, name: str = "x") -> list[tuple[str, Any, int]]:
        """(name, leaf, number of axes of one example) for every leaf of an input."""
        if jax.tree_util.treedef_is_leaf(self.structure):
            named = [(name, x)]
        else:
            found = jax.tree.structure(x, is_leaf=lambda node: node is None)
            if found != self.structure:
                raise TypeError(
                    f"{name}: expected the tree of input_axes, {self.structure}, got "
                    f"{_checks.describe(x) if jax.tree_util.treedef_is_leaf(found) else found}"
                )
            paths = jax.tree_util.tree_leaves_with_path(x)
            named = [(name + jax.tree_util.keystr(path), leaf) for path, leaf in paths]
        return [(label, leaf, n) for (label, leaf), n in zip(named, self.counts, strict=True)]

    def lead(self, x: Any) -> tuple[int, ...]:
        """The leading axes of an input that is checked."""
        _, leaf, own = self.parts(x)[0]
        return tuple(leaf.shape[: leaf.ndim - own])

    def check(self, x: Any, name: str) -> None:
        """Raise unless every leaf is an array `(*lead, …)` with the axes of one example."""
        lead = None
        for label, leaf, own in self.parts(x, name):
            _checks.check_array(label, leaf, kind=None)
            if leaf.ndim < own:
                raise ValueError(
                    f"{label}: expected {own} axes of one example after the leading axes, got "
                    f"{_checks.describe(leaf)}"
                )
            shape = tuple(leaf.shape[: leaf.ndim - own])
            if lead is not None and shape != lead:
                raise ValueError(
                    f"{label}: expected the leading axes {lead} of the other inputs, got "
                    f"{_checks.describe(leaf)}"
                )
            lead = shape


def input_axes(counts: Any) -> InputAxes:
    """`InputAxes` of a tree of numbers of axes."""
    leaves, structure = jax.tree.flatten(counts, is_leaf=lambda node: node is None)
    if not leaves:
        raise ValueError("input_axes: expected at least one input, got none")
    for count in leaves:
        _checks.check_integer("input_axes", count, least=0)
    return InputAxes(structure, tuple(leaves))


VECTOR = input_axes(1)  # one array `(D,)`


def check_vector(name: str, x: Any) -> None:
    """Refuse tokens, integers and trees of arrays where a cell reads a vector of real floats."""
    leaves = jax.tree.leaves(x)
    if not leaves or not all(hasattr(leaf, "shape") for leaf in leaves):
        return  # no array at all: refused elsewhere
    if not hasattr(x, "shape") or not has_tangent(x):
        want = "a real floating dtype" if hasattr(x, "dtype") else "one array of real floats"
        raise TypeError(
            f"{name}: expected {want}, got {_checks.describe(x)}; "
            "from_step(step, input_axes=…) lets a cell read tokens, images or a tree"
        )
