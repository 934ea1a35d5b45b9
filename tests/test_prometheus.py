"""What limiters decide, and what becomes of the messages, is counted for Prometheus."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest

from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Circuit,
    Limiter,
    Notifier,
    NotifyError,
    RateLimitExceeded,
    Rule,
    RuleError,
    StorageError,
    rate_limited,
)
from ratelimited_notify.instrumentation import StorageFailed
from ratelimited_notify.instrumentation.labels import MOST_VALUES, OTHER
from ratelimited_notify.instrumentation.prometheus import instrument
from ratelimited_notify.instrumentation.registry import watchers
from ratelimited_notify.sources import FunctionRules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ratelimited_notify.instrumentation import Handle
    from servers import Valkey


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    """A registry in which everything is counted."""
    made = CollectorRegistry()
    with instrument(made):
        yield made


@pytest.fixture(autouse=True)
def _no_limiters_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget limiters that nobody uses any more, but that may still be there: their types would take the places."""
    monkeypatch.setattr("ratelimited_notify.instrumentation.registry._limiters", {})


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"ratelimited_notify_{name}", labels)


def decisions(registry: CollectorRegistry, type: str) -> dict[tuple[str, str], float]:
    """How many decisions there were about a type, by verdict and rule; those that never happened are left out."""
    return {
        (sample.labels["verdict"], sample.labels["rule"]): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "ratelimited_notify_decisions_total" and sample.labels["type"] == type and sample.value
    }


def deliveries(registry: CollectorRegistry, type: str) -> dict[str, float]:
    """What became of the notifications of a type; what never happened is left out."""
    return {
        sample.labels["status"]: sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "ratelimited_notify_deliveries_total" and sample.labels["type"] == type and sample.value
    }


def values(registry: CollectorRegistry, label: str) -> set[str]:
    return {
        sample.labels[label] for metric in registry.collect() for sample in metric.samples if label in sample.labels
    }


# --- What is counted -------------------------------------------------------------------------------------------------


def send_decorated(limiter: Limiter) -> None:
    @rate_limited("news", limiter=limiter, on_limit="drop")
    def send(recipient: str) -> None:
        if recipient == "bad":
            raise ValueError

    for recipient in ("ana", "ana", "ben"):
        send(recipient)
    with pytest.raises(ValueError, match=r"^$"):
        send("bad")


def gateway(recipient: str) -> None:
    if recipient == "bad":
        raise ValueError


def send_through_a_notifier(limiter: Limiter) -> None:
    notifier = Notifier(gateway, limiter=limiter)
    for recipient in ("ana", "ana", "ben"):
        notifier.send("news", recipient)
    with pytest.raises(ValueError, match=r"^$"):
        notifier.send("news", "bad")


def send_in_a_batch(limiter: Limiter) -> None:
    Notifier(gateway, limiter=limiter).send_many("news", ["ana", "ana", "ben", "bad"])


@pytest.mark.parametrize("send", [send_decorated, send_through_a_notifier, send_in_a_batch])
def test_decisions_and_deliveries_are_counted(send: Callable[[Limiter], None], registry: CollectorRegistry) -> None:
    """Whichever way they come: by the shortcut of a decorator, through a notifier, in a batch."""
    send(Limiter({"news": "1/day"}))

    assert decisions(registry, "news") == {("allowed", ""): 3, ("refused", "news"): 1}
    assert deliveries(registry, "news") == {"sent": 2, "suppressed": 1, "failed": 1}


def test_asyncio_is_counted(registry: CollectorRegistry) -> None:
    """Tasks count as threads do."""

    async def deliver(recipient: str) -> None: ...

    async def send_all() -> None:
        async with AsyncLimiter({"news": "1/day"}) as limiter:
            notifier = AsyncNotifier(deliver, limiter=limiter)
            await asyncio.gather(*(notifier.send("news", recipient) for recipient in ("ana", "ana", "ben")))

    asyncio.run(send_all())

    assert decisions(registry, "news") == {("allowed", ""): 2, ("refused", "news"): 1}
    assert deliveries(registry, "news") == {"sent": 2, "suppressed": 1}


def test_every_verdict_is_counted(registry: CollectorRegistry) -> None:
    """Those of rules in shadow mode, of exempt priorities, and of types without a rule too."""
    limiter = Limiter(
        [Rule("trial", "1/day", enforce=False), Rule("alert", "1/day", exempt="critical"), Rule("free", None)]
    )
    for _ in range(2):
        limiter.hit("trial", "ana")
        limiter.hit("alert", "ana", priority="critical")
        limiter.hit("free", "ana")

    assert decisions(registry, "trial") == {("allowed", ""): 1, ("would_refuse", "trial"): 1}
    assert decisions(registry, "alert") == {("exempt", ""): 2}
    assert decisions(registry, "free") == {("unlimited", ""): 2}


