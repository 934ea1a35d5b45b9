"""How the package is built: what an import costs, what is public, how long a module is, what each exception is for.

Which module may import which is held by import-linter (`make lint`).
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from importlib import import_module
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import ratelimited_notify

PACKAGE = Path(inspect.getfile(ratelimited_notify)).parent
TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"

MODULES = sorted(PACKAGE.rglob("*.py"))
LUA = sorted(PACKAGE.rglob("*.lua"))
TEST_MODULES = sorted(TESTS.rglob("test_*.py"))

LONGEST_MODULE = 400
"""Lines: a few screens."""

OPTIONAL = {
    "aiosmtpd",
    "aiosmtplib",
    "click",
    "opentelemetry",
    "prometheus_client",
    "psycopg",
    "pymemcache",
    "redis",
    "rich",
    "sqlalchemy",
    "typer",
}
"""Every module that an installation may lack."""

FACES = {
    "ratelimited_notify",
    "ratelimited_notify.gateways.smtp",
    "ratelimited_notify.instrumentation.logging",
    "ratelimited_notify.instrumentation.otel",
    "ratelimited_notify.instrumentation.prometheus",
    "ratelimited_notify.pytest_plugin",
    *(f"ratelimited_notify.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")),
}
"""Where users import from."""

LOADED_WHEN_NEEDED = OPTIONAL | {"asyncio", "limits", "msgspec", "smtplib"}
"""What `import ratelimited_notify` must not load: everything slow, and everything optional."""

HOMES = ("storage", "gateways", "cli", "sources", "instrumentation")
"""The packages whose modules may be made of something optional: they are opened by name, when they are used."""


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else TESTS).as_posix()


each_module = pytest.mark.parametrize("path", MODULES, ids=_name)


def _python(program: str) -> str:
    """What a fresh interpreter prints."""
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return run.stdout.strip()


def test_public_names_are_sorted() -> None:
    """The public names are listed in one order, so that a reader finds one."""
    public = list(ratelimited_notify.__all__)

    assert public == sorted(set(public))


def test_public_names_are_those_of_the_design() -> None:
    """Nothing becomes public, or stops being so, by accident."""
    expected = {
        "AsyncLimiter", "AsyncNotifier", "Circuit", "Decision", "Delivery", "LimitNotation", "Limiter", "MissingExtra", "Notification",
        "Notifier", "NotifyError", "OnLimit", "OnStorageError", "Problem", "RateLimitExceeded", "Recipient", "Refund", "Rule", "RuleError",
        "RuleSet", "Rules", "SendFailed", "Status", "StorageError", "WindowState", "configure", "limiter_of", "rate_limited",
    }  # fmt: skip

    assert set(ratelimited_notify.__all__) - {"__version__"} == expected


def test_dir_lists_the_public_names() -> None:
    """Completion in a shell finds every public name, loaded or not."""
    assert set(ratelimited_notify.__all__) <= set(dir(ratelimited_notify))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Asking the package for a name that it does not have fails as it does for any module."""
    with pytest.raises(AttributeError, match="no_such_name"):
        ratelimited_notify.no_such_name  # noqa: B018  # The access is what is tested.


@pytest.mark.parametrize("wing", [path.parent.name for path in PACKAGE.glob("*/__init__.py")])
def test_a_wing_hands_out_what_its_face_lists(wing: str) -> None:
    """Every name of a face is there, in a process that has loaded nothing else, and no other is."""
    program = f"""
import ratelimited_notify.{wing} as face
print(all(hasattr(face, name) for name in getattr(face, "__all__", ())), hasattr(face, "no_such_name"), bool(face.__doc__))
"""

    assert _python(program) == "True False True"


def _imports(face: str, name: str) -> bool:
    module = import_module(face)
    return name in getattr(module, "__all__", vars(module))


