"""The live certificate: what audits say of the versions in use, and what follows from it.

A trace names what each version said of its request. Where the request was drawn at random, that is
an audit: it goes to the registry, where several trainers count together and nothing is forgotten
or counted twice. A version whose agreement looks too low goes on probation (the teacher answers in
its place, so that every request is an audit) and is tripped or cleared by what that shows.

The order of side effects: record, change the state, announce.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from shared.clock import Clock
from shared.contracts.audits import is_audit
from shared.contracts.events import AnnouncementKind, ModelAnnouncement, Source, Trace
from shared.contracts.manifest import Manifest, Teacher
from shared.contracts.tasks import Task
from shared.core.live import LiveCertificate
from shared.registry.base import (
    MAX_AUDITS_PER_CALL,
    Active,
    CorruptArtifact,
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
from shared.telemetry import metrics

log = logging.getLogger(__name__)

# So many traces of a version in a row by another teacher than its certificate's: it has changed.
FOREIGN_TRACES = 20

Announce = Callable[[ModelAnnouncement], None]


@dataclass
class _Watched:
    """What is known of a task between two looks at the registry."""

    audits: dict[tuple[str, int], list[tuple[int, bool]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    # How many audits of a version were recorded before those that have not been judged yet.
    judged: dict[str, int] = field(default_factory=dict)
    # Who answered in each version's time, newest last.
    teachers: dict[str, list[Teacher]] = field(default_factory=lambda: defaultdict(list))
    live: dict[str, LiveCertificate] = field(default_factory=dict)
    manifests: dict[str, Manifest | None] = field(default_factory=dict)
    trial: Trial | None = None


@dataclass
class Monitor:
    """Watches all tasks. `see` takes traces, `settle` acts on them."""

    tasks: Mapping[str, Task]
    registry: Registry
    announce: Announce
    clock: Clock
    _watched: dict[str, _Watched] = field(default_factory=lambda: defaultdict(_Watched))
    _touched: set[str] = field(default_factory=set)
    _outbox: list[ModelAnnouncement] = field(default_factory=list)

    def see(self, trace: Trace, partition: int, offset: int) -> None:
        if trace.source is Source.LOG:
            return
        watched = self._watched[trace.task]
        teacher = Teacher(model=trace.teacher_model, prompt=trace.prompt)
        # Of a version only what a router decided while it knew it: traces are read again, and those
        # of an earlier teacher say nothing of a version certified for the one that came after.
        known = {opinion.version for opinion in trace.opinions}
        for version in known | ({trace.version} if trace.version is not None else set()):
            teachers = watched.teachers[version]
            teachers.append(teacher)
            del teachers[:-FOREIGN_TRACES]
        for opinion in trace.opinions:
            if is_audit(trace, opinion):
                agrees = opinion.label == trace.teacher
                watched.audits[opinion.version, partition].append((offset, agrees))
        self._touched.add(trace.task)

    def settle(self) -> None:
        """Record what was seen and act on it. Raises RegistryError or Retryable; what was seen is
        kept then, for the next call. A task whose state in the registry cannot be read holds up no
        other."""
        unread: RegistryError | None = None
        for name in sorted(self._touched):
            watched = self._watched[name]
            try:
                self._record(name, watched)
                self._judge(self.tasks[name], watched)
                watched.judged.clear()
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

    def _record(self, task: str, watched: _Watched) -> None:
        for version, partition in sorted(watched.audits):
            if version not in watched.judged:
                watched.judged[version] = self.registry.record_audits(task, version, partition, ())
            # A rebalance reads again what this turn has read already, from an earlier offset on.
            audits = sorted(dict(watched.audits[version, partition]).items())
            for start in range(0, len(audits), MAX_AUDITS_PER_CALL):
                some = audits[start : start + MAX_AUDITS_PER_CALL]
                self.registry.record_audits(task, version, partition, some)
            del watched.audits[version, partition]
            metrics.AUDITS.labels(task).inc(len(audits))

    def _judge(self, task: Task, watched: _Watched) -> None:
        active = self.registry.active(task.name)
        task = replace(task, alpha=active.asked(task.alpha))
        self._warn_of_hunger(task, watched, active.trial)
        in_use = {active.version, active.trial.version if active.trial else None}
        for known in (watched.live, watched.manifests, watched.teachers):
            for version in set(known) - in_use:
                del known[version]
        if active.version is not None and active.state in (State.SERVING, State.PROBATION):
            self._judge_active(task, watched, active, active.version)
        else:
            _show(task, None, None)
        if active.trial is not None:
            self._judge_trial(task, watched, active, active.trial)

    def _judge_active(self, task: Task, watched: _Watched, active: Active, version: str) -> None:
        live = self._live(task, watched, version, serving=active.state is State.SERVING)
        if active.state is State.PROBATION and not (live.on_probation or live.cleared):
            live.begin_probation()  # begun before this trainer started
        _show(task, live, self._manifest(task.name, watched, version))
        foreign = self._foreign(task.name, watched, version)
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

    def _judge_trial(self, task: Task, watched: _Watched, active: Active, trial: Trial) -> None:
        live = self._live(task, watched, trial.version)
        at = self.clock.now()
        foreign = self._foreign(task.name, watched, trial.version)
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

    def _warn_of_hunger(self, task: Task, watched: _Watched, trial: Trial | None) -> None:
        """Each refit begins a trial anew, so where a day brings too few audits none ever ends."""
        before, watched.trial = watched.trial, trial
        if before is None or trial is None or before.version == trial.version:
            return
        live = watched.live.get(before.version)
        if live is not None and live.n < task.promote_after:
            log.warning(
                "a refit replaced a version on trial before it had `promote_after` audits; if each "
                "does, nothing is promoted by evidence",
                extra={"task": task.name, "version": before.version, "audits": live.n,
                       "promote_after": task.promote_after, "audit_share": task.audit_share},
            )  # fmt: skip

    def _deserves(self, task: Task, watched: _Watched, trial: Trial, live: LiveCertificate) -> bool:
        """Whether a trial may be promoted: one certified for less than is asked for would answer
        nothing, and one whose teacher seems to have changed waits until that is known.

        Looked at after every audit, a mean that is too low would pass by chance sooner or later: so
        it is that of all whole portions of `promote_after`."""
        manifest = self._manifest(task.name, watched, trial.version)
        if manifest is not None and manifest.certificate.alpha < task.alpha:
            return False
        if any(self._differences(task.name, watched, trial.version)[-1:]):
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
                    "agreement_lower": round(live.lower, 4),
                    "e_value": round(min(live.e_value, 1e12), 4),
                },
            )
        )

    def _live(
        self, task: Task, watched: _Watched, version: str, *, serving: bool = False
    ) -> LiveCertificate:
        """The version's live certificate, with all outcomes recorded so far. It is held to what is
        asked for, but to no more than it was certified for. `serving`: whatever suspicion there was
        before this turn has been cleared, or it would be on probation."""
        manifest = self._manifest(task.name, watched, version)
        alpha = min(task.alpha, manifest.certificate.alpha) if manifest else task.alpha
        live = watched.live.get(version)
        if live is None or live.alpha != alpha:
            live = watched.live[version] = LiveCertificate(alpha, task.delta)
            outcomes = self.registry.audits(task.name, version, 0)
            live.observe_all(outcomes[: watched.judged.get(version)])
            if serving:
                live.forget_suspicion()
        live.observe_all(self.registry.audits(task.name, version, live.n))
        return live

    def _foreign(self, task: str, watched: _Watched, version: str) -> str | None:
        """Why the certificate is of another teacher than the one that answers now, if it is."""
        differing = self._differences(task, watched, version)
        if len(differing) < FOREIGN_TRACES or not all(differing):
            return None
        return differing[-1]

    def _differences(self, task: str, watched: _Watched, version: str) -> list[str | None]:
        """What sets each of the last teachers apart from the certificate's, newest last."""
        manifest = self._manifest(task, watched, version)
        certified_for = manifest.teacher if manifest else None
        if certified_for is None:
            return []
        return [_difference(certified_for, one) for one in watched.teachers.get(version, ())]

    def _manifest(self, task: str, watched: _Watched, version: str) -> Manifest | None:
        """Of a version in use; None where it cannot be read."""
        if version not in watched.manifests:
            try:
                watched.manifests[version] = self.registry.load(task, version).manifest
            except (UnknownVersion, CorruptArtifact):
                watched.manifests[version] = None
        return watched.manifests[version]


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


def _difference(certified_for: Teacher, teacher: Teacher) -> str | None:
    for what, before, now in (
        ("model", certified_for.model, teacher.model),
        ("prompt", certified_for.prompt, teacher.prompt),
    ):
        if before is not None and now is not None and before != now:
            return (
                f"the teacher's {what} changed from {before} to {now}: "
                "the certificate is of the old one"
            )
    return None


def _below(live: LiveCertificate) -> str:
    return (
        f"agreement is credibly below α = {live.alpha}: {live.agreement:.3f} on {live.n} audits "
        f"(e-value {live.e_value:.0f}, δ = {live.delta})"
    )
