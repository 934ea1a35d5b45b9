"""The shortest example: one decorator on a function that sends."""

from ratelimited_notify import RateLimitExceeded, rate_limited


@rate_limited(type="status", limit="2/minute")
def send_status(recipient: str, text: str) -> None:
    """Stands for your function that sends mail, SMS or push notifications."""
    print(f"to {recipient}: {text}")


if __name__ == "__main__":
    for text in ("building", "testing", "deploying"):
        try:
            send_status("ana@example.com", text)
        except RateLimitExceeded as refusal:
            print(f"not sent ({text}): {refusal.decision}")
    send_status("ben@example.com", "building")
