"""Dashboard, alerts, scrape config and runbook speak of what there is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from services.ingest.stream import _LONGEST_BACKOFF_SECONDS
from services.trainer.worker import LONGEST_PAUSE
from shared.bus.retry import Backoff
from shared.telemetry import metrics

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/tracer.json").read_text())
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
SCRAPING = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
# Labels that scraping adds.
SCRAPED = {"le", "instance", "job"}


def series() -> dict[str, set[str]]:
    """Every name that can be asked for, and the labels it has."""
    found = {}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
            for end in ends.get(metric._type, [""]):
                found[metric._name + end] = set(metric._labelnames)
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]


def named(expression: str) -> set[str]:
    return set(re.findall(r"\btracer_[a-z_]+", expression))


@pytest.mark.parametrize(
    "expression", [e for _, e in expressions()], ids=[name for name, _ in expressions()]
)
def test_an_expression_asks_for_what_is_exported(expression: str) -> None:
    known = series()
    names = named(expression)
    assert names <= set(known)
    labels = SCRAPED.union(*(known[name] for name in names))
    grouped = re.findall(r"\bby \(([^)]*)\)", expression)
    asked = {label.strip() for group in grouped for label in group.split(",")}
    asked |= {label for inner in re.findall(r"{([^}]*)}", expression)
              for label in re.findall(r"(\w+)(?:=~|!~|!=|=)\"", inner)}  # fmt: skip
    assert asked <= labels


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for panel in panels() for t in panel["targets"] for name in named(t["expr"])}
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert bases == {re.sub(r"_(bucket|sum|count)$", "", name) for name in series()}


def test_the_dashboards_panels_have_their_own_place() -> None:
    taken = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_dashboard_asks_the_provisioned_source() -> None:
    folder = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in panels()} == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((folder / "dashboards/tracer.yaml").read_text())["providers"]
    mounted = [str(volume).split(":")[1] for volume in COMPOSE["services"]["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/tracer.json" in mounted


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_has_its_section_in_the_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["runbook_url"] == f"runbook.html#{rule['alert'].lower()}"
    section = re.search(rf"^## {rule['alert']}\n(.*?)(?=^## |\Z)", RUNBOOK, re.M | re.S)
    assert section
    for part in ("**Means**", "**Check**", "**Fix**"):
        assert part in section[1]


def test_the_runbook_has_no_section_too_many() -> None:
    assert re.findall(r"^## (Tracer\w+)", RUNBOOK, re.M) == [rule["alert"] for rule in RULES]
    assert named(RUNBOOK) <= set(series())


def test_every_service_of_ours_is_scraped() -> None:
    """Docker's DNS forgets a container that is stopped: what every profile runs is named, so that
    it goes on being a target, which is down."""
    (job,) = SCRAPING["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    (named,) = job["static_configs"]
    built = {
        name: "profiles" in service for name, service in COMPOSE["services"].items()
        if service.get("build", {}).get("target", "ctl") != "ctl"
    }  # fmt: skip
    assert set(found["names"]) == {name for name, optional in built.items() if optional}
    always = {name for name, optional in built.items() if not optional}
    assert set(named["targets"]) == {f"{name}:{found['port']}" for name in always}
    assert f"TRACER_HEALTH_PORT={found['port']}" in (ROOT / "Dockerfile").read_text()
    assert re.fullmatch(r".*tracer.*", job["job_name"])  # TracerDown looks for it


def test_instances_are_called_as_their_services() -> None:
    (job,) = SCRAPING["scrape_configs"]

    def instance(**labels: str) -> str:
        for rule in job["relabel_configs"]:
            (source,) = rule["source_labels"]
            match = re.fullmatch(rule["regex"], labels.get(source, ""))
            if match and rule["target_label"] == "instance":
                labels["instance"] = match[1]
        return labels["instance"]

    assert instance(__address__="router:8080") == "router"
    assert instance(__address__="172.18.0.5:8080", __meta_dns_name="router-2") == "router-2"


def test_observing_is_a_profile_on_this_machine_alone() -> None:
    for name in ("prometheus", "grafana"):
        service = COMPOSE["services"][name]
        assert service["profiles"] == ["observe", "production-small"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool: apt-get install prometheus, or set PROMTOOL"
)
@pytest.mark.parametrize("check", ["rules alerts.yml", "config prometheus.yml"])
def test_promtool_accepts_them(check: str) -> None:
    kind, name = check.split()
    done = subprocess.run(
        [str(PROMTOOL), "check", kind, str(ROOT / "deploy/prometheus" / name)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def holds(
    alert: str, series: dict[str, str], at: str, labels: dict[str, str], value: str, folder: Path
) -> None:
    """That of these series, a value a minute, `alert` is raised at `at` for `labels` and no other.
    Skips without promtool."""
    if PROMTOOL is None:
        pytest.skip("no promtool: apt-get install prometheus, or set PROMTOOL")
    (rule,) = [rule for rule in RULES if rule["alert"] == alert]
    said = re.sub(r"{{ \$labels\.(\w+) }}", lambda m: labels[m[1]], rule["annotations"]["summary"])
    said = re.sub(r"{{ \$value.*? }}", value, said)
    expected = {
        "exp_labels": {"severity": rule["labels"]["severity"], **labels},
        "exp_annotations": {**rule["annotations"], "summary": said},
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": [expected]}],
    }
    file = folder / "test.yml"
    rules = str(ROOT / "deploy/prometheus/alerts.yml")
    file.write_text(yaml.safe_dump({"rule_files": [rules], "tests": [test]}))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", str(file)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_says_which_source_s_calls_are_refused(tmp_path: Path) -> None:
    """On series of an hour: most refused, few refused, nothing said."""
    counts = {
        ("otlp_proto", "taken"): "0+10x60",
        ("otlp_proto", "refused"): "0+30x60",
        ("openai", "taken"): "0+30x60",
        ("openai", "refused"): "0+10x60",
        ("langfuse", "refused"): "7+0x60",
    }
    series = {
        f'tracer_source_calls_total{{format="{f}",result="{r}"}}': values
        for (f, r), values in counts.items()
    }
    holds("TracerCallsRefused", series, "45m", {"format": "otlp_proto"}, "", tmp_path)


def test_one_instance_that_tries_again_and_again_is_told_of(tmp_path: Path) -> None:
    """The teacher waits half a minute between two tries by then; a router had a bad minute."""
    series = {
        'tracer_retries_total{service="teacher"}': "0+2x60",
        'tracer_retries_total{service="router"}': "0x20 9x40",
    }
    holds("TracerRetries", series, "45m", {"service": "teacher"}, "10", tmp_path)


def test_the_longest_pauses_between_retries_are_short_enough_for_the_alert() -> None:
    (rule,) = [rule for rule in RULES if rule["alert"] == "TracerRetries"]
    asked = re.fullmatch(r".*\[(\d+)m\]\)\) > (\d+)", rule["expr"])
    assert asked
    minutes, most = int(asked[1]), int(asked[2])
    longest = max(Backoff().longest, _LONGEST_BACKOFF_SECONDS, LONGEST_PAUSE)
    assert 60 * minutes / longest > most
