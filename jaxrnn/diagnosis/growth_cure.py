"""Against gradients that grow: recurrent weights made smaller, as little as is enough."""

import math

from jaxrnn.diagnosis.advice import Change
from jaxrnn.diagnosis.cures import ROUNDS, Found, trials_length, what_it_did
from jaxrnn.diagnosis.figures import Summary
from jaxrnn.diagnosis.trials import Trials, Tried, outcome
from jaxrnn.diagnosis.verdict import TURNED, Grade

__all__ = ["against_growth"]


def against_growth(trials: Trials, side: int, summary: Summary, rates: list[float]) -> Found:
    """Recurrent weights times a factor below 1: of one layer, then of all that grow."""
    layer, rate = summary.layers[side], rates[side]
    bound = layer.gamma_sigma_max
    clip = "clip (clipping.clip_by_global_norm)"
    if math.isnan(rate) and bound is None:
        return Found(
            f"The sequences are too short for exponents: measure longer ones; {clip} meanwhile.",
            math.nan,
        )
    if rate <= 0 and not (bound is not None and bound > 1):
        return Found(
            f"The growth is transient, λ is not above 0: {clip}, and leave the weights as they "
            "are.",
            math.nan,
        )
    if not trials.cell.gates:
        return Found(
            "Scale the recurrent weights down, or let a gate forget more, until the leading "
            f"exponent is not above 0; {clip} meanwhile. It was not tried: which weights are "
            "recurrent is not known.",
            math.exp(-rate),
        )
    before = outcome(trials.measured(trials.net))
    added = trials.added
    growing = [k for k, each in enumerate(summary.layers)
               if rates[k] > 0 or (each.log_growth or 0.0) > TURNED]  # fmt: skip
    best, certain = None, False
    for group in ([side], growing, list(range(len(summary.layers)))):
        search = _Calming(trials, [(summary.layers[k].name, k) for k in group], added)
        # The bound holds for any input; it is taken if the net still remembers.
        if bound is not None and bound > 1 and group == [side]:
            found = search.tried(-math.log(bound))
            if search.calm(found) and search.kept(found):
                best, certain = found, True
        best = best or search.found(max(rate, 0.01))
        if best is not None:
            break
    if best is None:
        return Found(f"No factor of w_hh that was tried ends the growth: {clip}.", math.nan, before)
    after, factor = outcome(best.readings), best.changes[-1].value
    names = " and ".join(change.layer for change in best.changes)
    why = (
        f"γσ_max(W_hh) = {bound:.3g}: multiply w_hh by {factor:.3g} and no input can make a "
        "gradient explode (initializers.scaled_to_bound)"
        if certain
        else f"Multiply w_hh of {names} by {factor:.3g} (initializers.scaled_to_exponent); {clip} "
        "meanwhile"
    )
    told = what_it_did(before, after, trials_length(trials))
    return Found(f"{why}. {told}", factor, before, after, best.changes, names)


class _Calming:
    """A factor of the recurrent weights of some layers, the largest that ends the growth."""

    def __init__(self, trials: Trials, sides: list[tuple[str, int]], added: float) -> None:
        self.trials, self.sides, self.added = trials, sides, added

    def tried(self, log: float) -> Tried:
        """The net with w_hh times e^log."""
        return self.trials.changed(
            *[Change(name, side, "recurrent", math.exp(log)) for name, side in self.sides]
        )

    def calm(self, found: Tried) -> bool:
        """Whether what is left of the growth is well below what counts."""
        return outcome(found.readings).growth <= TURNED + self.added

    def kept(self, found: Tried) -> bool:
        """Whether the net still reaches."""
        return all(reading.grade == Grade.REACHES for reading in found.readings)

    def found(self, rate: float) -> Tried | None:
        """From e^-rate on down until the growth ends; then up again while memory is short."""
        low, high, best = 0.0, rate, None  # grows at e^-low, is calm at e^-high
        for _ in range(ROUNDS):
            found = self.tried(-high)
            if self.calm(found):
                best = found
                break
            low, high = high, 2 * high
        if best is None or self.kept(best):
            return best
        for _ in range(ROUNDS):
            middle = (low + high) / 2
            found = self.tried(-middle)
            if self.calm(found):
                best, high = found, middle
                if self.kept(found):
                    break
            else:
                low = middle
        return best
