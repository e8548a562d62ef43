"""The pages: overview, task, version, and the confirmation of an action."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import APIRouter, Form
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from services.console import handlers
from services.console.actions import Refused
from services.console.api import OrderBody, order_of
from services.console.context import Ctx, Who, page
from services.console.words import word_of_kind
from shared.contracts.events import AnnouncementKind
from shared.operating import Done, NotAnnounced
from shared.registry.base import StateChanged, TrippedVersion, UnknownVersion
from shared.reporting.page import render

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


@router.get("/tasks/{task}/reports/{key}.html")
def report_file(task: str, key: str, context: Ctx, visitor: Who) -> Response:
    """The whole report as one file that needs nothing else; to keep, not to open in this page's
    place, whose policy allows no inline script."""
    visitor.check_may_see(task)
    report = handlers.report_of(context.sources, task, key)
    name = f"{report.task}-{report.key}.html"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return HTMLResponse(render(report), headers=headers)


@router.get("/tasks/{task}/reports/{key}")
def report(task: str, key: str, request: Request, context: Ctx, visitor: Who) -> HTMLResponse:
    """Of a window whose fit was not published: there is no version to show it with."""
    visitor.check_may_see(task)
    found = handlers.report_of(context.sources, task, key)
    return page(context, request, "report_page.html", visitor=visitor, report=found, task=task)


@router.get("/tasks/{task}/alpha")
def alpha_answer(
    task: str, request: Request, context: Ctx, visitor: Who, alpha: str = ""
) -> HTMLResponse:
    """The sentence under the field, as it is being filled in."""
    visitor.check_may_see(task)
    view = handlers.alpha_view(context.sources, task, _alpha(alpha))
    return page(context, request, "alpha_answer.html", visitor=visitor, answer=view)


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
        answer=handlers.alpha_view(context.sources, task, view.row.alpha),
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
    alpha: Annotated[str, Form()] = "",
    csrf: Annotated[str, Form()] = "",
) -> Response:
    visitor.check_may_see(task)
    visitor.check_may_change(csrf)
    context.sources.task(task)
    response = RedirectResponse(f"/tasks/{task}", _SEE_OTHER)
    cookies = context.access.cookies
    try:
        order = OrderBody.model_construct(
            reason=reason, expects=expects or None, to=to or None, alpha=_alpha(alpha)
        )
        done = order_of(context, task, action, visitor.caller.name, order)
    except NotAnnounced as error:
        cookies.flash(response, str(error), "warning")
    except (Refused, StateChanged, TrippedVersion, UnknownVersion) as error:
        cookies.flash(response, f"Nothing was changed: {error}.", "bad")
    else:
        cookies.flash(response, _said(done), "good" if done.changed else "neutral")
    return response


def _said(done: Done) -> str:
    entry = done.entry
    if entry is None or not done.changed:
        return "Nothing had to be changed."
    title = word_of_kind(entry.kind).title
    if entry.kind is AnnouncementKind.ALPHA:
        return f"{title}: {'the tasks file holds' if entry.alpha is None else entry.alpha}."
    return f"{title}: {entry.version or 'no version'}."


def _alpha(text: str) -> float | None:
    """What was typed, None for an empty field. Raises Refused."""
    if not text.strip():
        return None
    try:
        alpha = float(text)
    except ValueError:
        alpha = math.nan
    if not 0.0 < alpha < 1.0:
        raise Refused(f"α lies between 0 and 1; {text[:20]!r} does not")
    return alpha
