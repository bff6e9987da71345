"""Weights from other libraries and back, as dicts of arrays; no framework is imported.

Each layout is a module with `read(arrays) -> Model` and `write(model) -> arrays`:

    torch  flax_linen  flax_nnx  haiku  equinox  keras  cudnn

`write(read(arrays))` gives every bit back. What a layout has and the params have not, a second
bias, a 1 that is added as it runs, is kept in the Model for the way back. `load` reads a file,
`guess` tells the layout and the prefix of its names, `LAYOUTS` has the modules by name.
"""

from jaxrnn.nets.convert import cudnn, equinox, flax_linen, flax_nnx, haiku, keras, torch
from jaxrnn.nets.convert.files import load
from jaxrnn.nets.convert.layouts import LAYOUTS, candidates, guess
from jaxrnn.nets.convert.model import Model

__all__ = [
    "LAYOUTS",
    "Model",
    "candidates",
    "cudnn",
    "equinox",
    "flax_linen",
    "flax_nnx",
    "guess",
    "haiku",
    "keras",
    "load",
    "torch",
]
