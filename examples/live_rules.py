"""Rules in a file that somebody edits while the program sends. Mistakes in it change nothing."""

import tempfile
import threading
from pathlib import Path

from ratelimited_notify import Notifier
from ratelimited_notify.sources import FileRules

RULES = '[[rules]]\ntype = "news"\nlimit = "{}"\n'


def send_email(recipient: str, subject: str) -> None:
    """Stands for your gateway."""


def send(notifier: Notifier[..., None], number: int) -> None:
    statuses = [notifier.send("news", "ana@example.com", "Hello").status.value for _ in range(number)]
    print("news to Ana:", *statuses)


def edit(notifier: Notifier[..., None], path: Path, limit: str) -> None:
    """Edit the file, and wait until the program has noticed: after half a second or so."""
    source, told = notifier.limiter.source, threading.Event()
    end = source.on_change(lambda before, after, changes: (print("changed:", *changes), told.set()))
    before = source.status.problems
    path.write_text(RULES.format(limit))
    while not told.wait(0.05) and source.status.problems in ((), before):
        pass
    end()
    for problem in source.status.problems:
        print("not used:", problem.message)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "rules.toml")
        path.write_text(RULES.format("1/day"))
        notifier = Notifier(send_email, FileRules(path, interval=0.5))
        send(notifier, 2)
        for limit in ("3/day", "lots", "2/day", "1/hour"):
            edit(notifier, path, limit)
            send(notifier, 2)
        notifier.close()


if __name__ == "__main__":
    main()
