"""Files of other systems' logs, through the same adapters and mappings as ingest's topics."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.ctl.output import fail
from shared.contracts.events import RawTrace
from shared.contracts.mapping import Format
from shared.contracts.tasks import InvalidTasks, Task, load_tasks
from shared.sources.catalogue import Lost, default_reader, readers_of, sort
from shared.sources.files import parts
from shared.sources.reading import Reader

_SHOWN_REASONS = 10


@dataclass(slots=True)
class Report:
    """What became of the calls of a file. `reasons`: why calls were refused or passed over, and
    how many for each; a reason that names values keeps to its first words."""

    taken: int = 0
    refused: int = 0
    skipped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """The commonest reasons, for people."""
        return [f"{n:>6} x {why}" for why, n in self.reasons.most_common(_SHOWN_REASONS)]


@dataclass(frozen=True, slots=True)
class Seen:
    """One call of a file, by the line or element it is in."""

    number: int
    result: RawTrace | Lost | str


def readers_for(tasks_file: Path, name: str, format: Format) -> list[Reader]:
    """The task's mappings of that format, or the format's own where the file has none.

    Ends the command when the task is not there or its mapping cannot be used.
    """
    try:
        tasks = load_tasks(tasks_file) if tasks_file.exists() else {name: Task(name=name)}
        if name not in tasks:
            known = ", ".join(sorted(tasks))
            fail(f"--task {name}: not in {tasks_file}; it has {known}", code=2)
        return readers_of([tasks[name]], format) or [default_reader(tasks[name], format)]
    except InvalidTasks as error:
        fail(str(error), code=2)


def calls_of(
    path: Path, format: Format, readers: Sequence[Reader], report: Report, inputs: Path | None
) -> Iterator[Seen]:
    """Every call of a file in its order, counted in `report`. Raises UnreadableFile.

    A call without an id of its own is known by its place and content: read again, or from a file
    that has grown, it is the same one; the same line of another file is another.
    """
    for part in parts(path, format, inputs):
        content = hashlib.sha256(part.value).hexdigest()[:12]
        found = sort(part.value, f"row-{part.number}-{content}", format, readers)
        for taken in found.taken:
            report.taken += 1
            yield Seen(part.number, taken.trace)
        for lost in found.lost:
            report.refused += 1
            report.reasons[f"{lost.error.field or 'record'}: {lost.error}"] += 1
            yield Seen(part.number, lost)
        for why in found.skipped:
            report.skipped += 1
            report.reasons[f"skipped: {why}"] += 1
            yield Seen(part.number, why)
