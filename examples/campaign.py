"""A campaign to many people, with its own limit and with a frequency cap over everything that they get."""

from collections import Counter

from ratelimited_notify import Notifier, Rule

RULES = [
    Rule("marketing.*", "3/hour", by="recipient", name="marketing"),
    Rule("*", "5/day", by="recipient", exempt="critical", name="everything"),
]


def send_email(recipient: str, subject: str) -> None:
    """Stands for your mail gateway."""


if __name__ == "__main__":
    people = [f"person{number}@example.com" for number in range(1000)]
    with Notifier(send_email, RULES) as notifier:
        for campaign in ("marketing.spring", "marketing.shoes", "marketing.hats", "marketing.socks"):
            deliveries = notifier.send_many(campaign, people, f"News of {campaign}")
            refusing = Counter(
                delivery.decision.blocked_by.rule for delivery in deliveries if delivery.decision.blocked_by
            )
            print(f"{campaign}: {sum(map(bool, deliveries))} sent, {dict(refusing)} refused")
        # Critical alarms pass the cap, and are counted.
        alarm = notifier.bind(priority="critical")
        for number in range(4):
            alarm.send("alarm", people[0], f"Alarm {number}")
        print("ordinary mail after the alarms:", notifier.send("news", people[0], "News"))
