from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import inspect
import pickle
import sys
import textwrap
import threading
import traceback
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock, Mock
from uuid import UUID
from xmlrpc.client import ServerProxy

import pytest
from hypothesis import given, strategies as st

from outcomes import CANARY, INTERRUPTED, MAYBE_SENT, NOT_SENT, AsyncUnreliable, Unreliable, named, raised_by
from processes import unconfigured
from ratelimited_notify import (
    AsyncLimiter,
    Limiter,
    NotifyError,
    RateLimitExceeded,
    Rule,
    RuleError,
    RuleSet,
    StorageError,
    configure,
    rate_limited,
)
from ratelimited_notify.decorator.configuration import configuration
from ratelimited_notify.pytest_plugin import Clock
from ratelimited_notify.storage import open_storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MANY = {"news": "1000/day"}

Step = BaseException | str


CLOCK = Clock()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """Each test has a process to itself, in which nothing is configured, and a clock to move."""
    with unconfigured(monkeypatch):
        yield CLOCK


def configured(rules: Any) -> None:
    """Fresh windows in memory, by the test's clock."""
    configure(rules, open_storage("memory://", clock=CLOCK), clock=CLOCK)


def used(limiter: Limiter, recipient: str = "ana", type: str = "news") -> int:
    """How many hits are counted."""
    (window,) = limiter.windows(type, recipient)
    return window.item.amount - window.remaining


def run(coroutine: Any) -> Any:
    """What it returns, on an event loop of its own."""
    return asyncio.run(asyncio.wait_for(coroutine, 60))


# What the decorator leaves as it was.


def _annotated(recipient: str, /, body: str = "Hi", *rest: int, copy: bool = False, **options: object) -> str:
    """Sends."""
    return f"{recipient} {body} {rest} {copy} {options}"


async def _annotated_async(recipient: str, body: str = "Hi") -> str:
    """Sends, later."""
    return f"{recipient} {body}"


class Sender:
    """Has a method of every kind, limited by a decorator above and below."""

    prefix = "to "

    @rate_limited("news")
    def method(self, recipient: str) -> str:
        """A method."""
        return self.prefix + recipient

    @rate_limited("news")
    async def coroutine(self, recipient: str) -> str:
        """A coroutine."""
        return self.prefix + recipient

    @rate_limited("news")
    @classmethod
    def above_class(cls, recipient: str) -> str:
        """A class method, the decorator above."""
        return cls.prefix + recipient

    @classmethod
    @rate_limited("news")
    def below_class(cls, recipient: str) -> str:
        """A class method, the decorator below."""
        return cls.prefix + recipient

    @rate_limited("news")
    @staticmethod
    def above_static(recipient: str) -> str:
        """A static method, the decorator above."""
        return "to " + recipient

    @staticmethod
    @rate_limited("news")
    def below_static(recipient: str) -> str:
        """A static method, the decorator below."""
        return "to " + recipient

    @rate_limited("news")
    @classmethod
    async def above_class_coroutine(cls, recipient: str) -> str:
        """A coroutine, a class method."""
        return cls.prefix + recipient


METHODS = [name for name, member in vars(Sender).items() if callable(member) or isinstance(member, classmethod)]


class Heir(Sender):
    """Class methods know the class that they are called on."""

    prefix = "for "


@pytest.mark.parametrize("function", [_annotated, _annotated_async, Sender.below_static.__wrapped__])
def test_signature_name_and_docstring_are_kept(function: Callable[..., object]) -> None:
    """A limited function looks like the function: signature, annotations, name, docstring, module and kind."""
    limited = rate_limited("news")(function)

    assert limited is not function
    assert limited.__wrapped__ is function
    assert inspect.signature(limited) == inspect.signature(function)
    for attribute in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
        assert getattr(limited, attribute) == getattr(function, attribute)
    assert inspect.iscoroutinefunction(limited) is inspect.iscoroutinefunction(function)


@pytest.mark.parametrize("name", METHODS)
def test_methods_of_every_kind(name: str) -> None:
    """Methods, class methods and static methods are limited, whichever side the decorator is on, and keep their look."""
    configured({"news": "2/day"})
    method = getattr(Sender(), name)

    def call(method: Any) -> Any:
        return run(method("ana")) if inspect.iscoroutinefunction(method) else method(recipient="ana")

    assert call(method) == "to ana"
    assert call(getattr(Heir(), name)).endswith("ana")
    with pytest.raises(RateLimitExceeded):
        call(method)
    assert method.__name__ == name
    assert method.__qualname__ == f"Sender.{name}"
    assert str(inspect.signature(method)) == "(recipient: 'str') -> 'str'"
    assert inspect.getdoc(method)


def test_class_methods_know_their_class() -> None:
    """A limited class method gets the class that it was called on."""
    configured(MANY)

    assert (Sender.above_class("ana"), Heir.above_class("ana")) == ("to ana", "for ana")
    assert (Sender.below_class("ana"), Heir.below_class("ana")) == ("to ana", "for ana")


