"""What this router says of itself to the fleet, every few seconds, from a thread of its own.

Serving never waits for it and never fails with it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import islice
from typing import Literal

from services.router.serving import Serving
from shared.clock import Clock
from shared.registry.base import RegistryError
from shared.registry.fleet import MAX_TASKS, Fleet, RouterBeat

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0


class Heartbeat:
    """`worked` and `lag` are told by the loops; `run` tells the fleet."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        instance: str,
        host: str,
        mode: Literal["exactly_once", "at_least_once"],
        tasks: list[str],
        serving: Callable[[], Mapping[str, Serving]],
        clock: Clock,
    ) -> None:
        self._fleet = fleet
        self._instance = instance
        self._host = host
        self._mode: Literal["exactly_once", "at_least_once"] = mode
        self._tasks = tasks
        self._serving = serving
        self._clock = clock
        self._lock = threading.Lock()
        self._requests = 0
        self._lag = 0
        self._counted_at = clock.monotonic()
        self._started: datetime = clock.now()
        self._away = False

    def worked(self, requests: int) -> None:
        """So many more were answered or deferred."""
        with self._lock:
            self._requests += requests

    def lag(self, messages: int) -> None:
        """So many of the assigned messages are not committed yet."""
        self._lag = messages

    def run(self, stop: threading.Event, every: float = BEAT_SECONDS) -> None:
        """Beat until `stop`, then leave."""
        while True:
            self._try(lambda: self._fleet.beat(self.now()))
            if stop.wait(every):
                break
        self._try(lambda: self._fleet.leave(self._instance))
        self._fleet.close()

    def now(self) -> RouterBeat:
        """The next beat; begins to count requests anew."""
        moment = self._clock.monotonic()
        with self._lock:
            requests, self._requests = self._requests, 0
            seconds, self._counted_at = moment - self._counted_at, moment
        serving = self._serving()
        versions = {}
        for task in islice(self._tasks, MAX_TASKS):
            version = serving[task].version if task in serving else None
            versions[task] = version.version if version is not None else None
        return RouterBeat(
            instance=self._instance,
            host=self._host,
            mode=self._mode,
            started=self._started,
            at=self._clock.now(),
            lag=self._lag,
            per_second=round(requests / seconds, 2) if seconds > 0 else 0.0,
            tasks=len(self._tasks),
            versions=versions,
        )

    def _try(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except RegistryError as error:
            if not self._away:
                log.warning("the fleet is not told of this router: %s", error)
            self._away = True
        except Exception:  # nothing here may end a router's thread unseen
            log.exception("the fleet could not be told of this router")
        else:
            self._away = False
