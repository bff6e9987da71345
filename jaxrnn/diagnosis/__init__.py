"""One pass over a model and a batch: how its gradients flow back through time, and what to do.

`diagnose` measures and returns a `GradientFlow`. Printed, it is a summary with advice; in a
notebook it shows as a table; `jaxrnn.report` makes a page of it.
"""

from jaxrnn.diagnosis.advice import Advice
from jaxrnn.diagnosis.advising import advise
from jaxrnn.diagnosis.examination import diagnose
from jaxrnn.diagnosis.flow import GradientFlow, LayerFlow

__all__ = ["Advice", "GradientFlow", "LayerFlow", "advise", "diagnose"]
