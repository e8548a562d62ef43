"""What ingest does with raw traces; plain functions, no client library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from services.ingest.expanding import Sources, Tally, expand
from shared.bus.base import MAX_RECORD_BYTES, Message, Record
from shared.bus.dead_letters import first_timestamp
from shared.bus.errors import InvalidMessage, Understood
from shared.clock import Clock
from shared.contracts.amounts import check_amounts
from shared.contracts.codec import MAX_EVENT_BYTES, InvalidEvent, decode, encode
from shared.contracts.events import Input, RawTrace, Trace
from shared.contracts.taxonomy import Taxonomy, UnknownLabel
from shared.rejecting import Rejecting
from shared.seen.base import Seen, SeenKey, seen_key
from shared.telemetry.metrics import (
    SOURCE_CALLS,
    TRACES_INGESTED,
    TRACES_REPEATED,
    UNKNOWN_LABELS,
)

SERVICE = "ingest"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMED_TASKS = 20


class Publish(Protocol):
    async def __call__(self, records: Sequence[Record]) -> None:
        """Return once every record is acknowledged. Raises Retryable."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What a raw trace is held to, and where the results go.

    Records of a topic in `sources` are read by its format, those of all others as raw traces.
    """

    taxonomies: Mapping[str, Taxonomy]
    future_tolerance: timedelta
    raw_topic: str
    traces_topic: str
    sources: Sources = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A usable trace and the record it becomes."""

    trace: Trace
    record: Record

    @property
    def key(self) -> SeenKey:
        return seen_key(self.trace.task, self.trace.id)


async def ingest(
    messages: Sequence[Message],
    *,
    rules: Rules,
    seen: Seen,
    publish: Publish,
    reject: Rejecting,
    clock: Clock,
) -> None:
    """Turn one batch of raw traces into traces and dead letters.

    The order of side effects: look up repeats, publish and wait for every acknowledgement, mark
    as seen; the caller then advances the offsets. A crash between any two steps makes the batch
    be read again: traces may repeat, none is lost. Raises Retryable, before anything is marked,
    and Fatal when nothing but dead letters comes out.
    """
    tally: Tally = Counter()
    accepted, rejected = sort(messages, rules=rules, reject=reject, now=clock.now(), tally=tally)
    fresh = await _without_repeats(accepted, seen)
    await publish([*(item.record for item in fresh), *rejected])
    await seen.add([item.key for item in fresh])
    for item in fresh:
        TRACES_INGESTED.labels(task=item.trace.task).inc()
    for (format, result), count in tally.items():
        SOURCE_CALLS.labels(format=format, result=result).inc(count)


def sort(
    messages: Sequence[Message],
    *,
    rules: Rules,
    reject: Rejecting,
    now: datetime,
    tally: Tally | None = None,
) -> tuple[list[Accepted], list[Record]]:
    """The usable traces, and the dead letters of the rest, each in the order of `messages`.

    What became of the calls in records of source topics is added to `tally`.
    """
    counts: Tally = Counter() if tally is None else tally
    accepted: list[Accepted] = []
    rejected: list[Record] = []
    readings = (
        (number, *each)
        for message in messages
        for number, each in enumerate(_read(message, rules, counts))
    )
    for number, part, reading in readings:
        if reading is None:
            reject.accepted(part)
            continue
        try:
            accepted.append(_accept(reading, part, rules=rules, now=now))
        except InvalidMessage as error:
            if isinstance(error, Understood):
                reject.accepted(part)  # before its letter, which begins the row anew
            rejected.append(reject(part, error, number))
        else:
            reject.accepted(part)
    return accepted, rejected


def accept(message: Message, *, rules: Rules, now: datetime) -> Accepted:
    """Validate one raw trace and normalise it. Raises InvalidMessage naming the field."""
    return _accept(_decoded(message), message, rules=rules, now=now)


def _read(
    message: Message, rules: Rules, tally: Tally
) -> Iterator[tuple[Message, RawTrace | InvalidMessage | None]]:
    """What a record holds, with the record reduced to it: one raw trace, or a source's calls; None
    for those that are nobody's."""
    source = rules.sources.get(message.topic)
    if source is not None and message.value:
        yield from expand(message, *source, tally)
    else:
        yield message, _decoded(message)


