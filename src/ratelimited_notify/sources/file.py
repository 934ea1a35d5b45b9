"""Rules in a file: TOML, YAML or JSON, by the ending of its name."""

from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError, RuleError
from ratelimited_notify.rules.document import rule_set_of
from ratelimited_notify.sources.base import Loaded, RuleSource
from ratelimited_notify.sources.formats import document_in, kind_of_file
from ratelimited_notify.sources.formats.notation import noted
from ratelimited_notify.sources.version import version_of

if TYPE_CHECKING:
    import os

    from ratelimited_notify.errors import Problem
    from ratelimited_notify.rules.ruleset import RuleSet
    from ratelimited_notify.sources.annotations import FixedRules
    from ratelimited_notify.sources.watch import DirectoryWatch

    _Seen = tuple[int, int, int, int, int]

MOST_BYTES = 16 * 2**20
"""The largest file that is read. 10,000 rules with 100,000 overrides take less than half of it."""

_FRESH = 3.0
"""Seconds. The times of many file systems have steps, some of two seconds: a second write within one step does not show."""

_TRUSTED = 60.0
"""Seconds until a file is read again that seems to be unchanged."""

_MOMENT = 0.05
"""Seconds in which a file that is being replaced may change again."""

_MOST_MOMENTS = 20
_MOST_MOMENTS_GONE = 4


class FileRules(RuleSource):
    """Rules from a file that is read again when it has changed.

    Once per interval the file is looked at, and read if its size, its times or the file itself changed. A change of the content
    counts, however it is made: a write, a rename over it, a link that leads to another file, as in Kubernetes. If you replace
    the file by a rename, the rules are never read half written.

    Arguments:
        path: the file: TOML, or YAML or JSON if its name ends in `.yaml`, `.yml` or `.json`.
        interval: seconds between two looks, 1 by default.
        watch: True lets the operating system tell about changes, so that they are obeyed within a fraction of a second. It
            watches the directory of the file. The interval stays, for what the system does not tell. It needs `watchfiles`.
        fallback: the rules that hold until the file can be read, in any form that `Limiter` takes except a source.
        wait: False starts without rules if the file cannot be read at first.
        allow_empty: True accepts that the file has no rules any more.

    Raises:
        NotifyError: an argument cannot be used.
        MissingExtra: `watch=True`, and `watchfiles` is not installed.
    """

    patience = 1
    # Editors and deployments replace a file in several steps.

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        interval: float = 1.0,
        watch: bool = False,
        fallback: FixedRules | None = None,
        wait: bool = True,
        allow_empty: bool = False,
    ) -> None:
        super().__init__(interval=interval, fallback=fallback, wait=wait, allow_empty=allow_empty)
        if not isinstance(watch, bool):
            raise NotifyError("watch= must be True or False.")
        self.path = Path(path)
        self.place = str(path)
        self._seen: _Seen | None = None
        self._read_at = 0.0
        self._missed = False
        self._wrong: tuple[str, RuleError] | None = None
        self._watch: DirectoryWatch | None = None
        if watch:
            from ratelimited_notify.sources.watch import DirectoryWatch

            self.portable = False
            self._watch = DirectoryWatch(self.path.parent, self.path.name)

    def load(self, known: str | None) -> Loaded | None:
        # Looked at before it is read: a change in between is noticed the next time.
        seen = _look(self.path)
        now = time.monotonic()
        if known is not None and seen is not None and seen == self._seen and now < self._read_at + _TRUSTED:
            return None
        self._seen = None
        content = content_of(self.path) if known is None else self._content_at_rest(seen, known)
        version = version_of(content)
        if version == known:
            self._seen, self._read_at, self._wrong = _unless_fresh(seen), now, None
            return None
        if self._wrong is not None and self._wrong[0] == version:
            # Known to be wrong: it is not parsed again.
            raise RuleError(self._wrong[1].problems)
        try:
            document = document_in(content, self.path.suffix)
        except RuleError as error:
            # Read again the next time, since the version that is known is another one.
            self._wrong = (version, error)
            raise
        self._wrong = None
        return Loaded(version, document)

    def _content_at_rest(self, seen: _Seen | None, known: str) -> bytes:
        """The content, when nobody has written to the file for a moment: it may be on its way."""
        for _ in range(_MOST_MOMENTS_GONE):
            try:
                content = content_of(self.path)
                break
            except RuleError:
                # It may be gone for a moment. Once it was gone for longer, it is not waited for again.
                if self._missed:
                    raise
                time.sleep(_MOMENT)
                seen = _look(self.path)
        else:
            self._missed = True
            content = content_of(self.path)
        self._missed = False
        for _ in range(_MOST_MOMENTS):
            if version_of(content) == known or _unless_fresh(seen) is not None:
                break
            time.sleep(_MOMENT)
            before, seen = seen, _look(self.path)
            if seen == before:
                break
            content = content_of(self.path)
        return content

    def explained(self, problem: Problem) -> Problem:
        """The same problem, with advice in the notation of the file."""
        return noted(problem, kind_of_file(self.path.suffix))

    def wait(self, timeout: float) -> bool:
        return super().wait(timeout) if self._watch is None else self._watch.wait(timeout)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()


def _look(path: Path) -> _Seen | None:
    """What shows that a file is another one, or has changed. None if there is no such file.

    Raises:
        RuleError: it is a pipe or a device, which would have to be waited for.
    """
    try:
        found = path.stat()
    except (OSError, ValueError):
        # Reading it says what is wrong.
        return None
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise RuleError("The file cannot be read: it is a pipe or a device.")
    # The second time cannot be set: it shows a change after which the first one was restored.
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _unless_fresh(seen: _Seen | None) -> _Seen | None:
    """What was seen, unless the file has just changed."""
    if seen is None or min(abs(time.time() - at / 1e9) for at in seen[-2:]) < _FRESH:
        return None
    return seen


def content_of(path: Path) -> bytes:
    """The content of a file.

    Raises:
        RuleError: the file cannot be read, or is larger than 16 MiB.
    """
    try:
        with path.open("rb") as file:
            # A device or a pipe has no size, and may have no end.
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RuleError(f"The file cannot be read: {error.strerror or type(error).__name__}.") from error
    except ValueError:
        # A path with a NUL in it.
        raise RuleError("The file cannot be read: no file has such a path.") from None
    if len(content) > MOST_BYTES:
        raise RuleError(f"The file is larger than {MOST_BYTES // 2**20} MiB, the most that is read.")
    return content


def read_rules(path: str | os.PathLike[str]) -> RuleSet:
    """Read a rule set from a file: TOML, or YAML or JSON if its name ends in `.yaml`, `.yml` or `.json`.

    It has `rules`, in TOML as `[[rules]]` tables, and optionally `fields`, `default` and `unknown_type`.

    Raises:
        RuleError: the file cannot be read, is larger than 16 MiB, is not in this format, or contains something that cannot be
            used. The error lists all problems.
        MissingExtra: the format needs a package that is not installed.
    """
    source = Path(path)
    try:
        return rule_set_of(document_in(content_of(source), source.suffix))
    except RuleError as error:
        kind = kind_of_file(source.suffix)
        raise RuleError((noted(problem, kind) for problem in error.problems), str(source)) from error.__cause__
