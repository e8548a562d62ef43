"""A closed window's refit: the challenger is fitted and the incumbent judged beside it; one is
published, kept or retired, and that is announced with its figures.

The order of side effects: publish to the registry, read it back, announce, store the report, note
the verdict. A report that cannot be made is logged and counted; it holds nothing up.
Each step may be repeated after a crash without harm: the same traces give the same artifact, and
publishing what is active already changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol

from msgspec.structs import replace

from services.trainer.case import Case
from services.trainer.examination import Examination, Examine, FitFailed
from services.trainer.incumbent import still_valid
from services.trainer.objections import days_since, last_trip, overtaken, unseen_trip
from services.trainer.reporting import outcome_of
from shared.bus.errors import Retryable
from shared.clock import Clock
from shared.contracts.events import AnnouncementKind, ModelAnnouncement
from shared.contracts.manifest import sha256, window_of
from shared.contracts.tasks import Task
from shared.core.fresh import Verdict, judge
from shared.core.window import WindowKey
from shared.registry.base import (
    Active,
    Artifact,
    CorruptArtifact,
    HistoryEntry,
    Registry,
    State,
    TrippedVersion,
    UnknownVersion,
)
from shared.registry.fit_note import FitNote
from shared.telemetry import metrics

log = logging.getLogger(__name__)

Announce = Callable[[ModelAnnouncement], None]


class Verdicts(Protocol):
    """The stored windows, where the verdict that follows one is noted."""

    def days(self, task: str) -> list[date]: ...

    def verdict(self, task: str, day: date) -> dict[str, Any] | None: ...

    def write_verdict(self, task: str, day: date, verdict: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Refit:
    """Refits a task after one of its windows has closed. encoder: its digest."""

    tasks: Mapping[str, Task]
    windows: Verdicts
    encoder: str
    examine: Examine
    registry: Registry
    announce: Announce
    clock: Clock
    _fitted_for: dict[str, float] = field(default_factory=dict)  # α, by task

    def __call__(self, key: WindowKey) -> ModelAnnouncement:
        """Fit, then publish or refuse. Raises RegistryUnavailable, OSError or Retryable; the
        same call may then be made again; FitFailed where that would not help."""
        task = self.tasks[key.task]
        task = replace(task, alpha=self.registry.active(task.name).asked(task.alpha))
        self._fitted_for[task.name] = task.alpha
        started = self.clock.monotonic()
        announcement, case = self._decide(task, key.day)
        self.announce(announcement)
        seconds = self.clock.monotonic() - started
        if case is not None:
            self._report(case, announcement)
        self._note(key, announcement.kind.value, announcement)
        metrics.FITS.labels(task.name, announcement.kind.value).inc()
        metrics.FIT_SECONDS.labels(task.name).set(seconds)
        metrics.LAST_FIT.labels(task.name).set(self.clock.now().timestamp())
        log.info(
            "refit done",
            extra={"task": task.name, "window": announcement.window,
                   "verdict": announcement.kind.value, "reason": announcement.reason,
                   "version": announcement.version, "seconds": round(seconds, 2)},
        )  # fmt: skip
        self._must_be_asked(task, self.registry.active(task.name))
        return announcement

    def give_up(self, key: WindowKey, error: Exception) -> None:
        """Announce a fit that came to nothing, and note it: the next window's tries again."""
        reason = f"the fit failed: {_why(error)}"
        failure = self._announcement(AnnouncementKind.REFUSED, key.task, key.day, reason)
        self.announce(failure)
        self._note(key, "failed", failure)

    def _note(self, key: WindowKey, verdict: str, told: ModelAnnouncement) -> None:
        """With the window, and for people as the task's last fit, if it is of its newest window."""
        task, window = key.task, key.day.isoformat()
        self.windows.write_verdict(
            task,
            key.day,
            {"kind": verdict, "version": told.version, "alpha": self._fitted_for.get(task)},
        )
        last = self.registry.last_fit(task)
        if last is None or last.window <= window:
            note = FitNote(window=window, verdict=verdict, reason=told.reason, at=told.announced_at)
            self.registry.note_fit(task, note)

    def _must_be_asked(self, task: Task, now: Active) -> None:
        """Raises Retryable where another α was asked for during the fit, which is made again."""
        asked = now.asked(self.tasks[task.name].alpha)
        if asked != task.alpha:
            raise Retryable(f"α = {asked} was asked for during the fit for {task.alpha}")

    def _report(self, case: Case, announcement: ModelAnnouncement) -> None:
        """What was published is announced already: whatever goes wrong here, routers serve it."""
        task = case.task.name
        try:
            outcome = outcome_of(case, announcement, self.registry)
            self.registry.put_report(self.examine.report(case.task, case.day, outcome))
        except Exception:  # a report must not hold up what it is about
            metrics.REPORTS.labels(task, "failed").inc()
            log.exception("the report could not be made", extra={"task": task})
        else:
            metrics.REPORTS.labels(task, "stored").inc()

    def _decide(self, task: Task, day: date) -> tuple[ModelAnnouncement, Case | None]:
        """The challenger fitted, the incumbent judged, and what follows put into effect. Without a
        case where a newer window was published or judged already."""
        fence = self.registry.acquire(task.name)
        active = self.registry.active(task.name)
        serving = window_of(active.version) if active.version else ""
        if serving > day.isoformat():
            reason = f"window {serving} has been published already; it stays"
            return self._announcement(AnnouncementKind.REFUSED, task.name, day, reason), None
        judged = self._judged_after(task.name, day)
        if judged is not None:  # a late trace of an empty day: what it knows is outdated
            reason = f"window {judged.isoformat()} has been judged already; the next refit counts"
            return self._announcement(AnnouncementKind.REFUSED, task.name, day, reason), None
        incumbent = self._incumbent(task, day, active)
        task, found = self._examine(task, day, incumbent, active)
        verdict = None
        if incumbent is not None and found.fresh is not None:
            manifest = incumbent.manifest
            verdict = judge(
                found.fresh,
                certified_coverage=manifest.certificate.coverage,
                challenger_coverage=found.challenger.coverage,
                alpha=task.alpha,
                still_valid=still_valid(manifest, found.answered_by, task.labels),
            )
        case = Case(task, day, fence, active, found)
        return self._act(case, verdict), case

    def _examine(
        self, task: Task, day: date, incumbent: Artifact | None, active: Active
    ) -> tuple[Task, Examination]:
        """And the task as it was fitted: where an operator put another version in a tripped one's
        place before any request was deferred for the trip, no trace will ever tell of it, so the
        horizon begins on the day after it. A replay has that from the manifest's settings."""
        found = self.examine(task, day, incumbent)
        trip = last_trip(self.registry, task.name)
        if trip is None or active.state is State.TRIPPED or trip.version in found.tripped:
            return task, found
        days = days_since(trip, task, day)
        if not 0 < days < task.horizon_days:
            return task, found
        task = replace(task, horizon_days=days)
        return task, self.examine(task, day, incumbent)

    def _judged_after(self, task: str, day: date) -> date | None:
        later = (d for d in reversed(self.windows.days(task)) if d > day)
        return next((d for d in later if self.windows.verdict(task, d) is not None), None)

    def _act(self, case: Case, verdict: Verdict | None) -> ModelAnnouncement:
        """By the pointer as it is now: a fit takes minutes, in which a version may have tripped and
        an operator may have acted, or asked for another α (Retryable). Nothing holds the pointer
        between this look and the change, as a publish knows fences and no epochs: what happens
        within these milliseconds is as if it had happened before the publish that follows it."""
        now = self.registry.active(case.task.name)
        self._must_be_asked(case.task, now)
        tripped = now.state is State.TRIPPED
        challenger = case.found.challenger
        if verdict is Verdict.KEPT and not tripped and now.version == case.active.version:
            return self._kept(case)
        trip = last_trip(self.registry, case.task.name)
        objection = unseen_trip(case, trip, now) or overtaken(case, now)
        if objection and (verdict is Verdict.KEPT or challenger.artifact is not None):
            return self._of(case, AnnouncementKind.REFUSED, objection)
        if challenger.artifact is not None:
            return self._publish(case, challenger.artifact)
        if verdict is Verdict.RETIRED and not tripped:
            return self._retire(case)
        earlier = self._retired_by(case) if now.version is None else None
        if earlier is not None:
            return self._retired(case, earlier)
        return self._of(case, AnnouncementKind.REFUSED, challenger.reason)

    def _kept(self, case: Case) -> ModelAnnouncement:
        refused = case.found.challenger.artifact is None
        why = (
            f"the challenger was refused: {case.found.challenger.reason}"
            if refused
            else ("it handles more fresh traffic than the challenger is certified for")
        )
        return self._of(
            case, AnnouncementKind.KEPT, f"the incumbent stays; {why}",
            version=case.active.version, epoch=case.active.epoch,
        )  # fmt: skip

    def _retire(self, case: Case) -> ModelAnnouncement:
        judged, reason = case.active.version, _outdone(case)
        try:
            entry = self.registry.retire(
                case.task.name, version=judged, at=self.clock.now(), reason=_noted(case, reason)
            )
        except UnknownVersion:  # nothing is known of what somebody else made active meanwhile
            reason = f"{reason}; {judged} is no longer active, and what is was not judged"
            return self._of(case, AnnouncementKind.REFUSED, reason)
        return self._retired(case, entry)

    def _retired_by(self, case: Case) -> HistoryEntry | None:
        """The retirement that an earlier try of this window came to, without having told of it."""
        newest = self.registry.history(case.task.name, 1)
        ours = _noted(case, _outdone(case))
        return next((e for e in newest if e.actor is None and e.reason == ours), None)

    def _retired(self, case: Case, entry: HistoryEntry) -> ModelAnnouncement:
        return self._of(
            case, AnnouncementKind.RETIRED, _outdone(case),
            previous_version=entry.previous, epoch=entry.epoch,
        )  # fmt: skip

    def _publish(self, case: Case, artifact: Artifact) -> ModelAnnouncement:
        """Active at once, or on trial where the task is rolled out in steps."""
        task, reason = case.task, case.found.challenger.reason
        noted = _noted(case, reason)
        at = self.clock.now()
        if task.rollout == "direct" or artifact.version == case.active.version:
            kind = AnnouncementKind.PUBLISHED
            active = self.registry.publish(artifact, fence=case.fence, at=at, reason=noted)
            tripped = active.version != artifact.version  # it is stored then and no more
        else:
            kind = AnnouncementKind(task.rollout)
            try:
                active = self.registry.start_trial(
                    artifact, mode=task.rollout, share=task.canary_share, fence=case.fence, at=at,
                    reason=noted,
                )  # fmt: skip
                tripped = False
            except TrippedVersion:
                tripped = True
        if tripped:  # the same traces gave it again
            reason = f"{artifact.version} was tripped before and stays so; the next window counts"
            return self._of(case, AnnouncementKind.REFUSED, reason)
        self.registry.load(task.name, artifact.version)  # what routers will read, SHA-256 and all
        certificate = artifact.manifest.certificate
        if kind is AnnouncementKind.PUBLISHED:  # a trial answers nobody, or few
            metrics.CERTIFIED_COVERAGE.labels(task.name).set(certificate.coverage)
        previous = case.active.version
        return self._of(
            case, kind, reason,
            version=artifact.version,
            previous_version=previous if previous != artifact.version else None,
            epoch=active.epoch,
            manifest_sha256=sha256(artifact.manifest_bytes),
            certificate=certificate,
        )  # fmt: skip

    def _incumbent(self, task: Task, day: date, active: Active) -> Artifact | None:
        """The version that answers now, to be put to the window's evidence; None without one, where
        the window is the one it was made of, and where it is certified for less than is asked for:
        routers defer for it, until what is asked for or the version changes."""
        if active.version is None or active.state is State.TRIPPED:
            return None
        if window_of(active.version) >= day.isoformat():
            return None
        try:
            artifact = self.registry.load(task.name, active.version)
        except (CorruptArtifact, UnknownVersion) as error:
            log.error("incumbent cannot be judged: %s", error, extra={"task": task.name})
            return None
        if artifact.manifest.certificate.alpha < task.alpha:
            return None
        if artifact.manifest.encoder != self.encoder:
            return None  # no router can serve it beside this trainer's versions
        return artifact

    def _of(
        self, case: Case, kind: AnnouncementKind, reason: str, **changed: Any
    ) -> ModelAnnouncement:
        announcement = self._announcement(kind, case.task.name, case.day, reason)
        return replace(
            announcement, n_traces=case.found.n_traces, figures=case.figures(), **changed
        )

    def _announcement(
        self, kind: AnnouncementKind, task: str, day: date, reason: str
    ) -> ModelAnnouncement:
        return ModelAnnouncement(
            kind=kind,
            task=task,
            announced_at=self.clock.now(),
            reason=reason,
            window=day.isoformat(),
            encoder=self.encoder,
        )


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, FitFailed) else f"{type(error).__name__}: {error}"


def _noted(case: Case, reason: str) -> str:
    """As the registry's history has it."""
    return f"window {case.day.isoformat()}: {reason}"


def _outdone(case: Case) -> str:
    return (
        "the incumbent no longer holds on fresh evidence and the challenger was refused: "
        f"{case.found.challenger.reason}"
    )