def _decoded(message: Message) -> RawTrace | InvalidMessage:
    if not message.value:
        return InvalidMessage("the record is empty")
    try:
        return decode(message.value, RawTrace)
    except InvalidEvent as error:
        return InvalidMessage(str(error), field=error.field)


def _accept(
    raw: RawTrace | InvalidMessage, message: Message, *, rules: Rules, now: datetime
) -> Accepted:
    if isinstance(raw, InvalidMessage):
        raise raw
    trace = _normalise(raw, message, rules=rules, now=now)
    record = Record(rules.traces_topic, trace.id.encode(), encode(trace), message.headers)
    if record.size > MAX_RECORD_BYTES or len(record.value) > MAX_EVENT_BYTES:
        raise InvalidMessage(
            f"the trace has {len(record.value)} bytes of at most {MAX_EVENT_BYTES}, its record "
            f"{record.size} of at most {MAX_RECORD_BYTES}"
        )
    return Accepted(trace, record)


def _normalise(raw: RawTrace, message: Message, *, rules: Rules, now: datetime) -> Trace:
    taxonomy = rules.taxonomies.get(raw.task)
    if taxonomy is None:
        raise InvalidMessage(_unknown_task(raw.task, rules.taxonomies), field="task")
    _reject_blank(raw.input)
    if not raw.teacher.strip():
        raise InvalidMessage("the teacher's label is blank", field="teacher")
    check_amounts(raw)
    if taxonomy.find(raw.teacher) is None:
        UNKNOWN_LABELS.labels("ingest", raw.task).inc()
    try:
        teacher = taxonomy.normalise(raw.teacher)
    except UnknownLabel as error:
        raise InvalidMessage(str(error), field="teacher") from error
    # A human's label is kept even if unknown: it is shown beside the teacher's, never learned.
    label = raw.label and (taxonomy.find(raw.label) or raw.label)
    return Trace(
        id=raw.id,
        task=raw.task,
        input=raw.input,
        teacher=teacher,
        occurred_at=_occurred_at(raw, message, now=now, tolerance=rules.future_tolerance),
        teacher_model=raw.model,
        tokens=raw.tokens,
        cost=raw.cost,
        label=label,
        metadata=raw.metadata,
        source=raw.source,
        observation_probability=raw.observation_probability,
        deferral_reason=raw.deferral_reason,
        opinions=raw.opinions,
        drawn=raw.drawn,
        audit_share=raw.audit_share,
        version=raw.version,
        prompt=raw.prompt,
    )


def _occurred_at(
    raw: RawTrace, message: Message, *, now: datetime, tolerance: timedelta
) -> datetime:
    """When the call took place, in UTC: as the trace says, or when the broker first got it."""
    try:
        if raw.occurred_at is not None:
            moment = raw.occurred_at.astimezone(UTC)
        elif (timestamp := first_timestamp(message)) > 0:
            moment = _EPOCH + timedelta(milliseconds=timestamp)
        else:
            moment = now
    except OverflowError as error:
        raise InvalidMessage("the time is out of range", field="occurred_at") from error
    if moment > now + tolerance:
        raise InvalidMessage(
            f"{moment.isoformat()} is more than {tolerance} after now, {now.isoformat()}",
            field="occurred_at",
        )
    return moment


async def _without_repeats(accepted: Sequence[Accepted], seen: Seen) -> list[Accepted]:
    """Those not seen before, in the store or earlier in this batch."""
    known = await seen.contains([item.key for item in accepted])
    fresh: dict[SeenKey, Accepted] = {}
    for item, repeated in zip(accepted, known, strict=True):
        if repeated or item.key in fresh:
            TRACES_REPEATED.labels(task=item.trace.task).inc()
        else:
            fresh[item.key] = item
    return list(fresh.values())


def _reject_blank(text: Input) -> None:
    for part in [text] if isinstance(text, str) else text:
        if not part.strip():
            raise InvalidMessage("the text is blank", field="input")


def _unknown_task(task: str, known: Mapping[str, Taxonomy]) -> str:
    names = sorted(known)
    more = f" and {len(names) - _NAMED_TASKS} more" if len(names) > _NAMED_TASKS else ""
    return f"unknown task {task!r}; known tasks: {', '.join(names[:_NAMED_TASKS])}{more}"
