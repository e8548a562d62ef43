from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from shared.core.window import OffsetBook, WindowBook, WindowKey

DAY1, DAY2, DAY3 = date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)
LATER = datetime(2027, 1, 1, tzinfo=UTC)


def at(day: date, hour: float = 12.0) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hour)


@pytest.fixture
def book() -> WindowBook:
    return WindowBook(
        lateness=timedelta(hours=1),
        idle=timedelta(seconds=300),
        partition_idle=timedelta(seconds=5),
    )


def add(book: WindowBook, when: datetime, *, partition: int = 0, now: float = 0.0,
        assigned: tuple[int, ...] = (0,), task: str = "t") -> tuple[WindowKey, bool]:  # fmt: skip
    return book.add(task, when, partition=partition, assigned=assigned, now=now)


def test_a_trace_belongs_to_its_event_day(book: WindowBook) -> None:
    assert add(book, at(DAY1, 0.0)) == (WindowKey("t", DAY1), False)
    assert add(book, at(DAY1, 23.99)) == (WindowKey("t", DAY1), False)
    assert book.open_windows() == [WindowKey("t", DAY1)]


def test_the_day_is_that_of_the_tasks_time_zone(book: WindowBook) -> None:
    book.zones["t"] = ZoneInfo("America/New_York")
    assert add(book, at(DAY2, 3.0))[0].day == DAY1


def test_closed_by_the_watermark_after_the_lateness(book: WindowBook) -> None:
    add(book, at(DAY1))
    add(book, at(DAY2, 0.5))
    assert book.due(1.0, LONG_AGO) == []
    add(book, at(DAY2, 1.0))
    assert book.due(1.0, LONG_AGO) == [WindowKey("t", DAY1)]


def test_out_of_order_traces_do_not_move_the_watermark_back(book: WindowBook) -> None:
    add(book, at(DAY2, 2.0))
    add(book, at(DAY1))
    assert book.due(1.0, LONG_AGO) == [WindowKey("t", DAY1)]


def test_the_slowest_partition_holds_the_watermark(book: WindowBook) -> None:
    add(book, at(DAY1), partition=0, assigned=(0, 1))
    add(book, at(DAY3), partition=0, assigned=(0, 1))
    assert book.due(1.0, LONG_AGO) == []  # nothing is known of partition 1
    add(book, at(DAY1), partition=1, assigned=(0, 1), now=1.0)
    assert book.due(2.0, LONG_AGO) == []
    add(book, at(DAY2, 1.0), partition=1, assigned=(0, 1), now=2.0)
    assert book.due(2.0, LONG_AGO) == [WindowKey("t", DAY1)]


def test_a_silent_partition_does_not(book: WindowBook) -> None:
    add(book, at(DAY1), partition=0, assigned=(0, 1))
    add(book, at(DAY2, 1.0), partition=0, assigned=(0, 1), now=4.0)
    assert book.due(4.9, LONG_AGO) == []
    assert book.due(5.0, LONG_AGO) == [WindowKey("t", DAY1)]


def test_closed_by_idle_time_only_once_the_day_is_over(book: WindowBook) -> None:
    add(book, at(DAY1))
    assert book.due(299.0, LATER) == []
    assert book.due(300.0, at(DAY2, 0.99)) == []
    assert book.due(300.0, at(DAY2, 1.0)) == [WindowKey("t", DAY1)]


def test_tasks_do_not_close_one_another(book: WindowBook) -> None:
    add(book, at(DAY1), task="a")
    add(book, at(DAY3), task="b")
    assert book.due(1.0, LONG_AGO) == []


def test_a_late_trace_opens_its_window_again(book: WindowBook) -> None:
    key, late = add(book, at(DAY1))
    assert not late
    assert book.close(key)
    again, late = add(book, at(DAY1))
    assert (again, late) == (key, True)
    assert not book.close(key)


def test_windows_closed_before_a_restart_are_known(book: WindowBook) -> None:
    book.restore("t", [DAY1])
    assert add(book, at(DAY1))[1]
    assert not add(book, at(DAY2))[1]


def test_several_windows_close_oldest_first(book: WindowBook) -> None:
    add(book, at(DAY2))
    add(book, at(DAY1))
    add(book, at(DAY3, 2.0))
    assert book.due(1.0, LONG_AGO) == [WindowKey("t", DAY1), WindowKey("t", DAY2)]


def test_offsets_wait_for_every_open_window() -> None:
    offsets = OffsetBook()
    first, second = WindowKey("t", DAY1), WindowKey("t", DAY2)
    offsets.read(0, 10, first)
    offsets.read(0, 11, second)
    offsets.read(0, 12, first)
    offsets.read(1, 5, None)
    assert offsets.committable() == {0: 10, 1: 6}
    offsets.stored(first)
    assert offsets.committable() == {0: 11, 1: 6}
    offsets.stored(second)
    assert offsets.committable() == {0: 13, 1: 6}


def test_after_a_pause_of_the_reader_silence_says_nothing(book: WindowBook) -> None:
    add(book, at(DAY1), partition=0, assigned=(0, 1))
    add(book, at(DAY1), partition=1, assigned=(0, 1))
    book.wake(60.0)
    add(book, at(DAY3), partition=0, assigned=(0, 1), now=60.0)
    assert book.due(61.0, LONG_AGO) == []
    assert book.due(65.0, LONG_AGO) == [WindowKey("t", DAY1)]
