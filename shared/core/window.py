"""Daily windows by event time: which window a trace belongs to, and when a window closes.

A window closes when the watermark passes its end plus the allowed lateness, or, where no newer
trace comes to move the watermark, when its task has been idle; and never before the clock itself
is past that point, so that traces dated in the future close nothing early. The watermark of a task
is the smallest of its partitions' newest event times, so that a replay that reads one partition
ahead of the others closes nothing early; partitions that have been silent for `partition_idle` do
not hold it back (as in Flink's idle sources).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import NamedTuple


class WindowKey(NamedTuple):
    task: str
    day: date


@dataclass
class _Open:
    """An open window; `dirty`: it was closed before and has got late traces."""

    dirty: bool
    touched_at: float


@dataclass
class _Progress:
    """How far a task has come in one partition."""

    newest: datetime | None
    seen_at: float


@dataclass
class WindowBook:
    """Open and closed windows of all tasks. `now` is a monotonic time in seconds throughout."""

    lateness: timedelta
    idle: timedelta
    partition_idle: timedelta
    zones: dict[str, tzinfo] = field(default_factory=dict)
    _open: dict[WindowKey, _Open] = field(default_factory=dict)
    _closed: dict[str, set[date]] = field(default_factory=dict)
    _progress: dict[str, dict[int, _Progress]] = field(default_factory=dict)

    def restore(self, task: str, closed: Iterable[date]) -> None:
        """Tell the book of windows that an earlier run has closed."""
        self._closed.setdefault(task, set()).update(closed)

    def add(
        self, task: str, occurred_at: datetime, *, partition: int, assigned: Iterable[int],
        now: float,
    ) -> tuple[WindowKey, bool]:  # fmt: skip
        """Put one trace in its window, opening it if need be.

        Returns the window and whether it was closed before, that is, whether the trace is late:
        such a window is open again (dirty) and is stored again when it closes.
        """
        key = WindowKey(task, occurred_at.astimezone(self._zone(task)).date())
        partitions = self._progress.setdefault(task, {})
        for other in assigned:
            partitions.setdefault(other, _Progress(None, now))
        progress = partitions.setdefault(partition, _Progress(None, now))
        progress.seen_at = now
        if progress.newest is None or occurred_at > progress.newest:
            progress.newest = occurred_at
        late = key.day in self._closed.get(task, ())
        self._open.setdefault(key, _Open(late, now)).touched_at = now
        return key, late

    def wake(self, now: float) -> None:
        """After a pause of the whole reader: nobody's silence until now says anything."""
        for partitions in self._progress.values():
            for progress in partitions.values():
                progress.seen_at = now

    def due(self, now: float, wall: datetime) -> list[WindowKey]:
        """Windows to close, oldest first. They stay open until `close` is called.

        Late traces are stored before the next refit of their task, or once none has come for
        `idle`: not one by one.
        """
        fresh = [
            key
            for key, window in self._open.items()
            if not window.dirty and self._is_due(key, now, wall)
        ]
        refitted = {key.task for key in fresh}
        dirty = [
            key
            for key, window in self._open.items()
            if window.dirty
            and (key.task in refitted or now - window.touched_at >= self.idle.total_seconds())
        ]
        return sorted(fresh + dirty)

    def close(self, key: WindowKey) -> bool:
        """Returns whether the window is new, that is, was never closed before."""
        window = self._open.pop(key)
        self._closed.setdefault(key.task, set()).add(key.day)
        return not window.dirty

    def _zone(self, task: str) -> tzinfo:
        return self.zones.get(task, UTC)

    def _is_due(self, key: WindowKey, now: float, wall: datetime) -> bool:
        next_day = datetime.combine(key.day + timedelta(days=1), time(), self._zone(key.task))
        end = next_day.astimezone(UTC) + self.lateness  # not by a clock that may be put forward
        partitions = self._progress[key.task].values()
        if wall < end:  # whatever a sender's clock says, the day is not over
            return False
        idle_for = now - max(p.seen_at for p in partitions)
        if idle_for >= self.idle.total_seconds():
            return True
        watched = [p for p in partitions if now - p.seen_at < self.partition_idle.total_seconds()]
        if not watched:  # all are silent: the newest trace of any is as far as the task has come
            return max(p.newest for p in partitions if p.newest is not None) >= end
        if any(p.newest is None for p in watched):
            return False
        return min(p.newest for p in watched if p.newest is not None) >= end


@dataclass
class OffsetBook:
    """The offsets that may be committed: nothing of an open window is ever passed over."""

    _next: dict[int, int] = field(default_factory=dict)
    _held: dict[WindowKey, dict[int, int]] = field(default_factory=dict)

    def read(self, partition: int, offset: int, key: WindowKey | None) -> None:
        """A message was read; `key` is the open window that holds it in memory, if any."""
        self._next[partition] = max(self._next.get(partition, 0), offset + 1)
        if key is not None:
            held = self._held.setdefault(key, {})
            held[partition] = min(held.get(partition, offset), offset)

    def stored(self, key: WindowKey) -> None:
        """The window is safely stored: its offsets no longer hold anything back."""
        self._held.pop(key, None)

    def committable(self) -> dict[int, int]:
        """The next offset to read after a restart, by partition."""
        return {
            partition: min(
                [following, *(h[partition] for h in self._held.values() if partition in h)]
            )
            for partition, following in self._next.items()
        }
