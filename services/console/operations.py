"""Pages of operations, and the same as JSON: the fleet of routers, and dead letters."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Form, Header
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from services.console.access import Forbidden, Visitor
from services.console.actions import Refused
from services.console.context import Context, Ctx, Who, page
from services.console.fleet import FleetView, fleet_view
from services.console.letters import SHOWN, LettersView, letters_view, redrive
from shared.bus.errors import Fatal, Retryable
from shared.bus.redriving import what_of_those_before

router = APIRouter()

_SEE_OTHER = 303


class RedriveBody(BaseModel):
    """`ids` of the letters, such as `2:41`."""

    model_config = ConfigDict(extra="forbid")

    ids: list[str] = Field(min_length=1, max_length=SHOWN)


class RedrivenBody(BaseModel):
    """How many were put back, and why others were not."""

    redriven: int
    refused: list[str]


@router.get("/fleet", include_in_schema=False)
def show_fleet(request: Request, context: Ctx, visitor: Who) -> HTMLResponse:
    view = _fleet(context, visitor)
    return page(context, request, "fleet.html", visitor=visitor, view=view)


@router.get("/api/v1/fleet", response_model=None, summary="The routers that run")
def fleet(context: Ctx, visitor: Who) -> Response:
    return _json(_fleet(context, visitor))


@router.get("/dead-letters", include_in_schema=False)
def show_letters(request: Request, context: Ctx, visitor: Who) -> HTMLResponse:
    view = _letters(context, visitor)
    return page(context, request, "dead_letters.html", visitor=visitor, view=view)


@router.get("/api/v1/dead-letters", response_model=None, summary="The newest dead letters")
def letters(context: Ctx, visitor: Who) -> Response:
    return _json(_letters(context, visitor))


@router.post("/dead-letters/confirm", include_in_schema=False)
def confirm_redrive(
    request: Request,
    context: Ctx,
    visitor: Who,
    ids: Annotated[list[str] | None, Form()] = None,
    csrf: Annotated[str, Form()] = "",
) -> Response:
    visitor.check_may_change(csrf)
    known = _letters(context, visitor).letters
    chosen = [letter for letter in known if letter.id in (ids or ())]
    if not chosen:
        response = RedirectResponse("/dead-letters", _SEE_OTHER)
        context.access.cookies.flash(response, "Choose the letters to put back.", "warning")
        return response
    return page(context, request, "redrive.html", visitor=visitor, chosen=chosen)


@router.post("/dead-letters/redrive", include_in_schema=False)
def put_back(
    context: Ctx,
    visitor: Who,
    ids: Annotated[list[str] | None, Form()] = None,
    csrf: Annotated[str, Form()] = "",
) -> Response:
    visitor.check_may_change(csrf)
    done, refused = _redrive(context, visitor, ids or [])
    response = RedirectResponse("/dead-letters", _SEE_OTHER)
    said = f"{done} put back." + (f" Not put back: {'; '.join(refused[:3])}." if refused else "")
    context.access.cookies.flash(response, said, "warning" if refused else "good")
    return response


@router.post("/api/v1/dead-letters/redrive", summary="Put dead letters back, each once")
def redrive_letters(
    body: RedriveBody,
    context: Ctx,
    visitor: Who,
    x_csrf_token: Annotated[str | None, Header()] = None,
) -> RedrivenBody:
    visitor.check_may_change(x_csrf_token)
    done, refused = _redrive(context, visitor, body.ids)
    return RedrivenBody(redriven=done, refused=list(refused))


def _letters(context: Context, visitor: Visitor) -> LettersView:
    return letters_view(context.dead_letters, visitor.caller, context.sources.tasks)


def _redrive(context: Context, visitor: Visitor, ids: list[str]) -> tuple[int, tuple[str, ...]]:
    try:
        return redrive(context.post, ids, visitor.caller, context.sources.tasks, context.clock)
    except (Retryable, Fatal) as error:
        then = what_of_those_before(transactions=context.post.transactions)
        raise Refused(f"{error}; try again: {then}") from error


def _fleet(context: Context, visitor: Visitor) -> FleetView:
    if visitor.caller.tasks is not None:
        raise Forbidden("the fleet serves all tasks: it is shown to who may see all of them")
    names = context.visible(visitor)
    return fleet_view(context.fleet, context.sources.glances, names, context.clock)


def _json(view: object) -> Response:
    return Response(msgspec.json.encode(view), media_type="application/json")
