"""The synchronous storage on a Redis or Valkey cluster."""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from limits.storage import RedisClusterStorage as LimitsRedisClusterStorage, RedisStorage as LimitsRedisStorage

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.breaker import Circuits
from ratelimited_notify.storage.circuit import DEFAULT
from ratelimited_notify.storage.engine import LimitsVerbs
from ratelimited_notify.storage.redis import options as server_options, replies, routing, scripts, spread
from ratelimited_notify.storage.redis.slots import Slots
from ratelimited_notify.storage.redis.sync import RedisStorage
from ratelimited_notify.storage.uri import parse
from ratelimited_notify.windows.strategies import Request

# After `options`, which says what to install where redis is missing.
import redis.connection as redis_connection  # isort: skip
from redis.connection import ConnectionPool  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimited_notify.storage.breaker import Breaker
    from ratelimited_notify.storage.circuit import Circuit
    from ratelimited_notify.storage.redis.connection import Connection
    from ratelimited_notify.storage.redis.slots import Address
    from ratelimited_notify.windows.strategies import Token, Verdict, Window

T = TypeVar("T")


class _Server(RedisStorage):
    """One server of the cluster."""

    def several(
        self, commands: Sequence[routing.Command], deadline: float
    ) -> list[Any]:  # Any: replies; errors are among them
        """Send these commands in one round trip and return the parsed replies."""
        return self._exchange(partial(_several, commands), deadline)

    def reset(self) -> int:
        dropped, cursor = 0, b"0"
        while True:
            cursor, keys = self._ask(scripts.scan(cursor), scripts.scanned)
            # One command per key, since one command cannot delete keys of several slots.
            commands = [
                routing.Command(scripts.command(b"UNLINK", key), partial(replies.number, most=1)) for key in keys
            ]
            if commands:
                dropped += sum(int(reply == 1) for reply in self.several(commands, self._deadline()))
            if cursor == b"0":
                return dropped


