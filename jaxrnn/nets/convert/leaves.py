"""Weights by name, as files and frameworks hold them: NumPy arrays, typed Any.

Params are annotated as JAX's arrays; NumPy's serve as well, and keep their bits and dtype.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrnn import _checks

__all__ = ["Leaves", "flat", "merged", "parted"]


def flat(arrays: Any) -> dict[str, Any]:
    """A tree of mappings as one dict with dotted names; `/` in a name is a dot as well.

    Leaves are passed on unseen: those of other layers may be of any kind.

    >>> import numpy as np
    >>> list(flat({"lstm/linear": {"w": np.ones(2, "float32")}}))
    ['lstm.linear.w']
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(
            f"arrays: expected a dict of arrays by name, got {_checks.describe(arrays)}"
        )
    found: dict[str, Any] = {}
    for key, value in arrays.items():
        name = ".".join(map(str, key)) if isinstance(key, tuple) else str(key)
        name = name.replace("/", ".")
        if isinstance(value, Mapping):
            found |= {f"{name}.{rest}": leaf for rest, leaf in flat(value).items()}
        else:
            found[name] = value
    return found


class Leaves:
    """The leaves of one layout, taken by name; each once, and all of them.

    Args:   layout: its name, for messages; arrays: a dict, nested or flat; prefix: of every name
            that belongs to it, without the last dot.
    Raises: TypeError or ValueError naming the leaf.
    """

    def __init__(self, layout: str, arrays: Any, prefix: str = "") -> None:
        if not isinstance(prefix, str):
            raise TypeError(f"prefix: expected a string, got {_checks.describe(prefix)}")
        self.layout = layout
        self.dotted = prefix.rstrip("./") + "." if prefix else ""
        given = flat(arrays)
        own = {name: leaf for name, leaf in given.items() if name.startswith(self.dotted)}
        for name, leaf in own.items():
            _checks.check_array(f"arrays[{name!r}]", leaf)
        self.left = {name.removeprefix(self.dotted): np.asarray(leaf) for name, leaf in own.items()}
        if not self.left:
            raise ValueError(
                f"arrays: expected {layout} weights under the names {self.dotted}…, got "
                f"{_some(given)}"
            )
        self.dtype: Any = None

    def __contains__(self, name: str) -> bool:
        """Whether such a leaf is left."""
        return name in self.left

    def take(self, name: str, *shape: int | None) -> Any:
        """The leaf, which must have the shape; None in it is any size."""
        if name not in self.left:
            raise ValueError(
                f"{self.dotted}{name}: expected this leaf in {self.layout} weights, got "
                f"{_some(self.left)}"
            )
        leaf = self.left.pop(name)
        fits = len(leaf.shape) == len(shape) and all(
            want is None or want == got for want, got in zip(shape, leaf.shape, strict=True)
        )
        if not fits:
            words = ", ".join("·" if size is None else str(size) for size in shape)
            raise ValueError(
                f"{self.dotted}{name}: expected shape ({words}), got {_checks.describe(leaf)}"
            )
        self.dtype = leaf.dtype if self.dtype is None else self.dtype
        if leaf.dtype != self.dtype:
            raise TypeError(
                f"{self.dotted}{name}: expected {self.dtype}, as in the other leaves, got "
                f"{leaf.dtype}"
            )
        return leaf

    def gates(self, name: str, size: int, hidden: int, allowed: tuple[int, ...]) -> int:
        """How many gates `size` rows are."""
        if hidden < 1 or size % hidden or size // hidden not in allowed:
            raise ValueError(
                f"{self.dotted}{name}: expected G·H with H = {hidden} and G in {allowed}, got "
                f"{size}"
            )
        return size // hidden

    def done(self) -> None:
        """Refuse what nobody took."""
        if self.left:
            raise ValueError(
                f"{self.dotted}{next(iter(self.left))}: expected no such leaf in {self.layout} "
                f"weights, got {_some(self.left)} besides"
            )


def _some(leaves: Mapping[str, Any]) -> str:
    names = sorted(leaves)
    return "nothing" if not names else ", ".join(names[:6]) + (", …" if len(names) > 6 else "")


def merged(first: Any, second: Any) -> Any:
    """The sum of two biases that act as one."""
    return first + second


def parted(total: Any, kept: tuple[Any, Any] | None) -> tuple[Any, Any]:
    """Two biases whose sum is total: those that were merged where it has not changed since.

    Where it has, or nothing is kept, the second stays what it was, or 0. Subtracting would give
    back the last bit of the first in two cases of three alone.
    """
    if kept is None:
        return total, np.zeros_like(total)
    first, second = kept
    was = merged(first, second)
    same = (total == was) | (np.isnan(total) & np.isnan(was))
    return np.where(same, first, total - second).astype(total.dtype), second
