"""Which version answers for each task, and how that changes without stopping.

A thread follows the registry: a hint names the task to look at, polling catches what hints lost.
What answers is one reference, to a mapping that is replaced; a batch reads that reference once.
How one task's pointer is followed: services/router/following.py.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Mapping, Sequence
from functools import partial

from services.router.announcing import Rejected, unheard
from services.router.following import Following
from services.router.keeping import Copies, Keeping
from services.router.loading import Loading
from services.router.serving import Serving
from shared.registry.base import Registry, RegistryError, RegistryUnavailable
from shared.telemetry import metrics

log = logging.getLogger(__name__)

# How many pointers one poll looks at. With more tasks a poll takes the next so many, in turn: what
# a thousand routers ask of Redis does not grow with the tasks.
POINTERS_PER_POLL = 100
# Polls come at 0.8 to 1.2 times their interval, lest routers that started together ask together.
JITTER = 0.2


class Models:
    """The active version of every task, as this router serves it."""

    def __init__(
        self,
        tasks: Sequence[str],
        registry: Registry,
        copies: Copies,
        loading: Loading,
        *,
        rejected: Rejected = unheard,
    ) -> None:
        self.registry = registry
        self.loading = loading
        self._loaded: Mapping[str, Serving] = {}
        kept = Keeping(copies, registry)
        self._following = {
            task: Following(task, registry, loading, kept, rejected, partial(self._serve, task))
            for task in tasks
        }
        self._tasks = tuple(self._following)
        self._known = False
        self._next = 0  # position in `_tasks` where the next poll begins

    def snapshot(self) -> Mapping[str, Serving]:
        """What to answer one batch with. Never changes under the reader.

        Safe from several threads: it reads one reference, to a mapping that is replaced and never
        altered. What is in it may be asked by several threads at once, too: versions are
        immutable, and a session of ONNX Runtime may be run from any number of threads.
        """
        return self._loaded

    def unknown(self) -> str | None:
        """Why nobody can say yet what to serve, None when it is known.

        Known is what the registry has said once, or what a disk copy kept of it."""
        return None if self._known else "not ready: registry not reached and no disk copy"

    def start_from_copies(self) -> None:
        """Load what was served last, before the registry has been asked."""
        # From now on, or alerts would not see a registry that is away from the start.
        metrics.REGISTRY_ANSWERED.labels("router").set_to_current_time()
        for task, following in self._following.items():
            try:
                if following.begin():
                    self._known = True
            except Exception:  # else it would end every start
                log.exception("local copy not used", extra={"task": task})

    def refresh(self) -> None:
        """Follow the registry once, every task. Raises RegistryUnavailable."""
        self._look(self._tasks)
        self._known = True

    def poll(self) -> None:
        """Look at the next POINTERS_PER_POLL tasks. Raises RegistryUnavailable."""
        begin = self._next if self._next < len(self._tasks) else 0
        self._next = begin + POINTERS_PER_POLL
        self._look(self._tasks[begin : self._next])

    def follow(self, stop: threading.Event, poll: float) -> None:
        """Look at a task as soon as a hint names it, and at some of all about every `poll` seconds,
        until `stop`. All are looked at after what may have lost hints."""
        clock = self.loading.clock
        away, behind, due = False, True, 0.0
        while not stop.is_set():
            try:
                hint = self.registry.wait_for_change(max(0.0, due - clock.monotonic()))
                if behind or hint.everything:
                    self.refresh()
                    behind, due = False, clock.monotonic() + _about(poll)
                elif hint.tasks:
                    self._look([task for task in self._tasks if task in hint.tasks])
                if clock.monotonic() >= due:
                    self.poll()
                    due = clock.monotonic() + _about(poll)
            except RegistryUnavailable as error:
                if not away:
                    log.warning("registry is away, serving what is loaded: %s", error)
                away = behind = True
                stop.wait(_about(poll))
            except Exception:  # a router that no longer follows would not be noticed
                log.exception("registry could not be followed, serving what is loaded")
                behind = True
                stop.wait(_about(poll))
            else:
                if away:
                    log.info("registry is back")
                away = False

    def _look(self, tasks: Sequence[str]) -> None:
        """At the tasks' pointers, to follow those that changed. Raises RegistryUnavailable."""
        for task, found in self.registry.pointers(tasks).items():
            following = self._following[task]
            if following.up_to_date(found):
                continue
            try:
                # Asked again: following those before it may have taken minutes.
                following.follow(self.registry.active(task))
            except RegistryUnavailable:
                raise
            except RegistryError as error:
                if following.failure_is_news():
                    log.error("pointer not followed: %s", error, extra={"task": task})
            except Exception as error:  # whatever one task does, the others are followed
                if following.failure_is_news():
                    log.exception("pointer not followed: %s", error, extra={"task": task})
        metrics.REGISTRY_ANSWERED.labels("router").set_to_current_time()

    def _serve(self, task: str, serving: Serving | None) -> None:
        others = {name: kept for name, kept in self._loaded.items() if name != task}
        self._loaded = others if serving is None else {**others, task: serving}


def _about(seconds: float) -> float:
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)
