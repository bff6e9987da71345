"""cuDNN's LSTM as `jax.experimental.rnn` takes it: one vector, all weights and then all biases.

    W_ih, W_hh of layer 0 forward, layer 0 reverse, layer 1 forward, …; then b_ih, b_hh likewise

Each `(4H, ·)` row by row, gates i f g o. The sizes are not in the vector.
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

    Args:    weights: `(N,)`, real floats.
             input_size, hidden_size, num_layers: at least 1.
             bidirectional: a bool; all four as `jax.experimental.rnn.init_lstm_weight` takes them.
    Returns: Model of `jaxrnn.lstm()`, a Layer for each of num_layers.
    Raises:  TypeError or ValueError naming the argument.
    Cost:    O(H) a layer, to add the biases; the weights are views of a vector on the host.
    Source:  `jax.experimental.rnn` of jax 0.10.2.

    >>> import numpy as np
    >>> vector = np.ones(4 * 5 * (3 + 5 + 2), "float32")
    >>> read(vector, input_size=3, hidden_size=5).params.b.shape
    (20,)
    """
    _checks.check_array("weights", weights)
    for name, size in (("input_size", input_size), ("hidden_size", hidden_size),
                       ("num_layers", num_layers)):  # fmt: skip
        _checks.check_integer(name, size, least=1)
    shapes = _shapes(input_size, hidden_size, num_layers, bidirectional)
    total = sum(math.prod(shape) for shape in shapes.values())
    weights = np.asarray(weights)
    if weights.shape != (total,):
        raise ValueError(
            f"weights: expected shape ({total},) for these sizes, got {_checks.describe(weights)}"
        )
    found, start = {}, 0
    for name, shape in shapes.items():
        found[name] = weights[start : start + math.prod(shape)].reshape(shape)
        start += math.prod(shape)
    model = torch.read(found)
    return Model(model.cell, model.layers, NAME, model.kept)


def write(model: Model) -> Any:
    """The flat vector of these weights.

    Args:    model: a Model of LSTMs, its layers of one hidden size and as many directions.
    Returns: `(N,)`, NumPy; what `read` took bit for bit, if the params are still that.
    Raises:  TypeError for what is no Model, ValueError for one of another cell, or naming the
             layer that does not fit.
    Cost:    one copy of the weights.
    Source:  as `read`.

    >>> import numpy as np
    >>> vector = np.arange(4 * 5 * (3 + 5 + 2), dtype="float32")
    >>> bool((write(read(vector, input_size=3, hidden_size=5)) == vector).all())
    True
    """
    check_model(model, ("lstm",), NAME)
    check_layers(model, NAME)
    kept = model.kept if model.layout == NAME else {}
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
