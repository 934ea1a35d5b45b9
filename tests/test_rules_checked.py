"""What notifiers and decorated functions need of the rules is checked for every set before it comes into force.

Each of them refuses a set that it cannot go by: the whole set, for all, whatever form the rules have and whichever way they come.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from offering import Offered
from processes import unconfigured
from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Limiter,
    Notifier,
    NotifyError,
    RateLimitExceeded,
    Rule,
    RuleSet,
    configure,
    rate_limited,
)
from ratelimited_notify.sources import FileRules, FunctionRules
from ratelimited_notify.sources.stop_signal import StopSignal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Document = dict[str, Any]

GOOD: Document = {"rules": [{"type": "news", "limit": "2/day"}], "fields": ["ip"]}
WAITING: Document = {"rules": [{"type": "news", "limit": "9/day", "on_limit": "wait"}], "fields": ["ip"]}
WITH_OVERRIDE: Document = {**WAITING, "rules": [{**WAITING["rules"][0], "overrides": {"vip": "10/day"}}]}
WITHOUT_FIELD: Document = {"rules": [{"type": "news", "limit": "9/day"}]}


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a process to itself, in which nothing is configured."""
    with unconfigured(monkeypatch):
        yield


# --- The ways in which rules come -------------------------------------------------------------------------------------


class Way:
    """One way in which rules come: what a limiter is made of, and how others follow."""

    def __init__(self, path: Path) -> None:
        self.path = path / "rules.json"
        self.document = GOOD
        self.version = 0
        self.write()

    def write(self) -> None:
        self.path.write_text(json.dumps(self.document) + " " * self.version)

    def rules(self) -> Any:
        """The rules, or where they come from."""
        return RuleSet(**self.document)

    def change(self, limiter: Any, document: Document) -> None:
        self.document, self.version = document, self.version + 1
        self.write()
        self.put(limiter)

    def put(self, limiter: Any) -> None:
        limiter.rules = self.rules()


class Rules(Way):
    def rules(self) -> Any:
        tables = [Rule(**table) for table in self.document["rules"]]
        return RuleSet(tables, fields=self.document["fields"]) if "fields" in self.document else tables


class File(Way):
    def rules(self) -> Any:
        return self.path


class Source(Way):
    def rules(self) -> Any:
        return FunctionRules(lambda known: (str(self.version), self.document), interval=3600)

    def put(self, limiter: Any) -> None:
        limiter.source.refresh()


class FileSource(Source):
    def rules(self) -> Any:
        return FileRules(self.path, interval=3600)


class Text(Source):
    def rules(self) -> Any:
        return f"file:{self.path}?interval=3600"


WAYS = {"rule set": Way, "rules": Rules, "file": File, "function": Source, "file source": FileSource, "text": Text}


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Way:
    """Each way in turn."""
    return WAYS[request.param](tmp_path)


# --- Those who need something of them ----------------------------------------------------------------------------------


def sends(recipient: str, address: str = "::1") -> None: ...


async def sends_later(recipient: str, address: str = "::1") -> None: ...


def deciding(function: Any, limiter: Any, **options: Any) -> Any:
    return rate_limited("news", fields={"ip": "address"}, limiter=limiter, **options)(function)


def method(limiter: Any) -> Any:
    class Sender:
        @rate_limited("news", fields={"ip": "address"}, limiter=limiter)
        def sends(self, recipient: str, address: str) -> None: ...

    return Sender


def class_method(limiter: Any) -> Any:
    class Sender:
        @rate_limited("news", fields={"ip": "address"}, limiter=limiter)
        @classmethod
        def sends(cls, recipient: str, address: str) -> None: ...

    return Sender


NOTIFIERS: dict[str, tuple[Any, Callable[[Any], object], str]] = {
    "notifier": (Limiter, lambda limiter: Notifier(sends, limiter=limiter), "The notifier of .*sends"),
    "bound copy": (
        Limiter,
        lambda limiter: Notifier(sends, limiter=limiter).bind(tenant="a"),
        "The notifier of .*sends",
    ),
    "async notifier": (
        AsyncLimiter,
        lambda limiter: AsyncNotifier(sends_later, limiter=limiter),
        "The notifier of .*sends_later",
    ),
}
FUNCTIONS: dict[str, tuple[Any, Callable[[Any], object], str]] = {
    "function": (Limiter, lambda limiter: deciding(sends, limiter), "sends"),
    "async function": (AsyncLimiter, lambda limiter: deciding(sends_later, limiter), "sends_later"),
    "method": (Limiter, method, "Sender.sends"),
    "class method": (Limiter, class_method, "Sender.sends"),
}