# The ignored difference: `incr` of limits' class has one more argument, which only its own sliding window passes.
class RedisClusterStorage(LimitsVerbs, LimitsRedisClusterStorage):
    """Windows on a cluster of Redis servers, version 7 or newer, or of Valkey.

    The windows of one recipient are on one server, and a decision over them is one script call, one round trip, by that
    server's clock. A window shared by many recipients is usually on another server. It is hit after the recipient's own windows
    have granted the hit. If it refuses, the hit is given back in the recipient's own windows. So there is never a hit too
    many, but another caller may be refused in between. A batch is one round trip to each server, and one more for shared
    windows.

    A script call is never sent twice, unless it was refused before it ran (MOVED, ASK, TRYAGAIN, CLUSTERDOWN, NOSCRIPT) or
    could not be sent at all. When a server fails, decisions for its recipients raise a `StorageError` until a replica has
    taken over. Hits that had not been replicated to it are then lost.

    Arguments:
        uri: `redis+cluster://user:password@host:port,host:port`, or with `valkey`; any servers of the cluster.
        timeout: the longest time that a decision takes, in seconds, 0.5 by default: requests to all servers, redirections and
            waiting for the cluster to be ready, together. `?timeout=` in the URI takes precedence. A batch may take this
            long for every 250 requests.
        address_remap: maps each (host, port) that the cluster announces to another one, if the cluster is behind a tunnel.
        circuit: when to stop sending requests to a server that does not answer; None never stops.
        options: options of redis-py's connections (`max_connections`, per server; `ssl=True`; `ssl_ca_certs`, ...).

    Raises:
        NotifyError: the URI or an option cannot be used.
    """

    STORAGE_SCHEME = ["notify+redis+cluster"]

    exact = True

    # As in `sync.RedisStorage`, except that a script may only read keys of its own slot.
    _CLOCK_LUA = scripts.CLOCK

    def __init__(
        self,
        uri: str,
        wrap_exceptions: bool = False,
        *,
        timeout: float = 0.5,
        address_remap: Callable[[Address], Address] | None = None,
        circuit: Circuit | None = DEFAULT,
        **options: Any,  # Any: whatever redis-py takes.
    ) -> None:
        # Skips the constructors of limits' classes: they would connect at once, with a client that resends scripts.
        super(LimitsRedisStorage, self).__init__(uri, wrap_exceptions=wrap_exceptions)
        parts = parse(uri, "cluster")
        hosts = server_options.addresses(parts)
        self._settings = server_options.settings_of_each(parts, timeout, options, redis_connection)
        self.timeout: float = self._settings["socket_timeout"]
        self._scripts = scripts.Scripts(self._CLOCK_LUA)
        self._slots = Slots(hosts, address_remap)
        self._servers: dict[Address, _Server] = {}
        self._circuit = circuit
        self._breakers: dict[str, Breaker] = {}
        self.circuits = Circuits(self._breakers)
        """The state of each server's circuit, by its address."""
        # An option that redis-py refuses then raises here.
        self._server(hosts[0])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {', '.join(map(routing.where, self._slots.seeds))}>"

    def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return self._run(spread.acquire(self._scripts, Request(windows, keys, cost)))

    def acquire_many(self, requests: Sequence[Request]) -> list[Verdict]:
        """`acquire` for each request, in the given order, `scripts.REQUESTS_PER_CALL` at a time.

        If a server fails, the hits on the other servers are given back as far as possible.
        """
        return self._run(spread.acquire_many(self._scripts, requests))

    def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return self._run(spread.peek(self._scripts, Request(windows, keys, cost)))

    def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        return self._run(spread.release(self._scripts, Request(windows, keys, cost), tokens))

    def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        return self._run(spread.forget(self._scripts, windows, keys))

    def pause(self, window: Window, key: str, duration: int) -> int:
        return self._run(spread.pause(self._scripts, window, key, duration))

    def check(self) -> bool:
        """Whether every master of the cluster replies."""
        try:
            self.probe()
        except StorageError:
            return False
        return True

    def probe(self) -> None:
        """Check that every master of the cluster replies. Raises a `StorageError` that says which one does not, and why."""
        for server in self._masters():
            server.probe()

    def reset(self) -> int | None:
        """Delete every window of this library in the cluster, of all namespaces. Returns how many.

        It scans all servers in small steps, so it takes long if there are many other keys.
        """
        return sum(server.reset() for server in self._masters())

    def close(self) -> None:
        for server in list(self._servers.values()):
            server.close()

    def _masters(self) -> list[_Server]:
        self._follow(routing.learn(self._slots, time.monotonic, time.monotonic() + self.timeout))
        if not self._slots.masters:
            raise routing.unknown(self._slots)
        return [self._server(address) for address in self._slots.masters]

    def _run(self, rounds: spread.Rounds[T]) -> T:
        return self._follow(routing.answered(self._slots, rounds, time.monotonic, self.timeout))

    def _follow(self, steps: routing.Steps[T]) -> T:
        answer: routing.Delivered | None = None
        # Whatever ends this early ends what it is in the middle of: others may wait for the map that it asks for.
        with closing(steps):
            while True:
                try:
                    step = steps.send(answer)
                except StopIteration as done:
                    result: T = done.value
                    return result
                answer = None
                if isinstance(step, routing.Send):
                    answer = {
                        address: self._deliver(address, commands, step.deadline)
                        for address, commands in step.parcels.items()
                    }
                else:
                    time.sleep(step.seconds)

    def _deliver(
        self, address: Address, commands: Sequence[routing.Command], deadline: float
    ) -> list[Any] | StorageError:  # Any: replies
        try:
            return self._server(address).several(commands, deadline)
        except StorageError as error:
            return error

    def _server(self, address: Address) -> _Server:
        server = self._servers.get(address)
        if server is None:
            for gone in [other for other in list(self._servers) if not self._slots.known(other)]:
                # Not closed: other callers may be waiting for its replies.
                self._servers.pop(gone, None)
                self._breakers.pop(routing.where(gone), None)
            pool = ConnectionPool(**server_options.to_server(self._settings, address))
            # Threads that get here at the same time get the same server.
            server = self._servers.setdefault(
                address, _Server(connection_pool=pool, timeout=self.timeout, circuit=self._circuit)
            )
            self._breakers[routing.where(address)] = server.breaker
        return server


def _several(commands: Sequence[routing.Command], connection: Connection) -> list[Any]:  # Any: replies
    connection.send(b"".join(packed for packed, _ in commands))
    # All replies are received before they are checked: a reply that fails its check would end the loop.
    answered = [connection.reply() for _ in commands]
    return [replies.checked_reply(read, reply) for (_, read), reply in zip(commands, answered, strict=True)]
