"""Sphinx: `python -m sphinx -W --keep-going docs docs/_build/html`, from the root.

Pages with code cells are run while the site is built, and a cell that fails fails the build.
"""

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

# The kernels of the pages are local: that they listen without encryption is no news of the build.
KERNEL = tempfile.TemporaryDirectory()
(Path(KERNEL.name) / "profile_default").mkdir()
(Path(KERNEL.name) / "profile_default" / "ipython_kernel_config.py").write_text(
    "c.Application.log_level = 40\n"
)
os.environ["IPYTHONDIR"] = KERNEL.name

project = "jaxrnn"
author = "The jaxrnn authors"
copyright = "2026, The jaxrnn authors"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "docs.docstrings",
]
exclude_patterns = ["_build", "README.md", "assets/*.json"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 240
nb_merge_streams = True
autodoc_typehints = "none"
default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # an activation is an instance: its fields would be described many times
napoleon_custom_sections = ["Cost", "Accuracy", "Source"]
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"

html_theme = "sphinx_book_theme"
html_title = "jaxrnn"
html_static_path = ["assets"]
html_theme_options = {"show_toc_level": 2, "use_download_button": False}
html_copy_source = False
