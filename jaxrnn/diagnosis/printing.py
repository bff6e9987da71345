"""A diagnosis in a terminal and in a notebook."""

import html as escaping
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrnn.analysis.certificates import EXCLUDED, VANISHING
from jaxrnn.diagnosis.summary import median_curve

if TYPE_CHECKING:
    from jaxrnn.diagnosis.flow import GradientFlow

__all__ = ["heading", "rows", "table_html", "text"]

CERTAIN = (VANISHING, EXCLUDED)
HEADINGS = ("horizon 10 %", "1 %", "exponent", "σ_max", "verdict")


def rows(numbers: dict[str, Any]) -> list[list[str]]:
    """The cells of the table, a row for each layer.

    They are (name, horizon 10 %, horizon 1 %, exponent, σ_max of a step, verdict).
    """
    found = []
    for layer in numbers["layers"]:
        exponent, norm = (layer.get("exponents") or [None])[0], layer.get("step_norm") or {}
        said = [layer.get(f"verdict_{of}") or {} for of in ("any_input", "these_inputs")]
        # The strongest verdict that is certain, for any input or for these; CERTAIN is in order of
        # strength. If none is certain, what was seen along these inputs.
        certain = [v["verdict"] for v in said if v.get("verdict") in CERTAIN]
        verdict = min(certain, key=CERTAIN.index, default=said[1].get("verdict", "–"))
        horizons = [layer[f"horizon_{p}_percent"]["median"] for p in (10, 1)]
        found.append(
            [
                layer["name"],
                *["–" if h is None else f"{h:.0f}" for h in horizons],
                # A measured exponent that is None in the summary is -inf: JSON has no such number.
                f"{exponent:+.3f}"
                if exponent is not None
                else "–"
                if "exponents" not in layer
                else "-∞",
                "–" if norm.get("median") is None else f"{norm['median']:.3g}",
                verdict,
            ]
        )
    return found


def heading(numbers: dict[str, Any]) -> str:
    """What was measured, in one line."""
    loss = {
        "last": "a loss on the last step",
        "steps": "a loss on many steps, lags by random cotangents",
        "random": "random cotangents on the last output",
    }[numbers["loss"]]
    return (
        f"{numbers['cell']}, {len(numbers['layers'])} layer direction"
        f"{'s' * (len(numbers['layers']) > 1)}; {numbers['examples']} examples of up to "
        f"{numbers['steps']} steps; {loss}"
    )


def text(flow: "GradientFlow") -> str:
    """A table that fits 80 columns, and the advice."""
    numbers = flow.summary()
    table = rows(numbers)
    width = max(len(row[0]) for row in table)
    lines = [heading(numbers), ""]
    # The verdict comes last, since its width varies.
    lines.append(f"{'':{width}}{'horizon 10 %':>14}{'1 %':>6}{'exponent':>10}{'σ_max':>8}  verdict")
    for name, ten, one, exponent, norm, verdict in table:
        lines.append(f"{name:{width}}{ten:>14}{one:>6}{exponent:>10}{norm:>8}  {verdict}")
    lines.append("")
    for advice in flow.advice:
        lines += textwrap.wrap(str(advice), 78, initial_indent="* ", subsequent_indent="  ")
    return "\n".join(lines)


def table_html(flow: "GradientFlow") -> str:
    """The same for a notebook: an HTML table with the curve of each layer."""
    numbers = flow.summary()
    escape = escaping.escape
    head = "".join(f"<th>{name}</th>" for name in ("", *HEADINGS, "log ‖∂E/∂θ|ₖ‖ by lag"))
    body = []
    for row, layer in zip(rows(numbers), flow.layers, strict=True):
        logs = (
            layer.contribution if layer.random_contribution is None else layer.random_contribution
        )
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        body.append(f"<tr>{cells}<td>{_spark(median_curve(logs, flow.lengths), row[0])}</td></tr>")
    advice = "".join(f"<li>{escape(str(each))}</li>" for each in flow.advice)
    return (
        f"<p>{escape(heading(numbers))}</p><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table><ul>{advice}</ul>"
    )


def _spark(logs: np.ndarray, name: str) -> str:
    """The curve as an SVG line, 160 pixels wide."""
    # What is not finite has no place in a picture: -inf is a contribution of 0.
    at = np.flatnonzero(np.isfinite(logs))
    if at.size < 2:
        return "–"
    y = logs[at]
    span = max(float(y.max() - y.min()), 1e-9)  # a constant curve has none
    points = " ".join(
        f"{160 * x / max(len(logs) - 1, 1):.1f},{38 - 36 * (v - y.min()) / span:.1f}"
        for x, v in zip(at, y, strict=True)
    )
    label = escaping.escape(f"contribution against lag, {name}: {y[0]:.3g} to {y[-1]:.3g} nats")
    return (
        f'<svg width="160" height="40" role="img" aria-label="{label}">'
        f'<polyline points="{points}" fill="none" stroke="currentColor"/></svg>'
    )
