"""equinox's LSTMCell and GRUCell: weight_ih, weight_hh, bias, and bias_n of the GRU; as here."""

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

    Args:    arrays: `{name: array}`, nested or flat; prefix: of the names.
    Returns: Model of one layer, its cell told by the rows of weight_hh, 4H or 3H.
    Raises:  TypeError or ValueError naming the leaf.
    Cost:    one pass over the leaves, none copied.
    Source:  equinox 0.13.8.

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

    Args:    model: a Model of one layer and one direction, LSTM or GRU.
    Returns: `{name: array}`, NumPy; without biases where `read` found none and all are still 0.
    Raises:  TypeError for what is no Model, ValueError for another cell or several layers.
    Cost:    one pass over the leaves, none copied.
    Source:  as `read`.

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
    plain = model.layout == NAME and not model.kept["biased"]
    if plain and not any(map(np.any, biases.values())):
        return found
    return found | biases
