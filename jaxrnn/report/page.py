"""A diagnosis as a page and as JSON."""

import datetime
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jinja2
import numpy as np

from jaxrnn._version import __version__
from jaxrnn.diagnosis import GradientFlow
from jaxrnn.diagnosis.printing import heading, rows
from jaxrnn.diagnosis.summary import curve
from jaxrnn.report.pictures import pictures

__all__ = ["data", "html", "write"]

SCHEMA = 1
TITLE = "How the gradients of this net flow through time"
Flows = GradientFlow | Mapping[str, GradientFlow]


def data(flows: Flows) -> dict[str, Any]:
    """What `report.json` has: the summary, the advice and the curves of each net.

    Args:    flows: a GradientFlow, or a dict of them by name; one alone is called "model".
    Returns: a dict of numbers, strings, lists and None, whose schema is in docs/guides/diagnose.md;
             all logs are natural, None is what is no number.
    Raises:  TypeError for anything else.
    Cost:    NumPy on the host, O(T·B log B) a layer.
    Source:  this library.
    """
    return {
        "schema": SCHEMA,
        "date": datetime.date.today().isoformat(),
        "versions": {"jaxrnn": __version__, "jax": jax.__version__},
        "nets": {
            name: {
                **flow.summary(),
                "advice": [_plain(advice._asdict()) for advice in flow.advice],
                "curves": [_curves(flow, index) for index in range(len(flow.layers))],
            }
            for name, flow in _named(flows).items()
        },
    }


def html(flows: Flows, title: str = TITLE) -> str:
    """The page: one file that asks for nothing else.

    Args:    flows: as `data`; several are shown side by side.
             title: of the page.
    Returns: the HTML, a string.
    Raises:  TypeError for anything else.
    Cost:    as `data`, and the pictures: up to six of each net and two of each layer direction.
    Source:  this library.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxrnn.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = lambda v: "–" if v is None else f"{v:.3g}"
    environment.filters["percent"] = lambda v: "–" if v is None else f"{v:.1%}"
    nets = []
    for name, flow in _named(flows).items():
        numbers = flow.summary()
        # What is not there is falsy in the template, not an error.
        for layer in numbers["layers"]:
            for field in ("verdict_any_input", "verdict_these_inputs", "gates", "window"):
                layer.setdefault(field, None)
        nets.append(
            {
                "name": name,
                "heading": heading(numbers),
                "numbers": numbers,
                "rows": rows(numbers),
                "windows": list(numbers["layers"][0]["bias"]),
                "advice": flow.advice,
                "pictures": pictures(flow, salt=name),
            }
        )
    made = f"jaxrnn {__version__}, jax {jax.__version__}, {datetime.date.today():%d %B %Y}"
    return environment.get_template("template.html").render(title=title, made=made, nets=nets)


def write(flows: Flows, folder: str | pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Write `report.html` and `report.json` into a folder, made if it is missing.

    Args:    flows: as `data`; folder: a string or a Path.
    Returns: their paths.
    Raises:  TypeError for what is no GradientFlow; OSError where the folder cannot be written.
    Cost:    `html`, `data` and two files.
    Source:  this library.
    """
    page, numbers = html(flows), json.dumps(data(flows), indent=1, allow_nan=False)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "report.html", folder / "report.json"
    for path, text in zip(paths, (page, numbers + "\n"), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def _named(flows: Any) -> dict[str, GradientFlow]:
    found = dict(flows) if isinstance(flows, Mapping) else {"model": flows}
    if not found or not all(isinstance(flow, GradientFlow) for flow in found.values()):
        raise TypeError(f"flows: expected a GradientFlow, or a dict of them, got {flows!r:.80}")
    return found


def _curves(flow: GradientFlow, index: int) -> dict[str, Any]:
    layer = flow.layers[index]
    return {
        "name": flow.names[index],
        "log_adjoint_by_lag": _list(curve(layer.adjoint_by_lag, flow.lengths)),
        "log_contribution_by_lag": _list(curve(layer.contribution_by_lag, flow.lengths)),
    }


def _list(values: Any) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    value = fields["value"]
    return {**fields, "value": value if np.isfinite(value) else None}
