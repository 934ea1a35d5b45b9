"""What it costs to watch, and what it costs that one could."""

from __future__ import annotations

import inspect
import sys
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

from contenders import OURS, decorated, each, one_rule
from measured import ratio
from paired import fresh, in_turns
from prometheus_client import CollectorRegistry

from ratelimited_notify import Limiter, rate_limited
from ratelimited_notify.decorator import decorator
from ratelimited_notify.instrumentation import registry
from ratelimited_notify.instrumentation.prometheus import instrument

if TYPE_CHECKING:
    from contenders import Hit
    from measured import Effort, Figure

_AMOUNT = 20
_PEOPLE = 500

# What a decorated function does for those who watch. Without these lines, nobody could.
_WATCHING = {
    "                    tell_dropped(limiter, plain, recipient, outcome)\n": "",
    "            ending = failure if limiter.watching is None else attempt_of(limiter, plain, recipient, decision, failure)\n": "",
    "                tell_failure(ending, failure, error)\n": "",
    "if ending is None": "if failure is None",
    '            attempt = cast("Attempt | None", None if ending is failure else ending)\n': "",
    "            if attempt is not None and failure is None and (kind in PLAIN or not ends_later(kind)):\n"
    "                attempt.sent()\n"
    "                return result\n": "",
    "            tell_end(ending, failure, failed)\n": "",
    "Pending(limiter, decision, refunded, failure, attempt)": "Pending(limiter, decision, refunded, failure, None)",
}


def _unwatchable(amount: int) -> Hit:
    """A decorated function, by a copy of the decorator that has no line for those who watch."""
    source = inspect.getsource(decorator)
    for line, instead in _WATCHING.items():
        if line not in source:
            raise AssertionError(f"The decorator has other lines now than this one: {line.strip()}")
        source = source.replace(line, instead)
    if "attempt" in source.replace("attempt_of", "") or "= ending" in source:
        raise AssertionError("The decorator has more lines for those who watch.")
    copy = ModuleType("unwatchable")
    sys.modules[copy.__name__] = copy
    exec(compile(source, "unwatchable.py", "exec"), copy.__dict__)  # noqa: S102  # our own code, less a few lines

    @copy.rate_limited("news", limiter=Limiter(one_rule(amount)), on_limit="drop")
    def send(recipient: str) -> bool:  # noqa: ARG001  # the limiter reads it
        return True

    return send


def counted(amount: int, storage: str = "memory://", **options: Any) -> Hit:
    """A decorated function whose decisions and deliveries are counted."""
    limiter = Limiter(one_rule(amount), storage, **options)
    counting = instrument(CollectorRegistry(), decision_seconds=False).watcher
    # It watches the process, where what nobody watches is measured too. Here it watches one limiter.
    registry.end(counting)
    limiter._add_watcher(counting)

    @rate_limited("news", limiter=limiter, on_limit="drop")
    def send(recipient: str) -> bool:  # noqa: ARG001  # the limiter reads it
        return True

    return send


def _called_back(amount: int) -> Hit:
    """A decorated function with a callback that does nothing."""
    limiter = Limiter(one_rule(amount))
    limiter.watch(lambda event: None)

    @rate_limited("news", limiter=limiter, on_limit="drop")
    def send(recipient: str) -> bool:  # noqa: ARG001  # the limiter reads it
        return True

    return send


def memory(effort: Effort) -> list[Figure]:
    """One rule, allowed: nobody watches, counters, and a callback."""
    times = in_turns(
        {
            OURS: each(decorated(one_rule(_AMOUNT))),
            "unwatchable": each(_unwatchable(_AMOUNT)),
            "counted": each(counted(_AMOUNT)),
            "called back": each(_called_back(_AMOUNT)),
        },
        fresh(_PEOPLE, _AMOUNT),
        2 * effort.rounds,
        clock=time.thread_time,
    )
    return [
        ratio("watch-nobody", times.ratio(OURS, "unwatchable")),
        ratio("watch-counters", times.ratio("counted", OURS)),
        ratio("watch-callback", times.ratio("called back", OURS)),
    ]


MEASUREMENTS = (memory,)
