"""Which attributes of a limiter or a notifier you can set after construction."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar


class KnownAttributes:
    """A base class whose objects refuse attributes that nothing reads, such as `notifier.on_limit = "raise"`.

    There are no `__slots__`, so that mocks can replace a method of one object, and subclasses that users write can set
    what they like.
    """

    _settable: ClassVar[tuple[str, ...]]
    """The public attributes that can be set, for the message."""

    if not TYPE_CHECKING:  # pragma: no branch  # a type checker would take every misspelt name for one that can be set

        def __setattr__(self, name: str, value: object) -> None:
            kind = type(self)
            if (
                name.startswith("_")
                or name in kind._settable
                or hasattr(kind, name)
                or not kind.__module__.startswith("ratelimited_notify.")
            ):
                object.__setattr__(self, name, value)
                return
            article = "An" if kind.__name__[0] in "AEIOU" else "A"
            message = (
                f"{article} {kind.__name__} has no attribute {name!r}. You can set {' and '.join(kind._settable)}; "
                f"everything else is an argument of {kind.__name__}()."
            )
            raise AttributeError(message, name=name, obj=self)
