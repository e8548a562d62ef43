"""How a router follows one task's pointer: the next version is verified, loaded and warmed up
before it takes the place of the one in use. Whatever goes wrong, the version in use stays in use.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from services.router.announcing import Rejected
from services.router.keeping import Keeping
from services.router.loading import Loading
from services.router.pointer_watch import PointerWatch
from services.router.serving import NOBODY, OnTrial, Serving, Version
from services.router.surrogate import UnusableArtifact
from shared.registry.base import (
    Active,
    Artifact,
    CorruptArtifact,
    Registry,
    RegistryError,
    State,
    Trial,
    UnknownVersion,
)
from shared.telemetry import metrics

log = logging.getLogger(__name__)


@dataclass
class Following:
    """One task. `serve` is told what answers from now on, None for nobody."""

    task: str
    registry: Registry
    loading: Loading
    kept: Keeping
    rejected: Rejected
    serve: Callable[[Serving | None], None]
    seen: Active | None = None  # the pointer that was followed last
    _serving: Serving | None = None
    # As the pointer had it that named the version which is loaded.
    _state: State | None = None
    _watch: PointerWatch = field(default_factory=PointerWatch)
    _trial_missing: bool = False  # it could not be fetched: look again
    # What was said last, so as to say it once.
    _complained: Active | None = None
    _doubted: Active | None = None
    _failed: bool = False

    def up_to_date(self, found: Active | RegistryError) -> bool:
        return found == self.seen and not self._trial_missing

    def begin(self) -> bool:
        """From what the disk keeps of it. Returns whether that serves now."""
        for counter in (metrics.REJECTED_ARTIFACTS, metrics.POINTER_DOUBTS):
            counter.labels(self.task)  # from 0, or alerts would not see the first
        copy = self.kept.copies.load(self.task)
        return copy is not None and self._swap(*copy)

    def follow(self, active: Active) -> None:
        """Raises RegistryError where the registry cannot be read."""
        if not self._credible(active):
            return
        if active.version is None and active.trial is None:
            self._without_version(active)
        else:
            try:
                self._with_version(active)
            except (CorruptArtifact, UnknownVersion) as error:
                self._complain(active, str(error))  # and look again: it may be repaired
                self._obey(active)
        self._failed = False

    def failure_is_news(self) -> bool:
        """That the pointer cannot be followed: said and counted once. What is loaded goes on."""
        if self._failed:
            return False
        self._failed = True
        metrics.POINTER_DOUBTS.labels(self.task).inc()
        return True

    def _credible(self, active: Active) -> bool:
        """Whether to follow the pointer; what is odd about it is said once, and counted."""
        refusal, doubt = self._watch.refusal(active), self._watch.doubt(active)
        if (refusal or doubt) and self._doubted != active:
            self._doubted = active
            metrics.POINTER_DOUBTS.labels(self.task).inc()
            log.error(
                "odd pointer: %s",
                refusal or doubt,
                extra={"task": self.task, "followed": not refusal},
            )
        return refusal is None

    def _with_version(self, active: Active) -> None:
        """Load what the pointer names, as far as it is not in use already."""
        artifact = None
        if active.version is not None and self._in_use(active.version) is None:
            artifact = self.registry.load(self.task, active.version)
        tried = self._fetch_trial(active)
        if self._trial_missing and active == self.seen:
            return  # nothing new
        if self._swap(active, artifact, tried):
            if active.version is None:
                self.kept.forget(self.task)
            else:
                self.kept.keep(self.task, active, artifact)

    def _without_version(self, active: Active) -> None:
        """Nothing is active: retired, or never published; or the registry has lost its data, which
        is no reason to stop serving what was certified."""
        if active.epoch == 0 and self._serving is not None:
            if self._complained != active:
                log.warning(
                    "the registry knows nothing of this task any more: serving what is loaded",
                    extra={"task": self.task, "epoch": self.seen and self.seen.epoch},
                )
            self._complained = active
            return
        self._put(None)
        self.seen = active
        self.kept.forget(self.task)
        metrics.ACTIVE_EPOCH.labels(self.task).set(active.epoch)
        log.info("no active version", extra={"task": self.task, "epoch": active.epoch})

    def _fetch_trial(self, active: Active) -> Artifact | None:
        """A trial that cannot be trusted must not hold up what happens to the active version."""
        trial, found = active.trial, None
        missing = False
        if trial is not None and self._in_use(trial.version) is None:
            try:
                found = self.registry.load(self.task, trial.version)
            except (CorruptArtifact, UnknownVersion) as error:
                missing = True
                self._complain(active, f"trial: {error}")
        self._trial_missing = missing
        return found

    def _swap(
        self, active: Active, artifact: Artifact | None, tried: Artifact | None = None
    ) -> bool:
        try:
            serving = Serving(
                version=self._version(active.version, artifact),
                state=active.state,
                trial=self._trial(active.trial, tried, active.epoch),
                alpha=active.alpha,
            )
        except UnusableArtifact as error:
            self._complain(active, str(error))
            self.seen = active  # the same bytes would fail again
            self._obey(active)
            return False
        self._put(serving)
        self.seen = active
        self._state = active.state
        self._watch.note(active)
        metrics.SWAPS.labels(self.task).inc()
        metrics.ACTIVE_EPOCH.labels(self.task).set(active.epoch)
        log.info(
            "serving",
            extra={"task": self.task, "version": active.version, "epoch": active.epoch,
                   "state": active.state.value, "alpha": active.alpha,
                   "trial": active.trial.version if active.trial else None},
        )  # fmt: skip
        return True

    def _obey(self, active: Active) -> None:
        """What stays in the place of a version that cannot be loaded is held to what is asked of
        that one: it is silent when that is to be, and its alpha is the task's."""
        stays = self._serving
        if stays is None:
            return
        own = self._state or stays.state
        state = own if active.state is State.SERVING else active.state
        if (state, active.alpha) == (stays.state, stays.alpha):
            return
        self._put(replace(stays, state=state, alpha=active.alpha))
        if stays.version is not None:
            self.kept.hold(self.task, stays.version.version, state, active.alpha)
        log.warning(
            "the version that stays obeys the pointer of one that cannot be loaded",
            extra={"task": self.task, "state": state.value, "alpha": active.alpha},
        )

    def _put(self, serving: Serving | None) -> None:
        self._serving = serving
        self.serve(serving)

    def _in_use(self, version: str) -> Version | None:
        """The version, if it is loaded as the active one or as the one on trial."""
        serving = self._serving or NOBODY
        loaded = [serving.version, serving.trial.version if serving.trial else None]
        return next((v for v in loaded if v is not None and v.version == version), None)

    def _version(self, version: str | None, artifact: Artifact | None) -> Version | None:
        """artifact: None where it is in use. Raises UnusableArtifact."""
        if version is None:
            return None
        return self._in_use(version) if artifact is None else self.loading.load(version, artifact)

    def _trial(self, trial: Trial | None, artifact: Artifact | None, epoch: int) -> OnTrial | None:
        """A trial that this router cannot load is left out: the active version goes on."""
        if trial is None:
            return None
        try:
            version = self._version(trial.version, artifact)
        except UnusableArtifact as error:
            metrics.REJECTED_ARTIFACTS.labels(self.task).inc()
            log.error(
                "trial rejected: %s", error, extra={"task": self.task, "version": trial.version}
            )
            self.rejected(self.task, trial.version, epoch, str(error))
            return None
        return OnTrial(version, trial.mode, trial.share) if version is not None else None

    def _complain(self, active: Active, why: str) -> None:
        """Once per bad version; the old one stays in use."""
        if self._complained == active:
            return
        self._complained = active
        metrics.REJECTED_ARTIFACTS.labels(self.task).inc()
        log.error("version rejected: %s", why, extra={"task": self.task, "version": active.version})
        self.rejected(self.task, active.version, active.epoch, why)
