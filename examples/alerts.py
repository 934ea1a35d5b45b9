"""Alerts from a monitor: each alert at most once an hour per person, and at most ten alerts an hour in total."""

from ratelimited_notify import Notifier, Rule

RULES = [
    Rule("alert", "1/hour", by=("recipient", "dedupe_key")),
    Rule("alert", "10/hour", by="recipient"),
]


def page(recipient: str, text: str) -> None:
    """Stands for your pager."""
    print(f"page {recipient}: {text}")


if __name__ == "__main__":
    notifier = Notifier(page, RULES)
    for host in ("web-1", "web-1", "web-2", "web-1"):
        delivery = notifier.bind(dedupe_key=f"disk-full:{host}").send("alert", "oncall", f"disk full on {host}")
        if not delivery:
            print(f"suppressed ({host}): {delivery.decision}")
