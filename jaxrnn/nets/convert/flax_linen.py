"""flax linen's cells, LSTMCell, OptimizedLSTMCell, GRUCell and SimpleCell.

    LSTM    i{g}.kernel (D, H), h{g}.kernel (H, H), h{g}.bias        g of i f g o; carry (c, h)
    GRU     i{g}.kernel, i{g}.bias, h{g}.kernel; hn.bias alone       g of r z n
    Simple  i.kernel, i.bias, h.kernel

Each gate has a kernel of its own, transposed. As in flax 0.12.8.
"""

from typing import Any

import numpy as np

from jaxrnn.cells.activations import Activation, tanh
from jaxrnn.cells.gru import GRUParams, gru
from jaxrnn.cells.lstm import LSTMParams, lstm
from jaxrnn.cells.rnn import RNNParams, rnn
from jaxrnn.nets.convert.leaves import Leaves
from jaxrnn.nets.convert.model import Model, check_model, filled, kind_of, single

__all__ = ["read", "write"]

NAME = "flax linen"


def read(arrays: Any, *, activation: Activation = tanh, prefix: str = "") -> Model:
    """A linen cell from its params.

    Args:
      arrays: `{name: array}`, nested or flat, real floats.
      activation: The activation of a SimpleCell.
      prefix: What all the names begin with, without the last dot.

    Returns:
      A Model of one layer. The names tell the cell.

    Raises:
      TypeError: If `arrays` is no dict, `prefix` no string, or a leaf no real floating array of the
        same dtype as the others; the message names the leaf. For an RNN, if `activation` is no
        `Activation`.
      ValueError: If a leaf is missing, has another shape, or is none of this layout's. The message
        names the leaf.

    Cost:
      One pass over the leaves; the kernels of the gates are copied into one.

    >>> import numpy as np
    >>> shapes = {"i.kernel": (3, 5), "i.bias": (5,), "h.kernel": (5, 5)}
    >>> read({name: np.ones(shape, "float32") for name, shape in shapes.items()}).params.w_ih.shape
    (5, 3)
    """
    leaves = Leaves(NAME, arrays, prefix)
    if "h.kernel" in leaves:
        w_hh = _square(leaves, "h.kernel")
        params = filled(RNNParams, leaves.take("i.kernel", None, len(w_hh)).T, w_hh,
                           leaves.take("i.bias", len(w_hh)))  # fmt: skip
        leaves.done()
        return single(rnn(activation), params, NAME)
    if "hi.kernel" in leaves:
        return _gated(leaves, "ifgo", "h")
    # Weights with the names of no cell come here too: the message names the leaf of a GRU that is
    # missing.
    return _gated(leaves, "rzn", "i")


def _gated(leaves: Leaves, gates: str, biased: str) -> Model:
    w_hh = [_square(leaves, f"h{g}.kernel") for g in gates]
    H = len(w_hh[0])
    # The first input kernel tells D; the others must have the same.
    first = leaves.take(f"i{gates[0]}.kernel", None, H)
    w_ih = [first] + [leaves.take(f"i{g}.kernel", len(first), H) for g in gates[1:]]
    b = np.concatenate([leaves.take(f"{biased}{g}.bias", H) for g in gates])
    weights = np.concatenate([w.T for w in w_ih]), np.concatenate(w_hh)
    if biased == "h":
        leaves.done()
        return single(lstm(), filled(LSTMParams, *weights, b), NAME)
    b_hn = leaves.take("hn.bias", H)
    leaves.done()
    return single(gru(), filled(GRUParams, *weights, b, b_hn), NAME)


def _square(leaves: Leaves, name: str) -> Any:
    kernel = leaves.take(name, None, None)
    if kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f"{leaves.dotted}{name}: expected shape (H, H), got {kernel.shape}")
    return kernel.T


def write(model: Model) -> dict[str, Any]:
    """The params of the linen cell with these weights, by dotted names.

    Args:
      model: A Model of one layer and one direction: LSTM, GRU or RNN.

    Returns:
      A dict of NumPy arrays by name, a kernel for each gate.

    Raises:
      TypeError: If `model` is no Model.
      ValueError: If the model has another cell, several layers or two directions.

    Cost:
      One pass over the leaves; the kernels are views.

    >>> import numpy as np
    >>> shapes = {"i.kernel": (3, 5), "i.bias": (5,), "h.kernel": (5, 5)}
    >>> model = read({name: np.ones(shape, "float32") for name, shape in shapes.items()})
    >>> sorted(write(model))
    ['h.kernel', 'i.bias', 'i.kernel']
    """
    check_model(model, ("lstm", "gru", "rnn"), NAME)
    kind, params = kind_of(model.cell), model.params
    if kind == "rnn":
        return {"i.kernel": np.asarray(params.w_ih).T, "i.bias": np.asarray(params.b),
                "h.kernel": np.asarray(params.w_hh).T}  # fmt: skip
    gates, biased = ("ifgo", "h") if kind == "lstm" else ("rzn", "i")
    parts = [np.split(np.asarray(leaf), len(gates)) for leaf in params[:3]]
    found = {}
    for g, w_ih, w_hh, b in zip(gates, *parts, strict=True):
        found |= {f"i{g}.kernel": w_ih.T, f"h{g}.kernel": w_hh.T, f"{biased}{g}.bias": b}
    return found if kind == "lstm" else found | {"hn.bias": np.asarray(params.b_hn)}
