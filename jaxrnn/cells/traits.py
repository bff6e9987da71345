"""What an algorithm may want to know of a cell: its slope, its read-out, its gates."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

__all__ = ["ROLES", "Gate", "Traits"]

ROLES = ("keeps", "writes", "reads", "resets", "proposes")


class Gate(NamedTuple):
    """One gate: a block of rows of W_ih and W_hh, and what it is for.

    Attributes:
      name: Its letter, such as "f".
      title: Its name in a sentence, such as "forget".
      role: "keeps" the old state, "writes" what is proposed, "reads" the state out, "resets" what a
        proposal sees of the state, or "proposes" what may be written; "" if it is not known. In a
        cell without a gate that writes, a gate that keeps does both: it writes what it does not
        keep.
      range: (lowest, highest) value, with ±inf where there is no bound.
      value: z ↦ what the gate lets through at the pre-activation z; None if it is not known.
    """

    name: str
    title: str
    role: str
    range: tuple[float, float]
    value: Callable[[Array], Array] | None = None


class Traits(NamedTuple):
    """What an algorithm may want to know of a cell, so that it need not look inside.

    Attributes:
      slope: For a cell with one gate, a number γ with ‖∂h/∂h₋‖ ≤ γ σ_max(W_hh); None if no such
        number is known. `certificates` use it.
      linear: Whether ∂h/∂h₋ is γ W_hh itself.
      readout: partials ↦ ∂h/∂c at fixed gates, `(*lead, H)`, for a state (h, c); None if the cell
        has none. A cell that has one has `pulled_apart` too.
      gates: A `Gate` for each block of rows; empty for a bare step.
      gate_values: (params, s₋, x) ↦ what each gate lets through, a tuple of `(*lead, H)`; None if
        the cell does not tell.
      recurrent_weight: params ↦ W_hh `(G·H, H)`; None for a bare step.
      output_size: P, if the output h is projected to P < H entries; None if nothing is projected.
    """

    slope: float | None = None
    linear: bool = False
    readout: Callable[[Any], Array] | None = None
    gates: tuple[Gate, ...] = ()
    gate_values: Callable[[Any, Any, Array], tuple[Array, ...]] | None = None
    recurrent_weight: Callable[[Any], Array] | None = None
    output_size: int | None = None
