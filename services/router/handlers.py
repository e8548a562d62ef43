"""A micro-batch of requests to decisions and deferrals: plain functions, no client library."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.router.serving import NOBODY, Serving, Verdict, judge
from shared.admitting import redacted
from shared.bus.base import Message, Record
from shared.bus.errors import InvalidMessage
from shared.clock import Clock
from shared.contracts.codec import MAX_ROUTED_BYTES, InvalidEvent, decode, encode
from shared.contracts.events import Decision, Deferral, Outcome, Request
from shared.contracts.tasks import Task
from shared.encoder.base import Encoder
from shared.telemetry import metrics


@dataclass(frozen=True)
class Topics:
    decisions: str
    deferred: str


@dataclass(frozen=True)
class Router:
    """Answers micro-batches. `serving` gives what answers for each task, read once per batch;
    `accepted` is told of each message that is no dead letter, `worked` how many a batch had."""

    tasks: Mapping[str, Task]
    serving: Callable[[], Mapping[str, Serving]]
    encoder: Encoder
    clock: Clock
    topics: Topics
    dead_letter: Callable[[Message, InvalidMessage], Record]
    accepted: Callable[[Message], None] = lambda message: None
    worked: Callable[[int], None] = lambda requests: None

    def __call__(self, messages: Sequence[Message]) -> list[Record]:
        """The records of the messages, in their order."""
        return [record for records in self.each(messages) for record in records]

    def each(self, messages: Sequence[Message]) -> list[list[Record]]:
        """The records of each message: a decision, a deferral, both for a request that is
        audited, or a dead letter. May be called from several threads."""
        records = []
        for message, found in zip(messages, self.tried(messages), strict=True):
            # In their order, so that runs are seen.
            if isinstance(found, InvalidMessage):
                records.append([self.dead_letter(message, found)])
            else:
                self.accepted(message)
                records.append(found)
        return records

    def tried(self, messages: Sequence[Message]) -> list[list[Record] | InvalidMessage]:
        """The records of each message as `each` gives them, or why it cannot be used. May be
        called from several threads."""
        started = self.clock.monotonic()
        serving = self.serving()
        requests: dict[int, Request] = {}
        asked: dict[int, Request] = {}
        found: dict[int, list[Record] | InvalidMessage] = {}
        for i, message in enumerate(messages):
            try:
                request = self._decode(message)
                asked[i] = redacted(request, self.tasks[request.task].redact)
                requests[i] = request
            except InvalidMessage as error:
                found[i] = error
        verdicts = self._judge(asked, serving)
        batch_ms = (self.clock.monotonic() - started) * 1000.0
        for i, request in requests.items():
            queued = self._queued(messages[i])
            timings = {"batch_ms": round(batch_ms, 3), "queued_ms": queued}
            if messages[i].offset >= 0:  # the door times its calls itself
                metrics.REQUEST_SECONDS.observe(queued / 1000.0)
            try:
                found[i] = self._records(request, verdicts[i], timings, messages[i])
            except InvalidMessage as error:
                found[i] = error
        metrics.BATCH_SIZE.observe(len(messages))
        self.worked(len(messages))
        return [found[i] for i in range(len(messages))]

    def check(self, request: Request) -> None:
        """Raises InvalidMessage for a request of a task that is not configured."""
        if request.task not in self.tasks:
            known = ", ".join(sorted(self.tasks)) or "none"
            raise InvalidMessage(f"unknown task {request.task!r}; known: {known}", field="task")

    def _decode(self, message: Message) -> Request:
        try:
            request = decode(message.value, Request)
        except InvalidEvent as error:
            raise InvalidMessage(str(error), field=error.field) from error
        self.check(request)
        return request

    def _judge(
        self, requests: Mapping[int, Request], serving: Mapping[str, Serving]
    ) -> dict[int, Verdict]:
        by_task: dict[str, dict[int, Request]] = defaultdict(dict)
        for i, request in requests.items():
            by_task[request.task][i] = request
        verdicts: dict[int, Verdict] = {}
        for name, of_task in by_task.items():
            task = self.tasks[name]
            verdicts |= judge(
                of_task,
                serving.get(name, NOBODY),
                alpha=task.alpha,
                audit_share=task.audit_share,
                taxonomy=frozenset(task.labels),
                encoder=self.encoder,
            )
        return verdicts

    def _records(
        self, request: Request, verdict: Verdict, timings: dict[str, float], message: Message
    ) -> list[Record]:
        outcome = Outcome.DEFERRED
        if verdict.handled:
            outcome = Outcome.AUDITED if verdict.drawn else Outcome.HANDLED
        key, now = request.id.encode(), self.clock.now()
        records = []
        if verdict.handled:
            decision = self._decision(request, verdict, outcome, now, timings)
            records.append(Record(self.topics.decisions, key, encode(decision), message.headers))
        if verdict.observed:
            deferral = self._deferral(request, verdict, outcome, now, timings)
            records.append(Record(self.topics.deferred, key, encode(deferral), message.headers))
        for record in records:
            _check_size(record)
        metrics.DECISIONS.labels(request.task, outcome.value, verdict.answer.reason.value).inc()
        return records

    def _decision(
        self, request: Request, verdict: Verdict, outcome: Outcome, now: datetime,
        timings: dict[str, float],
    ) -> Decision:  # fmt: skip
        answer = verdict.answer
        return Decision(
            request_id=request.id,
            task=request.task,
            outcome=outcome,
            reason=answer.reason,
            decided_at=now,
            label=answer.label,
            accept_score=answer.accept_score,
            threshold=answer.threshold,
            version=verdict.version,
            occurred_at=request.occurred_at,
            timings=timings,
            metadata=request.metadata,
        )

    def _deferral(
        self, request: Request, verdict: Verdict, outcome: Outcome, now: datetime,
        timings: dict[str, float],
    ) -> Deferral:  # fmt: skip
        answer, audit_share = verdict.answer, self.tasks[request.task].audit_share
        return Deferral(
            request=request,
            reason=answer.reason,
            deferred_at=now,
            outcome=outcome,
            observation_probability=audit_share if outcome is Outcome.AUDITED else 1.0,
            label=answer.label if outcome is Outcome.AUDITED else None,
            accept_score=answer.accept_score,
            threshold=answer.threshold,
            version=verdict.version,
            opinions=list(verdict.opinions),
            drawn=verdict.drawn,
            audit_share=audit_share,
            timings=timings,
        )

    def _queued(self, message: Message) -> float:
        """Milliseconds between the broker's timestamp and now."""
        if not message.timestamp_ms:
            return 0.0
        return max(0.0, round(self.clock.now().timestamp() * 1000.0 - message.timestamp_ms, 1))


def _check_size(record: Record) -> None:
    """Raises InvalidMessage for one of which no trace could come. Texts are short: it is the
    metadata, whose numbers can grow when written again, or the headers."""
    if record.size <= MAX_ROUTED_BYTES:
        return
    field = "metadata" if len(record.value) > MAX_ROUTED_BYTES else "headers"
    raise InvalidMessage(
        f"the request's record would have {record.size} bytes of at most {MAX_ROUTED_BYTES}: send "
        f"less in {field}",
        field=field,
    )
