"""The checker finds nothing in a world that is in order, and whatever is broken in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.faults.checker import LAWS, check
from tests.faults.evidence import Active, At, Called, Evidence, Seen, Windows, flaw_of


def record(topic: str, offset: int, letter: tuple[At, str, str] | None = None, **body: Any) -> Seen:
    digest = str(body.get("id", body.get("request_id", topic))).encode()
    return Seen((topic, 0, offset), {"task": "t", **body}, digest, letter)


def world() -> Evidence:
    """r1 was handled, r2 deferred and answered, r3 audited, r4 waits for the teacher, r5 for a
    router; bad-6 was rejected. l1 is a log's trace in a window, l2 one in an open window.
    At a door d1 was handled, d2 at the second attempt, d3 deferred, and d4 never got through."""
    evidence = Evidence()
    put = evidence.records
    put["requests"] = [record("requests", i, id=f"r{i}") for i in range(1, 5)]
    put["requests"] += [record("requests", 6, id="bad-6"), record("requests", 7, id="r5")]
    put["decisions"] = [
        record("decisions", 1, request_id="r1", outcome="handled", version="v"),
        record("decisions", 2, request_id="r2", outcome="deferred"),
        record("decisions", 3, request_id="r3", outcome="audited", version="v"),
    ]
    put["deferred"] = [
        record("deferred", 1, request={"id": "r2", "task": "t"}, outcome="deferred"),
        record("deferred", 2, request={"id": "r3", "task": "t"}, outcome="audited"),
        record("deferred", 3, request={"id": "r4", "task": "t"}, outcome="deferred"),
    ]
    put["traces.raw"] = [
        record("traces.raw", 1, id="r2", source="deferred"),
        record("traces.raw", 2, id="r3", source="audited"),
        record("traces.raw", 3, id="l1", source="log"),
        record("traces.raw", 4, id="l2", source="log"),
        record("traces.raw", 5, id="l2", source="log"),
        record("traces.raw", 6, id="l3", source="log"),
    ]
    put["traces"] = [
        record("traces", i, id=name) for i, name in enumerate(("r2", "r3", "l1", "l2"), start=1)
    ]
    put["models"] = [record("models", 1, version="v", kind="published", agreement_lower=0.95)]
    put["dead-letters"] = [
        record("dead-letters", 1, letter=(("requests", 0, 6), "blank", "router"), id="bad-6")
    ]
    evidence.stored = {("t", "r2"), ("t", "r3"), ("t", "l1")}
    evidence.committed = {
        "router": {0: 7}, "teacher": {0: 3}, "ingest": {0: 6}, "trainer": {0: 4}
    }  # fmt: skip
    evidence.active = {"t": Active("v")}
    evidence.acknowledged = {("requests", 0, 1), ("traces.raw", 0, 4)}
    put["decisions"] += [
        record("decisions", 4, request_id="d1", outcome="handled", version="v"),
        record("decisions", 5, request_id="d2", outcome="handled", version="v"),
        record("decisions", 6, request_id="d2", outcome="handled", version="v"),
        record("decisions", 7, request_id="d3", outcome="deferred"),
    ]
    put["deferred"].append(
        record("deferred", 0, request={"id": "d3", "task": "t"}, outcome="deferred")
    )
    put["traces.raw"].append(record("traces.raw", 0, id="d3", source="deferred"))
    put["traces"].append(record("traces", 0, id="d3"))
    evidence.stored.add(("t", "d3"))
    evidence.called = {
        ("t", "d1"): Called(attempts=1, answers=1),
        ("t", "d2"): Called(attempts=2, answers=1),
        ("t", "d3"): Called(attempts=3, answers=1),
        ("t", "d4"): Called(attempts=5, answers=0),
    }
    return evidence


def without(topic: str, offset: int) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        kept = [seen for seen in evidence.records[topic] if seen.at[2] != offset]
        assert len(kept) < len(evidence.records[topic])
        evidence.records[topic] = kept

    return change


def doubled(topic: str, offset: int) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        first = next(seen for seen in evidence.records[topic] if seen.at[2] == offset)
        evidence.records[topic].append(replace(first, at=(topic, 0, 99)))

    return change


def passed(service: str, offset: int) -> Callable[[Evidence], None]:
    """Its committed offset is ahead of what it has done."""

    def change(evidence: Evidence) -> None:
        evidence.committed[service] = {0: offset}

    return change


def unstored(evidence: Evidence) -> None:
    evidence.stored.discard(("t", "l1"))


def flawed(evidence: Evidence) -> None:
    evidence.active["t"] = Active("v", "its certificate says 0.1 of at least 0.9")


def unannounced(evidence: Evidence) -> None:
    evidence.records["models"].clear()


def mute_letter(evidence: Evidence) -> None:
    evidence.records["dead-letters"][0] = record(
        "dead-letters", 1, letter=(("requests", 0, 6), "", "router"), id="bad-6"
    )


def nameless_letter(evidence: Evidence) -> None:
    evidence.records["dead-letters"].append(record("dead-letters", 2, id="l1"))


def altered_letter(evidence: Evidence) -> None:
    first = evidence.records["dead-letters"][0]
    evidence.records["dead-letters"][0] = replace(first, digest=b"other")


def good_rejected(evidence: Evidence) -> None:
    evidence.records["dead-letters"].append(
        record("dead-letters", 2, letter=(("traces.raw", 0, 3), "why not", "ingest"), id="l1")
    )


def gone(evidence: Evidence) -> None:
    evidence.acknowledged.add(("requests", 0, 42))


def invented(topic: str, **body: Any) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        evidence.records[topic].append(record(topic, 99, **body))

    return change


def test_a_world_in_order() -> None:
    findings = check(world())
    assert findings.violations == []
    assert findings.queued == {"router": 1, "teacher": 1, "ingest": 1, "trainer": 1}
    assert not findings.settled
    assert findings.checked == 35


@pytest.mark.parametrize(
    ("change", "law", "about"),
    [
        (without("decisions", 1), "one decision a request", "r1"),
        (doubled("decisions", 1), "one decision a request", "r1"),
        (doubled("decisions", 2), "one decision a request", "r2"),
        (without("deferred", 1), "one decision a request", "r2"),
        (doubled("deferred", 1), "one decision a request", "r2"),
        (passed("router", 8), "one decision a request", "r5"),
        (invented("decisions", request_id="x", outcome="handled", version="v"),
         "one decision a request", "x"),
        (without("decisions", 4), "every answered call on the topics", "d1"),
        (doubled("decisions", 4), "every answered call on the topics", "d1"),
        (doubled("decisions", 6), "every answered call on the topics", "d2"),
        (without("deferred", 0), "every answered call on the topics", "d3"),
        (doubled("decisions", 7), "every answered call on the topics", "d3"),
        (without("decisions", 7), "every deferral answered or queued", "d3"),
        (without("decisions", 2), "every deferral answered or queued", "r2"),
        (without("traces.raw", 2), "every deferral answered or queued", "r3"),
        (passed("teacher", 4), "every deferral answered or queued", "r4"),
        (without("traces", 3), "every raw trace accepted or rejected", "l1"),
        (passed("ingest", 7), "every raw trace accepted or rejected", "l3"),
        (invented("traces", id="x"), "every raw trace accepted or rejected", "x"),
        (unstored, "every trace in a window", "l1"),
        (passed("trainer", 5), "every trace in a window", "l2"),
        (lambda evidence: evidence.stored.add(("t", "x")), "every trace in a window", "x"),
        (lambda evidence: evidence.doubled.add(("t", "l1")), "every trace in a window", "l1"),
        (flawed, "every version certified", "v"),
        (unannounced, "every version certified", "v"),
        (without("dead-letters", 1), "one decision a request", "bad-6"),
        (doubled("dead-letters", 1), "dead letters explain every rejected", "6"),
        (mute_letter, "dead letters explain every rejected", "6"),
        (nameless_letter, "dead letters explain every rejected", "2"),
        (altered_letter, "dead letters explain every rejected", "6"),
        (good_rejected, "dead letters explain every rejected", "l1"),
        (gone, "what was acknowledged is there", "42"),
    ],
)  # fmt: skip
def test_what_is_broken_is_found(change: Callable[[Evidence], None], law: str, about: str) -> None:
    evidence = world()
    change(evidence)
    found = [violation for violation in check(evidence).violations if violation.law == law]
    assert any(about in violation.about for violation in found)


def test_every_law_is_broken_above() -> None:
    marks = test_what_is_broken_is_found.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {case[1] for case in marks} == set(LAWS)


def test_what_a_day_has_twice_is_seen_whichever_part_it_is_in(tmp_path: Path) -> None:
    def part(day: str, name: str, *ids: str) -> None:
        folder = tmp_path / "task=t" / f"day={day}"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"id": list(ids)}), folder / f"part-{name}.parquet")

    windows, evidence = Windows(tmp_path), Evidence()
    part("2026-01-01", "a", "one", "two")
    part("2026-01-02", "a", "three", "one")  # another day's trace of that name
    windows.look(evidence)
    windows.look(evidence)  # each part is read once
    assert evidence.doubled == set()
    part("2026-01-01", "b", "four", "two")
    part("2026-01-02", "b", "five", "five")
    windows.look(evidence)
    assert evidence.doubled == {("t", "two"), ("t", "five")}
    assert evidence.stored == {("t", name) for name in ("one", "two", "three", "four", "five")}


def test_a_manifest_is_judged_by_its_name_its_task_and_its_certificate() -> None:
    def of(**changed: Any) -> tuple[str, bytes]:
        certificate = {"alpha": 0.9, "agreement_lower": 0.93} | changed
        manifest = json.dumps({"task": "t", "certificate": certificate}).encode()
        return f"2026-01-01-{hashlib.sha256(manifest).hexdigest()[:12]}", manifest

    version, manifest = of()
    assert flaw_of(version, manifest, "t", 0.9) is None
    assert flaw_of(version, None, "t", 0.9) == "it has no manifest"
    assert "not the one" in str(flaw_of(version, manifest + b" ", "t", 0.9))
    assert "made for t" in str(flaw_of(version, manifest, "other", 0.9))
    assert "0.93" in str(flaw_of(version, manifest, "t", 0.95))
    version, manifest = of(agreement_lower=0.85)
    assert "0.85" in str(flaw_of(version, manifest, "t", 0.9))
