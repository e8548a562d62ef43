"""Why this one? A text, or a request that was watched, explained: the page and its JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Form, Header
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from services.console.access import Visitor
from services.console.actions import Refused
from services.console.context import Context, Ctx, Who, page
from services.console.explaining import NotExplained, TooManyQuestions
from services.console.recent import Seen
from services.console.words import word_of_reason
from shared.contracts.events import Decision
from shared.contracts.tasks import Task
from shared.explain.explanation import Explanation
from shared.explain.wire import Asked
from shared.registry.base import RegistryError, UnknownVersion

router = APIRouter()

# Models look at the first few hundred words; two such texts fit into a form.
MAX_TEXT_CHARS = 8_000
MAX_ID_CHARS = 256
SHADES = 4

# What keeps a text from being explained is said on the page, beside the form.
_STATUS: dict[type[Exception], int] = {
    Refused: 422,
    UnknownVersion: 404,
    NotExplained: 503,
    TooManyQuestions: 503,
    RegistryError: 503,
}

_Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]


class QuestionBody(BaseModel):
    """One text, or two for a task of pairs. `version`: left out, the active one."""

    model_config = ConfigDict(extra="forbid")

    texts: list[_Text] = Field(min_length=1, max_length=2)
    version: str | None = Field(default=None, max_length=MAX_ID_CHARS)


@dataclass(frozen=True, slots=True)
class WordView:
    """side: `for` the lexical stage's label or `against` it; shade: how much, 0 to SHADES."""

    text: str
    contribution: float
    side: str
    shade: int
    placeholder: bool


@dataclass(frozen=True, slots=True)
class DecidedView:
    """What was decided of a request that was watched."""

    request_id: str
    outcome: str
    reason: str
    says: str
    label: str | None
    accept_score: float | None
    threshold: float | None
    version: str | None
    at: datetime


@router.get("/tasks/{task}/explain", include_in_schema=False)
def ask(
    task: str,
    request: Request,
    context: Ctx,
    visitor: Who,
    id: str = "",
    version: str = "",
) -> HTMLResponse:
    """The form; or with the `id` of a request that was watched, why that was decided so."""
    visitor.check_may_see(task)
    known = context.sources.task(task)
    if not id:
        return _page(request, context, visitor, known, version=version)
    seen = context.feed.recent.of(task, id[:MAX_ID_CHARS])
    decided = _decided(seen.decision) if seen.decision else None
    version = (decided.version if decided else None) or version
    if seen.texts is None:
        return _page(
            request, context, visitor, known, version=version, decided=decided,
            trouble=_no_text(known, id, seen),
        )  # fmt: skip
    return _answer(request, context, visitor, known, seen.texts, version, decided=decided)


@router.post("/tasks/{task}/explain", include_in_schema=False)
def answer(
    task: str,
    request: Request,
    context: Ctx,
    visitor: Who,
    text: Annotated[str, Form()] = "",
    second: Annotated[str, Form()] = "",
    version: Annotated[str, Form()] = "",
    csrf: Annotated[str, Form()] = "",
) -> HTMLResponse:
    """A form, not a link: what people paste here should be in no log and no history."""
    visitor.check_may_see(task)
    visitor.check_own_form(csrf)
    known = context.sources.task(task)
    texts = tuple(given for given in (text, second) if given.strip())
    if any(len(given) > MAX_TEXT_CHARS for given in texts):
        return _page(
            request, context, visitor, known, version=version, status=422,
            trouble=f"a text has more than {MAX_TEXT_CHARS:,} characters: shorten it",
        )  # fmt: skip
    return _answer(request, context, visitor, known, texts, version, typed=texts)


@router.post(
    "/api/v1/tasks/{task}/explain", response_model=None, summary="Why a text is answered or not"
)
def explain(
    task: str,
    body: QuestionBody,
    context: Ctx,
    visitor: Who,
    x_csrf_token: Annotated[str | None, Header()] = None,
) -> Response:
    """As `tracerctl explain --json` prints it."""
    visitor.check_may_see(task)
    visitor.check_own_form(x_csrf_token)
    context.sources.task(task)
    found = _explained(context, task, tuple(body.texts), body.version)
    return Response(msgspec.json.encode(found), media_type="application/json")


def _explained(
    context: Context, task: str, texts: tuple[str, ...], version: str | None
) -> Explanation:
    """Raises what _STATUS names."""
    if not texts:
        raise Refused("there is no text: type or paste one")
    return context.explaining.ask(Asked(task=task, texts=texts, version=version or None))


def _answer(
    request: Request, context: Context, visitor: Visitor, task: Task, texts: tuple[str, ...],
    version: str, *, typed: tuple[str, ...] = (), decided: DecidedView | None = None,
) -> HTMLResponse:  # fmt: skip
    found, trouble, status = None, None, 200
    try:
        found = _explained(context, task.name, texts, version)
    except tuple(_STATUS) as error:
        trouble = str(error)
        status = next(code for kind, code in _STATUS.items() if isinstance(error, kind))
    return _page(
        request, context, visitor, task, found=found, trouble=trouble, status=status,
        typed=typed, version=version, decided=decided,
    )  # fmt: skip


def _page(
    request: Request, context: Context, visitor: Visitor, task: Task, *, version: str = "",
    found: Explanation | None = None, trouble: str | None = None, status: int = 200,
    typed: tuple[str, ...] = (), decided: DecidedView | None = None,
) -> HTMLResponse:  # fmt: skip
    """typed: what somebody typed stays in the form."""
    (glance,) = context.sources.glances.glance([task.name])
    texts = typed or (found.texts if found else ())
    return page(
        context, request, "explain.html", visitor=visitor, status=status,
        task=task.name, found=found, words=_words(found) if found else [], trouble=trouble,
        decided=decided, typed=[*texts, "", ""], version=version, most=MAX_TEXT_CHARS,
        versions=glance.versions[::-1], active=glance.active.version,
        pairs=glance.manifest is not None and glance.manifest.n_texts == 2,
    )  # fmt: skip


def _words(found: Explanation) -> list[WordView]:
    most = max((abs(word.contribution) for word in found.words or ()), default=0.0) or 1.0
    return [
        WordView(
            word.text,
            word.contribution,
            "for" if word.contribution > 0 else "against",
            round(SHADES * abs(word.contribution) / most),
            word.placeholder,
        )
        for word in found.words or ()
    ]


def _decided(decision: Decision) -> DecidedView:
    word = word_of_reason(decision.reason)
    return DecidedView(
        request_id=decision.request_id,
        outcome=decision.outcome.value,
        reason=word.title,
        says=word.says,
        label=decision.label,
        accept_score=decision.accept_score,
        threshold=decision.threshold,
        version=decision.version,
        at=decision.decided_at,
    )


def _no_text(task: Task, request_id: str, seen: Seen) -> str:
    if not task.previews:
        return "Texts of this task are not shown (previews are off). If you have it, paste it."
    if seen.decision is not None:
        return "The text of this request went by before this page's reader began: paste it."
    return (
        f"The text of request {request_id[:40]} is not at hand: of requests that somebody watched "
        "being decided the newest few thousand are remembered. Paste it."
    )
