"""haiku's LSTM, GRU and VanillaRNN. As in dm-haiku 0.0.17.

LSTM    linear.w (D+H, 4H) rows [x; h], linear.b; gates i g f o, and 1 is added to f as it runs
GRU     w_i (D, 3H), w_h (H, 3H), b; gates z r a, h' = (1-z) h + z a, reset before the matmul
RNN     linear.w (D, H), linear.b, linear_1.w (H, H), linear_1.b; relu
"""

from typing import Any

import numpy as np

from jaxrnn.cells.activations import relu
from jaxrnn.cells.lstm import LSTMParams, lstm
from jaxrnn.cells.reset_first_gru import ResetFirstParams, reset_first_gru
from jaxrnn.cells.rnn import RNNParams, rnn
from jaxrnn.nets.convert.leaves import Leaves, merged, parted
from jaxrnn.nets.convert.model import Model, blocks, check_model, filled, kind_of, single

__all__ = ["read", "write"]

NAME = "haiku"
IGFO = (0, 2, 1, 3)  # i g f o as i f g o, and back
ZRA = (1, 0, 2)  # z r a as r z n, and back


def read(arrays: Any, *, prefix: str = "") -> Model:
    """A haiku core from its params.

    Args:
      arrays: `{name: array}`, nested as haiku has them or flat, real floats.
      prefix: What all the names begin with, such as "lstm" for `lstm/linear`.

    Returns:
      A Model of one layer. The names tell the cell; the activation of a VanillaRNN is relu.

    Raises:
      TypeError: If `arrays` is no dict, `prefix` no string, or a leaf no real floating array of the
        same dtype as the others. The message names the leaf.
      ValueError: If a leaf is missing, has another shape, or is none of this layout's. The message
        names the leaf.

    Cost:
      At most two passes over the leaves: rows are put in order, and a sign is turned.

    >>> import numpy as np
    >>> linear = {"w": np.zeros((8, 20), "float32"), "b": np.zeros(20, "float32")}
    >>> model = read({"lstm/linear": linear}, prefix="lstm")
    >>> model.params.b.reshape(4, 5)[:, 0].tolist()                             # 1 on f
    [0.0, 1.0, 0.0, 0.0]
    """
    leaves = Leaves(NAME, arrays, prefix)
    if "w_h" in leaves:
        w_h = leaves.take("w_h", None, None)
        H, columns = w_h.shape
        leaves.gates("w_h", columns, H, (3,))
        w_i, b = leaves.take("w_i", None, columns), leaves.take("b", columns)
        leaves.done()
        turned = (_negated(blocks(leaf, ZRA), 1) for leaf in (w_i.T, w_h.T, b))
        return single(reset_first_gru(), filled(ResetFirstParams, *turned), NAME)
    w = leaves.take("linear.w", None, None)
    if "linear_1.w" in leaves:
        w_hh = leaves.take("linear_1.w", w.shape[1], w.shape[1])
        b = leaves.take("linear.b", w.shape[1])
        second = leaves.take("linear_1.b", w.shape[1]) if "linear_1.b" in leaves else None
        leaves.done()
        both = None if second is None else (b, second)
        params = filled(RNNParams, w.T, w_hh.T, b if both is None else merged(*both))
        return single(rnn(relu), params, NAME, biases=both)
    # Rounded down; the next line refuses a number of columns that is no multiple of 4.
    H = w.shape[1] // 4
    leaves.gates("linear.w", w.shape[1], H, (4,))
    b = leaves.take("linear.b", 4 * H)
    leaves.done()
    if w.shape[0] < H:
        raise ValueError(
            f"{leaves.dotted}linear.w: expected at least H = {H} rows, [x; h], got {w.shape[0]}"
        )
    rows, b = blocks(w.T, IGFO), blocks(b, IGFO)
    # haiku multiplies [x; h] by one matrix: its last H rows are W_hh.
    params = filled(LSTMParams, rows[:, :-H], rows[:, -H:], merged(b, _one_on_f(b)))
    # (b + 1) - 1 is not always b: its own bits are kept for `write`.
    return single(lstm(), params, NAME, b=b)


def write(model: Model) -> dict[str, Any]:
    """The params of the haiku core with these weights, by dotted names without a prefix.

    Args:
      model: A Model of one layer and one direction: an LSTM, an RNN with relu, or
        `reset_first_gru`.

    Returns:
      A dict of NumPy arrays by name. Biases are bit for bit what `read` took, if they have not
      changed since.

    Raises:
      TypeError: If `model` is no Model.
      ValueError: If the model has another cell or activation, several layers or two directions.

    Cost:
      At most two passes over the leaves: rows are put in order, and a sign is turned.

    >>> import numpy as np
    >>> linear = {"w": np.zeros((8, 20), "float32"), "b": np.zeros(20, "float32")}
    >>> {name: leaf.shape for name, leaf in write(read({"linear": linear})).items()}
    {'linear.w': (8, 20), 'linear.b': (20,)}
    """
    check_model(model, ("lstm", "rnn", "reset_first_gru"), NAME)
    kind, params = kind_of(model.cell), model.params
    w_ih, w_hh, b = (np.asarray(leaf) for leaf in params[:3])
    kept = model.kept if model.layout == NAME else {}
    if kind == "reset_first_gru":
        w_i, w_h, b = (blocks(_negated(leaf, 1), ZRA) for leaf in (w_ih, w_hh, b))
        return {"w_i": w_i.T, "w_h": w_h.T, "b": b}
    if kind == "rnn":
        if model.cell != rnn(relu):
            raise ValueError(f"model: expected relu, haiku's activation, got {model.cell!r}")
        found = {"linear.w": w_ih.T, "linear_1.w": w_hh.T}
        if kept and kept["biases"] is None:
            return found | {"linear.b": b}
        first, second = parted(b, kept.get("biases"))
        return found | {"linear.b": first, "linear_1.b": second}
    was = kept.get("b")
    # The 1 stands as the second of two biases, so that the first comes back as it was.
    b = parted(b, (b - _one_on_f(b) if was is None else was, _one_on_f(b)))[0]
    w = np.concatenate([blocks(w_ih, IGFO).T, blocks(w_hh, IGFO).T])
    return {"linear.w": w, "linear.b": blocks(b, IGFO)}


def _one_on_f(b: Any) -> Any:
    """The 1 that haiku's step adds to f, as a bias in the order i f g o."""
    H = len(b) // 4
    return np.repeat(np.array([0, 1, 0, 0], b.dtype), H)


def _negated(leaf: Any, block: int) -> Any:
    """One block of rows with its sign turned: z in haiku is 1 - z here, and 1 - σ(v) = σ(-v)."""
    rows = len(leaf) // 3
    return np.concatenate([leaf[: block * rows], -leaf[block * rows : (block + 1) * rows],
                           leaf[(block + 1) * rows :]])  # fmt: skip