_DOCUMENTED = re.compile(r"^\.\. auto\w+:: (ratelimited_notify[\w.]*)\.(\w+)$", re.MULTILINE)
_IMPORTED = re.compile(r"^ *from (ratelimited_notify[\w.]*) import ([\w, ]+|\([^)]+\))", re.MULTILINE)


def test_what_the_reference_documents_is_public() -> None:
    """Each name of the reference can be imported from the package, or from the face of a wing: readers copy its path."""
    documented = [
        found for page in sorted(DOCS.glob("reference/*.md")) for found in _DOCUMENTED.findall(page.read_text())
    ]

    assert len(documented) > 40
    assert [".".join(path) for path in documented if path[0] not in FACES or not _imports(*path)] == []


def test_pages_and_examples_import_what_is_public() -> None:
    """What readers copy from a page or an example takes nothing from inside a wing."""
    texts = [
        TESTS.parent / "README.md",
        *DOCS.glob("*.md"),
        *DOCS.glob("[!_]*/*.md"),
        *TESTS.parent.glob("examples/*.py"),
    ]
    imported = [
        (face, name)
        for path in texts
        for face, names in _IMPORTED.findall(path.read_text("utf-8"))
        for name in re.findall(r"\w+", names)
    ]

    assert len(imported) > 40
    assert [".".join(path) for path in imported if path[0] not in FACES or not _imports(*path)] == []


@pytest.mark.parametrize("name", ["LimitNotation", "OnLimit", "OnStorageError", "Recipient", "Refund", "Rules"])
def test_aliases_work_in_annotations_that_are_evaluated(name: str) -> None:
    """Frameworks evaluate annotations: an alias can be combined with None, and names nothing that is not there."""

    def annotated(value: object) -> None: ...

    annotated.__annotations__["value"] = getattr(ratelimited_notify, name) | None

    assert type(None) in get_args(get_type_hints(annotated)["value"])


def test_the_version_is_that_of_the_distribution() -> None:
    """`__version__` is the number that pip shows."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("ratelimited-notify")
    except PackageNotFoundError:
        pytest.skip("The package is run from its source, not installed.")

    assert ratelimited_notify.__version__ == installed


def test_public_names_import_without_any_extra() -> None:
    """Every public name can be had with the base dependencies alone."""
    program = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import ratelimited_notify
print(sum(getattr(ratelimited_notify, name) is not None for name in ratelimited_notify.__all__))
"""

    assert _python(program) == str(len(ratelimited_notify.__all__))


@pytest.mark.parametrize(
    "statement",
    ["import ratelimited_notify", "from ratelimited_notify import rate_limited"],
)
def test_the_import_loads_nothing_heavy(statement: str) -> None:
    """Importing the package, or its decorator, costs next to nothing: what is slow or optional is loaded when it is used."""
    program = f"""
import sys
before = set(sys.modules)
{statement}
print(*sorted({LOADED_WHEN_NEEDED!r} & (sys.modules.keys() - before)))
"""

    assert _python(program) == ""


def _is_home(path: Path) -> bool:
    return path.parent != PACKAGE and path.relative_to(PACKAGE).parts[0] in HOMES and path.name != "__init__.py"


@pytest.mark.parametrize("path", [path for path in MODULES if not _is_home(path)], ids=_name)
def test_optional_dependencies_are_imported_late(path: Path) -> None:
    """Outside the storage, gateway or command that is made of it, no module imports an optional dependency at its top."""
    imported = {name for node in _at_import(ast.parse(path.read_text("utf-8"))) for name in _imported(node)}

    assert imported & OPTIONAL == set()


def _at_import(tree: ast.Module) -> list[ast.stmt]:
    """The statements at a module's top level that run, those under `if TYPE_CHECKING` aside."""
    statements: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            statements += node.orelse
        else:
            statements.append(node)
    return statements