def test_what_another_callback_watches_is_counted_too(registry: CollectorRegistry) -> None:
    """Counting goes on beside callbacks, and callbacks that raise."""
    limiter = Limiter({"news": "1/day"})

    def failing(event: object) -> None:
        raise ValueError

    with limiter.watch(failing):
        send_decorated(limiter)

    assert deliveries(registry, "news") == {"sent": 2, "suppressed": 1, "failed": 1}


def test_what_can_happen_begins_at_0(registry: CollectorRegistry) -> None:
    """Prometheus sees no increase in a series that begins with 1: the first failure of a type would be missed."""
    limiter = Limiter([Rule("news", "1/day"), Rule("new*", "5/day", enforce=False), Rule("*", "9/day", exempt="now")])

    assert {
        value(registry, "deliveries_total", type="news", status=each) for each in ("sent", "suppressed", "failed")
    } == {0}
    for verdict, rule in (
        ("allowed", ""), ("failed_open", ""), ("failed_closed", ""), ("exempt", ""), ("refused", "news"), ("refused", "*"),
        ("would_refuse", "new*"),
    ):  # fmt: skip
        assert value(registry, "decisions_total", type="news", verdict=verdict, rule=rule) == 0

    limiter.rules = {"late": "1/day"}
    assert value(registry, "deliveries_total", type="late", status="failed") == 0


def test_a_type_that_no_rule_names_begins_at_0_when_it_is_met(registry: CollectorRegistry) -> None:
    """What may happen next to a type of a family is known when the first notification comes."""
    limiter = Limiter([Rule("offer.*", "1/day")])
    limiter.hit("offer.shoes", "ana")

    assert value(registry, "decisions_total", type="offer.shoes", verdict="refused", rule="offer.*") == 0
    assert value(registry, "deliveries_total", type="offer.shoes", status="failed") == 0


def test_limits_of_decorators_begin_at_0(registry: CollectorRegistry) -> None:
    """The rule of a decorator is known as soon as the decorator is there."""
    limiter = Limiter({"news": "1/day"})

    @rate_limited("welcome", "1/day", limiter=limiter)
    def send(recipient: str) -> None: ...

    assert value(registry, "decisions_total", type="welcome", verdict="refused", rule="welcome") == 0


# --- Few values, and nothing personal --------------------------------------------------------------------------------


def test_labels_have_at_most_a_hundred_values(registry: CollectorRegistry) -> None:
    """Types that are made of order numbers, say, do not fill the memory of Prometheus. Their sum is right."""
    limiter = Limiter([Rule("*", "9/day", by="recipient")])
    for number in range(3 * MOST_VALUES):
        limiter.hit(f"order-{number}", f"user {number}")

    known = values(registry, "type")
    assert len(known) == MOST_VALUES + 1
    assert OTHER in known
    total = sum(
        sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "ratelimited_notify_decisions_total"
    )
    assert total == 3 * MOST_VALUES


def test_rules_have_at_most_a_hundred_names(registry: CollectorRegistry) -> None:
    """A rule for each of a thousand types makes no thousand series."""
    limiter = Limiter([Rule("news", "0/day"), *(Rule(f"t{number}", "0/day") for number in range(300))])
    for number in range(300):
        limiter.hit(f"t{number}", "ana")

    assert len(values(registry, "rule") - {""}) <= MOST_VALUES + 1
    assert len(values(registry, "type")) <= MOST_VALUES + 1


def test_the_places_are_for_what_is_used(registry: CollectorRegistry) -> None:
    """Rules for ten thousand types take no place from the few that this process sends, nor much time."""
    limiter = Limiter([Rule(f"t{number}", "0/day") for number in range(10_000)])
    limiter.hit("t9999", "ana")

    assert decisions(registry, "t9999") == {("refused", "t9999"): 1}
    assert values(registry, "type") == {"t9999"}


