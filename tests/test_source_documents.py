"""Documents that cannot be used: none of them replaces good rules, or is felt by a send."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from ratelimited_notify import AsyncLimiter, AsyncNotifier, Limiter, Notifier, NotifyError, RuleError, rate_limited
from ratelimited_notify.rules.document import rule_set_of
from ratelimited_notify.sources import FileRules, RuleSource
from ratelimited_notify.sources.formats import document_in
from ratelimited_notify.sources.stop_signal import StopSignal

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

SAVED = sorted((Path(__file__).parent / "invalid_rules").iterdir())

AMOUNT = 1_000_000_000

GOOD: dict[str, Any] = {
    "default": "5/hour",
    "fields": ["ip"],
    "rules": [
        {"type": "news", "limit": f"{AMOUNT}/day", "overrides": {"ana@example.com": f"{AMOUNT}/hour"}},
        {"type": "n*", "limit": [f"{AMOUNT}/hour", f"{AMOUNT}/day"], "by": ["recipient"], "name": "all of n"},
    ],
}
TOML = (
    'default = "5/hour"\nfields = ["ip"]\n\n[[rules]]\ntype = "news"\nlimit = "1000000000/day"\n'
    'overrides = { "ana@example.com" = "1000000000/hour" }\n\n'
    '[[rules]]\ntype = "n*"\nlimit = ["1000000000/hour", "1000000000/day"]\nby = ["recipient"]\nname = "all of n"\n'
)
TEXTS = {".toml": TOML, ".yaml": yaml.safe_dump(GOOD), ".json": json.dumps(GOOD)}


class Read(RuleSource):
    """What is in a file of some format."""

    ending = ".toml"
    content: object = b""
    number = 0

    def say(self, content: object) -> None:
        self.content = content
        self.number += 1

    def load(self, known: str | None) -> Any:
        if known == str(self.number):
            return None
        content = self.content
        return str(self.number), document_in(content, self.ending) if isinstance(content, bytes) else content


class Senders:
    """All ways to send, over one source."""

    def __init__(self, source: RuleSource) -> None:
        self.limiter = Limiter(source)
        self.async_limiter = AsyncLimiter(source)
        self.notifier = Notifier(lambda recipient: "sent", limiter=self.limiter)

        async def later(recipient: str) -> str:
            return "sent"

        self.async_notifier = AsyncNotifier(later, limiter=self.async_limiter)
        self.decorated = rate_limited("news", limiter=self.limiter)(lambda recipient: "sent")
        self.async_decorated = rate_limited("news", limiter=self.async_limiter)(later)

    def send(self) -> None:
        """Each of them sends, and none raises."""
        assert self.limiter.hit("news", "ana@example.com")
        assert self.notifier.send("news", "bob@example.com").result == "sent"
        assert self.decorated("carl@example.com") == "sent"
        asyncio.run(self._send())

    async def _send(self) -> None:
        assert await self.async_limiter.hit("news", "ana@example.com")
        assert (await self.async_notifier.send("news", "bob@example.com")).result == "sent"
        assert await self.async_decorated("carl@example.com") == "sent"

    def close(self) -> None:
        self.limiter.close()
        asyncio.run(self.async_limiter.close())


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What cannot be used is logged, hundreds of times."""
    logger = logging.getLogger("ratelimited_notify")
    logger.disabled = True
    yield
    logger.disabled = False


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from(["1/day", "news", "", "*", "0/day", "wait", "ip", "x"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "limit", "by", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def documents(draw: st.DrawFn) -> object:
    """A document in which something is replaced, added or left out."""
    document: Any = json.loads(json.dumps(GOOD))
    for _ in range(draw(st.integers(1, 2))):
        place = (
            draw(st.sampled_from([document, *document["rules"]]))
            if isinstance(document.get("rules"), list)
            else document
        )
        if not isinstance(place, dict):
            continue
        key = draw(st.sampled_from([*place, "tiers", "on_limit", "name", "strategy", "typo", "by"]))
        if draw(st.booleans()):
            place[key] = draw(values)
        else:
            place.pop(key, None)
    return draw(st.just(document) | values)


@st.composite
def texts(draw: st.DrawFn, ending: str) -> bytes:
    """A file in which something was cut out, doubled or written over."""
    text = TEXTS[ending]
    if draw(st.integers(0, 3)) == 0:
        return json.dumps(draw(documents())).encode() if ending != ".toml" else draw(st.binary(max_size=80))
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(text)))
        end = min(len(text), begin + draw(st.sampled_from([0, 1, 2, 5, 40, 1000])))
        junk = draw(
            st.sampled_from(
                ["", "", '"', "[", "}", ":", "\n", "\t", "x", "*a", "&a ", "- ", "\x00", text[begin:end] * 2]
            )
        )
        text = text[:begin] + junk + text[end:]
    return text.encode()


