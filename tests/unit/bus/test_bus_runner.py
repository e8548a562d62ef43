from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import pytest

from shared.bus.base import Message, Pipe, Record
from shared.bus.errors import Fatal, Retryable
from shared.bus.memory import Crash, CrashPoint, MemoryPipe
from shared.bus.memory_broker import MemoryBroker
from shared.bus.retry import Backoff
from shared.bus.runner import run_pipe, stop_on_signals
from shared.clock import FakeClock
from shared.telemetry.health import Health

VALUES = [f"{i}".encode() for i in range(10)]


class Diary:
    """A health that writes down what it is told, beats as one."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def beat(self) -> None:
        if self.lines[-1:] != ["beat"]:
            self.lines.append("beat")

    def progress(self, consumed: int, waiting: int | None) -> None:
        self.waiting = waiting

    def ready(self) -> None:
        self.lines.append("ready")

    def not_ready(self, why: str) -> None:
        self.lines.append(f"not ready: {why}")


class Copier:
    """Copies every message to `out` and stops the loop when it has seen the last of VALUES."""

    def __init__(self, stop: threading.Event, out: str = "out") -> None:
        self.stop = stop
        self.out = out
        self.batches: list[list[bytes]] = []

    def __call__(self, messages: list[Message]) -> list[Record]:
        self.batches.append([message.value for message in messages])
        if messages[-1].value == VALUES[-1]:
            self.stop.set()
        return [Record(self.out, message.key, message.value) for message in messages]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    broker.create_topic("in")
    broker.create_topic("out")
    broker.publish([Record("in", b"k", value) for value in VALUES])
    return broker


def copied(broker: MemoryBroker) -> list[bytes]:
    return [message.value for message in broker.messages("out")]


def run(
    pipe: Pipe,
    handle: Callable[[list[Message]], Sequence[Record]],
    stop: threading.Event,
    clock: FakeClock,
    **options: object,
) -> Diary:
    diary = Diary()
    options = {"max_batch": 4, "max_wait": 0.0, "backoff": Backoff(jitter=lambda: 0.0)} | options
    try:
        run_pipe(pipe, handle, stop=stop, health=diary, clock=clock, **options)  # type: ignore[arg-type]
    finally:
        pipe.close()
    return diary


def test_it_handles_in_batches_and_finishes_the_one_in_work(
    broker: MemoryBroker, stop: threading.Event, clock: FakeClock
) -> None:
    handle = Copier(stop)
    diary = run(MemoryPipe(broker, group="g", topics=["in"]), handle, stop, clock)
    assert handle.batches == [VALUES[:4], VALUES[4:8], VALUES[8:]]
    assert copied(broker) == VALUES
    assert diary.lines == ["beat", "ready", "beat"]


@pytest.mark.parametrize(
    ("delivery", "point", "expected"),
    [
        ("exactly_once", CrashPoint.BEFORE_PUBLISH, VALUES),
        ("exactly_once", CrashPoint.AFTER_PUBLISH, VALUES),
        ("at_least_once", CrashPoint.BEFORE_PUBLISH, VALUES),
        ("at_least_once", CrashPoint.AFTER_PUBLISH, VALUES[:4] + VALUES),
    ],
)
def test_after_a_crash_a_successor_takes_up_what_was_not_committed(
    broker: MemoryBroker,
    stop: threading.Event,
    clock: FakeClock,
    delivery: str,
    point: CrashPoint,
    expected: list[bytes],
) -> None:
    handle = Copier(stop)
    pipe = MemoryPipe(broker, group="g", topics=["in"], delivery=delivery)  # type: ignore[arg-type]
    pipe.crash_next_commit(point)
    with pytest.raises(Crash):
        run(pipe, handle, stop, clock)
    successor = MemoryPipe(broker, group="g", topics=["in"], delivery=delivery)  # type: ignore[arg-type]
    run(successor, handle, stop, clock)
    assert copied(broker) == expected


def test_a_commit_is_retried_with_the_same_messages_after_longer_and_longer_waits(
    broker: MemoryBroker, stop: threading.Event, clock: FakeClock
) -> None:
    waited: list[float] = []

    def later(error: Retryable) -> None:
        waited.append(clock.monotonic())
        if len(waited) == 4:
            broker.create_topic("later")

    handle = Copier(stop, out="later")
    diary = run(MemoryPipe(broker, group="g", topics=["in"]), handle, stop, clock, on_retry=later)
    assert handle.batches[:5] == [VALUES[:4]] * 5
    assert [message.value for message in broker.messages("later")] == VALUES
    assert waited == pytest.approx([0.0, 0.1, 0.3, 0.7])
    assert diary.lines == ["beat", "not ready: no such topic: later"] * 4 + [
        "beat", "ready", "beat"
    ]  # fmt: skip


def test_a_handler_is_retried_with_its_batch_and_without_polling(
    broker: MemoryBroker, stop: threading.Event, clock: FakeClock
) -> None:
    copy = Copier(stop)
    failures = iter([Retryable("store away"), Retryable("store away")])

    def handle(messages: list[Message]) -> list[Record]:
        records = copy(messages)
        for failure in islice(failures, 1):
            raise failure
        return records

    diary = run(MemoryPipe(broker, group="g", topics=["in"]), handle, stop, clock)
    assert copy.batches == [VALUES[:4]] * 3 + [VALUES[4:8], VALUES[8:]]
    assert copied(broker) == VALUES
    assert diary.lines[0] == "not ready: store away"
    assert diary.lines[-2:] == ["ready", "beat"]


def test_a_stop_ends_the_wait_and_commits_nothing(
    broker: MemoryBroker, stop: threading.Event, clock: FakeClock
) -> None:
    def handle(messages: list[Message]) -> list[Record]:
        raise Retryable("store away")

    def stopping(error: Retryable) -> None:
        stop.set()

    run(MemoryPipe(broker, group="g", topics=["in"]), handle, stop, clock, on_retry=stopping)
    assert broker.committed("g") == {}
    assert clock.monotonic() == 0.0


def test_a_long_wait_looks_alive(
    broker: MemoryBroker, stop: threading.Event, clock: FakeClock
) -> None:
    health = Health(clock, stall_seconds=1.0)
    alive: list[bool] = []

    class Watched(FakeClock):
        def sleep(self, seconds: float) -> None:
            clock.sleep(seconds)
            alive.append(health.liveness()[0])

    def handle(messages: list[Message]) -> list[Record]:
        if clock.monotonic() > 60:
            stop.set()
        raise Retryable("store away")

    run_pipe(
        MemoryPipe(broker, group="g", topics=["in"]),
        handle,
        stop=stop,
        health=health,
        clock=Watched(),
        max_batch=4,
        max_wait=0.0,
        backoff=Backoff(jitter=lambda: 0.0),
    )
    assert len(alive) > 60
    assert all(alive)
    assert health.readiness() == (False, "store away")


@pytest.mark.parametrize("error", [Fatal("fenced"), ZeroDivisionError("a bug")])
def test_anything_else_ends_the_loop_uncommitted(
    broker: MemoryBroker, stop: threading.Event, clock: FakeClock, error: Exception
) -> None:
    def handle(messages: list[Message]) -> list[Record]:
        raise error

    with pytest.raises(type(error)):
        run(MemoryPipe(broker, group="g", topics=["in"]), handle, stop, clock)
    assert broker.committed("g") == {}
    assert copied(broker) == []


def test_an_empty_poll_after_a_failed_commit_is_no_recovery(
    stop: threading.Event, clock: FakeClock
) -> None:
    message = Message("in", 0, 0, b"k", b"v")

    class Rewound:
        """Its first commit fails, and the messages are some polls away then."""

        polls = iter([[message], [], [], [message], []])
        commits = 0

        def poll(self, max_messages: int, timeout: float) -> list[Message]:
            polled = next(self.polls)
            if not polled and self.commits == 2:
                stop.set()
            return polled

        def begin_commit(self, records: Sequence[Record]) -> None:
            self.commits += 1
            if self.commits == 1:
                raise Retryable("broker away")

        def settled(self, timeout: float) -> bool:
            return True

        def lag(self) -> int:
            return 2 - self.commits

        def close(self) -> None:
            pass

    diary = run(Rewound(), lambda messages: [], stop, clock)
    assert diary.lines == ["not ready: broker away", "beat", "ready", "beat"]


def test_an_idle_loop_is_ready(stop: threading.Event, clock: FakeClock) -> None:
    broker = MemoryBroker()
    broker.create_topic("in")

    class Idle(MemoryPipe):
        def lag(self) -> int:
            stop.set()
            return super().lag()

    diary = run(Idle(broker, group="g", topics=["in"]), lambda messages: [], stop, clock)
    assert diary.lines == ["ready", "beat"]


class Silent:
    """Its polls return, with nothing: a consumer that has died without a word.

    It never heard of the messages that wait, so its own lag is 0."""

    def __init__(self, stop: threading.Event, clock: FakeClock, waiting: Sequence[int | None]):
        self.stop, self.clock = stop, clock
        self.answers = iter(waiting)
        self.asked_at: list[float] = []

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        self.clock.sleep(1.0)
        return []

    def settled(self, timeout: float) -> bool:
        return True

    def lag(self) -> int:
        return 0

    def waiting(self, timeout: float) -> int | None:
        self.asked_at.append(self.clock.monotonic())
        answer = next(self.answers, self)
        if answer is self:
            self.stop.set()
            return None
        return answer  # type: ignore[return-value]

    def close(self) -> None:
        pass


def alive_after(
    waiting: Sequence[int | None], stop: threading.Event, clock: FakeClock
) -> tuple[list[bool], Silent]:
    """Whether health says alive at each beat."""
    health = Health(clock, stall_seconds=30.0)
    alive: list[bool] = []

    class Watched(Diary):
        def beat(self) -> None:
            health.beat()
            alive.append(health.liveness()[0])

        def progress(self, consumed: int, waiting: int | None) -> None:
            health.progress(consumed, waiting)

    pipe = Silent(stop, clock, waiting)
    run_pipe(
        pipe, lambda messages: [], stop=stop, health=Watched(), clock=clock,
        max_batch=4, max_wait=0.0,
    )  # fmt: skip
    return alive, pipe


def test_a_consumer_that_takes_in_nothing_while_messages_wait_is_dead(
    stop: threading.Event, clock: FakeClock
) -> None:
    alive, pipe = alive_after([0, 0] + [3] * 8, stop, clock)
    assert pipe.asked_at == [5.0 * turn for turn in range(1, 12)]  # every five seconds of silence
    # Since the 15th second it is known to be behind.
    assert next(second for second, well in enumerate(alive, 1) if not well) == 15 + 31


def test_a_consumer_whose_broker_is_away_is_not_dead(
    stop: threading.Event, clock: FakeClock
) -> None:
    alive, _ = alive_after([3, 3, *[None] * 40], stop, clock)
    assert all(alive)
    assert len(alive) > 200


def test_after_a_message_it_takes_five_silent_seconds_to_ask(
    broker: MemoryBroker, stop: threading.Event, clock: FakeClock
) -> None:
    class Slow(MemoryPipe):
        asked = 0

        def poll(self, max_messages: int, timeout: float) -> list[Message]:
            clock.sleep(4.0)
            return super().poll(max_messages, timeout)

        def waiting(self, timeout: float) -> int | None:
            self.asked += 1
            return super().waiting(timeout)

    pipe = Slow(broker, group="g", topics=["in"])
    run(pipe, Copier(stop), stop, clock)
    assert clock.monotonic() > 10.0
    assert pipe.asked == 0


def test_the_lag_is_told_about_once_a_second_and_what_each_batch_took(
    broker: MemoryBroker, stop: threading.Event, clock: FakeClock
) -> None:
    copy, lags = Copier(stop), list[int]()

    def handle(messages: list[Message]) -> list[Record]:
        clock.sleep(0.6)
        return copy(messages)

    pipe, took = MemoryPipe(broker, group="g", topics=["in"]), list[float]()
    run(pipe, handle, stop, clock, max_batch=2, on_lag=lags.append, on_batch=took.append)
    assert lags == [10, 6, 2]  # at 0.6, 1.8 and 3 seconds, when a batch is handled and in flight
    assert took == pytest.approx([0.6] * 5)


class Flying(MemoryPipe):
    """Its commits end when `lands(handled batches)` says so; `commits` says what each covered."""

    def __init__(self, broker: MemoryBroker, lands: Callable[[], bool]) -> None:
        super().__init__(broker, group="g", topics=["in"])
        self.lands = lands
        self.commits: list[list[bytes]] = []
        self.polled: list[int] = []
        self.waits: list[float] = []

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        self.polled.append(max_messages)
        return super().poll(min(max_messages, 2), timeout)

    def begin_commit(self, records: Sequence[Record]) -> None:
        self.commits.append([record.value for record in records])
        super().begin_commit(records)

    def settled(self, timeout: float) -> bool:
        if self._flight is not None and not self.lands():
            self.waits.append(timeout)
            return False
        return super().settled(timeout)


def test_while_a_commit_is_in_flight_batches_are_handled_that_share_the_next(
    broker: MemoryBroker, stop: threading.Event, clock: FakeClock
) -> None:
    handle = Copier(stop)
    pipe = Flying(broker, lambda: len(handle.batches) >= 3)
    run(pipe, handle, stop, clock, max_batch=6)
    assert pipe.commits == [VALUES[:2], VALUES[2:6], VALUES[6:8], VALUES[8:]]
    assert copied(broker) == VALUES


def test_no_more_is_polled_than_one_commit_takes(
    broker: MemoryBroker, stop: threading.Event, clock: FakeClock
) -> None:
    handle = Copier(stop)
    pipe = Flying(broker, lambda: len(pipe.waits) >= 10)
    run(pipe, handle, stop, clock, max_batch=4)
    assert pipe.polled[:3] == [4, 4, 2]
    assert pipe.commits[:2] == [VALUES[:2], VALUES[2:6]]
    # A look, then a short wait for more to share it, and long ones when there is no room for any.
    assert {0.0, 0.005, 0.5} == set(pipe.waits)
    assert copied(broker) == VALUES


def test_a_commit_that_fails_takes_back_what_was_handled_after_it(
    broker: MemoryBroker, stop: threading.Event, clock: FakeClock
) -> None:
    failed: list[Retryable] = []

    def later(error: Retryable) -> None:
        failed.append(error)
        broker.create_topic("later")

    handle = Copier(stop, out="later")
    pipe = Flying(broker, lambda: len(handle.batches) >= 2)
    run(pipe, handle, stop, clock, on_retry=later)
    assert len(failed) == 1
    assert handle.batches[:4] == [VALUES[:2], VALUES[2:4], VALUES[:2], VALUES[2:4]]
    assert [message.value for message in broker.messages("later")] == VALUES


def test_a_stop_waits_for_the_commit_in_flight_and_sends_what_was_handled(
    broker: MemoryBroker, stop: threading.Event, clock: FakeClock
) -> None:
    handle = Copier(stop)
    pipe = Flying(broker, lambda: stop.is_set())
    run(pipe, handle, stop, clock, max_batch=10)
    assert pipe.commits == [VALUES[:2], VALUES[2:]]
    assert copied(broker) == VALUES


def test_a_stop_while_a_batch_cannot_be_handled_commits_nothing_of_that_commit(
    broker: MemoryBroker, stop: threading.Event, clock: FakeClock
) -> None:
    copy = Copier(stop)

    def handle(messages: list[Message]) -> list[Record]:
        if messages[0].value == VALUES[4]:
            raise Retryable("store away")
        return copy(messages)

    pipe = Flying(broker, lambda: stop.is_set())
    run(pipe, handle, stop, clock, max_batch=10, on_retry=lambda _: stop.set())
    assert copied(broker) == VALUES[:2]  # [2:4] was handled, and would have shared the commit
    assert list(broker.committed("g").values()) == [2]


def test_a_last_commit_that_fails_is_left_to_the_successor(
    broker: MemoryBroker, stop: threading.Event, clock: FakeClock
) -> None:
    handle = Copier(stop, out="nowhere")
    run(MemoryPipe(broker, group="g", topics=["in"]), handle, stop, clock, max_batch=10)
    assert broker.committed("g") == {}


@pytest.fixture
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_stops_and_the_second_ends(
    stop: threading.Event, number: signal.Signals
) -> None:
    stop_on_signals(stop)
    os.kill(os.getpid(), number)
    assert stop.is_set()
    with pytest.raises(SystemExit) as ended:
        os.kill(os.getpid(), number)
    assert ended.value.code == 128 + number


def test_pauses_double_to_a_limit_and_jitter_only_shortens() -> None:
    plain = Backoff(first=1.0, longest=5.0, jitter=lambda: 0.0)
    assert list(islice(plain.pauses(), 5)) == [1.0, 2.0, 4.0, 5.0, 5.0]
    most = Backoff(first=1.0, longest=5.0, jitter=lambda: 1.0)
    assert list(islice(most.pauses(), 3)) == [0.5, 1.0, 2.0]
