"""A socket with one deadline: against peers that drip, that say nothing, that close, with TLS and without."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trustme

from ratelimited_notify.storage.wire import Wire, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

SLACK = 2.0
"""Seconds that a busy machine may add; what a test shows would take many times as long."""


@contextmanager
def talking(peer: Callable[[socket.socket], object], *, tls: bool = False) -> Generator[Wire]:
    """A wire to a peer that does this, in a thread; with TLS it does it inside."""
    near, far = socket.socketpair()
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)

    def serve() -> None:
        with suppress(OSError):
            served = server.wrap_socket(far, server_side=True) if tls else far
            with served:
                peer(served)

    thread = threading.Thread(target=serve)
    thread.start()
    near.settimeout(10)
    connected = client.wrap_socket(near, server_hostname="localhost") if tls else near
    wire = Wire(connected, time.monotonic() + 10)
    wire.begin(time.monotonic() + 10)
    try:
        yield wire
    finally:
        wire.close()
        far.close()
        thread.join(10)


both = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


@both
def test_a_peer_that_drips(tls: bool) -> None:
    """A byte now and then does not move the deadline, however many reads it takes."""

    def drip(peer: socket.socket) -> None:
        for _ in range(200):
            peer.sendall(b".")
            time.sleep(0.05)

    with talking(drip, tls=tls) as wire:
        began = time.monotonic()
        wire.begin(began + 0.3)
        read: list[bytes] = []
        with pytest.raises(TimeoutError):
            read.extend(iter(lambda: wire.recv(100), b""))

        assert time.monotonic() - began < 0.3 + SLACK
        assert len(read) > 1


@both
def test_a_peer_that_reads_slowly(tls: bool) -> None:
    """A write that has to wait for the peer ends at the deadline, with TLS too, where each part waits anew."""
    over = threading.Event()

    def sip(peer: socket.socket) -> None:
        # What is still in the buffers would take ten seconds.
        while not over.wait(0.05) and peer.recv(1000):
            pass

    with talking(sip, tls=tls) as wire:
        began = time.monotonic()
        wire.begin(began + 0.3)
        with pytest.raises(TimeoutError):
            wire.sendall(bytes(50_000_000))
        took = time.monotonic() - began
        over.set()

        assert took < 0.3 + SLACK


@both
def test_what_came_in_time_is_read_late(tls: bool) -> None:
    """A thread that gets to run too late still reads the answer that is there, but does not wait for another."""
    with talking(lambda peer: (peer.sendall(b"+PONG\r\n"), peer.recv(1)), tls=tls) as wire:
        time.sleep(0.1)
        wire.begin(time.monotonic() - 1)

        assert wire.recv(100) == b"+PONG\r\n"
        with pytest.raises(TimeoutError):
            wire.recv(100)


def test_late_reads_come_to_an_end() -> None:
    """A peer that never stops sending cannot hold its reader beyond the deadline."""

    def flood(peer: socket.socket) -> None:
        with suppress(OSError):
            while True:
                peer.sendall(bytes(100_000))

    with talking(flood) as wire:
        wire.begin(time.monotonic() - 1)
        buffer = bytearray(10)
        with pytest.raises(TimeoutError):
            sum(wire.recv_into(buffer) for _ in range(1000))


@both
def test_whether_it_can_be_used_again(tls: bool) -> None:
    """It can while nothing came that nobody asked for: neither bytes, nor the end. What TLS says of its own is no matter."""
    steps = [threading.Event(), threading.Event()]

    def peer(one: socket.socket) -> None:
        one.sendall(b"first")
        for step in steps:
            step.wait(10)
            one.sendall(b"unasked")

    with talking(peer, tls=tls) as wire:
        assert wire.recv(5) == b"first"
        assert not wire.is_stale()
        steps[0].set()
        deadline = time.monotonic() + 10
        while not wire.is_stale() and time.monotonic() < deadline:
            time.sleep(0.01)

        assert wire.is_stale()
        steps[1].set()


@both
def test_a_peer_that_closed(tls: bool) -> None:
    """A connection that the peer has closed is found out before it is used."""
    with talking(lambda peer: peer.recv(1), tls=tls) as wire:
        assert not wire.is_stale()
        wire.sendall(b".")
        deadline = time.monotonic() + 10
        while not wire.is_stale() and time.monotonic() < deadline:
            time.sleep(0.01)

        assert wire.is_stale()


def listener(backlog: int) -> socket.socket:
    """Listens on a free port of 127.0.0.1, and accepts nobody."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(backlog)
    return listening


@contextmanager
def silent() -> Generator[tuple[object, ...]]:
    """An address that neither accepts nor refuses: its queue is full."""
    listening = listener(0)
    filling = []
    for _ in range(8):
        one = socket.socket()
        one.setblocking(False)
        with suppress(BlockingIOError):
            one.connect(listening.getsockname())
        filling.append(one)
    time.sleep(0.1)
    try:
        yield (socket.AF_INET, socket.SOCK_STREAM, 0, "", listening.getsockname())
    finally:
        for one in (listening, *filling):
            one.close()


def test_silent_addresses_leave_time_for_those_behind_them() -> None:
    """Each address of a host gets its share of the time, so one that answers is found."""
    with silent() as dead, listener(8) as alive:
        found = connect([dead, dead, (*dead[:4], alive.getsockname())], time.monotonic() + 1.5, lambda _: None)
        with found:
            assert found.getpeername() == alive.getsockname()


def test_silent_addresses_take_one_deadline_together() -> None:
    """Ten addresses that say nothing take the time of one."""
    with silent() as dead:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            connect([dead] * 10, began + 0.5, lambda _: None)

        assert time.monotonic() - began < 0.5 + SLACK


def test_a_host_without_addresses() -> None:
    """It is an error of the system's kind, as if nobody listened."""
    with pytest.raises(OSError, match="no address"):
        connect([], time.monotonic() + 1, lambda _: None)