@pytest.mark.parametrize("kind", [".toml", ".yaml", ".json", "function"])
def test_no_invalid_document_is_felt(kind: str) -> None:
    """A hundred and thirty of each kind: the same rules object stays in force, the status says why, and everything is sent."""
    source = Read(interval=3600)
    source.ending = kind
    good: object = GOOD if kind == "function" else TEXTS[kind].encode()
    source.say(good)
    senders = Senders(source)
    live = senders.limiter.source
    senders.send()
    rules = senders.limiter.rules
    refused = 0

    @settings(max_examples=130, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
    @given(documents() if kind == "function" else texts(kind))
    def try_one(content: object) -> None:
        nonlocal refused
        assume(not _usable(content, kind))
        source.say(content)
        live.attempt(StopSignal())
        assert senders.limiter.rules is senders.async_limiter.rules is rules
        assert live.status.error is not None
        source.say(content)
        with pytest.raises(NotifyError):
            live.refresh()
        if refused % 10 == 0:
            senders.send()
        refused += 1

    try_one()
    senders.send()
    source.say(good)
    live.refresh()
    assert live.status.error is None
    assert senders.limiter.rules is rules
    assert refused >= 130
    senders.close()


def _usable(content: object, kind: str) -> bool:
    try:
        rules = rule_set_of(document_in(content, kind) if isinstance(content, bytes) else content)  # type: ignore[arg-type]  # anything
    except (NotifyError, AttributeError, TypeError):
        return False
    # Without any rules, or with those that a function without max_wait cannot go by, it is refused as well.
    if any(rule.tiers or rule.on_limit == "wait" for rule in rules):
        return False
    return bool(rules.rules) or rules.default is not None


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.name)
def test_a_saved_invalid_file_is_not_felt(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What people and programs really leave in the place of a file of rules."""
    monkeypatch.setattr("ratelimited_notify.sources.file._MOMENT", 0.001)
    live = tmp_path / f"rules{path.suffix}"
    live.write_text(TEXTS[path.suffix])
    senders = Senders(FileRules(live, interval=3600))
    rules = senders.limiter.rules
    live.write_bytes(path.read_bytes())
    for _ in range(2):
        with pytest.raises(NotifyError):
            senders.limiter.source.refresh()
        senders.limiter.source._state = senders.limiter.source._state._replace(refused=None)
    assert senders.limiter.source.status.error is not None
    senders.send()

    assert senders.limiter.rules is senders.async_limiter.rules is rules
    senders.close()


def test_none_of_them_starts_a_program(tmp_path: Path) -> None:
    """At the start, there are no good rules to stay in force: it is an error that says what is wrong."""
    for path in SAVED:
        # Those can be used by somebody else, or where there were no rules before.
        if path.stem in ("empty", "empty-rules", "waits"):
            continue
        with pytest.raises(RuleError):
            Limiter(FileRules(path))


def test_what_raises_when_it_is_read_is_not_felt() -> None:
    """A document that is no plain one, or a `normalize=` that fails for new overrides: the thread says so, and tries again."""

    class Odd(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise OSError

        items = keys = get = __iter__ = __getitem__  # type: ignore[assignment]  # all of it raises

    broken = True

    def normalize(recipient: str) -> str:
        if broken and recipient == "broken":
            raise ValueError
        return recipient

    cyclic: dict[str, Any] = {}
    cyclic["rules"] = [cyclic]
    overrides = {"rules": [{"type": "news", "limit": "1/day", "overrides": {"broken": "2/day"}}]}
    source = Read(interval=3600)
    source.say(GOOD)
    limiter = Limiter(source, normalize=normalize)
    rules = limiter.rules
    for wrong in (Odd(rules=[]), cyclic, overrides):
        source.say(wrong)
        limiter.source.attempt(StopSignal())
        assert limiter.source.status.error is not None
        assert limiter.rules is rules
        assert limiter.hit("news", "ana@example.com")
    broken = False
    source.say(overrides)
    limiter.source.attempt(StopSignal())

    assert limiter.source.status.error is None
    assert limiter.rules != rules
    limiter.close()
