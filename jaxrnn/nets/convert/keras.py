"""keras's LSTM, GRU and SimpleRNN: kernel (D, G·H), recurrent_kernel (H, G·H), bias.

    LSTM    gates i f c o, c the candidate
    GRU     gates z r h; reset_after=True: bias (2, 3H), the second row inside the reset;
            reset_after=False: bias (3H,), and a cell of its own
    Simple  one gate, tanh unless another activation is given

Kernels are transposed: their columns are the rows here. As in keras 3.15.1.
"""

from typing import Any

import numpy as np

from jaxrnn.cells.activations import Activation, tanh
from jaxrnn.cells.gru import GRUParams, gru
from jaxrnn.cells.lstm import LSTMParams, lstm
from jaxrnn.cells.reset_first_gru import ResetFirstParams, reset_first_gru
from jaxrnn.cells.rnn import RNNParams, rnn
from jaxrnn.nets.convert.leaves import Leaves, merged, parted
from jaxrnn.nets.convert.model import Model, blocks, check_model, filled, kind_of, single

__all__ = ["read", "write"]

NAME = "keras"
ZRH = (1, 0, 2)  # z r h as r z n, and back


def read(arrays: Any, *, activation: Activation = tanh, prefix: str = "") -> Model:
    """A keras layer from its weights by name.

    Args:
      arrays: `{"kernel": …, "recurrent_kernel": …, "bias": …}`, nested or flat, real floats.
      activation: The activation of a SimpleRNN.
      prefix: What all the names begin with, such as "lstm.lstm_cell".

    Returns:
      A Model of one layer. The columns of recurrent_kernel tell the cell, and for a GRU also the
      shape of its bias. Sequences are time-major here and batch-major in keras.

    Raises:
      TypeError: If `arrays` is no dict, `prefix` no string, or a leaf no real floating array of the
        same dtype as the others; the message names the leaf. For an RNN, if `activation` is no
        `Activation`.
      ValueError: If a leaf is missing, has another shape, or is none of this layout's. A GRU
        without a bias is refused too, since nothing tells where it resets.

    Cost:
      One pass over the leaves; the rows of a GRU are put in order.

    >>> import numpy as np
    >>> shapes = {"kernel": (3, 15), "recurrent_kernel": (5, 15), "bias": (2, 15)}
    >>> read({name: np.ones(shape, "float32") for name, shape in shapes.items()}).cell
    gru(gates=r,z,n)
    """
    leaves = Leaves(NAME, arrays, prefix)
    w_hh = leaves.take("recurrent_kernel", None, None).T
    rows, H = w_hh.shape
    gates = leaves.gates("recurrent_kernel", rows, H, (4, 3, 1))
    w_ih = leaves.take("kernel", None, rows).T
    biased = "bias" in leaves
    if gates != 3:
        b = leaves.take("bias", rows) if biased else np.zeros(rows, w_hh.dtype)
        leaves.done()
        if gates == 4:
            return single(lstm(), filled(LSTMParams, w_ih, w_hh, b), NAME, biased=biased)
        return single(rnn(activation), filled(RNNParams, w_ih, w_hh, b), NAME, biased=biased)
    w_ih, w_hh = blocks(w_ih, ZRH), blocks(w_hh, ZRH)
    if not biased:
        raise ValueError(
            "bias: expected shape (2, 3H) for reset_after=True or (3H,) for reset_after=False, got "
            "no bias, which leaves the kind of GRU open; add a bias of zeros"
        )
    # Looked at before it is taken: its shape alone tells where the GRU resets.
    if leaves.left["bias"].ndim == 2:
        first, second = (blocks(row, ZRH) for row in leaves.take("bias", 2, rows))
        leaves.done()
        head = first[: 2 * H], second[: 2 * H]
        b = np.concatenate([merged(*head), first[2 * H :]])
        return single(gru(), filled(GRUParams, w_ih, w_hh, b, second[2 * H :]), NAME, biases=head)
    b = blocks(leaves.take("bias", rows), ZRH)
    leaves.done()
    return single(reset_first_gru(), filled(ResetFirstParams, w_ih, w_hh, b), NAME)


def write(model: Model) -> dict[str, Any]:
    """The weights of the keras layer with these weights, by name without a prefix.

    Args:
      model: A Model of one layer and one direction: LSTM, GRU, RNN or `reset_first_gru`.

    Returns:
      A dict of NumPy arrays by name. There is no bias where `read` found none and b is still 0.

    Raises:
      TypeError: If `model` is no Model.
      ValueError: If the model has another cell, several layers or two directions.

    Cost:
      One pass over the leaves; the rows of a GRU are put in order.

    >>> import numpy as np
    >>> shapes = {"kernel": (3, 15), "recurrent_kernel": (5, 15), "bias": (2, 15)}
    >>> model = read({name: np.ones(shape, "float32") for name, shape in shapes.items()})
    >>> write(model)["bias"].shape
    (2, 15)
    """
    check_model(model, ("lstm", "gru", "rnn", "reset_first_gru"), NAME)
    kind, params = kind_of(model.cell), model.params
    w_ih, w_hh, b = (np.asarray(leaf) for leaf in params[:3])
    kept = model.kept if model.layout == NAME else {}
    if kind in ("gru", "reset_first_gru"):
        H = w_hh.shape[1]
        found = {"kernel": blocks(w_ih, ZRH).T, "recurrent_kernel": blocks(w_hh, ZRH).T}
        if kind == "reset_first_gru":
            return found | {"bias": blocks(b, ZRH)}
        head = parted(b[: 2 * H], kept.get("biases"))
        # Of n the two biases are told apart already: b_hn is the one that r multiplies.
        tails = b[2 * H :], np.asarray(params.b_hn)
        pairs = zip(head, tails, strict=True)
        return found | {"bias": np.stack([blocks(np.concatenate(p), ZRH) for p in pairs])}
    found = {"kernel": w_ih.T, "recurrent_kernel": w_hh.T}
    return found if kept and not kept["biased"] and not b.any() else found | {"bias": b}
