"""flax nnx's OptimizedLSTMCell, GRUCell and SimpleCell; LSTMCell is linen's but for the name if_.

    dense_i.kernel (D, G·H), dense_h.kernel (H, G·H), gates i f g o and r z n
    biases: dense_h.bias of the LSTM, dense_i.bias of the others; the GRU has no b_hn

As in flax 0.12.8.
"""

from typing import Any

import numpy as np

from jaxrnn.cells.activations import Activation, tanh
from jaxrnn.cells.contract import Params
from jaxrnn.cells.gru import GRUParams
from jaxrnn.cells.lstm import LSTMParams
from jaxrnn.cells.rnn import RNNParams
from jaxrnn.nets.convert import flax_linen
from jaxrnn.nets.convert.leaves import Leaves, flat
from jaxrnn.nets.convert.model import Model, cell_of, check_model, filled, kind_of, single

__all__ = ["read", "write", "write_lstm_cell"]

NAME = "flax nnx"
# `if` is a keyword of Python, so nnx cannot have an attribute of linen's name.
PLAIN = {"if_.kernel": "if.kernel"}


def read(arrays: Any, *, activation: Activation = tanh, prefix: str = "") -> Model:
    """An nnx cell from its state as a dict.

    Args:
      arrays: `{name: array}`, nested or flat, real floats. Keys may be tuples.
      activation: The activation of a SimpleCell.
      prefix: What all the names begin with, without the last dot.

    Returns:
      A Model of one layer. The names and the columns of dense_h.kernel tell the cell.

    Raises:
      TypeError: If `arrays` is no dict, `prefix` no string, or a leaf no real floating array of the
        same dtype as the others; the message names the leaf. For an RNN, if `activation` is no
        `Activation`.
      ValueError: If a leaf is missing, has another shape, or is none of this layout's. The message
        names the leaf.

    Cost:
      One pass over the leaves; the kernels of an LSTMCell are copied into one.

    >>> import numpy as np
    >>> cell = {"dense_i.kernel": (3, 20), "dense_h.kernel": (5, 20), "dense_h.bias": (20,)}
    >>> read({name: np.ones(shape, "float32") for name, shape in cell.items()}).params.w_ih.shape
    (20, 3)
    """
    leaves = Leaves(NAME, arrays, prefix)
    if "if_.kernel" in leaves:
        linen = flax_linen.read({PLAIN.get(name, name): leaf for name, leaf in leaves.left.items()})
        return single(linen.cell, linen.params, NAME)
    kernel = leaves.take("dense_h.kernel", None, None)
    H, columns = kernel.shape
    gates = leaves.gates("dense_h.kernel", columns, H, (4, 3, 1))
    w_ih = leaves.take("dense_i.kernel", None, columns).T
    b = leaves.take("dense_h.bias" if gates == 4 else "dense_i.bias", columns)
    leaves.done()
    # nnx's GRUCell has no b_hn; one of zeros acts as none.
    params: Params = (
        filled(GRUParams, w_ih, kernel.T, b, np.zeros(H, b.dtype))
        if gates == 3
        else filled(LSTMParams if gates == 4 else RNNParams, w_ih, kernel.T, b)
    )
    return single(cell_of(gates, activation), params, NAME)


def write(model: Model) -> dict[str, Any]:
    """The state of the OptimizedLSTMCell, GRUCell or SimpleCell with these weights.

    Args:
      model: A Model of one layer and one direction: LSTM, GRU or RNN.

    Returns:
      A dict of NumPy arrays by dotted names.

    Raises:
      TypeError: If `model` is no Model.
      ValueError: If the model has another cell, several layers or two directions, or is a GRU whose
        b_hn is not 0, for which nnx has no leaf.

    Cost:
      One pass over the leaves; the kernels are views.

    >>> import numpy as np
    >>> cell = {"dense_i.kernel": (3, 15), "dense_h.kernel": (5, 15), "dense_i.bias": (15,)}
    >>> model = read({name: np.ones(shape, "float32") for name, shape in cell.items()})
    >>> {name: leaf.shape for name, leaf in write(model).items()} == cell
    True
    """
    check_model(model, ("lstm", "gru", "rnn"), NAME)
    kind, params = kind_of(model.cell), model.params
    if kind == "gru" and np.any(np.asarray(params.b_hn)):
        raise ValueError(
            "model: expected b_hn of zeros, since flax nnx's GRUCell has no such bias, got "
            "other values; flax_linen.write keeps them"
        )
    return {
        "dense_i.kernel": np.asarray(params.w_ih).T,
        "dense_h.kernel": np.asarray(params.w_hh).T,
        "dense_h.bias" if kind == "lstm" else "dense_i.bias": np.asarray(params.b),
    }


def write_lstm_cell(model: Model) -> dict[str, Any]:
    """The state of an nnx LSTMCell, a kernel for each gate.

    Args:
      model: A Model of one layer and one direction: an LSTM.

    Returns:
      A dict of NumPy arrays under linen's names but for `if_.kernel`.

    Raises:
      TypeError: If `model` is no Model.
      ValueError: If the model has another cell, several layers or two directions.

    Cost:
      One pass over the leaves; the kernels are views.

    >>> import numpy as np
    >>> cell = {"dense_i.kernel": (3, 20), "dense_h.kernel": (5, 20), "dense_h.bias": (20,)}
    >>> model = read({name: np.ones(shape, "float32") for name, shape in cell.items()})
    >>> write_lstm_cell(model)["if_.kernel"].shape
    (3, 5)
    """
    check_model(model, ("lstm",), NAME)
    names = {plain: name for name, plain in PLAIN.items()}
    return {names.get(name, name): leaf for name, leaf in flat(flax_linen.write(model)).items()}
