"""Which version answers for each task, and how that changes without stopping.

A thread follows the registry: hints wake it, polling catches what hints lost. It verifies, loads
and warms the next version, then swaps one reference; a batch reads that reference once. Whatever
goes wrong, the version in use stays in use.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from services.router.surrogate import LoadedVersion, UnusableArtifact, load_version
from shared.encoder.base import Encoder
from shared.registry.base import (
    Active,
    Artifact,
    CorruptArtifact,
    Registry,
    RegistryUnavailable,
    UnknownVersion,
)
from shared.telemetry import metrics

log = logging.getLogger(__name__)


class Copies(Protocol):
    """Versions kept on disk, to start from when the registry is away."""

    def save(self, task: str, active: Active, artifact: Artifact) -> None: ...

    def load(self, task: str) -> tuple[Active, Artifact] | None: ...

    def forget(self, task: str) -> None: ...


@dataclass
class Models:
    """The active version of every task, as this router serves it."""

    tasks: Iterable[str]
    registry: Registry
    copies: Copies
    encoder: Encoder
    threads: int
    _loaded: Mapping[str, LoadedVersion] = field(default_factory=dict)
    _seen: dict[str, Active] = field(default_factory=dict)
    _complained: dict[str, Active] = field(default_factory=dict)

    def snapshot(self) -> Mapping[str, LoadedVersion]:
        """The versions to answer one batch with. Never changes under the reader."""
        return self._loaded

    def start_from_copies(self) -> None:
        """Load what was served last, before the registry has been asked."""
        for task in self.tasks:
            copy = self.copies.load(task)
            if copy is not None:
                self._swap(task, *copy)

    def refresh(self) -> None:
        """Follow the registry once, task by task. Raises RegistryUnavailable."""
        for task in self.tasks:
            active = self.registry.active(task)
            if active == self._seen.get(task):
                continue
            if active.version is None:
                self._without_version(task, active)
                continue
            try:
                artifact = self.registry.load(task, active.version)
            except (CorruptArtifact, UnknownVersion) as error:
                self._complain(task, active, str(error))  # and look again: it may be repaired
                continue
            if self._swap(task, active, artifact):
                self._keep(task, active, artifact)

    def follow(self, stop: threading.Event, poll: float) -> None:
        """Refresh on every hint and at least every `poll` seconds, until `stop`."""
        away = False
        while not stop.is_set():
            try:
                self.refresh()
                self.registry.wait_for_change(poll)
            except RegistryUnavailable as error:
                if not away:
                    log.warning("registry is away, serving what is loaded: %s", error)
                away = True
                stop.wait(poll)
            except Exception:  # a router that no longer follows would not be noticed
                log.exception("registry could not be followed, serving what is loaded")
                stop.wait(poll)
            else:
                if away:
                    log.info("registry is back")
                away = False

    def _swap(self, task: str, active: Active, artifact: Artifact) -> bool:
        try:
            loaded = load_version(active, artifact, self.encoder, threads=self.threads)
        except UnusableArtifact as error:
            self._complain(task, active, str(error))
            self._seen[task] = active  # the same bytes would fail again
            return False
        self._loaded = {**self._loaded, task: loaded}
        self._seen[task] = active
        metrics.SWAPS.labels(task).inc()
        metrics.ACTIVE_EPOCH.labels(task).set(active.epoch)
        log.info("serving", extra={"task": task, "version": active.version, "epoch": active.epoch})
        return True

    def _keep(self, task: str, active: Active, artifact: Artifact) -> None:
        try:
            self.copies.save(task, active, artifact)
        except OSError as error:  # serving goes on; only a start without Redis would miss it
            log.warning("no disk copy of %s: %s", active.version, error, extra={"task": task})

    def _without_version(self, task: str, active: Active) -> None:
        """Nothing is active: retired, or never published; or the registry has lost its data, which
        is no reason to stop serving what was certified."""
        if active.epoch == 0 and task in self._loaded:
            if self._complained.get(task) != active:
                log.warning(
                    "the registry knows nothing of this task any more: serving what is loaded",
                    extra={"task": task, "version": self._loaded[task].version},
                )
            self._complained[task] = active
            return
        self._loaded = {name: kept for name, kept in self._loaded.items() if name != task}
        self._seen[task] = active
        try:
            self.copies.forget(task)
        except OSError as error:
            log.warning("the disk copy stays: %s", error, extra={"task": task})
        metrics.ACTIVE_EPOCH.labels(task).set(active.epoch)
        log.info("no active version", extra={"task": task, "epoch": active.epoch})

    def _complain(self, task: str, active: Active, why: str) -> None:
        """Once per bad version; the old one stays in use."""
        if self._complained.get(task) == active:
            return
        self._complained[task] = active
        metrics.REJECTED_ARTIFACTS.labels(task).inc()
        log.error("version rejected: %s", why, extra={"task": task, "version": active.version})
