"""Live decisions for those who watch: one reader a console, while somebody looks, bounded.

The reader follows requests too, so that a decision can be asked about (`recent.py`).

Who looks too slowly misses some, and is told how many.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

from services.console.following import Reading
from services.console.recent import RecentRequests
from shared.bus.errors import Fatal, Retryable
from shared.contracts.codec import InvalidEvent, decode
from shared.contracts.events import Decision, Request

log = logging.getLogger(__name__)

MAX_WATCHERS = 100
MAX_OF_ONE = 25  # of one caller, lest one tenant's pages leave no room for another's
BATCH = 1_000
POLL_SECONDS = 0.25
RETRY_SECONDS = 2.0
BEGIN_TURNS = 20  # of POLL_SECONDS each
IDLE_SECONDS = 10.0


class TooManyWatchers(Exception):
    """No more pages can watch now."""


@dataclass
class Watcher:
    """One page's view: the newest decisions it has not taken yet, and how many it missed. `caller`:
    whose page it is."""

    caller: str
    size: int = 40
    _waiting: deque[Decision] = field(default_factory=deque)
    _missed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def offer(self, decision: Decision) -> None:
        with self._lock:
            self._waiting.append(decision)
            if len(self._waiting) > self.size:
                self._waiting.popleft()
                self._missed += 1

    def take(self) -> tuple[list[Decision], int]:
        """Those since the last time, oldest first, and how many were passed over."""
        with self._lock:
            taken, self._waiting = list(self._waiting), deque()
            missed, self._missed = self._missed, 0
        return taken, missed


@dataclass
class LiveFeed:
    """`run` in a thread of its own; watch from anywhere. `open` reads decisions; `open_requests`
    the requests, without which all goes on but the texts."""

    open: Callable[[], Reading]
    open_requests: Callable[[], Reading]
    recent: RecentRequests
    max_watchers: int = MAX_WATCHERS
    max_of_one: int = MAX_OF_ONE
    trouble: str | None = None
    _watchers: dict[str, list[Watcher]] = field(default_factory=lambda: defaultdict(list))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _wanted: threading.Event = field(default_factory=threading.Event)

    def check_room(self, caller: str) -> None:
        """For a page of `caller`. Raises TooManyWatchers, before an answer has begun."""
        with self._lock:
            self._check_room(caller)

    @contextmanager
    def watch(self, task: str, caller: str) -> Iterator[Watcher]:
        """Raises TooManyWatchers."""
        watcher = Watcher(caller)
        with self._lock:
            self._check_room(caller)
            self._watchers[task].append(watcher)
            self._wanted.set()
        try:
            yield watcher
        finally:
            with self._lock, suppress(ValueError):
                self._watchers[task].remove(watcher)
                if not any(self._watchers.values()):
                    self._wanted.clear()

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set, whatever the broker does."""
        while not stop.is_set():
            if not self._wanted.wait(POLL_SECONDS):
                continue
            try:
                self._read(stop)
                self.trouble = None
            except (Retryable, Fatal) as error:
                self.trouble = f"decisions cannot be read: {error}"
                log.warning("%s", self.trouble)
                stop.wait(RETRY_SECONDS)

    def _read(self, stop: threading.Event) -> None:
        """While somebody looks, and a little longer, lest each reload opens a new consumer."""
        with closing(_Texts(self.open_requests, self.recent)) as texts:
            texts.begin(stop)  # before the decisions, lest the first ones shown have no text
            with closing(self.open()) as tail:
                idle = 0.0
                while not stop.is_set() and idle < IDLE_SECONDS:
                    for message in tail.poll(BATCH, POLL_SECONDS):
                        with suppress(InvalidEvent):
                            self._take(decode(message.value, Decision))
                    texts.read()
                    self.trouble = None
                    idle = 0.0 if self._wanted.is_set() else idle + POLL_SECONDS

    def _take(self, decision: Decision) -> None:
        self.recent.decision(decision)
        self._offer(decision)

    def _check_room(self, caller: str) -> None:
        watching = [watcher for some in self._watchers.values() for watcher in some]
        if len(watching) >= self.max_watchers:
            raise TooManyWatchers(f"{self.max_watchers} pages are watching already")
        if sum(watcher.caller == caller for watcher in watching) >= self.max_of_one:
            raise TooManyWatchers(f"{self.max_of_one} pages of yours are watching already")

    def _offer(self, decision: Decision) -> None:
        with self._lock:
            watchers = list(self._watchers.get(decision.task, ()))
        for watcher in watchers:
            watcher.offer(decision)


class _Texts:
    """Requests as they go by, remembered; one who may not read them misses them, and no more."""

    def __init__(self, open_requests: Callable[[], Reading], recent: RecentRequests) -> None:
        self._recent = recent
        self._tail: Reading | None = None
        try:
            self._tail = open_requests()
        except (Retryable, Fatal) as error:
            self._give_up(error)

    def begin(self, stop: threading.Event) -> None:
        """Return once what comes from now on will be seen, or after BEGIN_TURNS without that."""
        for _ in range(BEGIN_TURNS):
            if self._tail is None or self._tail.caught_up() or stop.is_set():
                return
            self.read(POLL_SECONDS)

    def read(self, wait: float = 0.0) -> None:
        """What has come, waiting up to `wait` seconds for the first."""
        if self._tail is None:
            return
        try:
            messages = self._tail.poll(BATCH, wait)
        except Retryable:
            return  # the decisions' reader says so
        except Fatal as error:
            self._give_up(error)
            return
        for message in messages:
            with suppress(InvalidEvent):
                self._recent.request(decode(message.value, Request))

    def close(self) -> None:
        if self._tail is not None:
            self._tail.close()

    def _give_up(self, error: Exception) -> None:
        log.warning("requests cannot be read, so watched ones have no text: %s", error)
        self.close()
        self._tail = None