class _Called:
    """An object that is called."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, recipient: str, body: str = "Hi") -> str:
        return f"{self.name} {recipient} {body}"


class _CalledAsync:
    async def __call__(self, recipient: str) -> str:
        return recipient


def test_whatever_can_be_called() -> None:
    """Partials, bound methods, lambdas, objects that are called and builtins are limited too, and have a name."""
    configured(MANY)
    part = rate_limited("news")(functools.partial(_annotated, body="Ciao"))
    bound = rate_limited("news")(_Called("smtp").__call__)
    called = rate_limited("news")(_Called("smtp"))
    small = rate_limited("news")(lambda recipient: recipient)
    builtin = rate_limited("news", recipient="obj")(len)

    assert part("ana", copy=True) == "ana Ciao () True {}"
    assert (part.__name__, part.__doc__, part.__module__) == ("_annotated", "Sends.", __name__)
    assert inspect.signature(part) == inspect.signature(functools.partial(_annotated, body="Ciao"))
    assert bound("ana") == "smtp ana Hi"
    assert called("ana", body="Ciao") == "smtp ana Ciao"
    assert called.__name__ == "_Called"
    assert str(inspect.signature(called)) == "(recipient: 'str', body: 'str' = 'Hi') -> 'str'"
    assert small(recipient="ana") == "ana"
    assert builtin("ana") == 3
    assert used(configuration.limiter()) == 5


@pytest.mark.parametrize(
    "function", [_CalledAsync(), functools.partial(_CalledAsync()), functools.partial(_annotated_async, body="Ciao")]
)
def test_whatever_can_be_awaited(function: Any) -> None:
    """Objects called by a coroutine function, and partials of these, are awaited, and failures of theirs are free."""
    configured({"news": "1/day"})
    limited = rate_limited("news")(function)

    assert inspect.iscoroutinefunction(limited)
    assert run(limited("ana")).startswith("ana")
    with pytest.raises(RateLimitExceeded):
        run(limited("ana"))


def _generator(recipient: str) -> Iterator[str]:
    yield recipient


async def _async_generator(recipient: str) -> Any:
    yield recipient


class _CalledGenerator:
    def __call__(self, recipient: str) -> Iterator[str]:
        yield recipient


@pytest.mark.parametrize(
    "function",
    [
        _generator,
        _async_generator,
        functools.partial(_generator),
        _CalledGenerator(),
        functools.partial(functools.partial(_async_generator)),
        Sender,
        functools.partial(Sender),
        str,
    ],
)
def test_generators_and_classes_are_refused(function: Any) -> None:
    """What sends nothing when it is called is refused at decoration, also behind a partial and in a static method."""
    for decorated in (function, staticmethod(function)):
        with pytest.raises(
            NotifyError, match=r"^rate_limited decorates functions that send; \w+ is a generator function or a class\.$"
        ):
            rate_limited("news")(decorated)


@pytest.mark.parametrize("thing", [None, 5, "ana", property(lambda self: 1)])
def test_what_cannot_be_called_is_refused(thing: Any) -> None:
    """What is no function is refused, with a hint at the likeliest mistake."""
    kind = type(thing).__name__

    with pytest.raises(
        NotifyError, match=rf"^rate_limited decorates functions that send, not a {kind}\. Write it with its arguments"
    ):
        rate_limited("news")(thing)


BARE = {
    "function": """
        @rate_limited
        def send(to, body):
            return "sent"
    """,
    "coroutine function": """
        @rate_limited
        async def send(to): ...
    """,
    "generator": """
        @rate_limited
        def send(to):
            yield to
    """,
    "method": """
        class Sender:
            @rate_limited
            def send(self, to):
                return "sent"
    """,
    "static method": """
        class Sender:
            @rate_limited
            @staticmethod
            def send(to): ...
    """,
    "class method": """
        class Sender:
            @rate_limited
            @classmethod
            def send(cls, to): ...
    """,
    "below and above others": """
        @same
        @rate_limited
        @wrapping
        @same
        def send(to):
            return "sent"
    """,
    "inside": """
        def make():
            @rate_limited
            def send(to):
                return "sent"
            return send
        make()
    """,
    "again": """
        def send(to): ...

        @rate_limited
        def send(to): ...
    """,
    "by the module": """
        import ratelimited_notify

        @ratelimited_notify.rate_limited
        def send(to): ...
    """,
    "on one line": "@rate_limited\ndef send(to): ...",
}


def _same(function: Any) -> Any:
    return function


def _wrapping(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def executed(source: str, filename: str = "<string>", **names: Any) -> dict[str, Any]:
    """The names that a module with this source has."""
    scope = {"rate_limited": rate_limited, "same": _same, "wrapping": _wrapping, **names}
    exec(compile(textwrap.dedent(source), filename, "exec"), scope)
    return scope


@pytest.mark.parametrize("case", BARE)
def test_a_decorator_without_arguments_is_told_at_once(case: str) -> None:
    """`@rate_limited` without arguments is an error where it is written, and says what to write."""
    with pytest.raises(NotifyError) as caught:
        executed(BARE[case])
    assert str(caught.value) == (
        "@rate_limited has no arguments here. Write it with its arguments, as in @rate_limited('news', '1/day')."
    )


NOT_BARE = {
    "function": """
        def kind_of(to, body="Hi"):
            return "news"

        @rate_limited(kind_of)
        def send(to, body="Hi"):
            return "sent"
    """,
    "lambda": """
        @rate_limited(lambda to: "news")
        def send(to):
            return "sent"
    """,
    "made by a function": """
        def make():
            def kind_of(to):
                return "news"
            return kind_of

        @rate_limited(make())
        def send(to):
            return "sent"
    """,
    "inside": """
        def make():
            def kind_of(to):
                return "news"

            @rate_limited(kind_of)
            def send(to):
                return "sent"
            return send
        send = make()
    """,
    "wrapped": """
        @wrapping
        def kind_of(to):
            return "news"

        send = rate_limited(kind_of)(lambda to: "sent")
    """,
    "callable": """
        class Kind:
            def __call__(self, to):
                return "news"

        @rate_limited(Kind())
        def send(to):
            return "sent"
    """,
    "bound": """
        class Kind:
            def of(self, to):
                return "news"

        @rate_limited(Kind().of)
        def send(to):
            return "sent"
    """,
    "partial": """
        from functools import partial

        def kind_of(kind, to):
            return kind

        @rate_limited(partial(kind_of, "news"))
        def send(to):
            return "sent"
    """,
}


@pytest.mark.parametrize("case", NOT_BARE)
def test_a_type_that_is_a_function_is_no_mistake(case: str) -> None:
    """A callable that says the type is taken, however it is written."""
    configured({"news": "1/day"})
    send = executed(NOT_BARE[case])["send"]

    assert send("ana") == "sent"
    with pytest.raises(RateLimitExceeded):
        send("ana")


def test_a_function_that_was_typed_in_before_is_no_mistake() -> None:
    """In the interpreter each input begins with line 1 of the same file: a function that has its name is no mistake."""
    configured({"news": "1/day"})
    scope = executed("def kind_of(to):\n    return 'news'", "<stdin>")
    scope = executed("@rate_limited(kind_of)\ndef send(to):\n    return 'sent'", "<stdin>", **scope)

    assert scope["send"]("ana") == "sent"


def test_a_circle_of_wrappers_is_no_function_that_is_being_decorated() -> None:
    """What wraps itself is a callable like any other."""

    def kind_of(to: str) -> str:
        return "news"

    kind_of.__wrapped__ = kind_of  # type: ignore[attr-defined]  # that is the point
    configured({"news": "1/day"})
    assert rate_limited(kind_of)(lambda to: "sent")("ana") == "sent"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), (("ana", "Hi"), {}), (("ana",), {"body": "Hi"}), ((), {"to": "ana"}), (("ana",), {}), ((5,), {})],
)
def test_a_decorator_without_arguments_that_was_not_seen(args: Any, kwargs: Any) -> None:
    """Where a bare decorator cannot be told from a callable for the type, the call of the function says it."""

    def hiding(function: Any) -> Any:
        def hidden(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return hidden

    @rate_limited  # type: ignore[arg-type]  # that is the point
    @hiding
    def send(to: str, body: str = "Hi") -> str:
        return "sent"

    with pytest.raises(
        NotifyError, match=r"Write it with its arguments, as in @rate_limited\('news', '1/day'\)\.$"
    ) as caught:
        send(*args, **kwargs)  # type: ignore[operator]  # likewise
    assert "ana" not in str(caught.value)


def _task(**attributes: Any) -> Any:
    """An object that is called, as a task of a task queue is."""
    task: Any = functools.wraps(_annotated)(_Called("smtp"))
    for name, attribute in attributes.items():
        setattr(task, name, attribute)
    return task


TASKS = ["delay", "apply_async", "kiq", "send_with_options", "call_local", "defer_async", "aenqueue"]


@pytest.mark.parametrize("attribute", TASKS)
def test_tasks_are_refused(attribute: str) -> None:
    """A task would be none any more, or could be sent around the limit: it is refused, and the error says the right order."""

    def as_function(to: str) -> None: ...

    setattr(as_function, attribute, lambda *_: None)
    for task in (_task(**{attribute: lambda *_: None}), as_function):
        with pytest.raises(NotifyError) as caught:
            rate_limited("news")(task)
        assert str(caught.value).endswith(
            f" is a task (it has .{attribute}), and the limited function would be none. Write @rate_limited below the "
            "decorator that makes it a task, directly above the function: then it is limited where the task runs."
        )
    assert rate_limited("news", limiter=Limiter(MANY))(_task(**{attribute: 5}))("ana")


@pytest.mark.parametrize(
    "sends", [Mock(return_value="sent"), MagicMock(return_value="sent")], ids=["Mock", "MagicMock"]
)
def test_what_has_every_attribute_is_no_task(sends: Any) -> None:
    """A mock has a `delay` too, as it has anything that it is asked for."""
    send = rate_limited("news", "1/day", recipient=lambda to: to, limiter=Limiter(MANY))(sends)

    assert send("ana") == "sent"


def test_what_has_every_attribute_of_its_own_kind_is_an_error_that_says_what_to_write() -> None:
    """A method of `xmlrpc.client.ServerProxy` has even a `__signature__`, which is none."""
    remote = ServerProxy("http://127.0.0.1:1/").sms.send

    with pytest.raises(NotifyError, match=r"^The parameters of .* cannot be found out; wrap it in a function"):
        rate_limited("news", recipient=lambda to: to, limiter=Limiter(MANY))(remote)


def test_a_task_of_celery() -> None:
    """A task of Celery, shared or bound, finalized or not, is refused; in the order that the error says it works."""
    from celery import Celery, shared_task

    app = Celery(set_as_current=False, broker="memory://", backend="cache+memory://")
    app.conf.task_always_eager = True

    def send(to: str) -> str:
        return "sent"

    def send_bound(self: Any, to: str) -> str:
        return "sent"

    for task in (app.task(send), shared_task(send, name="shared"), app.task(bind=True, name="bound")(send_bound)):
        with pytest.raises(NotifyError, match=r"send(_bound)? is a task \(it has \.delay\), and the limited function"):
            rate_limited("news")(task)

    configured({"news": "2/day"})
    limited = app.task(rate_limited("news", on_limit="drop")(send), name="limited")
    assert [limited.delay("ana").get(), limited("ana"), limited.delay("ana").get()] == ["sent", "sent", None]


def test_a_function_that_hides_its_parameters_is_refused() -> None:
    """Where the parameters cannot be known the error says what to do."""
    with pytest.raises(
        NotifyError, match=r"^The parameters of dict\.update cannot be found out; wrap it in a function"
    ):
        rate_limited("news")(dict.update)


# The recipient, and what else is read from a call.


@pytest.mark.parametrize("name", ["recipient", "to", "user_id", "user_email", "email", "user"])
def test_the_recipient_by_default(name: str) -> None:
    """The parameter called by one of the usual names is the recipient."""
    limiter = Limiter(MANY)
    scope: dict[str, Any] = {}
    exec(f"def send(body, {name}, other=None): return body", scope)
    send = rate_limited("news", limiter=limiter)(scope["send"])

    send("Hi", "ana")
    send("Hi", **{name: "ana"})
    assert used(limiter) == 2


def test_the_first_of_the_usual_names() -> None:
    """Of several usual names the first in the list is the recipient, wherever it stands."""
    limiter = Limiter(MANY)

    @rate_limited("news", limiter=limiter)
    def send(user: str, email: str, to: str) -> None: ...

    send("u", "e", "ana")
    assert used(limiter) == 1


ANA = SimpleNamespace(id=7, email="ana", account={"tenant": SimpleNamespace(id="acme")})


@pytest.mark.parametrize(
    ("recipient", "arguments", "counted"),
    [
        ("address", {"address": "ana"}, "ana"),
        ("address.email", {"address": ANA}, "ana"),
        ("address.id", {"address": ANA}, 7),
        ("address.email", {"address": {"email": "ana"}}, "ana"),
        ("address.account.tenant.id", {"address": ANA}, "acme"),
        (lambda address: address[0], {"address": ["ana", "bob"]}, "ana"),
        (lambda **arguments: arguments["address"], {"address": UUID(int=5)}, str(UUID(int=5))),
    ],
)
def test_the_recipient_as_it_is_said(recipient: Any, arguments: Any, counted: Any) -> None:
    """The recipient is found by name, by a path through attributes and mappings, or by a callable of the arguments."""
    limiter = Limiter(MANY)

    @rate_limited("news", recipient=recipient, limiter=limiter)
    def send(address: Any) -> None: ...

    send(**arguments)
    assert used(limiter, counted) == 1


class _User(dict[str, Any]):
    """A mapping that has attributes too."""

    email = "ana"

    @property
    def account(self) -> object:
        return SimpleNamespace(id="acme")


class _Record(Mapping[str, Any]):
    """A mapping that is no dict, with attributes too, as a request of Starlette is."""

    def __init__(self, **items: Any) -> None:
        self._items = items
        self.email = "ana"
        self.account = SimpleNamespace(id="acme")

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class _UserByDefault(defaultdict[str, Any]):
    email = "ana"


@pytest.mark.parametrize("kind", [_User, _Record])
@pytest.mark.parametrize(
    ("path", "items", "counted"),
    [
        ("user.email", {}, "ana"),
        ("user.email", {"email": "bob"}, "bob"),
        ("user.account.id", {}, "acme"),
        ("user.account.id", {"account": {"id": "other"}}, "other"),
        ("user.account.id", {"account": SimpleNamespace(id="other")}, "other"),
        # The item leads nowhere, the attribute does not.
        ("user.account.id", {"account": ("other", 1)}, "acme"),
        ("user.account.id", {"account": {}}, "acme"),
        ("user.deep.account.id", {"deep": _User(account=1)}, "acme"),
    ],
)
def test_a_path_through_a_mapping_with_attributes(kind: Any, path: str, items: Any, counted: str) -> None:
    """A path takes the item if there is one that leads on, else the attribute."""
    limiter = Limiter(MANY)
    rate_limited("news", recipient=path, limiter=limiter)(lambda user: None)(kind(**items))

    assert used(limiter, counted) == 1


def test_a_path_adds_nothing_to_a_mapping() -> None:
    """An attribute is found without asking a `defaultdict` for an item, which would add it; what it has by default stays."""
    limiter = Limiter(MANY)
    user = _UserByDefault(lambda: SimpleNamespace(id="by default"))

    rate_limited("news", recipient="user.email", limiter=limiter)(lambda user: None)(user)
    assert dict(user) == {}
    rate_limited("news", recipient="user.account.id", limiter=limiter)(lambda user: None)(user)
    assert (used(limiter), used(limiter, "by default")) == (1, 1)


def test_a_path_through_a_request() -> None:
    """What people write about a request of Starlette is found: its items, its attributes, and attributes of one name."""
    from starlette.requests import Request

    limiter = Limiter(MANY)
    scope = {
        "type": "http",
        "client": ("10.1.2.3", 4711),
        "headers": [(b"x-user", b"eve")],
        "query_string": b"to=ana",
        "path_params": {"to": "bob"},
        "state": {"user_id": 7},
    }
    expected = {
        "query_params.to": "ana",
        "path_params.to": "bob",
        "headers.x-user": "eve",
        "client.host": "10.1.2.3",
        "state.user_id": "7",
    }
    for path in expected:
        limited = rate_limited("news", recipient=f"request.{path}", limiter=limiter)(lambda request: None)
        limited(Request(scope))

    assert {path: used(limiter, counted) for path, counted in expected.items()} == dict.fromkeys(expected, 1)


def test_the_recipient_of_a_method() -> None:
    """The object of a method is an argument like any other: the recipient may be one of its attributes."""
    limiter = Limiter(MANY)

    class Account:
        def __init__(self, address: str) -> None:
            self.address = address

        @rate_limited("news", recipient="self.address", limiter=limiter)
        def by_path(self) -> None: ...

        @rate_limited("news", recipient=lambda account, body: account.address, limiter=limiter)
        def by_callable(self, body: str) -> None: ...

        @rate_limited("news", recipient="body", limiter=limiter)
        @staticmethod
        def by_name(body: str) -> None: ...

    account = Account("ana")
    account.by_path()
    account.by_callable(body="Hi")
    account.by_name("ana")
    Account.by_path(account)
    assert used(limiter) == 4


def test_parameters_of_every_kind() -> None:
    """Positional-only and keyword-only parameters, defaults and `**kwargs` are read as Python binds them."""
    limiter = Limiter(MANY)

    def limited(function: Any, recipient: str = "to") -> Any:
        return rate_limited("news", recipient=recipient, limiter=limiter)(function)

    def positional(body: str, to: str = "default", /, **options: object) -> None: ...
    def keyword(*bodies: str, to: str = "default") -> None: ...
    def anything(*bodies: str, **options: object) -> None: ...

    limited(positional)("Hi", "a1")
    # The keyword is another argument here, which has the parameter's name.
    limited(positional)("Hi", "a2", to="b1")
    limited(positional)("Hi", to="b1")
    limited(keyword)("Hi", "b1", to="a3")
    limited(keyword)("b1")
    limited(anything)("b1", to="a4")
    limited(functools.partial(positional, "Hi"))("a5")
    limited(functools.partial(keyword, to="a6"))("b1")
    limited(functools.partial(keyword, to="b1"))(to="a7")

    assert [used(limiter, f"a{number}") for number in range(1, 8)] == [1] * 7
    assert (used(limiter, "default"), used(limiter, "b1")) == (2, 0)


@given(
    body=st.one_of(st.none(), st.text()),
    positional=st.integers(0, 3),
    keyword_first=st.booleans(),
)
def test_arguments_reach_the_function_as_they_are(body: str | None, positional: int, keyword_first: bool) -> None:
    """However a call is written, the function gets just what it would get without the decorator."""

    def plain(to: str, body: object = None, copy: object = 0, *rest: object, **options: object) -> object:
        return to, body, copy, rest, options

    limited = rate_limited("news", limiter=Limiter(MANY))(plain)
    values = {"to": "ana", "body": body, "copy": 1}
    args = tuple(values.values())[:positional]
    kwargs = {name: value for name, value in list(values.items())[positional:] if not keyword_first or name == "to"}

    assert limited(*args, **kwargs, extra=1) == plain(*args, **kwargs, extra=1)


def test_a_missing_argument_is_the_functions_own_error() -> None:
    """A call that the function itself would refuse is refused in the function's words, and counts nothing."""
    calls: list[str] = []

    def send(to: str, body: str) -> None:
        calls.append(to)

    async def send_async(to: str, body: str) -> None:
        calls.append(to)

    limiter, async_limiter = Limiter(MANY), AsyncLimiter(MANY)
    kinds: list[tuple[Any, Any]] = [
        (send, rate_limited("news", limiter=limiter)(send)),
        (send, rate_limited("news", recipient=lambda to, body: to, limiter=limiter)(send)),
        (send, rate_limited(lambda to, body: "news", limiter=limiter)(send)),
        (send_async, rate_limited("news", limiter=async_limiter)(send_async)),
    ]
    wrong: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((), {}),
        ((), {"body": "Hi"}),
        (("ana",), {}),
        (("a", "b", "c"), {}),
    ]
    for plain, limited in kinds:
        for args, kwargs in [*wrong, (("ana",), {"to": "bob", "body": "Hi"})]:
            with pytest.raises(TypeError) as expected:
                plain(*args, **kwargs)
            with pytest.raises(TypeError) as caught:
                run(limited(*args, **kwargs)) if plain is send_async else limited(*args, **kwargs)
            assert str(caught.value) == str(expected.value)
            assert caught.value.__context__ is None
    assert calls == []
    assert used(limiter) == 0


