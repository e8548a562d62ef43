from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from prometheus_client import REGISTRY

from services.trainer.handlers import Collector
from shared.bus.base import Message, Record, TopicPartition
from shared.bus.errors import InvalidMessage
from shared.clock import FakeClock
from shared.contracts.codec import encode
from shared.contracts.events import Trace
from shared.contracts.tasks import Task
from shared.core.window import WindowBook, WindowKey
from shared.store.parquet import WindowStore

DAY1, DAY2 = date(2026, 1, 1), date(2026, 1, 2)
AFTER = datetime(2026, 2, 1, tzinfo=UTC)  # all days are over


def trace(number: int, day: date = DAY1, hour: float = 12.0, task: str = "support") -> Trace:
    return Trace(
        id=f"t-{number}",
        task=task,
        input=f"text {number}",
        teacher="billing",
        occurred_at=datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hour),
    )


def message(event: Trace | bytes, offset: int, partition: int = 0) -> Message:
    value = event if isinstance(event, bytes) else encode(event)
    return Message("traces", partition, offset, b"key", value)


def rejected(message: Message, error: InvalidMessage) -> Record:
    return Record("dead-letters", message.key, f"{error.field}: {error}".encode())


@pytest.fixture
def store(tmp_path: Path) -> WindowStore:
    return WindowStore(str(tmp_path))


def collector(store: WindowStore, clock: FakeClock) -> Collector:
    return Collector(
        tasks={"support": Task(name="support")},
        store=store,
        windows=WindowBook(
            lateness=timedelta(0), idle=timedelta(seconds=60), partition_idle=timedelta(seconds=5)
        ),
        clock=clock,
        dead_letter=rejected,
    )


def ids(store: WindowStore, day: date) -> list[str]:
    found: list[str] = store.read("support", [day]).column("id").to_pylist()
    return found


def test_a_window_is_stored_when_the_watermark_passes(store: WindowStore) -> None:
    collected = collector(store, FakeClock(AFTER))
    collected.add([message(trace(2), 0), message(trace(1, hour=1), 1)], [0])
    assert list(collected.close_due()) == []
    collected.add([message(trace(3, DAY2), 2)], [0])
    assert list(collected.close_due()) == [WindowKey("support", DAY1)]
    assert ids(store, DAY1) == ["t-1", "t-2"]
    assert list(collected.close_due()) == []


def test_a_window_is_stored_when_its_task_is_idle(store: WindowStore) -> None:
    clock = FakeClock(datetime(2026, 2, 1, tzinfo=UTC))
    collected = collector(store, clock)
    collected.add([message(trace(1), 0)], [0])
    assert list(collected.close_due()) == []
    clock.sleep(61)
    assert list(collected.close_due()) == [WindowKey("support", DAY1)]


def test_what_open_windows_hold_is_a_metric(store: WindowStore) -> None:
    collected = collector(store, FakeClock(AFTER))
    collected.add([message(trace(1), 0), message(trace(2), 1), message(trace(3, DAY2), 2)], [0])
    assert REGISTRY.get_sample_value("tracer_trainer_held_traces") == 3
    assert list(collected.close_due()) == [WindowKey("support", DAY1)]
    assert REGISTRY.get_sample_value("tracer_trainer_held_traces") == 1


def test_offsets_are_released_only_by_storing(store: WindowStore) -> None:
    collected = collector(store, FakeClock(AFTER))
    partition = TopicPartition("traces", 0)
    collected.add([message(trace(1), 7), message(trace(2, DAY2), 8)], [0])
    assert collected.committable("traces") == {partition: 7}
    list(collected.close_due())
    assert collected.committable("traces") == {partition: 8}


def test_a_crash_before_the_commit_loses_and_doubles_nothing(store: WindowStore) -> None:
    """Everything from the committed offset comes again to a new process."""
    messages = [message(trace(i), i) for i in range(5)] + [message(trace(9, DAY2), 5)]
    first = collector(store, FakeClock(AFTER))
    first.add(messages, [0])
    list(first.close_due())
    again = collector(store, FakeClock(AFTER))
    again.windows.restore("support", store.days("support"))
    again.add([*messages, message(trace(10, date(2026, 1, 3)), 6)], [0])
    assert list(again.close_due()) == [WindowKey("support", DAY2)]  # day 1 is stored, not refitted
    assert ids(store, DAY1) == [f"t-{i}" for i in range(5)]
    assert ids(store, DAY2) == ["t-9"]


def test_late_traces_join_their_day_and_call_for_no_refit(store: WindowStore) -> None:
    clock = FakeClock(AFTER)
    collected = collector(store, clock)
    collected.add([message(trace(1), 0), message(trace(2, DAY2), 1)], [0])
    assert list(collected.close_due()) == [WindowKey("support", DAY1)]
    collected.add([message(trace(3), 2)], [0])
    assert collected.committable("traces") == {TopicPartition("traces", 0): 1}
    assert list(collected.close_due()) == []
    assert ids(store, DAY1) == ["t-1"]  # not one by one
    clock.sleep(61)
    assert WindowKey("support", DAY1) not in list(collected.close_due())
    assert sorted(ids(store, DAY1)) == ["t-1", "t-3"]


