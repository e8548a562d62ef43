"""The laws that hold whatever happens, as one pure function of the evidence.

What is unfinished is either still queued (its consumer's committed offset has not passed it: it
will be read again) or lost, which is a violation. What is twice is a violation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.faults.evidence import READS, At, Evidence, Seen

BAD = "bad-"  # ids that begin so are meant to be rejected
_TRANSACTIONAL = ("router", "teacher")
_ONE = "one decision a request"
_DOOR = "every answered call on the topics"
_ANSWERED = "every deferral answered or queued"
_WINDOW = "every trace in a window"
_TRACED = "every raw trace accepted or rejected"
_LETTERS = "dead letters explain every rejected"
_CERTIFIED = "every version certified"
_KEPT = "what was acknowledged is there"
LAWS = (_ONE, _DOOR, _ANSWERED, _TRACED, _WINDOW, _CERTIFIED, _LETTERS, _KEPT)


@dataclass(frozen=True, slots=True)
class Violation:
    law: str
    about: str
    detail: str

    def __str__(self) -> str:
        return f"{self.law}: {self.about}: {self.detail}"


@dataclass(frozen=True)
class Findings:
    """`queued`: by service, the records that wait for it; of the trainer, the traces it holds in
    windows that are still open."""

    violations: list[Violation]
    queued: Counter[str]
    checked: int

    @property
    def settled(self) -> bool:
        """Whether nothing waits but for a window to close."""
        return not any(count for service, count in self.queued.items() if service != "trainer")


def check(evidence: Evidence) -> Findings:
    """All laws."""
    court = _Court(evidence)
    violations = [
        *court.decisions(),
        *court.calls(),
        *court.deferrals(),
        *court.raw_traces(),
        *court.windows(),
        *court.versions(),
        *court.letters(),
        *court.acknowledged(),
    ]
    return Findings(violations, court.queued, evidence.events)


class _Court:
    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self.queued: Counter[str] = Counter(dict.fromkeys(READS, 0))
        self._rejected = {
            letter.letter[0] for letter in evidence.records["dead-letters"] if letter.letter
        }
        self._decisions = Counter(seen.name for seen in self._of("decisions"))
        self._by_teacher = Counter(
            seen.name for seen in self._of("decisions") if seen.body.get("outcome") == "deferred"
        )

    def decisions(self) -> Iterator[Violation]:
        """Each request record exactly one decision; a deferral is a decision that is to come."""
        requests = Counter(s.name for s in self._of("requests") if s.at not in self._rejected)
        deferred = Counter(
            seen.name for seen in self._of("deferred") if seen.body.get("outcome") == "deferred"
        )
        unread = self._waiting("router", (s for s in self._of("requests")))
        for name, asked in requests.items():
            by_router = self._decisions[name] - self._by_teacher[name]
            passed_on = by_router + deferred[name]
            if passed_on > asked:
                yield Violation(_ONE, str(name), f"routed {passed_on} times, asked {asked}")
            elif passed_on < asked - unread[name]:
                yield Violation(_ONE, str(name), f"routed {passed_on} times, asked {asked}: lost")
            if self._by_teacher[name] > deferred[name]:
                yield Violation(
                    _ONE, str(name),
                    f"the teacher decided {self._by_teacher[name]} times, asked {deferred[name]}",
                )  # fmt: skip
        for name in self._decisions.keys() - requests.keys() - self._evidence.called.keys():
            yield Violation(_ONE, str(name), "a decision that nobody asked for")

    def calls(self) -> Iterator[Violation]:
        """A call that was answered is on the topics, as often as it was answered at least; one that
        was not may be: as often as it was sent at most."""
        deferred = Counter(
            seen.name for seen in self._of("deferred") if seen.body.get("outcome") == "deferred"
        )
        for name, called in self._evidence.called.items():
            routed = self._decisions[name] - self._by_teacher[name] + deferred[name]
            if routed < called.answers:
                yield Violation(
                    _DOOR, str(name), f"answered {called.answers} times, on the topics {routed}"
                )
            if routed > called.attempts:
                yield Violation(
                    _DOOR, str(name), f"sent {called.attempts} times, on the topics {routed}"
                )
            if self._by_teacher[name] > deferred[name]:
                yield Violation(
                    _DOOR, str(name),
                    f"the teacher decided {self._by_teacher[name]} times, asked {deferred[name]}",
                )  # fmt: skip

    def deferrals(self) -> Iterator[Violation]:
        traced = {seen.name for seen in self._of("traces.raw") if seen.body.get("source") != "log"}
        waiting = self._waiting("teacher", self._of("deferred"))
        asked: Counter[tuple[str, str]] = Counter()
        for seen in self._of("deferred"):
            rejected = seen.at in self._rejected
            if seen.body.get("outcome") == "deferred":
                asked[seen.name] += 1
            if not rejected and seen.name not in traced and not waiting[seen.name]:
                yield Violation(_ANSWERED, str(seen.name), "no trace of it, and it is not queued")
        for name, count in asked.items():
            if self._by_teacher[name] < count - waiting[name]:
                yield Violation(
                    _ANSWERED, str(name), f"answered {self._by_teacher[name]} times of {count}"
                )

    def raw_traces(self) -> Iterator[Violation]:
        accepted = {seen.name for seen in self._of("traces")}
        offered = {seen.name for seen in self._of("traces.raw")}
        for seen in self._of("traces.raw"):
            if seen.name in accepted or seen.at in self._rejected:
                continue
            if self._is_queued("ingest", seen.at):
                self.queued["ingest"] += 1
            else:
                yield Violation(_TRACED, str(seen.name), f"lost at {seen.at}")
        for name in accepted - offered:
            yield Violation(_TRACED, str(name), "a trace that nobody sent")

    def windows(self) -> Iterator[Violation]:
        """A trace of an open window is not in the store, but then its offset is not committed."""
        stored, names = self._evidence.stored, set()
        for seen in self._of("traces"):
            names.add(seen.name)
            if seen.name in stored or seen.at in self._rejected:
                continue
            if self._is_queued("trainer", seen.at):
                self.queued["trainer"] += 1
            else:
                yield Violation(
                    _WINDOW, str(seen.name), f"not stored, but the offset has passed {seen.at}"
                )
        for name in stored - names:
            yield Violation(_WINDOW, str(name), "stored, but nobody sent it")
        for name in self._evidence.doubled:
            yield Violation(_WINDOW, str(name), "stored twice in one day's window")

    def versions(self) -> Iterator[Violation]:
        for task, active in self._evidence.active.items():
            if active.flaw is not None:
                yield Violation(_CERTIFIED, f"{task} {active.version}", active.flaw)
        announced = {
            seen.body.get("version")
            for seen in self._of("models")
            if seen.body.get("agreement_lower") is not None
        }
        answering = {
            str(seen.body.get("version"))
            for seen in self._of("decisions")
            if seen.body.get("outcome") != "deferred"
        }
        for version in sorted(answering - self._evidence.certified - announced):
            yield Violation(_CERTIFIED, version, "answered requests, and nobody certified it")

    def letters(self) -> Iterator[Violation]:
        known = {
            seen.at: seen
            for topic in READS.values()
            for seen in self._of(topic)
        }  # fmt: skip
        once: set[At] = set()
        for seen in self._of("dead-letters"):
            if seen.letter is None:
                yield Violation(_LETTERS, str(seen.at), "it does not say where it came from")
                continue
            at, why, service = seen.letter
            original = known.get(at)
            if original is None or original.digest != seen.digest:
                yield Violation(_LETTERS, str(at), "it is not the record it says it was")
            elif at[0] != "deferred" and not original.name[1].startswith(BAD):
                yield Violation(_LETTERS, str(original.name), f"rejected, but good: {why}")
            if not why:
                yield Violation(_LETTERS, str(at), "no reason is given")
            if service in _TRANSACTIONAL and at in once:
                yield Violation(_LETTERS, str(at), "rejected twice")
            once.add(at)

    def acknowledged(self) -> Iterator[Violation]:
        found = {seen.at for topic in READS.values() for seen in self._of(topic)}
        for at in sorted(self._evidence.acknowledged - found):
            yield Violation(_KEPT, str(at), "acknowledged by the broker, and gone")

    def _of(self, topic: str) -> list[Seen]:
        return self._evidence.records[topic]

    def _is_queued(self, service: str, at: At) -> bool:
        return at[2] >= self._evidence.committed.get(service, {}).get(at[1], 0)

    def _waiting(self, service: str, records: Iterable[Seen]) -> Counter[tuple[str, str]]:
        """By name, the records that the service has still to read."""
        waiting = Counter(s.name for s in records if self._is_queued(service, s.at))
        self.queued[service] += waiting.total()
        return waiting
