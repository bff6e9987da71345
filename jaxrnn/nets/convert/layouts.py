"""Which layout weights are in, told by the names of their leaves."""

import re
from types import ModuleType
from typing import Any

from jaxrnn.nets.convert import equinox, flax_linen, flax_nnx, haiku, keras, torch
from jaxrnn.nets.convert.leaves import flat

__all__ = ["LAYOUTS", "candidates", "guess"]

# cudnn is not here: a flat vector has no names to tell it by.
LAYOUTS: dict[str, ModuleType] = {
    "torch": torch,
    "flax-linen": flax_linen,
    "flax-nnx": flax_nnx,
    "haiku": haiku,
    "equinox": equinox,
    "keras": keras,
}

# A leaf that each cell of a layout has and no other layout's. flax's two layouts share hi.kernel;
# `candidates` tells them apart.
SIGNS = {
    "torch": r"weight_hh_l0",
    "flax-linen": r"(hi|hr|h)\.kernel",
    "flax-nnx": r"dense_h\.kernel|hi\.kernel",
    "haiku": r"linear\.w|w_h",
    "equinox": r"weight_hh",
    "keras": r"recurrent_kernel",
}


def guess(arrays: Any) -> tuple[str, str]:
    """(layout, prefix): the only pair that the names allow.

    Args:
      arrays: `{name: array}`, nested or flat. Only the names are read.

    Returns:
      A pair (a key of `LAYOUTS`, the prefix of the names without its last dot, "" for none).

    Raises:
      TypeError: If `arrays` is no dict.
      ValueError: If several pairs are possible, or none is. The message lists the pairs, or some of
        the names.

    Cost:
      One pass over the names.

    >>> import numpy as np
    >>> guess({"encoder.lstm.weight_hh_l0": np.ones((20, 5), "float32")})
    ('torch', 'encoder.lstm')
    """
    found = candidates(arrays)
    if len(found) == 1:
        return found[0]
    if not found:
        some = ", ".join(sorted(flat(arrays))[:6]) or "nothing"
        raise ValueError(
            f"arrays: expected the leaves of {', '.join(LAYOUTS)}, got {some}; name the layout"
        )
    several = "; ".join(f"{layout} under {prefix or 'no prefix'}" for layout, prefix in found)
    raise ValueError(
        f"arrays: expected weights of one net, got {several}; name the layout and the prefix"
    )


def candidates(arrays: Any) -> list[tuple[str, str]]:
    """Every (layout, prefix) that the names allow.

    Args:
      arrays: `{name: array}`, nested or flat. Only the names are read.

    Returns:
      A list of pairs such as `guess` gives; empty if no layout has such names.

    Raises:
      TypeError: If `arrays` is no dict.

    Cost:
      One pass over the names.

    >>> import numpy as np
    >>> one = np.ones((20, 5), "float32")
    >>> candidates({f"{side}.weight_hh_l0": one for side in ("encoder", "decoder")})
    [('torch', 'encoder'), ('torch', 'decoder')]
    """
    names = list(flat(arrays))
    found = []
    for layout, sign in SIGNS.items():
        matches = (re.fullmatch(rf"(?:(.*)\.)?(?:{sign})", name) for name in names)
        found += [(layout, match[1] or "") for match in matches if match]
    # nnx's LSTMCell has linen's names but for this one.
    if any(name.split(".")[-2:] == ["if_", "kernel"] for name in names):
        found = [(layout, prefix) for layout, prefix in found if layout != "flax-linen"]
    else:
        # Without that name hi.kernel is linen's, so nnx's other cells need their dense_h.
        found = [
            (layout, prefix)
            for layout, prefix in found
            if layout != "flax-nnx" or f"{prefix}.dense_h.kernel".lstrip(".") in names
        ]
    return found
