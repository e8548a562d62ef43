"""Concurrent calls become one batch; every call is answered; nothing grows without bound."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future

import pytest

from services.router.batcher import Batcher, Closed, Full, Limits
from shared.bus.errors import Fatal, Retryable
from shared.clock import SystemClock

PATIENCE = 10.0


class Work:
    """Doubles its items; each batch waits for `go` when held."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.failures: list[Exception] = []

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.entered.set()
        assert self.go.wait(PATIENCE)
        if self.failures:
            raise self.failures.pop(0)
        return [2 * item for item in items]


class Bench:
    def __init__(self) -> None:
        self.work = Work()
        self.fatal: list[Fatal] = []
        self.opened: list[Batcher[int, int]] = []

    def batcher(
        self, *, batch: int = 100, queued: int = 1_000, linger: float = 0.0,
        weight: float = math.inf,
    ) -> Batcher[int, int]:  # fmt: skip
        """Each item weighs what it is."""
        made = Batcher[int, int](
            self.work, Limits(batch, queued, linger, weight), clock=SystemClock(),
            on_fatal=self.fatal.append, weigh=lambda item: item,
        )  # fmt: skip
        made.start()
        self.opened.append(made)
        return made

    def held(self, batcher: Batcher[int, int]) -> Future[list[int]]:
        """The worker is at this call until `go`."""
        self.work.go.clear()
        self.work.entered.clear()
        first = batcher.submit([0])
        assert self.work.entered.wait(PATIENCE)
        return first


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.work.go.set()
    for batcher in made.opened:
        batcher.close(PATIENCE)


def results(futures: Sequence[Future[list[int]]]) -> list[list[int]]:
    return [future.result(PATIENCE) for future in futures]


def test_what_comes_while_the_worker_is_busy_is_one_batch_in_order(bench: Bench) -> None:
    batcher = bench.batcher()
    first = bench.held(batcher)
    calls = [batcher.submit([10 * i, 10 * i + 1]) for i in range(1, 6)]
    bench.work.go.set()
    assert results([first, *calls]) == [[0]] + [[20 * i, 20 * i + 2] for i in range(1, 6)]
    assert bench.work.batches == [[0], [10 * i + j for i in range(1, 6) for j in (0, 1)]]


