"""Protocol Buffers on the wire, read strictly and within bounds, without copies.

Readers of protobuf differ in what they make of the unusual: a field given twice, one nobody
knows. A graph is checked by one reader and run by another, so the unusual is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

MAX_FIELDS = 200_000  # of a message and all that is in it; a run of floats counts once
MAX_INTS = 65_536  # of one list
MAX_ALL_INTS = 8 * MAX_INTS  # of a document
MAX_TEXT = 4_096
_RUN = 65_536  # floats looked at together

Kind = Literal["int", "ints", "float", "floats", "text", "texts", "bytes", "message", "messages"]


class InvalidWire(ValueError):
    """Not the bytes of the message they are read as, or not as any writer of ours writes them."""


@dataclass(frozen=True)
class Field:
    """`kind`: `floats` is read as the number of floats, `bytes` as a view. `of`: of a message."""

    name: str
    kind: Kind
    of: Mapping[int, Field] | None = None


Message = Mapping[int, Field]
_WIRE = {"int": 0, "float": 5}
_LISTS = {"ints", "texts", "messages"}


@dataclass
class _Count:
    """What was read so far. A field of two bytes becomes some hundred bytes of memory, so they are
    counted over all messages of a document, however they are nested."""

    fields: int = 0
    ints: int = 0

    def field(self, name: str) -> None:
        self.fields += 1
        if self.fields > MAX_FIELDS:
            raise InvalidWire(f"at {name} there are more than {MAX_FIELDS} fields")

    def numbers(self, n: int, what: str) -> None:
        self.ints += n
        if self.ints > MAX_ALL_INTS:
            raise InvalidWire(f"at {what} there are more than {MAX_ALL_INTS} numbers")


def read_message(
    data: memoryview, message: Message, name: str, count: _Count | None = None
) -> dict[str, Any]:
    """Its fields by their names; lists are there, empty, where none was given. `count`: of the
    document it is a part of.

    Raises InvalidWire, for unknown fields and repeated single ones as well.
    """
    count = count or _Count()
    found: dict[str, Any] = {f.name: [] for f in message.values() if f.kind in _LISTS}
    found |= {f.name: 0 for f in message.values() if f.kind == "floats"}
    seen: set[int] = set()
    place = 0
    while place < len(data):
        count.field(name)
        begin = place
        tag, place = _varint(data, place)
        number, wire = tag >> 3, tag & 7
        field = message.get(number)
        if field is None:
            raise InvalidWire(f"{name} has field {number}, which none of ours has")
        if number in seen and field.kind not in _LISTS and field.kind != "floats":
            raise InvalidWire(f"{name} has its {field.name} twice")
        seen.add(number)
        if field.kind == "floats" and wire == 5:
            run, place = _floats(data, begin, place - begin)
            found[field.name] += run
            continue
        value, place = _value(data, place, wire, f"{field.name} of {name}")
        _take(found, field, value, wire, name, count)
    return found


def _take(
    found: dict[str, Any], field: Field, value: Any, wire: int, name: str, count: _Count
) -> None:
    """Put a value where it belongs."""
    what = f"{field.name} of {name}"
    if wire != _WIRE.get(field.kind, 2) and not (field.kind == "ints" and wire == 0):
        raise InvalidWire(f"{what} is of wire type {wire}")
    match field.kind:
        case "ints":
            more = [_signed(value)] if wire == 0 else _packed(value, what)
            count.numbers(len(more), what)
            found[field.name] += more
            if len(found[field.name]) > MAX_INTS:
                raise InvalidWire(f"{what} has more than {MAX_INTS} numbers")
        case "int":
            found[field.name] = _signed(value)
        case "floats":
            if len(value) % 4:
                raise InvalidWire(f"{what} ends amid a number")
            found[field.name] += len(value) // 4
        case "text":
            found[field.name] = _text(value, what)
        case "texts":
            found[field.name].append(_text(value, what))
        case "messages":
            found[field.name].append(read_message(value, field.of or {}, field.name, count))
        case "message":
            found[field.name] = read_message(value, field.of or {}, field.name, count)
        case _:
            found[field.name] = value


def _value(data: memoryview, place: int, wire: int, what: str) -> tuple[Any, int]:
    if wire == 0:
        return _varint(data, place)
    if wire == 2:
        size, place = _varint(data, place)
        end = place + size
    elif wire == 5:
        end = place + 4
    else:
        raise InvalidWire(f"{what} is of wire type {wire}")
    if end > len(data):
        raise InvalidWire(f"{what} ends too early")
    return data[place:end], end


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise InvalidWire("a number ends too early")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, place
    raise InvalidWire("a number is longer than 64 bits")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _packed(data: memoryview, what: str) -> list[int]:
    values: list[int] = []
    place = 0
    while place < len(data):
        if len(values) >= MAX_INTS:
            raise InvalidWire(f"{what} has more than {MAX_INTS} numbers")
        value, place = _varint(data, place)
        values.append(_signed(value))
    return values


def _floats(data: memoryview, begin: int, tag_size: int) -> tuple[int, int]:
    """How many floats follow one another, each with the same tag, and where they end."""
    step = tag_size + 4
    rows = min((len(data) - begin) // step, _RUN)
    if rows == 0:
        raise InvalidWire("a number ends too early")
    block = np.frombuffer(data[begin : begin + rows * step], np.uint8).reshape(rows, step)
    same = (block[:, :tag_size] == block[0, :tag_size]).all(axis=1)
    run = rows if same.all() else int(np.argmin(same))
    return run, begin + run * step


def _text(value: memoryview, what: str) -> str:
    if len(value) > MAX_TEXT:
        raise InvalidWire(f"{what} has more than {MAX_TEXT} bytes")
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidWire(f"{what} is not UTF-8") from error
