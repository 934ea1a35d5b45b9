"""The dashboard and the alert rules, against a real Prometheus that asks for what is counted here."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest, start_http_server

from prometheus_server import Prometheus, configuration, program
from ratelimited_notify import Circuit, Limiter, Notifier, Rule, RuleError
from ratelimited_notify.instrumentation.prometheus import instrument
from ratelimited_notify.sources import FunctionRules
from servers import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import Valkey

pytestmark = pytest.mark.slow

MONITORING = Path(str(files("ratelimited_notify.instrumentation") / "monitoring"))
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
}

METRICS = (
    "circuit_open",
    "decision_seconds",
    "decisions_total",
    "degraded_total",
    "deliveries_total",
    "gateway_seconds",
    "rules_loaded_timestamp_seconds",
    "rules_rejected_total",
    "storage_errors_total",
)
"""Every metric, without its prefix. The queue of deferred notifications will add two."""

AS_THEY_ARE = "as-they-are"


def expressions(job: str) -> dict[str, str]:
    """Every expression of the dashboard, for one job, and of the alerts, by where it is."""
    found = {}
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            text = target["expr"]
            for written, meant in (
                ("$__rate_interval", "1m"), ("$__range", "1m"), ("$job", job), ("$type", ".*"),
            ):  # fmt: skip
                text = text.replace(written, meant)
            assert "$" not in text
            found[f"{panel['title']} {target['refId']}"] = text
    for name, alert in ALERTS.items():
        # As an alert, it is empty as long as nothing is wrong.
        found[name] = re.sub(r" ([<>]) ", r" \1 bool ", alert["expr"])
    return found


def exported(registry: CollectorRegistry) -> set[str]:
    """The names of the metrics, as users write them."""
    return {f"{metric.name}_total" if metric.type == "counter" else metric.name for metric in registry.collect()}


class Site(NamedTuple):
    """What is watched."""

    registry: CollectorRegistry
    prometheus: Prometheus

    def without_series(self, job: str) -> set[str]:
        """The places of the expressions that find no series of a job."""
        return {
            place
            for place, expression in expressions(job).items()
            if not any(series.labels.get("job", job) == job for series in self.prometheus.series(expression))
        }

    def wait_for_scrapes(self, number: int = 3) -> None:
        """Wait until each job was asked for its metrics a few times more."""

        def scrapes() -> dict[str, float]:
            return {each.labels["job"]: each.value for each in self.prometheus.series("sum_over_time(up[1h])")}

        before = scrapes()
        self.prometheus.until(
            lambda: (
                (now := scrapes()).keys() == {AS_THEY_ARE, *METRICS}
                and all(count >= before.get(job, 0) + number for job, count in now.items())
            )
        )


def renaming(metric: str) -> dict[str, object]:
    """A job in which one metric has another name."""
    name = f"ratelimited_notify_{metric}(_bucket|_sum|_count)?"
    return {
        "metric_relabel_configs": [
            {"source_labels": ["__name__"], "regex": name, "target_label": "__name__", "replacement": "renamed$1"}
        ]
    }


@pytest.fixture(scope="module")
def site(valkey: Valkey) -> Iterator[Site]:
    """Traffic of all kinds, made by the library, and seen by Prometheus: once as it is, and once for each metric without it."""
    registry = CollectorRegistry()
    patch = pytest.MonkeyPatch()
    # Limiters of other tests, which may still be there.
    patch.setattr("ratelimited_notify.instrumentation.registry._limiters", {})
    target = f"{HOST}:{free_port()}"
    jobs = {AS_THEY_ARE: {}, **{metric: renaming(metric) for metric in METRICS}}
    program("prometheus")
    prometheus = Prometheus(configuration(jobs, target, MONITORING / "alerts.yaml"))
    server, thread = start_http_server(int(target.partition(":")[2]), HOST, registry)
    dead = f"redis://{HOST}:{free_port()}/0"
    circuit = Circuit(2, 60)
    try:
        with (
            instrument(registry, gateway_seconds=True),
            Limiter(
                [Rule("news", "2/day"), Rule("alert", "1/day", enforce=False)], valkey.url, namespace="site"
            ) as limiter,
            Limiter({"open": "2/day"}, dead, on_storage_error="allow", circuit=circuit) as open_,
            Limiter({"closed": "2/day"}, dead, on_storage_error="deny", circuit=circuit) as closed,
            Limiter(FunctionRules(lambda _: ("1", {"rules": []}), fallback={"x": "1/day"}, interval=3600)) as stale,
        ):
            found = Site(registry, prometheus)
            found.wait_for_scrapes()
            send(limiter, open_, closed, stale)
            found.wait_for_scrapes()
            yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        prometheus.remove()
        patch.undo()


def send(limiter: Limiter, open_: Limiter, closed: Limiter, stale: Limiter) -> None:
    """Make everything happen that is counted."""

    def gateway(recipient: str) -> None:
        if recipient == "bad":
            raise ValueError

    notifier = Notifier(gateway, limiter=limiter)
    notifier.send_many("news", [f"user{number % 20}" for number in range(60)])
    notifier.send_many("alert", ["ana"] * 3)
    with suppress(ValueError):
        notifier.send("news", "bad")
    for each in (open_, closed):
        for _ in range(3):
            each.hit(next(iter(each.rules)).type, "ana")
    with suppress(RuleError):
        stale.source.refresh()


# --- What Prometheus finds -------------------------------------------------------------------------------------------


def test_every_expression_finds_a_series(site: Site) -> None:
    """A misspelt metric or label is no error for Prometheus: the panel would stay empty, and the alert silent, for ever."""
    assert site.without_series(AS_THEY_ARE) == set()


@pytest.mark.parametrize("metric", METRICS)
def test_a_renamed_metric_is_found_out(metric: str, site: Site) -> None:
    """The test above would fail for every metric that gets another name, in each place that shows it."""
    using = {place for place, text in expressions(metric).items() if f"ratelimited_notify_{metric}" in text}

    assert using
    assert site.without_series(metric) == using


def test_every_metric_is_shown(site: Site) -> None:
    """Each metric is in a panel or an alert: otherwise nobody looks at it."""
    assert exported(site.registry) == {f"ratelimited_notify_{metric}" for metric in METRICS}


def test_numbers_are_right(site: Site) -> None:
    """What Prometheus counts is what was sent."""
    found = site.prometheus.series(
        f'sum by (status) (ratelimited_notify_deliveries_total{{job="{AS_THEY_ARE}", type="news"}})'
    )

    assert {each.labels["status"]: each.value for each in found} == {"sent": 40, "suppressed": 20, "failed": 1}


def test_alerts_say_what_is_wrong(site: Site) -> None:
    """The texts of alerts that fire are complete."""

    def firing() -> dict[str, dict[str, str]]:
        alerts = site.prometheus.get("alerts")["alerts"]
        return {each["labels"]["alertname"]: each["annotations"] for each in alerts if each["state"] == "firing"}

    site.prometheus.until(lambda: firing().keys() >= {"NotificationsFailedOpen", "NotificationsFailedClosed"})
    annotations = firing()

    assert "type open" in annotations["NotificationsFailedOpen"]["summary"]
    assert "type closed" in annotations["NotificationsFailedClosed"]["summary"]
    assert not re.search(
        r"no value|error expanding|[{}]", " ".join(text for each in annotations.values() for text in each.values())
    )


# --- promtool --------------------------------------------------------------------------------------------------------


def promtool(*arguments: str | Path, given: bytes = b"") -> str:
    """What promtool says; it must be content."""
    ran = subprocess.run(
        [program("promtool"), *map(str, arguments)], input=given, capture_output=True, check=False, timeout=120
    )
    said = (ran.stdout + ran.stderr).decode()
    assert ran.returncode == 0, said
    return said


def test_promtool_finds_the_metrics_well_named(site: Site) -> None:
    """Names, units and texts are as is usual for Prometheus."""
    assert promtool("check", "metrics", given=generate_latest(site.registry)) == ""


def test_promtool_finds_the_rules_valid() -> None:
    """The file can be named in the configuration of Prometheus as it is."""
    assert f"{len(ALERTS)} rules found" in promtool(
        "check", "rules", "--lint=all", "--lint-fatal", MONITORING / "alerts.yaml"
    )


class Case(NamedTuple):
    """Series that make an alert fire, or not: the labels, and the values minute by minute, in the notation of promtool."""

    alert: str
    minutes: int
    series: dict[str, str]


def decided(verdict: str) -> str:
    return f'ratelimited_notify_decisions_total{{job="shop", instance="a", type="news", verdict="{verdict}", rule=""}}'


def delivered(status: str) -> str:
    return f'ratelimited_notify_deliveries_total{{job="shop", instance="a", type="news", status="{status}"}}'


ERRORS = 'ratelimited_notify_storage_errors_total{job="shop", instance="a", backend="redis", policy="allow"}'
CIRCUIT = 'ratelimited_notify_circuit_open{job="shop", instance="a", server="redis.example.com:6379"}'
REJECTED = 'ratelimited_notify_rules_rejected_total{job="shop", instance="a"}'
LOADED = 'ratelimited_notify_rules_loaded_timestamp_seconds{job="shop", instance="a"}'

FIRING = [
    Case("NotificationsFailedOpen", 12, {decided("failed_open"): "0+0x10 1+0x20"}),
    Case("NotificationsFailedClosed", 12, {decided("failed_closed"): "0+0x10 1+0x20"}),
    Case("NotificationStorageErrors", 25, {ERRORS: "0+0x5 0+2x20"}),
    Case("NotificationStorageCircuitOpen", 12, {CIRCUIT: "0+0x9 1+0x20"}),
    Case("NotificationRulesRejected", 20, {REJECTED: "0+0x5 0+1x20"}),
    Case("NotificationRulesStale", 180, {REJECTED: "0+0x5 0+1x200", LOADED: "1+0x200"}),
    Case("NotificationsSuppressed", 60, {delivered("sent"): "0+1x90", delivered("suppressed"): "0+9x90"}),
    Case("NotificationDeliveriesFailing", 30, {delivered("sent"): "0+4x60", delivered("failed"): "0+1x60"}),
]
QUIET = [
    Case("NotificationsFailedOpen", 12, {decided("failed_open"): "1+0x30", decided("allowed"): "0+5x30"}),
    # Long over.
    Case("NotificationsFailedOpen", 20, {decided("failed_open"): "0+0x10 1+0x20"}),
    Case("NotificationsFailedClosed", 12, {decided("failed_closed"): "0+0x30", decided("failed_open"): "0+5x30"}),
    # A single one.
    Case("NotificationStorageErrors", 15, {ERRORS: "0+0x10 1+0x20"}),
    # It closes at once.
    Case("NotificationStorageCircuitOpen", 12, {CIRCUIT: "0+0x11 1+0x0 0+0x20"}),
    Case("NotificationStorageCircuitOpen", 30, {CIRCUIT: "0+0x9 1+0x10 0+0x20"}),
    Case("NotificationRulesRejected", 25, {REJECTED: "0+0x5 1+0x60"}),
    # Loaded again and again.
    Case("NotificationRulesStale", 180, {REJECTED: "0+1x200", LOADED: "0+60x200"}),
    # Rejected once, a long time ago.
    Case("NotificationRulesStale", 180, {REJECTED: "0+0x5 1+0x200", LOADED: "1+0x200"}),
    Case("NotificationsSuppressed", 60, {delivered("sent"): "0+6x90", delivered("suppressed"): "0+5x90"}),
    # Too few to say.
    Case("NotificationsSuppressed", 60, {delivered("sent"): "0+0x90", delivered("suppressed"): "0+1x90"}),
    Case("NotificationDeliveriesFailing", 30, {delivered("sent"): "0+20x60", delivered("failed"): "0+1x60"}),
    # What is refused is not tried.
    Case("NotificationDeliveriesFailing", 30, {delivered("sent"): "0+0x60", delivered("suppressed"): "0+9x60"}),
]


def test_each_alert_is_tried() -> None:
    """Each alert has a case in which it fires, and one in which it does not."""
    assert {case.alert for case in FIRING} == {case.alert for case in QUIET} == ALERTS.keys()


@pytest.mark.parametrize("fires", [True, False], ids=["firing", "quiet"])
def test_alerts_fire_when_they_should(fires: bool, tmp_path: Path) -> None:
    """Each alert fires when something is wrong, and only then."""
    tests = []
    for case in FIRING if fires else QUIET:
        expected = {"labels": f'{{alertname="{case.alert}"}}', "value": 1}
        expression = {
            "expr": f'count by (alertname) (ALERTS{{alertname="{case.alert}", alertstate="firing"}})',
            "eval_time": f"{case.minutes}m",
            "exp_samples": [expected] if fires else [],
        }
        tests.append(
            {
                "name": f"{case}",
                "interval": "1m",
                "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
                "promql_expr_test": [expression],
            }
        )
    # JSON is YAML.
    file = tmp_path / "tests.yaml"
    file.write_text(
        json.dumps({"rule_files": [str(MONITORING / "alerts.yaml")], "evaluation_interval": "1m", "tests": tests})
    )

    assert "SUCCESS" in promtool("test", "rules", file)


# --- The dashboard as a document -------------------------------------------------------------------------------------


def test_panels_are_of_few_kinds() -> None:
    """Those that every Grafana has."""
    assert {panel["type"] for panel in DASHBOARD["panels"]} == {"timeseries", "stat", "table"}


def test_the_data_source_is_a_variable() -> None:
    """The dashboard works with whatever name the data source has."""
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    sources = [
        *(panel["datasource"] for panel in DASHBOARD["panels"]),
        *(target["datasource"] for panel in DASHBOARD["panels"] for target in panel["targets"]),
        *(variables[name]["datasource"] for name in ("job", "type")),
    ]

    assert variables["datasource"]["query"] == "prometheus"
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_every_panel_says_what_it_shows() -> None:
    """A title of its own, a description, a unit."""
    panels = DASHBOARD["panels"]

    assert len({panel["title"] for panel in panels}) == len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in panels)


def test_panels_lie_beside_each_other() -> None:
    """No panel covers another one, and none is wider than the page."""
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in DASHBOARD["panels"]):
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
