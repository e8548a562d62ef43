"""A micro-batch of requests to decisions and deferrals: plain functions, no client library."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.router.surrogate import Answer
from shared.bus.base import Message, Record
from shared.bus.errors import InvalidMessage
from shared.clock import Clock
from shared.contracts.codec import InvalidEvent, decode, encode
from shared.contracts.events import Decision, Deferral, Outcome, Reason, Request
from shared.encoder.base import Encoder
from shared.telemetry import metrics


class Version(Protocol):
    """What answers for a task."""

    @property
    def version(self) -> str: ...

    def answer(self, inputs: Sequence[tuple[str, ...]], encoder: Encoder) -> list[Answer]: ...


@dataclass(frozen=True)
class Topics:
    decisions: str
    deferred: str


@dataclass(frozen=True)
class Router:
    """Answers micro-batches. `versions` gives the active versions, read once per batch."""

    tasks: Collection[str]
    versions: Callable[[], Mapping[str, Version]]
    encoder: Encoder
    clock: Clock
    topics: Topics
    dead_letter: Callable[[Message, InvalidMessage], Record]

    def __call__(self, messages: Sequence[Message]) -> list[Record]:
        """One record per message, in the order of the messages."""
        started = self.clock.monotonic()
        versions = self.versions()
        requests: dict[int, Request] = {}
        records: dict[int, Record] = {}
        for i, message in enumerate(messages):
            try:
                requests[i] = self._decode(message)
            except InvalidMessage as error:
                records[i] = self.dead_letter(message, error)
        answers = self._answer(requests, versions)
        batch_ms = (self.clock.monotonic() - started) * 1000.0
        for i, request in requests.items():
            timings = {"batch_ms": round(batch_ms, 3), "queued_ms": self._queued(messages[i])}
            version = versions.get(request.task)
            records[i] = self._record(
                request, answers[i], version.version if version else None, timings, messages[i]
            )
        metrics.BATCH_SIZE.observe(len(messages))
        return [records[i] for i in range(len(messages))]

    def _decode(self, message: Message) -> Request:
        try:
            request = decode(message.value, Request)
        except InvalidEvent as error:
            raise InvalidMessage(str(error), field=error.field) from error
        if request.task not in self.tasks:
            known = ", ".join(sorted(self.tasks)) or "none"
            raise InvalidMessage(f"unknown task {request.task!r}; known: {known}", field="task")
        return request

    def _answer(
        self, requests: Mapping[int, Request], versions: Mapping[str, Version]
    ) -> dict[int, Answer]:
        by_task: dict[str, list[int]] = defaultdict(list)
        for i, request in requests.items():
            by_task[request.task].append(i)
        answers: dict[int, Answer] = {}
        for task, rows in by_task.items():
            version = versions.get(task)
            if version is None:
                answers.update(dict.fromkeys(rows, Answer(Reason.NO_ACTIVE_VERSION)))
                continue
            inputs = [_texts(requests[i]) for i in rows]
            answers.update(zip(rows, version.answer(inputs, self.encoder), strict=True))
        return answers

    def _record(
        self, request: Request, answer: Answer, version: str | None, timings: dict[str, float],
        message: Message,
    ) -> Record:  # fmt: skip
        handled = answer.reason is Reason.CERTIFIED
        outcome = Outcome.HANDLED if handled else Outcome.DEFERRED
        metrics.DECISIONS.labels(request.task, outcome.value, answer.reason.value).inc()
        now = self.clock.now()
        event: Decision | Deferral
        if handled:
            event = Decision(
                request_id=request.id,
                task=request.task,
                outcome=outcome,
                reason=answer.reason,
                decided_at=now,
                label=answer.label,
                accept_score=answer.accept_score,
                threshold=answer.threshold,
                version=version,
                occurred_at=request.occurred_at,
                timings=timings,
                metadata=request.metadata,
            )
        else:
            event = Deferral(
                request=request,
                reason=answer.reason,
                deferred_at=now,
                accept_score=answer.accept_score,
                threshold=answer.threshold,
                version=version,
                timings=timings,
            )
        topic = self.topics.decisions if handled else self.topics.deferred
        return Record(topic, request.id.encode(), encode(event), message.headers)

    def _queued(self, message: Message) -> float:
        """Milliseconds between the broker's timestamp and now."""
        if not message.timestamp_ms:
            return 0.0
        return max(0.0, round(self.clock.now().timestamp() * 1000.0 - message.timestamp_ms, 1))


def _texts(request: Request) -> tuple[str, ...]:
    return (request.input,) if isinstance(request.input, str) else tuple(request.input)
