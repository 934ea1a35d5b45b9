"""A mixed load for a long time: threads and tasks, every way to ask, servers that come and go, rules that change.

What must stay flat is sampled meanwhile, and everything admitted is checked by its true times.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
import threading
import time
import traceback
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import CollectorRegistry

from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Limiter,
    Notifier,
    NotifyError,
    Rule,
    Status,
    rate_limited,
)
from ratelimited_notify.instrumentation import watch
from ratelimited_notify.instrumentation.prometheus import instrument
from ratelimited_notify.sources import FileRules
from servers import Memcached, memcached_server, valkey_server
from true_times import TrueTimes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Server

PERIOD = 1.0
STEADY, LOW, HIGH, TOGETHER = 20, 5, 12, 28
"""The limits per second and recipient: of one type, of another that is edited, and of both together."""

OPEN_FILES = Path("/proc/self/fd")
PEOPLE = ("ana", "bela", "carl")
THREADS, TASKS = 6, 6
_PACE = 0.003
"""The pause after each question, in seconds: the server that decides is not the point, and other tests run too."""


class NotSent(Exception):
    """A gateway failed."""


class Sample(NamedTuple):
    """What must stay flat."""

    seconds: float
    blocks: int
    """Blocks of memory that Python has allocated."""
    resident: int
    """Bytes of memory of the process."""
    descriptors: int
    threads: int


@dataclass
class Lives:
    """How often a server has lost its counts. Odd while it is about to: what is decided then belongs to no life."""

    number: int = 0


@dataclass
class Soak:
    """The load. `run` returns when it is over.

    Arguments:
        seconds: how long.
        folder: for files.
    """

    seconds: float
    folder: Path
    admitted: TrueTimes = field(default_factory=TrueTimes)
    samples: list[Sample] = field(default_factory=list)
    foreign: set[str] = field(default_factory=set)
    """Errors that are not the library's own. There must be none."""
    errors: int = 0
    """How often the library raised an error of its own."""
    asked: int = 0
    events: int = 0
    struck: int = 0
    """How many faults struck a server."""

    def run(self) -> None:
        """Let everything happen at once, and stop it."""
        self._stop = threading.Event()
        self._lives = {name: Lives() for name in ("redis", "insured", "memcached", "sqlite", "memory")}
        with ExitStack() as ending:
            self._valkey = valkey_server("--appendonly", "yes", "--appendfsync", "no")
            ending.callback(self._valkey.remove)
            self._memcached = memcached_server()
            ending.callback(self._memcached.remove)
            self._uris = {
                "redis": self._valkey.url,
                "memcached": self._memcached.url,
                "sqlite": f"sqlite:///{self.folder / 'windows.db'}",
                "memory": "memory://",
            }
            self._limiters: dict[str, Limiter] = {
                name: ending.enter_context(Limiter(rules(HIGH), uri, on_storage_error="deny"))
                for name, uri in self._uris.items()
            }
            # It shares no windows with the others: they would count what it adds later.
            insured = Limiter(rules(HIGH), self._valkey.url, namespace="insured", on_storage_error="memory://")
            self._limiters["insured"] = ending.enter_context(insured)
            self._aio: dict[str, AsyncLimiter] = {
                name: AsyncLimiter(rules(HIGH), self._uris[name]) for name in ("redis", "memcached")
            }
            watching = watch(self._noted)
            ending.callback(watching.close)
            counting = instrument(CollectorRegistry())
            ending.callback(counting.close)
            works: list[Callable[[], None]] = [self._struck, self._edited, self._made_anew, self._read, self._in_loop]
            works += [lambda number=number: self._thread(number) for number in range(THREADS)]
            threads = [threading.Thread(target=self._safely, args=(work,), daemon=True) for work in works]
            for thread in threads:
                thread.start()
            self._sample()
            self._stop.set()
            for thread in threads:
                thread.join(30)
            self.foreign |= {"a thread is stuck" for thread in threads if thread.is_alive()}
        self._limiters.clear()
        self._aio.clear()
        self.admitted.check(time.monotonic() + 100)

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  # the test is about errors of any kind
            self.foreign.add("".join(traceback.format_exception(error)))

    def _noted(self, _: object) -> None:
        self.events += 1

    def _sample(self) -> None:
        begun = time.monotonic()
        while (seconds := time.monotonic() - begun) < self.seconds:
            self.samples.append(
                Sample(
                    seconds,
                    sys.getallocatedblocks(),
                    _resident(),
                    sum(1 for _ in OPEN_FILES.iterdir()),
                    threading.active_count(),
                )
            )
            self.admitted.check(time.monotonic())
            time.sleep(min(1.0, self.seconds / 40))

    # --- What goes wrong --------------------------------------------------------------------------------------------

    def _struck(self) -> None:
        chance = random.Random(1)
        faults = (self._hangs, self._dies, self._loses_its_clients, self._forgets_its_scripts)
        while not self._stop.wait(0.5 + chance.random()):
            fault = chance.choice(faults)
            fault(chance.choice((self._valkey, self._memcached)))
            self.struck += 1

    def _hangs(self, server: Server) -> None:
        server.pause()
        time.sleep(0.9)
        server.resume()

    def _dies(self, server: Server) -> None:
        # Valkey reads its file again, and memcached has none.
        lives = self._lives["memcached"] if isinstance(server, Memcached) else Lives()
        lives.number += 1
        server.stop()
        time.sleep(0.4)
        server.start()
        lives.number += 1

    def _loses_its_clients(self, server: Server) -> None:
        with self._valkey.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal")

    def _forgets_its_scripts(self, server: Server) -> None:
        with self._valkey.client() as client:
            client.script_flush()

    def _edited(self) -> None:
        for limit in itertools.cycle((LOW, HIGH)):
            if self._stop.wait(0.2):
                return
            for limiter in (*self._limiters.values(), *self._aio.values()):
                limiter.rules = rules(limit)

    def _made_anew(self) -> None:
        """Limiters, watchers and event loops that come and go."""
        while not self._stop.wait(0.05):
            with self._own(), Limiter(rules(HIGH), self._uris["redis"]) as limiter:
                handle = limiter.watch(self._noted)
                self._ask("redis", "steady", "ana", lambda limiter=limiter: limiter.hit("steady", "ana"))
                handle.close()
            with self._own():
                asyncio.run(self._once())
            handle = instrument(CollectorRegistry())
            handle.close()

    async def _once(self) -> None:
        async with AsyncLimiter(rules(HIGH), self._uris["memcached"]) as limiter:
            await self._await("memcached", "steady", "ana", limiter.hit("steady", "ana"))

    def _read(self) -> None:
        """A limiter whose rules are in a file that is edited."""
        path = self.folder / "rules.toml"
        text = '[[rules]]\ntype = "edited"\nlimit = "{}/second"\n'
        path.write_text(text.format(HIGH))
        with Limiter(FileRules(path, interval=0.05)) as limiter:
            for number in itertools.count():
                if self._stop.wait(0.01):
                    return
                if number % 20 == 0:
                    # Now and then what somebody wrote cannot be read.
                    path.write_text(text.format("many" if number % 100 == 60 else (LOW, HIGH)[number % 40 == 0]))
                with self._own():
                    self._ask("file", "edited", "ana", lambda: limiter.hit("edited", "ana"))

    # --- Who asks ---------------------------------------------------------------------------------------------------

    def _thread(self, number: int) -> None:
        chance = random.Random(number)
        names = tuple(self._limiters)
        notifiers = {name: Notifier(_gateway, limiter=self._limiters[name]) for name in names}
        # Not the insured one: a function does not tell who decided.
        functions = {name: _sending(self._limiters[name]) for name in names if name != "insured"}
        ways = (self._hits, self._hits, self._batch, self._reserves, self._looks, self._sends, self._calls)
        while not self._stop.is_set():
            name, way = chance.choice(names), chance.choice(ways)
            kind, who = chance.choice(("steady", "edited")), chance.choice(PEOPLE)
            with self._own():
                way(name, kind, who, chance, {"notifier": notifiers[name], "function": functions.get(name)})
            time.sleep(_PACE)

    def _hits(self, name: str, kind: str, who: str, chance: random.Random, _: Any) -> None:
        limiter = self._limiters[name]
        self._ask(name, kind, who, lambda: limiter.hit(kind, who))
        # Somebody new each time: nothing may grow with recipients who have gone.
        limiter.hit(kind, f"once-{chance.random()}")

    def _batch(self, name: str, kind: str, who: str, *_: Any) -> None:
        start = time.monotonic()
        lives = self._lives[name].number
        decisions = self._limiters[name].hit_many(kind, PEOPLE)
        for one, decision in zip(PEOPLE, decisions, strict=True):
            if decision.allowed and decision.error is None:
                self._admit(name, kind, one, start, lives)

    def _reserves(self, name: str, kind: str, who: str, *_: Any) -> None:
        # Given back, so nothing is admitted.
        with self._limiters[name].reserve(kind, who):
            raise NotSent

    def _looks(self, name: str, kind: str, who: str, *_: Any) -> None:
        self._limiters[name].test(kind, who)
        self._limiters[name].windows(kind, who)

    def _sends(self, name: str, kind: str, who: str, chance: random.Random, made: Any) -> None:
        start = time.monotonic()
        lives = self._lives[name].number
        delivery = made["notifier"].send(kind, who, chance.random() < 0.2)
        if delivery.status is Status.SENT and delivery.decision.error is None:
            self._admit(name, kind, who, start, lives)

    def _calls(self, name: str, kind: str, who: str, chance: random.Random, made: Any) -> None:
        start = time.monotonic()
        lives = self._lives[name].number
        if made["function"] is not None and made["function"](who, chance.random() < 0.2):
            self._admit(name, "steady", who, start, lives)

    def _in_loop(self) -> None:
        asyncio.run(self._tasks())

    async def _tasks(self) -> None:
        await asyncio.gather(*(self._task(number) for number in range(TASKS)))
        for limiter in self._aio.values():
            await limiter.close()

    async def _task(self, number: int) -> None:
        chance = random.Random(100 + number)
        names = tuple(self._aio)
        notifiers = {name: AsyncNotifier(_async_gateway, limiter=self._aio[name], on_limit="wait", max_wait=0.1) for name in names}  # fmt: skip
        while not self._stop.is_set():
            name, kind, who = chance.choice(names), chance.choice(("steady", "edited")), chance.choice(PEOPLE)
            with self._own():
                match chance.randrange(4):
                    case 0:
                        decision = await self._aio[name].hit(kind, f"once-{chance.random()}")
                        await self._aio[name].release(decision)
                    case 1:
                        start = time.monotonic()
                        lives = self._lives[name].number
                        delivery = await notifiers[name].send(kind, who, chance.random() < 0.2)
                        if delivery.status is Status.SENT:
                            self._admit(name, kind, who, start, lives)
                    case _:
                        await self._await(name, kind, who, self._aio[name].hit(kind, who))
            await asyncio.sleep(_PACE)

    @contextmanager
    def _own(self) -> Iterator[None]:
        """Errors of the library and of the gateway are fine here; any other error is not."""
        self.asked += 1
        try:
            yield
        except NotSent:
            pass
        except NotifyError:
            self.errors += 1
        except Exception as error:  # noqa: BLE001  # the test is about errors of any kind
            self.foreign.add("".join(traceback.format_exception(error)))

    def _ask(self, name: str, kind: str, who: str, ask: Callable[[], Any]) -> None:
        start = time.monotonic()
        lives = self._lives[name].number if name in self._lives else 0
        decision = ask()
        if decision.allowed and decision.error is None:
            self._admit(name, kind, who, start, lives)

    async def _await(self, name: str, kind: str, who: str, asking: Any) -> None:
        start = time.monotonic()
        lives = self._lives[name].number
        decision = await asking
        if decision.allowed and decision.error is None:
            self._admit(name, kind, who, start, lives)

    def _admit(self, name: str, kind: str, who: str, start: float, lives: int) -> None:
        end = time.monotonic()
        if name in self._lives and (lives % 2 or lives != self._lives[name].number):
            return
        self.admitted.add((name, lives, kind, who), STEADY if kind == "steady" else HIGH, PERIOD, start, end)
        self.admitted.add((name, lives, who), TOGETHER, PERIOD, start, end)


def rules(limit: int) -> list[Rule]:
    """The rules, with this limit for the type that is edited."""
    return [
        Rule("steady", f"{STEADY}/second"),
        Rule("edited", f"{limit}/second"),
        Rule("*", f"{TOGETHER}/second", by="recipient"),
    ]


def _gateway(recipient: str, fails: bool) -> None:
    if fails:
        raise NotSent


async def _async_gateway(recipient: str, fails: bool) -> None:
    _gateway(recipient, fails)


def _sending(limiter: Limiter) -> Callable[[str, bool], bool | None]:
    """A decorated function."""

    @rate_limited("steady", limiter=limiter, on_limit="drop", refund=(NotSent,))
    def send(recipient: str, fails: bool) -> bool:
        _gateway(recipient, fails)
        return True

    return send


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
