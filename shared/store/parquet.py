"""Closed windows as Parquet, on a folder or an object store.

    <root>/task=<task>/day=<YYYY-MM-DD>/part-<digest>.parquet   traces; late ones in further parts
    <root>/task=<task>/day=<YYYY-MM-DD>/verdict.json            what the fit after it came to

A part is named after the ids in it and its rows are sorted by event time and id: the same traces
give the same file in whatever order they arrived, and two writers never overwrite each other.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from shared.contracts.events import Trace
from shared.contracts.manifest import Source

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("input", pa.list_(pa.string())),
        ("teacher", pa.string()),
        ("occurred_at", pa.timestamp("us", tz="UTC")),
        ("teacher_model", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cost", pa.float64()),
        ("label", pa.string()),
        ("metadata", pa.string()),
        ("source", pa.string()),
        ("observation_probability", pa.float64()),
        ("deferral_reason", pa.string()),
        ("prompt", pa.string()),
        ("version", pa.string()),
        ("drawn", pa.bool_()),
        ("audit_share", pa.float64()),
        ("opinions", pa.string()),  # a JSON list of Opinion; "[]" where there is none
    ]
)
# Parts written before these columns existed read as if nothing had been drawn or said.
_DEFAULTS: dict[str, Any] = {"drawn": False, "audit_share": 0.0, "opinions": "[]"}

# Of the longest pairs there may be these are 1 GiB: Arrow reads no more than 2 of lists of texts.
ROWS_AT_ONCE = 4_096

# In the metadata of a part's schema: partition -> next offset, as JSON.
_OFFSETS = b"tracer.offsets"


class WindowStore:
    """Raises OSError when the store cannot be read or written."""

    def __init__(self, url: str) -> None:
        """`url`: a folder, `file:///…`, or `s3://bucket/prefix?endpoint_override=…`."""
        if "://" in url:
            self._fs, self._root = pafs.FileSystem.from_uri(url)
        else:
            self._fs, self._root = pafs.LocalFileSystem(), url
        self._fs.create_dir(self._root, recursive=True)

    def write(
        self,
        task: str,
        day: date,
        traces: Iterable[Trace],
        offsets: Mapping[int, int] | None = None,
    ) -> int:
        """Add traces to a day, in a part of their own; ids the day already has are left out.

        `offsets`: by partition, the next one after the last trace of the day that was read; they
        are kept with the part. Returns how many were new. The part appears whole or not at all.
        """
        known = set(self._column(task, day, "id"))
        fresh: dict[str, Trace] = {}
        for trace in sorted(traces, key=lambda t: (t.occurred_at, t.id)):
            if trace.id not in known:
                fresh.setdefault(trace.id, trace)
        if not fresh:
            return 0
        folder = self._folder(task, day)
        self._fs.create_dir(folder, recursive=True)
        names = hashlib.sha256("\n".join(fresh).encode()).hexdigest()[:16]
        table = table_of(fresh.values())
        if offsets:
            kept = {str(partition): offset for partition, offset in sorted(offsets.items())}
            table = table.replace_schema_metadata({_OFFSETS: json.dumps(kept)})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self._put(f"{folder}/part-{names}.parquet", sink.getvalue())
        return len(fresh)

    def read(self, task: str, days: Iterable[date]) -> pa.Table:
        """The traces of these days, oldest day first, columns as in SCHEMA."""
        tables = [some for day in sorted(days) for some in self.scan(task, day, SCHEMA.names)]
        return pa.concat_tables(tables) if tables else SCHEMA.empty_table()

    def view(self, task: str) -> View:
        """What is stored of a task now; parts that come later are not in it."""
        return View(self, task, {day: tuple(self._parts(task, day)) for day in self.days(task)})

    def scan(self, task: str, day: date, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Some columns of one day, a few thousand rows at a time."""
        return self._scan(self._parts(task, day), columns)

    def _scan(self, parts: Iterable[str], columns: Sequence[str]) -> Iterator[pa.Table]:
        for part in parts:
            # Not as a data set: that would hold a whole part, or fail where it has too much text.
            with _sound(part), self._fs.open_input_file(part) as opened:
                file = pq.ParquetFile(opened)
                there = [name for name in columns if name in file.schema_arrow.names]
                for batch in file.iter_batches(ROWS_AT_ONCE, columns=there, use_threads=False):
                    yield _filled(batch, columns)

    def days(self, task: str) -> list[date]:
        """Days with stored traces, oldest first."""
        found = self._list(f"{self._root}/task={task}")
        days = [day for info in found if (day := _day_of(info.base_name)) is not None]
        return [day for day in sorted(days) if self._parts(task, day)]

    def write_verdict(self, task: str, day: date, verdict: dict[str, Any]) -> None:
        content = json.dumps(verdict, sort_keys=True).encode()
        self._put(f"{self._folder(task, day)}/verdict.json", pa.py_buffer(content))

    def verdict(self, task: str, day: date) -> dict[str, Any] | None:
        """None while no fit has followed the window."""
        path = f"{self._folder(task, day)}/verdict.json"
        if self._fs.get_file_info(path).type != pafs.FileType.File:
            return None
        with self._fs.open_input_stream(path) as source:
            content = source.read()
        try:
            verdict: dict[str, Any] = json.loads(content)
        except ValueError as error:
            raise OSError(
                f"{path} is damaged; remove it, and the window is fitted again: {error}"
            ) from error
        return verdict

    def _folder(self, task: str, day: date) -> str:
        return f"{self._root}/task={task}/day={day.isoformat()}"

    def _parts(self, task: str, day: date) -> list[str]:
        found = self._list(self._folder(task, day))
        return sorted(info.path for info in found if info.path.endswith(".parquet"))

    def _column(self, task: str, day: date, name: str) -> list[Any]:
        return [v for some in self.scan(task, day, [name]) for v in some[name].to_pylist()]

    def _offsets(self, part: str) -> dict[str, int]:
        found = (pq.read_schema(part, filesystem=self._fs).metadata or {}).get(_OFFSETS)
        return dict(json.loads(found)) if found else {}

    def _put(self, path: str, content: pa.Buffer) -> None:
        """Write a file that is there whole or not at all, and on disk once this returns."""
        if isinstance(self._fs, pafs.LocalFileSystem):
            with open(f"{path}.tmp", "wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            os.replace(f"{path}.tmp", path)
            return
        with self._fs.open_output_stream(path) as out:  # an object appears when it is closed
            out.write(content)

    def _list(self, folder: str) -> list[pafs.FileInfo]:
        found: list[pafs.FileInfo] = self._fs.get_file_info(
            pafs.FileSelector(folder, allow_not_found=True)
        )
        return found


@dataclass(frozen=True)
class View:
    """The parts of a task that were there at one moment."""

    _store: WindowStore
    _task: str
    _parts: Mapping[date, Sequence[str]]

    def days(self, task: str) -> list[date]:
        """Oldest first."""
        return [day for day, parts in sorted(self._parts.items()) if parts]

    def scan(self, task: str, day: date, columns: Sequence[str]) -> Iterator[pa.Table]:
        return self._store._scan(self._parts.get(day, ()), columns)

    def source(self, days: Iterable[date]) -> Source:
        """Up to where the topic had been read for these days. One whose parts do not all say so
        is left out."""
        source: Source = {}
        for day in sorted(days):
            kept = [self._store._offsets(part) for part in self._parts.get(day, ())]
            if kept and all(kept):
                reach: dict[str, int] = {}
                for one in kept:
                    reach |= {p: max(o, reach.get(p, 0)) for p, o in one.items()}
                source[day.isoformat()] = reach
        return source


@contextmanager
def _sound(part: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise OSError(f"{part} is damaged; move it away to go on without it: {error}") from error


def _day_of(folder: str) -> date | None:
    """None for what is no day's: one that was moved out of the way is called `day=….damaged`."""
    try:
        day = date.fromisoformat(folder.removeprefix("day="))
    except ValueError:
        return None
    return day if folder == f"day={day.isoformat()}" else None


def _filled(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.Table:
    """These columns; those that the part does not have, with what they would have said."""
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    there = set(batch.schema.names)
    return pa.Table.from_arrays(
        [
            batch[field.name] if field.name in there
            else pa.repeat(pa.scalar(_DEFAULTS.get(field.name), field.type), len(batch))
            for field in schema
        ],
        schema=schema,
    )  # fmt: skip


def table_of(traces: Iterable[Trace]) -> pa.Table:
    """Traces as a store's parts hold them, columns as in SCHEMA."""
    return pa.Table.from_pylist([_row(trace) for trace in traces], schema=SCHEMA)


def _row(trace: Trace) -> dict[str, Any]:
    return {
        "id": trace.id,
        "input": [trace.input] if isinstance(trace.input, str) else trace.input,
        "teacher": trace.teacher,
        "occurred_at": trace.occurred_at,
        "teacher_model": trace.teacher_model,
        "input_tokens": trace.tokens.input if trace.tokens else None,
        "output_tokens": trace.tokens.output if trace.tokens else None,
        "cost": trace.cost,
        "label": trace.label,
        "metadata": msgspec.json.encode(trace.metadata).decode() if trace.metadata else None,
        "source": trace.source.value,
        "observation_probability": trace.observation_probability,
        "deferral_reason": trace.deferral_reason.value if trace.deferral_reason else None,
        "prompt": trace.prompt,
        "version": trace.version,
        "drawn": trace.drawn,
        "audit_share": trace.audit_share,
        "opinions": msgspec.json.encode(trace.opinions).decode(),
    }
