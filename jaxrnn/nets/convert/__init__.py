"""Weights from other libraries and back, as dicts of arrays; no framework is imported.

Each layout is a module with `read(arrays) -> Model` and `write(model) -> arrays`:

    torch  flax_linen  flax_nnx  haiku  equinox  keras  cudnn

`write(read(arrays))` gives every bit back. A layout may have what the params have not, such as a
second bias, or a 1 that is added to a bias in every step. The Model keeps that for the way back.
`load` reads a file, `guess` tells the layout and the prefix from the names of the leaves. `LAYOUTS`
has the modules by name, without cudnn, whose flat vector has no names.
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
