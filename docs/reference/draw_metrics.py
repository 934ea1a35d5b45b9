"""Draw what Prometheus says about a minute of traffic: `python docs/reference/draw_metrics.py`.

It starts a real Prometheus and a real Valkey, as the tests do, sends notifications, and asks Prometheus for what the panels of the
dashboard show. Within the minute, something sends in a loop for a while, and the Valkey is dead for a while.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from prometheus_server import Prometheus, configuration
from ratelimited_notify import Circuit, Notifier, Rule
from ratelimited_notify.instrumentation.prometheus import instrument
from servers import HOST, free_port, valkey_server

MONITORING = Path(__file__).parents[2] / "src" / "ratelimited_notify" / "instrumentation" / "monitoring"
SECONDS = 75
LOOP = (20, 35)
DEAD = (50, 60)
PANELS = ("Deliveries", "Decisions", "Circuits")

LEFT, RIGHT, WIDTH, HEIGHT, GAP, TOP = 48, 150, 860, 130, 56, 40
COLOURS = ["#2455a4", "#b3261e", "#1f6f4a", "#8a5a00", "#6b3fa0", "#555555"]

Line = list[tuple[float, float]]


def send_for_a_while(notifier: Notifier[..., None], stop: threading.Event) -> None:
    """Twenty notifications per second to many recipients, and a loop that sends fifty to a single one."""
    began = time.monotonic()
    while not stop.wait(0.05):
        seconds = time.monotonic() - began
        notifier.send("news", f"user{random.randrange(2000)}")  # noqa: S311  # no secret
        if LOOP[0] <= seconds < LOOP[1]:
            notifier.send_many("news", ["somebody"] * 3)


def measured() -> dict[str, dict[str, Line]]:
    """The lines of the panels: seconds and values, by name."""
    registry, port, valkey = CollectorRegistry(), free_port(), valkey_server()
    prometheus = Prometheus(configuration({"shop": {}}, f"{HOST}:{port}", MONITORING / "alerts.yaml"))
    server, thread = start_http_server(port, HOST, registry)
    stop = threading.Event()
    rules = [Rule("news", "3/hour")]
    try:
        with (
            instrument(registry),
            Notifier(
                lambda recipient: None, rules, valkey.url, on_storage_error="allow", circuit=Circuit(3, 0.5)
            ) as notifier,
        ):
            sender = threading.Thread(target=send_for_a_while, args=[notifier, stop])
            began = time.time()
            sender.start()
            time.sleep(DEAD[0])
            valkey.stop()
            time.sleep(DEAD[1] - DEAD[0])
            valkey.start()
            time.sleep(SECONDS - DEAD[1])
            stop.set()
            sender.join()
            return {title: lines(prometheus, expression(title), began) for title in PANELS}
    finally:
        server.shutdown()
        thread.join()
        prometheus.remove()
        valkey.remove()


def expression(title: str) -> str:
    """The expression of a panel, for all jobs and types."""
    panels = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))["panels"]
    (text,) = (target["expr"] for panel in panels if panel["title"] == title for target in panel["targets"])
    return text.replace("$__rate_interval", "4s").replace("$job", ".*").replace("$type", ".*")


def lines(prometheus: Prometheus, text: str, began: float) -> dict[str, Line]:
    """What Prometheus says about an expression, second by second."""
    answer = prometheus.get("query_range", query=text, start=str(began), end=str(began + SECONDS), step="1")
    return {
        " ".join(series["metric"].values()): [(at - began, float(value)) for at, value in series["values"]]
        for series in answer["result"]
        if any(float(value) for _, value in series["values"])
    }


def picture(panels: dict[str, dict[str, Line]]) -> str:
    """The panels, one under the other."""
    height = TOP + len(panels) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-family="sans-serif" font-size="12">',
        "<title>Deliveries, decisions and circuits during a loop and while the storage is dead</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number, (title, drawn) in enumerate(panels.items()):
        parts += panel(title, drawn, TOP + number * (HEIGHT + GAP))
    return "\n".join([*parts, "</svg>\n"])


def panel(title: str, drawn: dict[str, Line], top: float) -> list[str]:
    """One panel: its title, the lines, and their names at the right."""
    highest = max(value for line in drawn.values() for _, value in line)
    highest = 1.0 if highest <= 1 else 20.0 * -(-highest // 20)
    bottom = top + HEIGHT

    def x(seconds: float) -> float:
        return LEFT + seconds / SECONDS * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return bottom - value / highest * HEIGHT

    unit = "" if highest == 1 else " per second"
    parts = [f'<text x="{LEFT}" y="{top - 12}" font-weight="bold">{title}{unit}</text>']
    for begin, end in (LOOP, DEAD):
        parts.append(
            f'<rect x="{x(begin):.1f}" y="{top}" width="{x(end) - x(begin):.1f}" height="{HEIGHT}" fill="#f3f3f3"/>'
        )
    for value in (0, highest / 2, highest):
        parts.append(
            f'<line x1="{LEFT}" y1="{y(value):.1f}" x2="{WIDTH - RIGHT}" y2="{y(value):.1f}" stroke="#e3e3e3"/>'
        )
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" fill="#555555" text-anchor="end">{value:g}</text>')
    parts += [
        f'<text x="{x(seconds):.1f}" y="{bottom + 16}" fill="#555555" text-anchor="middle">{seconds} s</text>'
        for seconds in range(0, SECONDS + 1, 15)
    ]
    for place, (name, line) in enumerate(sorted(drawn.items())):
        colour = COLOURS[place]
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 10}" y="{top + 12 + 18 * place}" fill="{colour}">{name}</text>')
    for (begin, end), text in ((LOOP, "a loop sends"), (DEAD, "the storage is dead")):
        if title == PANELS[0]:
            parts.append(
                f'<text x="{x((begin + end) / 2):.1f}" y="{top - 2}" fill="#555555" text-anchor="middle">{text}</text>'
            )
    return parts


if __name__ == "__main__":
    Path(__file__).with_name("metrics.svg").write_text(picture(measured()))
