"""An asyncio service for several tenants, with its rules in a file."""

import asyncio
from pathlib import Path

from ratelimited_notify import AsyncNotifier

RULES = Path(__file__).with_name("service.toml")


async def push(user_id: int, text: str) -> str:
    """Stands for your push gateway."""
    await asyncio.sleep(0)
    return f"{user_id}: {text}"


async def main() -> None:
    async with AsyncNotifier(push, RULES, concurrency=10) as notifier:
        for tenant in ("acme", "globex"):
            bound = notifier.bind(tenant=tenant)
            deliveries = await bound.send_many("reminder", range(1, 6), "Your appointment")
            print(tenant, [delivery.status.value for delivery in deliveries])
        first = await notifier.bind(tenant="acme").send("reminder", 1, "Your appointment")
        print("again:", first.decision)


if __name__ == "__main__":
    asyncio.run(main())
