"""An operator asks for another α: the newest window is fitted again at once.

What a window was last fitted for is kept with its verdict, so a change is noticed even where it
was made, in the registry or in the tasks file, while no trainer ran.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol

from shared.contracts.tasks import Task
from shared.core.window import WindowKey
from shared.registry.base import Registry, RegistryError, RegistryUnavailable

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0


class Verdicts(Protocol):
    def days(self, task: str) -> list[date]: ...

    def verdict(self, task: str, day: date) -> dict[str, Any] | None: ...


@dataclass
class AlphaWatch:
    """Submits a refit when what is asked for is not what the newest window was fitted for."""

    tasks: Mapping[str, Task]
    registry: Registry
    verdicts: Verdicts
    submit: Callable[[WindowKey], None]
    _asked: dict[str, float] = field(default_factory=dict)

    def look(self) -> None:
        """At every task once. Raises RegistryUnavailable; OSError where a verdict could not be
        read, after the other tasks."""
        unread: OSError | None = None
        for name, active in self.registry.pointers(list(self.tasks)).items():
            if isinstance(active, RegistryError):
                log.warning("the α asked for is not known: %s", active, extra={"task": name})
                continue
            asked = active.asked(self.tasks[name].alpha)
            try:
                if asked != self._asked.get(name) and self._settled(name, asked):
                    self._asked[name] = asked
            except OSError as error:
                unread = error
        if unread is not None:
            raise unread

    def follow(self, stop: threading.Event, poll: float = POLL_SECONDS) -> None:
        """Look after every hint and at least every `poll` seconds, until `stop`."""
        while not stop.is_set():
            try:
                self.look()
                self.registry.wait_for_change(poll)
            except RegistryUnavailable as error:
                log.debug("α is looked at later: %s", error)
                stop.wait(poll)
            except OSError as error:
                log.warning("α is looked at later: %s", error)
                stop.wait(poll)
            except Exception:  # a trainer that no longer looks would not be noticed
                log.exception("α could not be looked at")
                stop.wait(poll)

    def _settled(self, task: str, asked: float) -> bool:
        """Submits a refit if one is needed. False while that is not known: a window without verdict
        is being fitted or about to be, maybe for the α of before."""
        days = self.verdicts.days(task)
        if not days:
            return True
        verdict = self.verdicts.verdict(task, days[-1])
        if not verdict:
            return False
        if verdict.get("alpha", asked) == asked:
            return True
        log.info(
            "refit for another α",
            extra={"task": task, "window": days[-1].isoformat(), "alpha": asked,
                   "fitted_for": verdict["alpha"]},
        )  # fmt: skip
        self.submit(WindowKey(task, days[-1]))
        return True