def test_a_missing_argument_where_the_function_cannot_be_asked() -> None:
    """A function that another decorator wraps is not called to find out what is missing: it might send, uncounted."""
    calls: list[object] = []

    @functools.wraps(_annotated)
    def wrapper(*args: object, **kwargs: object) -> None:
        calls.append(args)

    limiter = Limiter(MANY)
    with pytest.raises(TypeError, match=r"^_annotated\(\) missing a required argument: 'recipient'$") as caught:
        rate_limited("news", limiter=limiter)(wrapper)(body="Hi")
    with pytest.raises(TypeError, match=r"^_Called\(\) missing a required argument: 'recipient'$"):
        rate_limited("news", limiter=limiter)(_Called("smtp"))(body="Hi")
    assert caught.value.__context__ is None
    assert calls == []


def test_a_recipient_that_a_call_may_leave_out() -> None:
    """Where the recipient is one of `**kwargs` and the call has none, that is an error that says so."""

    @rate_limited("news", recipient="to", limiter=Limiter(MANY))
    def send(**options: object) -> None: ...

    with pytest.raises(NotifyError, match=r"send has no argument 'to', which it is counted by\.$"):
        send(body="Hi")


def test_an_error_of_a_callable_is_its_own() -> None:
    """What a callable of the arguments raises, the call raises."""

    @rate_limited("news", recipient=lambda to: to + 1, limiter=Limiter(MANY))
    def send(to: str) -> None: ...

    with pytest.raises(TypeError, match="can only concatenate str"):
        send("ana")


