"""How Sphinx builds these pages: `make docs`."""

from __future__ import annotations

import ast
import functools
import inspect
import operator
import pkgutil
import re
import tomllib
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import limits
from sphinx.util.inspect import isgenericalias
from sphinx.util.typing import restify

import ratelimited_notify

if TYPE_CHECKING:
    from types import ModuleType

    from sphinx.application import Sphinx

project = "ratelimited-notify"
author = "The ratelimited-notify authors"
project_copyright = f"2026, {author}"
version = release = ratelimited_notify.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Arguments are explained where they are taken: in the docstring of the class, or in that of its `__init__`.
autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_display_short_literal_types = True

# Code in docstrings is written in single backticks.
default_role = "code"

# A type of ours in a signature has to lead somewhere; where it does not, it is private, or its page is missing. Not all types
# of other projects are in the inventories, and a type variable has no page.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!ratelimited_notify\.).*"),
    ("py:.*", r"ratelimited_notify\..*\.(P|R|R_co|T|F|C)(\.args|\.kwargs)?"),
    # For users it is a mapping.
    ("py:class", r"ratelimited_notify\.rules\.overrides\.Overrides"),
]

# The names in signatures that lead to other projects are listed in files here, so that a build needs no network. Add a line
# there when a signature has a new one.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", "inventories/python.inv"),
    "limits": ("https://limits.readthedocs.io/en/stable", "inventories/limits.inv"),
}

# Users import it from there, and its page has that name.
limits.RateLimitItem.__module__ = "limits"

# The copy button takes the commands of a console block, without the prompts and without what the commands print.
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

html_theme = "furo"
html_title = f"ratelimited-notify {release}"

# The address of the repository is in `pyproject.toml`, `[project.urls]`, as `Repository`. With it, each page links to its source.
_PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
_repository = tomllib.loads(_PYPROJECT.read_text())["project"].get("urls", {}).get("Repository", "").rstrip("/")
if _repository:
    html_theme_options = {
        "source_repository": f"{_repository}/",
        "source_branch": "main",
        "source_directory": "docs/",
    }


_ALIASES: dict[str, object] = {}
"""What the public aliases of types stand for."""


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    _evaluate_annotations()
    # Before napoleon, whose priority is 500.
    app.connect("autodoc-process-docstring", _keep_first_line, priority=400)
    app.connect("autodoc-process-docstring", _explain_alias, priority=300)
    app.connect("autodoc-process-signature", _leave_out)


def _evaluate_annotations() -> None:
    """Turn the texts of all annotations into types, so that Sphinx knows where each of them leads.

    The package imports most of them for type checkers only. Without this, Sphinx has only their names, and finds no page for them.
    """
    names = [found.name for found in pkgutil.walk_packages(ratelimited_notify.__path__, "ratelimited_notify.")]
    modules = [ratelimited_notify, *(import_module(name) for name in names if not name.endswith("__main__"))]
    for module in modules:
        _import_for_typing(module)
    _name_aliases(modules)
    for module in modules:
        for name, value in list(vars(module).items()):
            # A type variable that stands for one of two types is shown as both.
            if name.startswith("_") and isinstance(value, TypeVar) and value.__constraints__:
                both = (eval(each.__forward_arg__, vars(module)) for each in value.__constraints__)  # noqa: S307  # our own source
                setattr(module, name, functools.reduce(operator.or_, both))
    for module in modules:
        for value in list(vars(module).values()):
            if getattr(value, "__module__", None) == module.__name__:
                _evaluate(value, vars(module))


def _name_aliases(modules: list[ModuleType]) -> None:
    """Show the public aliases of types, such as `Recipient`, by their names and not by what they stand for."""
    public = [module for module in modules if hasattr(module, "__all__")]
    inside = [module for module in modules if module not in public]
    for face in public:
        for name in face.__all__:
            meant = getattr(face, name)
            if not name[0].isupper() or isinstance(meant, type):
                continue
            shown = type(name, (), {"__module__": face.__name__})
            for module in inside:
                if vars(module).get(name) == meant:
                    setattr(module, name, shown)
            _ALIASES[f"{face.__name__}.{name}"] = meant


def _import_for_typing(module: ModuleType) -> None:
    """Run what the module runs for type checkers only."""
    for statement in ast.parse(Path(module.__file__ or "").read_text()).body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            for each in statement.body:
                code = compile(ast.Module([each], type_ignores=[]), module.__name__, "exec", annotations.compiler_flag)
                # What only a type checker can subscript stays undefined.
                with suppress(TypeError):
                    exec(code, vars(module))  # noqa: S102  # our own source


def _evaluate(found: object, names: dict[str, object]) -> None:
    """Evaluate the annotations of a function, or those of a class and its methods."""
    if isinstance(found, type):
        for member in list(vars(found).values()):
            _evaluate(member, names)
    if isinstance(found, property):
        found = found.fget
    found = getattr(found, "__func__", inspect.unwrap(found) if callable(found) else found)
    texts = vars(found).get("__annotations__") if isinstance(found, type) else getattr(found, "__annotations__", None)
    for name, text in (texts or {}).items():
        if isinstance(text, str):
            with suppress(NameError, TypeError):
                texts[name] = eval(text, names)  # noqa: S307  # our own source


def _explain_alias(_app: object, _what: str, name: str, found: object, _options: object, lines: list[str]) -> None:
    # The docstring of an alias is that of the type of its value. Sphinx itself says what some aliases stand for.
    if name not in _ALIASES:
        return
    lines.clear()
    if not isgenericalias(found):
        lines.append(f"alias of {restify(_ALIASES[name], 'smart')}")


def _leave_out(
    app: Sphinx, what: str, _name: str, found: object, _options: object, _arguments: str, _returns: str
) -> tuple[str, str] | None:
    """Leave out the `~` that marks a type variable, and the arguments of protocols, of which nobody makes an object."""
    for hints in app.env.current_document.autodoc_annotations.values():
        hints.update({name: hint.replace("~P", "P") for name, hint in hints.items() if re.search(r"~P\b", hint)})
    return ("", "") if what == "class" and getattr(found, "_is_protocol", False) else None


def _keep_first_line(_app: object, what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    # Of an attribute, napoleon takes what stands before a colon in the first line for its type. It skips empty lines
    # before it looks, so the first line is a comment instead, which shows nowhere.
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]
