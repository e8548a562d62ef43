"""From a message that cannot be used to its dead letter, and back."""

from __future__ import annotations

from datetime import datetime

from shared.bus.base import Headers, Message, Record, size_of
from shared.bus.errors import InvalidMessage
from shared.contracts.dead_letters import (
    CONTEXT_HEADERS,
    MAX_MESSAGE_CHARS,
    DeadLetter,
    NotADeadLetter,
    bounded,
)

# A broker counts a message as it was compressed, a producer as it is: what came in small may be too
# large to be written anywhere. Less than the dead-letter topic takes (schemas/topics).
MAX_LETTER_BYTES = 2_090_000
# Beside the context of a letter that keeps only the beginning: how many bytes key and value had,
# and how many headers were left out, if any.
CUT = "tracer.cut.bytes"
CUT_HEADERS = "tracer.cut.headers"
# Behind a letter's original headers, and going back with them: when the broker had first got the
# message, in milliseconds since the epoch. What is put back is not stamped with that time, as its
# topic's retention could delete it before it is read.
FIRST_TIMESTAMP = "tracer.timestamp"
# What only we say of a letter: from outside it would mark one as put back, or as cut.
_OURS = ("tracer.redriven", "tracer.cut.")


def dead_letter(
    message: Message,
    *,
    service: str,
    error: BaseException,
    at: datetime,
    topic: str,
    field: str | None = None,
    stage: str = "handle",
) -> Record:
    """The record that keeps `message` as it was, with `error` in its headers. Of a message that no
    producer would write it keeps the beginning and what headers fit; the whole is where they say.
    Headers that only we write about letters are left out.

    `topic` is the dead-letter topic with its prefix. `field` is the error's own (InvalidMessage
    and InvalidEvent have one) unless given. `at` needs a time zone.
    """
    named = getattr(error, "field", "") if field is None else field
    letter = DeadLetter(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        service=bounded(service),
        stage=bounded(stage),
        component=bounded(_raised_in(error) or service),
        error=bounded(_class_name(error)),
        message=bounded(str(error), MAX_MESSAGE_CHARS),
        field=bounded(str(named)),
        at=at,
        key=message.key,
        value=message.value,
        headers=_kept(message),
    )
    return _cut(Record(topic, message.key, message.value, letter.to_headers()))


def first_timestamp(message: Message) -> int:
    """`timestamp_ms`, of a message that was put back that of the original."""
    said = dict(message.headers).get(FIRST_TIMESTAMP, b"")
    return int(said) if said.isdigit() and len(said) < 16 else message.timestamp_ms


def read_dead_letter(message: Message) -> DeadLetter:
    """The dead letter a consumed record carries. Raises InvalidMessage naming the header."""
    try:
        return DeadLetter.from_headers(message.headers, key=message.key, value=message.value)
    except NotADeadLetter as error:
        raise InvalidMessage(str(error), field=error.field) from error


def redrive(message: Message) -> Record:
    """The original record, for the topic it came from. Raises InvalidMessage.

    The topic in the header already has the prefix of the deployment it came from, so none is
    added. A letter that names its own topic is refused: redriving it would never end.
    """
    letter = read_dead_letter(message)
    if letter.topic == message.topic:
        raise InvalidMessage(
            f"a dead letter of {message.topic} itself cannot be redriven",
            field=CONTEXT_HEADERS["topic"],
        )
    if any(name == CUT for name, _ in letter.headers):
        raise InvalidMessage(
            "the letter keeps only a part of the message: the whole is on "
            f"{letter.topic}, partition {letter.partition}, offset {letter.offset}",
            field=CUT,
        )
    return Record(topic=letter.topic, key=letter.key, value=letter.value, headers=letter.headers)


def _kept(message: Message) -> Headers:
    """The message's headers as its letter has them."""
    kept = tuple(
        (name, value)
        for name, value in message.headers
        if name != FIRST_TIMESTAMP and not name.startswith(_OURS)
    )
    timestamp = first_timestamp(message)
    return (*kept, (FIRST_TIMESTAMP, str(timestamp).encode())) if timestamp > 0 else kept


def _cut(record: Record) -> Record:
    """With no more of headers, key and value than a producer writes."""
    if record.size <= MAX_LETTER_BYTES:
        return record
    size = len(record.key or b"") + len(record.value)
    end = len(record.headers) - len(CONTEXT_HEADERS)
    theirs, context = record.headers[:end], record.headers[end:]
    # Where both are large, half is for the headers.
    room = max(MAX_LETTER_BYTES // 2, MAX_LETTER_BYTES - size) - size_of(context)
    kept = _fitting(theirs, room)
    said: Headers = ((CUT, str(size).encode()),)
    if len(kept) < len(theirs):
        said += ((CUT_HEADERS, str(len(theirs) - len(kept)).encode()),)
    room = MAX_LETTER_BYTES - size_of(kept) - size_of(context)
    key = None if record.key is None else record.key[:room]
    value = record.value[: room - len(key or b"")]
    return Record(record.topic, key, value, (*said, *kept, *context))


def _fitting(headers: Headers, room: int) -> Headers:
    """Without those that do not fit beside the ones before them."""
    kept = []
    for header in headers:
        size = size_of((header,))
        if size <= room:
            kept.append(header)
            room -= size
    return tuple(kept)


def _class_name(error: BaseException) -> str:
    kind = type(error)
    prefix = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{prefix}{kind.__qualname__}"


def _raised_in(error: BaseException) -> str:
    """Module and name of the function that raised `error`; "" when it never was raised."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__', '')}.{trace.tb_frame.f_code.co_qualname}"