def test_cost_priority_and_fields() -> None:
    """Cost, priority and fields are constants, names, paths or callables, and reach the rules."""
    rules = [Rule("news", "100/day", by=("recipient", "tenant", "channel", "dedupe_key"), exempt="high", name="n")]
    limiter = Limiter(rules)

    @rate_limited(
        "news",
        cost="parts",
        priority="urgency",
        fields={"tenant": "account.id", "channel": "sms", "dedupe_key": lambda to, *_: f"{to}!"},
        limiter=limiter,
    )
    def send(to: str, parts: int, urgency: str, account: Any) -> None: ...

    fields = {"tenant": "acme", "channel": "sms", "dedupe_key": "ana!"}
    send("ana", 30, "low", SimpleNamespace(id="acme"))
    assert limiter.windows("news", "ana", **fields)[0].remaining == 70
    send("ana", 60, "high", {"id": "acme"})
    send("ana", 60, "high", {"id": "acme"})
    assert limiter.windows("news", "ana", **fields)[0].remaining == 0
    with pytest.raises(RateLimitExceeded):
        send("ana", 1, "low", {"id": "acme"})

    @rate_limited(
        "news", cost=lambda to: 40, priority=lambda to: None, fields={"tenant": 7, "channel": None}, limiter=limiter
    )
    def send_more(to: str) -> None: ...

    send_more("bob")

    @rate_limited("news", cost=3, priority="high", fields={"tenant": UUID(int=1)}, limiter=limiter)
    def send_dearly(to: str) -> None: ...

    send_dearly("bob")


def test_a_field_that_is_named_like_the_rest() -> None:
    """A constant that happens to be the name of `*args` or `**kwargs` is a constant."""
    limiter = Limiter([Rule("news", "9/day", by=("recipient", "tenant"), name="n")])

    @rate_limited("news", fields={"tenant": "options"}, limiter=limiter)
    def send(to: str, **options: object) -> None: ...

    send("ana")
    assert limiter.windows("news", "ana", tenant="options")[0].remaining == 8


def test_a_type_that_varies() -> None:
    """The type may be a callable of the arguments."""
    limiter = Limiter({"news": "1/day", "status": "2/day"})

    @rate_limited(lambda to, kind: kind, limiter=limiter)
    def send(to: str, kind: str) -> None: ...

    send("ana", "news")
    send("ana", kind="status")
    assert (used(limiter), used(limiter, type="status")) == (1, 1)


def _decorating(**options: Any) -> Callable[[], object]:
    def decorate() -> object:
        @rate_limited(options.pop("type", "news"), **options)
        def send(address: str, body: str) -> None: ...

        return send

    return decorate


