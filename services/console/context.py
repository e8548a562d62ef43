"""What every route is given, and how it gets at it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from jinja2 import Environment
from starlette.responses import HTMLResponse

from services.console.access import Access, Visitor
from services.console.explaining import Explaining
from services.console.handlers import Sources
from services.console.letters import DeadLetters, Post
from services.console.live import LiveFeed
from services.console.sessions import Session
from shared.clock import Clock
from shared.operating import Announce
from shared.registry.fleet import Fleet


@dataclass(frozen=True)
class Context:
    """The console's parts. `stop`: it is ending, streams must too."""

    sources: Sources
    access: Access
    announce: Announce
    feed: LiveFeed
    explaining: Explaining
    dead_letters: DeadLetters
    post: Post
    fleet: Fleet
    clock: Clock
    templates: Environment
    stop: threading.Event

    def visible(self, visitor: Visitor) -> list[str]:
        """Names of the tasks that the visitor may see."""
        return sorted(name for name in self.sources.tasks if visitor.caller.may_use(name))


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def visitor_of(request: Request) -> Visitor:
    """Raises NotSignedIn, Forbidden or TooOften, which handlers of the application answer."""
    return context_of(request).access.visitor(request)


def _remembered(request: Request) -> Visitor:
    visitor = visitor_of(request)
    request.state.visitor = visitor
    return visitor


Ctx = Annotated[Context, Depends(context_of)]
Who = Annotated[Visitor, Depends(_remembered)]


def page(
    context: Context,
    request: Request,
    template: str,
    *,
    visitor: Visitor | None,
    status: int = 200,
    session: Session | None = None,
    **values: object,
) -> HTMLResponse:
    """A rendered page. Keeps a session that is new, and says what the last action left to say."""
    cookies = context.access.cookies
    session = session or (visitor.session if visitor else None)
    flash = cookies.flashed(request)
    html = context.templates.get_template(template).render(
        visitor=visitor,
        csrf=session.csrf if session else "",
        flash=flash,
        path=request.url.path,
        signed_in=session is not None and session.kind != "nobody",
        **values,
    )
    response = HTMLResponse(html, status_code=status)
    if session is not None and session != cookies.session(request):
        cookies.keep(response, session)
    if flash:
        cookies.flash_seen(response)
    return response
