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
from jaxrnn.diagnosis.figures import plain
from jaxrnn.diagnosis.printing import HEADINGS, heading, headline, rows
from jaxrnn.diagnosis.summary import median_curve
from jaxrnn.report.pictures import pictures

__all__ = ["data", "html", "write"]

SCHEMA = 2
TITLE = "How the gradients of this net flow through time"
Flows = GradientFlow | Mapping[str, GradientFlow]


def data(flows: Flows) -> dict[str, Any]:
    """The content of `report.json`: the summary, the advice and the curves of each net.

    Args:
      flows: A GradientFlow, or a dict of several by name. The name of a single one is "model".

    Returns:
      A dict of dicts, lists, strings, numbers and None. All logs are natural; None stands for NaN
      and inf.

    Raises:
      TypeError: If `flows` is neither, or an empty dict.

    Cost:
      NumPy on the host, O(T·B log B) for each layer.

    Source:
      docs/guides/diagnose.md describes the schema.
    """
    return {
        "schema": SCHEMA,
        "date": datetime.date.today().isoformat(),
        "versions": {"jaxrnn": __version__, "jax": jax.__version__},
        "nets": {
            name: {
                "headline": headline(flow.summary()),
                **plain(flow.summary()),
                "advice": [plain(advice) for advice in flow.advice],
                "curves": [_curves(flow, index) for index in range(len(flow.layers))],
            }
            for name, flow in _named(flows).items()
        },
    }


def html(flows: Flows, title: str = TITLE) -> str:
    """The page as one HTML document that loads nothing else.

    Args:
      flows: As in `data`. Several nets are shown side by side.
      title: The title of the page.

    Returns:
      The HTML, a string.

    Raises:
      TypeError: As `data`.

    Cost:
      That of `data` and of the pictures: up to six for each net, two for each direction of a layer.
    """
    # StrictUndefined: a misspelt name in the template is an error, not a gap in the page.
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
        nets.append(
            {
                "name": name,
                "heading": heading(numbers),
                "headline": headline(numbers),
                "headings": HEADINGS,
                "numbers": numbers,
                "rows": rows(numbers),
                # All layers have as many steps, and so the same windows.
                "windows": list(numbers.layers[0].bias),
                "advice": flow.advice,
                # Ids in the SVG come from the salt; those of two nets may not be equal in one page.
                "pictures": pictures(flow, salt=name),
            }
        )
    made = f"jaxrnn {__version__}, jax {jax.__version__}, {datetime.date.today():%d %B %Y}"
    return environment.get_template("template.html").render(title=title, made=made, nets=nets)


def write(flows: Flows, folder: str | pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Write `report.html` and `report.json` into a folder, which is made if it is missing.

    Args:
      flows: As in `data`.
      folder: A string or a Path.

    Returns:
      The paths of the two files, the page first.

    Raises:
      TypeError: As `data`.
      OSError: If the folder cannot be made, or a file cannot be written.

    Cost:
      That of `html` and `data`.
    """
    # Both texts come first: what fails while they are made leaves no folder and no half report.
    page, numbers = html(flows), json.dumps(data(flows), indent=1, allow_nan=False)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "report.html", folder / "report.json"
    for path, text in zip(paths, (page, numbers + "\n"), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def _named(flows: Any) -> dict[str, GradientFlow]:
    """Flows by name, checked."""
    found = dict(flows) if isinstance(flows, Mapping) else {"model": flows}
    if not found or not all(isinstance(flow, GradientFlow) for flow in found.values()):
        raise TypeError(f"flows: expected a GradientFlow, or a dict of them, got {flows!r:.80}")
    return found


def _curves(flow: GradientFlow, index: int) -> dict[str, Any]:
    layer = flow.layers[index]
    return {
        "name": flow.names[index],
        "log_adjoint_by_lag": _list(median_curve(layer.adjoint_by_lag, flow.lengths)),
        "log_contribution_by_lag": _list(median_curve(layer.contribution_by_lag, flow.lengths)),
        "log_own_adjoint_by_lag": _list(median_curve(layer.own_adjoint_by_lag, flow.lengths)),
    }


def _list(values: Any) -> list[float | None]:
    """For JSON, which has no NaN or inf."""
    return [float(v) if np.isfinite(v) else None for v in values]