def test_late_traces_are_stored_before_the_next_refit(store: WindowStore) -> None:
    collected = collector(store, FakeClock(AFTER))
    collected.add([message(trace(1), 0), message(trace(2, DAY2), 1)], [0])
    list(collected.close_due())
    collected.add([message(trace(3), 2), message(trace(4, date(2026, 1, 3)), 3)], [0])
    refits = collected.close_due()
    assert next(refits) == WindowKey("support", DAY2)
    assert sorted(ids(store, DAY1)) == ["t-1", "t-3"]


def test_a_store_that_fails_on_one_window_keeps_the_refit_of_the_other(
    store: WindowStore,
) -> None:
    class Fails:
        def write(self, task: str, day: date, traces: list[Trace], offsets: dict[int, int]) -> int:
            if day == DAY2:
                raise OSError("no space left on device")
            return store.write(task, day, traces, offsets)

    collected = collector(store, FakeClock(AFTER))
    collected.add([message(trace(i, date(2026, 1, i)), i) for i in (1, 2, 3)], [0])
    collected.store = Fails()  # type: ignore[assignment]
    submitted = []

    def submit() -> None:
        for key in collected.close_due():
            submitted.append(key)  # noqa: PERF402 - one by one, as the trainer does

    with pytest.raises(OSError, match="no space"):
        submit()
    assert submitted == [WindowKey("support", DAY1)]
    collected.store = store
    submit()
    assert submitted == [WindowKey("support", DAY1), WindowKey("support", DAY2)]
    assert ids(store, DAY2) == ["t-2"]


@pytest.mark.parametrize("year", [1, 1970, 9999])
def test_days_at_the_edge_of_the_calendar_are_dead_letters(store: WindowStore, year: int) -> None:
    collected = collector(store, FakeClock(AFTER))
    collected.add([message(trace(1, date(year, 1, 1)), 0)], [0])
    (letter,) = collected.rejected
    assert letter.value.startswith(b"occurred_at: ")


def test_a_repeat_is_stored_once(store: WindowStore) -> None:
    collected = collector(store, FakeClock(AFTER))
    collected.add([message(trace(1), 0), message(trace(1), 1), message(trace(2, DAY2), 2)], [0])
    list(collected.close_due())
    assert ids(store, DAY1) == ["t-1"]


def test_what_is_no_trace_goes_to_the_dead_letters(store: WindowStore) -> None:
    collected = collector(store, FakeClock(AFTER))
    collected.add(
        [message(b"{", 0), message(b'{"id":"1"}', 1), message(trace(1, task="other"), 2)], [0]
    )
    letters = list(collected.rejected)
    assert [letter.value.split(b":")[0] for letter in letters] == [b"", b"task", b"task"]
    assert b"known: support" in letters[2].value
    assert collected.committable("traces") == {}  # not before they are published
    collected.rejected.clear()
    assert collected.committable("traces") == {TopicPartition("traces", 0): 3}


def test_a_store_that_fails_loses_nothing(store: WindowStore) -> None:
    class Full:
        def write(self, *_: object) -> int:
            raise OSError("no space left on device")

    collected = collector(store, FakeClock(AFTER))
    collected.add([message(trace(1), 0), message(trace(2, DAY2), 1)], [0])
    collected.store = Full()  # type: ignore[assignment]
    with pytest.raises(OSError, match="no space"):
        list(collected.close_due())
    assert collected.committable("traces") == {TopicPartition("traces", 0): 0}
    collected.store = store
    assert list(collected.close_due()) == [WindowKey("support", DAY1)]
    assert ids(store, DAY1) == ["t-1"]


def test_a_repeat_that_comes_late_is_stored_once_too(store: WindowStore) -> None:
    clock = FakeClock(AFTER)
    collected = collector(store, clock)
    collected.add([message(trace(1), 0), message(trace(2, DAY2), 1)], [0])
    list(collected.close_due())
    collected.add([message(trace(1), 2)], [0])
    clock.sleep(61)
    list(collected.close_due())
    assert ids(store, DAY1) == ["t-1"]
    assert collected.committable("traces") == {TopicPartition("traces", 0): 3}


