"""One-time codes by SMS, limited by phone number and by IP address. If sending fails, the hit is given back."""

from ratelimited_notify import Notifier, Rule, RuleSet

RULES = RuleSet(
    [
        Rule("code", "1/minute; 5/hour"),
        Rule("code", "3/hour", by="ip"),
    ],
    fields=["ip"],
)


class CarrierRefused(Exception):
    """The carrier did not accept the message."""


failures = iter([True, False, False, False])


def send_sms(number: str, code: str) -> None:
    """Stands for your SMS gateway. The first call fails."""
    if next(failures):
        raise CarrierRefused(f"{number[:3]}... refused {len(code)} digits")


if __name__ == "__main__":
    notifier = Notifier(send_sms, RULES)
    asked = notifier.bind(ip="192.0.2.7")
    try:
        asked.send("code", "+491701", "123456")
    except CarrierRefused:
        print("the carrier refused; nothing is used up")
    print("again at once:", asked.send("code", "+491701", "123456").status.value)
    print("too soon:", asked.send("code", "+491701", "654321").decision.retry_after_header, "s")
    asked.send("code", "+491702", "111111")
    asked.send("code", "+491703", "222222")
    print("one asker, many numbers:", asked.send("code", "+491704", "333333").decision)
