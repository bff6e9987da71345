"""equinox's LSTMCell and GRUCell: weight_ih, weight_hh, bias, and bias_n of the GRU.

Shapes and the order of the gates are this library's. As in equinox 0.13.8.
"""

from typing import Any

import numpy as np

from jaxrnn.cells.gru import GRUParams, gru
from jaxrnn.cells.lstm import LSTMParams, lstm
from jaxrnn.nets.convert.leaves import Leaves
from jaxrnn.nets.convert.model import Model, check_model, filled, kind_of, single

__all__ = ["read", "write"]

NAME = "equinox"


def read(arrays: Any, *, prefix: str = "") -> Model:
    """An `eqx.nn.LSTMCell` or `GRUCell` from its array attributes by name.

    Args:
      arrays: `{name: array}`, nested or flat, real floats.
      prefix: What all the names begin with, without the last dot.

    Returns:
      A Model of one layer. The rows of weight_hh tell the cell: 4H or 3H.

    Raises:
      TypeError: If `arrays` is no dict, `prefix` no string, or a leaf no real floating array of the
        same dtype as the others. The message names the leaf.
      ValueError: If a leaf is missing, has another shape, or is none of this layout's. The message
        names the leaf.

    Cost:
      One pass over the leaves, none copied.

    >>> import numpy as np
    >>> gru = {"weight_ih": (15, 3), "weight_hh": (15, 5), "bias": (15,), "bias_n": (5,)}
    >>> read({name: np.ones(shape, "float32") for name, shape in gru.items()}).params.b_hn.shape
    (5,)
    """
    leaves = Leaves(NAME, arrays, prefix)
    w_hh = leaves.take("weight_hh", None, None)
    rows, H = w_hh.shape
    gates = leaves.gates("weight_hh", rows, H, (4, 3))
    w_ih = leaves.take("weight_ih", rows, None)
    biased = "bias" in leaves
    b = leaves.take("bias", rows) if biased else np.zeros(rows, w_hh.dtype)
    if gates == 4:
        leaves.done()
        return single(lstm(), filled(LSTMParams, w_ih, w_hh, b), NAME, biased=biased)
    b_hn = leaves.take("bias_n", H) if biased else np.zeros(H, w_hh.dtype)
    leaves.done()
    return single(gru(), filled(GRUParams, w_ih, w_hh, b, b_hn), NAME, biased=biased)


def write(model: Model) -> dict[str, Any]:
    """The attributes of the equinox cell with these weights.

    Args:
      model: A Model of one layer and one direction: LSTM or GRU.

    Returns:
      A dict of NumPy arrays by name. There are no biases where `read` found none and all are
      still 0.

    Raises:
      TypeError: If `model` is no Model.
      ValueError: If the model has another cell, several layers or two directions.

    Cost:
      One pass over the leaves, none copied.

    >>> import numpy as np
    >>> lstm = {"weight_ih": np.ones((20, 3), "float32"), "weight_hh": np.ones((20, 5), "float32")}
    >>> sorted(write(read(lstm)))
    ['weight_hh', 'weight_ih']
    """
    check_model(model, ("lstm", "gru"), NAME)
    params = model.params
    found = {"weight_ih": np.asarray(params.w_ih), "weight_hh": np.asarray(params.w_hh)}
    biases = {"bias": np.asarray(params.b)}
    if kind_of(model.cell) == "gru":
        biases["bias_n"] = np.asarray(params.b_hn)
    # A cell made with use_bias=False stays one as long as it needs no bias.
    plain = model.layout == NAME and not model.kept["biased"]
    if plain and not any(map(np.any, biases.values())):
        return found
    return found | biases
