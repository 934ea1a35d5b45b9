"""Measure how fairly `on_limit="wait"` serves: `python benchmarks/fair_waiting.py`, ten seconds for each row.

Eight workers share a limit of 5 per second, and each sends again as soon as it could send. When the line is full, a fair
wait is eight fifths of a second. The table shows how many mails each worker sent, and its longest wait, as a multiple of the
fair one.
"""

from __future__ import annotations

import asyncio
import threading
import time

from ratelimited_notify import AsyncNotifier, Notifier, Rule

WORKERS = 8
PER_SECOND = 5
SECONDS = 10.0
FAIR = WORKERS / PER_SECOND
RULES = [Rule("*", f"{PER_SECOND}/second", by=())]


class Worker:
    """What one worker saw."""

    def __init__(self, number: int) -> None:
        self.name = f"worker{number}@example.com"
        self.sent = 0
        self.longest = 0.0
        self._began = time.monotonic()

    def was_sent(self) -> None:
        now = time.monotonic()
        self.sent, self.longest, self._began = self.sent + 1, max(self.longest, now - self._began), now


def nothing(recipient: str) -> None:
    """A gateway that sends nothing."""


async def nothing_async(recipient: str) -> None:
    """The same for asyncio."""


def in_threads(workers: list[Worker]) -> None:
    """One thread for each worker."""
    notifier = Notifier(nothing, RULES, on_limit="wait", max_wait=60)
    until = time.monotonic() + SECONDS

    def work(worker: Worker) -> None:
        while time.monotonic() < until:
            notifier.send("news", worker.name)
            worker.was_sent()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_tasks(workers: list[Worker]) -> None:
    """One task for each worker."""

    async def main() -> None:
        notifier = AsyncNotifier(nothing_async, RULES, on_limit="wait", max_wait=60)
        until = time.monotonic() + SECONDS

        async def work(worker: Worker) -> None:
            while time.monotonic() < until:
                await notifier.send("news", worker.name)
                worker.was_sent()

        await asyncio.gather(*map(work, workers))

    asyncio.run(main())


def main() -> None:
    print("| | mails of each worker | longest wait, of the fair one |")
    print("| --- | --- | --- |")
    for name, run in (("threads", in_threads), ("tasks", in_tasks)):
        workers = [Worker(number) for number in range(WORKERS)]
        run(workers)
        longest = max(worker.longest for worker in workers) / FAIR
        print(f"| {name} | {min(w.sent for w in workers)} to {max(w.sent for w in workers)} | {longest:.2f} |")


if __name__ == "__main__":
    main()
