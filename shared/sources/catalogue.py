"""Which adapter reads which format, and which task takes which call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shared.contracts.events import RawTrace
from shared.contracts.mapping import OTLP, Format, SourceMapping
from shared.contracts.tasks import Task
from shared.sources.base import Adapter, Call, Refused, Skipped, Unusable
from shared.sources.langfuse import langfuse
from shared.sources.litellm import litellm
from shared.sources.openai_logs import openai_chat
from shared.sources.otlp import otlp_json, otlp_proto
from shared.sources.peer import peer
from shared.sources.reading import Reader
from shared.sources.rows import rows

ADAPTERS: Mapping[Format, Adapter] = {
    Format.OTLP_PROTO: otlp_proto,
    Format.OTLP_JSON: otlp_json,
    Format.LITELLM: litellm,
    Format.OPENAI: openai_chat,
    Format.OPENAI_BATCH: openai_chat,
    Format.LANGFUSE: langfuse,
    Format.JSONL: rows,
    Format.CSV: rows,
    Format.PEER: peer,
}


@dataclass(frozen=True, slots=True)
class Taken:
    """A call that became a trace."""

    trace: RawTrace
    fragment: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """A call of `task` (None: of nobody known) that could not."""

    error: Unusable
    fragment: bytes
    task: str | None = None
    id: str | None = None


@dataclass(slots=True)
class Sorted:
    """What became of the calls of a record: traces, refusals, and why the rest was passed over.

    `unreadable` says why the record is none of its format; it then is the one refusal.
    """

    taken: list[Taken] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    unreadable: Unusable | None = None


def sort(value: bytes, origin: str, format: Format, readers: Sequence[Reader]) -> Sorted:
    """Offer every call of a record to every task's reader; a task takes a call once.

    `origin` names the record's place, for calls without an id of their own; it must be the same
    when the record is read again. A record that cannot be read at all is one refusal.
    """
    result = Sorted()
    try:
        items = ADAPTERS[format](value, origin)
    except Unusable as error:
        result.lost.append(Lost(error, value))
        result.unreadable = error
        return result
    for item in items:
        if isinstance(item, Refused):
            result.lost.append(Lost(item.error, item.fragment))
        elif isinstance(item, Skipped):
            result.skipped.append(item.why)
        else:
            _offer(item, readers, result)
    return result


def _offer(call: Call, readers: Sequence[Reader], result: Sorted) -> None:
    done: set[str] = set()
    for reader in readers:
        if reader.task in done:
            continue
        try:
            if not reader.takes(call):
                continue
            done.add(reader.task)
            result.taken.append(Taken(reader.trace(call), call.fragment))
        except Unusable as error:
            done.add(reader.task)
            result.lost.append(Lost(error, call.fragment, reader.task, call.id))
    if not done:
        result.skipped.append("a call of no task: no mapping's `where` holds")


def readers_of(tasks: Iterable[Task], *formats: Format) -> list[Reader]:
    """The readers of every mapping in one of `formats`. Raises InvalidTasks."""
    return [
        Reader(task, mapping)
        for task in tasks
        for mapping in task.sources
        if mapping.format in formats
    ]


def readers_by_topic(tasks: Iterable[Task]) -> dict[str, tuple[Format, list[Reader]]]:
    """The format and the readers of every topic that a mapping names. Raises InvalidTasks."""
    topics: dict[str, tuple[Format, list[Reader]]] = {}
    for task in tasks:
        for mapping in task.sources:
            if mapping.topic is not None:
                _, readers = topics.setdefault(mapping.topic, (mapping.format, []))
                readers.append(Reader(task, mapping))
    return topics


def default_reader(task: Task, format: Format) -> Reader:
    """For a file of calls that are all the task's, without a mapping in the tasks file."""
    return Reader(task, SourceMapping(format=format))


def door_readers(tasks: Iterable[Task]) -> dict[Format, list[Reader]]:
    """Whom ingest's own door offers what it is sent, by its format: spans go to every OTLP mapping,
    whatever the encoding. Raises InvalidTasks."""
    known = list(tasks)
    spans = readers_of(known, *OTLP)
    return {
        Format.OTLP_PROTO: spans,
        Format.OTLP_JSON: spans,
        Format.PEER: readers_of(known, Format.PEER),
    }
