"""Daily windows by event time: which window a trace belongs to, and when a window closes.

A window closes when the watermark passes its end plus the allowed lateness, or, where no newer
trace comes to move the watermark, when its task has been idle and the clock itself is past that
point. The watermark of a task is the smallest of its partitions' newest event times, so that a
replay that reads one partition ahead of the others closes nothing early; partitions that have been
silent for `partition_idle` do not hold it back (as in Flink's idle sources).
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
    _open: dict[WindowKey, bool] = field(default_factory=dict)  # value: was it closed before?
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
        self._open.setdefault(key, late)
        return key, late

    def due(self, now: float, wall: datetime) -> list[WindowKey]:
        """Windows to close, oldest first. They stay open until `close` is called."""
        return sorted(key for key in self._open if self._is_due(key, now, wall))

    def close(self, key: WindowKey) -> bool:
        """Returns whether the window is new, that is, was never closed before."""
        dirty = self._open.pop(key)
        self._closed.setdefault(key.task, set()).add(key.day)
        return not dirty

    def open_windows(self) -> list[WindowKey]:
        return sorted(self._open)

    def _zone(self, task: str) -> tzinfo:
        return self.zones.get(task, UTC)

    def _is_due(self, key: WindowKey, now: float, wall: datetime) -> bool:
        next_day = datetime.combine(key.day + timedelta(days=1), time(), self._zone(key.task))
        end = next_day + self.lateness
        partitions = self._progress[key.task].values()
        idle_for = now - max(p.seen_at for p in partitions)
        if idle_for >= self.idle.total_seconds() and wall >= end:
            return True
        watched = [p for p in partitions if now - p.seen_at < self.partition_idle.total_seconds()]
        if not watched or any(p.newest is None for p in watched):
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

    def forget(self, partition: int) -> None:
        """The partition is no longer ours."""
        self._next.pop(partition, None)
        for held in self._held.values():
            held.pop(partition, None)

    def committable(self) -> dict[int, int]:
        """The next offset to read after a restart, by partition."""
        return {
            partition: min(
                [following, *(h[partition] for h in self._held.values() if partition in h)]
            )
            for partition, following in self._next.items()
        }
