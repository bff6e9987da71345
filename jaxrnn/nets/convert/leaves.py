"""Weights by name, as files and frameworks hold them: NumPy arrays, typed Any.

Params are annotated as JAX's arrays. NumPy's serve as well, and keep their bits and their dtype.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrnn import _checks

__all__ = ["Leaves", "flat", "merged", "parted"]


def flat(arrays: Any) -> dict[str, Any]:
    """A tree of mappings as one dict with dotted names; `/` in a name becomes a dot too.

    The leaves are not looked at: those that belong to other layers may be of any kind.

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
        # Tuples are the keys of a flattened flax state.
        name = ".".join(map(str, key)) if isinstance(key, tuple) else str(key)
        name = name.replace("/", ".")
        if isinstance(value, Mapping):
            found |= {f"{name}.{rest}": leaf for rest, leaf in flat(value).items()}
        else:
            found[name] = value
    return found


class Leaves:
    """The leaves of one layout by name: each is taken once, and none may be left over.

    Args:
      layout: The name of the layout, for messages.
      arrays: A dict of arrays, nested or flat.
      prefix: What every name that belongs to the layout begins with, without the last dot.

    Raises:
      TypeError: If `prefix` is no string, `arrays` no dict, or a leaf no real floating array.
      ValueError: If there is no leaf under the prefix.
    """

    def __init__(self, layout: str, arrays: Any, prefix: str = "") -> None:
        if not isinstance(prefix, str):
            raise TypeError(f"prefix: expected a string, got {_checks.describe(prefix)}")
        self.layout = layout
        self.dotted = prefix.rstrip("./") + "." if prefix else ""
        given = flat(arrays)
        own = {name: leaf for name, leaf in given.items() if name.startswith(self.dotted)}
        # Only these are checked. A counter of batches, or float64 in 32-bit mode, may stand beside
        # them.
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
        """Whether such a leaf is there and not yet taken."""
        return name in self.left

    def take(self, name: str, *shape: int | None) -> Any:
        """The leaf of this name and shape, None being any size; its dtype is that of the others."""
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
        # `unroll` refuses params of mixed dtypes; here the leaf has its name in the framework.
        self.dtype = leaf.dtype if self.dtype is None else self.dtype
        if leaf.dtype != self.dtype:
            raise TypeError(
                f"{self.dotted}{name}: expected {self.dtype}, as in the other leaves, got "
                f"{leaf.dtype}"
            )
        return leaf

    def gates(self, name: str, size: int, hidden: int, allowed: tuple[int, ...]) -> int:
        """How many gates `size` rows are, if that number is allowed."""
        if hidden < 1 or size % hidden or size // hidden not in allowed:
            raise ValueError(
                f"{self.dotted}{name}: expected G·H with H = {hidden} and G in {allowed}, got "
                f"{size}"
            )
        return size // hidden

    def done(self) -> None:
        """Refuse leaves that were not taken."""
        # A leaf that is not read, such as the projection of torch's LSTM, would change the net.
        if self.left:
            raise ValueError(
                f"{self.dotted}{next(iter(self.left))}: expected no such leaf in {self.layout} "
                f"weights, got {_some(self.left)} left over"
            )


def _some(leaves: Mapping[str, Any]) -> str:
    names = sorted(leaves)
    return "nothing" if not names else ", ".join(names[:6]) + (", …" if len(names) > 6 else "")


def merged(first: Any, second: Any) -> Any:
    """The sum of two biases that a step only reads as a sum."""
    return first + second


def parted(total: Any, kept: tuple[Any, Any] | None) -> tuple[Any, Any]:
    """Two biases whose sum is `total`: those kept, where `total` is still their sum.

    Where it has changed, the second is the one kept and the first is the rest. Without kept biases
    the second is 0. Subtracting everywhere would give the last bit of the first back in only two
    cases of three.
    """
    if kept is None:
        return total, np.zeros_like(total)
    first, second = kept
    was = merged(first, second)
    # NaN is unequal to itself, and should come back bit for bit too.
    same = (total == was) | (np.isnan(total) & np.isnan(was))
    return np.where(same, first, total - second).astype(total.dtype), second
