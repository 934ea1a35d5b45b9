"""How Sphinx builds these pages: `make docs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "ratelimited-notify"
author = "The ratelimited-notify authors"
project_copyright = f"2026, {author}"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Arguments are explained where they are taken: in the docstring of the class, or in that of its `__init__`.
autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True

# Code in docstrings is written in single backticks.
default_role = "code"

html_theme = "furo"
html_title = f"ratelimited-notify {release}"


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    # Before napoleon, whose priority is 500.
    app.connect("autodoc-process-docstring", _keep_first_line, priority=400)


def _keep_first_line(_app: object, what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    # Of an attribute, napoleon takes what stands before a colon in the first line for its type. It skips empty lines
    # before it looks, so the first line is a comment instead, which shows nowhere.
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]
