"""A diagnosis as one self-contained page, and as JSON. Needs `pip install 'jaxrnn[report]'`.

`write` makes both files, out/report.html and out/report.json:

    from jaxrnn import report
    report.write(jaxrnn.diagnose(cell, params, xs), "out")
"""

from jaxrnn.report.page import data, html, write

__all__ = ["data", "html", "write"]
