"""Bytes to events and back; an event that does not fit says which field and why."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from shared.contracts.depth import MAX_DEPTH, too_deep
from shared.contracts.events import Event, Request

E = TypeVar("E", bound=Event)

# What users may send as a request. What we make of it carries more (a deferral holds its request),
# and must still fit the topics' max_message_bytes.
MAX_SENT_BYTES = 900_000
# Of a request's decision and deferral, with key and headers. Metadata may grow when written again,
# and the teacher's trace and ingest's of that carry a little more, which must still be an event.
MAX_ROUTED_BYTES = 950_000
MAX_EVENT_BYTES = 1_000_000

_encoder = msgspec.json.Encoder(order="deterministic")
_decoders: dict[type[Event], msgspec.json.Decoder[Event]] = {}
_PATH = re.compile(r" - at `\$\.?(?P<field>[^`]*)`")
_MISSING = re.compile(r"missing required field `(?P<field>[^`]+)`")


class InvalidEvent(ValueError):
    """Bytes that are not the event they should be.

    `field` is the path of the offending field ("" when the whole document is at fault).
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


def decode(data: bytes, kind: type[E]) -> E:
    """Parse and validate one event. Raises InvalidEvent naming the field."""
    limit = MAX_SENT_BYTES if kind is Request else MAX_EVENT_BYTES
    if len(data) > limit:
        raise InvalidEvent(f"event of {len(data)} bytes exceeds the limit of {limit}")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        event: E = decoder.decode(data)  # type: ignore[assignment]
    except msgspec.ValidationError as error:
        raise InvalidEvent(str(error), field=_field(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent(f"not valid JSON: {error}") from error
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and too_deep(
        getattr(event, "metadata", None)
    ):
        raise InvalidEvent(f"nested deeper than {MAX_DEPTH} levels", field="metadata")
    return event


def encode(event: Event) -> bytes:
    """The event as JSON, keys sorted, so that equal events are equal bytes."""
    return _encoder.encode(event)


def _field(message: str) -> str:
    path = _PATH.search(message)
    field = path["field"] if path else ""
    missing = _MISSING.search(message)
    if missing:
        field = f"{field}.{missing['field']}" if field else missing["field"]
    return field
