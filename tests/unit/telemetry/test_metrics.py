"""The list of metrics is closed, in use, named by convention, and bounded."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from shared.bus.base import Message
from shared.bus.errors import InvalidMessage
from shared.clock import SystemClock
from shared.rejecting import field_label, rejecting
from shared.telemetry import metrics

ROOT = Path(__file__).resolve().parents[3]
LISTED = {
    name: value for name, value in vars(metrics).items() if isinstance(value, MetricWrapperBase)
}
MODULE = "shared.telemetry.metrics"


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for folder in ("services", "shared", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path != ROOT / "shared" / "telemetry" / "metrics.py":
                yield path, ast.parse(path.read_text())


def used(tree: ast.Module) -> Iterator[str]:
    """Names that a module takes from the list, by either way of importing it."""
    by_name, by_module = {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == MODULE:
            by_name |= {alias.asname or alias.name: alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module == "shared.telemetry":
            by_module |= {a.asname or a.name for a in node.names if a.name == "metrics"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in by_name:
            yield by_name[node.id]
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in by_module
        ):
            yield node.attr


def test_every_metric_is_in_use_and_every_used_one_is_listed() -> None:
    found = {name for _, tree in sources() for name in used(tree)}
    assert found == set(LISTED)


def test_nothing_else_makes_a_metric() -> None:
    makers = {"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum"}
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "prometheus_client":
                assert not makers & {alias.name for alias in node.names}, path
            if isinstance(node, ast.Import):
                assert "prometheus_client" not in {alias.name for alias in node.names}, path


@pytest.mark.parametrize("metric", LISTED.values(), ids=list(LISTED))
def test_it_is_named_by_convention_and_says_what_it_is(metric: MetricWrapperBase) -> None:
    """Counters get `_total` from the library; flags need no unit, but say when they are 1."""
    assert re.fullmatch(r"tracer_[a-z]+(_[a-z]+)*", metric._name)
    assert len(metric._documentation) > 8
    assert not metric._documentation.endswith(".")
    if metric._type != "counter" and not metric._documentation.startswith("1 w"):
        units = ("seconds", "ratio", "messages", "requests", "traces", "epoch")
        assert metric._name.endswith(units)


def test_labels_are_those_whose_values_are_few() -> None:
    assert {label for metric in LISTED.values() for label in metric._labelnames} == set(
        metrics.LABELS
    )


def test_what_a_sender_makes_up_is_no_series() -> None:
    reject = rejecting("made-up", "dead-letters", SystemClock())
    for number in range(200):
        error = InvalidMessage("bad", field=f"field_{number}.x[{number}]")
        reject(Message("in", 0, number, b"", b""), error)
    series = [
        sample
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "tracer_dead_letters_total" and sample.labels["service"] == "made-up"
    ]
    assert [(s.labels["field"], s.value) for s in series] == [("other", 200)]


@pytest.mark.parametrize(
    ("field", "label"),
    [
        ("task", "task"),
        ("request.input", "input"),
        ("opinions[3].label", "opinions"),
        ("metadata.password", "metadata"),
        ("", "other"),
        ("request", "request"),
        ("no such", "other"),
    ],
)
def test_a_dead_letter_counts_by_its_field(field: str, label: str) -> None:
    assert field_label(field) == label


def test_promtool_finds_nothing_to_say() -> None:
    """Debian's `prometheus` has it."""
    promtool = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not there: apt-get install prometheus, or set PROMTOOL")
    text = generate_latest(REGISTRY)
    kept = [line for line in text.splitlines() if re.match(rb"(# (HELP|TYPE) )?tracer_", line)]
    done = subprocess.run(
        [promtool, "check", "metrics"], input=b"\n".join(kept) + b"\n",
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    said = [x for x in done.stderr.decode().splitlines() if "_created" not in x]
    assert said == [], done.stdout
