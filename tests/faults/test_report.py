"""What a run comes to, in words and in verdicts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults import report
from tests.faults.meter import Sample, _cpu_seconds, _resident, percentile
from tests.faults.verdict import steady


def samples(**grown: int) -> list[Sample]:
    """Thirty looks; `grown` bytes a look are added to the memory of a process."""
    return [
        Sample(
            at=5.0 * i, sent=100 * i, decided=100 * i, lag={"router": 3},
            memory={name: 100_000_000 + by * i for name, by in grown.items()},
            latency={"surrogate": [10.0, 20.0, 30.0]}, cpu=dict.fromkeys(grown, 7.0 + 2.0 * i),
        )
        for i in range(30)
    ]  # fmt: skip


def test_a_leak_is_seen_and_a_flat_line_is_flat() -> None:
    assert steady(samples(router=0), 20.0)["memory_flat"]
    assert not steady(samples(router=0, teacher=1_000_000), 20.0)["memory_flat"]


def test_cpu_is_in_cores() -> None:
    assert steady(samples(router=0), 20.0)["cores"] == {"router": 0.4}


def test_cpu_and_memory_are_those_of_the_process() -> None:
    began = _cpu_seconds(os.getpid())
    assert began > 0
    deadline = began + 0.05
    while _cpu_seconds(os.getpid()) < deadline:
        sum(range(10_000))
    assert 1_000_000 < _resident(os.getpid()) < 10**11
    assert _cpu_seconds(2**22 + 1) == _resident(2**22 + 1) == 0


def test_growing_lag_and_latency_are_seen() -> None:
    rows = samples(router=0)
    figures = steady(rows, 20.0)
    assert figures["lag_flat"]
    assert figures["latency_stable"]
    for i, row in enumerate(rows):
        row.lag["router"] = 50 * i
        row.latency["surrogate"] = [float(i**3)]
    figures = steady(rows, 20.0)
    assert not figures["lag_flat"]
    assert not figures["latency_stable"]


@pytest.mark.parametrize(("share", "found"), [(0.5, 3.0), (0.99, 4.0), (0.0, 1.0)])
def test_percentiles(share: float, found: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], share) == found
    assert percentile([], share) is None


def test_the_figures_are_written_where_the_document_has_a_place_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "reliability.md"
    document.write_text(report.DOCUMENT.read_text())
    monkeypatch.setattr(report, "DOCUMENT", document)
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    report.write(
        {
            "seed": "1", "schedules": 2, "seconds": 60.0, "faults": {"kill": 3, "cut": 1},
            "not_available": {"disk_full": "mount: permission denied"}, "requests": 400,
            "traces": 240, "calls": 99, "events_checked": 12_345, "violations": 0,
            "exits": {"router (1)": 1},
            "settle_seconds_median": 4.0, "settle_seconds_longest": 9.0,
        }
    )  # fmt: skip
    written = document.read_text()
    assert "| events checked | 12,345 |" in written
    assert "| faults | 4 |" in written
    assert "not available: mount" in written
    calm = steady(samples(router=0), 20.0)
    report.write_load(
        {
            "capacity": 30.0, "steady": calm, "exits": {},
            "overload": {"rate": 87.0, "seconds": 10.0, "backlog": 600, "recovery_seconds": 20.0,
                         "peak_mb": {"router": 101.0}},
            "requests": {"sent": 1000, "undecided": 0, "decided_twice": 0},
        }
    )  # fmt: skip
    written = document.read_text()
    assert "| p95 of the surrogate's decisions, ms | 30.0 | 30.0 |" in written
    assert "2.9 times capacity left 600 requests waiting in Kafka" in written
    assert (tmp_path / "load.json").exists()
