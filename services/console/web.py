"""The console as an ASGI application: routes, files, guards, and how errors are said."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp

from services.console import api, operations, pages, signing_in, why
from services.console.access import Forbidden, NotSignedIn, TooOften
from services.console.actions import Refused
from services.console.assets import Assets, assets
from services.console.context import Context, page
from services.console.explaining import NotExplained, TooManyQuestions
from services.console.handlers import UnknownTask
from services.console.live import TooManyWatchers
from services.console.oidc import SignInFailed
from services.console.signing_in import sign_in_address
from shared.http.body import BodyLimit
from shared.http.headers import SecurityHeaders
from shared.operating import NotAnnounced
from shared.registry.base import (
    RegistryError,
    RegistryUnavailable,
    StateChanged,
    TrippedVersion,
    UnknownVersion,
)

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
# No inline script or style, nothing from elsewhere; data: for the small pictures in Pico's sheet.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

# What is said of an error: status, title, what to do.
_SAID: dict[type[Exception], tuple[int, str, str]] = {
    NotSignedIn: (401, "Not signed in", "Send Authorization: Bearer <token>, or sign in."),
    Forbidden: (403, "Not allowed", ""),
    UnknownTask: (404, "No such task", "Look at the overview for the tasks you may see."),
    UnknownVersion: (404, "No such version", "The task's page lists the stored versions."),
    Refused: (409, "This cannot be done now", "Go back to the task and look at its state."),
    StateChanged: (409, "Something changed meanwhile", "Look at the task again, then decide."),
    TrippedVersion: (409, "The version is tripped", "Only another version ends that."),
    TooOften: (429, "Too many calls", "Wait as long as Retry-After says."),
    TooManyWatchers: (503, "Too many pages are watching", "Close some, or try again later."),
    NotExplained: (503, "This cannot be explained here", "The message says what is missing."),
    TooManyQuestions: (503, "Too many questions at once", "Ask again in a moment."),
    NotAnnounced: (502, "Done, but not announced", "Is the broker there? The registry has it."),
    SignInFailed: (401, "Signing in failed", "Go back to the sign-in page."),
    RegistryUnavailable: (
        503,
        "The registry cannot be reached",
        "Is Redis running, and is TRACER_REDIS_URL right? Routers go on with what they have.",
    ),
    RegistryError: (500, "What is stored cannot be read", "The message names what is damaged."),
}


def make_app(context: Context) -> ASGIApp:
    app = FastAPI(
        title="TRACER console",
        version="1",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.context = context
    for router in (api.router, operations.router, signing_in.router, why.router, pages.router):
        app.include_router(router)
    assets()  # read and compressed now, rather than for the first who looks
    app.mount("/static", Assets(), name="static")
    for kind in _SAID:
        app.add_exception_handler(kind, _say)
    app.add_exception_handler(HTTPException, _elsewhere)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(500, _failed)
    return SecurityHeaders(BodyLimit(app, most=MAX_BODY_BYTES), csp=CSP)


def _say(request: Request, error: Exception) -> Response:
    kind = next(each for each in type(error).__mro__ if each in _SAID)
    status, title, fix = _SAID[kind]
    headers = {"retry-after": str(error.seconds)} if isinstance(error, TooOften) else {}
    if isinstance(error, NotSignedIn):
        headers["www-authenticate"] = "Bearer"
        if not _is_api(request):
            there = request.url.path if request.method == "GET" else "/"
            if "hx-request" in request.headers:  # a part of a page: the whole page must go
                return Response(status_code=401, headers={"hx-redirect": sign_in_address(there)})
            return RedirectResponse(sign_in_address(there), 303)
    if status >= 500:
        log.warning("%s: %s", title, error)
    return _answer(request, status, title, str(error) or title, fix, headers)


def _elsewhere(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    title = "No such page" if error.status_code == 404 else str(error.detail)
    fix = "The overview has everything there is."
    return _answer(request, error.status_code, title, str(error.detail), fix, error.headers or {})


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'][1:]) or 'body'}: {problem['msg']}"
        for problem in error.errors()
    )
    return _answer(request, 422, "Not understood", problems, "Send what the API's schema says.", {})


def _failed(request: Request, error: Exception) -> Response:
    """A bug; Starlette raises it on for uvicorn to log."""
    return _answer(request, 500, "The console failed", "", "Look into the console's log.", {})


def _answer(
    request: Request, status: int, title: str, message: str, fix: str, headers: Any
) -> Response:
    if _is_api(request):
        body = {"error": {"message": message or title, "fix": fix}}
        return JSONResponse(body, status, dict(headers))
    context: Context = request.app.state.context
    response = page(
        context, request, "error.html", visitor=getattr(request.state, "visitor", None),
        status=status, title=title, message=message, fix=fix, sign_in=status == 401,
    )  # fmt: skip
    response.headers.update(dict(headers))
    return response


def _is_api(request: Request) -> bool:
    return request.url.path.startswith("/api/")
