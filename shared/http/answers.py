"""What stands between a caller and an application answers by itself: JSON that names the fix."""

from __future__ import annotations

import json
from collections.abc import Iterable

from starlette.types import Scope, Send

Header = tuple[bytes, bytes]


async def refuse(
    send: Send, status: int, message: str, fix: str, headers: Iterable[Header] = ()
) -> None:
    """`{"error": {"message", "fix"}}`, as every door of TRACER refuses."""
    body = json.dumps({"error": {"message": message, "fix": fix}}).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*head, *headers]})
    await send({"type": "http.response.body", "body": body})


def header(scope: Scope, name: bytes) -> str:
    """The first header of that (lower-case) name, empty when there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return ""


def address_of(scope: Scope) -> str:
    """The caller's address; `?` where the server does not say."""
    client = scope.get("client")
    return str(client[0]) if client else "?"
