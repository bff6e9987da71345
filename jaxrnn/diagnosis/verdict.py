"""What becomes of a gradient on its way back, in four outcomes, and what is certain about it."""

import enum
import math

from jaxrnn.analysis.certificates import EXCLUDED, VANISHING

__all__ = ["BAND", "GROWN", "Certainty", "Course", "Grade", "certainty", "course", "grade"]

# From which growth a gradient explodes: false alarms, or explosions that are missed. Not measured;
# docs/decisions/advice-thresholds.md
GROWN = math.log(100.0)
# From which growth, and from which fall after it, a curve is said to grow and then to fade. Not
# measured; docs/decisions/advice-thresholds.md
TURNED = math.log(10.0)
# How near to the threshold a share is borderline: a tenth of a sequence. Not measured;
# docs/decisions/advice-thresholds.md
BAND = 0.1


class Course(enum.StrEnum):
    """What a gradient does on its way back along these inputs.

    Attributes:
      GROWS: It grows without bound: over 100-fold, and it has not turned at the longest lag.
      TRANSIENT: It grows over ten-fold, then fades to a tenth of that or less.
      HOLDS: It reaches the share of a sequence that it has to reach.
      FADES: It does not.
    """

    GROWS = "grows"
    TRANSIENT = "transient"
    HOLDS = "holds"
    FADES = "fades"


class Certainty(enum.StrEnum):
    """What is proved about an explosion.

    Attributes:
      ANY_INPUT: It is excluded for any input, by the weights alone.
      THESE_INPUTS: It is excluded along these inputs.
      OPEN: It is not excluded.
    """

    ANY_INPUT = "never"
    THESE_INPUTS = "not here"
    OPEN = "open"


class Grade(enum.StrEnum):
    """How a share of a sequence compares with the threshold.

    Attributes:
      REACHES: More than a tenth above it.
      BORDERLINE: Within a tenth of it.
      FALLS_SHORT: More than a tenth below it.
    """

    REACHES = "reaches"
    BORDERLINE = "borderline"
    FALLS_SHORT = "falls short"


def grade(share: float | None, threshold: float) -> Grade | None:
    """The grade of a share in [0, 1]; None if there is none.

    >>> [str(grade(share, 0.5)) for share in (8 / 17, 9 / 17, 0.2, 1.0)]
    ['borderline', 'borderline', 'falls short', 'reaches']
    """
    if share is None:
        return None
    # A threshold near 1 is met by the whole sequence: nothing reaches further.
    if share > min(threshold + BAND, 1 - 1e-9):
        return Grade.REACHES
    return Grade.BORDERLINE if share >= threshold - BAND else Grade.FALLS_SHORT


def course(
    growth: float | None,
    last: float | None,
    share: float | None,
    least: float,
    added: float = 0.0,
) -> Course:
    """What a curve of logs relative to lag 0 does.

    Args:
      growth: Its largest value, 0 or more; None for -inf.
      last: Its value at the longest lag; None for -inf.
      share: The share of a sequence that it reaches.
      least: The share that it has to reach.
      added: The growth of a net whose layers keep everything, a log: it is none.

    Returns:
      The outcome.
    """
    top = -math.inf if growth is None else growth
    end = -math.inf if last is None else last
    if top > GROWN + added and end > top - TURNED:
        return Course.GROWS
    if top > TURNED + added and end <= top - TURNED:
        return Course.TRANSIENT
    return Course.HOLDS if share is not None and share >= least else Course.FADES


def certainty(any_input: str | None, these_inputs: str | None) -> Certainty | None:
    """What is certain, from the verdicts of `certificates`; None if nothing was asked."""
    excluded = (VANISHING, EXCLUDED)
    if any_input in excluded:
        return Certainty.ANY_INPUT
    if these_inputs in excluded:
        return Certainty.THESE_INPUTS
    return None if any_input is None and these_inputs is None else Certainty.OPEN
