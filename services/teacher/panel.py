"""Asks many questions at once, and remembers the answers until they are safely published."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import NewType

from services.teacher.answers import Answer, Ask, CannotAnswer, EndpointRefuses, PassingFault
from services.teacher.budget import BudgetWaits, Unavailable
from services.teacher.retries import CutShort, Interrupted, Policy, Wait, with_retries
from shared.bus.base import Headers
from shared.bus.errors import Retryable
from shared.clock import Clock
from shared.contracts.codec import encode
from shared.contracts.events import Deferral
from shared.contracts.tasks import Task, TeacherEndpoint
from shared.telemetry import tracing
from shared.telemetry.metrics import TEACHER_CALLS, TEACHER_SECONDS

Key = NewType("Key", bytes)
Place = tuple[str, int, int]  # topic, partition and offset
_REMEMBERED = 10_000
# A call's longest time, as a share of a batch's: one that begins with the batch has all of it.
_OF_BATCH = 0.9


@dataclass(frozen=True, slots=True)
class Question:
    """`headers`: of the deferral's record, with its trace's context; `at`: where it lies."""

    deferral: Deferral
    task: Task
    headers: Headers = ()
    at: Place | None = None

    @property
    def endpoint(self) -> TeacherEndpoint | None:
        """Tasks of equal settings share one; None is that of the teacher's own settings."""
        return self.task.teacher

    @property
    def key(self) -> Key:
        """The same for the same request, however often its deferral is read."""
        return Key(blake2b(encode(self.deferral.request), digest_size=16).digest())


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer, or why there will never be one; `seconds` with all attempts, `at` the place of
    the question it was given to."""

    answer: Answer | CannotAnswer
    seconds: float
    at: Place | None = None

    def settles(self, question: Question) -> bool:
        """Whether the same request need not be asked again.

        An answer is one wherever the request comes from. That there is none holds for the record
        that said so, until it is committed: put back from the dead letters, it is asked again.
        """
        known = self.at is not None and self.at == question.at
        return known or isinstance(self.answer, Answer)


@dataclass(frozen=True, slots=True)
class Limits:
    """`timeout` of a call, `batch` for all of them, `patience` with one request; in seconds."""

    timeout: float
    batch: float
    patience: float
    concurrency: int


class Panel:
    """Concurrent calls to the endpoints. Called from one thread; asks from several."""

    def __init__(
        self,
        ask: Ask,
        *,
        policy: Policy,
        limits: Limits,
        clock: Clock,
        wait: Wait,
        on_answer: Callable[[], None],
        seed: int | None = None,
    ) -> None:
        self._ask = ask
        self._policy = policy
        self._limits = limits
        self._clock = clock
        self._wait = wait
        self._on_answer = on_answer
        self._chance = random.Random(seed)
        self._replies: OrderedDict[Key, Reply] = OrderedDict()
        self._failing_since: dict[Key, float] = {}
        self._answered: dict[TeacherEndpoint | None, Question] = {}  # the last of each
        self._threads = ThreadPoolExecutor(limits.concurrency, thread_name_prefix="teacher")

    def ask_all(self, questions: Sequence[Question]) -> dict[Key, Reply]:
        """A reply for every question, answered once however often this is called.

        Raises Retryable when some could not be answered now; the replies that did come are kept,
        and the next call asks for the rest only.
        """
        by_key = {question.key: question for question in questions}
        deadline = self._clock.monotonic() + self._limits.batch
        waiting = {key: q for key, q in by_key.items() if not self._settled(key, q)}
        last_chances = self._last_chances(waiting, deadline)
        asked = {
            self._threads.submit(self._ask_one, question, deadline): key
            for key, question in waiting.items()
        }
        faults = [
            fault
            for future in as_completed(asked)  # as they come: each is a sign of life
            if (fault := self._collect(waiting[key := asked[future]], future, key in last_chances))
        ]
        if faults:
            raise Retryable(
                f"{len(faults)} of {len(by_key)} not answered: {faults[0]}"
            ) from faults[0]
        replies = {key: self._replies[key] for key in by_key}
        for key, reply in replies.items():
            if isinstance(reply.answer, Unavailable):
                del self._replies[key]  # redriven another day it is to be asked again
        self._forget()
        return replies

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _ask_one(self, question: Question, deadline: float) -> Reply:
        task = question.task
        began = self._clock.monotonic()

        def call(timeout: float) -> Answer:
            result = "fault"
            with TEACHER_SECONDS.labels(task=task.name).time():
                try:
                    with tracing.call(
                        "chat", question.headers, {"gen_ai.operation.name": "chat"}
                    ) as span:
                        answer = self._ask(task, question.deferral.request.input, timeout=timeout)
                        if span is not None:
                            span.set_attributes(_genai(task, answer))
                    result = "answered"
                except Unavailable:
                    result = "unavailable"
                    raise
                except BudgetWaits:  # nobody was asked: no fault of the endpoint's
                    result = "waits"
                    raise
                except CannotAnswer:
                    result = "failed"
                    raise
                finally:
                    TEACHER_CALLS.labels(task=task.name, result=result).inc()
            return answer

        answer: Answer | CannotAnswer
        try:
            answer = with_retries(
                call,
                policy=self._policy,
                deadline=deadline,
                timeout=min(self._limits.timeout, _OF_BATCH * self._limits.batch),
                clock=self._clock,
                chance=self._chance,
                wait=self._wait,
            )
        except CannotAnswer as error:
            answer = error
        return Reply(answer, self._clock.monotonic() - began, question.at)

    def _settled(self, key: Key, question: Question) -> bool:
        reply = self._replies.get(key)
        return reply is not None and reply.settles(question)

    def _collect(
        self, question: Question, future: Future[Reply], last_chance: bool
    ) -> Exception | None:
        """Keep the reply; or the fault, if there is still hope."""
        key = question.key
        try:
            reply = future.result()
        except (PassingFault, EndpointRefuses) as fault:
            if _of_the_endpoint(fault):
                return fault
            now = self._clock.monotonic()
            spent = now - self._failing_since.setdefault(key, now)
            if not last_chance:
                return fault
            error = CannotAnswer(f"given up after {spent:.0f} s: {fault}", field="request.input")
            reply = Reply(error, spent, question.at)
        except (Interrupted, Retryable) as fault:
            return fault
        else:
            if isinstance(reply.answer, Answer):
                self._answered[question.endpoint] = replace(question, headers=())
            self._on_answer()
        self._replies[key] = reply
        self._failing_since.pop(key, None)
        return None

    def _last_chances(self, waiting: Mapping[Key, Question], deadline: float) -> set[Key]:
        """The requests that have failed for long, where their endpoint answers another question
        now: should they fail once more, it is they rather than the endpoint.

        What was answered before or beside their failures does not tell: the endpoint may have gone
        away since. And a batch waits for them, so that nothing new is asked.
        """
        now = self._clock.monotonic()
        impatient = {
            key: question.endpoint
            for key, question in waiting.items()
            if now - self._failing_since.get(key, now) >= self._limits.patience
        }
        found: set[Key] = set()
        for endpoint in set(impatient.values()):
            keys = {key for key, its in impatient.items() if its == endpoint}
            answers = self._answers(endpoint, deadline)
            if answers:
                found |= keys
            elif answers is False:  # it was the endpoint: their patience begins anew
                self._failing_since.update(dict.fromkeys(keys, self._clock.monotonic()))
        return found

    def _answers(self, endpoint: TeacherEndpoint | None, deadline: float) -> bool | None:
        """Whether the endpoint answers now what it answered before; None where one cannot tell."""
        question = self._answered.get(endpoint)
        if question is None:
            return None
        try:
            reply = self._ask_one(question, deadline)
        except (PassingFault, EndpointRefuses):
            return False
        except (Interrupted, Retryable):
            return None
        self._on_answer()
        return None if isinstance(reply.answer, Unavailable) else True

    def _forget(self) -> None:
        while len(self._replies) > _REMEMBERED:
            self._replies.popitem(last=False)


def _of_the_endpoint(fault: PassingFault | EndpointRefuses) -> bool:
    """Whether it says nothing of the request."""
    if isinstance(fault, EndpointRefuses):
        return False
    return isinstance(fault, CutShort) or fault.retry_after is not None


def _genai(task: Task, answer: Answer) -> dict[str, str | int]:
    """OpenTelemetry's GenAI attributes; no text of request or answer."""
    found: dict[str, str | int] = {
        "tracer.task": task.name,
        "gen_ai.response.model": answer.model,
    }
    if answer.tokens is not None:
        found["gen_ai.usage.input_tokens"] = answer.tokens.input
        found["gen_ai.usage.output_tokens"] = answer.tokens.output
    return found
