"""Events and decisions agree, for any sequence of calls; and no event shows a recipient."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies as st
from msgspec.structs import replace

from limiting import MINUTE, Clock
from outcomes import Unreliable
from ratelimited_notify import Limiter, Notification, Notifier, NotifyError, Rule, rate_limited
from ratelimited_notify.instrumentation import Decided, Delivered
from ratelimited_notify.windows.strategies import FITS, Mode
from watching import Told

if TYPE_CHECKING:
    from ratelimited_notify import Decision

TYPES = ("news", "sms", "free", "odd")
PEOPLE = ("ana@example.com", "Ana@Example.com", "ben@example.com", "gold@example.com", "a%b", "ü{}\n/")
PRIORITIES = (None, None, None, "high", "low")

_rules = st.lists(
    st.sampled_from(
        [
            {"type": "news", "limit": "2/minute", "name": "news"},
            {"type": "news", "limit": "1/minute; 3/hour", "name": "both", "exempt": "high"},
            {"type": "new*", "limit": "3/minute", "name": "family", "strategy": "fixed-window"},
            {
                "type": "*",
                "limit": "4/minute",
                "by": "recipient",
                "name": "cap",
                "exempt": "high",
                "count_exempt": False,
            },
            {"type": "*", "limit": "6/minute", "by": (), "name": "all"},
            {"type": "sms", "limit": "2/minute", "name": "trial", "enforce": False},
            {
                "type": "sms",
                "limit": "1/minute",
                "name": "over",
                "overrides": {"ben@example.com": "2/minute", "a%b": None},
            },
            {"type": "sms", "limit": "1/minute", "name": "tiers", "tiers": {"gold": "3/minute"}},
            {"type": "free", "limit": None, "by": (), "name": "free"},
            {"type": "odd", "limit": "0/minute", "name": "never"},
        ]
    ),
    max_size=5,
    unique_by=lambda rule: rule["name"],
)
_calls = st.lists(
    st.tuples(
        st.sampled_from(("hit", "hit", "hit", "many", "decide", "notify", "batch", "decorated", "advance", "release")),
        st.sampled_from(TYPES),
        st.sampled_from(PEOPLE),
        st.sampled_from((1, 1, 1, 2)),
        st.sampled_from(PRIORITIES),
    ),
    max_size=25,
)
_options = st.sampled_from(
    ({}, {"normalize": "email"}, {"pseudonymize": b"secret"}, {"remember_refusals": True}, {"enabled": False})
)


def verdict_of(decision: Decision, exempt: bool) -> tuple[str, str | None]:
    """What an event should say, worked out from what users see of the decision."""
    refusing = [state.rule for state in decision.windows if state.enforced and state.retry_after > 0]
    counters, verdict = decision.grounds()
    pairs = [] if verdict is None else list(zip(counters, verdict.readings, strict=True))
    trial = [window.rule for window, reading in pairs if window.mode is Mode.SHADOW and reading.retry_at != FITS]
    if not decision.allowed:
        return "refused", refusing[0]
    if trial:
        return "would_refuse", trial[0]
    if exempt:
        return "exempt", None
    return ("allowed" if decision.windows else "unlimited"), None


class Driver:
    """Makes the calls of an example, and keeps what they decided and what became of them."""

    def __init__(self, rules: list[dict[str, Any]], options: dict[str, Any], by_shortcut: bool) -> None:
        self.rules = rules
        self.off = options.get("enabled") is False
        self.clock = Clock()
        tiers = {"tier_of": lambda recipient: "gold" if recipient.startswith("gold") else None}
        self.limiter = Limiter(rules, clock=self.clock, **tiers, **options)
        self.by_shortcut = by_shortcut
        if not by_shortcut:
            self.limiter.plans._shortcut_for = None
        self.told = Told()
        self.limiter.watch(self.told)
        self.decided: list[tuple[str, str | None]] = []
        self.ended: list[str] = []
        self.last: Decision | None = None
        self.notifier = Notifier(self._send, limiter=self.limiter)
        self.functions = {type: rate_limited(type, limiter=self.limiter, on_limit="drop")(self._send) for type in TYPES}

    def _send(self, recipient: str) -> str:
        if recipient == "ben@example.com":
            raise ValueError(recipient)
        return "sent"

    def _note(self, decision: Decision, priority: str | None) -> None:
        self.last = decision
        exempt = not self.off and any(
            priority in rule.exempt for rule in self.limiter.rules if rule.matches(decision.type)
        )
        self.decided.append(verdict_of(decision, exempt))

    def call(self, verb: str, type: str, recipient: str, cost: int, priority: str | None) -> None:
        """Make one call."""
        if verb == "advance":
            self.clock.advance(MINUTE // 2)
        elif verb == "release":
            if self.last is not None:
                self.limiter.release(self.last)
                self.last = None
        elif verb == "hit":
            self._note(self.limiter.hit(type, recipient, cost=cost, priority=priority), priority)
        elif verb == "many":
            for decision in self.limiter.hit_many(type, [recipient, PEOPLE[0]], cost=cost, priority=priority):
                self._note(decision, priority)
        elif verb == "decide":
            batch = [Notification(type, each, cost=cost, priority=priority) for each in (recipient, PEOPLE[2])]
            for answer in self.limiter.decide(batch):
                self._note(answer, priority)  # type: ignore[arg-type]  # nothing here can be wrong
        else:
            self.ended.append(self._sent(verb, type, recipient, cost, priority))

    def _sent(self, verb: str, type: str, recipient: str, cost: int, priority: str | None) -> str:
        """What became of a notification."""
        notifier = self.notifier.bind(cost=cost, priority=priority)
        if verb == "batch":
            return notifier.send_many(type, [recipient])[0].status.value
        try:
            if verb == "notify":
                return notifier.send(type, recipient).status.value
            return "suppressed" if self.functions[type](recipient) is None else "sent"
        except ValueError:
            return "failed"


@given(rules=_rules, options=_options, calls=_calls)
def test_events_say_what_the_decisions_say(
    rules: list[dict[str, Any]], options: dict[str, Any], calls: list[tuple[Any, ...]]
) -> None:
    """One event for each decision, with its verdict; one for each delivery, with its status; by each way the same."""
    drivers = [Driver(rules, options, by_shortcut) for by_shortcut in (True, False)]
    for driver in drivers:
        for verb, type, recipient, cost, priority in calls:
            before, ended = len(driver.told.of(Decided)), len(driver.told.of(Delivered))
            noted, statuses = len(driver.decided), len(driver.ended)
            driver.call(verb, type, recipient, cost, priority)
            decided = driver.told.of(Decided)[before:]
            if verb in ("hit", "many", "decide"):
                assert [(event.verdict, event.rule) for event in decided] == driver.decided[noted:]
                assert {(event.type, event.cost) for event in decided} == {(type, cost)}
            assert driver.told.statuses[ended:] == driver.ended[statuses:]
            assert len(driver.told.of(Delivered)) - ended == (verb in ("notify", "batch", "decorated"))

    first, second = (
        [replace(event, seconds=None) if isinstance(event, Delivered) else event for event in driver.told]
        for driver in drivers
    )
    assert first == second


@given(
    recipient=st.text(min_size=8).filter(lambda text: text.strip()) | st.emails(),
    type=st.sampled_from(TYPES),
    options=st.sampled_from(
        (
            {},
            {"normalize": "email"},
            {"pseudonymize": b"secret"},
            {"on_storage_error": "allow"},
            {"on_storage_error": "deny"},
        )
    ),
)
def test_no_event_shows_a_recipient(recipient: str, type: str, options: dict[str, Any]) -> None:
    """Whatever happens: refusals, errors, overrides for this recipient, and storages that fail."""

    def gateway(to: str, fails: bool) -> None:
        if fails:
            raise ValueError(to)

    def normalize(text: str) -> str:
        raise ValueError(text)

    told = Told()
    storage = Unreliable()
    rules = [Rule("news", "1/day", overrides={recipient: "2/day"}), Rule("*", "9/day", by="recipient", name="cap")]
    storage.failing = ("acquire", "acquire_many") if "on_storage_error" in options else ()
    for limiter in (Limiter(rules, storage, **options), Limiter(rules[1:], normalize=normalize)):
        limiter.watch(told)
        notifier = Notifier(gateway, limiter=limiter)
        send = rate_limited(type, limiter=limiter)(gateway)
        for fails in (False, True, False):
            for call in (send, notifier.bind(tenant=recipient).send):
                arguments = (recipient,) if call is send else (type, recipient)
                with suppress(ValueError, NotifyError):
                    call(*arguments, fails)  # type: ignore[operator]  # they take different arguments
            notifier.send_many(type, [recipient, ""], fails)

    assert len(told.of(Delivered)) == 24
    assert {event.recipient for event in told if isinstance(event, (Decided, Delivered))} == {None}
    # What its own letters may be a part of, such as the name of a rule, is no recipient.
    texts = {value for event in told for value in (getattr(event, name) for name in event.__struct_fields__)}
    assert [text for text in texts if isinstance(text, str) and recipient in text] == []


@pytest.mark.slow
@settings(max_examples=10)
@given(rules=_rules, calls=_calls)
def test_other_storages_tell_the_same(
    rules: list[dict[str, Any]], calls: list[tuple[Any, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An SQLite file tells what memory tells, but for its name and the seconds."""
    memory, file = Driver(rules, {}, by_shortcut=True), Driver(rules, {}, by_shortcut=True)
    path = tmp_path_factory.mktemp("windows") / "windows.db"
    file.limiter.close()
    file.limiter = Limiter(
        rules, f"sqlite:///{path}", clock=file.clock, timeout=20,
        tier_of=lambda recipient: "gold" if recipient.startswith("gold") else None,
    )  # fmt: skip
    file.limiter.watch(file.told)
    for driver in (memory, file):
        for verb, *arguments in calls:
            if verb in ("hit", "many", "decide", "advance", "release"):
                driver.call(verb, *arguments)
    file.limiter.close()

    assert [(event.verdict, event.rule, event.cost) for event in memory.told.of(Decided)] == [
        (event.verdict, event.rule, event.cost) for event in file.told.of(Decided)
    ]
