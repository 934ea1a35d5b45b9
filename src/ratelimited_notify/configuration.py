"""What decorated functions go by: one configuration for the whole process, for sync and async functions alike."""

from __future__ import annotations

import os
import threading
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.limiter import AsyncLimiter, Limiter

if TYPE_CHECKING:
    from typing import Unpack

    from ratelimited_notify.asking import LimiterOptions
    from ratelimited_notify.rules.rule import Rule
    from ratelimited_notify.sources import Rules
    from ratelimited_notify.storage.base import AsyncStorage, Storage

RULES_VARIABLE = "RATELIMITED_NOTIFY_RULES"
STORAGE_VARIABLE = "RATELIMITED_NOTIFY_STORAGE"


class Configuration:
    """The limiters that decorated functions share, made when the first of them is called."""

    __slots__ = ("_async_limiter", "_limiter", "_lock", "_options", "_rules", "_storage", "_worn", "configured")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._worn: dict[str, tuple[Rule, str]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget what was configured; limits written on decorators stay."""
        with self._lock:
            self.configured = False
            self._rules: Rules | None = None
            self._storage: str | Storage | AsyncStorage | None = None
            self._options: LimiterOptions = {}
            self._limiter: Limiter | None = None
            self._async_limiter: AsyncLimiter | None = None

    def configure(
        self,
        rules: Rules | None,
        storage: str | Storage | AsyncStorage | None,
        options: LimiterOptions,
    ) -> None:
        """Replace what was configured, once the new has proved usable."""
        made = Configuration()
        made._worn = self._worn
        made.configured, made._rules, made._storage, made._options = True, rules, storage, options
        # Made at once, so that what cannot be used is told here and not at the first call.
        if iscoroutinefunction(getattr(storage, "incr", None)):
            made.async_limiter()
        else:
            made.limiter()
        with self._lock:
            for name in self.__slots__:
                if name not in ("_lock", "_worn"):
                    setattr(self, name, getattr(made, name))

    def wear(self, rule: Rule, place: str, *, again: bool) -> None:
        """Take up the limit that a decorator at `place` wrote down; `again` lets it take the place of its former self.

        Raises:
            NotifyError: a decorator at another place wrote down another limit for the type; both places are named.
        """
        with self._lock:
            other, first = self._worn.get(rule.type, (rule, place))
            if other != rule and not (again and first == place):
                raise NotifyError(
                    f"Two decorators limit {rule.type!r}: {first} to {_listing(other)}, {place} to {_listing(rule)}. "
                    "Write the limit on one of them, or in the rules."
                )
            self._worn[rule.type] = rule, first
            for limiter in (self._limiter, self._async_limiter):
                if limiter is not None:
                    limiter.wear(rule)

    @property
    def speaks(self) -> bool:
        """Whether anything was configured, by `configure` or by the environment."""
        return self.configured or bool(os.environ.get(RULES_VARIABLE))

    def limiter(self) -> Limiter:
        """The limiter of sync functions."""
        return self._limiter or self._make_limiter()

    def async_limiter(self) -> AsyncLimiter:
        """The limiter of async functions, on the same windows."""
        return self._async_limiter or self._make_async_limiter()

    def _make_limiter(self) -> Limiter:
        with self._lock:
            if self._limiter is None:
                made = Limiter(self._found_rules(), self._found_storage(), **self._options)  # type: ignore[arg-type]  # the limiter checks what it is given
                for rule, _ in self._worn.values():
                    made.wear(rule)
                self._limiter = made
            return self._limiter

    def _make_async_limiter(self) -> AsyncLimiter:
        with self._lock:
            if self._async_limiter is None:
                storage = self._found_storage()
                if isinstance(storage, str) and storage.startswith("memory://"):
                    # Windows in memory are one set only if they are opened once.
                    storage = self._make_limiter().storage
                made = AsyncLimiter(self._found_rules(), storage, **self._options)  # type: ignore[arg-type]  # likewise
                for rule, _ in self._worn.values():
                    made.wear(rule)
                self._async_limiter = made
            return self._async_limiter

    def _found_rules(self) -> Rules | None:
        return self._rules if self._rules is not None else os.environ.get(RULES_VARIABLE)

    def _found_storage(self) -> str | Storage | AsyncStorage:
        if self._storage is not None:
            return self._storage
        return os.environ.get(STORAGE_VARIABLE) or "memory://"


configuration = Configuration()
"""The one configuration of this process."""


def configure(
    rules: Rules | None = None,
    storage: str | Storage | AsyncStorage | None = None,
    **options: Unpack[LimiterOptions],
) -> None:
    """Say by which rules, and on which storage, decorated functions are limited: sync and async ones, in one set of windows.

    A second call replaces the first for all of them; limits written on decorators stay, where no rule is for their type.
    What is not given comes from the environment: `RATELIMITED_NOTIFY_RULES`, the path of a TOML file,
    `RATELIMITED_NOTIFY_STORAGE`, a URI, and `RATELIMITED_NOTIFY_DISABLED`.

    Arguments:
        rules: what may be sent, as `Limiter` takes it.
        storage: where windows are kept, as `Limiter` takes it; by default this process's memory.
        options: the further arguments of `Limiter`, such as `enabled=False`.

    Raises:
        RuleError: the rules cannot be used; all problems are named, each with its place.
        NotifyError: another argument cannot be used. What was configured before stays.
    """
    configuration.configure(rules, storage, options)


def _listing(rule: Rule) -> str:
    return "; ".join(map(str, rule.limits)) or "none"
