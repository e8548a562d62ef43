"""What the teacher does with deferrals: decisions for those waiting, traces for the flywheel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.teacher.answers import Answer, CannotAnswer
from services.teacher.budget import Unavailable
from services.teacher.costs import cost_of
from services.teacher.panel import Key, Question, Reply
from shared.bus.base import Message, Record, size_of
from shared.bus.errors import InvalidMessage
from shared.clock import Clock
from shared.contracts.codec import MAX_EVENT_BYTES, InvalidEvent, decode, encode
from shared.contracts.events import Decision, Deferral, Outcome, RawTrace, Source
from shared.contracts.prompting import prompt_digest, readings
from shared.contracts.tasks import Task
from shared.contracts.taxonomy import Taxonomy, UnknownLabel
from shared.rejecting import Rejecting
from shared.telemetry.metrics import UNKNOWN_LABELS

SERVICE = "teacher"
_MAX_LABEL_CHARS = 256

AskAll = Callable[[Sequence[Question]], Mapping[Key, Reply]]


@dataclass(frozen=True, slots=True)
class Rules:
    """The tasks the teacher knows, and where its records go.

    `only` and `never` share the work of several groups of teachers: what is not this group's is
    passed over, and unreadable records are for the group without `only`.
    """

    tasks: Mapping[str, Task]
    taxonomies: Mapping[str, Taxonomy]
    deferred_topic: str
    decisions_topic: str
    raw_topic: str
    only: frozenset[str] | None = None
    never: frozenset[str] = frozenset()

    def mine(self, task: str) -> bool:
        return task not in self.never and (self.only is None or task in self.only)


def teach(
    messages: Sequence[Message],
    *,
    rules: Rules,
    ask_all: AskAll,
    reject: Rejecting,
    clock: Clock,
) -> list[Record]:
    """The records of one batch of deferrals, in their order. Raises Retryable, and Fatal when
    nothing but dead letters comes out.

    An answered deferral becomes a decision, unless the router has decided already (`audited`),
    and a raw trace; one that can never be answered a decision that says why, and a dead letter.
    """
    read = [(message, _read(message, rules)) for message in messages]
    ours = [(message, reading) for message, reading in read if reading is not None]
    replies = ask_all([item for _, item in ours if isinstance(item, Question)])
    now = clock.now()
    records: list[Record] = []
    for message, reading in ours:
        settled: list[Record] | _Unusable = (
            _settle(message, reading, replies[reading.key], rules=rules, now=now)
            if isinstance(reading, Question)
            else reading
        )
        if isinstance(settled, _Unusable):
            if isinstance(settled.error, Unavailable):
                reject.accepted(message)  # nothing is wrong with it, however many there are
            letter = reject(message, settled.error)
            records += [*_last_word(message, settled, rules=rules, now=now), letter]
        else:
            reject.accepted(message)
            records += settled
    return records


@dataclass(frozen=True, slots=True)
class _Unusable:
    """`deferral` is None when the record was not one."""

    error: InvalidMessage
    deferral: Deferral | None = None


def _read(message: Message, rules: Rules) -> Question | _Unusable | None:
    """None: not this group's."""
    try:
        deferral = decode(message.value, Deferral)
    except InvalidEvent as error:
        if rules.only is not None:
            return None
        return _Unusable(InvalidMessage(str(error), field=error.field))
    if not rules.mine(deferral.request.task):
        return None
    if len(message.value) + size_of(message.headers) > MAX_EVENT_BYTES:
        # The answer's records carry them too. No router lets it come to that.
        return _Unusable(InvalidMessage("too many bytes of headers", field="headers"))
    task = rules.tasks.get(deferral.request.task)
    if task is None:
        why = f"unknown task {deferral.request.task!r}"
        return _Unusable(InvalidMessage(why, field="request.task"), deferral)
    place = (message.topic, message.partition, message.offset)
    return Question(deferral, task, message.headers, place)