def test_many_threads_get_their_own_answers_in_fewer_batches(bench: Bench) -> None:
    batcher = bench.batcher(batch=64)
    answers: dict[int, list[int]] = {}

    def call(i: int) -> None:
        for _ in range(20):
            answers[i] = batcher.submit([i, -i]).result(PATIENCE)
            assert answers[i] == [2 * i, -2 * i]

    bench.held(batcher)
    threads = [threading.Thread(target=call, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    until(lambda: batcher._queued == 32)
    bench.work.go.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(answers) == 16
    assert len(bench.work.batches[1]) == 32
    assert all(len(batch) <= 64 for batch in bench.work.batches)


def test_a_call_is_not_split_and_one_larger_than_a_batch_goes_alone(bench: Bench) -> None:
    batcher = bench.batcher(batch=4)
    first = bench.held(batcher)
    calls = [batcher.submit([1] * n) for n in (3, 2, 9, 1)]
    bench.work.go.set()
    results([first, *calls])
    assert [len(batch) for batch in bench.work.batches] == [1, 3, 2, 9, 1]


def test_an_idle_worker_does_not_wait_and_a_loaded_one_does(bench: Bench) -> None:
    batcher = bench.batcher(linger=0.5)
    started = time.monotonic()
    assert batcher.submit([1]).result(PATIENCE) == [2]
    assert time.monotonic() - started < 0.3
    first = bench.held(batcher)
    second = batcher.submit([2])
    bench.work.go.set()
    first.result(PATIENCE)
    time.sleep(0.05)
    third = batcher.submit([3])  # within the half second: with the second
    results([second, third])
    assert bench.work.batches == [[1], [0], [2, 3]]


def test_a_full_queue_says_so_and_takes_calls_again_later(bench: Bench) -> None:
    batcher = bench.batcher(queued=4)
    first = bench.held(batcher)
    calls = [batcher.submit([1, 1]), batcher.submit([1])]
    with pytest.raises(Full):
        batcher.submit([1, 1])
    calls.append(batcher.submit([1]))
    with pytest.raises(Full):
        batcher.submit([1])
    bench.work.go.set()
    results([first, *calls])
    assert batcher.submit([1] * 4).result(PATIENCE) == [2] * 4


def test_a_call_taken_back_is_not_worked_and_leaves_its_room(bench: Bench) -> None:
    batcher = bench.batcher(queued=3)
    first = bench.held(batcher)
    unwanted, wanted = batcher.submit([7, 7]), batcher.submit([1])
    assert not first.cancel()  # it is in work
    assert unwanted.cancel()
    again = batcher.submit([2, 2])
    bench.work.go.set()
    assert results([first, wanted, again]) == [[0], [2], [4, 4]]
    assert bench.work.batches == [[0], [1, 2, 2]]
    with pytest.raises(CancelledError):
        unwanted.result(0)


@pytest.mark.parametrize("error", [Retryable("broker away"), ValueError("a bug"), Fatal("fenced")])
def test_a_failure_answers_every_call_of_its_batch_and_the_worker_goes_on(
    bench: Bench, error: Exception
) -> None:
    batcher = bench.batcher(batch=3)
    bench.work.failures = [ZeroDivisionError(), error]
    first = bench.held(batcher)
    calls = [batcher.submit([i]) for i in range(1, 4)]
    later = batcher.submit([9])
    bench.work.go.set()
    assert isinstance(first.exception(PATIENCE), ZeroDivisionError)
    assert [call.exception(PATIENCE) for call in calls] == [error] * 3
    assert later.result(PATIENCE) == [18]
    assert bench.work.batches == [[0], [1, 2, 3], [9]]
    assert bench.fatal == ([error] if isinstance(error, Fatal) else [])


def test_a_result_too_few_is_a_failure_not_a_shift() -> None:
    batcher = Batcher[int, int](
        lambda items: items[1:], Limits(10, 10, 0.0), clock=SystemClock(), on_fatal=lambda _: None
    )
    batcher.start()
    with pytest.raises(RuntimeError, match="1 results for 2 items"):
        batcher.submit([1, 2]).result(PATIENCE)
    batcher.close(PATIENCE)


def test_closing_finishes_what_waits_and_takes_no_more(bench: Bench) -> None:
    batcher = bench.batcher()
    first = bench.held(batcher)
    second = batcher.submit([1])
    closing = threading.Thread(target=batcher.close, args=(PATIENCE,))
    closing.start()
    until(lambda: batcher._closed)
    with pytest.raises(Closed):
        batcher.submit([2])
    bench.work.go.set()
    closing.join(PATIENCE)
    assert results([first, second]) == [[0], [2]]


def test_closing_does_not_wait_for_a_stuck_worker(bench: Bench) -> None:
    batcher = bench.batcher()
    bench.held(batcher)
    second = batcher.submit([1])
    assert batcher.busy_seconds() >= 0.0
    batcher.close(0.05)
    with pytest.raises(Closed):
        second.result(0)
    time.sleep(0.05)
    assert batcher.busy_seconds() > 0.05
    bench.work.go.set()
    until(lambda: batcher.busy_seconds() == 0.0)


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_batch_has_its_weight_and_a_call_that_is_heavier_is_one_by_itself(bench: Bench) -> None:
    batcher = bench.batcher(weight=10)
    first = bench.held(batcher)
    calls = [batcher.submit(items) for items in ([4], [3, 3], [1], [20, 1], [2], [8])]
    bench.work.go.set()
    assert results([first, *calls])[1:] == [[8], [6, 6], [2], [40, 2], [4], [16]]
    assert bench.work.batches == [[0], [4, 3, 3], [1], [20, 1], [2, 8]]
