"""A net read from a framework's weights, with what its layout needs for the way back."""

import dataclasses
from typing import Any

import numpy as np

from jaxrnn import _checks
from jaxrnn.cells.activations import Activation, Given, tanh
from jaxrnn.cells.contract import Cell, Params
from jaxrnn.cells.gru import gru
from jaxrnn.cells.lstm import lstm
from jaxrnn.cells.pointwise_cell import PointwiseCell
from jaxrnn.cells.rnn import rnn
from jaxrnn.nets.layers import Layer

__all__ = [
    "Model",
    "blocks",
    "cell_of",
    "check_layers",
    "check_model",
    "filled",
    "kind_of",
    "single",
]


WHAT_A_STEP_IS = ("phi", "projections", "units", "output")


@dataclasses.dataclass(frozen=True)
class Model:
    """A cell and its layers; the leaves are NumPy arrays of the dtype they came in.

    Attributes:
      cell: The cell of every layer.
      layers: A tuple of `jaxrnn.layers.Layer` of params.
      layout: The name of the layout it was read from.
      kept: What the layout has and the params have not. `write` uses it where the params are still
        what they were. After training: `dataclasses.replace(model, layers=trained)`.
    """

    cell: Cell
    layers: tuple[Layer, ...]
    layout: str
    kept: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def params(self) -> Any:
        """The params of a net of one layer and one direction.

        Raises:
          ValueError: If the net has several layers or two directions.
        """
        if len(self.layers) != 1 or self.layers[0].reverse is not None:
            raise ValueError(
                f"model: expected one layer of one direction, got {len(self.layers)} layers"
                f"{' of two directions' if self.layers[0].reverse is not None else ''}; "
                "use model.layers with jaxrnn.layers"
            )
        return self.layers[0].forward


def kind_of(cell: Any) -> str:
    """The kind of a cell: lstm and gru of sigmoid and tanh, rnn; for any other cell its name.

    A cell with the params of one of them and another step, such as an LSTM of hard sigmoids, is
    another model: its name is no kind that a library has. An RNN may have any activation, which is
    told beside its weights everywhere.
    """
    if not isinstance(cell, PointwiseCell):
        return getattr(cell, "name", "cell")
    first = cell.phi.update.first if isinstance(cell.phi.update, Given) else ()
    activations = [given for given in first if isinstance(given, Activation)] or [tanh]
    for kind, usual in (("rnn", rnn(activations[0])), ("lstm", lstm()), ("gru", gru())):
        if all(getattr(cell, field) == getattr(usual, field) for field in WHAT_A_STEP_IS):
            return kind
    return cell.name


def blocks(weight: Any, order: tuple[int, ...]) -> Any:
    """The G blocks of rows of `(G·H, ·)` in another order: block order[g] in place g."""
    split = np.split(weight, len(order))
    return np.concatenate([split[g] for g in order])


def check_model(model: Any, kinds: tuple[str, ...], layout: str) -> None:
    """Refuse what is no Model, and a Model whose cell is none of `kinds`."""
    if not isinstance(model, Model):
        raise TypeError(f"model: expected a Model, got {_checks.describe(model)}")
    if kind_of(model.cell) not in kinds:
        raise ValueError(
            f"model: expected a cell that {layout} has, {' or '.join(kinds)}, got "
            f"{kind_of(model.cell)}"
        )


def check_layers(model: Model, layout: str) -> None:
    """Refuse layers of unequal H or directions, or of another D than the layer below puts out."""
    if not model.layers:
        raise ValueError("model.layers: expected at least one layer, got none")
    first, words = model.layers[0], ("one direction", "two directions")
    both, D, H = first.reverse is not None, *_widths(first.forward)
    for k, layer in enumerate(model.layers):
        if (layer.reverse is not None) != both:
            raise ValueError(
                f"model.layers[{k}]: expected {words[both]}, as layers[0] has, since {layout} has "
                f"the same in every layer, got {words[not both]}"
            )
        want = (H * (1 + both) if k else D), H
        for side, params in layer._asdict().items():
            if params is not None and (got := _widths(params)) != want:
                raise ValueError(
                    f"model.layers[{k}].{side}: expected H = {want[1]} and D = {want[0]}, since "
                    f"{layout} has one H for all layers, got H = {got[1]} and D = {got[0]}"
                )


def _widths(params: Params) -> tuple[int, int]:
    return params.w_ih.shape[1], params.w_hh.shape[1]


def filled(params: Params, *leaves: Any) -> Any:
    """Params of NumPy arrays; Any, since their fields are annotated as JAX's arrays."""
    return params(*leaves)


def single(cell: Any, params: Params, layout: str, **kept: Any) -> Model:
    """A model of one layer and one direction."""
    return Model(cell, (Layer(params),), layout, kept)


def cell_of(gates: int, activation: Any) -> Any:
    """The cell with this number of gates: 4 lstm, 3 gru, 1 rnn."""
    return {4: lstm, 3: gru, 1: lambda: rnn(activation)}[gates]()
