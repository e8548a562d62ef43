"""Which version answers for each task, and how that changes without stopping.

A thread follows the registry: a hint names the task to look at, polling catches what hints lost.
It verifies, loads and warms the next version, then swaps one reference; a batch reads that
reference once. Whatever goes wrong, the version in use stays in use.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.router.announcing import Rejected, unheard
from services.router.keeping import Copies, Keeping
from services.router.pointer_watch import PointerWatch, too_old
from services.router.remembering import Remembered, Remembering
from services.router.serving import NOBODY, OnTrial, Serving, Version
from services.router.surrogate import UnusableArtifact, load_version
from shared.clock import Clock, SystemClock
from shared.encoder.base import Encoder
from shared.registry.base import (
    Active,
    Artifact,
    CorruptArtifact,
    Registry,
    RegistryError,
    RegistryUnavailable,
    State,
    Trial,
    UnknownVersion,
)
from shared.telemetry import metrics

log = logging.getLogger(__name__)

# How many pointers one poll looks at. With more tasks a poll takes the next so many, in turn: what
# a thousand routers ask of Redis does not grow with the tasks.
POINTERS_PER_POLL = 100
# Polls come at 0.8 to 1.2 times their interval, lest routers that started together ask together.
JITTER = 0.2


@dataclass
class Models:
    """The active version of every task, as this router serves it. `max_age_days`: no version whose
    window is longer ago is loaded; what is loaded goes on. None: however old."""

    tasks: Sequence[str]
    registry: Registry
    copies: Copies
    encoder: Encoder
    threads: int
    remembered: Remembered = field(default_factory=lambda: Remembered(0))
    rejected: Rejected = unheard
    max_age_days: int | None = None
    clock: Clock = field(default_factory=SystemClock)
    _loaded: Mapping[str, Serving] = field(default_factory=dict)
    _seen: dict[str, Active] = field(default_factory=dict)
    # As the pointer had it that named the version which is loaded.
    _states: dict[str, State] = field(default_factory=dict)
    _complained: dict[str, Active] = field(default_factory=dict)
    _doubted: dict[str, Active] = field(default_factory=dict)
    _unreadable: set[str] = field(default_factory=set)  # tasks whose pointer could not be read
    _known: bool = False
    _missing: set[str] = field(default_factory=set)  # tasks whose trial could not be fetched
    _watch: PointerWatch = field(default_factory=PointerWatch)
    _next: int = 0  # position in `tasks` where the next poll begins

    def __post_init__(self) -> None:
        self._kept = Keeping(self.copies, self.registry)

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
        for task in self.tasks:
            for counter in (metrics.REJECTED_ARTIFACTS, metrics.POINTER_DOUBTS):
                counter.labels(task)  # from 0, or alerts would not see the first
            copy = self.copies.load(task)
            try:
                if copy is not None and self._swap(task, *copy):
                    self._known = True
            except Exception:  # else it would end every start
                log.exception("local copy not used", extra={"task": task})

    def refresh(self) -> None:
        """Follow the registry once, every task. Raises RegistryUnavailable."""
        self._look(self.tasks)
        self._known = True

    def poll(self) -> None:
        """Look at the next POINTERS_PER_POLL tasks. Raises RegistryUnavailable."""
        begin = self._next if self._next < len(self.tasks) else 0
        self._next = begin + POINTERS_PER_POLL
        self._look(self.tasks[begin : self._next])

    def follow(self, stop: threading.Event, poll: float) -> None:
        """Look at a task as soon as a hint names it, and at some of all about every `poll` seconds,
        until `stop`. All are looked at after what may have lost hints."""
        away, behind, due = False, True, 0.0
        while not stop.is_set():
            try:
                hint = self.registry.wait_for_change(max(0.0, due - self.clock.monotonic()))
                if behind or hint.everything:
                    self.refresh()
                    behind, due = False, self.clock.monotonic() + _about(poll)
                elif hint.tasks:
                    self._look([task for task in self.tasks if task in hint.tasks])
                if self.clock.monotonic() >= due:
                    self.poll()
                    due = self.clock.monotonic() + _about(poll)
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
            if found == self._seen.get(task) and task not in self._missing:
                continue
            try:
                # Asked again: following those before it may have taken minutes.
                self._follow_task(task, self.registry.active(task))
            except RegistryUnavailable:
                raise
            except RegistryError as error:
                if self._is_news(task):
                    log.error("pointer not followed: %s", error, extra={"task": task})
            except Exception as error:  # whatever one task does, the others are followed
                if self._is_news(task):
                    log.exception("pointer not followed: %s", error, extra={"task": task})
            else:
                self._unreadable.discard(task)
        metrics.REGISTRY_ANSWERED.labels("router").set_to_current_time()

    def _follow_task(self, task: str, active: Active) -> None:
        if not self._credible(task, active):
            return
        if active.version is None and active.trial is None:
            self._without_version(task, active)
            return
        try:
            self._follow_pointer(task, active)
        except (CorruptArtifact, UnknownVersion) as error:
            self._complain(task, active, str(error))  # and look again: it may be repaired
            self._obey(task, active)

    def _is_news(self, task: str) -> bool:
        """That its pointer cannot be followed: said and counted once. What is loaded goes on, and
        other tasks are not held up."""
        if task in self._unreadable:
            return False
        self._unreadable.add(task)
        metrics.POINTER_DOUBTS.labels(task).inc()
        return True

    def _follow_pointer(self, task: str, active: Active) -> None:
        """Load what the pointer names, as far as it is not in use already."""
        artifact = None
        if active.version is not None and self._in_use(task, active.version) is None:
            artifact = self.registry.load(task, active.version)
        tried = self._fetch_trial(task, active)
        if task in self._missing and active == self._seen.get(task):
            return  # nothing new
        if self._swap(task, active, artifact, tried):
            if active.version is None:
                self._kept.forget(task)
            else:
                self._kept.keep(task, active, artifact)

    def _fetch_trial(self, task: str, active: Active) -> Artifact | None:
        """A trial that cannot be trusted must not hold up what happens to the active version."""
        trial = active.trial
        if trial is None or self._in_use(task, trial.version) is not None:
            self._missing.discard(task)
            return None
        try:
            found = self.registry.load(task, trial.version)
        except (CorruptArtifact, UnknownVersion) as error:
            self._missing.add(task)  # and look again
            self._complain(task, active, f"trial: {error}")
            return None
        self._missing.discard(task)
        return found

    def _credible(self, task: str, active: Active) -> bool:
        """Whether to follow the pointer; what is odd about it is said once, and counted."""
        refusal, doubt = self._watch.refusal(task, active), self._watch.doubt(task, active)
        if (refusal or doubt) and self._doubted.get(task) != active:
            self._doubted[task] = active
            metrics.POINTER_DOUBTS.labels(task).inc()
            log.error(
                "odd pointer: %s", refusal or doubt, extra={"task": task, "followed": not refusal}
            )
        return refusal is None

    def _in_use(self, task: str, version: str) -> Version | None:
        """The version, if it is loaded as the active one or as the one on trial."""
        serving = self._loaded.get(task, NOBODY)
        loaded = [serving.version, serving.trial.version if serving.trial else None]
        return next((v for v in loaded if v is not None and v.version == version), None)

    def _swap(
        self, task: str, active: Active, artifact: Artifact | None, tried: Artifact | None = None
    ) -> bool:
        try:
            serving = Serving(
                version=self._version(task, active.version, artifact),
                state=active.state,
                trial=self._trial(task, active.trial, tried, active.epoch),
                alpha=active.alpha,
            )
        except UnusableArtifact as error:
            self._complain(task, active, str(error))
            self._seen[task] = active  # the same bytes would fail again
            self._obey(task, active)
            return False
        self._loaded = {**self._loaded, task: serving}
        self._seen[task] = active
        self._states[task] = active.state
        self._watch.note(task, active)
        metrics.SWAPS.labels(task).inc()
        metrics.ACTIVE_EPOCH.labels(task).set(active.epoch)
        log.info(
            "serving",
            extra={"task": task, "version": active.version, "epoch": active.epoch,
                   "state": active.state.value, "alpha": active.alpha,
                   "trial": active.trial.version if active.trial else None},
        )  # fmt: skip
        return True

    def _obey(self, task: str, active: Active) -> None:
        """What stays in the place of a version that cannot be loaded is held to what is asked of
        that one: it is silent when that is to be, and its alpha is the task's."""
        stays = self._loaded.get(task)
        if stays is None:
            return
        own = self._states.get(task, stays.state)
        state = own if active.state is State.SERVING else active.state
        if (state, active.alpha) == (stays.state, stays.alpha):
            return
        self._loaded = {**self._loaded, task: replace(stays, state=state, alpha=active.alpha)}
        if stays.version is not None:
            self._kept.hold(task, stays.version.version, state, active.alpha)
        log.warning(
            "the version that stays obeys the pointer of one that cannot be loaded",
            extra={"task": task, "state": state.value, "alpha": active.alpha},
        )

    def _version(self, task: str, version: str | None, artifact: Artifact | None) -> Version | None:
        """Raises UnusableArtifact."""
        if version is None:
            return None
        if artifact is None:
            return self._in_use(task, version)
        if self.max_age_days is not None:
            old = too_old(version, self.clock.now().date(), self.max_age_days)
            if old is not None:
                raise UnusableArtifact(old)
        with metrics.LOAD_SECONDS.time():
            loaded = load_version(version, artifact, self.encoder, threads=self.threads)
        return Remembering(loaded, self.remembered) if self.remembered.room else loaded

    def _trial(
        self, task: str, trial: Trial | None, artifact: Artifact | None, epoch: int
    ) -> OnTrial | None:
        """A trial that this router cannot load is left out: the active version goes on."""
        if trial is None:
            return None
        try:
            version = self._version(task, trial.version, artifact)
        except UnusableArtifact as error:
            metrics.REJECTED_ARTIFACTS.labels(task).inc()
            log.error("trial rejected: %s", error, extra={"task": task, "version": trial.version})
            self.rejected(task, trial.version, epoch, str(error))
            return None
        return OnTrial(version, trial.mode, trial.share) if version is not None else None

    def _without_version(self, task: str, active: Active) -> None:
        """Nothing is active: retired, or never published; or the registry has lost its data, which
        is no reason to stop serving what was certified."""
        if active.epoch == 0 and task in self._loaded:
            if self._complained.get(task) != active:
                log.warning(
                    "the registry knows nothing of this task any more: serving what is loaded",
                    extra={"task": task, "epoch": self._seen[task].epoch},
                )
            self._complained[task] = active
            return
        self._loaded = {name: kept for name, kept in self._loaded.items() if name != task}
        self._seen[task] = active
        self._kept.forget(task)
        metrics.ACTIVE_EPOCH.labels(task).set(active.epoch)
        log.info("no active version", extra={"task": task, "epoch": active.epoch})

    def _complain(self, task: str, active: Active, why: str) -> None:
        """Once per bad version; the old one stays in use."""
        if self._complained.get(task) == active:
            return
        self._complained[task] = active
        metrics.REJECTED_ARTIFACTS.labels(task).inc()
        log.error("version rejected: %s", why, extra={"task": task, "version": active.version})
        self.rejected(task, active.version, active.epoch, why)


def _about(seconds: float) -> float:
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)
