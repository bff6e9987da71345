"""torch's LSTM, GRU and RNN: layers, two directions, two biases. As in torch 2.13.0.

    weight_ih_l{k}[_reverse] (G·H, D), weight_hh_l{k} (G·H, H), bias_ih_l{k}, bias_hh_l{k} (G·H)

The gates are i f g o and r z n, in this library's order. The two biases add up to b. Only the n
block of the GRU's bias_hh stands apart: it is b_hn, since the reset gate multiplies it.
"""

from typing import Any

import numpy as np

from jaxrnn.cells.activations import Activation, tanh
from jaxrnn.cells.contract import Params
from jaxrnn.cells.gru import GRUParams
from jaxrnn.cells.lstm import LSTMParams
from jaxrnn.cells.rnn import RNNParams
from jaxrnn.nets.convert.leaves import Leaves, merged, parted
from jaxrnn.nets.convert.model import Model, cell_of, check_layers, check_model, filled, kind_of
from jaxrnn.nets.layers import Layer

__all__ = ["read", "write"]

NAME = "torch"
GATE_COUNTS = {"lstm": 4, "gru": 3, "rnn": 1}


def read(arrays: Any, *, activation: Activation = tanh, prefix: str = "") -> Model:
    """A `torch.nn.LSTM`, `GRU` or `RNN` from its state dict as arrays.

    Args:
      arrays: `{name: array}`, nested or flat, real floats.
      activation: The activation of an RNN, which its weights do not tell.
      prefix: What all the names begin with: "encoder.lstm" for `encoder.lstm.weight_ih_l0`.

    Returns:
      A Model with a Layer for each of torch's, reverse where it has two directions. The rows of
      weight_hh_l0 tell the cell: 4H, 3H or H.

    Raises:
      TypeError: If `arrays` is no dict, `prefix` no string, or a leaf no real floating array of the
        same dtype as the others; the message names the leaf. For an RNN, if `activation` is no
        `Activation`.
      ValueError: If a leaf is missing, has another shape, or is none of this layout's. The message
        names the leaf.

    Cost:
      O(G·H) for each layer, to add the biases. The weights are not copied.

    >>> import numpy as np
    >>> shapes = {"weight_ih_l0": (20, 3), "weight_hh_l0": (20, 5), "bias_ih_l0": (20,),
    ...           "bias_hh_l0": (20,)}
    >>> read({name: np.ones(shape, "float32") for name, shape in shapes.items()}).cell
    lstm(gates=i,f,g,o)
    """
    leaves = Leaves(NAME, arrays, prefix)
    layers: list[Layer] = []
    kept: dict[str, Any] = {}
    rows: Any = None
    H: Any = None
    gates, width = 0, None
    # torch has one number of directions and one H for all layers: layer 0 tells both.
    directions = ("", "_reverse")[: 1 + ("weight_ih_l0_reverse" in leaves)]
    # Layer 0 is always read, so that a missing leaf of it is named.
    while not layers or f"weight_ih_l{len(layers)}" in leaves:
        sides: list[Any] = [None, None]
        for side, direction in enumerate(directions):
            at = f"l{len(layers)}{direction}"
            w_hh = leaves.take(f"weight_hh_{at}", rows, H)
            rows, H = w_hh.shape
            gates = leaves.gates(f"weight_hh_{at}", rows, H, (4, 3, 1))
            w_ih = leaves.take(f"weight_ih_{at}", rows, width)
            biases = None
            if f"bias_ih_{at}" in leaves:
                biases = leaves.take(f"bias_ih_{at}", rows), leaves.take(f"bias_hh_{at}", rows)
            kept[at] = biases
            sides[side] = _params(gates, w_ih, w_hh, biases)
        layers.append(Layer(*sides))
        width = H * len(directions)
    leaves.done()
    return Model(cell_of(gates, activation), tuple(layers), NAME, kept)


def write(model: Model) -> dict[str, Any]:
    """The state dict of the torch module with these weights, without a prefix.

    Args:
      model: A Model of LSTMs, GRUs or RNNs, all layers of one H and of as many directions.

    Returns:
      A dict of NumPy arrays by name. If one bias alone is known, as after another layout, the
      second is 0, but for a GRU's b_hn. If none was read and all are still 0, there is none.

    Raises:
      TypeError: If `model` is no Model.
      ValueError: If torch has no such cell, or a layer does not fit; the message names it.

    Cost:
      O(G·H) for each layer, to part the biases. The weights are not copied.

    >>> import numpy as np
    >>> shapes = {"weight_ih_l0": (20, 3), "weight_hh_l0": (20, 5)}
    >>> model = read({name: np.ones(shape, "float32") for name, shape in shapes.items()})
    >>> {name: leaf.shape for name, leaf in write(model).items()} == shapes
    True
    """
    check_model(model, tuple(GATE_COUNTS), NAME)
    check_layers(model, NAME)
    # What another layout kept means nothing here.
    kept = model.kept if model.layout == NAME else {}
    found: dict[str, Any] = {}
    for index, layer in enumerate(model.layers):
        for params, direction in ((layer.forward, ""), (layer.reverse, "_reverse")):
            if params is None:
                continue
            at = f"l{index}{direction}"
            found[f"weight_ih_{at}"] = np.asarray(params.w_ih)
            found[f"weight_hh_{at}"] = np.asarray(params.w_hh)
            biases = _biases(kind_of(model.cell), params, kept.get(at))
            # A torch module made with bias=False stays one as long as it has none.
            if at not in kept or kept[at] is not None or any(np.any(b) for b in biases):
                found[f"bias_ih_{at}"], found[f"bias_hh_{at}"] = biases
    return found


def _params(gates: int, w_ih: Any, w_hh: Any, biases: Any) -> Any:
    H = w_hh.shape[1]
    b_ih, b_hh = (np.zeros(len(w_hh), w_hh.dtype),) * 2 if biases is None else biases
    if gates == GATE_COUNTS["gru"]:
        # n = tanh(uⁿ + r ⊙ (W h + b_hn)): r multiplies this bias alone, so the two of n do not add
        # up.
        b = np.concatenate([merged(b_ih[: 2 * H], b_hh[: 2 * H]), b_ih[2 * H :]])
        return filled(GRUParams, w_ih, w_hh, b, b_hh[2 * H :])
    return filled(
        LSTMParams if gates == GATE_COUNTS["lstm"] else RNNParams, w_ih, w_hh, merged(b_ih, b_hh)
    )


def _biases(kind: str, params: Params, kept: Any) -> tuple[Any, Any]:
    b = np.asarray(params.b)
    if kind != "gru":
        return parted(b, kept)
    H = params.w_hh.shape[1]
    head = None if kept is None else (kept[0][: 2 * H], kept[1][: 2 * H])
    b_ih, b_hh = parted(b[: 2 * H], head)
    return np.concatenate([b_ih, b[2 * H :]]), np.concatenate([b_hh, np.asarray(params.b_hn)])