def _settle(
    message: Message, question: Question, reply: Reply, *, rules: Rules, now: datetime
) -> list[Record] | _Unusable:
    deferral = question.deferral
    try:
        if isinstance(reply.answer, CannotAnswer):
            raise reply.answer
        label = _label(reply.answer, question.task, rules.taxonomies[question.task.name])
    except InvalidMessage as error:
        return _Unusable(error, deferral)
    request_key = deferral.request.id.encode()
    trace = _trace(question, reply.answer, label, now)
    records = [Record(rules.raw_topic, request_key, encode(trace), message.headers)]
    if deferral.outcome is Outcome.DEFERRED:
        decision = _decision(
            deferral,
            now,
            label=label,
            model=reply.answer.model,
            timings={**deferral.timings, "teacher": round(reply.seconds * 1000, 3)},
        )
        records.insert(
            0, Record(rules.decisions_topic, request_key, encode(decision), message.headers)
        )
    return records


def _last_word(
    message: Message, unusable: _Unusable, *, rules: Rules, now: datetime
) -> list[Record]:
    """The decision that says why there is no answer, where somebody waits for one; in words of
    our own, because others may quote the request, and decisions hold no texts."""
    deferral = unusable.deferral
    if deferral is None or deferral.outcome is not Outcome.DEFERRED:
        return []
    error = unusable.error
    why = error.kind if isinstance(error, CannotAnswer) else str(error)
    decision = _decision(deferral, now, error=why, timings=deferral.timings)
    request_key = deferral.request.id.encode()
    return [Record(rules.decisions_topic, request_key, encode(decision), message.headers)]


def _label(answer: Answer, task: Task, taxonomy: Taxonomy) -> str:
    """Raises InvalidMessage for an answer that is no label of the task."""
    if task.labels:
        for reading in readings(answer.words):
            if (known := taxonomy.find(reading)) is not None:
                return known
    if taxonomy.find(answer.label) is None:
        UNKNOWN_LABELS.labels("teacher", task.name).inc()
    try:
        label = taxonomy.normalise(answer.label)
    except UnknownLabel as error:
        raise CannotAnswer(
            "the answer is not a label of the task", words=str(error), field="label"
        ) from error
    if len(label) > _MAX_LABEL_CHARS:
        raise InvalidMessage(
            f"the model's answer has {len(label)} characters; a label has at most "
            f"{_MAX_LABEL_CHARS}",
            field="label",
        )
    return label


def _decision(
    deferral: Deferral,
    now: datetime,
    *,
    timings: dict[str, float],
    label: str | None = None,
    model: str | None = None,
    error: str | None = None,
) -> Decision:
    return Decision(
        request_id=deferral.request.id,
        task=deferral.request.task,
        outcome=deferral.outcome,
        reason=deferral.reason,
        decided_at=now,
        label=label,
        accept_score=deferral.accept_score,
        threshold=deferral.threshold,
        version=deferral.version,
        occurred_at=deferral.request.occurred_at,
        teacher_model=model,
        error=error,
        timings=timings,
        metadata=deferral.request.metadata,
    )


def _trace(question: Question, answer: Answer, label: str, now: datetime) -> RawTrace:
    deferral = question.deferral
    request = deferral.request
    deferred = deferral.outcome is Outcome.DEFERRED
    return RawTrace(
        id=request.id,
        task=request.task,
        input=request.input,
        teacher=label,
        occurred_at=request.occurred_at or now,
        model=answer.model,
        tokens=answer.tokens,
        cost=cost_of(question.task.price, answer.tokens) if answer.cost is None else answer.cost,
        metadata=request.metadata,
        source=Source.DEFERRED if deferred else Source.AUDITED,
        observation_probability=deferral.observation_probability,
        deferral_reason=deferral.reason if deferred else None,
        opinions=deferral.opinions,
        drawn=deferral.drawn,
        audit_share=deferral.audit_share,
        version=deferral.version,
        prompt=prompt_digest(question.task),
    )
