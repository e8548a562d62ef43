"""Every route there is, taken from the application: a new one cannot be forgotten here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from console_desk import OPERATOR, READER, TENANT, Desk
from fastapi import FastAPI
from starlette.responses import Response
from starlette.routing import Mount, Route

# What strangers may have: how to get in, files without content, the API's own description.
OPEN = {
    ("GET", "/sign-in"), ("POST", "/sign-in"), ("POST", "/sign-out"),
    ("GET", "/sign-in/provider"), ("GET", "/sign-in/answer"), ("GET", "/api/v1/openapi.json"),
}  # fmt: skip
# Of no task in their path; what a tenant gets there.
TASKLESS = {
    ("GET", "/"): 200,
    ("GET", "/api/v1/tasks"): 200,
    ("GET", "/fleet"): 403,
    ("GET", "/api/v1/fleet"): 403,
    ("GET", "/dead-letters"): 200,
    ("GET", "/api/v1/dead-letters"): 200,
    ("POST", "/dead-letters/confirm"): 303,
    ("POST", "/dead-letters/redrive"): 409,
    ("POST", "/api/v1/dead-letters/redrive"): 200,
}
READING = {("POST", "/tasks/{task}/explain"), ("POST", "/api/v1/tasks/{task}/explain")}
BODIES: dict[str, Any] = {
    "/api/v1/tasks/{task}/actions/{action}": {"reason": "x"},
    "/api/v1/tasks/{task}/explain": {"texts": ["x"]},
    "/api/v1/dead-letters/redrive": {"ids": ["0:0"]},
}
_PARTS = {"action": "pause", "version": "x", "key": "x"}


def fastapi_of(desk: Desk) -> FastAPI:
    app: Any = desk.app
    while not isinstance(app, FastAPI):
        app = app._app
    return app


def routes(app: Any) -> Iterator[tuple[str, str]]:
    for route in app.routes:
        included = getattr(route, "original_router", None)  # FastAPI keeps routers as they are
        if included is not None:
            yield from routes(included)
        elif isinstance(route, Route):
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield method, route.path
        else:
            assert isinstance(route, Mount)
            assert route.path == "/static", "what is mounted is not looked into here"


ALL = sorted(set(routes(fastapi_of(Desk()))))
OF_TASKS = [(method, path) for method, path in ALL if "{task}" in path]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def filled(path: str, task: str) -> str:
    return re.sub(r"{(\w+)}", lambda part: _PARTS.get(part[1], task), path)


def test_these_are_all_routes() -> None:
    assert len(ALL) >= 30
    assert set(ALL) == set(OPEN) | set(TASKLESS) | set(OF_TASKS)


@pytest.mark.parametrize(("method", "path"), [each for each in ALL if each not in OPEN])
def test_a_stranger_gets_nothing(desk: Desk, method: str, path: str) -> None:
    for client in (desk.client(), desk.client("wrong-token-0123456789")):
        answer = client.request(method, filled(path, "support"), json=BODIES.get(path))
        if path.startswith("/api/"):
            assert answer.status_code == 401
            assert set(answer.json()) == {"error"}
        else:
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/sign-in?then=")
            assert not answer.content


@pytest.mark.parametrize(("method", "path"), OF_TASKS)
def test_another_tenants_task_is_a_task_that_is_not_there(
    desk: Desk, method: str, path: str
) -> None:
    client = desk.client(TENANT)
    there = client.request(method, filled(path, "intents"), json=BODIES.get(path))
    nowhere = client.request(method, filled(path, "nowhere"), json=BODIES.get(path))
    assert there.status_code == nowhere.status_code == 404
    assert there.text.replace("intents", "nowhere") == nowhere.text
    assert desk.announced == []
    assert desk.explaining.asked == []


@pytest.mark.parametrize(("method", "path"), TASKLESS)
def test_what_is_of_no_task_shows_a_tenant_nothing_of_others(
    desk: Desk, method: str, path: str
) -> None:
    answer = desk.client(TENANT).request(method, path, json=BODIES.get(path))
    assert answer.status_code == TASKLESS[method, path]
    assert "intents" not in answer.text


@pytest.mark.parametrize(("method", "path"), [each for each in ALL if each[0] == "POST"])
def test_no_form_is_taken_without_its_sessions_secret_nor_from_a_reader(
    desk: Desk, method: str, path: str
) -> None:
    browser, signed_in = desk.client(), Response()
    session = desk.context.access.session_of_token(OPERATOR)
    assert session is not None
    desk.cookies.keep(signed_in, session)
    browser.headers["cookie"] = signed_in.headers["set-cookie"].partition(";")[0]
    forged = browser.request(method, filled(path, "support"), json=BODIES.get(path))
    assert forged.status_code == 403
    if (method, path) not in OPEN | READING:
        reader = desk.client(READER).request(method, filled(path, "support"), json=BODIES.get(path))
        assert reader.status_code == 403
    assert desk.announced == []
    assert desk.post.sent == []
