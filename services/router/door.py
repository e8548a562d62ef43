"""The synchronous door: `POST /v1/classify` for callers who cannot wait for a topic.

Who calls, how often and with how large a body is settled before (web.py, shared/http). Everything
held here is bounded: the bytes of all bodies in hand, the requests
that wait for the worker, and how long a call may take. Beyond a bound the answer says so at once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from services.router.batcher import Closed, Full
from services.router.calls import Call, Problem, Refused, Told, Unusable, message_of, read_call
from shared.bus.base import Headers, Message
from shared.bus.errors import Fatal, InvalidMessage, Retryable
from shared.clock import Clock
from shared.contracts.events import Request
from shared.http.access import caller_of

MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_HELD_BYTES = 64 * 1024 * 1024
BODY_SECONDS = 10.0

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_TRACESTATE = 512
_AGAIN = {"Retry-After": "1"}
_AGAIN_FIX = "send it again after the seconds in Retry-After, with the same ids"
_HANG_UP = {"Connection": "close"}  # the rest of the body is not read
_JSON = "application/json"


class Submit(Protocol):
    """Raises Full or Closed; see Batcher.submit."""

    def __call__(self, items: list[Message], /) -> Future[list[Told]]: ...


class Refusal(Exception):
    """A call that gets no decision, with the HTTP status to say so."""

    def __init__(
        self, status: int, message: str, fix: str, *,
        headers: dict[str, str] | None = None, requests: list[Request] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.headers = headers
        ids = [request.id for request in requests or []]
        self.body = Refused(error=Problem(message=message, fix=fix), request_ids=ids)


@dataclass
class Door:
    """Answers calls. `timeout`: seconds from a whole body to its answer."""

    submit: Submit
    check: Callable[[Request], None]
    clock: Clock
    timeout: float
    openapi: bytes = b"{}"
    _in_hand: _InHand = field(default_factory=lambda: _InHand())

    async def classify(self, request: HttpRequest) -> Response:
        """POST /v1/classify."""
        held = _Held(self._in_hand)
        try:
            if request.headers.get("content-type", "").partition(";")[0].strip() != _JSON:
                raise Refusal(
                    415, "the body is not declared as JSON", f"send Content-Type: {_JSON}"
                )
            call = read_call(await _body(request, held), self._checker(request))
            told = await self._decide(call, _trace_headers(request))
        except Unusable as error:
            return _json(422, msgspec.json.encode(Refused(error=error.problem)))
        except Refusal as refusal:
            return refused(refusal)
        finally:
            held.release()
        return _json(422 if call.in_vain(told) else 200, call.answer(told))

    async def describe(self, request: HttpRequest) -> Response:
        """GET /openapi.json."""
        return _json(200, self.openapi)

    def _checker(self, request: HttpRequest) -> Callable[[Request], None]:
        """`check`, and that the caller's token is good for the task. Who may not use a task is not
        told that it exists, nor which others do."""
        caller = caller_of(request.scope)
        if caller.tasks is None:
            return self.check

        def check(asked: Request) -> None:
            try:
                if caller.may_use(asked.task):
                    self.check(asked)
                    return
            except InvalidMessage as error:
                if error.field != "task":  # which names all there are
                    raise
            known = ", ".join(sorted(caller.tasks or ())) or "none"
            raise InvalidMessage(f"unknown task {asked.task!r}; known: {known}", field="task")

        return check

    async def _decide(self, call: Call, headers: Headers) -> list[Told]:
        """Raises Refusal when nothing was decided, or nobody knows."""
        requests = call.requests
        if not requests:
            return []
        arrived_ms = int(self.clock.now().timestamp() * 1000)
        try:
            future = self.submit([message_of(each, headers, arrived_ms) for each in requests])
            return await asyncio.wait_for(asyncio.wrap_future(future), self.timeout)
        except Full:
            why = "too many requests are waiting"
        except Closed:
            why = "this router is stopping"
        except TimeoutError:
            why = f"not decided within {self.timeout:g} s"
        except (Retryable, Fatal) as error:
            why = f"the broker did not take the decision: {error}"
        except Exception as error:  # the worker has logged it
            raise Refusal(
                500, "the router failed at this batch", "look into its log", requests=requests
            ) from error
        raise Refusal(503, why, _AGAIN_FIX, headers=_AGAIN, requests=requests)


@dataclass
class _InHand:
    """The bytes of all bodies that are being read or worked."""

    size: int = 0


class _Held:
    """What one call holds of them."""

    def __init__(self, all_calls: _InHand) -> None:
        self._all = all_calls
        self._mine = 0

    def grow(self, to: int) -> None:
        """Raises Refusal."""
        more = max(0, to - self._mine)
        if self._all.size + more > MAX_HELD_BYTES:
            raise Refusal(503, "too many bytes are in hand", _AGAIN_FIX, headers=_AGAIN | _HANG_UP)
        self._all.size += more
        self._mine += more

    def release(self) -> None:
        self._all.size -= self._mine
        self._mine = 0


async def _body(request: HttpRequest, held: _Held) -> bytes:
    """The whole body, its room taken before it is read. Raises Refusal."""
    held.grow(int(request.headers.get("content-length", "0")))
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                held.grow(size)
                chunks.append(chunk)
    except TimeoutError:
        raise Refusal(
            408, f"the body did not come within {BODY_SECONDS:g} s", "send it at once",
            headers=_HANG_UP,
        ) from None  # fmt: skip
    except ClientDisconnect:
        raise Refusal(400, "the caller has gone", "stay for the answer") from None
    return b"".join(chunks)


def _trace_headers(request: HttpRequest) -> Headers:
    """The call's W3C trace context, for the records; none when it is malformed."""
    parent = request.headers.get("traceparent", "")
    if not _TRACEPARENT.fullmatch(parent):
        return ()
    state = request.headers.get("tracestate", "")
    headers: Headers = (("traceparent", parent.encode()),)
    if state and len(state) <= _MAX_TRACESTATE:
        headers += (("tracestate", state.encode("latin-1")),)
    return headers


def refused(refusal: Refusal) -> Response:
    """The answer in place of a decision."""
    return _json(refusal.status, msgspec.json.encode(refusal.body), refusal.headers)


def _json(status: int, body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers=headers, media_type=_JSON)
