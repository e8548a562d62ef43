"""Dead letters: the original key and value, unchanged, with what went wrong in the headers.

The header names are Kafka Connect's where it has one, because that is what other tools know.
As JSON (`schemas/events/dead-letter.v1.schema.json`) the bytes are base64, for files and tools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from shared.contracts.events import Count, Event, Timestamp, utc

MAX_MESSAGE_CHARS = 2_000
MAX_CONTEXT_CHARS = 512

# Field of DeadLetter -> header. Order is the order on the wire.
CONTEXT_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "topic": "__connect.errors.topic",
        "partition": "__connect.errors.partition",
        "offset": "__connect.errors.offset",
        "service": "__connect.errors.connector.name",
        "stage": "__connect.errors.stage",
        "component": "__connect.errors.class.name",
        "error": "__connect.errors.exception.class.name",
        "message": "__connect.errors.exception.message",
        "field": "tracer.errors.field",
        "at": "tracer.errors.at",
    }
)

Pairs = tuple[tuple[str, bytes], ...]
TopicName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,249}\Z")]


class NotADeadLetter(ValueError):
    """The headers lack the context of a dead letter, or it cannot be read.

    `field` is the name of the offending header.
    """

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class DeadLetter(Event, frozen=True, kw_only=True):
    """One message that could not be used, and why.

    `topic` is the original one with its prefix; `component` the function the error was raised in;
    `error` the error's class; `field` the offending field ("" for the whole message); `headers`
    the original ones in their order, and `tracer.timestamp` (shared/bus/dead_letters.py).
    """

    topic: TopicName
    partition: Count
    offset: Count
    service: str
    stage: str
    component: str
    error: str
    message: Annotated[str, Meta(max_length=MAX_MESSAGE_CHARS)]
    field: str
    at: Timestamp
    value: bytes
    key: bytes | None = None
    headers: Pairs = ()

    def to_headers(self) -> Pairs:
        """The original headers, then the context; every value valid UTF-8 of bounded length."""
        context = {
            "topic": self.topic,
            "partition": str(self.partition),
            "offset": str(self.offset),
            "service": bounded(self.service),
            "stage": bounded(self.stage),
            "component": bounded(self.component),
            "error": bounded(self.error),
            "message": bounded(self.message, MAX_MESSAGE_CHARS),
            "field": bounded(self.field),
            "at": _rfc3339(self.at),
        }
        return (
            *self.headers,
            *((header, context[name].encode()) for name, header in CONTEXT_HEADERS.items()),
        )

    @classmethod
    def from_headers(
        cls, headers: Sequence[tuple[str, bytes]], *, key: bytes | None, value: bytes
    ) -> DeadLetter:
        """The dead letter a record carries. Raises NotADeadLetter naming the header.

        Of repeated context headers the last is ours: a message that was a dead letter before
        keeps its older context among the original headers.
        """
        last = {name: index for index, (name, _) in enumerate(headers)}
        places: dict[str, int] = {}
        for field, header in CONTEXT_HEADERS.items():
            if header not in last:
                raise NotADeadLetter(f"not a dead letter: no header {header}", field=header)
            places[field] = last[header]
        context = set(places.values())
        return cls(
            topic=_convert(headers, places["topic"], TopicName),
            partition=_number(headers, places["partition"]),
            offset=_number(headers, places["offset"]),
            service=_text(headers, places["service"]),
            stage=_text(headers, places["stage"]),
            component=_text(headers, places["component"]),
            error=_text(headers, places["error"]),
            message=_text(headers, places["message"]),
            field=_text(headers, places["field"]),
            at=_convert(headers, places["at"], Timestamp),
            value=value,
            key=key,
            headers=tuple(pair for index, pair in enumerate(headers) if index not in context),
        )


def bounded(text: str, limit: int = MAX_CONTEXT_CHARS) -> str:
    """`text` as valid Unicode, cut to `limit` characters (the last one then an ellipsis)."""
    text = text.encode("utf-8", "backslashreplace").decode()  # lone surrogates have no UTF-8
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _rfc3339(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise ValueError("a dead letter's `at` needs a time zone")
    return utc(moment).isoformat().replace("+00:00", "Z")


def _text(headers: Sequence[tuple[str, bytes]], index: int) -> str:
    name, value = headers[index]
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise NotADeadLetter(f"header {name} is not UTF-8: {error}", field=name) from error


def _number(headers: Sequence[tuple[str, bytes]], index: int) -> int:
    text = _text(headers, index)
    if not (text.isascii() and text.isdigit() and len(text) < 20):  # 19 digits hold an int64
        name = headers[index][0]
        raise NotADeadLetter(f"header {name} is no number: {bounded(text, 40)!r}", field=name)
    return int(text)


def _convert(headers: Sequence[tuple[str, bytes]], index: int, kind: Any) -> Any:
    text, name = _text(headers, index), headers[index][0]
    try:
        return msgspec.convert(text, kind)
    except msgspec.ValidationError as error:
        raise NotADeadLetter(f"header {name}: {error}", field=name) from error
