"""cuDNN's LSTM as `jax.experimental.rnn` takes it: one vector, all weights and then all biases.

    W_ih, W_hh of layer 0 forward, layer 0 reverse, layer 1 forward, …; then b_ih, b_hh likewise

Each `(4H, ·)` stands row by row, gates i f g o. The sizes are not in the vector. As in jax 0.10.2.
"""

import math
from typing import Any

import numpy as np

from jaxrnn import _checks
from jaxrnn.nets.convert import torch
from jaxrnn.nets.convert.model import Model, check_layers, check_model

__all__ = ["read", "write"]

NAME = "cudnn"


def read(
    weights: Any,
    *,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    bidirectional: bool = False,
) -> Model:
    """An LSTM from the flat vector.

    Args:
      weights: The vector, `(N,)`, real floats.
      input_size: D of layer 0, at least 1. As `jax.experimental.rnn.init_lstm_weight` takes it,
        like the three below.
      hidden_size: H, at least 1.
      num_layers: At least 1.
      bidirectional: A bool, whether every layer has two directions.

    Returns:
      A Model of `jaxrnn.lstm()` with a Layer for each of num_layers.

    Raises:
      TypeError: If `weights` is no real floating array, or a size no integer,
        or `bidirectional` no bool.
      ValueError: If a size is below 1, or `weights` has not as many entries as the sizes ask for.

    Cost:
      O(H) for each layer, to add the biases. The weights are views of a vector on the host.

    >>> import numpy as np
    >>> vector = np.ones(4 * 5 * (3 + 5 + 2), "float32")
    >>> read(vector, input_size=3, hidden_size=5).params.b.shape
    (20,)
    """
    _checks.check_array("weights", weights)
    for name, size in (("input_size", input_size), ("hidden_size", hidden_size),
                       ("num_layers", num_layers)):  # fmt: skip
        _checks.check_integer(name, size, least=1)
    if not isinstance(bidirectional, bool):
        raise TypeError(f"bidirectional: expected a bool, got {_checks.describe(bidirectional)}")
    shapes = _shapes(input_size, hidden_size, num_layers, bidirectional)
    total = sum(math.prod(shape) for shape in shapes.values())
    weights = np.asarray(weights)
    if weights.shape != (total,):
        raise ValueError(
            f"weights: expected shape ({total},) for these sizes, got {_checks.describe(weights)}"
        )
    # Sliced into torch's leaves. torch has the same gates and biases, so its reader does the rest.
    found, start = {}, 0
    for name, shape in shapes.items():
        found[name] = weights[start : start + math.prod(shape)].reshape(shape)
        start += math.prod(shape)
    model = torch.read(found)
    return Model(model.cell, model.layers, NAME, model.kept)


def write(model: Model) -> Any:
    """The flat vector of these weights.

    Args:
      model: A Model of LSTMs, all layers of one H and of as many directions.

    Returns:
      `(N,)`, NumPy; bit for bit what `read` took, if the params have not changed since.

    Raises:
      TypeError: If `model` is no Model.
      ValueError: If the cell is no LSTM, or a layer does not fit; the message names it.

    Cost:
      One copy of the weights.

    >>> import numpy as np
    >>> vector = np.arange(4 * 5 * (3 + 5 + 2), dtype="float32")
    >>> bool((write(read(vector, input_size=3, hidden_size=5)) == vector).all())
    True
    """
    check_model(model, ("lstm",), NAME)
    check_layers(model, NAME)
    kept = model.kept if model.layout == NAME else {}
    # Under torch's name, so that its writer uses the kept biases. It leaves biases out only where
    # none was read, and cuDNN's vector always has them.
    leaves = torch.write(Model(model.cell, model.layers, torch.NAME, kept))
    first, *_ = model.layers
    sizes = first.forward.w_ih.shape[1], first.forward.w_hh.shape[1], len(model.layers)
    order = _shapes(*sizes, first.reverse is not None)
    return np.concatenate([leaves[name].ravel() for name in order])


def _shapes(D: int, H: int, count: int, both: bool) -> dict[str, tuple[int, ...]]:
    """The leaves in the vector's order, by torch's names."""
    at = [(k, suffix) for k in range(count) for suffix in ("", "_reverse")[: 1 + both]]
    found: dict[str, tuple[int, ...]] = {}
    for k, suffix in at:
        width = H * (1 + both) if k else D
        found[f"weight_ih_l{k}{suffix}"] = (4 * H, width)
        found[f"weight_hh_l{k}{suffix}"] = (4 * H, H)
    for k, suffix in at:
        found |= {f"bias_{side}_l{k}{suffix}": (4 * H,) for side in ("ih", "hh")}
    return found
