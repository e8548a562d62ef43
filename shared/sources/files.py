"""Files of logs as records for the adapters, without holding a file in memory where lines allow.

A file may be packed by gzip, as exports often are, whatever its name says.
"""

from __future__ import annotations

import codecs
import csv
import errno
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import msgspec

from shared.contracts.depth import MAX_DEPTH, too_deep
from shared.contracts.mapping import Format

MAX_LINE_BYTES = 16_000_000
MAX_WHOLE_BYTES = 1_000_000_000
_MAX_FIELD_CHARS = 1_000_000
GZIP = b"\x1f\x8b"
# Tried in this order on a header without a comma: spreadsheets of many countries write semicolons.
_OTHER_DELIMITERS = "\t;|"


class UnreadableFile(ValueError):
    """The file cannot be used; the message names it and says why."""


class Part(NamedTuple):
    """A record of a file, and the line or element it is (from 1)."""

    number: int
    value: bytes


def parts(path: Path, format: Format, inputs: Path | None = None) -> Iterator[Part]:
    """The records of a file: its lines, the elements of its JSON array, its CSV rows as JSON, or
    all of it (`otlp_proto`, or one JSON document over many lines).

    `inputs` is the batch's input file, needed for `openai_batch` and nothing else; rows of the
    output that it does not know are given without their request. Raises UnreadableFile.
    """
    if (format is Format.OPENAI_BATCH) != (inputs is not None):
        raise UnreadableFile(
            f"{path}: format openai_batch needs the batch's input file beside its output"
            if inputs is None
            else f"{path}: only format openai_batch has an input file"
        )
    try:
        if format is Format.CSV:
            yield from _csv_rows(path)
        elif format is Format.OTLP_PROTO:
            yield Part(1, _whole(path))
        elif inputs is not None:
            yield from _joined(path, inputs)
        else:
            yield from _json_parts(path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UnreadableFile(f"{path}: its gzip is broken or cut short: {error}") from error
    except OSError as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise UnreadableFile(f"{error.filename or path}: {why}") from error


def opened(path: Path) -> IO[bytes]:
    """The file's content, unpacked where it is gzip. Raises OSError."""
    file = path.open("rb")
    if not file.seekable():
        file.close()
        raise OSError(errno.ESPIPE, "a pipe, which cannot be read twice; name a file", str(path))
    packed = file.read(len(GZIP)) == GZIP
    file.seek(0)
    if not packed:
        return file
    file.close()
    return cast(IO[bytes], gzip.open(path))


def _json_parts(path: Path) -> Iterator[Part]:
    """A document over many lines is taken whole, JSON lines one by one."""
    lines = _lines(path)
    first = next(lines, None)
    if first is None:
        return
    if not _is_json(first.value):
        document = _decoded(_whole(path).removeprefix(codecs.BOM_UTF8), path)
        elements = document if isinstance(document, list) else [document]
        yield from (Part(i, msgspec.json.encode(each)) for i, each in enumerate(elements, 1))
        return
    yield first
    yield from lines


def _lines(path: Path) -> Iterator[Part]:
    with opened(path) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if len(line) > MAX_LINE_BYTES:
                raise UnreadableFile(f"{path}:{number}: longer than {MAX_LINE_BYTES} bytes")
            if line.strip():
                yield Part(number, line)


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _decoded(value: bytes, path: Path) -> Any:
    try:
        document = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableFile(
            f"{path}: neither JSON lines nor one JSON document: {error}"
        ) from error
    if too_deep(document, MAX_DEPTH + 1):
        raise UnreadableFile(f"{path}: nested deeper than {MAX_DEPTH} levels")
    return document


def _whole(path: Path) -> bytes:
    with opened(path) as file:
        whole = file.read(MAX_WHOLE_BYTES + 1)
    if len(whole) > MAX_WHOLE_BYTES:
        raise UnreadableFile(
            f"{path}: more than {MAX_WHOLE_BYTES} bytes; split it, or write one record a line"
        )
    return whole


def _csv_rows(path: Path) -> Iterator[Part]:
    csv.field_size_limit(_MAX_FIELD_CHARS)
    with io.TextIOWrapper(opened(path), encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True, delimiter=_delimiter(file))
        try:
            if not reader.fieldnames or len(set(reader.fieldnames)) != len(reader.fieldnames):
                raise UnreadableFile(f"{path}:1: a header with a different name a column is needed")
            for row in reader:
                if None in row or None in row.values():
                    raise UnreadableFile(
                        f"{path}:{reader.line_num}: a row needs {len(reader.fieldnames)} fields, "
                        "as the header has"
                    )
                yield Part(reader.line_num, msgspec.json.encode(row))
        except (csv.Error, UnicodeDecodeError) as error:
            raise UnreadableFile(f"{path}:{reader.line_num}: not CSV in UTF-8: {error}") from error


def _delimiter(file: IO[str]) -> str:
    """What is between the names of the header."""
    try:
        header = file.readline()
    except UnicodeDecodeError:
        header = ""  # said, with its line, where rows are read
    file.seek(0)
    others = (each for each in _OTHER_DELIMITERS if "," not in header and each in header)
    return next(others, ",")


def _joined(output: Path, inputs: Path) -> Iterator[Part]:
    """A batch's output rows, which come in any order, each with the request of its custom_id."""
    requests: dict[str, Any] = {}
    for number, line in _lines(inputs):
        row = _row(line, inputs, number)
        requests[str(row.get("custom_id"))] = row.get("body")
    for number, line in _lines(output):
        row = _row(line, output, number)
        row["request"] = requests.get(str(row.get("custom_id")))
        yield Part(number, msgspec.json.encode(row))


def _row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableFile(f"{path}:{number}: not a JSON object: {error}") from error
    if "custom_id" not in row:
        raise UnreadableFile(f"{path}:{number}: no custom_id; is it a batch file?")
    return row