def test_threads_that_meet_new_types_at_once_keep_the_bound() -> None:
    """However many threads meet new types at the same instant, there are at most a hundred, and none is lost."""
    registry = CollectorRegistry()
    limiter = Limiter([Rule("*", "9/day", by="recipient")])
    start = threading.Barrier(8)

    def hit(thread: int) -> None:
        start.wait()
        for number in range(60):
            limiter.hit(f"t{number * (thread % 4 + 1)}", f"{thread} {number}")

    with instrument(registry):
        threads = [threading.Thread(target=hit, args=[number]) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        total = sum(
            sample.value
            for metric in registry.collect()
            for sample in metric.samples
            if sample.name == "ratelimited_notify_decisions_total"
        )

        assert total == 8 * 60
        assert len(values(registry, "type")) <= MOST_VALUES + 1


@pytest.mark.parametrize("type", ["ana@example.com", "+43 660 1234567", "https://example.com/u/1", "\udcff", "x" * 300])
def test_addresses_and_what_cannot_be_shown_are_in_no_label(type: str, registry: CollectorRegistry) -> None:
    """If somebody swaps type and recipient, the address does not become a label. Nor does a type break all other metrics."""
    limiter = Limiter([Rule("*", "9/day", by="recipient")])
    before = decisions(registry, OTHER).get(("allowed", ""), 0)
    limiter.hit(type, "news")

    assert decisions(registry, OTHER)["allowed", ""] == before + 1
    assert type.encode(errors="replace") not in generate_latest(registry)


# --- Storages --------------------------------------------------------------------------------------------------------


def test_decisions_of_servers_are_measured(valkey: Valkey, registry: CollectorRegistry) -> None:
    """How long a server took; windows in memory take less than a look at the clock, and are not measured."""
    with Limiter({"measured": "1/day"}, valkey.url, namespace="prometheus") as limiter:
        for recipient in ("ana", "ana", "ben"):
            limiter.hit("measured", recipient)
    Limiter({"measured": "1/day"}).hit("measured", "ana")

    assert value(registry, "decision_seconds_count", backend="redis") == 3
    assert values(registry, "backend") >= {"redis"}
    assert "memory" not in values(registry, "backend")
    assert decisions(registry, "measured") == {("allowed", ""): 3, ("refused", "measured"): 1}


def test_gateways_are_measured_only_by_choice() -> None:
    """A histogram costs a microsecond, so who wants it says so."""
    with instrument(without := CollectorRegistry()), instrument(with_it := CollectorRegistry(), gateway_seconds=True):
        send_decorated(Limiter({"news": "1/day"}))

        assert value(with_it, "gateway_seconds_count", type="news") == 3
        assert value(without, "gateway_seconds_count", type="news") is None
        assert deliveries(with_it, "news") == deliveries(without, "news") == {"sent": 2, "suppressed": 1, "failed": 1}


def test_storages_are_measured_unless_somebody_does_not_want_it(tmp_path: Path) -> None:
    """Without the histogram, counting costs less. The counters are the same."""
    limiter = Limiter({"news": "1/day"}, f"sqlite:///{tmp_path / 'windows.db'}")
    with instrument(without := CollectorRegistry(), decision_seconds=False), instrument(with_it := CollectorRegistry()):
        for _ in range(3):
            limiter.hit("news", "ana")

        assert value(with_it, "decision_seconds_count", backend="sqlite") == 3
        assert value(without, "decision_seconds_count", backend="sqlite") is None
        assert decisions(without, "news") == decisions(with_it, "news") == {("allowed", ""): 1, ("refused", "news"): 2}
    limiter.close()


@pytest.mark.parametrize(("policy", "verdict"), [("allow", "failed_open"), ("deny", "failed_closed")])
def test_failures_of_the_storage_are_counted(
    policy: str, verdict: str, start_valkey: Callable[..., Valkey], registry: CollectorRegistry
) -> None:
    """How often it failed, what was decided then, and which circuit is open."""
    server = start_valkey()
    with Limiter({"news": "9/day"}, server.url, on_storage_error=policy, circuit=Circuit(2, 0.01)) as limiter:
        server_text = next(iter(limiter.storage.circuits))
        assert value(registry, "storage_errors_total", backend="redis", policy=policy) == 0
        assert value(registry, "degraded_total", backend="redis") == 0
        assert value(registry, "circuit_open", server=server_text) == 0
        limiter.hit("news", "ana")
        server.stop()
        for _ in range(3):
            limiter.hit("news", "ana")

        assert value(registry, "storage_errors_total", backend="redis", policy=policy) == 3
        assert decisions(registry, "news") == {("allowed", ""): 1, (verdict, ""): 3}
        assert value(registry, "circuit_open", server=server_text) == 1
        with instrument(late := CollectorRegistry()):
            assert value(late, "circuit_open", server=server_text) == 1

        server.start()
        while value(registry, "circuit_open", server=server_text):
            limiter.hit("news", "ana")
        assert limiter.storage.circuits[server_text] == "closed"


def test_a_failure_that_raises_is_counted(start_valkey: Callable[..., Valkey], registry: CollectorRegistry) -> None:
    """With `on_storage_error="raise"` there is no decision, but the failure is counted, and so is what was not sent."""
    server = start_valkey()
    with Limiter({"news": "9/day"}, server.url) as limiter:
        server.stop()
        with pytest.raises(StorageError):
            Notifier(gateway, limiter=limiter).send("news", "ana")

    assert value(registry, "storage_errors_total", backend="redis", policy="raise") == 1
    assert decisions(registry, "news") == {}
    assert deliveries(registry, "news") == {"failed": 1}


def test_a_policy_shows_no_password(registry: CollectorRegistry) -> None:
    """Another storage as the policy is shown by its scheme."""
    for watcher in watchers():
        watcher.tell(StorageFailed("redis", "redis://:secret@example.com/0", "StorageError"))

    assert value(registry, "storage_errors_total", backend="redis", policy="redis://") == 1
    assert "secret" not in generate_latest(registry).decode()


# --- Rules -----------------------------------------------------------------------------------------------------------


def test_rules_that_are_loaded_or_rejected_are_counted(registry: CollectorRegistry) -> None:
    """When rules were put in force, and how often a source had none that can be used."""
    limit = "1/day"

    def fetch(_: str | None) -> tuple[str, dict[str, object]]:
        return limit, {"rules": [{"type": "news", "limit": limit}]}

    with Limiter(FunctionRules(fetch, interval=3600)) as limiter:
        first = value(registry, "rules_loaded_timestamp_seconds")
        assert first
        assert value(registry, "rules_rejected_total") == 0
        limit = "often"
        with pytest.raises(RuleError):
            limiter.source.refresh()
        assert value(registry, "rules_rejected_total") == 1
        assert value(registry, "rules_loaded_timestamp_seconds") == first
        limit = "2/day"
        limiter.source.refresh()
        assert (
            value(
                registry,
                "rules_loaded_timestamp_seconds",
            )
            > first
        )


# --- Beginning and ending --------------------------------------------------------------------------------------------


def test_a_second_call_changes_nothing() -> None:
    """An application that starts twice in one process, or in a hook of each worker, counts everything once."""
    registry = CollectorRegistry()
    with instrument(registry) as handle:
        assert instrument(registry) is handle
        send_decorated(Limiter({"news": "1/day"}))
        assert deliveries(registry, "news") == {"sent": 2, "suppressed": 1, "failed": 1}


def test_the_default_registry_is_that_of_the_client() -> None:
    """What everybody shows at /metrics is what is counted in."""
    with instrument():
        Limiter({"news": "1/day"}).hit("news", "ana")
        assert decisions(REGISTRY, "news") == {("allowed", ""): 1}
    assert value(REGISTRY, "rules_rejected_total") is None


def test_closing_ends_it() -> None:
    """After `close()`, nobody watches and nothing is shown. A new beginning begins at 0."""
    registry, before = CollectorRegistry(), watchers()
    limiter = Limiter({"news": "1/day"})
    handle = instrument(registry)
    limiter.hit("news", "ana")
    handle.close()
    handle.close()

    assert (watchers(), generate_latest(registry)) == (before, b"")
    with instrument(registry) as again:
        assert again is not handle
        handle.close()
        limiter.hit("news", "ben")
        assert decisions(registry, "news") == {("allowed", ""): 1}


def other_option(registry: CollectorRegistry) -> Handle:
    instrument(registry)
    return instrument(registry, gateway_seconds=True)


def taken_names(registry: CollectorRegistry) -> Handle:
    Counter("ratelimited_notify_deliveries_total", "Somebody else's.", registry=registry)
    return instrument(registry)


@pytest.mark.parametrize(
    ("begin", "message"),
    [
        (other_option, "instrumented already, with decision_seconds=True, gateway_seconds=False"),
        (taken_names, "already has metrics whose names begin with ratelimited_notify_"),
        (lambda _: instrument("default"), "must be a CollectorRegistry of prometheus_client, not a str"),
        (lambda _: instrument(gateway_seconds="yes"), "gateway_seconds= must be True or False"),
        (lambda _: instrument(decision_seconds="yes"), "decision_seconds= must be True or False"),
    ],
)
def test_what_cannot_work_is_an_error(begin: Callable[[CollectorRegistry], Handle], message: str) -> None:
    """The message says what is wrong, and nothing is left half begun."""
    registry, before = CollectorRegistry(), watchers()
    with pytest.raises(NotifyError, match=message):
        begin(registry)
    if begin is other_option:
        instrument(registry).close()

    assert watchers() == before
    assert value(registry, "decisions_total") is None
    assert b"decisions" not in generate_latest(registry)


def test_without_the_client_the_error_says_what_to_install() -> None:
    """The import raises `MissingExtra` with the command of pip."""
    program = """
import sys
sys.modules["prometheus_client"] = None
import ratelimited_notify.instrumentation
try:
    from ratelimited_notify.instrumentation.prometheus import instrument
except ImportError as error:
    print(type(error).__name__, error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert said.startswith("MissingExtra ")
    assert "pip install 'ratelimited-notify[prometheus]'" in said


def test_what_fails_in_the_client_never_reaches_the_sender(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk, where several processes count together: the message is sent, and the log says so once."""
    limiter = Limiter({"news": "1/day"})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Counter, "inc", full)
    monkeypatch.setattr(Counter, "labels", full)
    # The shortcut has what it counts with; a new type has to ask for it.
    for recipient in ("ana", "ben", "cleo"):
        assert limiter.hit("news", recipient)
        assert limiter.hit("other", recipient)
        Notifier(gateway, limiter=limiter).send("news", f"{recipient} again")
    limiter.rules = {"news": "2/day", "third": "1/day"}

    assert caplog.text.count("What counts for Prometheus raised OSError.") == 1


