"""A diagnosis as one self-contained page, and as JSON. Needs `pip install 'jaxrnn[report]'`.

from jaxrnn import report
report.write(jaxrnn.diagnose(cell, params, xs), "out")      # out/report.html, out/report.json
"""

from jaxrnn.report.page import data, html, write

__all__ = ["data", "html", "write"]
