"""A file of traces into the raw topic, with their event times."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from services.ctl.environment import environment
from services.ctl.files import FIT_SPLITS, InvalidFile, Row, read_rows
from services.ctl.output import console, fail, print_json, progress
from services.ctl.source_files import Report, calls_of, readers_for
from services.ctl.tasks_file import task_in
from shared.admitting import EARLIEST, LATEST
from shared.bus.base import Record
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka import KafkaPublisher
from shared.contracts.events import RawTrace
from shared.contracts.mapping import Format
from shared.contracts.topics import Topic
from shared.settings import ServiceSettings
from shared.sources.files import UnreadableFile

BATCH = 1_000
_WHY = {True: "(rows of `split: test` are left out)", False: "by the task's mapping"}
_PASSED_ON = ("occurred_at", "model", "tokens", "cost", "metadata")


@dataclass(frozen=True)
class SourceFile:
    """A file of another system's log. inputs: openai_batch's other half."""

    format: Format
    inputs: Path | None = None


def publish_file(
    file: Path, *, task: str, source: SourceFile | None, days: int, start: datetime | None,
    json: bool,
) -> None:  # fmt: skip
    """Publish a file's traces to `traces.raw`. Rows of `split: test` are left out; undated rows are
    spread over `days` from `start` on."""
    settings = environment()
    _check_task(settings, task)
    report = Report()
    try:
        if source is None:
            rows = [row for row in read_rows(file) if row.split in FIT_SPLITS]
            found: list[dict[str, Any]] = [_trace(row, task) for row in rows]
        else:
            readers = readers_for(settings.tasks, task, source.format)
            calls = calls_of(file, source.format, readers, report, source.inputs)
            found = [_fields(call.result) for call in calls if isinstance(call.result, RawTrace)]
    except (InvalidFile, UnreadableFile) as error:
        fail(str(error))
    if not found:
        fail(
            "\n".join(
                [
                    f"{file}: no traces to publish {_WHY[source is None]}",
                    *report.lines(),
                ]
            )
        )
    first = _first_day(start, days)
    topic = settings.topic(Topic.TRACES_RAW)
    sent = _publish(settings, topic, _dated(found, first, days), len(found))
    if json:
        result = {"file": str(file), "task": task, "topic": topic, "published": sent}
        if source is not None:
            result |= {"refused": report.refused, "skipped": report.skipped}
            result |= {"reasons": dict(report.reasons)}
        print_json(result)
    else:
        console.print(f"{sent} traces published to {topic}.")
        for line in report.lines():
            console.print(line)


def _publish(
    settings: ServiceSettings, topic: str, traces: Iterator[dict[str, Any]], total: int
) -> int:
    """How many were published; ends the command when not all could be."""
    records = (
        Record(topic, trace["id"].encode(), jsonlib.dumps(trace).encode()) for trace in traces
    )
    publisher = KafkaPublisher(bootstrap=settings.bootstrap_servers, client_config=settings.kafka)
    sent = 0
    try:
        with progress() as bar:
            shown = bar.add_task("publishing", total=total)
            while batch := list(islice(records, BATCH)):
                publisher.publish(batch)
                sent += len(batch)
                bar.advance(shown, len(batch))
    except (Retryable, Fatal) as error:
        fail(f"{error}; {sent} of {total} traces were published (repeats are dropped by id)")
    finally:
        publisher.close()
    return sent


def _first_day(start: datetime | None, days: int) -> datetime:
    """Ends the command where traces would be of days that the trainer refuses."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        first = start.replace(tzinfo=UTC) if start else today - timedelta(days=days)
        last = first + timedelta(days=days)
    except OverflowError:
        first = last = datetime.max
    if not EARLIEST <= first.year <= last.year <= LATEST:
        fail(f"--start, --days: days must lie between the years {EARLIEST} and {LATEST}", code=2)
    return first


def _check_task(settings: ServiceSettings, task: str) -> None:
    """A task ingest does not know would send every trace to the dead letters."""
    if not settings.tasks.exists():
        return  # the services' own, elsewhere
    task_in(settings.tasks, task)


def _trace(row: Row, task: str) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "id": row.id,
        "task": task,
        "input": row.texts[0] if len(row.texts) == 1 else list(row.texts),
        "teacher": row.teacher,
    }
    trace |= {f: row.raw[f] for f in _PASSED_ON if row.raw.get(f) is not None}
    if "teacher" in row.raw and isinstance(row.raw.get("label"), str):
        trace["label"] = row.raw["label"]
    if "teacher_model" in row.raw:
        trace.setdefault("model", row.raw["teacher_model"])
    return trace


def _fields(trace: RawTrace) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(trace)
    return fields


def _dated(traces: list[dict[str, Any]], first: datetime, days: int) -> Iterator[dict[str, Any]]:
    """Those without `occurred_at` are spread evenly over the days."""
    for i, trace in enumerate(traces):
        moment = first + timedelta(days=days * i / len(traces))
        yield {"occurred_at": moment.isoformat(), **trace}
