"""The limiter of a program, by the name that `--app` gives: `module:limiter`."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
import traceback
from contextlib import redirect_stdout
from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeAlias

from ratelimited_notify.decorator import Configured, limiter_of
from ratelimited_notify.decorator.deciding import is_limited
from ratelimited_notify.errors import NotifyError
from ratelimited_notify.limiter import AsyncLimiter, Limiter
from ratelimited_notify.notifier import AsyncNotifier, Notifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

AnyLimiter: TypeAlias = Limiter | AsyncLimiter

_KINDS = "a Limiter, an AsyncLimiter, a Notifier, an AsyncNotifier, a function with @rate_limited, or a function that returns one of these"
_MOST_NAMED = 10


def named_limiter(name: str) -> AnyLimiter:
    """The limiter that a text such as `shop.notifications:limiter` names.

    Modules are looked for in the current directory first. What the program prints while it is imported goes to standard
    error, so that it does not get into the output.

    Arguments:
        name: a module, a colon, and the name of an object in it, with dots if it is an attribute of an object.

    Raises:
        NotifyError: there is no such object, it cannot be imported, or no limiter belongs to it.
    """
    module_name, colon, path = name.partition(":")
    is_file = module_name.endswith(".py")
    if is_file or not all(part.isidentifier() for part in module_name.split(".")):
        advice = ", and not its file" if is_file or os.sep in module_name else ""
        raise NotifyError(
            f"--app must name a module{advice}, and an object in it, such as shop.notifications:limiter or "
            "shop.notifications:notifier."
        )
    with redirect_stdout(sys.stderr):
        module = _imported(module_name)
        if not colon or not path:
            raise NotifyError(
                f"--app names a module and no object in it. Write {module_name}:NAME.{_usable_names(module)}"
            )
        return _limiter_in(_found(module, path), name)


def _imported(name: str) -> ModuleType:
    here = os.getcwd()  # noqa: PTH109  # sys.path has strings
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):
            raise NotifyError(f"The module {name} cannot be imported: it needs the module {missing!r}.") from None
        raise NotifyError(
            f"There is no module {missing!r} in the current directory, or where Python looks for modules."
            + _meant(missing.rpartition(".")[2], _siblings(missing))
        ) from None
    except NotifyError as error:
        raise NotifyError(f"The module {name} cannot be imported{_place(error)}: {error}") from None
    except (ImportError, SyntaxError) as error:
        raise NotifyError(f"The module {name} cannot be imported{_place(error)}: {error}.") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001  # what a program raises while it is imported
        # The message may contain a password, for example in the URI of a database.
        raise NotifyError(
            f"The module {name} cannot be imported{_place(error)}: it raised {type(error).__name__}. "
            f"To see more, run: python -c 'import {name}'"
        ) from None


def _siblings(name: str) -> list[str]:
    """The modules beside the one with this name."""
    parent = name.rpartition(".")[0]
    path = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    return [each.name for each in pkgutil.iter_modules(path)]


def _place(error: BaseException) -> str:
    """Where the code of the program raised it."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(("<", _OWN))
    ]
    return f", {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""


_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120  # compared with strings


def _found(module: ModuleType, path: str) -> object:
    found: object = module
    walked = module.__name__
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = [each for each in dir(found) if not each.startswith("__")]
            advice = _meant(part, names) or (_usable_names(module) if found is module else "")
            raise NotifyError(f"{walked} has no attribute {part!r}.{advice}") from None
        except Exception as error:  # noqa: BLE001  # what a property of the program raises
            raise NotifyError(f"{walked}.{part} raised {type(error).__name__}.") from None
        walked += f".{part}"
    return found


def _limiter_in(found: object, name: str) -> AnyLimiter:
    limiter = _limiter(found)
    if limiter is not None:
        return limiter
    if not callable(found) or isinstance(found, type):
        what = f"is the class {found.__name__}" if isinstance(found, type) else f"is of type {type(found).__name__}"
        raise NotifyError(
            f"{name} {what}. --app must name {_KINDS}.{_usable_names(found) if inspect.ismodule(found) else ''}"
        )
    made = _made_by(found, name)
    limiter = _limiter(made)
    if limiter is None:
        raise NotifyError(f"{name} returns an object of type {type(made).__name__}. --app must name {_KINDS}.")
    return limiter


def _made_by(function: Callable[..., object], name: str) -> object:
    """What a function without arguments returns."""
    if inspect.iscoroutinefunction(function):
        raise NotifyError(f"{name} is a coroutine function without @rate_limited. --app must name {_KINDS}.")
    try:
        inspect.signature(function).bind()
    except TypeError:
        raise NotifyError(
            f"{name} is a function that needs arguments, and has no @rate_limited. --app must name {_KINDS}."
        ) from None
    except ValueError:
        # Some built-in functions do not say which arguments they take.
        pass
    try:
        return function()
    except NotifyError as error:
        raise NotifyError(f"{name} cannot make a limiter: {error}") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001  # what a function of the program raises
        raise NotifyError(f"{name} raised {type(error).__name__}{_place(error)}.") from None


def _limiter(found: object) -> AnyLimiter | None:
    """The limiter of an object; None if it has none."""
    if isinstance(found, (Limiter, AsyncLimiter)):
        return found
    if isinstance(found, (Notifier, AsyncNotifier, Configured)):
        return found.limiter
    return limiter_of(found) if callable(found) and is_limited(found) else None


def _usable_names(module: ModuleType) -> str:
    """What of a module can be named."""
    names = [name for name, value in vars(module).items() if not name.startswith("_") and _limits(value)]
    return f" It has {', '.join(names[:_MOST_NAMED])}." if names else ""


def _limits(value: object) -> bool:
    return isinstance(value, (Limiter, AsyncLimiter, Notifier, AsyncNotifier, Configured)) or (
        inspect.isfunction(value) and is_limited(value)
    )


def _meant(name: str, names: Iterable[str]) -> str:
    return "".join(f" Did you mean {each!r}?" for each in get_close_matches(name, list(names), 1))