# --- Forks -----------------------------------------------------------------------------------------------------------

FORKED = """
import os, sys, threading
from ratelimited_notify import Limiter
from ratelimited_notify.instrumentation.prometheus import instrument
from prometheus_client import CollectorRegistry, metrics

registry = CollectorRegistry()
handle = instrument(registry)
limiter = Limiter({"news": "9/day"})
limiter.hit("news", "ana")
counter = handle.watcher.metrics.decisions
child = counter.labels("news", "allowed", "")
locks = [counter._lock, getattr(child._value, "_lock", None)]
if locks[1] is None:
    locks[1] = next(cell.cell_contents for cell in metrics.values.ValueClass.inc.__closure__ if hasattr(cell.cell_contents, "_at_fork_reinit"))
held = threading.Event()

def hold():
    for lock in locks:
        lock.acquire()
    held.set()
    threading.Event().wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if not child:
    import signal
    signal.alarm(20)
    limiter.hit("news", "ana")
    limiter.hit("unknown", "ana")
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="This system has no fork.")
@pytest.mark.parametrize("together", [False, True])
def test_a_forked_child_does_not_wait_for_a_thread_of_its_parent(together: bool, tmp_path: Path) -> None:
    """A fork in the middle of another thread's count: the child goes on, and what it sends is sent."""
    environment = {**os.environ, **({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)} if together else {})}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=60,
    )

    assert (run.stdout.strip(), run.returncode) == ("0", 0), run.stderr


