from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from shared.core.window import OffsetBook, WindowBook, WindowKey

DAY1, DAY2, DAY3 = date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)
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
    assert book.due(1_000.0, LATER) == [WindowKey("t", DAY1)]


def test_the_day_is_that_of_the_tasks_time_zone(book: WindowBook) -> None:
    book.zones["t"] = ZoneInfo("America/New_York")
    assert add(book, at(DAY2, 3.0))[0].day == DAY1


def test_closed_by_the_watermark_after_the_lateness(book: WindowBook) -> None:
    add(book, at(DAY1))
    add(book, at(DAY2, 0.5))
    assert book.due(1.0, LATER) == []
    add(book, at(DAY2, 1.0))
    assert book.due(1.0, LATER) == [WindowKey("t", DAY1)]


def test_out_of_order_traces_do_not_move_the_watermark_back(book: WindowBook) -> None:
    add(book, at(DAY2, 2.0))
    add(book, at(DAY1))
    assert book.due(1.0, LATER) == [WindowKey("t", DAY1)]


def test_the_slowest_partition_holds_the_watermark(book: WindowBook) -> None:
    add(book, at(DAY1), partition=0, assigned=(0, 1))
    add(book, at(DAY3), partition=0, assigned=(0, 1))
    assert book.due(1.0, LATER) == []  # nothing is known of partition 1
    add(book, at(DAY1), partition=1, assigned=(0, 1), now=1.0)
    assert book.due(2.0, LATER) == []
    add(book, at(DAY2, 1.0), partition=1, assigned=(0, 1), now=2.0)
    assert book.due(2.0, LATER) == [WindowKey("t", DAY1)]


def test_a_silent_partition_does_not(book: WindowBook) -> None:
    add(book, at(DAY1), partition=0, assigned=(0, 1))
    add(book, at(DAY2, 1.0), partition=0, assigned=(0, 1), now=4.0)
    assert book.due(4.9, LATER) == []
    assert book.due(5.0, LATER) == [WindowKey("t", DAY1)]


def test_closed_by_idle_time_only_once_the_day_is_over(book: WindowBook) -> None:
    add(book, at(DAY1))
    assert book.due(299.0, LATER) == []
    assert book.due(300.0, at(DAY2, 0.99)) == []
    assert book.due(300.0, at(DAY2, 1.0)) == [WindowKey("t", DAY1)]


def test_tasks_do_not_close_one_another(book: WindowBook) -> None:
    add(book, at(DAY1), task="a")
    add(book, at(DAY3), task="b")
    assert book.due(1.0, LATER) == []


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
    assert book.due(1.0, LATER) == [WindowKey("t", DAY1), WindowKey("t", DAY2)]


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
    assert book.due(61.0, LATER) == []
    assert book.due(65.0, LATER) == [WindowKey("t", DAY1)]


def test_traces_dated_in_the_future_close_nothing_early(book: WindowBook) -> None:
    """A sender whose clock is a day ahead moves the watermark, not the day."""
    add(book, at(DAY1, 9.0))
    add(book, at(DAY2, 9.0))
    assert book.due(1.0, at(DAY1, 9.1)) == []
    assert not add(book, at(DAY1, 23.0))[1]  # what comes after it is not late
    assert book.due(2.0, at(DAY2, 0.99)) == []
    assert book.due(2.0, at(DAY2, 1.0)) == [WindowKey("t", DAY1)]


def test_late_within_the_lateness_is_not_late_beyond_it_is(book: WindowBook) -> None:
    add(book, at(DAY1))
    add(book, at(DAY2, 0.9))
    key, late = add(book, at(DAY1, 23.9))
    assert (key.day, late) == (DAY1, False)
    add(book, at(DAY2, 1.0))
    book.close(*book.due(1.0, LATER))
    assert add(book, at(DAY1, 23.9)) == (WindowKey("t", DAY1), True)


