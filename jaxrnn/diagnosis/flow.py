"""A diagnosis: what was measured, and what to do."""

import dataclasses
import functools

import jax

from jaxrnn.diagnosis import printing
from jaxrnn.diagnosis.advice import Advice
from jaxrnn.diagnosis.figures import Summary
from jaxrnn.diagnosis.record import Record
from jaxrnn.diagnosis.summary import summarise

__all__ = ["GradientFlow"]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["net", "layers", "lengths", "spans", "nonfinite", "source"],
    meta_fields=["names", "cell", "gates", "loss", "watched", "threshold", "advice"],
)
@dataclasses.dataclass(frozen=True)
class GradientFlow(Record):
    """How the gradients of a net flow back through time. Printed, it is a summary with advice.

    Attributes:
      advice: What to do, each piece with the measurement behind it, and what it did when it was
        tried; never empty. First NaN or inf, then illnesses, then clipping and truncation. If
        nothing was found, one Advice says so.
    """

    advice: tuple[Advice, ...]

    def summary(self) -> Summary:
        """The figures that matter, as plain numbers."""
        return summarise(self)

    def __str__(self) -> str:
        """A table of the net and its layers, and the advice."""
        return printing.text(self, self.advice)

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        return printing.table_html(self, self.advice)