@pytest.mark.parametrize(
    ("decorate", "message"),
    [
        (
            _decorating(),
            (
                "Which parameter is the recipient? None is called recipient, to, user_id, user_email, email, user; the function "
                "has 'address', 'body'. Write recipient='name', recipient='name.attribute', or a callable that takes the arguments."
            ),
        ),
        (
            _decorating(recipient="adress"),
            (
                "recipient='adress': the function has no parameter 'adress'. It has 'address', 'body'. "
                "Write one of them, a path that starts with one, such as 'user.email', or a callable that takes the arguments."
            ),
        ),
        (
            _decorating(recipient="user.email"),
            (
                "recipient='user.email': the function has no parameter 'user'. It has 'address', 'body'. "
                "Write one of them, a path that starts with one, such as 'user.email', or a callable that takes the arguments."
            ),
        ),
        (
            _decorating(recipient=5),
            "recipient= is a int; it must name a parameter, or be a callable that takes the arguments.",
        ),
        (
            _decorating(recipient="address", cost="parts"),
            (
                "cost='parts': the function has no parameter 'parts'. It has 'address', 'body'. "
                "Write one of them, a path that starts with one, such as 'user.email', or a callable that takes the arguments."
            ),
        ),
        (
            _decorating(recipient="address", cost=1.5),
            "cost= is a float; it must be a whole number, name a parameter, or be a callable that takes the arguments.",
        ),
        (
            _decorating(recipient="address", cost=True),
            "cost= is a bool; it must be a whole number, name a parameter, or be a callable that takes the arguments.",
        ),
        (
            _decorating(recipient="address", cost=0),
            "The cost of a notification is 0; it must be 1 to 1,000,000,000.",
        ),
        (
            _decorating(recipient="address", cost=10**5000),
            "The cost of a notification has too many digits; it must be 1 to 1,000,000,000.",
        ),
        (
            _decorating(recipient="address", fields={"cost": 3}),
            "'cost' is not a field; pass it as the argument cost=.",
        ),
        (
            _decorating(recipient="address", fields={"priority": "body"}),
            "'priority' is not a field; pass it as the argument priority=.",
        ),
        (
            _decorating(recipient="address", fields={"planet": "Mars"}, limiter=Limiter(MANY)),
            (
                "'planet' is not a field of a notification; use channel, dedupe_key, tenant, or declare it: "
                'fields = ["planet"] in the rules file, or RuleSet(rules, fields=["planet"]).'
            ),
        ),
        (
            _decorating(recipient="address", priority=5),
            "priority= is a int; it must be a string, name a parameter, or be a callable that takes the arguments.",
        ),
        (
            _decorating(recipient="address", fields={"tenant": 1.5}),
            "tenant= is a float; it must be a string, name a parameter, or be a callable that takes the arguments.",
        ),
        (
            _decorating(recipient="address", fields={"tenant": True}),
            "tenant= is a bool; it must be a string, name a parameter, or be a callable that takes the arguments.",
        ),
        (
            _decorating(type=""),
            "type= must be a non-empty string such as 'news', or a callable that takes the arguments.",
        ),
        (
            _decorating(type=5),
            "type= must be a non-empty string such as 'news', or a callable that takes the arguments.",
        ),
        (
            _decorating(type=lambda *_: "news", limit="1/day"),
            "limit= needs a type that is a string. If the type varies, write rules.",
        ),
        (_decorating(limiter={"news": "1/day"}), "limiter= must be a Limiter or an AsyncLimiter, not dict."),
        (_decorating(on_limit="wait"), "on_limit='wait' needs max_wait=, the longest wait in seconds."),
        (_decorating(max_wait=-1), "max_wait= must be a finite number of seconds, 0 or more."),
        (
            _decorating(on_limit="defer"),
            "on_limit='defer' needs the queue of deferred notifications, which this version does not have; use 'drop'.",
        ),
        (
            _decorating(refund=5),
            "refund= must be True, False, exception types, a callable from the exception to a bool, or None.",
        ),
        (
            _decorating(recipient="address", limiter=Limiter([Rule("news", "1/day", on_limit="wait")])),
            "Rule 'news' has on_limit='wait'; that needs max_wait=, the longest wait in seconds.",
        ),
    ],
)
def test_what_cannot_be_used_is_told_at_decoration(decorate: Callable[[], object], message: str) -> None:
    """What does not fit the function is an error when it is decorated, in words that say what to write."""
    with pytest.raises(NotifyError) as caught:
        decorate()

    assert str(caught.value) == message


def test_the_name_of_a_field_is_a_text() -> None:
    """Another thing is told at decoration, and not by Python at the first call."""
    with pytest.raises(TypeError, match=r"^The name of a field must be a string such as 'tenant', not int\.$"):
        rate_limited("news", fields={5: "x"})(lambda to: None)  # type: ignore[dict-item]  # that is the point


def test_a_field_that_only_the_process_could_declare() -> None:
    """Without `limiter=` the rules may come later: a field is looked for in them at the first call."""
    limited = rate_limited("news", fields={"planet": "Mars"})(lambda to: to)

    configure(RuleSet([Rule("news", "1/day", by="planet")], fields=["planet"]))
    assert limited("ana") == "ana"
    configure({"news": "1/day"})
    with pytest.raises(NotifyError, match="'planet' is not a field of a notification"):
        limited("ana")


def test_parameters_that_gather_are_no_recipient() -> None:
    """`*to` is many, and `**email` anything: the next name that would do is taken, and an error shows them as they are."""
    limiter = Limiter(MANY)

    @rate_limited("news", limiter=limiter)
    def send(*to: str, email: str) -> None: ...

    send("body", email="ana")
    assert used(limiter) == 1

    @rate_limited("news", limiter=limiter)
    def send_more(user: str, **email: str) -> None: ...

    send_more("ana")
    assert used(limiter) == 2
    with pytest.raises(NotifyError, match=r"^Which parameter is the recipient\? .* has 'body', '\*to', '\*\*user'\."):

        @rate_limited("news")
        def send_all(body: str, *to: str, **user: str) -> None: ...


def test_a_function_without_parameters() -> None:
    """A function that has no parameters is told that it has none."""
    with pytest.raises(NotifyError, match="the function has no parameters"):
        rate_limited("news")(lambda: None)


def test_a_limit_that_cannot_be_used() -> None:
    """A limit that is not understood is an error at decoration."""
    with pytest.raises(RuleError, match="fortnight"):
        rate_limited("news", "1/fortnight")


class _Talkative:
    @property
    def contact(self) -> object:
        raise AttributeError(CANARY)


def test_a_path_that_leads_nowhere() -> None:
    """A path that a value does not have is an error at the call, which names the kind of value and not the value."""
    limited = rate_limited("news", recipient="user.contact.email", limiter=Limiter(MANY))(lambda user: None)

    for user in (
        SimpleNamespace(name=CANARY),
        {"name": CANARY},
        None,
        _Talkative(),
        _User(name=CANARY),
        _Record(name=CANARY),
    ):
        with pytest.raises(NotifyError) as caught:
            limited(user)
        shown = "".join(traceback.format_exception(caught.value))
        kind = type(user).__name__
        assert str(caught.value) == f"recipient='user.contact.email' cannot be followed: a {kind} has no 'contact'."
        assert CANARY not in shown


def test_limiters_of_the_wrong_kind() -> None:
    """An async function with a Limiter, and a sync one with an AsyncLimiter, are refused at decoration."""
    with pytest.raises(
        NotifyError, match=r"^_annotated_async is an async function, so its limiter= must be a AsyncLimiter"
    ):
        rate_limited("news", limiter=Limiter(MANY))(_annotated_async)
    with pytest.raises(NotifyError, match=r"^_annotated is a sync function, so its limiter= must be a Limiter\.$"):
        rate_limited("news", limiter=AsyncLimiter(MANY))(_annotated)


@pytest.mark.parametrize("recipient", [None, True, 4.5, "", {"email": CANARY}])
def test_a_bad_recipient(recipient: Any) -> None:
    """What identifies nobody is an error that says what to pass; the function is not called."""
    calls: list[object] = []
    limited = rate_limited("news", limiter=Limiter(MANY))(lambda to: calls.append(to) or to)

    with pytest.raises((TypeError, NotifyError), match=r"^The recipient is (a \w+; it must|empty\. Pass)") as caught:
        limited(recipient)
    assert CANARY not in str(caught.value)
    assert calls == []


# Over the limit.


def senders(steps: list[Step] | None = None, **options: Any) -> list[Any]:
    """The same function, sync and async, both called as if they were sync; what `steps` says is what it does."""
    script = list(steps or [])

    def act() -> str:
        step = script.pop(0) if script else "sent"
        if isinstance(step, BaseException):
            # Cases are shared by tests: without what earlier ones left behind.
            raise step.with_traceback(None)
        return step

    @rate_limited("news", **options)
    def send(to: str, body: str = CANARY) -> str:
        return act()

    @rate_limited("news", **options)
    async def send_async(to: str, body: str = CANARY) -> str:
        await asyncio.sleep(0)
        return act()

    def call_async(*args: Any, **kwargs: Any) -> Any:
        # Interrupts are handed over as values: they would stop the event loop.
        async def main() -> Any:
            try:
                return await send_async(*args, **kwargs), None
            except BaseException as error:  # noqa: BLE001  # raised again below
                return None, error

        value, error = asyncio.run(main())
        if error is not None:
            raise error
        return value

    return [send, call_async]