def test_out_of_order_traces_of_several_partitions_fill_their_days(store: WindowStore) -> None:
    """However they come, every day gets its traces, sorted by event time."""
    days = [date(2026, 1, 1 + i // 10) for i in range(30)]
    events = [trace(i, days[i], hour=i % 10) for i in range(30)]
    order = np.random.default_rng(3).permutation(30)
    collected = collector(store, FakeClock(AFTER))
    for offset, i in enumerate(order):
        collected.add([message(events[i], offset, partition=int(i) % 3)], [0, 1, 2])
    collected.add(
        [message(trace(90 + p, date(2026, 1, 9)), 30, partition=p) for p in range(3)], [0, 1, 2]
    )
    assert [key.day.day for key in collected.close_due()] == [1, 2, 3]
    for number in range(3):
        expected = [f"t-{i}" for i in range(10 * number, 10 * number + 10)]
        assert ids(store, date(2026, 1, 1 + number)) == expected


def test_a_restart_amid_a_window_reads_it_again_whole(store: WindowStore) -> None:
    """Nothing of an open window is committed, so its successor gets all of it."""
    first = collector(store, FakeClock(AFTER))
    events = [message(trace(i), i) for i in range(6)]
    first.add(events[:4], [0])
    list(first.close_due())
    begins = first.committable("traces")[TopicPartition("traces", 0)]
    assert begins == 0
    again = collector(store, FakeClock(AFTER))
    again.windows.restore("support", store.days("support"))
    again.add([*events[begins:], message(trace(9, DAY2), 6)], [0])
    assert list(again.close_due()) == [WindowKey("support", DAY1)]
    assert ids(store, DAY1) == [f"t-{i}" for i in range(6)]


def test_a_rebalance_amid_a_window_holds_nothing_twice(store: WindowStore) -> None:
    """The day is read again from its first trace, and not to its end before it closes."""
    collected = collector(store, FakeClock(AFTER))
    events = [message(trace(i), i) for i in range(6)]
    for read in (events, events, events[:2]):
        collected.add(read, [0])
    assert REGISTRY.get_sample_value("tracer_trainer_held_traces") == 6
    collected.add([message(trace(9, DAY2), 6)], [0])
    list(collected.close_due())
    assert store.view("support").source([DAY1]) == {DAY1.isoformat(): {"0": 6}}


def test_only_late_traces_that_are_new_count_as_late(store: WindowStore) -> None:
    def late() -> float:
        return REGISTRY.get_sample_value("tracer_traces_late_total", {"task": "support"}) or 0.0

    before, clock = late(), FakeClock(AFTER)
    messages = [message(trace(i), i) for i in range(5)] + [message(trace(9, DAY2), 5)]
    collected = collector(store, clock)
    collected.add(messages, [0])
    list(collected.close_due())
    again = collector(store, clock)  # a restart reads what an open window had held back
    again.windows.restore("support", store.days("support"))
    again.add([*messages, message(trace(10), 6)], [0])
    clock.sleep(61)
    list(again.close_due())
    assert late() == before + 1


def test_future_dated_traces_wait_for_their_day(store: WindowStore) -> None:
    clock = FakeClock(datetime(2026, 1, 1, 12, tzinfo=UTC))
    collected = collector(store, clock)
    collected.add([message(trace(1, DAY2), 0), message(trace(2, DAY1), 1)], [0])
    assert list(collected.close_due()) == []
    clock.sleep(12 * 3600)
    collected.add([message(trace(3, DAY1, hour=23), 2)], [0])  # not late
    assert list(collected.close_due()) == [WindowKey("support", DAY1)]
    assert ids(store, DAY1) == ["t-2", "t-3"]
    assert collected.committable("traces") == {TopicPartition("traces", 0): 0}


def test_texts_are_redacted_before_they_are_stored(store: WindowStore) -> None:
    collected = collector(store, FakeClock(AFTER))
    collected.tasks = {"support": Task(name="support", redact="builtin")}
    secret = msgspec.structs.replace(trace(1), input=["I am ann@example.org", "nothing here"])
    collected.add([message(secret, 0), message(trace(2, DAY2), 1)], [0])
    assert list(collected.close_due()) == [WindowKey("support", DAY1)]
    (stored,) = store.read("support", [DAY1]).column("input").to_pylist()
    assert stored == ["I am [EMAIL]", "nothing here"]


def test_a_window_that_cannot_be_stored_holds_up_no_other_task(tmp_path: Path) -> None:
    class Damaged(WindowStore):
        def write(self, task: str, *rest: object, **more: object) -> int:
            if task == "a":
                raise OSError("a part is damaged")
            return super().write(task, *rest, **more)  # type: ignore[arg-type]

    store = Damaged(str(tmp_path))
    collected = collector(store, FakeClock(AFTER))
    collected.tasks = {"a": Task(name="a"), "b": Task(name="b")}
    collected.add(
        [message(trace(1, task="a"), 0), message(trace(2, task="b"), 1),
         message(trace(3, DAY2, task="a"), 2), message(trace(4, DAY2, task="b"), 3)], [0],
    )  # fmt: skip
    closed = collected.close_due()
    assert next(closed) == WindowKey("b", DAY1)
    with pytest.raises(OSError, match="damaged"):
        next(closed)
    assert store.read("b", [DAY1]).num_rows == 1
    assert collected.committable("traces") in ({}, {TopicPartition("traces", 0): 0})