@pytest.mark.parametrize("who", [*NOTIFIERS, *FUNCTIONS])
def test_rules_that_somebody_cannot_go_by_are_refused(who: str, way: Way) -> None:
    """As a whole, with the name of who refuses, as long as it lives; and nothing else keeps it alive."""
    kind, make, said = {**NOTIFIERS, **FUNCTIONS}[who]
    limiter = kind(way.rules())
    holder = make(limiter)
    before = limiter.rules
    with pytest.raises(NotifyError, match=rf"{said}.* cannot go by these rules: Rule 'news' has on_limit='wait'"):
        way.change(limiter, WAITING)
    assert limiter.rules is before
    if who in FUNCTIONS:
        with pytest.raises(NotifyError, match=rf"{said} cannot go by these rules: 'ip' is not a field"):
            way.change(limiter, WITHOUT_FIELD)
        assert limiter.rules is before
    del holder
    gc.collect()
    for document in (WAITING, WITHOUT_FIELD):
        way.change(limiter, document)
        assert limiter.rules == RuleSet(**document)


@pytest.mark.parametrize(
    "make",
    [
        lambda limiter: Notifier(sends, limiter=limiter, max_wait=1),
        lambda limiter: deciding(sends, limiter, on_limit="wait", max_wait=1),
        lambda limiter: deciding(sends, limiter, max_wait=1),
        lambda limiter: rate_limited("status", "1/day", limiter=limiter)(sends),
    ],
)
def test_those_who_can_go_by_rules_do_not_refuse_them(make: Callable[[Any], object], way: Way) -> None:
    """Who has max_wait, or sends another type."""
    limiter = Limiter(way.rules())
    holder = make(limiter)
    way.change(limiter, WAITING)

    assert limiter.rules == RuleSet(**WAITING)
    del holder


def test_one_who_refuses_is_enough_and_the_next_set_is_tried_again(way: Way) -> None:
    """Of several, each may be the one. What follows is checked anew."""
    limiter = Limiter(way.rules())
    able = Notifier(sends, limiter=limiter, max_wait=1)
    unable = deciding(sends, limiter)
    with pytest.raises(NotifyError, match="sends cannot go by"):
        way.change(limiter, WAITING)
    more = {**GOOD, "rules": [{"type": "news", "limit": "3/day"}]}
    way.change(limiter, more)

    assert limiter.rules == RuleSet(**more)
    assert [unable("ana") for _ in range(3)] == [None, None, None]
    assert not able.send("news", "ana")


def test_a_notifier_with_rules_of_its_own_refuses_them_too(way: Way) -> None:
    """`rules=` of a notifier is the same door, and so is `notifier.rules`."""
    notifier = Notifier(sends, way.rules())
    with pytest.raises(NotifyError, match=r"The notifier of .*sends"):
        way.change(notifier if type(way) in {Way, Rules, File} else notifier.limiter, WAITING)

    assert notifier.rules == RuleSet(**GOOD)


@pytest.mark.parametrize("who", ["sync", "async"])
def test_functions_that_are_bound_by_configure_refuse_them(who: str, way: Way) -> None:
    """From their first call on. Before that, nothing is known of them, and they are told at that call."""
    limited: Any = rate_limited("news", fields={"ip": "address"})(sends if who == "sync" else sends_later)

    def call() -> None:
        done = limited("ana")
        if who == "async":
            asyncio.run(done)

    configured = configure(way.rules())
    limiter = configured.limiter if who == "sync" else configured.async_limiter
    way.change(limiter, WAITING)
    for _ in range(2):
        with pytest.raises(NotifyError, match=r"^Rule 'news' has on_limit='wait'"):
            call()
    way.change(limiter, WITHOUT_FIELD)
    with pytest.raises(NotifyError, match=r"^'ip' is not a field"):
        call()
    # What could not be used yet keeps nothing from coming into force.
    way.change(limiter, WAITING)
    way.change(limiter, GOOD)
    call()
    for document in (WAITING, WITHOUT_FIELD):
        with pytest.raises(NotifyError, match=r"sends\w* cannot go by these rules"):
            way.change(limiter, document)

    assert limiter.rules == RuleSet(**GOOD)
    call()


def test_functions_of_an_earlier_configuration_no_longer_refuse_rules_of_the_next(way: Way) -> None:
    """They are bound again at their next call, and told then."""
    limited = rate_limited("news", fields={"ip": "address"})(sends)
    configure(RuleSet(**GOOD))
    limited("ana")
    limiter = configure(way.rules()).limiter
    way.change(limiter, WITHOUT_FIELD)

    with pytest.raises(NotifyError, match=r"^'ip' is not a field"):
        limited("ana")


def test_a_function_that_is_decorated_later_is_told_then(way: Way) -> None:
    """At its decoration if it names its limiter; and it leaves nothing behind that refuses rules later."""
    limiter = Limiter(way.rules())
    for document in (WAITING, WITHOUT_FIELD):
        way.change(limiter, document)
        with pytest.raises(NotifyError):
            deciding(sends, limiter)
    way.change(limiter, WAITING)
    with pytest.raises(NotifyError, match="on_limit='wait'"):
        Notifier(sends, limiter=limiter)
    gc.collect()
    way.change(limiter, WITHOUT_FIELD)

    assert limiter.rules == RuleSet(**WITHOUT_FIELD)