def test_a_signal_handler_that_sends_does_not_wait_for_the_thread_that_it_interrupts() -> None:
    """Even if it interrupts the client of Prometheus in the middle of the same count."""
    program = """
import faulthandler, signal
from ratelimited_notify import Limiter
from ratelimited_notify.instrumentation.prometheus import instrument
from prometheus_client import CollectorRegistry

faulthandler.dump_traceback_later(20, exit=True)
handle = instrument(CollectorRegistry())
limiter = Limiter({"news": "9/day"})
counter = handle.watcher.metrics.decisions
signal.signal(signal.SIGALRM, lambda *_: [limiter.hit("news", "ana"), limiter.hit("new", "ana")])
with counter._lock, counter.labels("news", "allowed", "")._value._lock:
    signal.raise_signal(signal.SIGALRM)
print(counter.labels("news", "allowed", "")._value.get())
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False, timeout=60
    )

    assert (run.stdout.strip(), run.returncode) == ("1.0", 0), run.stderr


def test_a_refusal_that_raises_is_counted_once(registry: CollectorRegistry) -> None:
    """`RateLimitExceeded` is a suppressed delivery, not a failed one."""

    @rate_limited("news", limiter=Limiter({"news": "1/day"}))
    def send(recipient: str) -> None: ...

    send("ana")
    with pytest.raises(RateLimitExceeded):
        send("ana")

    assert deliveries(registry, "news") == {"sent": 1, "suppressed": 1}
