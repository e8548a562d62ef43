"""What a call of the door says, and what it is told: plain functions, no HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import uuid4

import msgspec

from services.router.handlers import Router
from shared.bus.base import Headers, Message, Publisher, Record
from shared.bus.errors import InvalidMessage
from shared.contracts.codec import MAX_SENT_BYTES, InvalidEvent, decode, encode
from shared.contracts.events import (
    Decision,
    Deferral,
    Event,
    Id,
    Input,
    Request,
    TaskName,
    Timestamp,
)
from shared.telemetry.tracing import traced

MAX_REQUESTS = 256

_FIXES = {
    "id": "send an id of 1 to 256 characters, or none: one is made",
    "task": "send the name of a task of this router's configuration",
    "input": "send a text of 1 to 32,768 characters, or a list of two such texts",
    "occurred_at": "send RFC 3339 with its offset, as 2026-01-05T09:30:00Z, or leave it out",
    "metadata": "send a JSON object whose numbers fit a double, or leave it out",
    "requests": f"send a list of 1 to {MAX_REQUESTS} requests",
    "v": "send 1, or leave it out",
}
_FIX = 'send a request as a JSON object, or {"requests": [...]} with several'


class Asked(Event, frozen=True, kw_only=True):
    """A request as the door takes it: as on the topic, but the id may be left out."""

    task: TaskName
    input: Input
    id: Id | None = None
    occurred_at: Timestamp | None = None
    metadata: dict[str, object] | None = None


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why there is no decision, and what to do about it. `field`: path of the one at fault."""

    message: str
    fix: str
    field: str = ""


# What a caller is told of a request: a decision as JSON, or why there is none.
Told = bytes | Problem


class Refused(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer in place of a decision. `request_ids`: those that were not decided, with the ids
    made for them, so that the same requests can be sent again."""

    error: Problem
    request_ids: list[str] = []


class Unusable(Exception):
    """A body that is no call."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _Body(msgspec.Struct):
    requests: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET


_bodies = msgspec.json.Decoder(_Body)


@dataclass(frozen=True, slots=True)
class Call:
    """Its requests in their order, or what is wrong with each. `batch`: they came as a list."""

    items: list[Request | Problem]
    batch: bool

    @property
    def requests(self) -> list[Request]:
        return [item for item in self.items if isinstance(item, Request)]

    def answer(self, told: Sequence[Told]) -> bytes:
        """The body of the answer, from what each of `requests` is told."""
        left = iter(told)
        parts = [_json(next(left) if isinstance(item, Request) else item) for item in self.items]
        return b'{"results":[%s]}' % b",".join(parts) if self.batch else parts[0]

    def in_vain(self, told: Sequence[Told]) -> bool:
        """Whether its only request cannot be used."""
        return not self.batch and isinstance((*told, *self.items)[0], Problem)


def read_call(body: bytes, check: Callable[[Request], None]) -> Call:
    """Raises Unusable. A request that cannot be used is a Problem among the `items`; `check`
    raises InvalidMessage for one that nobody answers."""
    try:
        parts = _bodies.decode(body).requests
    except msgspec.ValidationError as error:
        field = "requests" if "$.requests" in str(error) else ""
        raise Unusable(_problem(str(error), field)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable(_problem(f"not valid JSON: {error}", "")) from error
    if isinstance(parts, msgspec.UnsetType):
        return Call([_item(body, check)], batch=False)
    if not 1 <= len(parts) <= MAX_REQUESTS:
        raise Unusable(_problem(f"{len(parts)} requests in one call", "requests"))
    return Call([_item(bytes(part), check) for part in parts], batch=True)


def message_of(request: Request, headers: Headers, arrived_ms: int) -> Message:
    """The request as if it had come from the topic; `arrived_ms` since the epoch."""
    return Message("door", -1, -1, request.id.encode(), encode(request), headers, arrived_ms)


def decide(messages: Sequence[Message], router: Router, publisher: Publisher) -> list[Told]:
    """A decision (JSON) for each message, when everybody else can read of it, too; or why the
    router cannot use it, as where a task's redactor fails on the text: then nothing is published.

    The records are published as for requests of the topic: decisions, and deferrals of what the
    teacher has to answer or to audit. Raises Retryable when the broker did not take all of them;
    asked again, the same id is decided in the same way. Raises Fatal.
    """
    routed = traced(router.tried)(list(messages))
    told = [_told(found, router) for found in routed]
    publisher.publish([record for found in routed if isinstance(found, list) for record in found])
    return told


def _item(data: bytes, check: Callable[[Request], None]) -> Request | Problem:
    try:
        asked = decode(data, Asked)
        request = Request(
            id=asked.id or uuid4().hex,
            task=asked.task,
            input=asked.input,
            occurred_at=asked.occurred_at,
            metadata=asked.metadata,
        )
        check(request)
    except (InvalidEvent, InvalidMessage) as error:
        return _problem(str(error), error.field)
    size = len(encode(request))  # numbers can take more room than they came in
    if size > MAX_SENT_BYTES:
        return _problem(f"request of {size} bytes exceeds the limit of {MAX_SENT_BYTES}", "")
    return request


def _problem(message: str, field: str) -> Problem:
    top = field.partition(".")[0].partition("[")[0]
    return Problem(message=message, field=field, fix=_FIXES.get(top, _FIX))


def _json(told: Told) -> bytes:
    return told if isinstance(told, bytes) else msgspec.json.encode(Refused(error=told))


def _told(found: Sequence[Record] | InvalidMessage, router: Router) -> Told:
    if isinstance(found, InvalidMessage):
        return _problem(str(found), found.field)
    first = found[0]
    if first.topic == router.topics.decisions:
        return first.value
    return encode(_deferred(decode(first.value, Deferral)))


def _deferred(deferral: Deferral) -> Decision:
    """Of a request that waits for the teacher, whose decision comes on the topic: without label."""
    request = deferral.request
    return Decision(
        request_id=request.id,
        task=request.task,
        outcome=deferral.outcome,
        reason=deferral.reason,
        decided_at=deferral.deferred_at,
        accept_score=deferral.accept_score,
        threshold=deferral.threshold,
        version=deferral.version,
        occurred_at=request.occurred_at,
        timings=deferral.timings,
        metadata=request.metadata,
    )
