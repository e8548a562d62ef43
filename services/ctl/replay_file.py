"""A file of traces into the raw topic, with their event times."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from services.ctl.environment import environment
from services.ctl.files import FIT_SPLITS, InvalidFile, Row, read_rows
from services.ctl.output import console, fail, print_json, progress
from shared.bus.base import Record
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka import KafkaPublisher
from shared.contracts.tasks import InvalidTasks, load_tasks
from shared.contracts.topics import Topic
from shared.settings import ServiceSettings

BATCH = 1_000
_PASSED_ON = ("occurred_at", "model", "tokens", "cost", "metadata")


def publish_file(file: Path, *, task: str, days: int, start: datetime | None, json: bool) -> None:
    """Publish a file's traces to `traces.raw`. Rows of `split: test` are left out; undated rows are
    spread over `days` from `start` on."""
    settings = environment()
    _check_task(settings, task)
    try:
        rows = [row for row in read_rows(file) if row.split in FIT_SPLITS]
    except InvalidFile as error:
        fail(str(error))
    if not rows:
        fail(f"{file}: no traces to publish (rows of `split: test` are left out)")
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first = start.replace(tzinfo=UTC) if start else today - timedelta(days=days)
    topic = settings.topic(Topic.TRACES_RAW)
    records = (
        Record(topic, row.id.encode(), jsonlib.dumps(trace).encode())
        for row, trace in zip(rows, _traces(rows, task, first, days), strict=True)
    )
    publisher = KafkaPublisher(bootstrap=settings.bootstrap_servers, client_config=settings.kafka)
    sent = 0
    try:
        with progress() as bar:
            shown = bar.add_task("publishing", total=len(rows))
            while batch := list(islice(records, BATCH)):
                publisher.publish(batch)
                sent += len(batch)
                bar.advance(shown, len(batch))
    except (Retryable, Fatal) as error:
        fail(f"{error}; {sent} of {len(rows)} traces were published (repeats are dropped by id)")
    finally:
        publisher.close()
    if json:
        print_json({"file": str(file), "task": task, "topic": topic, "published": sent})
    else:
        console.print(f"{sent} traces published to {topic}.")


def _check_task(settings: ServiceSettings, task: str) -> None:
    """A task ingest does not know would send every trace to the dead letters."""
    if not settings.tasks.exists():
        return  # the services' own, elsewhere
    try:
        known = load_tasks(settings.tasks)
    except InvalidTasks as error:
        fail(str(error))
    if task not in known:
        fail(f"--task {task}: not in {settings.tasks}; it has {', '.join(sorted(known))}", code=2)


def _traces(rows: list[Row], task: str, first: datetime, days: int) -> Iterator[dict[str, Any]]:
    """Rows as raw traces; those without `occurred_at` are spread evenly over the days."""
    for i, row in enumerate(rows):
        trace: dict[str, Any] = {
            "id": row.id,
            "task": task,
            "input": row.texts[0] if len(row.texts) == 1 else list(row.texts),
            "teacher": row.teacher,
            "occurred_at": (first + timedelta(days=days * i / len(rows))).isoformat(),
        }
        trace |= {f: row.raw[f] for f in _PASSED_ON if row.raw.get(f) is not None}
        if "teacher" in row.raw and isinstance(row.raw.get("label"), str):
            trace["label"] = row.raw["label"]
        if "teacher_model" in row.raw:
            trace.setdefault("model", row.raw["teacher_model"])
        yield trace
