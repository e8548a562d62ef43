"""The live certificate: what audits say of the versions in use, and what follows from it.

A trace names what each version said of its request. Where the request was drawn at random, that is
an audit: it goes to the registry, where several trainers count together and nothing is forgotten
or counted twice. A version whose agreement looks too low goes on probation (the teacher answers in
its place, so that every request is an audit) and is tripped or cleared by what that shows.

The order of side effects: record, change the state, announce.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from services.trainer.watched import Watched
from shared.clock import Clock
from shared.contracts.events import AnnouncementKind, ModelAnnouncement, Source, Trace
from shared.contracts.manifest import Manifest
from shared.contracts.tasks import Task
from shared.core.live import LiveCertificate
from shared.registry.base import (
    Active,
    HistoryEntry,
    Registry,
    RegistryError,
    RegistryUnavailable,
    State,
    StateChanged,
    Trial,
    TrippedVersion,
    UnknownVersion,
)
from shared.rounding import down
from shared.telemetry import metrics

log = logging.getLogger(__name__)

Announce = Callable[[ModelAnnouncement], None]


@dataclass
class Monitor:
    """Watches all tasks. `see` takes traces, `settle` acts on them."""

    tasks: Mapping[str, Task]
    registry: Registry
    announce: Announce
    clock: Clock
    _watched: dict[str, Watched] = field(default_factory=dict)
    _touched: set[str] = field(default_factory=set)
    _outbox: list[ModelAnnouncement] = field(default_factory=list)

    def see(self, trace: Trace, partition: int, offset: int) -> None:
        if trace.source is Source.LOG:
            return
        self._of(trace.task).see(trace, partition, offset)
        self._touched.add(trace.task)

    def settle(self) -> None:
        """Record what was seen and act on it. Raises RegistryError or Retryable; what was seen is
        kept then, for the next call. A task whose state in the registry cannot be read holds up no
        other."""
        unread: RegistryError | None = None
        for name in sorted(self._touched):
            watched = self._of(name)
            try:
                watched.record()
                self._judge(self.tasks[name], watched)
                watched.all_judged()
            except RegistryUnavailable:
                raise
            except RegistryError as error:
                unread = RegistryError(f"{name}: {error}")
                continue
            self._touched.discard(name)
        while self._outbox:
            self.announce(self._outbox[0])
            del self._outbox[0]
        if unread is not None:
            raise unread

    def _of(self, task: str) -> Watched:
        if task not in self._watched:
            self._watched[task] = Watched(task, self.registry)
        return self._watched[task]

    def _judge(self, task: Task, watched: Watched) -> None:
        active = self.registry.active(task.name)
        task = replace(task, alpha=active.asked(task.alpha))
        self._warn_of_hunger(task, watched, active.trial)
        watched.keep({active.version, active.trial.version if active.trial else None})
        if active.version is not None and active.state in (State.SERVING, State.PROBATION):
            self._judge_active(task, watched, active, active.version)
        else:
            _show(task, None, None)
        if active.trial is not None:
            self._judge_trial(task, watched, active, active.trial)

    def _judge_active(self, task: Task, watched: Watched, active: Active, version: str) -> None:
        live = watched.live(task, version, serving=active.state is State.SERVING)
        if active.state is State.PROBATION and not (live.on_probation or live.cleared):
            live.begin_probation()  # begun before this trainer started
        _show(task, live, watched.manifest(version))
        foreign = watched.foreign(version)
        if foreign is not None or live.tripped:
            self._change(task, active, State.TRIPPED, foreign or _below(live), live)
            _show(task, None, None)
        elif active.state is State.SERVING and live.suspicious:
            reason = (
                f"agreement may have fallen below α = {live.alpha}: the teacher answers until "
                "it is known"
            )
            self._change(task, active, State.PROBATION, reason, live)
            live.begin_probation()
        elif active.state is State.PROBATION and live.cleared:
            reason = "the requests of the probation show no fall of agreement"
            self._change(task, active, State.SERVING, reason, live)

    def _judge_trial(self, task: Task, watched: Watched, active: Active, trial: Trial) -> None:
        live = watched.live(task, trial.version)
        at = self.clock.now()
        foreign = watched.foreign(trial.version)
        try:
            if foreign is not None or live.tripped:
                entry = self.registry.withdraw(
                    task.name, version=trial.version, at=at, reason=foreign or _below(live)
                )
            elif active.state is State.PAUSED:
                return  # a version that is promoted serves: an operator's pause holds until resumed
            elif self._deserves(task, watched, trial, live):
                reason = f"agreement {live.agreement:.3f} on {live.n} observed answers"
                entry = self.registry.promote(
                    task.name, version=trial.version, epoch=active.epoch, at=at, reason=reason
                )
            else:
                return
        except (UnknownVersion, StateChanged):  # somebody else was faster: promoted it, or paused
            return
        self._tell(task, entry, trial.version, live)

    def _warn_of_hunger(self, task: Task, watched: Watched, trial: Trial | None) -> None:
        """Each refit begins a trial anew, so where a day brings too few audits none ever ends."""
        before, watched.trial = watched.trial, trial
        if before is None or trial is None or before.version == trial.version:
            return
        live = watched.judged_with(before.version)
        if live is not None and live.n < task.promote_after:
            log.warning(
                "a refit replaced a version on trial before it had `promote_after` audits; if each "
                "does, nothing is promoted by evidence",
                extra={"task": task.name, "version": before.version, "audits": live.n,
                       "promote_after": task.promote_after, "audit_share": task.audit_share},
            )  # fmt: skip

    def _deserves(self, task: Task, watched: Watched, trial: Trial, live: LiveCertificate) -> bool:
        """Whether a trial may be promoted: one certified for less than is asked for would answer
        nothing, and one whose teacher seems to have changed waits until that is known.

        Looked at after every audit, a mean that is too low would pass by chance sooner or later: so
        it is that of all whole portions of `promote_after`."""
        manifest = watched.manifest(trial.version)
        if manifest is not None and manifest.certificate.alpha < task.alpha:
            return False
        if watched.newest_is_foreign(trial.version):
            return False
        whole = live.n - live.n % task.promote_after
        if not whole:
            return False
        since = self.registry.audits(task.name, trial.version, whole)[: live.n - whole]
        return 1.0 - (live.disagreements - since.count(False)) / whole >= task.alpha

    def _change(
        self, task: Task, active: Active, state: State, reason: str, live: LiveCertificate
    ) -> None:
        """Change the state and tell, unless somebody else has."""
        version, at = active.version or "", self.clock.now()
        try:
            entry = self.registry.set_state(
                task.name, state, version=version, was=active.state, at=at, reason=reason
            )
        except (UnknownVersion, TrippedVersion, StateChanged):  # somebody else was faster
            return
        if entry.at == at:
            self._tell(task, entry, version, live)

    def _tell(self, task: Task, entry: HistoryEntry, version: str, live: LiveCertificate) -> None:
        log.warning(
            "version %s", entry.kind.value,
            extra={"task": task.name, "version": version, "reason": entry.reason},
        )  # fmt: skip
        self._outbox.append(
            ModelAnnouncement(
                kind=entry.kind,
                task=task.name,
                announced_at=entry.at,
                reason=entry.reason,
                version=version,
                previous_version=(
                    entry.previous if entry.kind is AnnouncementKind.PROMOTED else None
                ),
                epoch=entry.epoch,
                figures={
                    "audits": float(live.n),
                    "agreement": round(live.agreement, 4),
                    "agreement_lower": down(live.lower, 4),
                    "e_value": round(min(live.e_value, 1e12), 4),
                },
            )
        )


def _show(task: Task, live: LiveCertificate | None, manifest: Manifest | None) -> None:
    """Set the gauges of the version that answers. What is not known has no series: a value that
    stays would keep alerts firing about a version that answers nobody any more."""
    metrics.TARGET_AGREEMENT.labels(task.name).set(task.alpha)
    audited = live if live is not None and live.n else None
    for gauge, value in (
        (metrics.CERTIFIED_COVERAGE, manifest.certificate.coverage if manifest else None),
        (metrics.LIVE_AGREEMENT, audited.agreement if audited else None),
        (metrics.LIVE_AGREEMENT_LOWER, audited.lower if audited else None),
    ):
        if value is None:
            gauge.remove(task.name)
        else:
            gauge.labels(task.name).set(value)


def _below(live: LiveCertificate) -> str:
    return (
        f"agreement is credibly below α = {live.alpha}: {live.agreement:.3f} on {live.n} audits "
        f"(e-value {live.e_value:.0f}, δ = {live.delta})"
    )