@pytest.fixture(params=[0, 1], ids=["sync", "async"])
def sender(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes a decorated function, sync or async, to be called as if it were sync."""
    return lambda *args, **options: senders(*args, **options)[request.param]


def test_raise_is_the_default(sender: Callable[..., Any], clock: Clock) -> None:
    """Over the limit a function raises, with a decision that says until when; and then it is allowed."""
    configured({"news": "1/day"})
    send = sender()

    assert send("ana") == "sent"
    with pytest.raises(RateLimitExceeded) as caught:
        send("ana")
    assert caught.value.decision.retry_after == 86_400
    assert str(caught.value) == "'news' refused by rule 'news' (1 per day), try again in 1 day"
    assert send("bob") == "sent"
    clock.advance(86_399.999999)
    with pytest.raises(RateLimitExceeded):
        send("ana")
    clock.advance(0.000001)
    assert send("ana") == "sent"


def test_a_refusal_survives_pickling() -> None:
    """The exception goes to another process with all that it explains."""
    configured({"news": "1/day"})
    send, _ = senders()
    send("ana")
    with pytest.raises(RateLimitExceeded) as caught:
        send("ana")
    copy = pickle.loads(pickle.dumps(caught.value))

    assert str(copy) == str(caught.value)
    assert copy.decision.retry_at == caught.value.decision.retry_at


def test_drop_returns_none(sender: Callable[..., Any]) -> None:
    """With `on_limit="drop"` the call over the limit returns None."""
    configured({"news": "1/day"})
    send = sender(on_limit="drop")

    assert send("ana") == "sent"
    assert send("ana") is None


def test_wait_waits(sender: Callable[..., Any], clock: Clock) -> None:
    """With `on_limit="wait"` the call returns when it was allowed and sent, and raises at once where that is too long."""
    configured({"news": "1/minute"})
    send = sender(on_limit="wait", max_wait=60)
    start = clock()

    assert [send("ana") for _ in range(3)] == ["sent"] * 3
    assert clock() - start == 120
    with pytest.raises(RateLimitExceeded):
        sender(on_limit="wait", max_wait=59)("ana")
    assert clock() - start == 120


@pytest.mark.parametrize("own", ["raise", "wait"])
@pytest.mark.parametrize("rule", [None, "raise", "drop", "wait"])
def test_it_never_returns_none_because_of_a_rule(sender: Callable[..., Any], own: Any, rule: Any) -> None:
    """A function decorated with raise or wait raises where a rule says drop: it never returns None because of a rule."""
    configured([Rule("news", "1/minute", on_limit=rule)])
    send = sender(on_limit=own, max_wait=60)
    expected = rule or own

    assert send("ana") == "sent"
    if expected == "wait":
        assert send("ana") == "sent"
    else:
        with pytest.raises(RateLimitExceeded):
            send("ana")


@pytest.mark.parametrize(("rule", "expected"), [("raise", "raised"), ("drop", None), ("wait", "sent"), (None, None)])
def test_the_rules_own_choice_wins(sender: Callable[..., Any], rule: Any, expected: str | None) -> None:
    """Where the rule says what is to happen a dropping function does that."""
    configured([Rule("news", "1/minute", on_limit=rule)])
    send = sender(on_limit="drop", max_wait=60)
    send("ana")
    try:
        second = send("ana")
    except RateLimitExceeded:
        second = "raised"

    assert second == expected


def test_a_rule_that_waits_needs_a_bound(sender: Callable[..., Any]) -> None:
    """A rule that says wait for a function without `max_wait` is an error at its first call; other types' rules are not."""
    configured([Rule("other", "1/day", on_limit="wait"), Rule("news", "1/day")])
    assert sender()("ana") == "sent"

    configured([Rule("news", "1/day", on_limit="wait")])
    send = sender()
    for _ in range(2):
        with pytest.raises(NotifyError, match=r"^Rule 'news' has on_limit='wait'; that needs max_wait="):
            send("ana")


@pytest.mark.parametrize(("choice", "own", "expected"), [("allow", "raise", "sent"), ("deny", "drop", None)])
def test_a_storage_that_fails(choice: Any, own: Any, expected: str | None) -> None:
    """Where the storage gives no answer the call raises its error, or does what `on_storage_error` says."""
    storage = Unreliable()
    storage.failing = ("acquire",)
    calls: list[str] = []

    def send(to: str) -> str:
        calls.append(to)
        return "sent"

    with pytest.raises(StorageError):
        rate_limited("news", limiter=Limiter(MANY, storage))(send)("ana")
    assert calls == []
    deciding = Limiter(MANY, storage, on_storage_error=choice)
    assert rate_limited("news", limiter=deciding, on_limit=own)(send)("ana") == expected


# Failed calls are free; unknown outcomes are kept.


@pytest.mark.parametrize("error", [*NOT_SENT, *MAYBE_SENT, *INTERRUPTED], ids=named)
def test_a_functions_error_is_raised_unchanged(sender: Callable[..., Any], error: BaseException) -> None:
    """What the function raised reaches the caller as it is; its hit is given back unless the message may have gone out."""
    configured({"news": "1/day"})
    send = sender([error])

    with pytest.raises(type(error)) as caught:
        send("ana")

    assert caught.value is error
    assert caught.value.__context__ is None
    assert caught.traceback[-1].name == "act"
    free = any(error is each for each in NOT_SENT)
    assert used(configuration.limiter()) == (0 if free else 1)
    if free:
        assert send("ana") == "sent"
    else:
        with pytest.raises(RateLimitExceeded):
            send("ana")


@given(
    steps=st.lists(st.sampled_from([*NOT_SENT, *MAYBE_SENT, *INTERRUPTED, "sent"]), max_size=8),
    index=st.integers(0, 1),
    threads=st.booleans(),
)
def test_what_is_counted_is_what_may_have_gone_out(steps: list[Step], index: int, threads: bool) -> None:
    """After any run of successes and failures, in threads or not, exactly those are counted that went out, or may have."""
    configured(MANY)
    send = senders(steps)[index]

    def attempt(_: object) -> None:
        raised = raised_by(lambda: send("ana"))
        assert raised is None or any(raised is step for step in steps)

    if threads:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(attempt, steps))
    else:
        list(map(attempt, steps))

    kept = [step for step in steps if not any(step is free for free in NOT_SENT)]
    assert used(configuration.limiter()) == len(kept)


@pytest.mark.parametrize(
    ("refund", "error", "counted"),
    [
        (True, KeyboardInterrupt(), 0),
        (False, ValueError(), 1),
        ((TimeoutError, OSError), TimeoutError(), 0),
        (lambda error: error.code == 4, ValueError(), 1),
    ],
)
def test_refund_decides_otherwise(sender: Callable[..., Any], refund: Any, error: BaseException, counted: int) -> None:
    """`refund=` says when a failure gives the hit back."""
    configured(MANY)

    with pytest.raises(type(error)) as caught:
        sender([error], refund=refund)("ana")
    assert caught.value is error
    assert used(configuration.limiter()) == counted


def test_a_release_that_fails_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Where the hit cannot be given back the function's error is raised all the same."""
    error = ValueError(CANARY)
    storage, async_storage = Unreliable(), AsyncUnreliable()
    storage.failing = async_storage.failing = ("release",)

    @rate_limited("news", limiter=Limiter(MANY, storage))
    def send(to: str) -> None:
        raise error

    @rate_limited("news", limiter=AsyncLimiter(MANY, async_storage))
    async def send_async(to: str) -> None:
        raise error

    for call in (lambda: send("ana"), lambda: run(send_async("ana"))):
        with pytest.raises(ValueError, match=CANARY) as caught:
            call()
        assert caught.value is error
    assert caplog.messages == ["A hit could not be given back and stays counted: The storage does not answer."] * 2


