"""The Lua scripts, the commands that run them, and other commands with the parsers of their replies.

Pure, except that it reads the texts of the scripts from the files beside this module.
"""

from __future__ import annotations

import re
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.redis.decided import answers as answers, reader
from ratelimited_notify.storage.redis.failures import UnexpectedReply
from ratelimited_notify.storage.redis.replies import shaped
from ratelimited_notify.windows.keys import STRATEGY_LETTERS, foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from ratelimited_notify.storage.redis.decided import Replies
    from ratelimited_notify.windows.strategies import Request, Token, Verdict, Window, WindowKind

LONGEST_PERIOD = 2**50
"""Microseconds, more than 35 years. Above this, Lua's numbers would not be exact."""

LARGEST_AMOUNT = 2**48
"""Above this, Lua's numbers would not be exact."""

REQUESTS_PER_CALL = 250
"""How many requests are decided in one script call. A script blocks the server's other clients while it runs."""

CALLS_PER_ROUND_TRIP = 16
"""How many script calls of a batch one caller makes on a connection before waiting callers can use it."""

# For each strategy its number in the scripts, and the file that implements it.
_STRATEGIES: dict[WindowKind, tuple[int, str]] = {
    "moving-window": (0, "moving.lua"),
    "fixed-window": (1, "fixed.lua"),
    "sliding-window-counter": (2, "sliding.lua"),
    "pause": (3, "pause.lua"),
}
_COUNTING: tuple[WindowKind, ...] = ("moving-window", "fixed-window", "sliding-window-counter")
_PACKAGE = "ratelimited_notify.storage.redis"
_LETTERS: dict[str, WindowKind] = {letter: strategy for strategy, letter in STRATEGY_LETTERS.items()}
_CALLS_KEPT = 1024

_encode = msgspec.msgpack.Encoder().encode


# The error handling comes after the last line that runs when there is no error.
_TAKING_BACK = ("trouble.lua", "give.lua", "undo.lua")

# Comments and empty lines: removed, because the server would have to read them.
_UNREAD = re.compile(r"^ *--.*\n|^\n", re.MULTILINE)

# What begins the lines of a script that are for pauses only. Without it, they are no longer comments.
_FOR_PAUSES = "--pauses "


def lua(name: str) -> str:
    """The text of one of the Lua files beside this module."""
    return (files(_PACKAGE) / name).read_text("utf-8")


CLOCK = lua("clock.lua")
"""Lua that sets `now`: the server's time."""

_BEGIN = lua("begin.lua")