def test_dirty_windows_wait_for_the_next_refit_or_for_idle_time(book: WindowBook) -> None:
    book.restore("t", [DAY1])
    add(book, at(DAY1), now=10.0)
    assert book.due(309.0, LATER) == []
    assert book.due(310.0, LATER) == [WindowKey("t", DAY1)]
    add(book, at(DAY2), now=11.0)
    add(book, at(DAY3, 1.0), now=12.0)
    assert book.due(13.0, LATER) == [WindowKey("t", DAY1), WindowKey("t", DAY2)]


NEW_YORK = ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("day", "begins", "hours"),
    [
        (date(2026, 3, 8), datetime(2026, 3, 8, 5, tzinfo=UTC), 23),  # clocks go forward
        (date(2026, 7, 1), datetime(2026, 7, 1, 4, tzinfo=UTC), 24),
        (date(2026, 11, 1), datetime(2026, 11, 1, 4, tzinfo=UTC), 25),  # and back
    ],
)
def test_days_of_a_zone_are_as_long_as_its_clocks_make_them(
    book: WindowBook, day: date, begins: datetime, hours: int
) -> None:
    book.zones["t"] = NEW_YORK
    ends = begins + timedelta(hours=hours)
    second = timedelta(seconds=1)
    assert add(book, begins - second)[0].day == day - timedelta(days=1)
    assert add(book, begins)[0].day == add(book, ends - second)[0].day == day
    assert add(book, ends)[0].day == day + timedelta(days=1)
    closed = [WindowKey("t", day - timedelta(days=1))]
    assert book.due(1.0, LATER) == closed  # a day later, less an hour of lateness
    add(book, ends + timedelta(hours=1) - second)
    assert book.due(1.0, LATER) == closed
    add(book, ends + timedelta(hours=1))
    assert book.due(1.0, LATER) == [*closed, WindowKey("t", day)]


@pytest.mark.parametrize(
    ("zone", "day", "lateness"),
    [
        ("Africa/Cairo", date(2026, 4, 23), 1),  # clocks go forward at midnight
        ("America/Santiago", date(2026, 9, 5), 1),
        ("Europe/Berlin", date(2026, 3, 28), 3),  # and three hours after it
        ("Europe/Berlin", date(2026, 10, 24), 3),  # and back
    ],
)
def test_what_is_an_hour_late_counts_on_days_before_the_clocks_change(
    book: WindowBook, zone: str, day: date, lateness: int
) -> None:
    book.zones["t"] = ZoneInfo(zone)
    book.lateness = timedelta(hours=lateness)
    second = timedelta(seconds=1)
    midnight = datetime.combine(day + timedelta(days=1), time(), book.zones["t"]).astimezone(UTC)
    add(book, midnight - second)
    add(book, midnight + book.lateness - second)
    assert book.due(1.0, LATER) == []
    add(book, midnight + book.lateness)
    assert book.due(1.0, LATER) == [WindowKey("t", day)]


def test_the_hour_that_is_there_twice_belongs_to_its_day(book: WindowBook) -> None:
    book.zones["t"] = NEW_YORK
    once = datetime(2026, 11, 1, 1, 30, fold=0, tzinfo=NEW_YORK)
    again = datetime(2026, 11, 1, 1, 30, fold=1, tzinfo=NEW_YORK)
    assert again.astimezone(UTC) - once.astimezone(UTC) == timedelta(hours=1)
    assert add(book, once)[0] == add(book, again)[0] == WindowKey("t", date(2026, 11, 1))


def test_tasks_of_different_zones_close_at_different_times(book: WindowBook) -> None:
    book.zones |= {"tokyo": ZoneInfo("Asia/Tokyo"), "hawaii": ZoneInfo("Pacific/Honolulu")}
    moment = at(DAY1, 12.0)  # 21:00 in Tokyo, 02:00 in Honolulu
    for task in ("tokyo", "hawaii"):
        add(book, moment, task=task)
        add(book, moment + timedelta(hours=5), task=task)
    assert book.due(1.0, LATER) == [WindowKey("tokyo", DAY1)]
