"""The pages: overview, task, version, and the confirmation of an action."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from services.console import handlers
from services.console.actions import Refused
from services.console.api import OrderBody, order_of
from services.console.context import Ctx, Who, page
from services.console.words import word_of_kind
from shared.operating import NotAnnounced
from shared.registry.base import StateChanged, TrippedVersion, UnknownVersion

router = APIRouter(include_in_schema=False)

_SEE_OTHER = 303


@router.get("/")
def overview(request: Request, context: Ctx, visitor: Who) -> HTMLResponse:
    view = handlers.overview(context.sources, context.visible(visitor))
    return page(context, request, "overview.html", visitor=visitor, view=view)


@router.get("/tasks/{task}")
def task(task: str, request: Request, context: Ctx, visitor: Who) -> HTMLResponse:
    visitor.check_may_see(task)
    view = handlers.task_view(context.sources, task)
    return page(context, request, "task.html", visitor=visitor, view=view)


@router.get("/tasks/{task}/versions/{version}")
def version(task: str, version: str, request: Request, context: Ctx, visitor: Who) -> HTMLResponse:
    visitor.check_may_see(task)
    view = handlers.version_view(context.sources, task, version)
    return page(context, request, "version.html", visitor=visitor, view=view)


@router.get("/tasks/{task}/actions/{action}")
def confirm(
    task: str, action: str, request: Request, context: Ctx, visitor: Who, to: str | None = None
) -> HTMLResponse:
    """Asked once more, with what will happen; htmx shows it as a dialog, without it is a page."""
    visitor.check_may_see(task)
    view = handlers.task_view(context.sources, task)
    found = next((each for each in view.actions if each.name == action), None)
    if found is None:
        raise Refused(
            f"{task} cannot be told to {action} now: it is {view.row.state_title.lower()}"
        )
    in_dialog = request.headers.get("hx-request") == "true"
    return page(
        context, request, "confirm_form.html" if in_dialog else "confirm.html", visitor=visitor,
        view=view, action=found, to=to,
    )  # fmt: skip


@router.post("/tasks/{task}/actions/{action}")
def carry_out(
    task: str,
    action: str,
    context: Ctx,
    visitor: Who,
    reason: Annotated[str, Form()] = "",
    expects: Annotated[str, Form()] = "",
    to: Annotated[str, Form()] = "",
    csrf: Annotated[str, Form()] = "",
) -> Response:
    visitor.check_may_see(task)
    visitor.check_may_change(csrf)
    context.sources.task(task)
    response = RedirectResponse(f"/tasks/{task}", _SEE_OTHER)
    cookies = context.access.cookies
    order = OrderBody.model_construct(reason=reason, expects=expects or None, to=to or None)
    try:
        done = order_of(context, task, action, visitor.caller.name, order)
    except NotAnnounced as error:
        cookies.flash(response, str(error), "warning")
    except (Refused, StateChanged, TrippedVersion, UnknownVersion) as error:
        cookies.flash(response, f"Nothing was changed: {error}.", "bad")
    else:
        title = word_of_kind(done.entry.kind).title if done.entry else ""
        said = f"{title}: {done.entry.version or 'no version'}." if done.changed else "No change."
        cookies.flash(response, said, "good" if done.changed else "neutral")
    return response
