"""The JSON API: what pages show, and actions."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from services.console import handlers, views
from services.console.actions import MAX_REASON_CHARS, Order, carry_out
from services.console.context import Context, Ctx, Who
from services.console.streaming import decisions
from shared.operating import Done

router = APIRouter(prefix="/api/v1")

_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"description": "Not signed in: send `Authorization: Bearer <token>`."},
    403: {"description": "Read-only, or a form of another session."},
    404: {"description": "No such task or version, or not yours to see."},
    503: {"description": "The registry cannot be reached."},
}


class OrderBody(BaseModel):
    """What to do and why. `expects`: do it only while this version is active (for `promote` and
    `withdraw`: on trial). `to`: the version to roll back to; left out, the one before. `alpha`: to
    ask for; left out, the tasks file's."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=MAX_REASON_CHARS)
    expects: str | None = None
    to: str | None = None
    alpha: float | None = Field(default=None, gt=0, lt=1)


class DoneBody(BaseModel):
    """`changed`: False when the task was that way already."""

    task: str
    changed: bool
    kind: str | None
    version: str | None
    epoch: int | None


@router.get("/tasks", response_model=None, responses=_ERRORS, summary="All tasks at a glance")
def list_tasks(context: Ctx, visitor: Who) -> Response:
    return _json(handlers.overview(context.sources, context.visible(visitor)))


@router.get("/tasks/{task}", response_model=None, responses=_ERRORS, summary="One task")
def show_task(task: str, context: Ctx, visitor: Who) -> Response:
    visitor.check_may_see(task)
    return _json(handlers.task_view(context.sources, task))


@router.get(
    "/tasks/{task}/versions/{version}",
    response_model=None,
    responses=_ERRORS,
    summary="One version in full, with its report",
)
def show_version(task: str, version: str, context: Ctx, visitor: Who) -> Response:
    visitor.check_may_see(task)
    return _json(handlers.version_view(context.sources, task, version))


@router.get(
    "/tasks/{task}/reports/{key}",
    response_model=None,
    responses=_ERRORS,
    summary="The report of a version, or of a window that was not published",
)
def show_report(task: str, key: str, context: Ctx, visitor: Who) -> Response:
    visitor.check_may_see(task)
    report = handlers.report_of(context.sources, task, key)
    return Response(report.encode(), media_type="application/json")


@router.get(
    "/tasks/{task}/alpha",
    response_model=None,
    responses=_ERRORS,
    summary="What asking for another α would do",
)
def show_alpha(
    task: str,
    context: Ctx,
    visitor: Who,
    alpha: Annotated[float | None, Query(gt=0, lt=1)] = None,
) -> Response:
    visitor.check_may_see(task)
    return _json(handlers.alpha_view(context.sources, task, alpha))


@router.get(
    "/tasks/{task}/live",
    response_model=None,
    responses=_ERRORS,
    summary="Decisions as they happen (server-sent events)",
)
async def live(
    task: str,
    request: Request,
    context: Ctx,
    visitor: Who,
    seconds: Annotated[float, Query(gt=0, le=3600)] = 3600.0,
) -> Response:
    visitor.check_may_see(task)
    context.sources.task(task)
    caller = visitor.caller.name
    context.feed.check_room(caller)
    return StreamingResponse(
        decisions(
            context.feed, task, caller, context.stop, request.is_disconnected, seconds=seconds
        ),
        media_type="text/event-stream",
    )


@router.post("/tasks/{task}/actions/{action}", responses=_ERRORS, summary="Change who answers")
def act(
    task: str,
    action: str,
    order: OrderBody,
    context: Ctx,
    visitor: Who,
    x_csrf_token: Annotated[str | None, Header()] = None,
) -> DoneBody:
    """One of promote, withdraw, pause, resume, rollback, alpha and retire."""
    visitor.check_may_see(task)
    visitor.check_may_change(x_csrf_token)
    context.sources.task(task)
    done = order_of(context, task, action, visitor.caller.name, order)
    entry = done.entry
    return DoneBody(
        task=task,
        changed=done.changed,
        kind=entry.kind.value if entry else None,
        version=entry.version if entry else None,
        epoch=entry.epoch if entry else None,
    )


def order_of(context: Context, task: str, action: str, actor: str, body: OrderBody) -> Done:
    order = Order(task, action, actor, body.reason, body.expects, body.to, body.alpha)
    return carry_out(order, context.sources.registry, context.announce, context.clock)


def _json(view: views.Overview | views.TaskView | views.VersionView | views.AlphaView) -> Response:
    return Response(msgspec.json.encode(view), media_type="application/json")
