"""Rules from a function of yours."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ratelimited_notify.callables import check_is_called_only
from ratelimited_notify.errors import NotifyError, RuleError
from ratelimited_notify.sources.base import Loaded, RuleSource
from ratelimited_notify.sources.taking import check_takes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ratelimited_notify.sources.annotations import FixedRules

    Fetch: TypeAlias = Callable[[str | None], "tuple[str, Mapping[str, object]] | None"]


class FunctionRules(RuleSource):
    """Rules from a function, such as a request to a configuration service.

    Arguments:
        fetch: a callable that takes the version that was loaded last (None at first), and returns a tuple of a version and
            a document, or None if nothing has changed. A document is what a rules file has:
            `{"rules": [{"type": "news", "limit": "1/day"}]}`. It is called by one thread at a time, never by a decision.
        interval: seconds between two calls, 30 by default.
        fallback: the rules that hold until the first call succeeds, in any form that `Limiter` takes except a source.
        wait: False starts without rules if the first call fails.
        allow_empty: True accepts that there are no rules any more.

    Raises:
        NotifyError: an argument cannot be used.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        interval: float = 30.0,
        fallback: FixedRules | None = None,
        wait: bool = True,
        allow_empty: bool = False,
    ) -> None:
        super().__init__(interval=interval, fallback=fallback, wait=wait, allow_empty=allow_empty)
        if not callable(fetch):
            raise NotifyError(f"FunctionRules needs a callable that takes a version, not a {type(fetch).__name__}.")
        check_is_called_only(fetch, "fetch=")
        check_takes(
            fetch,
            1,
            "FunctionRules calls its function with one argument, the version that was loaded last (None at first). This one cannot "
            "be called like that; write def fetch(known_version)",
        )
        self._fetch = fetch
        self.place = getattr(fetch, "__qualname__", type(fetch).__qualname__)

    def load(self, known: str | None) -> Loaded | None:
        fetched: object = self._fetch(known)
        if fetched is None:
            if known is None:
                raise RuleError(
                    f"{self.place} returned None, which means that nothing has changed, but nothing is known yet."
                )
            return None
        if not (isinstance(fetched, tuple) and len(fetched) == 2):  # pyright: ignore[reportUnknownArgumentType]  # of anything
            raise RuleError(
                f"{self.place} returned a {type(fetched).__name__}; it must return a tuple of a version and a document, or "
                "None if nothing has changed."
            )
        return Loaded(*fetched)  # pyright: ignore[reportUnknownArgumentType]  # the live rules check both
