"""Rules in Redis, which all processes obey within milliseconds after somebody wrote them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING
from weakref import ref

from ratelimited_notify.errors import NotifyError, RuleError
from ratelimited_notify.log import warning
from ratelimited_notify.sources.base import Loaded, RuleSource
from ratelimited_notify.sources.formats.json import read_json, write_json
from ratelimited_notify.sources.formats.notation import noted
from ratelimited_notify.sources.redis import hash as kept
from ratelimited_notify.sources.redis.address import address_of, seconds
from ratelimited_notify.sources.redis.connection import check_options
from ratelimited_notify.sources.redis.subscription import Subscription
from ratelimited_notify.sources.writing import Unusable, checked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimited_notify.errors import Problem
    from ratelimited_notify.sources.annotations import FixedRules

_LONGEST_SILENCE = 10.0
"""Seconds after which the server has to answer a PING on the subscription."""


class RedisRules(RuleSource):
    """Rules from a hash in Redis or Valkey, with the fields `version` and `document`, which is JSON.

    Write it with `ratelimited-notify rules push` or with `write`: both replace version and document in one step, and publish
    the change in a channel that has the name of the key. Each process subscribes to it. Where that does not work, a change is
    noticed after the interval.

    Arguments:
        uri: `redis://user:password@host:6379/0`, `rediss://` for TLS, `redis+unix:///path/to.sock`, or the same with `valkey`.
            `?timeout=` and the options `ssl_…` of redis-py can follow.
        key: the key of the hash, such as `"notify:rules"`.
        interval: seconds between two looks at the version, 5 by default.
        timeout: seconds to connect, and for each part of a reply, 2 by default. No decision waits for it.
        fallback: the rules that hold until the first load succeeds, in any form that `Limiter` takes except a source.
        wait: False starts without rules if the first load fails.
        allow_empty: True accepts that there are no rules any more.

    Raises:
        NotifyError: an argument cannot be used.
        MissingExtra: redis is not installed.
    """

    portable = False

    def __init__(
        self,
        uri: str,
        *,
        key: str,
        interval: float = 5.0,
        timeout: float = 2.0,
        fallback: FixedRules | None = None,
        wait: bool = True,
        allow_empty: bool = False,
    ) -> None:
        super().__init__(interval=interval, fallback=fallback, wait=wait, allow_empty=allow_empty)
        address = address_of(uri)
        if not isinstance(key, str) or not key or not key.isprintable():  # pyright: ignore[reportUnnecessaryIsInstance]  # users pass anything
            raise NotifyError("key= must be the name of a key, such as 'notify:rules'.")
        options = dict(address.options)
        given: object = options.pop("timeout", timeout)
        if isinstance(given, bool) or not isinstance(given, (int, float)) or seconds(f"{given:.9f}") is None:
            raise NotifyError("timeout= must be a number of seconds above 0 and up to 3,600.")
        self._address = address.with_options(options)
        check_options(self._address, given)
        self._timeout = float(given)
        self.key = key
        self.place = address.place(key)
        self._wrong: tuple[str, RuleError] | None = None
        # Of the thread that waits. When the thread ends, its connection goes with it.
        self._mine = threading.local()
        self._newest: ref[Subscription] | None = None
        self._vain = 0
        self._is_said = False

    def load(self, known: str | None) -> Loaded | None:
        wrong = None if known is None else self._wrong
        content = kept.read(self._address, self._timeout, self.key, known if wrong is None else wrong[0])
        if isinstance(content, str):
            if wrong is not None:
                # It is not read and parsed again.
                raise RuleError(wrong[1].problems)
            return None
        try:
            document = read_json(_text(content.document), "The document")
        except RuleError as error:
            unusable = Unusable(error.problems, version=content.version)
            self._wrong = content.version, unusable
            raise unusable from None
        self._wrong = None
        return None if content.version == known else Loaded(content.version, document)

    def write(self, document: Mapping[str, object], *, if_version: str | None = None) -> str:
        """Replace the rules, and tell all processes that have subscribed.

        Arguments:
            document: the rules, as a rules file has them: `{"rules": [{"type": "news", "limit": "1/day"}]}`.
            if_version: write only if this is the version of the rules there, so that two people who edit at the same time do
                not overwrite each other. The number before the hyphen is enough; `"0"` if there must be no rules yet.

        Returns:
            The new version: a number that counts up, a hyphen, and a digest of the document.

        Raises:
            RuleError: the document cannot be used; the error lists all problems. Or the server refused.
            NotifyError: the server cannot be reached, or the rules there have another version.
        """
        rules = checked(document, self.options)
        return kept.write(self._address, self._timeout, self.key, write_json(document, rules), if_version)

    def explained(self, problem: Problem) -> Problem:
        """The same problem, with advice in JSON."""
        return noted(problem, "JSON")

    def wait(self, timeout: float) -> bool:
        subscription = self._subscription()
        if subscription is None:
            # Loaded again after this: what was written before it subscribed is not published again.
            return self._subscribe()
        lived = time.monotonic() - subscription.since
        try:
            changed = subscription.wait(timeout)
        except NotifyError as error:
            self._drop(subscription)
            if subscription.interrupted:
                return False
            if lived < self.options.interval:
                self._fail(error)
                raise
            # At once, but not again and again.
            return self._subscribe()
        if subscription.is_proven:
            self._vain = 0
            if self._is_said:
                self._is_said = False
                warning("Changes of the rules in %s are noticed at once again.", self.place)
        return changed

    def close(self) -> None:
        """Close the connections. The source may be used again afterwards."""
        mine: Subscription | None = getattr(self._mine, "subscription", None)
        if mine is not None:
            self._drop(mine)
        newest = None if self._newest is None else self._newest()
        if newest is not None and newest is not mine:
            newest.interrupt()

    def _subscription(self) -> Subscription | None:
        subscription: Subscription | None = getattr(self._mine, "subscription", None)
        if subscription is not None and subscription.is_inherited:
            self._drop(subscription)
            return None
        return subscription

    def _subscribe(self) -> bool:
        try:
            subscription = Subscription(
                self._address, self.key, self._timeout, min(self.options.interval, _LONGEST_SILENCE)
            )
        except NotifyError as error:
            self._fail(error)
            raise
        self._mine.subscription, self._newest = subscription, ref(subscription)
        return True

    def _drop(self, subscription: Subscription) -> None:
        self._mine.subscription = None
        subscription.close()

    def _fail(self, error: NotifyError) -> None:
        self._vain += 1
        # If the server cannot be reached, the next load fails too, and says so. It was reached if this is called again.
        if not self._is_said and (isinstance(error, RuleError) or self._vain > 1):
            self._is_said = True
            warning(
                "Changes of the rules in %s are noticed only every %g seconds, because the subscription failed: %s",
                *(self.place, self.options.interval, error),
            )


def _text(document: bytes) -> str:
    try:
        return document.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    raise RuleError("The document is not valid JSON: it is not UTF-8.")
