"""One pass over a model and a batch: how its gradients flow back through time, and what to do.

`diagnose` measures, tries remedies and returns a `GradientFlow`. Printed, it is a summary with
advice; in a notebook it shows as a table; `jaxrnn.report` makes a page of it. `cured` gives the
params after an advice.
"""

from jaxrnn.diagnosis.advice import Advice, Change, Outcome
from jaxrnn.diagnosis.examination import diagnose
from jaxrnn.diagnosis.figures import (
    GateSummary,
    LayerSummary,
    Nonfinite,
    ReadingSummary,
    Spread,
    Summary,
)
from jaxrnn.diagnosis.flow import GradientFlow
from jaxrnn.diagnosis.record import LayerFlow, Reading, Record
from jaxrnn.diagnosis.remedies import cured
from jaxrnn.diagnosis.verdict import Certainty, Course, Grade

__all__ = [
    "Advice",
    "Certainty",
    "Change",
    "Course",
    "GateSummary",
    "Grade",
    "GradientFlow",
    "LayerFlow",
    "LayerSummary",
    "Nonfinite",
    "Outcome",
    "Reading",
    "ReadingSummary",
    "Record",
    "Spread",
    "Summary",
    "cured",
    "diagnose",
]
