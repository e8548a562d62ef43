"""Calls that stay away: their caller goes on, and the client is left alone."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref

import pytest

from shared.bus.errors import Fatal
from shared.bus.kafka_calls import BoundedCalls, close_client


def test_a_call_does_its_work_on_another_thread_one_after_the_other() -> None:
    calls, seen = BoundedCalls(), []
    for number in range(3):
        calls.run(lambda n=number: seen.append((n, threading.current_thread().name)), 5.0)
    calls.end()
    assert seen == [(n, "librdkafka-calls") for n in range(3)]
    assert not calls.stuck


def test_what_it_raises_is_raised_here() -> None:
    def fail() -> None:
        raise KeyError("x")

    calls = BoundedCalls()
    with pytest.raises(KeyError, match="x"):
        calls.run(fail, 5.0)
    calls.run(lambda: None, 5.0)  # and it serves the next one
    calls.end()


def test_a_call_that_stays_away_is_fatal_and_so_is_every_later_one() -> None:
    release, later = threading.Event(), threading.Event()
    calls = BoundedCalls()
    with pytest.raises(Fatal, match="did not come back from a call within 0 s"):
        calls.run(release.wait, 0.05)
    assert calls.stuck
    with pytest.raises(Fatal, match="only a new process can go on"):
        calls.run(later.set, 5.0)
    release.set()
    calls.end()
    time.sleep(0.1)
    assert not later.is_set()  # it was never begun


class _Client:
    def __init__(self, release: threading.Event) -> None:
        self._release = release

    def close(self) -> None:
        self._release.wait()


def test_a_client_that_does_not_close_is_left_unclosed_and_undestroyed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = threading.Event()
    client = _Client(release)
    alive = weakref.ref(client)
    close_client(client.close, 0.05)
    assert "left unclosed" in caplog.text
    del client
    gc.collect()
    assert alive() is not None
    release.set()


def test_a_process_ends_although_a_call_never_comes_back() -> None:
    script = (
        "import threading, sys\n"
        "from shared.bus.errors import Fatal\n"
        "from shared.bus.kafka_calls import BoundedCalls\n"
        "try: BoundedCalls().run(threading.Event().wait, 0.1)\n"
        "except Fatal: sys.exit(1)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 1
