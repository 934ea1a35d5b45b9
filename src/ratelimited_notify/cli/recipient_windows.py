"""The windows of one recipient, asked of a limiter of either kind."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ratelimited_notify.errors import NotifyError, type_text
from ratelimited_notify.limiter import AsyncLimiter
from ratelimited_notify.limiter.location import backend_of
from ratelimited_notify.limiter.switch import VARIABLE
from ratelimited_notify.rules.counter import counted_by
from ratelimited_notify.rules.glob import is_glob
from ratelimited_notify.rules.table import meant

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping
    from typing import Self

    from ratelimited_notify.cli.named_limiter import AnyLimiter
    from ratelimited_notify.limiter import WindowState
    from ratelimited_notify.rules.rule import Rule


class ShownWindow(NamedTuple):
    """A window, and the type by which it was found."""

    type: str
    """The first of the types that were asked for that count in it."""
    state: WindowState
    types: str
    """Which types count in it: this one, or those of the rule."""

    @property
    def by(self) -> tuple[str, ...]:
        """The fields that it counts by."""
        return counted_by(self.state.item)

    @property
    def shared(self) -> bool:
        """Whether the recipient shares it with others."""
        return "recipient" not in self.by

    @property
    def used(self) -> int | None:
        """How much of the limit is used; None for a pause."""
        return None if self.state.paused else self.state.item.amount - self.state.remaining

    @property
    def holds_anything(self) -> bool:
        """Whether there is anything to clear."""
        return self.used != 0


class RecipientWindows:
    """The windows of one recipient. They are found by the rules: nobody looks through what the storage holds.

    Arguments:
        limiter: the limiter.
        recipient: whose windows.
        fields: further values that rules count by.

    Raises:
        NotifyError: the windows of the limiter cannot be seen from another process, or limiting is off.
    """

    def __init__(self, limiter: AnyLimiter, recipient: str, fields: Mapping[str, str]) -> None:
        if limiter.off:
            raise NotifyError(
                f"Limiting is off, by enabled=False or by the environment variable {VARIABLE}, so there are no windows."
            )
        with _without_recipient():
            backend = backend_of(limiter.storage)
        if backend == "memory":
            raise NotifyError(
                "The windows of this limiter are in the memory of the process that it runs in. This command is another process, "
                'and cannot see them. Windows that it can see are in a file or on a server: storage="sqlite:///windows.db" or '
                '"redis://localhost:6379/0".'
            )
        self._limiter = limiter
        self._recipient = recipient
        self._fields = fields
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            # The storage, too: the program does not go on in this process.
            if isinstance(self._limiter, AsyncLimiter):
                self._runner.run(_close(self._limiter))
            else:
                self._limiter.close()
                self._limiter.storage.close()
        finally:
            self._runner.close()

    def types(self) -> list[str]:
        """The types that the rules name."""
        return list(dict.fromkeys(rule.type for rule in self._rules() if not is_glob(rule.type)))

    def uncovered(self, types: Iterable[str]) -> list[str]:
        """The globs of rules that have windows of other types than these, or all of whose windows are of other types."""
        types = list(types)
        return list(
            dict.fromkeys(
                rule.type
                for rule in self._rules()
                if is_glob(rule.type) and ("type" in rule.by or not any(map(rule.matches, types)))
            )
        )

    def without_field(self, type: str) -> Iterator[tuple[str, str]]:
        """The rules for a type that count by a field that was not given, each with the field."""
        for compiled in self._limiter.plans.of(type).compiled_rules:
            for name in compiled.rule.by:
                if name not in ("type", "recipient") and name not in self._fields:
                    yield compiled.rule.name, name

    def without_required(self, type: str) -> list[str]:
        """The fields that a rule requires of notifications of this type, and that were not given."""
        required = self._limiter.plans.of(type).required
        return list(dict.fromkeys(name for name, rule in required if rule.enforce and name not in self._fields))

    def types_of(self, rule: str) -> str:
        """The types and patterns of the rules with this name."""
        return ", ".join(dict.fromkeys(each.type for each in self._limiter.plans.named(rule)))

    def meant(self, type: str) -> str:
        """A question after the type that was meant, if no rule is for this one. Otherwise empty."""
        return "" if self._limiter.plans.of(type).known else meant(type, self.types())

    def of(self, type: str) -> tuple[WindowState, ...]:
        """The windows that a notification of this type counts in.

        Raises:
            NotifyError: the type, the recipient or a field cannot be used. A `StorageError` means that the storage failed.
        """
        with _without_recipient():
            if isinstance(self._limiter, AsyncLimiter):
                return self._runner.run(self._limiter.windows(type, self._recipient, **self._fields))
            return self._limiter.windows(type, self._recipient, **self._fields)

    def clear(self, type: str, *, shared: bool) -> int:
        """Empty the windows that a notification of this type counts in.

        Returns:
            How many windows held anything.

        Raises:
            NotifyError: as for `of`.
        """
        with _without_recipient():
            if isinstance(self._limiter, AsyncLimiter):
                return self._runner.run(self._limiter.clear(type, self._recipient, shared=shared, **self._fields))
            return self._limiter.clear(type, self._recipient, shared=shared, **self._fields)

    def _rules(self) -> list[Rule]:
        return self._limiter.plans.every_rule()


async def _close(limiter: AsyncLimiter) -> None:
    await limiter.close()
    await limiter.storage.close()


class FoundWindows(NamedTuple):
    """What was found about several types."""

    windows: list[ShownWindow]
    """Each window once, in the order of the types and the rules."""
    problems: dict[str, str]
    """By type, why its windows cannot be asked for."""


def find_windows(asked: RecipientWindows, types: Iterable[str]) -> FoundWindows:
    """The windows of several types.

    Raises:
        NotifyError: as for `RecipientWindows.of`.
    """
    windows: dict[str, ShownWindow] = {}
    problems: dict[str, str] = {}
    for type in types:
        missing = asked.without_required(type)
        if missing:
            options = " ".join(f"--field {name}=VALUE" for name in missing)
            problems[type] = (
                f"A rule requires {' and '.join(missing)} of notifications of type {type_text(type)}. To see their windows, "
                f"add {options}."
            )
            continue
        for state in asked.of(type):
            counted = type if "type" in counted_by(state.item) else asked.types_of(state.rule)
            windows.setdefault(state.item.key_for(*state.identifiers), ShownWindow(type, state, counted))
    return FoundWindows(list(windows.values()), problems)


@contextmanager
def _without_recipient() -> Generator[None, None, None]:
    """Show no message of code of the program: it may contain the recipient."""
    try:
        yield
    except NotifyError:
        raise
    except Exception as error:  # noqa: BLE001  # normalize= and tier_of= are the program's code
        raise NotifyError(
            f"The limiter of the program raised {type(error).__name__}. Its message is not shown, because it may contain the "
            "recipient. The recipient is a string here; tier_of= and normalize= may need something else."
        ) from None