def test_a_type_that_varies_is_checked_by_nobody_and_raises_over_the_limit(way: Way) -> None:
    """Which rules apply is not known before a call. It never waits without max_wait."""
    limiter = Limiter(way.rules())
    limited: Callable[..., object] = rate_limited(lambda recipient, type: type, limiter=limiter)(
        lambda recipient, type: None
    )
    way.change(limiter, {**WAITING, "rules": [{**WAITING["rules"][0], "limit": "1/day"}]})
    limited("ana", "news")

    with pytest.raises(RateLimitExceeded):
        limited("ana", "news")


# --- While rules change ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["notifier", "function"])
def test_who_comes_while_rules_change_is_told(who: str) -> None:
    """The others have been asked already. Either the rules are refused, or the one who cannot go by them."""
    make: Callable[[Any], object]
    _, make, said = {**NOTIFIERS, **FUNCTIONS}[who]
    refused: list[str] = []
    source = Offered({"rules": [{"type": "news", "limit": "2/day"}], "fields": ["ip"]}, interval=3600)

    def normalize(recipient: str) -> str:
        # It is called while the new rules are prepared, after all who are there were asked.
        if source.version == 1 and not refused:
            try:
                make(limiter)
            except NotifyError as error:
                refused.append(str(error))
        return recipient

    limiter = Limiter(source, normalize=normalize)
    source.say(WITH_OVERRIDE)
    limiter.source.refresh()

    assert [re.search(rf"{said}.* go by these rules: Rule 'news' has on_limit='wait'", each) for each in refused] != [
        None
    ]
    assert len(refused) == 1
    assert limiter.rules == RuleSet(**WITH_OVERRIDE)
    assert make(Limiter(RuleSet(**GOOD)))


@pytest.mark.parametrize("who", [*NOTIFIERS, *FUNCTIONS])
def test_rules_that_change_between_the_two_steps_are_checked(
    who: str, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody checks the rules in force, and others come before it is asked about each change."""
    kind, make, said = {**NOTIFIERS, **FUNCTIONS}[who]
    limiter = kind(way.rules())
    register = kind.register

    def late(self: Any, check: Any) -> None:
        way.change(limiter, WAITING)
        register(self, check)

    monkeypatch.setattr(kind, "register", late)
    with pytest.raises(NotifyError, match=rf"{said}.* cannot go by these rules"):
        make(limiter)
    monkeypatch.undo()
    gc.collect()

    way.change(limiter, WITHOUT_FIELD)
    assert limiter.rules == RuleSet(**WITHOUT_FIELD)


def test_rules_that_were_refused_no_longer_matter_to_those_who_come() -> None:
    """Whoever refused them, and as long as somebody keeps the error."""
    source = Offered(GOOD, interval=3600)
    first, second = Limiter(source), Limiter(source)
    unable = Notifier(sends, limiter=second)
    source.say(WAITING)
    with pytest.raises(NotifyError) as kept:
        first.source.refresh()

    assert Notifier(sends, limiter=first).send("news", "ana")
    assert unable.send("news", "ana")
    assert "cannot go by these rules" in str(kept.value)
    first.close()
    second.close()


# --- When those who refused them are gone ------------------------------------------------------------------------------


@pytest.mark.parametrize("who", [*NOTIFIERS, *FUNCTIONS, "limiter", "declared limit"])
def test_refused_rules_are_tried_again_when_the_one_who_refused_is_gone(who: str) -> None:
    """At the next look, although the source has nothing new; and not at every look before."""
    source = Offered(GOOD, interval=3600)
    other = Limiter(source)
    limiter: Any = None
    holder: Any = None
    document = WAITING
    if who == "limiter":
        # Without tier_of=.
        limiter = Limiter(source)
        other = Limiter(source, tier_of=lambda recipient: None)
        document = {"rules": [{"type": "news", "limit": "9/day", "tiers": {"gold": "10/day"}}]}
    elif who == "declared limit":
        limiter = Limiter(source)
        holder = rate_limited("status", "1/day", limiter=limiter)(sends)
        document = {"rules": [{"type": "n*", "limit": "9/day", "by": ["type", "recipient"], "name": "status"}]}
    else:
        kind, make, _ = {**NOTIFIERS, **FUNCTIONS}[who]
        limiter = kind(source)
        holder = make(limiter)
    live = other.source
    source.say(document)
    with pytest.raises(NotifyError):
        live.refresh()
    for _ in range(3):
        live.attempt(StopSignal())
    assert source.loads[-3:] == ["1"] * 3
    assert live.status.failures == 4
    if who == "declared limit":
        rate_limited("status", "1/hour", limiter=limiter)(sends)
    del holder, limiter
    gc.collect()
    live.attempt(StopSignal())

    assert other.rules == RuleSet(**document)
    assert live.status.problems == ()
    live.attempt(StopSignal())
    assert source.loads[-2:] == [None, "1"]
