"""Signing in and out."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from services.console.access import Forbidden
from services.console.context import Context, Ctx, page
from services.console.oidc import Provider, SignInFailed
from services.console.sessions import fresh

router = APIRouter(include_in_schema=False)

_SEE_OTHER = 303


def sign_in_address(path: str) -> str:
    return f"/sign-in?then={quote(path, safe='/')}"


def inside(path: str) -> str:
    """A path of this console, or the overview: never another host's (`//host`, `/\\host`)."""
    good = path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable()
    return path if good else "/"


@router.get("/sign-in")
def ask(request: Request, context: Ctx, then: str = "/") -> HTMLResponse:
    return _form(context, request, then)


@router.post("/sign-in")
def sign_in(
    request: Request,
    context: Ctx,
    token: Annotated[str, Form()] = "",
    then: Annotated[str, Form()] = "/",
    csrf: Annotated[str, Form()] = "",
) -> Response:
    access = context.access
    asked = access.cookies.session(request)
    if asked is None or not asked.proves(csrf):
        return _form(context, request, then, "The form was too old: try again.", 403)
    session = access.session_of_token(token.strip())
    if session is None:
        access.check_stranger(request.scope)
        return _form(context, request, then, "This token is not known here.", 401)
    response = RedirectResponse(inside(then), _SEE_OTHER)
    access.cookies.keep(response, session)
    return response


@router.post("/sign-out")
def sign_out(request: Request, context: Ctx, csrf: Annotated[str, Form()] = "") -> Response:
    cookies = context.access.cookies
    session = cookies.session(request)
    if session is not None and not session.proves(csrf):
        raise Forbidden("this form is of another session: open the page again")
    response = RedirectResponse("/sign-in", _SEE_OTHER)
    cookies.end(response)
    return response


@router.get("/sign-in/provider")
def to_provider(context: Ctx, then: str = "/") -> Response:
    # Not limited by address: nothing can be guessed here, and behind a proxy all have the same one.
    address, kept = _provider(context).begin(inside(then))
    response = RedirectResponse(address, _SEE_OTHER)
    context.access.cookies.keep_sign_in(response, kept)
    return response


@router.get("/sign-in/answer")
def from_provider(
    request: Request,
    context: Ctx,
    code: str = "",
    state: str = "",
    error: str = "",
) -> Response:
    cookies = context.access.cookies
    kept = cookies.sign_in(request)
    if kept is None:
        raise SignInFailed("this sign-in took too long, or cookies are off: try again")
    if error or not code:
        raise SignInFailed(f"the provider refused: {error[:100] or 'it sent no code'}")
    person = _provider(context).finish(code=code, state=state, kept=kept)
    response = RedirectResponse(inside(kept["then"]), _SEE_OTHER)
    cookies.keep(response, context.access.session_of_person(person))
    cookies.sign_in_done(response)
    return response


def _provider(context: Context) -> Provider:
    if context.access.provider is None:
        raise SignInFailed("no identity provider is configured: sign in with a token")
    return context.access.provider


def _form(
    context: Context, request: Request, then: str, problem: str = "", status: int = 200
) -> HTMLResponse:
    """Signing in has a session of its own, so that no other site can sign somebody in."""
    access = context.access
    session = access.cookies.session(request) or fresh()
    return page(
        context, request, "sign_in.html", visitor=None, status=status, session=session,
        then=inside(then), problem=problem, with_token=bool(access.tokens),
        with_provider=access.provider is not None, open=access.open_to_this_machine,
    )  # fmt: skip
