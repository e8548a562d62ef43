"""Records of source topics: each call in them becomes a raw trace, a dead letter, or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from shared.bus.base import Message
from shared.bus.errors import InvalidMessage, Understood
from shared.contracts.events import RawTrace
from shared.contracts.mapping import Format
from shared.sources.base import NoAnswer
from shared.sources.catalogue import Lost, sort
from shared.sources.reading import Reader

Sources = Mapping[str, tuple[Format, Sequence[Reader]]]
# How many calls of a format were taken, refused or skipped.
Tally = Counter[tuple[str, str]]


def expand(
    message: Message, format: Format, readers: Sequence[Reader], tally: Tally
) -> Iterator[tuple[Message, RawTrace | InvalidMessage | None]]:
    """Each call that is somebody's, with the record reduced to it, or why it cannot be used.

    Calls without an id get their place in the topic, which stays the same when they are read
    again. Calls of no task are counted and passed over: a topic of all spans has many. One None
    stands for all of them, as they could be read.
    """
    origin = f"{message.topic}-{message.partition}-{message.offset}"
    found = sort(message.value, origin, format, readers)
    tally[format.value, "skipped"] += len(found.skipped)
    if found.skipped:
        yield message, None
    for taken in found.taken:
        tally[format.value, "taken"] += 1
        yield replace(message, value=taken.fragment), taken.trace
    for lost in found.lost:
        tally[format.value, "refused"] += 1
        kind = Understood if isinstance(lost.error, NoAnswer) else InvalidMessage
        yield replace(message, value=lost.fragment), kind(told(lost), field=lost.error.field)


def told(lost: Lost) -> str:
    """Why, with the task and the call where they are known."""
    known = [f"task {lost.task}" if lost.task else "", f"call {lost.id[:256]}" if lost.id else ""]
    where = ", ".join(part for part in known if part)
    return f"{where}: {lost.error}" if where else str(lost.error)
