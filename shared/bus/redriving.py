"""Dead letters as they lie in their topic, and putting them back where they came from.

A re-drive publishes the original key, value and headers to the original topic, with one header
more that counts re-drives. Beside it, in the same transaction, a *marker* goes to the dead-letter
topic: it names the letter's place and who put it back, so that no letter is put back twice, by
whomever and after whatever crash. Without transactions it is written once the original is: what
fails in between is put back twice, but no letter is lost. Markers lie behind their letters in the
same partition, so that retention deletes none before its letter.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from shared.bus.base import Message, Publisher, Record
from shared.bus.dead_letters import read_dead_letter, redrive
from shared.bus.errors import InvalidMessage
from shared.contracts.dead_letters import CONTEXT_HEADERS, DeadLetter
from shared.contracts.tasks import Task
from shared.contracts.topics import Topic

COUNT_HEADER = "tracer.redrives"
MARKER_HEADER = "tracer.redriven"
MARKER_BY = "tracer.redriven.by"
MARKER_AT = "tracer.redriven.at"
# A letter put back so often, and back again, will not get better.
MOST_REDRIVES = 3
_AT_ONCE = 100
_CONTEXT = frozenset(CONTEXT_HEADERS.values())
# What our services read beside the topics of other systems.
_TAKE_BACK = (Topic.TRACES_RAW, Topic.TRACES, Topic.REQUESTS, Topic.DEFERRED)


@dataclass(frozen=True)
class StoredLetter:
    """One dead letter in its topic. redrives: how often the message had been put back before it
    died this time. redriven_by: who has put this letter back, None: nobody has."""

    message: Message
    letter: DeadLetter
    redrives: int = 0
    redriven_by: str | None = None
    redriven_at: str | None = None

    @property
    def place(self) -> str:
        """Its name for people: partition and offset."""
        return _place(self.message)

    @property
    def task(self) -> str | None:
        """Which task the original was of, as far as it can be read."""
        try:
            document: Any = json.loads(self.letter.value)
        except (ValueError, RecursionError):
            return None
        for part in (document, document.get("request") if isinstance(document, dict) else None):
            if isinstance(part, dict) and isinstance(part.get("task"), str):
                return str(part["task"])
        return None


@dataclass(frozen=True)
class Which:
    """Which letters; None, or nothing, leaves a question open. `topics`: from one of these.
    `reason` is part of the error or the message."""

    task: str | None = None
    topics: Collection[str] = ()
    service: str | None = None
    stage: str | None = None
    field: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    places: Collection[str] = ()

    def matches(self, stored: StoredLetter) -> bool:
        letter = stored.letter
        said = f"{letter.error}: {letter.message}".lower()
        return (
            (not self.places or stored.place in self.places)
            and (not self.topics or letter.topic in self.topics)
            and self.service in (None, letter.service)
            and self.stage in (None, letter.stage)
            and self.field in (None, letter.field)
            and (self.reason is None or self.reason.lower() in said)
            and (self.since is None or letter.at >= self.since)
            and (self.until is None or letter.at < self.until)
            and (self.task is None or self.task == stored.task)
        )


def letters_of(
    messages: Iterable[Message], places: Collection[str] | None = None
) -> tuple[list[StoredLetter], int]:
    """The letters of a dead-letter topic, oldest first, knowing which were put back; and how many
    records are neither letter nor marker. `places`: of these letters alone, so that the others
    take no memory; None: of all."""
    letters: list[StoredLetter] = []
    markers: dict[str, tuple[str, str]] = {}
    strangers = 0
    for message in messages:
        headers = dict(message.headers)
        if _is_marker(message):
            by, at = headers.get(MARKER_BY, b""), headers.get(MARKER_AT, b"")
            markers[_text(headers[MARKER_HEADER])] = (_text(by), _text(at))
            continue
        if places is not None and _place(message) not in places:
            continue
        try:
            letter = read_dead_letter(message)
        except InvalidMessage:
            strangers += 1
        else:
            letters.append(StoredLetter(message, letter, _count(letter)))
    known = [_marked(stored, markers.get(stored.place)) for stored in letters]
    return sorted(known, key=lambda s: (s.letter.at, s.place)), strangers


def topics_taking_back(tasks: Iterable[Task], prefix: str) -> list[str]:
    """Topics that messages may be put back to: those that services read. Ours have the
    deployment's prefix, those of the tasks' `sources` are named in full."""
    theirs = {source.topic for task in tasks for source in task.sources if source.topic}
    return [*(f"{prefix}{topic}" for topic in _TAKE_BACK), *sorted(theirs)]


@dataclass(frozen=True)
class Plan:
    """What a re-drive would do. `refused`: letters that are not put back, and why."""

    ready: tuple[StoredLetter, ...]
    refused: tuple[tuple[StoredLetter, str], ...]


def plan(
    letters: Iterable[StoredLetter],
    *,
    topics: Collection[str],
    most_redrives: int = MOST_REDRIVES,
) -> Plan:
    """`topics`: those messages may be put back to."""
    ready, refused = [], []
    for stored in letters:
        why = _refusal(stored, topics, most_redrives)
        if why is None:
            ready.append(stored)
        else:
            refused.append((stored, why))
    return Plan(tuple(ready), tuple(refused))


def put_back(
    ready: Sequence[StoredLetter],
    publisher: Publisher,
    *,
    transactions: bool,
    by: str,
    at: datetime,
) -> int:
    """Publish the originals and their markers, some at a time; how many.

    `transactions`: `publisher` writes all it is given, or nothing. Raises Retryable or Fatal:
    then `what_of_those_before` says what another call does.
    """
    for start in range(0, len(ready), _AT_ONCE):
        some = ready[start : start + _AT_ONCE]
        originals = [_original(stored) for stored in some]
        markers = [_marker(stored, by, at) for stored in some]
        if transactions:
            publisher.publish([*originals, *markers])
        else:
            # One publish could write a marker and not its original, which then were lost.
            publisher.publish(originals)
            publisher.publish(markers)
    return len(ready)


def what_of_those_before(*, transactions: bool) -> str:
    """What `put_back`, called again, does with those that a call which failed put back."""
    if transactions:
        return "what was put back is not put back twice"
    return f"without transactions, up to {_AT_ONCE} that were put back are put back twice"


def _place(message: Message) -> str:
    return f"{message.partition}:{message.offset}"


def _is_marker(message: Message) -> bool:
    """A letter that has the header of a marker is none: it brought it along from outside."""
    names = {name for name, _ in message.headers}
    return MARKER_HEADER in names and not message.value and names.isdisjoint(_CONTEXT)


def _original(stored: StoredLetter) -> Record:
    original = redrive(stored.message)
    headers = tuple(pair for pair in original.headers if pair[0] != COUNT_HEADER)
    count = (COUNT_HEADER, str(stored.redrives + 1).encode())
    return replace(original, headers=(*headers, count))


def _marker(stored: StoredLetter, by: str, at: datetime) -> Record:
    return Record(
        stored.message.topic,
        stored.message.key,
        b"",
        (
            (MARKER_HEADER, stored.place.encode()),
            (MARKER_BY, by.encode()),
            (MARKER_AT, at.isoformat(timespec="seconds").encode()),
        ),
        stored.message.partition,
    )


def _refusal(stored: StoredLetter, topics: Collection[str], most_redrives: int) -> str | None:
    if stored.redriven_by is not None:
        return f"put back by {stored.redriven_by or 'somebody'} at {stored.redriven_at}"
    if stored.redrives >= most_redrives:
        return f"put back {stored.redrives} times already, and it died again"
    if stored.letter.topic not in topics:
        return (
            f"{stored.letter.topic} is no topic of this deployment that takes messages back, and "
            "no task's `sources` (TRACER_TASKS) name it"
        )
    try:
        redrive(stored.message)
    except InvalidMessage as error:
        return str(error)
    return None


def _marked(stored: StoredLetter, marker: tuple[str, str] | None) -> StoredLetter:
    if marker is None:
        return stored
    return replace(stored, redriven_by=marker[0], redriven_at=marker[1])


def _count(letter: DeadLetter) -> int:
    """0 where the header is missing or no number: it came from outside."""
    text = _text(dict(letter.headers).get(COUNT_HEADER, b"0"))
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