@pytest.mark.parametrize("middle", ["decision", "function", "wait"])
def test_cancelled(middle: str) -> None:
    """Cancelled in the middle of a decision or of the function the hit is kept; cancelled in a wait nothing is held."""
    storage = AsyncUnreliable()
    limiter = AsyncLimiter({"news": "1/hour"}, storage)
    calls: list[str] = []

    @rate_limited("news", limiter=limiter, on_limit="wait", max_wait=3600)
    async def send(to: str) -> None:
        calls.append(to)
        await asyncio.Event().wait()

    async def main() -> int:
        if middle == "wait":
            await limiter.hit("news", "ana")
        if middle == "decision":
            storage.hanging = ("acquire",)
        task = asyncio.create_task(send("ana"))
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (window,) = await limiter.windows("news", "ana")
        return window.item.amount - window.remaining

    assert run(main()) == 1
    assert calls == (["ana"] if middle == "function" else [])


# Never more than the limit.


def test_exactly_the_limit_under_threads() -> None:
    """However many threads call at once, the function runs exactly as often as the limit says."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(30):
            limit = (1, 5)[number % 2]
            calls: list[str] = []
            configured({"news": f"{limit}/day"})
            send = rate_limited("news", on_limit="drop")(lambda to, calls=calls: calls.append(to))
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(send, ["ana"] * 48))
            assert len(calls) == limit
    finally:
        sys.setswitchinterval(interval)


def test_exactly_the_limit_with_a_thousand_tasks() -> None:
    """A thousand tasks that call at once run the function exactly as often as the limit says."""

    async def main() -> None:
        for limit in (1, 7) * 3:
            configured({"news": f"{limit}/day"})
            calls: list[str] = []

            @rate_limited("news", on_limit="drop")
            async def send(to: str, calls: list[str] = calls) -> bool:
                await asyncio.sleep(0)
                calls.append(to)
                return True

            results = await asyncio.gather(*(send("ana") for _ in range(1000)))
            assert len(calls) == results.count(True) == limit

    run(main())


def test_functions_of_one_type_share_the_window() -> None:
    """The window is the type's: functions share it whatever they are called, sync and async ones too."""
    configured({"news": "3/day", "status": "1/day"})
    send, send_async = senders()
    other = rate_limited("news")(lambda user_id: "sent")
    status = rate_limited("status")(lambda to: "sent")

    assert [send("ana"), send_async("ana"), other("ana"), status("ana")] == ["sent"] * 4
    for exhausted in (send, send_async, other, status):
        with pytest.raises(RateLimitExceeded):
            exhausted("ana")


# A limit on the decorator.


def test_a_limit_on_the_decorator_needs_no_configuration() -> None:
    """`limit=` is a rule for the type, in this process's memory where nothing is configured."""
    send = rate_limited("news", "1/day")(lambda to: "sent")

    assert send("ana") == "sent"
    with pytest.raises(RateLimitExceeded):
        send("ana")
    assert send("bob") == "sent"


def test_a_limit_on_the_decorator_is_kept_across_configure() -> None:
    """Configuring other rules leaves it in force; a configured rule for its type wins over it."""
    send = rate_limited("news", limit="1/day", on_limit="drop")(lambda to: "sent")
    configured({"status": "1/day"})
    assert [send("ana"), send("ana")] == ["sent", None]
    configured({"news": "2/day", "*": None})
    assert [send("ana"), send("ana"), send("ana")] == ["sent", "sent", None]
    configured([Rule("*", "2/day", by="recipient")])
    assert [send("eve"), send("eve")] == ["sent", None]
    configured({"*": "2/day"})
    assert [send("joe"), send("joe")] == ["sent", None], "a rule for every type does not take the place of its limit"
    configured({"n*": "2/day"})
    assert [send("eve"), send("eve"), send("eve")] == ["sent", "sent", None]


def test_a_limit_on_a_decorator_that_comes_later() -> None:
    """A function that is decorated after the first call of another is limited all the same, sync or async."""
    rate_limited("status", "1/day")(lambda to: "sent")("ana")
    run(rate_limited("status2", "1/day")(_annotated_async)("ana"))
    send = rate_limited("news", "1/day", on_limit="drop")(lambda to: "sent")
    send_async = rate_limited("alert", "1/day", on_limit="drop")(_annotated_async)

    assert [send("ana"), send("ana")] == ["sent", None]
    assert [run(send_async("ana")), run(send_async("ana"))] == ["ana Hi", None]


def _first(to: str) -> None: ...
def _second(to: str) -> None: ...


@pytest.mark.parametrize("own", [False, True], ids=["configured", "limiter="])
def test_two_limits_for_one_type_are_an_error(own: bool) -> None:
    """Two decorators that disagree about a type are an error that names both places; where they agree all is well."""
    limiter = Limiter() if own else None
    rate_limited("news", "1/day", limiter=limiter)(_first)
    rate_limited("news", "1 per 1 day", limiter=limiter)(_second)

    with pytest.raises(NotifyError) as caught:
        rate_limited("news", "2/day; 9/month", limiter=limiter)(_second)
    assert str(caught.value) == (
        "Two decorators limit 'news': test_decorator._first to 1 per day, test_decorator._second to 2 per day; "
        "9 per month. Write the limit on one of them, or in the rules."
    )
    rate_limited("news", "2/day", limiter=Limiter())(_second)


def test_a_subclass_shares_the_limit_of_its_base() -> None:
    """A method that is limited again in a subclass, without a limit of its own, counts in the windows of its base."""

    class Base:
        @rate_limited("news", "2/day", on_limit="drop")
        def send(self, to: str) -> str:
            return "base"

    class Derived(Base):
        @rate_limited("news", on_limit="drop")
        def send(self, to: str) -> str:  # type: ignore[override]  # what a dropping function returns may be None
            return "derived"

    assert [each.send("ana") for each in (Derived(), Base(), Derived(), Base())] == ["derived", "base", None, None]


@pytest.mark.parametrize("second", ["news", lambda *_: "news"], ids=["text", "callable"])
@pytest.mark.parametrize("first", [0, 1], ids=["limit first", "limit last"])
@pytest.mark.parametrize("own", [False, True], ids=["process", "limiter="])
def test_a_limit_on_one_decorator_is_for_all_of_its_type(own: bool, first: int, second: Any) -> None:
    """Functions of one type share the limit that one of them declares, in either order, sync and async."""
    limiter = Limiter() if own else None

    def by_mail(to: str) -> str:
        return "mail"

    def by_sms(to: str) -> str:
        return "sms"

    decorators = [
        lambda: rate_limited("news", "2/day", on_limit="drop", limiter=limiter)(by_mail),
        lambda: rate_limited(second, on_limit="drop", limiter=limiter)(by_sms),
    ]
    sends = [decorators[first]()]
    sends.insert(first, decorators[1 - first]())
    if first == 0:
        sends.reverse()

    assert [send("ana") for send in (*sends, *sends)].count(None) == 2
    if not own:
        later = rate_limited(second, on_limit="drop")(_annotated_async)
        assert run(later("ana")) is None
        assert run(later("bob")) == "bob Hi"


@pytest.mark.parametrize("order", [0, 1])
def test_a_limit_on_a_decorator_is_for_no_other_type(order: int) -> None:
    """What nobody has limited is an error at the call, also where one function sends several types."""
    send = rate_limited(lambda to, kind: kind, on_limit="drop")(lambda to, kind="news": kind)
    other = rate_limited("status")(lambda to: "sent")
    send_async = rate_limited(lambda to, body: body, on_limit="drop")(_annotated_async)
    with pytest.raises(NotifyError, match=r"^Nothing limits "):
        send("ana", "news")
    rate_limited("news", "1/day")(lambda to: None)

    def check() -> None:
        for kind in (["news", "status"], ["status", "news"])[order]:
            for call in (functools.partial(send, "ana"), lambda kind: run(send_async("bob", kind))):
                if kind == "status":
                    with pytest.raises(NotifyError, match=r"^Nothing limits \S+: call configure\(rules=\.\.\.\) first"):
                        call(kind)
                else:
                    call(kind)
        with pytest.raises(NotifyError, match=r"^Nothing limits "):
            other("ana")

    check()
    assert send("ana", "news") is None
    check()
    configure({"other": "1/day"})
    assert (send("ana", "status"), other("ana")) == ("status", "sent")


