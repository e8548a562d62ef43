"""JSON from other systems: bounded, and read with little trust."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec

from shared.contracts.depth import MAX_DEPTH, too_deep
from shared.contracts.events import Tokens
from shared.sources.base import MAX_CALLS, Call, Fragment, Item, Moment, Refused, Skipped, Unusable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SECONDS = 253_402_300_800  # the year 10000
_UNIT_FROM = 100_000_000_000  # as seconds the year 5138, as milliseconds 1973; and so on
_UNITS = (1, 1_000, 1_000_000)  # seconds, milliseconds, microseconds
_NANOSECONDS = 1_000_000_000
# The numbers of digits that times since the epoch have until 2286; others may be a day and an hour.
_EPOCH_TEXT = re.compile(r"(?:\d{9,10}|\d{13}|\d{16}|\d{19})(?:\.\d{1,9})?\Z", re.ASCII)
_DAY_DIGITS = 8  # ISO 8601 without hyphens
_MAX_TIME_CHARS = 64
_UTC_NAME = re.compile(r"(?: *[+-]00:?00)? +(?:UTC|GMT|Z)\Z", re.IGNORECASE)


def parse(value: bytes) -> Any:
    """Raises Unusable for what is not JSON, or is nested deeper than MAX_DEPTH."""
    try:
        document = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable(f"not valid JSON: {error}") from error
    if too_deep(document):
        raise Unusable(f"nested deeper than {MAX_DEPTH} levels")
    return document


def parse_inner(value: Any) -> Any:
    """A text that holds a JSON object or array as what it holds; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return parse(value.encode())
        except (Unusable, UnicodeEncodeError):
            return value
    return value


def each_object(
    value: bytes, origin: str, read: Callable[[dict[str, Any], str, Fragment], Call | Skipped]
) -> list[Item]:
    """`read(object, origin, fragment)` for the object of a record, or each of its array."""
    document = parse(value)
    if not isinstance(document, list):
        return [_object(document, origin, lambda: value, read)]
    if len(document) > MAX_CALLS:
        raise Unusable(f"{len(document)} calls in one record, of at most {MAX_CALLS}")
    return [
        _object(each, f"{origin}-{number}", partial(msgspec.json.encode, each), read)
        for number, each in enumerate(document)
    ]


def unpaged(value: bytes, name: str = "data") -> bytes:
    """An API's page, `{"data": [...]}`, as the array it holds; anything else as it is. Raises
    Unusable for what is no JSON."""
    document = parse(value)
    held = document.get(name) if isinstance(document, dict) else None
    return msgspec.json.encode(held) if isinstance(held, list) else value


def _object(
    document: Any,
    origin: str,
    fragment: Fragment,
    read: Callable[[dict[str, Any], str, Fragment], Call | Skipped],
) -> Item:
    if not isinstance(document, dict):
        error = Unusable(f"a JSON object is needed, not {type(document).__name__}")
        return Refused(error, fragment)
    return read(document, origin, fragment)


def mapping_of(value: Any) -> dict[str, Any]:
    """`value`, or what it holds as JSON, where that is an object; else an empty one."""
    value = parse_inner(value)
    return value if isinstance(value, dict) else {}


def first(document: dict[str, Any], *names: str) -> Any:
    """The first value that is there and not null."""
    return next((document[name] for name in names if document.get(name) is not None), None)


def text_of(value: Any) -> str | None:
    """A text; numbers and truth values as JSON writes them; None for the rest."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return msgspec.json.encode(value).decode()
    return None


def moment_of(value: Any) -> Moment:
    """ISO 8601 (UTC where it has no offset), or a time since the epoch in seconds, or what its size
    shows to be milli-, micro- or nanoseconds, as a text too. Nothing, a blank text and 0 are no
    time; what cannot be read is not, or the call would be dated when it was published."""
    if isinstance(value, str):
        value = value.strip()
    if value is None or value in ("", "0") or (_is_number(value) and value == 0):
        return None
    moment = _moment(value)
    if moment is not None:
        return moment
    said = repr(value[:100]) if isinstance(value, str) else "a number or object"
    return Unusable(f"{said} is no time: use ISO 8601 or seconds since 1970", field="occurred_at")


def _moment(value: Any) -> datetime | None:
    if isinstance(value, str):
        if _EPOCH_TEXT.match(value) is None:
            return _iso(value)
        value = float(value) if "." in value else int(value)
    if not _is_number(value):
        return None
    for unit in _UNITS:
        if value < _UNIT_FROM * unit:
            return since_epoch(value / unit)
    return since_epoch(value / _NANOSECONDS)


def _iso(text: str) -> datetime | None:
    # Python would take 13 digits for a day, a separator and four digits of an hour.
    if len(text) > _MAX_TIME_CHARS or (text.isdigit() and len(text) != _DAY_DIGITS):
        return None
    try:
        moment = datetime.fromisoformat(_UTC_NAME.sub("", text))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def since_epoch(seconds: float) -> datetime | None:
    """None for what is not a time after 1970 and before 10000."""
    if not 0 < seconds < _MAX_SECONDS:
        return None
    return _EPOCH + timedelta(seconds=seconds)


def tokens_of(asked: Any, answered: Any) -> Tokens | None:
    """Both counts, or None where one is missing or no count."""
    counts = [_count(asked), _count(answered)]
    if counts[0] is None or counts[1] is None:
        return None
    return Tokens(input=counts[0], output=counts[1])


def _count(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:18])
    return int(value) if _is_number(value) and 0 <= value < 2**53 else None


def cost_of(value: Any) -> float | None:
    """US dollars."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if _is_number(value) and value >= 0 else None


def _is_number(value: Any) -> bool:
    """Finite, no truth value, and of a size that arithmetic bears."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63
