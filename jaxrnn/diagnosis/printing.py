"""A diagnosis in a terminal and in a notebook."""

import html as escaping
import textwrap

import numpy as np

from jaxrnn.diagnosis.advice import Advice
from jaxrnn.diagnosis.figures import LayerSummary, ReadingSummary, Spread, Summary
from jaxrnn.diagnosis.record import Record
from jaxrnn.diagnosis.summary import median_curve, summarise
from jaxrnn.diagnosis.verdict import Course, Grade

__all__ = ["HEADINGS", "heading", "headline", "rows", "table_html", "text"]

COURSES = {
    Course.GROWS: "grows without bound on these inputs",
    Course.TRANSIENT: "grows on the way, then fades",
    Course.HOLDS: "holds",
    Course.FADES: "fades",
}
HEADINGS = ("horizon 10 %", "1 %", "exponent", "σ_max", "course", "explosion")


def rows(summary: Summary) -> list[list[str]]:
    """The cells of the table: the net at each end that is read, then each layer by itself.

    They are (name, horizon 10 %, horizon 1 %, exponent, σ_max of a step, course, explosion).
    """
    # A net of one direction is its only layer.
    if len(summary.layers) == 1:
        (reading,), (layer,) = summary.net, summary.layers
        return [[layer.name, *_horizons(reading), *_of_layer(layer), reading.course,
                 _explosion(layer)]]  # fmt: skip
    found = []
    for reading in summary.net:
        where = f", read {reading.name}" if len(summary.net) > 1 else ""
        found.append([f"net{where}", *_horizons(reading), "", "", reading.course, ""])
    for layer in summary.layers:
        found.append([f"{layer.name} alone", *_horizons(layer), *_of_layer(layer), layer.course,
                      _explosion(layer)])  # fmt: skip
    return found


def _horizons(part: ReadingSummary | LayerSummary) -> list[str]:
    spreads = part.horizon_10_percent, part.horizon_1_percent
    return ["–" if each.median is None else f"{each.median:.0f}" for each in spreads]


def _of_layer(layer: LayerSummary) -> list[str]:
    """Exponent and σ_max."""
    norm: Spread | None = layer.step_norm
    exponent = "–"
    if layer.exponents:
        # A measured exponent that is None in the summary is -inf: JSON has no such number.
        exponent = "-∞" if layer.exponents[0] is None else f"{layer.exponents[0]:+.3f}"
    size = "–" if norm is None or norm.median is None else f"{norm.median:.3g}"
    return [exponent, size]


def _explosion(layer: LayerSummary) -> str:
    return "–" if layer.explosion is None else layer.explosion


def heading(summary: Summary) -> str:
    """What was measured, in one line."""
    loss = {
        "last": "a loss on the last step",
        "steps": "a loss on many steps, lags by random cotangents",
        "random": "random cotangents on the last output",
    }[summary.loss]
    count = len(summary.layers)
    return (
        f"{summary.cell}, {count} layer direction{'s' * (count > 1)}; {summary.examples} examples "
        f"of up to {summary.steps} steps; {loss}"
    )


def headline(summary: Summary) -> str:
    """How far back a gradient reaches, in one sentence."""
    said = []
    for reading in summary.net:
        reach, most = reading.horizon_1_percent.median, summary.length.median
        if reach is None or most is None:
            continue
        where = f" from where it is read {reading.name}" if len(summary.net) > 1 else ""
        near = ": borderline" if reading.grade == Grade.BORDERLINE else ""
        words = COURSES[reading.course] + near
        said.append(f"{min(reach, most):.0f} of {most:.0f} steps{where}, and {words}")
    if not said:
        return "No gradient reaches the inputs."
    return f"A gradient reaches back {'; '.join(said)}."


def text(record: Record, advice: tuple[Advice, ...]) -> str:
    """A table that fits 80 columns, and the advice."""
    summary = summarise(record)
    table = rows(summary)
    width = max(len(row[0]) for row in table)
    lines = [*textwrap.wrap(heading(summary), 80), *textwrap.wrap(headline(summary), 80), ""]
    lines.append(
        f"{'':{width}}{'horizon 10 %':>13}{'1 %':>6}{'exponent':>9}{'σ_max':>9}"
        f"  {'course':9}  explosion"
    )
    for name, ten, one, exponent, norm, course, explosion in table:
        figures = f"{name:{width}}{ten:>13}{one:>6}{exponent:>9}{norm:>9}"
        lines.append(f"{figures}  {course:9}  {explosion}".rstrip())
    lines.append("")
    for each in advice:
        lines += textwrap.wrap(str(each), 78, initial_indent="* ", subsequent_indent="  ")
    return "\n".join(lines)


def table_html(record: Record, advice: tuple[Advice, ...]) -> str:
    """The same for a notebook: an HTML table with the curve of each row."""
    summary = summarise(record)
    escape = escaping.escape
    head = "".join(f"<th>{name}</th>" for name in ("", *HEADINGS, "by lag"))
    curves = [layer.own_contribution_by_lag for layer in record.layers]
    if len(record.layers) > 1:
        curves = [reading.inputs for reading in record.net] + curves
    body = []
    for row, logs in zip(rows(summary), curves, strict=True):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        body.append(
            f"<tr>{cells}<td>{_spark(median_curve(logs, record.lengths), row[0])}</td></tr>"
        )
    items = "".join(f"<li>{escape(str(each))}</li>" for each in advice)
    return (
        f"<p>{escape(heading(summary))}<br>{escape(headline(summary))}</p><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table><ul>{items}</ul>"
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
