"""The configuration of decorated functions: one for the whole process, for sync and async functions."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

from ratelimited_notify.errors import NotifyError, Problem, RuleError
from ratelimited_notify.forking import forkable, in_children
from ratelimited_notify.limiter.aio import AsyncLimiter
from ratelimited_notify.limiter.options import LimiterOptions, check_option_names, without_insurance
from ratelimited_notify.limiter.switch import switch
from ratelimited_notify.limiter.sync import Limiter
from ratelimited_notify.log import lines_held, warning
from ratelimited_notify.rules.wording import limits_text
from ratelimited_notify.sources.load import rules_if_on, source_of
from ratelimited_notify.storage.open import MEMORY, is_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Unpack

    from ratelimited_notify.rules.rule import Rule
    from ratelimited_notify.rules.ruleset import RuleSet
    from ratelimited_notify.sources.annotations import Rules
    from ratelimited_notify.sources.base import RuleSource
    from ratelimited_notify.storage.base import AsyncStorage, Storage
    from ratelimited_notify.storage.memory import MemoryStorage

RULES_VARIABLE = "RATELIMITED_NOTIFY_RULES"
STORAGE_VARIABLE = "RATELIMITED_NOTIFY_STORAGE"


class DecoratorLimits:
    """The limits that are declared on decorators, one for each type."""

    __slots__ = ("_by_type",)

    def __init__(self) -> None:
        self._by_type: dict[str, tuple[Rule, str, bool]] = {}

    def adding(self, rule: Rule, place: str, *, again: bool) -> DecoratorLimits:
        """A copy with the limit of the decorator at `place`. With `again`, it replaces an earlier limit from the same
        place.

        Raises:
            NotifyError: a decorator at another place has another limit for the type. The message names both places.
        """
        other, first, lasts = self._by_type.get(rule.type, (rule, place, again))
        if other != rule and not (again and first == place):
            raise NotifyError(
                f"Two decorators limit {rule.type!r}: {first} to {limits_text(other.limits)}, {place} to {limits_text(rule.limits)}. "
                "Write the limit on one of them, or in the rules."
            )
        taken = DecoratorLimits()
        taken._by_type = {**self._by_type, rule.type: (rule, place if again and not lasts else first, again or lasts)}
        return taken

    def limits(self, type: str | None) -> bool:
        """Whether a decorator limits this type. None: any type."""
        return bool(self._by_type) if type is None else type in self._by_type

    def rules(self) -> list[Rule]:
        """The declared limits, as rules."""
        return [rule for rule, _, _ in self._by_type.values()]

    def without_temporary(self, before: DecoratorLimits) -> DecoratorLimits:
        """The limits declared before, and those that modules imported since then declare for good."""
        kept = DecoratorLimits()
        kept._by_type = before._by_type | {type: declared for type, declared in self._by_type.items() if declared[2]}
        return kept


class Configuration:
    """The limiters that decorated functions share. They are made when the first of these functions is called."""

    __slots__ = (
        "_async_limiter",
        "_declared",
        "_limiter",
        "_lock",
        "_memory",
        "_next",
        "_options",
        "_override",
        "_place",
        "_rules",
        "_said_moved",
        "_storage",
        "configured",
        "used",
    )

    def __init__(self) -> None:
        self._lock = forkable(threading.RLock())
        self._next: Configuration | None = None
        self._declared = DecoratorLimits()
        self._override: MemoryStorage | None = None
        self._memory: dict[str, MemoryStorage] = {}
        """The windows in memory, by what they are for. They live as long as the process, however often it is configured."""
        self.reset()

    def reset(self) -> None:
        """Forget the configuration and the windows in memory. The limits on decorators stay."""
        with self._lock:
            self._memory = {}
            self.configured = False
            """Whether `configure` or the environment set the rules."""
            self._rules: RuleSet | RuleSource | None = None
            self._storage: str | Storage | AsyncStorage | None = None
            self._options: LimiterOptions = {}
            self._limiter: Limiter | None = None
            self._async_limiter: AsyncLimiter | None = None
            self.used = False
            """Whether a function was called with this configuration."""
            self._place: object = None
            self._said_moved = False

    def configure(
        self,
        rules: Rules | None,
        storage: str | Storage | AsyncStorage | None,
        options: LimiterOptions,
    ) -> None:
        """Replace the configuration, if the new one can be used."""
        with lines_held(), self._lock:
            made = Configuration()
            made._declared, made._override, made._memory = self._declared, self._override, {**self._memory}
            # Read once, so that an iterator or a file gives the limiters for sync and async functions the same rules.
            made.configured, made._storage, made._options = True, storage, options
            given = os.environ.get(RULES_VARIABLE) or None if rules is None else rules
            off = made._is_off()
            made._rules = source_of(given, off=off) or rules_if_on(given, off=off)
            # Made now, so that an error appears here and not at the first call.
            if any(iscoroutinefunction(getattr(storage, verb, None)) for verb in ("acquire", "incr")):
                made.async_limiter()
            else:
                made.limiter()
            moved = self.used and not made._is_off() and made._place != self._place
            made._said_moved = moved or self._said_moved
            is_news = moved and not self._said_moved
            self._become(made)
        if is_news:
            warning(
                "configure() was called after decorated functions had been called, and they count elsewhere from now on: "
                "storage=, namespace=, pseudonymize= or, in memory, clock= has changed. What was counted before is left "
                "behind. Call configure() before the first call of a decorated function."
            )

    def _become(self, made: Configuration) -> None:
        self._next = made
        for name in self.__slots__:
            if name not in ("_lock", "_next"):
                setattr(self, name, getattr(made, name))
        self._next = None

    def forked(self) -> None:
        """Finish in a forked child what another thread of the parent was changing."""
        if self._next is not None:
            self._become(self._next)

    def require(self, name: str, type: str | None) -> None:
        """Check that there is a limit for the function with this name, which sends this type.

        Arguments:
            name: the name of the function.
            type: the type, or None if it varies from call to call. Then this is asked again for the type of each call.

        Raises:
            NotifyError: neither `configure` nor the environment set any rules, and no decorator limits the type.
        """
        if self.configured or (type is not None and self._declared.limits(type)) or switch.read():
            return
        with lines_held(), self._lock:
            if self.configured:
                return
            if not os.environ.get(RULES_VARIABLE):
                if self._declared.limits(type):
                    return
                raise NotifyError(
                    f"Nothing limits {name}: call configure(rules=...) first, set {RULES_VARIABLE}, or write "
                    "limit='1/day' on the decorator."
                )
            # The variable was set after a function that has its own limit was called.
            self._rules = None
            rules = self._found_rules()
            for limiter in (self._limiter, self._async_limiter):
                if limiter is not None:
                    limiter.take_rules(rules)

    def declare(self, rule: Rule, place: str, *, again: bool) -> None:
        """Add the limit of a decorator, as `DecoratorLimits.adding` does."""
        with lines_held(), self._lock:
            declared = self._declared.adding(rule, place, again=again)
            for limiter in (self._limiter, self._async_limiter):
                if limiter is not None:
                    _declare_on(limiter, rule, place)
            # Only now: a limit that cannot be used must not stay.
            self._declared = declared

    @contextmanager
    def overriding(self, clock: Callable[[], float]) -> Generator[None, None, None]:
        """For a test: use the same rules with fresh windows in memory and this clock, whatever is configured meanwhile.

        Afterwards the earlier configuration and the earlier limits on decorators are in force again. Limits of
        functions that the test itself defined are removed.
        """
        from ratelimited_notify.storage.memory import MemoryStorage

        before = Configuration()
        with self._lock:
            before._become(self)
            before._declared = self._declared.without_temporary(self._declared)
            self._override = MemoryStorage(clock=clock)
            self._limiter = self._async_limiter = None
        try:
            yield
        finally:
            with self._lock:
                before._declared = self._declared.without_temporary(before._declared)
                for limiter in (before._limiter, before._async_limiter):
                    if limiter is not None:
                        for rule in before._declared.rules():
                            limiter.declare(rule)
                self._become(before)

    def limiter(self) -> Limiter:
        """The limiter of sync functions."""
        return self._limiter or self._make_limiter()

    def async_limiter(self) -> AsyncLimiter:
        """The limiter of async functions, on the same windows."""
        return self._async_limiter or self._make_async_limiter()

    def _make_limiter(self) -> Limiter:
        with lines_held(), self._lock:
            if self._limiter is None:
                made = Limiter(self._found_rules(), self._located(), **self._found_options())  # type: ignore[arg-type]  # the limiter checks it
                for rule in self._declared.rules():
                    made.declare(rule)
                self._limiter = made
            return self._limiter

    def _make_async_limiter(self) -> AsyncLimiter:
        with lines_held(), self._lock:
            if self._async_limiter is None:
                made = AsyncLimiter(self._found_rules(), self._located(), **self._found_options())
                for rule in self._declared.rules():
                    made.declare(rule)
                self._async_limiter = made
            return self._async_limiter

    def _found_rules(self) -> RuleSet | RuleSource:
        if self._rules is None:
            path = os.environ.get(RULES_VARIABLE) or None
            off = self._is_off()
            self._rules = source_of(path, off=off) or rules_if_on(path, off=off)
            self.configured = path is not None
        return self._rules

    def _located(self) -> str | Storage | AsyncStorage:
        """The storage to use. What tells its windows from others is kept."""
        storage, options = self._found_storage(), self._options
        self._place = storage, options.get("namespace", "notify"), options.get("pseudonymize")
        return storage

    def _found_storage(self) -> str | Storage | AsyncStorage:
        if self._override is not None:
            return self._override
        storage = self._storage
        if storage is None:
            storage = os.environ.get(STORAGE_VARIABLE) or "memory://"
        if self._is_off() or not is_memory(storage):
            return storage
        return self._shared_memory("storage")

    def _is_off(self) -> bool:
        return not self._options.get("enabled", True) or switch.read()

    def _shared_memory(self, use: str) -> MemoryStorage:
        """One set of windows for sync and async functions, which the next configuration uses too."""
        from ratelimited_notify.storage.memory import MemoryStorage

        clock, found = self._options.get("clock"), self._memory.get(use)
        if found is None or found.clock is not clock:
            found = self._memory[use] = MemoryStorage(clock=clock, timeout=self._options.get("timeout", 0.5))
        return found

    def _found_options(self) -> LimiterOptions:
        if self._override is not None:
            return {**without_insurance(self._options), "clock": self._override.clock, "enabled": True}
        if self._options.get("on_storage_error") == MEMORY and not self._is_off():
            return {**self._options, "on_storage_error": self._shared_memory("insurance")}
        return self._options


configuration = Configuration()
"""The configuration of this process."""

in_children(configuration.forked)


class Configured:
    """The configuration in force: what the last call of `configure` set, no matter which call returned this object."""

    __slots__ = ()

    @property
    def limiter(self) -> Limiter:
        """What decides about sync functions without a `limiter=` of their own."""
        return configuration.limiter()

    @property
    def async_limiter(self) -> AsyncLimiter:
        """What decides about coroutine functions without a `limiter=` of their own, on the same windows."""
        return configuration.async_limiter()


_configured = Configured()

decided: WeakKeyDictionary[Callable[..., object], Callable[[], Limiter | AsyncLimiter | None]] = WeakKeyDictionary()
"""What returns the limiter of each decorated function, for `limiter_of`."""


def decided_by(limited: Callable[..., object], limiter: Limiter | AsyncLimiter | None, *, awaited: bool) -> None:
    """Remember what decides about a decorated function.

    Arguments:
        limited: the function that the decorator made.
        limiter: the `limiter=` of the decorator; with None, the configuration decides.
        awaited: whether it is a coroutine function.
    """
    if limiter is None:
        decided[limited] = configuration.async_limiter if awaited else configuration.limiter
    else:
        # The function keeps its limiter alive. If this did too, neither would be freed once the limiter leads to the function.
        decided[limited] = ref(limiter)


_declared: WeakKeyDictionary[Limiter | AsyncLimiter, DecoratorLimits] = WeakKeyDictionary()
_declaring = forkable(threading.Lock())


def declare(limiter: Limiter | AsyncLimiter | None, rule: Rule, place: str, *, again: bool) -> None:
    """Add the limit of a decorator to its `limiter=` or to the process, as `DecoratorLimits.adding` does."""
    if limiter is None:
        configuration.declare(rule, place, again=again)
        return
    with _declaring:
        declared = _declared.get(limiter, DecoratorLimits()).adding(rule, place, again=again)
        _declare_on(limiter, rule, place)
        _declared[limiter] = declared


def _declare_on(limiter: Limiter | AsyncLimiter, rule: Rule, place: str) -> None:
    try:
        limiter.declare(rule)
    except RuleError as error:
        raise RuleError(
            [Problem("", f"the limit of {place} cannot be combined with the rules in force."), *error.problems]
        ) from None


def configure(
    rules: Rules | None = None,
    storage: str | Storage | AsyncStorage | None = None,
    **options: Unpack[LimiterOptions],
) -> Configured:
    """Set the rules and the storage for all decorated functions. Sync and async functions share one set of windows.

    A second call replaces the first for all functions. A limit on a decorator stays if no rule matches its type. The
    windows stay too: in memory they live as long as the process, unless you pass another `clock` or a storage object. If
    functions had been called before and count elsewhere from now on, the log says so once.
    What you do not pass comes from the environment: `RATELIMITED_NOTIFY_RULES` (a file or a source),
    `RATELIMITED_NOTIFY_STORAGE` (a URI) and `RATELIMITED_NOTIFY_DISABLED`.

    Arguments:
        rules: what may be sent, in any form that `Limiter` takes.
        storage: where windows are kept, in any form that `Limiter` takes. By default in the memory of this process.
        options: the other arguments of `Limiter`, such as `enabled=False`.

    Returns:
        The configuration in force. Its `limiter` and `async_limiter` decide about decorated functions.

    Raises:
        RuleError: the rules cannot be used. The error lists all problems, each with its place.
        NotifyError: another argument cannot be used. The earlier configuration stays in force.
    """
    configuration.configure(rules, storage, check_option_names(options, configure))
    return _configured
