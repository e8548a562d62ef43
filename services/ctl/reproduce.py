"""A published version made again from the topic its traces lay in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pyarrow as pa

from services.ctl.differences import HINTS, first_difference
from shared.admitting import admitted
from shared.bus.base import Message
from shared.bus.errors import InvalidMessage
from shared.contracts.codec import InvalidEvent, decode
from shared.contracts.events import Trace
from shared.contracts.fit_settings import FitSettings
from shared.contracts.manifest import Incremental, Source, window_of
from shared.contracts.tasks import Task
from shared.encoder.base import Encoder
from shared.fitting.artifact import libraries
from shared.fitting.challenger import fit_challenger, state_again
from shared.fitting.horizon import of_one_kind
from shared.fitting.reading import read_horizon
from shared.fitting.refit_state import State
from shared.registry.base import Artifact, CorruptArtifact
from shared.registry.memory import MemoryRegistry
from shared.store.parquet import ROWS_AT_ONCE, SCHEMA, table_of

# Columns whose contents are never shown: people wrote them.
_PERSONAL = frozenset({"input", "metadata"})


@dataclass(frozen=True)
class _Read:
    partition: int
    offset: int
    trace: Trace


@dataclass
class Traces:
    """The traces of one task in a range of the topic, in the order of their offsets, as the trainer
    kept them: `redact` is the task's redactor."""

    task: str
    redact: str | None = None
    _reads: list[_Read] = field(default_factory=list)

    def add(self, messages: Iterable[Message]) -> int:
        """Keep the task's; what is no trace the trainer has rejected, too. How many were kept."""
        kept = 0
        for message in messages:
            try:
                trace = decode(message.value, Trace)
                if trace.task != self.task:
                    continue
                trace = admitted(trace, self.redact)
            except (InvalidEvent, InvalidMessage):
                continue
            self._reads.append(_Read(message.partition, message.offset, trace))
            kept += 1
        return kept

    def of(self, window: date, source: Source, settings: FitSettings) -> Days:
        """Those a fit was made of: of each day in its source, by its time zone's clock, the ones
        before its offsets. Without a source: all of its horizon."""
        zone, days = ZoneInfo(settings.timezone), dict[date, list[_Read]]()
        for read in self._reads:
            days.setdefault(read.trace.occurred_at.astimezone(zone).date(), []).append(read)
        found = {}
        for day in sorted(days):
            if not 0 <= (window - day).days < settings.horizon_days:
                continue
            reach = source.get(day.isoformat())
            if reach is None and source:
                continue  # not a day of the fit: its first traces came later
            found[day] = table_of(_once(days[day], reach))
        return Days(found)


@dataclass(frozen=True)
class Days:
    """Traces by day, as `shared.fitting.reading` reads them; columns as in the window store."""

    tables: Mapping[date, pa.Table]

    def days(self, task: str) -> list[date]:
        return sorted(self.tables)

    def scan(self, task: str, day: date, columns: Sequence[str]) -> Iterator[pa.Table]:
        for batch in self.tables[day].select(list(columns)).to_batches(ROWS_AT_ONCE):
            yield pa.Table.from_batches([batch])

    def whole(self) -> pa.Table:
        tables = [self.tables[day] for day in sorted(self.tables)]
        return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


@dataclass(frozen=True)
class Reproduction:
    """What a replay made of one version. difference: the first one, None where there is none.
    again: the version made now, None where nothing was certified."""

    version: str
    difference: str | None
    again: str | None = None
    traces: int = 0

    @property
    def same(self) -> bool:
        return self.difference is None


