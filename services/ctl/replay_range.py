"""The audit: read a range of `traces`, make the versions of its days again, say what differs."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import typer

from services.ctl.output import console, fail, print_json, print_table, progress
from services.ctl.paths import cache_folder
from services.ctl.registry_access import open_registry
from services.ctl.reproduce import Reproduction, Traces, reproduce
from services.ctl.tasks_file import task_in
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka_range import RangeReader, TopicRange
from shared.contracts.fit_settings import FitSettings
from shared.contracts.manifest import Manifest
from shared.contracts.tasks import Task
from shared.contracts.topics import Topic
from shared.encoder.default import ensure_default_encoder
from shared.encoder.errors import EncoderError
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.registry.base import Artifact, CorruptArtifact, Registry
from shared.settings import ServiceSettings
from shared.store.parquet import WindowStore

_OFFSETS = re.compile(r"\d+:\d+(,\d+:\d+)*")
End = datetime | dict[int, int] | None


@dataclass(frozen=True)
class Ends:
    """Of a range: broker times, or offsets by partition (of those not named all), or open."""

    begin: End
    end: End

    @classmethod
    def parse(cls, begin: str | None, end: str | None) -> Ends:
        """Ends the command for what is neither a time nor offsets."""
        return cls(_end("--from", begin), _end("--to", end))

    def of(self, reader: RangeReader, topic: str) -> TopicRange:
        """Raises Retryable or Fatal."""
        since = self.begin if isinstance(self.begin, datetime) else None
        until = self.end if isinstance(self.end, datetime) else None
        found = reader.between(topic, since, until)
        start, stop = dict(found.start), dict(found.end)
        for named, kept in ((self.begin, start), (self.end, stop)):
            if isinstance(named, dict):
                strangers = sorted(set(named) - set(kept))
                if strangers:
                    fail(f"{topic} has no partition {strangers[0]}; it has {len(kept)}", code=2)
                kept.update(named)
        whole = reader.whole(topic)
        stop = {p: min(offset, whole.end[p]) for p, offset in stop.items()}
        return TopicRange(topic, start, stop)


def replay_range(
    ends: Ends, *, task: str, version: str | None, store: str | None, folder: Path | None,
    json: bool,
) -> None:  # fmt: skip
    """Exit code 0: everything that could be compared is the same, and there was something."""
    with open_registry() as (registry, settings):
        artifacts = _artifacts(registry, task, version)
        # Its redactor, and what manifests do not say of how they were fitted.
        configured = task_in(settings.tasks, task)
    if not artifacts:
        fail(f"{task} has no stored version to compare with; see `tracerctl models list {task}`")
    read, found = _read(settings, ends, configured)
    try:
        encoder = OnnxEncoder(folder or ensure_default_encoder(cache_folder() / "encoder"))
    except EncoderError as error:
        fail(str(error))
    done: list[Reproduction] = []
    outside: list[str] = []
    with progress() as bar:
        shown = bar.add_task("fitting", total=len(artifacts))
        for artifact in artifacts:
            why = _uncovered(artifact.manifest, found)
            if why is not None:
                outside.append(f"{artifact.version}: {why}")
            else:
                how = artifact.manifest.settings or FitSettings.of(configured)
                stored = _stored(store, artifact.manifest, how)
                # No cache of embeddings: an audit trusts none.
                made = reproduce(artifact, read, how, encoder, jobs=1, stored=stored)
                done.append(made)
            bar.advance(shown)
    _tell(task, found, done, outside, json=json)
    if not done or not all(made.same for made in done):
        raise typer.Exit(1)


def _artifacts(registry: Registry, task: str, version: str | None) -> list[Artifact]:
    """Oldest window first. A damaged one ends the command: that is a difference, too."""
    try:
        return [registry.load(task, v) for v in ([version] if version else registry.versions(task))]
    except CorruptArtifact as error:
        fail(f"what is stored is not what was published: {error}")


def _read(settings: ServiceSettings, ends: Ends, task: Task) -> tuple[Traces, TopicRange]:
    traces = Traces(task.name, task.redact)
    reader = RangeReader(bootstrap=settings.bootstrap_servers, client_config=settings.kafka)
    try:
        found = ends.of(reader, settings.topic(Topic.TRACES))
        with progress() as bar:
            shown = bar.add_task("reading", total=len(found))

            def counted() -> Any:
                for message in reader.read(found):
                    bar.advance(shown)
                    yield message

            traces.add(counted())
    except (Retryable, Fatal) as error:
        fail(f"{error}; is TRACER_BOOTSTRAP_SERVERS right?")
    finally:
        reader.close()
    return traces, found


def _uncovered(manifest: Manifest, found: TopicRange) -> str | None:
    """Why the range cannot hold what the fit was made of, as far as offsets tell."""
    read = list(manifest.source.items())
    if manifest.incremental is not None:  # the full fit before it is made again, too
        read += manifest.incremental.source.items()
    for day, reach in sorted(read, key=lambda one: one[0]):
        for partition, offset in sorted(reach.items()):
            if offset > found.end.get(int(partition), 0):
                return (
                    f"{day} was read up to offset {offset} of partition {partition}, the range "
                    f"ends at {found.end.get(int(partition), 0)}; choose a later --to"
                )
            if offset <= found.start.get(int(partition), 0):
                return (
                    f"{day} was read before offset {offset} of partition {partition}, the range "
                    f"begins at {found.start[int(partition)]}; choose an earlier --from"
                )
    return None


def _stored(url: str | None, manifest: Manifest, how: FitSettings) -> pa.Table | None:
    """The store's traces of the version's days, where there is a store."""
    if url is None or ("://" not in url and not Path(url).is_dir()):
        return None
    window = date.fromisoformat(manifest.window)
    try:
        store = WindowStore(url)
        days = [d for d in store.days(manifest.task) if 0 <= (window - d).days < how.horizon_days]
        if manifest.source:
            days = [d for d in days if d.isoformat() in manifest.source]
        return store.read(manifest.task, days)
    except (OSError, ValueError) as error:  # ValueError: an address of no file system
        fail(f"--store {url}: {error}")


def _tell(
    task: str, found: TopicRange, done: list[Reproduction], outside: list[str], *, json: bool
) -> None:
    if json:
        print_json(
            {
                "task": task,
                "range": asdict(found),
                "same": bool(done) and all(made.same for made in done),
                "versions": [asdict(made) | {"same": made.same} for made in done],
                "not_compared": outside,
            }
        )
        return
    if done:
        print_table(
            f"{task}, made again from {found.topic}",
            ["version", "traces", "result"],
            [(d.version, d.traces, "the same, byte for byte" if d.same else "differs")
             for d in done],
        )  # fmt: skip
    for made in done:
        if not made.same:
            console.print(f"{made.version} differs first in {made.difference}.")
    for why in outside:
        console.print(f"Not compared: {why}.")
    if not done:
        console.print("Nothing could be compared.")


def _end(option: str, text: str | None) -> End:
    if text is None:
        return None
    if _OFFSETS.fullmatch(text):
        return {int(p): int(o) for p, o in (part.split(":") for part in text.split(","))}
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{option} {text}: neither a time (2026-11-25T00:00) nor offsets (0:120,1:98)", code=2)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
