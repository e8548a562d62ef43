"""A bound on bodies, kept before they are read."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.http.answers import header, refuse

_HANG_UP = ((b"connection", b"close"),)  # the rest of the body is not read


class BodyLimit:
    """Refuses a body of more than `most` bytes: by its declared length, or as soon as more came;
    and one whose end can be told in two ways."""

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if header(scope, b"transfer-encoding") and header(scope, b"content-length"):
            # A proxy in front may go by the other one, and take the rest for another call.
            why = "both Transfer-Encoding and Content-Length"
            await refuse(send, 400, why, "send one of them", _HANG_UP)
            return
        declared = header(scope, b"content-length") or "0"
        if not (declared.isascii() and declared.isdigit()):
            await refuse(send, 400, "Content-Length is no number", "send its bytes", _HANG_UP)
            return
        if len(declared) > 18 or int(declared) > self._most:
            await self._too_large(send)
            return
        came, started = 0, False

        async def counted() -> Message:
            nonlocal came
            if came > self._most:
                return {"type": "http.disconnect"}
            message = await receive()
            came += len(message.get("body", b""))
            # To the application the caller has gone: what it makes of that is not sent.
            return {"type": "http.disconnect"} if came > self._most else message

        async def unless_too_large(message: Message) -> None:
            nonlocal started
            if started or came <= self._most:
                started = True
                await send(message)

        try:
            await self._app(scope, counted, unless_too_large)
        except Exception:
            if started or came <= self._most:
                raise
        if came > self._most and not started:
            await self._too_large(send)

    async def _too_large(self, send: Send) -> None:
        message = f"the body has more than {self._most} bytes"
        await refuse(send, 413, message, "send less in one call", _HANG_UP)