def _imported(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return set()
    names = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_every_extra_that_an_error_names_exists() -> None:
    """The command that a missing extra's error gives installs something."""
    calls = [
        node
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("MissingExtra")
    ]
    project = tomllib.loads((TESTS.parent / "pyproject.toml").read_text("utf-8"))["project"]

    assert {ast.unparse(call.args[0]) for call in calls} <= {repr(name) for name in project["optional-dependencies"]}


@pytest.mark.parametrize("path", [*MODULES, *LUA], ids=_name)
def test_modules_fit_on_a_few_screens(path: Path) -> None:
    """A reader takes in a module at a sitting."""
    assert len(path.read_text("utf-8").splitlines()) <= LONGEST_MODULE


@each_module
def test_nothing_is_validated_by_assert(path: Path) -> None:
    """What must hold holds under `python -O` too."""
    found = [node.lineno for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Assert)]

    assert found == []


@each_module
def test_modules_say_what_they_are(path: Path) -> None:
    """Every module begins with a sentence that says what is in it."""
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


EXEMPTION = re.compile(r"type:\s*ignore|pyright:\s*ignore|noqa|pragma:\s*no\s*(?:cover|branch)")


def _unexplained(source: str) -> list[int]:
    """The lines that use `Any`, or silence a checker, and do not say why behind a `#` of their own."""
    lines: dict[int, list[tokenize.TokenInfo]] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        lines.setdefault(token.start[0], []).append(token)
    found = []
    for number, tokens in lines.items():
        imports = tokens[0].string in {"from", "import"} or (len(tokens) > 1 and tokens[1].string in {"from", "import"})
        comment = next((token.string for token in tokens if token.type == tokenize.COMMENT), "")
        uses_any = any(token.type == tokenize.NAME and token.string == "Any" for token in tokens) and not imports
        if (uses_any or EXEMPTION.search(comment)) and not any(
            part.strip() and not EXEMPTION.search(part) for part in comment.split("#")
        ):
            found.append(number)
    return found


@each_module
def test_every_exemption_gives_its_reason(path: Path) -> None:
    """Each `Any`, `type: ignore`, `noqa` and `pragma: no cover` says on its line why it is there."""
    assert _unexplained(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("x: Any = 1\n", [1]),
        ("x: Any = 1  # Whatever the gateway returns.\n", []),
        ("from typing import Any\n", []),
        ("x = 1  # type: ignore[misc]\n", [1]),
        ("x = 1  # type: ignore[misc]  # why so\n", []),
        ("x = 1  # noqa: S105\n", [1]),
        ("x = 1  # noqa: S105  # a name, no secret\n", []),
        ("x = 1  # pragma: no cover\n", [1]),
        ('x = "type: ignore Any noqa"\n', []),
    ],
)
def test_exemptions_are_recognised(line: str, expected: list[int]) -> None:
    """The test above finds what it looks for, and takes a reason for one."""
    assert _unexplained(line) == expected


@pytest.mark.parametrize("path", TEST_MODULES, ids=_name)
def test_every_test_says_its_promise(path: Path) -> None:
    """Each test has a line that says which promise it holds."""
    tree = ast.parse(path.read_text("utf-8"))
    tests = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]

    assert [node.name for node in tests if not ast.get_docstring(node)] == []


def _public_methods() -> list[tuple[str, str]]:
    return [
        (name, member)
        for name in ratelimited_notify.__all__
        if inspect.isclass(kind := getattr(ratelimited_notify, name))
        for member, value in vars(kind).items()
        if not member.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, property | classmethod | staticmethod))
    ]


def test_everything_public_is_documented() -> None:
    """Each public class and function, and each of their public methods, tells a caller what it does."""
    undocumented = [
        f"{name}.{member}"
        for name, member in _public_methods()
        if not inspect.getdoc(getattr(getattr(ratelimited_notify, name), member))
    ]
    undocumented += [
        name
        for name in ratelimited_notify.__all__
        if (inspect.isclass(thing := getattr(ratelimited_notify, name)) or inspect.isfunction(thing))
        and not thing.__doc__
    ]

    assert undocumented == []
