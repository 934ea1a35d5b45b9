"""How Sphinx builds these pages: `make docs`."""

from __future__ import annotations

from ratelimited_notify import _version

project = "ratelimited-notify"
author = "The ratelimited-notify authors"
project_copyright = f"2026, {author}"
version = release = _version.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True

# Code in docstrings is written in single backticks.
default_role = "code"

html_theme = "furo"
html_title = f"ratelimited-notify {release}"
