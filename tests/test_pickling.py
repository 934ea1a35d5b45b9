"""What belongs to one process cannot be pickled or copied, and the error says what to do instead."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from limits.aio.storage import MemoryStorage as AsyncEngineStorage
from limits.storage import MemoryStorage as EngineStorage

from ratelimited_notify import AsyncLimiter, AsyncNotifier, Limiter, Notifier, RuleSet
from ratelimited_notify.sources import FileRules, FunctionRules, RedisRules, RuleSource, SQLRules
from ratelimited_notify.storage import open_async_storage, open_storage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RULES = {"news": "1/day"}
URIS = (
    "memory://",
    "redis://127.0.0.1:1/0",
    "redis+cluster://127.0.0.1:1",
    "redis+sentinel://127.0.0.1:1/mymaster",
    "memcached://127.0.0.1:1",
)

MADE: dict[str, Callable[[], Any]] = {
    "Limiter": lambda: Limiter(RULES),
    "AsyncLimiter": lambda: AsyncLimiter(RULES),
    "Notifier": lambda: Notifier(print, RULES),
    "AsyncNotifier": lambda: AsyncNotifier(print, RULES),
    **{uri: lambda uri=uri: open_storage(uri) for uri in URIS},
    **{f"async {uri}": lambda uri=uri: open_async_storage(uri) for uri in URIS},
    "adapter": lambda: Limiter(RULES, EngineStorage()).storage,
    "async adapter": lambda: AsyncLimiter(RULES, AsyncEngineStorage()).storage,
}

WAYS: dict[str, Callable[[Any], Any]] = {
    **{f"pickle {protocol}": lambda one, protocol=protocol: pickle.dumps(one, protocol) for protocol in range(6)},
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("made", MADE)
def test_the_error_says_what_to_do(made: str, way: str) -> None:
    """Make one in each process; share by a server. The message shows no address."""
    one = MADE[made]()
    if way == "copy" and "Notifier" in made:
        assert copy.copy(one).limiter is one.limiter  # cheap and useful, see below
        return
    with pytest.raises(TypeError) as caught:
        WAYS[way](one)

    said = str(caught.value)
    assert said.startswith(
        f"{'An' if type(one).__name__[0] == 'A' else 'A'} {type(one).__name__} cannot be pickled or copied"
    )
    assert "make one in each process" in said
    assert "redis://localhost:6379/0" in said
    assert "127.0.0.1" not in said


SOURCES: dict[str, Callable[[Path], Any]] = {
    "FileRules": lambda path: used(FileRules(path)),
    "FileRules that watches": lambda path: FileRules(path, watch=True),
    "FunctionRules": lambda path: used(FunctionRules(offer)),
    "SQLRules": lambda path: SQLRules("sqlite:///rules.db"),
    "RedisRules": lambda path: RedisRules("redis://127.0.0.1:1/0", key="rules"),
    "LiveRules": lambda path: Limiter(FileRules(path)).source,
}


def offer(_known: str | None) -> tuple[str, dict[str, Any]]:
    return "1", {"rules": [{"type": "news", "limit": "1/day"}]}


def used(source: RuleSource) -> RuleSource:
    """The source, after a limiter has gone by it."""
    Limiter(source).close()
    return source


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of rules."""
    path = tmp_path / "rules.toml"
    path.write_text('[[rules]]\ntype = "news"\nlimit = "1/day"\n')
    return path


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("made", SOURCES)
def test_the_error_about_a_source_says_what_to_do(made: str, way: str, path: Path) -> None:
    """It belongs to its process from its first use on, or from the beginning if it has locks or connections."""
    one = SOURCES[made](path)
    with pytest.raises(TypeError) as caught:
        WAYS[way](one)

    assert str(caught.value) == (
        f"A{'n' * (type(one).__name__[0] in 'AEIOU')} {type(one).__name__} cannot be pickled or copied, because its thread, "
        "locks and connections belong to this process. Threads can share it as it is. For other processes, make one in each "
        "process, for example in the module that uses it."
    )


@pytest.mark.parametrize("way", ["pickle 5", "deepcopy", "copy"])
@pytest.mark.parametrize("made", [FileRules, lambda path: FunctionRules(offer)])
def test_a_source_that_nobody_uses_yet(made: Any, way: str, path: Path) -> None:
    """It can be given to another process, which makes a limiter of it."""
    copied = WAYS[way](made(path))
    with Limiter(pickle.loads(copied) if isinstance(copied, bytes) else copied) as limiter:
        assert limiter.rules == RuleSet({"news": "1/day"})


def test_a_method_that_is_given_to_a_pool() -> None:
    """A pool of processes pickles the function that it is given, with the object that it belongs to."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    notifier = Notifier(print, RULES)
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(TypeError, match="A Notifier cannot be pickled or copied"),
    ):
        pool.submit(notifier.send, "news", "ana").result()


class Remade(Notifier[..., None]):
    """A user's class that says itself how it is made again."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Remade, (print, RULES)


class Bare(Limiter):
    """A user's class that says itself what of it is kept."""

    def __getstate__(self) -> object:
        return {"kept": True}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(RULES)  # type: ignore[misc]  # the simplest way to make it again


@pytest.mark.parametrize("kind", [lambda: Remade(print, RULES), lambda: Bare(RULES)])
def test_classes_that_can_be_made_again(kind: Callable[[], Any]) -> None:
    """A subclass may define how it is pickled."""
    one = kind()
    for way in (lambda: pickle.loads(pickle.dumps(one)), lambda: copy.deepcopy(one)):
        assert type(way()) is type(one)
        assert way().rules == one.rules


def test_a_shallow_copy_of_a_notifier() -> None:
    """It shares the limiter, as `bind` does, and closing it closes nothing of the original."""
    notifier = Notifier(lambda recipient: "sent", {"news": "2/day"})
    twin = copy.copy(notifier)
    assert twin.send("news", "ana")
    twin.close()

    assert twin.limiter is notifier.limiter
    assert notifier.send("news", "ana").decision.remaining == 0
    assert copy.copy(notifier.bind(tenant="acme"))._fields == {"tenant": "acme"}
