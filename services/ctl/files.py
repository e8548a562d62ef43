"""Trace files: JSON lines with an input, a teacher's answer and perhaps a split."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from shared.sources.files import GZIP, opened

STANDARD_INPUT = Path("-")
FIT_SPLITS = frozenset({None, "train", "val", "dev", "validation"})
TEST_SPLIT = "test"
_SPELLINGS = {"": None, "training": "train", "valid": "validation", "development": "dev",
              "testing": TEST_SPLIT}  # fmt: skip
_OTHER_FILES = (
    "one object a line (of an array `jq -c '.[]' FILE` makes lines); CSV and other logs are for "
    "`tracerctl sources check` and `tracerctl replay`, with --format"
)


class InvalidFile(ValueError):
    """The file cannot be used; the message names the line, the field and the fix."""


@dataclass(frozen=True)
class Row:
    """One line: one or two texts, what the teacher (or else the human) answered. split: of those
    that are known by their usual name, however it is spelled."""

    id: str
    texts: tuple[str, ...]
    teacher: str
    split: str | None
    raw: dict[str, Any]


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a JSON lines file, packed by gzip or not: `input` (a text, or two in a list) or
    `premise` and `hypothesis`; `teacher`, or `label` where there is none. `-` is standard input.
    Raises InvalidFile."""
    try:
        with io.TextIOWrapper(_opened(path), encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _row(line, f"{path}:{number}", number)
    except FileNotFoundError:
        raise InvalidFile(f"{path}: no such file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InvalidFile(f"{path}: its gzip is broken or cut short: {error}") from error
    except OSError as error:
        raise InvalidFile(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidFile(f"{path}: not UTF-8: {error}") from error


def _opened(path: Path) -> IO[bytes]:
    if path != STANDARD_INPUT:
        return opened(path)
    content = sys.stdin.buffer.read()  # rows are all held anyway
    return io.BytesIO(gzip.decompress(content) if content.startswith(GZIP) else content)


def _row(line: str, where: str, number: int) -> Row:
    try:
        raw = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        help = _OTHER_FILES if number == 1 else "one object a line"
        raise InvalidFile(f"{where}: not JSON ({error}); {help}") from error
    if not isinstance(raw, dict):
        help = f"; {_OTHER_FILES}" if number == 1 else ""
        raise InvalidFile(f"{where}: a JSON object is needed, not {type(raw).__name__}{help}")
    # A human's label is no answer: it stands for the teacher's only where that field is absent.
    named = "label" if "label" in raw and "teacher" not in raw else "teacher"
    teacher = raw.get(named)
    if not isinstance(teacher, str) or not teacher:
        raise InvalidFile(
            f"{where}: field `{named}` must be a text that is not empty; leave out rows that "
            "the LLM did not answer (`label` is taken where there is no `teacher`)"
        )
    split = raw.get("split")
    if split is not None and not isinstance(split, str):
        raise InvalidFile(f"{where}: field `split` must be a text")
    texts = _texts(raw, where)
    # Without an id of its own a row is known by its place and content, whatever file it is in.
    content = hashlib.sha256("\n".join((*texts, teacher)).encode(errors="surrogatepass"))
    row_id = str(raw.get("id") or f"row-{number}-{content.hexdigest()[:12]}")
    for field, text in (("id", row_id), ("teacher", teacher)):
        _check_characters(where, field, text)
    return Row(row_id, texts, teacher, _known_split(split), raw)


def _known_split(split: str | None) -> str | None:
    """`Train` and `training` are `train`; one of another meaning stays as it is written."""
    plain = (split or "").strip().lower()
    known = _SPELLINGS.get(plain, plain)
    return known if known in FIT_SPLITS | {TEST_SPLIT} else split


def _texts(raw: dict[str, Any], where: str) -> tuple[str, ...]:
    if "input" in raw:
        texts = raw["input"] if isinstance(raw["input"], list) else [raw["input"]]
    elif "premise" in raw and "hypothesis" in raw:
        texts = [raw["premise"], raw["hypothesis"]]
    else:
        raise InvalidFile(f"{where}: field `input` is missing (or `premise` and `hypothesis`)")
    if len(texts) not in (1, 2) or not all(isinstance(t, str) and t for t in texts):
        raise InvalidFile(f"{where}: field `input` must be a text, or two texts in a list")
    for text in texts:
        _check_characters(where, "input", text)
    return tuple(texts)


def _check_characters(where: str, field: str, text: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidFile(
            f"{where}: field `{field}` has half a surrogate pair, which is no character"
        )
