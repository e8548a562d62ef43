"""The whole loop in one process, without a broker: the services' own handlers, called in turn.

requests -> router -> deferred -> teacher -> raw traces -> ingest -> traces -> monitor and windows
-> refit -> registry -> router. What the brokers add (delivery, order) is tested elsewhere.

The one module that may import several services: like the demo it runs them all, but as functions
(`[tool.importlinter]` in pyproject.toml lists what it may know of each).
"""

from __future__ import annotations

import time as timing
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from services.ingest.handlers import Rules as IngestRules
from services.ingest.handlers import accept
from services.router.handlers import Router, Topics
from services.router.loading import Loading
from services.router.models import Models
from services.teacher.answers import Answer
from services.teacher.handlers import Rules as TeacherRules
from services.teacher.handlers import teach
from services.teacher.panel import Key, Question, Reply
from services.trainer.examination import Examination
from services.trainer.examine import Examiner
from services.trainer.monitor import Monitor
from services.trainer.pipeline import Refit
from services.trainer.refit_states import RefitStates
from services.trainer.reporting import Outcome as ReportedOutcome
from shared.bus.base import Message, Record
from shared.bus.fates import DeadLetterLimit
from shared.clock import FakeClock
from shared.contracts.codec import decode, encode
from shared.contracts.events import Decision, Input, ModelAnnouncement, Outcome, Request, Trace
from shared.contracts.report import Report
from shared.contracts.tasks import Task
from shared.contracts.taxonomy import taxonomies
from shared.core.window import WindowKey
from shared.encoder.base import Encoder
from shared.registry.base import Artifact
from shared.registry.disk import DiskCopy
from shared.registry.memory import MemoryRegistry
from shared.rejecting import rejecting
from shared.store.parquet import WindowStore
from shared.store.saved import SavedFiles

# What the teacher answers to the request of an id.
Teacher = Callable[[str], str]


@dataclass(frozen=True)
class Decided:
    """One request's final decision, in the order of the requests."""

    label: str | None
    outcome: Outcome
    reason: str


@dataclass
class Timed:
    """An examiner, and what its last fit and report came to, in CPU seconds of this process."""

    examiner: Examiner
    fit_seconds: float = 0.0
    report_seconds: float = 0.0
    incremental: bool = False

    def __call__(self, task: Task, day: date, incumbent: Artifact | None) -> Examination:
        began = timing.process_time()
        found = self.examiner(task, day, incumbent)
        self.fit_seconds = timing.process_time() - began
        made = found.challenger.artifact
        self.incremental = made is not None and made.manifest.incremental is not None
        return found

    def report(self, task: Task, day: date, outcome: ReportedOutcome) -> Report:
        began = timing.process_time()
        report = self.examiner.report(task, day, outcome)
        self.report_seconds = timing.process_time() - began
        return report


