"""Holding a cell's derivatives against references that do not use them.

>>> import jaxrnn
>>> report = jaxrnn.verify(jaxrnn.rnn(), shapes=((2, 3),), cases=8)
>>> report.passed
True
"""

from jaxrnn.verification.report import Check, Report, Worst
from jaxrnn.verification.saturation import Saturation, saturation
from jaxrnn.verification.suite import SCALES, SHAPES, assert_cell, redraw, verify

__all__ = [
    "SCALES",
    "SHAPES",
    "Check",
    "Report",
    "Saturation",
    "Worst",
    "assert_cell",
    "redraw",
    "saturation",
    "verify",
]
