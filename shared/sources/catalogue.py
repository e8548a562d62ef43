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

# What the calls of one record may repeat together: 10,000 spans of a megabyte are gigabytes where
# each has their whole resource.
MAX_COPIED_BYTES = 64 * 2**20

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
    when the record is read again. A record that cannot be read at all, or not be taken apart in
    memory, is one refusal.
    """
    result = Sorted()
    copies = _Copies(value)
    try:
        for item in ADAPTERS[format](value, origin):
            if isinstance(item, Refused):
                result.lost.append(Lost(item.error, copies.of(item)))
            elif isinstance(item, Skipped):
                result.skipped.append(item.why)
            else:
                _offer(item, readers, copies, result)
    except Unusable as error:
        return Sorted(lost=[Lost(error, value)], unreadable=error)
    return result


class _Copies:
    """Reduces a record to its calls, one by one, while their sum is what memory bears."""

    def __init__(self, value: bytes) -> None:
        self._left = len(value) + MAX_COPIED_BYTES

    def of(self, item: Call | Refused) -> bytes:
        """Raises Unusable, which is of the whole record."""
        fragment = item.fragment()
        self._left -= len(fragment)
        if self._left < 0:
            raise Unusable(
                f"its calls, each with all it shares with others, are {MAX_COPIED_BYTES} bytes "
                "larger than the record: export smaller batches, or smaller resources"
            )
        return fragment


def _offer(call: Call, readers: Sequence[Reader], copies: _Copies, result: Sorted) -> None:
    made: dict[str, RawTrace | Unusable] = {}
    for reader in readers:
        if reader.task in made:
            continue
        try:
            if reader.takes(call):
                made[reader.task] = reader.trace(call)
        except Unusable as error:
            made[reader.task] = error
    if not made:
        result.skipped.append("a call of no task: no mapping's `where` holds")
        return
    fragment = copies.of(call)
    for task, each in made.items():
        if isinstance(each, Unusable):
            result.lost.append(Lost(each, fragment, task, call.id))
        else:
            result.taken.append(Taken(each, fragment))


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
