"""What one trainer knows of a task's versions in use: their audits, how these agree, and who
answered as the teacher."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

from shared.contracts.audits import is_audit
from shared.contracts.events import Trace
from shared.contracts.manifest import Manifest, Teacher
from shared.contracts.tasks import Task
from shared.core.live import LiveCertificate
from shared.registry.base import (
    MAX_AUDITS_PER_CALL,
    CorruptArtifact,
    Registry,
    Trial,
    UnknownVersion,
)
from shared.telemetry import metrics

# So many traces of a version in a row by another teacher than its certificate's: it has changed.
FOREIGN_TRACES = 20


@dataclass
class Watched:
    """One task. The registry keeps the audits; what is here can be made again of them."""

    task: str
    registry: Registry
    trial: Trial | None = None  # as it was last looked at
    _live: dict[str, LiveCertificate] = field(default_factory=dict)  # by version, as all below
    _manifests: dict[str, Manifest | None] = field(default_factory=dict)
    # Who answered in each version's time, newest last.
    _teachers: dict[str, list[Teacher]] = field(default_factory=lambda: defaultdict(list))
    # Seen and not recorded yet: offset and outcome, by version and partition.
    _audits: dict[tuple[str, int], list[tuple[int, bool]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    # How many audits were recorded before those that have not been judged yet.
    _judged: dict[str, int] = field(default_factory=dict)

    def see(self, trace: Trace, partition: int, offset: int) -> None:
        """A trace of a router's request."""
        teacher = Teacher(model=trace.teacher_model, prompt=trace.prompt)
        # Of a version only what a router decided while it knew it: traces are read again, and those
        # of an earlier teacher say nothing of a version certified for the one that came after.
        known = {opinion.version for opinion in trace.opinions}
        for version in known | ({trace.version} if trace.version is not None else set()):
            teachers = self._teachers[version]
            teachers.append(teacher)
            del teachers[:-FOREIGN_TRACES]
        for opinion in trace.opinions:
            if is_audit(trace, opinion):
                agrees = opinion.label == trace.teacher
                self._audits[opinion.version, partition].append((offset, agrees))

    def record(self) -> None:
        """What was seen. Raises RegistryError; the rest is kept then, for the next call."""
        for version, partition in sorted(self._audits):
            if version not in self._judged:
                self._judged[version] = self.registry.record_audits(
                    self.task, version, partition, ()
                )
            # A rebalance reads again what this turn has read already, from an earlier offset on.
            audits = sorted(dict(self._audits[version, partition]).items())
            for start in range(0, len(audits), MAX_AUDITS_PER_CALL):
                some = audits[start : start + MAX_AUDITS_PER_CALL]
                self.registry.record_audits(self.task, version, partition, some)
            del self._audits[version, partition]
            metrics.AUDITS.labels(self.task).inc(len(audits))

    def all_judged(self) -> None:
        """What has been recorded so far is news no more."""
        self._judged.clear()

    def keep(self, in_use: Collection[str | None]) -> None:
        """Forget all other versions."""
        for known in (self._live, self._manifests, self._teachers):
            for version in set(known) - set(in_use):
                del known[version]

    def live(self, task: Task, version: str, *, serving: bool = False) -> LiveCertificate:
        """The version's live certificate, with all outcomes recorded so far. It is held to what is
        asked for, but to no more than it was certified for. `serving`: whatever suspicion there was
        before this turn has been cleared, or it would be on probation."""
        manifest = self.manifest(version)
        alpha = min(task.alpha, manifest.certificate.alpha) if manifest else task.alpha
        live = self._live.get(version)
        if live is None or live.alpha != alpha:
            live = self._live[version] = LiveCertificate(alpha, task.delta)
            outcomes = self.registry.audits(self.task, version, 0)
            live.observe_all(outcomes[: self._judged.get(version)])
            if serving:
                live.forget_suspicion()
        live.observe_all(self.registry.audits(self.task, version, live.n))
        return live

    def judged_with(self, version: str) -> LiveCertificate | None:
        """The live certificate as it was last looked at."""
        return self._live.get(version)

    def foreign(self, version: str) -> str | None:
        """Why the certificate is of another teacher than the one that answers now, if it is."""
        differing = self._differences(version)
        if len(differing) < FOREIGN_TRACES or not all(differing):
            return None
        return differing[-1]

    def newest_is_foreign(self, version: str) -> bool:
        """Whether the certificate is of another teacher than answered last."""
        return any(self._differences(version)[-1:])

    def manifest(self, version: str) -> Manifest | None:
        """Of a version in use; None where it cannot be read."""
        if version not in self._manifests:
            try:
                self._manifests[version] = self.registry.load(self.task, version).manifest
            except (UnknownVersion, CorruptArtifact):
                self._manifests[version] = None
        return self._manifests[version]

    def _differences(self, version: str) -> list[str | None]:
        """What sets each of the last teachers apart from the certificate's, newest last."""
        manifest = self.manifest(version)
        certified_for = manifest.teacher if manifest else None
        if certified_for is None:
            return []
        return [_difference(certified_for, one) for one in self._teachers.get(version, ())]


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