@dataclass
class Loop:
    """lag: how many requests pass before a trace is seen, as teacher and ingest take their time;
    batch: how many the router takes at a time."""

    task: Task
    encoder: Encoder
    folder: Path
    teacher: Teacher
    model: str = "llm-1"
    lag: int = 0
    batch: int = 50
    announced: list[ModelAnnouncement] = field(default_factory=list)

    def __post_init__(self) -> None:
        tasks = {self.task.name: self.task}
        self.clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.registry = MemoryRegistry()
        self.store = WindowStore(str(self.folder / "windows"))
        self.models = Models(
            tasks=list(tasks), registry=self.registry, copies=DiskCopy(self.folder / "models"),
            loading=Loading(self.encoder, threads=1),
        )  # fmt: skip
        # Nothing here may be rejected: the first one ends the rehearsal with its reason.
        self._never = rejecting("rehearsal", "dead-letters", self.clock, DeadLetterLimit(0))
        self.router = Router(
            tasks=tasks, serving=self.models.snapshot, encoder=self.encoder, clock=self.clock,
            topics=Topics("decisions", "deferred"), dead_letter=self._never,
        )  # fmt: skip
        self.monitor = Monitor(
            tasks=tasks, registry=self.registry, announce=self.announced.append, clock=self.clock
        )
        states = RefitStates(SavedFiles(str(self.folder / "windows")))
        self.examine = Timed(Examiner(self.store, self.encoder, states))
        self.refit = Refit(
            tasks=tasks, windows=self.store, encoder=self.encoder.digest,
            examine=self.examine, registry=self.registry,
            announce=self.announced.append, clock=self.clock,
        )  # fmt: skip
        self._rules = TeacherRules(tasks, taxonomies(tasks), "deferred", "decisions", "traces.raw")
        self._ingest = IngestRules(
            taxonomies=taxonomies(tasks), raw_topic="traces.raw", traces_topic="traces",
            future_tolerance=timedelta(days=1),
        )  # fmt: skip
        self._offset = 0
        self._waiting: deque[tuple[int, Trace]] = deque()
        self._seen = 0
        self._held: list[Trace] = []

    def run_day(self, day: date, requests: Mapping[str, Input]) -> list[Decided]:
        """Requests by id, spread over the day; `close` ends it."""
        start = datetime.combine(day, time(), UTC)
        step = timedelta(days=1) / (len(requests) + 1)
        ids, decided = list(requests), []
        for begin in range(0, len(ids), self.batch):
            messages = []
            for i, request_id in enumerate(ids[begin : begin + self.batch], start=begin):
                self._tick(start + step * (i + 1))
                request = Request(
                    id=request_id, task=self.task.name, input=requests[request_id],
                    occurred_at=self.clock.now(),
                )  # fmt: skip
                messages.append(Message("requests", 0, i, request_id.encode(), encode(request)))
            decided += self._batch(messages)
        self._arrive(everything=True)
        return decided

    def close(self, day: date) -> ModelAnnouncement | None:
        """Store the day's window and refit; a day without a trace has no window."""
        if not self._held:
            return None
        self.store.write(self.task.name, day, self._held)
        self._held.clear()
        return self.refit(WindowKey(self.task.name, day))

    def log(self, traces: Sequence[Trace]) -> None:
        """Traces that come from logs, not from this loop's teacher."""
        self._held.extend(traces)

    def _tick(self, moment: datetime) -> None:
        self.clock.sleep(max(0.0, (moment - self.clock.now()).total_seconds()))

    def _batch(self, messages: Sequence[Message]) -> list[Decided]:
        self.models.refresh()
        records = self.router(messages)
        deferred = [
            Message("deferred", 0, i, r.key, r.value)
            for i, r in enumerate(records) if r.topic == "deferred"
        ]  # fmt: skip
        answered = teach(
            deferred, rules=self._rules, ask_all=self._ask_all, reject=self._never, clock=self.clock
        )
        decisions: dict[str, Decided] = {}
        for record in [*records, *answered]:
            if record.topic == "decisions":
                d = decode(record.value, Decision)
                decisions[d.request_id] = Decided(d.label, d.outcome, d.reason.value)
            elif record.topic == "traces.raw":
                self._take_in(record)
        self._seen += len(messages)
        self._arrive()
        return [decisions[(m.key or b"").decode()] for m in messages]

    def _take_in(self, record: Record) -> None:
        message = Message("traces.raw", 0, self._offset, record.key, record.value)
        self._offset += 1
        accepted = accept(message, rules=self._ingest, now=self.clock.now())
        self._waiting.append((self._seen + self.lag, accepted.trace))

    def _arrive(self, *, everything: bool = False) -> None:
        """What teacher and ingest are through with reaches the trainer."""
        while self._waiting and (everything or self._waiting[0][0] < self._seen):
            _, trace = self._waiting.popleft()
            self._held.append(trace)
            self.monitor.see(trace, 0, self._offset)
            self._offset += 1
        self.monitor.settle()

    def _ask_all(self, questions: Sequence[Question]) -> dict[Key, Reply]:
        replies = {}
        for question in questions:
            request = question.deferral.request
            label = self.teacher(request.id)
            replies[question.key] = Reply(Answer(label, self.model), 0.0)
        return replies
