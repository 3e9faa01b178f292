"""Configuration of Sphinx. `make docs` builds the pages, and any warning is an error."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

project = "pruning-env"
author = "The pruning_env contributors"
copyright = "2026, The pruning_env contributors"
release = importlib.metadata.version("pruning-env")

# Farama's projects are documented with the same pieces, and Google docstrings need napoleon.
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser", "docs.generated"]
exclude_patterns = ["_build"]
default_role = "code"  # docstrings quote code in single backticks
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signatures have them
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "pruning-env"
html_show_copyright = False
