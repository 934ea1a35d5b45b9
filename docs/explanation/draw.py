"""Draw the pictures of the strategies from what the library decides: `python docs/explanation/draw.py`."""

from __future__ import annotations

from pathlib import Path

from ratelimited_notify import Limiter, Rule

LIMIT = 4
PERIOD = 10
SECONDS = 40
STRATEGIES = ("moving-window", "fixed-window", "sliding-window-counter")

# A first hit that begins the window, a burst at its end, another burst right after it, then one hit every 1.5 seconds.
ATTEMPTS = [0.0, 8.4, 8.8, 9.2, 9.6, 10.0, 10.4, 10.8, 11.2, 11.6, *(14 + 1.5 * number for number in range(17))]

LEFT, RIGHT, WIDTH = 44, 12, 720
GREEN, RED, WHITE = "#1f6f4a", "#b3261e", "#ffffff"
DOTS, TOP, BOTTOM = 30, 64, 190


def decisions(strategy: str) -> list[tuple[float, bool]]:
    """The time of each attempt, and whether it was allowed."""
    now = 0.0
    limiter = Limiter([Rule("news", f"{LIMIT} per {PERIOD} seconds", strategy=strategy)], clock=lambda: now)
    decided: list[tuple[float, bool]] = []
    for now in ATTEMPTS:
        decided += ((now, limiter.hit("news", "ana").allowed),)
    return decided


def in_true_period(allowed: list[float], instant: float) -> int:
    """How many were allowed in the period that ends at this instant."""
    return sum(instant - PERIOD < at <= instant for at in allowed)


def picture(strategy: str) -> str:
    """The decisions as dots, and under them a line: how many were allowed in the last period."""
    decided = decisions(strategy)
    allowed = [at for at, fits in decided if fits]
    highest = 2 * LIMIT

    def x(seconds: float) -> float:
        return LEFT + seconds / SECONDS * (WIDTH - LEFT - RIGHT)

    def y(count: float) -> float:
        return BOTTOM - count / highest * (BOTTOM - TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 220" role="img" font-family="sans-serif" font-size="12">',
        f"<title>{strategy}: at most {LIMIT} in {PERIOD} seconds</title>",
        f'<rect width="{WIDTH}" height="220" fill="#ffffff"/>',
    ]
    for seconds in range(0, SECONDS + 1, PERIOD):
        parts.append(f'<line x1="{x(seconds):.1f}" y1="44" x2="{x(seconds):.1f}" y2="{BOTTOM}" stroke="#e3e3e3"/>')
        parts.append(f'<text x="{x(seconds):.1f}" y="206" fill="#555555" text-anchor="middle">{seconds} s</text>')
    parts += [
        f'<circle cx="{x(at):.1f}" cy="{DOTS}" r="4" fill="{GREEN if fits else WHITE}" '
        f'stroke="{GREEN if fits else RED}" stroke-width="1.5"/>'
        for at, fits in decided
    ]
    steps = sorted(set(allowed) | {at + PERIOD for at in allowed if at + PERIOD <= SECONDS})
    line = [f"M{x(0):.1f} {y(in_true_period(allowed, 0.0)):.1f}"]
    line += [f"H{x(at):.1f}V{y(in_true_period(allowed, at)):.1f}" for at in steps]
    line.append(f"H{x(SECONDS):.1f}")
    parts.append(f'<path d="{"".join(line)}" fill="none" stroke="#2455a4" stroke-width="2"/>')
    parts.append(
        f'<line x1="{LEFT}" y1="{y(LIMIT):.1f}" x2="{WIDTH - RIGHT}" y2="{y(LIMIT):.1f}" stroke="#b3261e" '
        'stroke-dasharray="6 4"/>'
    )
    parts += [
        f'<text x="{LEFT - 8}" y="{y(count) + 4:.1f}" fill="#555555" text-anchor="end">{count}</text>'
        for count in (0, LIMIT, highest)
    ]
    worst = max(in_true_period(allowed, at) for at in allowed)
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{TOP - 6}" fill="#555555" text-anchor="end">'
        f"hits in the last {PERIOD} s: at most {worst}, limit {LIMIT}</text>"
    )
    parts.append("</svg>\n")
    return "\n".join(parts)


if __name__ == "__main__":
    for strategy in STRATEGIES:
        Path(__file__).with_name(f"{strategy}.svg").write_text(picture(strategy))