class Script:
    """One script: its text, and the name by which the server knows it after the first call (its SHA-1, computed here)."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest().encode()


class Call:
    """A script and its argument, still without keys. Many calls differ only in their keys, so the rest is kept packed."""

    __slots__ = ("_argument", "_by_name", "keys", "script")

    def __init__(self, script: Script, keys: int, argument: bytes) -> None:
        self.script = script
        self.keys = keys
        self._by_name = b"*%d\r\n" % (4 + keys) + b"".join(map(_bulk, (b"EVALSHA", script.sha, b"%d" % keys)))
        self._argument = _bulk(argument)

    def by_name(self, keys: Iterable[str]) -> bytes:
        """The command for a server that knows the script."""
        return self._by_name + _keys(keys) + self._argument

    def by_text(self, keys: Iterable[str]) -> bytes:
        """The command for a server that does not know the script yet. Afterwards it does."""
        head = b"*%d\r\n" % (4 + self.keys) + _bulk(b"EVAL") + _bulk(self.script.text) + _bulk(b"%d" % self.keys)
        return head + _keys(keys) + self._argument


class Deciding(Call):
    """A script call that decides about one hit, and the parser of its reply."""

    __slots__ = ("read", "reads")

    def __init__(self, script: Script, windows: Sequence[Window], cost: int, taking: int) -> None:
        super().__init__(script, len(windows), _encode(_plan(windows, cost, taking)))
        self.read: Callable[[object], Verdict] = reader(windows, taking=bool(taking))
        self.reads = (self.read,)


class Scripts:
    """All scripts, and a cache of frequent calls.

    Arguments:
        clock: Lua that sets `now`, in microseconds.
    """

    def __init__(self, clock: str = CLOCK) -> None:
        self._texts: dict[tuple[str, ...], Script] = {}
        self._clock = clock
        self._calls: dict[tuple[object, ...], Deciding] = {}
        self._many = self._script(_COUNTING, "decide.lua", "many.lua", *_TAKING_BACK)
        self._forget = self._script(_COUNTING, "trouble.lua", "forget.lua")
        self._release = self._script(_COUNTING, "trouble.lua", "give.lua", "release.lua")

    def acquire(self, windows: Sequence[Window], cost: int) -> Deciding:
        """Count a hit, or refuse it."""
        call = self._calls.get((1, cost, *windows))
        return self._one(windows, cost, 1) if call is None else call

    def peek(self, windows: Sequence[Window], cost: int) -> Deciding:
        """Decide about a hit without counting it."""
        call = self._calls.get((0, cost, *windows))
        return self._one(windows, cost, 0) if call is None else call

    def acquire_many(self, requests: Sequence[Request]) -> Call:
        """Count several hits, in order."""
        return self.many(requests, [True] * len(requests))

    def many(self, requests: Sequence[Request], taking: Sequence[bool]) -> Call:
        """Decide about several hits, in order. Those with a False in `taking` are not counted."""
        plans: list[list[int]] = []
        known: dict[tuple[object, ...], int] = {}
        numbers: list[int] = []
        keys = number = 0
        before: tuple[bool, int, Sequence[Window]] | None = None
        script = self._many
        for (windows, _, cost), counts in zip(requests, taking, strict=True):
            keys += len(windows)
            # Usually these are the very same windows as in the previous request.
            if before is None or windows is not before[2] or cost != before[1] or counts is not before[0]:
                before = counts, cost, windows
                wanted = (counts, cost, *windows)
                number = known.get(wanted, 0)
                if not number:
                    plans.append(_plan(windows, cost, int(counts)))
                    if _has_pause(windows):
                        script = self._script(_STRATEGIES, "decide.lua", "many.lua", *_TAKING_BACK)
                    number = known[wanted] = len(plans)
            numbers.append(number)
        return Call(script, keys, _encode((plans, numbers if len(plans) > 1 else len(numbers))))

    def release(self, hit: HeldHit, cost: int) -> Call:
        """Give back the hit that these tokens identify."""
        plan = [cost]
        for window, token in zip(hit.windows, hit.tokens, strict=True):
            plan += _STRATEGIES[window.strategy][0], window.period, *token
        return Call(self._release, len(hit.keys), _encode(plan))

    def forget(self, windows: Sequence[Window]) -> Call:
        """Empty windows."""
        plan: list[int] = []
        for window in windows:
            plan += _STRATEGIES[window.strategy][0], window.period
        script = self._script(_STRATEGIES, "trouble.lua", "forget.lua") if _has_pause(windows) else self._forget
        return Call(script, len(windows), _encode(plan))

    def pause(self, window: Window, duration: int) -> Call:
        """Pause a rule, from now on."""
        if duration > LONGEST_PERIOD:
            raise StorageError(f"The pause of rule {window.rule!r} is too long for Redis.")
        return Call(self._script(("pause",), "trouble.lua", "extend.lua"), 1, _encode(duration))

    def _one(self, windows: Sequence[Window], cost: int, taking: int) -> Deciding:
        if len(self._calls) >= _CALLS_KEPT:
            self._calls.clear()
        script = self._script({window.strategy for window in windows}, "decide.lua", "one.lua", *_TAKING_BACK)
        call = self._calls[taking, cost, *windows] = Deciding(script, tuple(windows), cost, taking)
        return call

    def _script(self, strategies: Iterable[WindowKind], *names: str) -> Script:
        # Only the files that a call needs, since the server processes the whole text each time.
        wanted = (*sorted(_STRATEGIES[strategy][1] for strategy in strategies), *names)
        script = self._texts.get(wanted)
        if script is None:
            text = "\n".join((_BEGIN, self._clock, *map(lua, wanted)))
            if "pause.lua" in wanted:
                text = text.replace(_FOR_PAUSES, "")
            script = self._texts[wanted] = Script(_UNREAD.sub("", text))
        return script


class HeldHit(NamedTuple):
    """The windows in which a hit was counted, their keys, and its tokens."""

    windows: list[Window]
    keys: list[str]
    tokens: list[Token]

    def __repr__(self) -> str:
        # The keys contain recipients, and a tool may show the variables of a traceback.
        return "<HeldHit>"


def held_hit(windows: Sequence[Window], keys: Sequence[str], tokens: Sequence[Token | None]) -> HeldHit:
    """The windows that have a token, and so a hit to give back."""
    found = HeldHit([], [], [])
    for window, key, token in zip(windows, keys, tokens, strict=True):
        if token is not None:
            found.windows.append(window)
            found.keys.append(key)
            found.tokens.append(token)
    return found


def round_trips(requests: Sequence[Request]) -> Iterator[Iterator[Sequence[Request]]]:
    """Split requests, in order, into groups for one use of a connection, and each group into batches for one script call.

    Each batch is sliced from `requests` only when it is needed, so `requests` may build its items lazily.
    """
    each = REQUESTS_PER_CALL
    whole = CALLS_PER_ROUND_TRIP * each
    for first in range(0, len(requests), whole):
        yield (requests[at : at + each] for at in range(first, min(first + whole, len(requests)), each))


def conversation(
    made: Scripts, batches: Iterable[Sequence[Request]]
) -> Generator[bytes, Any, list[Replies]]:  # Any: replies
    """Yield commands to send, and an empty command when a reply has to be read and sent in. Return the parsed replies.

    Two script calls are in flight at a time, so that this process packs and parses while the server decides. They are never
    sent by the script's name: if the server did not know it, the first call would have to be resent, behind the second.
    """
    found: list[Replies] = []
    ahead: Sequence[Request] = ()
    for batch in batches:
        yield made.acquire_many(batch).by_text(keys_of(batch))
        if ahead:
            found.append(answers((yield b""), ahead))
        ahead = batch
    found.append(answers((yield b""), ahead))
    return found


def keys_of(requests: Sequence[Request]) -> list[str]:
    """The keys of all requests, in order."""
    return [key for _, keys, _ in requests for key in keys]


def command(*parts: bytes) -> bytes:
    """A command in the wire format (RESP, https://redis.io/docs/latest/develop/reference/protocol-spec/)."""
    return b"*%d\r\n" % len(parts) + b"".join(map(_bulk, parts))


def scan(cursor: bytes) -> bytes:
    """The command for one step through the database, see `ours`."""
    # A glob that matches the keys of this library, so that most other keys are not sent over the network.
    return command(b"SCAN", cursor, b"MATCH", b"*:{*}:*:[mfsp]", b"COUNT", b"1000")


def ours(found: Iterable[bytes]) -> list[bytes]:
    """The keys among these that this library made."""
    return [key for key in found if _is_ours(key.decode("ascii", "replace"))]


def scanned(reply: Any) -> tuple[bytes, list[bytes]]:  # Any: as the server answers
    """Parse the reply to `scan`: the next cursor, and the keys that this library made."""
    cursor, found = shaped(reply, tuple[bytes, list[bytes]])
    if not cursor.isdigit():
        raise UnexpectedReply
    return cursor, ours(found)


def pong(reply: Any) -> bool:  # Any: as the server answers
    """Check the reply to PING."""
    if type(reply) is not bytes or reply != b"PONG":
        raise UnexpectedReply
    return True


def okay(reply: Any) -> bool:  # Any: as the server answers
    """Check the reply to a command that only returns OK."""
    if type(reply) is not bytes or reply != b"OK":
        raise UnexpectedReply
    return True


def _is_ours(key: str) -> bool:
    strategy = _LETTERS.get(key[-1:])
    return strategy is not None and foreign(key, strategy) == key


def _bulk(part: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(part), part)


def _keys(keys: Iterable[str]) -> bytes:
    packed = "".join([f"${len(key)}\r\n{key}\r\n" for key in keys])
    if packed.isascii():
        return packed.encode()
    # Keys that this library did not make. The length counts bytes, not characters.
    return b"".join([_bulk(key.encode()) for key in keys])


def _has_pause(windows: Sequence[Window]) -> bool:
    """Whether a script needs the code for pauses, which no other script has."""
    return any(window.strategy == "pause" for window in windows)


def _plan(windows: Sequence[Window], cost: int, taking: int) -> list[int]:
    if taking and len({window.strategy == "moving-window" for window in windows if window.strategy != "pause"}) > 1:
        # Moving windows are written by other commands than the others, and pauses by none.
        taking = 2
    # No window has room for more than this, so capping the cost does not change the verdict.
    plan = [taking, min(cost, 4 * LARGEST_AMOUNT)]
    for window in windows:
        if window.period > LONGEST_PERIOD:
            raise StorageError(
                f"The period of rule {window.rule!r} is too long for Redis: it is {window.period} microseconds, "
                f"and the longest is {LONGEST_PERIOD}, about 35 years.",
                nothing_counted=True,
            )
        if window.amount > LARGEST_AMOUNT:
            raise StorageError(
                f"The amount of rule {window.rule!r} is too large for Redis: it is {window.amount}, "
                f"and the largest is {LARGEST_AMOUNT}.",
                nothing_counted=True,
            )
        plan += _STRATEGIES[window.strategy][0], window.mode, window.amount, window.period
    return plan