def test_a_limit_of_another_function_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A type that only the rules of the environment know is found there, although another function came first."""
    path = tmp_path / "rules.toml"
    path.write_text('[[rules]]\ntype = "status"\nlimit = "1/day"\n')
    send = rate_limited(lambda to, kind: kind, on_limit="drop")(lambda to, kind: kind)
    rate_limited("news", "1/day")(lambda to: None)("ana")
    assert send("bob", "news") == "news"
    monkeypatch.setenv("RATELIMITED_NOTIFY_RULES", str(path))

    assert [send("bob", "status"), send("bob", "status"), send("bob", "news")] == ["status", None, None]


def test_what_nothing_limits_is_sent_while_limiting_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where limiting is switched off, a function that says its type by a callable needs no limit either."""
    monkeypatch.setenv("RATELIMITED_NOTIFY_DISABLED", "1")

    assert rate_limited(lambda to: "news")(lambda to: "sent")("ana") == "sent"


def _factory(limit: str) -> Callable[[str], str]:
    @rate_limited("news", limit)
    def send(to: str) -> str:
        return limit

    return send


def test_functions_that_cannot_be_told_apart_may_not_disagree() -> None:
    """Functions made by a function, lambdas, partials and objects have no place of their own, so they may not disagree."""
    _factory("1/day")
    _factory("1/day")
    for other in (lambda: _factory("2/day"), lambda: rate_limited("news", "3/day")(lambda to: None)):
        with pytest.raises(NotifyError, match=r"^Two decorators limit 'news': "):
            other()
    rate_limited("parts", "1/day")(functools.partial(_first))
    with pytest.raises(NotifyError, match=r"_first to 1 per day, test_decorator\._first to 2 per day\."):
        rate_limited("parts", "2/day")(functools.partial(_first))
    rate_limited("objects", "1/day")(_Called("a"))
    with pytest.raises(NotifyError, match=r"_Called to 1 per day, test_decorator\._Called to 2 per day\."):
        rate_limited("objects", "2/day")(_Called("b"))


def test_a_module_that_is_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is edited and loaded again replaces its own limit; another module's may not."""
    source = """
        from ratelimited_notify import rate_limited

        @rate_limited("reloaded", "{limit}", on_limit="drop")
        def send(to):
            return "sent"
    """

    def write(name: str, limit: str) -> None:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source.format(limit=limit)))
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write("shop_mails", "1/day")
    shop: Any = importlib.import_module("shop_mails")
    assert [shop.send("ana"), shop.send("ana")] == ["sent", None]
    write("shop_mails", "3/day")
    importlib.reload(shop)
    assert [shop.send("ana"), shop.send("ana"), shop.send("ana")] == ["sent", "sent", None]

    write("other_mails", "9/day")
    with pytest.raises(NotifyError, match=r"shop_mails\.send to 3 per day, other_mails\.send to 9 per day\."):
        importlib.import_module("other_mails")
    for name in ("shop_mails", "other_mails"):
        sys.modules.pop(name, None)


def test_a_limit_on_the_decorator_with_a_limiter() -> None:
    """With `limiter=` the limit is added to that limiter, where its own rules have none for the type."""
    limiter = Limiter(RuleSet({"status": "1/day"}))
    send = rate_limited("news", "1/day", on_limit="drop", limiter=limiter)(lambda to: "sent")
    status = rate_limited("status", "9/day", on_limit="drop", limiter=limiter)(lambda to: "sent")

    assert [send("ana"), send("ana")] == ["sent", None]
    assert [status("ana"), status("ana")] == ["sent", None]
    assert not limiter.test("news", "ana")


def test_limiters_that_are_gone_are_forgotten() -> None:
    """What decorators wrote down for a limiter goes when the limiter goes."""
    from ratelimited_notify.decorator.configuration import _declared

    gc.collect()
    before = len(_declared)
    limiter = Limiter()
    send = rate_limited("news", "1/day", limiter=limiter)(lambda to: None)
    assert len(_declared) == before + 1
    del limiter, send
    gc.collect()
    assert len(_declared) == before


# What texts show.


@given(recipient=st.text(max_size=10), body=st.text(max_size=10), index=st.integers(0, 1))
def test_no_text_shows_a_recipient_or_a_message(recipient: str, body: str, index: int) -> None:
    """No error and no traceback of the library's own shows whom a message is for, or what it says."""
    configured({"news": "1/day"})
    send = senders()[index]
    recipient, body = f"{CANARY}{recipient}", f"{CANARY}{body}"
    send(recipient, body)

    with pytest.raises(RateLimitExceeded) as caught:
        send(recipient, body)
    shown = [repr(caught.value), repr(caught.value.decision), *map(repr, caught.value.decision.windows)]
    shown += traceback.format_exception(caught.value)
    with pytest.raises(TypeError) as wrong:
        send(recipient + recipient, body, body)
    shown += traceback.format_exception(wrong.value)
    assert not [text for text in shown if CANARY in text]


def test_a_decorated_function_in_many_threads_at_its_first_call() -> None:
    """Threads that make the first call together share one limiter."""
    send = rate_limited("news", "3/day", on_limit="drop")(lambda to: "sent")
    barrier = threading.Barrier(8)
    results: list[Any] = []

    def call() -> None:
        barrier.wait()
        results.append(send("ana"))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results.count("sent") == 3


def test_a_hidden_coroutine_is_told() -> None:
    """A plain function wrapped around an async one returns what nobody awaits here: an error, which costs nothing."""

    @functools.wraps(_annotated_async)
    def wrapped(to: str) -> Any:
        return _annotated_async(to)

    configured({"news": "1/day"})
    send = rate_limited("news")(wrapped)

    with pytest.raises(NotifyError, match="put @rate_limited below the decorator that hides the async function"):
        send("ana")
    assert used(configuration.limiter()) == 0


def test_a_plain_function_that_runs_an_async_one_is_plain() -> None:
    """What awaits by itself, and says what it wraps, is limited as any other function."""

    @functools.wraps(_annotated_async)
    def wrapped(to: str) -> Any:
        return run(_annotated_async(to))

    configured({"news": "1/day"})
    send = rate_limited("news", on_limit="drop")(wrapped)

    assert [send("ana"), send("ana")] == ["ana Hi", None]


@pytest.mark.parametrize("type", ["a*", "a?", "[ab]"])
def test_a_limit_is_for_one_type(type: str) -> None:
    """A text that would be read as a family of types limits no functions of others by the way."""
    with pytest.raises(NotifyError, match=r"looks like a pattern\. Write a rule"):
        rate_limited(type, "1/day")


@pytest.mark.parametrize("options", [{"fields": {"tenant": "acount.id"}}, {"priority": "acount.id"}])
def test_a_misspelt_path_is_not_a_constant(options: dict[str, Any]) -> None:
    """It would be the same for everybody; a text that is like no parameter is a constant, with dots or without."""

    def send(to: str, account: object = None) -> str:
        return "sent"

    with pytest.raises(NotifyError, match=r"'acount.id' looks like a path.* Did you mean 'account'"):
        rate_limited("news", **options)(send)
    configured([Rule("news", "1/day", by=("recipient", "tenant"))])
    assert rate_limited("news", fields={"tenant": "shop.example.com"})(send)("ana") == "sent"
