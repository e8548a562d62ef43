"""Headers that tell browsers to keep out of, and in, what a door answers."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# For answers no page is made of. A door with pages gives its own.
NO_PAGES = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


class SecurityHeaders:
    """Adds them to every answer, where the application has not set its own."""

    def __init__(self, app: ASGIApp, *, csp: str = NO_PAGES, cache: str = "no-store") -> None:
        self._app = app
        self._headers = (
            *_ALWAYS,
            (b"content-security-policy", csp.encode("latin-1")),
            (b"cache-control", cache.encode("latin-1")),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {bytes(name).lower() for name, _ in given}
                given += [(name, value) for name, value in self._headers if name not in names]
                message = {**message, "headers": given}
            await send(message)

        await self._app(scope, receive, with_headers)