def reproduce(
    artifact: Artifact,
    traces: Traces,
    settings: FitSettings,
    encoder: Encoder,
    *,
    jobs: int,
    stored: pa.Table | None = None,
) -> Reproduction:
    """Fit as the version was fitted, publish into a registry of its own, and compare the bytes.

    `stored`: the window store's traces of the version's days, to name the first that differs.
    """
    manifest, version = artifact.manifest, artifact.version
    if manifest.encoder != encoder.digest:
        return Reproduction(
            version,
            f"encoder: {manifest.encoder[:12]} then, {encoder.digest[:12]} now; name it with "
            "--encoder",
        )
    task, window = settings.task(manifest.task), date.fromisoformat(manifest.window)
    state = None
    if manifest.incremental is not None:
        state = _state(manifest.incremental, traces, task, settings, encoder, jobs=jobs)
        if state is None or state.digest != manifest.incremental.state:
            return Reproduction(version, _other_state(artifact, manifest.incremental, state))
    days = traces.of(window, manifest.source, settings)
    table = days.whole()
    horizon, _ = of_one_kind(read_horizon(days, task, window))
    challenger = fit_challenger(
        task, window, horizon, encoder,
        jobs=jobs, source=manifest.source, state=state,
    )  # fmt: skip
    if challenger.artifact is None:
        why = _of_traces(table, stored) or f"nothing was certified now: {challenger.reason}"
        return Reproduction(version, why, traces=len(horizon))
    made = _published(challenger.artifact)
    difference = first_difference(artifact, made)
    if difference is not None and made.manifest.traces_sha256 != manifest.traces_sha256:
        difference = _of_traces(table, stored) or difference
    return Reproduction(version, difference, made.version, len(horizon))


def _state(
    note: Incremental, traces: Traces, task: Task, settings: FitSettings, encoder: Encoder,
    *, jobs: int,
) -> State | None:  # fmt: skip
    """What the full fit before an incremental one left, made again."""
    window = date.fromisoformat(window_of(note.since))
    days = traces.of(window, note.source, settings)
    horizon, _ = of_one_kind(read_horizon(days, task, window))
    return state_again(task, note, horizon, encoder, jobs=jobs)


def _other_state(artifact: Artifact, note: Incremental, state: State | None) -> str:
    """Why an incremental refit cannot be made again."""
    then = artifact.manifest.libraries
    now = libraries()
    for name in sorted(then):  # all libraries of then, as the state was made with the same
        if then[name] != now.get(name):
            return f"libraries.{name}: {then[name]} then, {now.get(name)} now" + HINTS["libraries"]
    made = "none" if state is None else state.digest[:12]
    return (
        f"incremental.state: {note.state[:12]} then, {made} now: the full refit {note.since} that "
        "it went on from cannot be made again from these traces; replay that version to see why"
    )


def _published(artifact: Artifact) -> Artifact:
    """As a registry with nothing else in it gives it back."""
    registry, task = MemoryRegistry(), artifact.manifest.task
    registry.publish(artifact, fence=registry.acquire(task), at=datetime.now(UTC), reason="replay")
    version = registry.active(task).version
    if version is None:
        raise CorruptArtifact("the registry took the replayed artifact for another task's")
    return registry.load(task, version)


def _of_traces(now: pa.Table, then: pa.Table | None) -> str | None:
    """The first trace that the topic and the store do not have alike."""
    if then is None:
        return None
    rows = (
        sorted(table.to_pylist(), key=lambda row: (row["occurred_at"], row["id"]))
        for table in (then, now)
    )
    for number, (was, became) in enumerate(_pairs(*rows)):
        if was == became:
            continue
        if was is None or became is None or was["id"] != became["id"]:
            there, here = (row["id"] if row else "none" for row in (was, became))
            return f"traces, row {number}: {there} in the store, {here} in the topic"
        name = next(name for name in SCHEMA.names if was[name] != became[name])
        where = f"traces, row {number} ({was['id']}), {name}: "
        if name in _PERSONAL:
            return where + "another one in the topic than in the store; was `redact` changed?"
        return where + f"{was[name]!r} in the store, {became[name]!r} in the topic"
    return None


def _pairs(
    then: list[dict[str, object]], now: list[dict[str, object]]
) -> Iterator[tuple[dict[str, object] | None, dict[str, object] | None]]:
    for i in range(max(len(then), len(now))):
        yield (then[i] if i < len(then) else None), (now[i] if i < len(now) else None)


def _once(reads: list[_Read], reach: dict[str, int] | None) -> Iterator[Trace]:
    """Each id once, as the store keeps it: the first."""
    seen = set()
    for read in reads:
        inside = reach is None or read.offset < reach.get(str(read.partition), 0)
        if inside and read.trace.id not in seen:
            seen.add(read.trace.id)
            yield read.trace
