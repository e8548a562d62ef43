"""The console over HTTP: who may see and do what, how errors are said, what is announced."""

from __future__ import annotations

import re
import time
from types import SimpleNamespace

import msgspec
import pytest
from console_desk import OPERATOR, READER, TENANT, Desk
from itsdangerous import timed
from starlette.testclient import TestClient

from services.console.config import ConsoleSettings
from services.console.sessions import COOKIE
from shared.contracts.events import AnnouncementKind
from shared.contracts.report import decode_report
from shared.contracts.topics import schemas_folder
from shared.http.tokens import Caller, Tokens, digest_of, one_token
from shared.registry.base import State
from tests.artifacts import make_artifact, make_report

ACTIONS = "/api/v1/tasks/support/actions"


@pytest.fixture
def desk() -> Desk:
    return Desk()


def csrf_of(page: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found
    return found[1]


def sign_in(desk: Desk, token: str = OPERATOR) -> TestClient:
    client = desk.client()
    form = {"token": token, "then": "/", "csrf": csrf_of(client.get("/sign-in").text)}
    assert client.post("/sign-in", data=form).status_code == 303
    return client


# --- getting in


@pytest.mark.parametrize("path", ["/", "/tasks/support", "/tasks/support/actions/pause"])
def test_pages_send_strangers_to_the_sign_in_page(desk: Desk, path: str) -> None:
    answer = desk.client().get(path)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/sign-in?then={path}"
    # A part of a page that htmx asks for: the whole page must go there.
    part = desk.client().get(path, headers={"hx-request": "true"})
    assert (part.status_code, part.headers["hx-redirect"]) == (401, f"/sign-in?then={path}")


@pytest.mark.parametrize(
    "path", ["/tasks", "/tasks/support", "/tasks/support/versions/x", "/tasks/support/live"]
)
def test_the_api_says_how_to_get_in(desk: Desk, path: str) -> None:
    for client in (desk.client(), desk.client("wrong-token-0123456789")):
        answer = client.get(f"/api/v1{path}")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer" in answer.json()["error"]["fix"]


def test_guessing_tokens_is_slow_and_knowing_one_is_not(desk: Desk) -> None:
    answers = [desk.client(f"guess-{n:020}").get("/api/v1/tasks").status_code for n in range(25)]
    assert answers.count(401) == 20
    assert answers[-1] == 429
    assert desk.client(OPERATOR).get("/api/v1/tasks").status_code == 200
    late = desk.client("guess").get("/api/v1/tasks")
    assert int(late.headers["retry-after"]) >= 1


def test_a_forged_or_foreign_session_is_nobodys(desk: Desk) -> None:
    client = sign_in(desk)
    assert client.get("/").status_code == 200
    cookie = client.cookies[COOKIE]
    for forged in (cookie[:-2] + "xx", "e30.e30.e30", Desk().cookies._flashes.dumps("x")):
        stranger = desk.client()
        stranger.cookies.set(COOKIE, forged)
        assert stranger.get("/").status_code == 303


NEW = "another-token-0123456789"


@pytest.mark.parametrize(
    ("tokens", "status"),
    [
        ([("maria", OPERATOR)], 200),  # signed with the same secret, still listed
        ([("maria", NEW)], 303),  # replaced, as after a leak
        ([("rosa", OPERATOR)], 303),
        ([("rosa", NEW)], 303),
    ],
)
def test_a_token_taken_off_the_list_ends_its_sessions(
    desk: Desk, tokens: list[tuple[str, str]], status: int
) -> None:
    cookie = sign_in(desk).cookies[COOKIE]
    later = Desk(tokens=Tokens([(digest_of(token), Caller(name)) for name, token in tokens]))
    client = later.client()
    client.cookies.set(COOKIE, cookie)
    assert client.get("/").status_code == status


def test_replacing_the_one_token_ends_its_sessions() -> None:
    """It has the same name always."""
    leaked = sign_in(Desk(tokens=one_token(OPERATOR, "T"))).cookies[COOKIE]
    client = Desk(tokens=one_token(NEW, "T")).client()
    client.cookies.set(COOKIE, leaked)
    assert client.get("/").status_code == 303


@pytest.mark.parametrize("path", ["/", "/tasks/support", "/nowhere", "/sign-in"])
def test_a_session_ends_after_its_hours_however_much_it_is_used(
    desk: Desk, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = sign_in(desk)
    now = time.time()
    for minutes in range(0, 60, 10):  # a desk's sessions last for an hour
        monkeypatch.setattr(timed, "time", SimpleNamespace(time=lambda at=minutes: now + 60 * at))
        assert client.get("/").status_code == 200
        assert "set-cookie" not in client.get(path).headers
    monkeypatch.setattr(timed, "time", SimpleNamespace(time=lambda: now + 3_700))
    assert client.get("/").status_code == 303


@pytest.mark.parametrize(
    ("then", "there"),
    [("/tasks/support", "/tasks/support"), ("https://evil.example", "/"), ("//evil.example", "/"),
     ("/\\evil.example", "/"), ("/x\r\nSet-Cookie: a=b", "/")],
)  # fmt: skip
def test_signing_in_leads_nowhere_else(desk: Desk, then: str, there: str) -> None:
    client = desk.client()
    csrf = csrf_of(client.get("/sign-in").text)
    answer = client.post("/sign-in", data={"token": OPERATOR, "then": then, "csrf": csrf})
    assert answer.headers["location"] == there


def test_no_other_site_can_sign_somebody_in(desk: Desk) -> None:
    answer = desk.client().post("/sign-in", data={"token": OPERATOR, "csrf": "guessed"})
    assert answer.status_code == 403


def test_without_tokens_only_calls_by_the_name_localhost_are_answered() -> None:
    open_desk = Desk(tokens=Tokens())
    assert open_desk.client().get("/").status_code == 200
    rebound = open_desk.client(base_url="http://rebound.example.com")
    assert rebound.get("/").status_code == 403
    assert rebound.get("/api/v1/tasks").status_code == 403


# --- headers


def test_every_answer_keeps_browsers_in(desk: Desk) -> None:
    client = sign_in(desk)
    for path in ("/", "/nowhere", "/api/v1/tasks", "/static/own/console.js"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
    assert client.get("/").headers["cache-control"] == "no-store"
    assert "immutable" in client.get("/static/vendor/echarts.min.js").headers["cache-control"]
    assert client.get("/static/vendor/../config.py").status_code == 404


def test_pages_have_no_inline_script_or_style_and_load_nothing_from_elsewhere(desk: Desk) -> None:
    client = sign_in(desk)
    version = f"/tasks/support/versions/{desk.versions[0]}"
    for path in ("/", "/tasks/support", version, "/tasks/support/actions/rollback", "/nowhere"):
        text = client.get(path).text
        assert not re.search(r"<script(?![^>]*\bsrc=)", text), path
        assert not re.search(r"\s(style|on\w+)=", text), path
        assert not re.search(r"(src|href|action)=\"?(https?:)?//", text), path


def test_the_cookie_is_not_for_scripts_and_secure_where_the_console_is(desk: Desk) -> None:
    client = desk.client()
    form = {"token": OPERATOR, "csrf": csrf_of(client.get("/sign-in").text)}
    said = client.post("/sign-in", data=form).headers["set-cookie"]
    assert "HttpOnly" in said
    assert "SameSite=lax" in said
    settings = ConsoleSettings(console_url="https://tracer.example.com")
    assert settings.secure_cookies
    assert not ConsoleSettings().secure_cookies


# --- tenants


def test_a_tenant_sees_its_tasks_only(desk: Desk) -> None:
    client = desk.client(TENANT)
    assert [row["task"] for row in client.get("/api/v1/tasks").json()["tasks"]] == ["support"]
    for method, path, body in (
        ("GET", "/api/v1/tasks/intents", None),
        ("GET", "/api/v1/tasks/intents/live", None),
        ("GET", "/api/v1/tasks/intents/versions/x", None),
        ("POST", "/api/v1/tasks/intents/actions/pause", {"reason": "mine"}),
        ("GET", "/tasks/intents", None),
        ("GET", "/tasks/intents/versions/x", None),
        ("GET", "/tasks/intents/actions/pause", None),
        ("POST", "/tasks/intents/actions/pause", None),
    ):
        there = client.request(method, path, json=body)
        nowhere = client.request(method, path.replace("intents", "nowhere"), json=body)
        assert there.status_code == nowhere.status_code == 404, path
        assert there.text.replace("intents", "nowhere") == nowhere.text


# --- actions


def test_an_action_is_done_announced_and_named(desk: Desk) -> None:
    client = desk.client(OPERATOR)
    answer = client.post(
        f"{ACTIONS}/pause", json={"reason": " new\nprompt ", "expects": desk.versions[1]}
    )
    assert answer.json() == {
        "task": "support", "changed": True, "kind": "paused", "version": desk.versions[1],
        "epoch": desk.registry.active("support").epoch,
    }  # fmt: skip
    (announced,) = desk.announced
    assert announced.kind is AnnouncementKind.PAUSED
    assert (announced.actor, announced.reason) == ("maria", "new prompt")
    desk.clock.sleep(1)
    assert not client.post(f"{ACTIONS}/pause", json={"reason": "again"}).json()["changed"]
    assert len(desk.announced) == 1


def test_alpha_is_changed_after_the_frontiers_answer(desk: Desk) -> None:
    client = sign_in(desk)
    api = desk.client(OPERATOR)
    lower = api.get("/api/v1/tasks/support/alpha?alpha=0.9").json()
    assert (lower["now"], lower["certified_for"], lower["coverage"]) == (0.95, 0.95, 0.8)
    higher = client.get("/tasks/support/alpha?alpha=0.97").text
    assert "only a refit will tell; until a refit is certified the teacher answers" in higher
    for bad in ("2", "x", "nan"):
        assert client.get(f"/tasks/support/alpha?alpha={bad}").status_code == 409
    form = {"alpha": "0.97", "reason": "stricter", "csrf": csrf_of(client.get("/").text)}
    client.post("/tasks/support/actions/alpha", data=form)
    assert desk.registry.alpha("support") == 0.97
    (announced,) = desk.announced
    assert (announced.kind, announced.alpha) == (AnnouncementKind.ALPHA, 0.97)
    row = api.get("/api/v1/tasks/support").json()["row"]
    assert (row["alpha"], row["configured_alpha"], row["state"]) == (0.97, 0.95, "refitting")
    assert api.post(f"{ACTIONS}/alpha", json={"reason": "back"}).json()["changed"]
    assert desk.registry.alpha("support") is None


@pytest.mark.parametrize(
    ("action", "body", "status"),
    [
        ("dance", {"reason": "x"}, 409),
        ("resume", {"reason": "x"}, 409),  # it is not paused
        ("promote", {"reason": "x"}, 404),  # nothing is on trial
        ("rollback", {"reason": "x", "to": "2020-01-01-abc"}, 404),
        ("pause", {"reason": "x", "expects": "2020-01-01-abc"}, 409),
        ("alpha", {"reason": "x", "alpha": 1.5}, 422),
        ("pause", {"reason": "  "}, 409),
        ("pause", {"reason": ""}, 422),
        ("pause", {"reason": "x" * 501}, 422),
        ("pause", {"reason": "x", "more": 1}, 422),
        ("pause", {}, 422),
    ],
)
def test_what_cannot_be_done_changes_nothing_and_says_why(
    desk: Desk, action: str, body: dict[str, str], status: int
) -> None:
    if action == "resume":
        desk.registry.set_state(
            "support", State.PROBATION, version=desk.versions[1], at=desk.clock.now(), reason=""
        )
    before = desk.registry.active("support")
    answer = desk.client(OPERATOR).post(f"{ACTIONS}/{action}", json=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert desk.registry.active("support") == before
    assert desk.announced == []


def test_read_only_changes_nothing(desk: Desk) -> None:
    for client in (desk.client(READER), Desk(read_only=True).client(OPERATOR)):
        answer = client.post(f"{ACTIONS}/pause", json={"reason": "x"})
        assert answer.status_code == 403
        assert "read-only" in answer.json()["error"]["message"]
    assert desk.registry.active("support").state is State.SERVING


@pytest.mark.parametrize("path", ["/tasks/support/actions/pause", f"{ACTIONS}/pause"])
@pytest.mark.parametrize("proof", ["", "guessed", "another session's"])
def test_a_form_must_be_of_the_session(desk: Desk, path: str, proof: str) -> None:
    client = sign_in(desk)
    if proof == "another session's":
        proof = csrf_of(sign_in(desk).get("/").text)
    if path.startswith("/api"):
        answer = client.post(path, json={"reason": "x"}, headers={"x-csrf-token": proof})
    else:
        answer = client.post(path, data={"reason": "x", "csrf": proof})
    assert answer.status_code == 403
    assert desk.registry.active("support").state is State.SERVING
    own = csrf_of(client.get("/").text)
    good = client.post("/tasks/support/actions/pause", data={"reason": "x", "csrf": own})
    assert good.status_code == 303
    assert desk.registry.active("support").state is State.PAUSED


def test_what_was_not_announced_is_said(desk: Desk) -> None:
    desk.broker_away = True
    client = sign_in(desk)
    form = {"reason": "x", "csrf": csrf_of(client.get("/").text)}
    client.post("/tasks/support/actions/pause", data=form)
    assert desk.registry.active("support").state is State.PAUSED
    page = client.get("/tasks/support").text
    assert "not announced on `models`" in page
    assert "it was not announced on" in page  # in the timeline, from the registry's history
    assert "not announced on `models`" not in client.get("/tasks/support").text  # said once
    answer = desk.client(OPERATOR).post(f"{ACTIONS}/resume", json={"reason": "x"})
    assert answer.status_code == 502


def test_texts_are_inert(desk: Desk) -> None:
    bad = "</script><img src=x onerror=alert(1)>'\""
    client = sign_in(desk)
    form = {"reason": bad, "csrf": csrf_of(client.get("/").text)}
    client.post("/tasks/support/actions/pause", data=form)
    page = client.get("/tasks/support").text
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<img src=x" not in client.get("/tasks/<img src=x onerror=alert(1)>").text


# --- when something is away


def test_with_the_registry_away_the_page_says_what_to_do(desk: Desk) -> None:
    client = sign_in(desk)
    desk.registry.available = False
    page = client.get("/")
    assert page.status_code == 503
    assert "TRACER_REDIS_URL" in page.text
    assert client.get("/api/v1/tasks").json()["error"]["fix"].startswith("Is Redis running")
    desk.registry.available = True
    assert client.get("/").status_code == 200


def test_what_is_wrong_with_the_announcements_is_shown(desk: Desk) -> None:
    desk.context.sources.announcements.trouble = "the announcements cannot be read: no broker"
    assert "no broker" in sign_in(desk).get("/").text


def test_a_body_too_large_is_refused_before_it_is_read(desk: Desk) -> None:
    answer = desk.client(OPERATOR).post(f"{ACTIONS}/pause", json={"reason": "x" * 100_000})
    assert answer.status_code == 413


def test_too_many_calls_of_one_person_are_told_to_wait() -> None:
    client = Desk(rate=2.0).client(OPERATOR)
    answers = [client.get("/api/v1/tasks").status_code for _ in range(6)]
    assert answers == [200] * 4 + [429] * 2


# --- the same figures on pages and in the API


def test_the_api_describes_itself(desk: Desk) -> None:
    described = desk.client().get("/api/v1/openapi.json").json()
    assert "/api/v1/tasks/{task}/actions/{action}" in described["paths"]
    assert all(path.startswith("/api/v1/") for path in described["paths"])


def test_no_text_is_shown_once_the_previews_of_a_task_are_off(desk: Desk) -> None:
    """Not even of a report that was made before they were."""
    example = schemas_folder() / "reports" / "examples" / "typical.json"
    report = decode_report(example.read_bytes())
    text = report.confusions[0].a_as_b[0].texts[0]
    client = desk.client(OPERATOR)
    for task, shown in (("support", True), ("intents", False)):  # the second has no previews
        kept = msgspec.structs.replace(report, task=task, version=None, window="2026-01-09")
        assert kept.previews
        desk.registry.put_report(kept)
        there = f"/tasks/{task}/reports/unpublished-2026-01-09"
        for path in (there, f"{there}.html", f"/api/v1{there}"):
            assert (text in client.get(path).text) == shown, path


def test_reports_are_shown_kept_and_answered(desk: Desk) -> None:
    desk.registry.put_report(make_report("support", desk.versions[1]))
    desk.registry.put_report(make_report("support", None, window="2026-01-09"))
    client = desk.client(OPERATOR)
    assert "Nothing, für einen Test." in client.get(
        f"/tasks/support/versions/{desk.versions[1]}"
    ).text  # fmt: skip
    unpublished = "/tasks/support/reports/unpublished-2026-01-09"
    assert "Refused" in client.get(unpublished).text
    assert client.get(f"/api/v1{unpublished}").json()["window"] == "2026-01-09"
    kept = client.get(f"{unpublished}.html")
    assert kept.headers["content-disposition"].startswith("attachment; filename=")
    assert "<script" in kept.text  # it needs nothing else
    assert desk.client(TENANT).get(unpublished.replace("support", "intents")).status_code == 404
    assert client.get("/tasks/support/reports/unpublished-2020-01-01").status_code == 404


def test_versions_and_trials_are_shown_with_what_may_be_done(desk: Desk) -> None:
    trial = make_artifact("support", text="c")
    fence = desk.registry.acquire("support")
    desk.registry.start_trial(
        trial, mode="canary", share=0.2, fence=fence, at=desk.clock.now(), reason=""
    )
    desk.registry.record_audits("support", desk.versions[1], 0, [(1, True), (2, False)])
    view = desk.client(OPERATOR).get("/api/v1/tasks/support").json()
    assert [(v["version"], v["standing"]) for v in view["versions"]] == [
        (trial.version, "trial"), (desk.versions[1], "active"), (desk.versions[0], "stored"),
    ]  # fmt: skip
    assert view["row"]["live"]["agreement"] == 0.5
    assert 0 <= view["row"]["live"]["lower"] < 0.5
    assert [action["name"] for action in view["actions"]] == [
        "promote", "withdraw", "pause", "rollback", "alpha", "retire",
    ]  # fmt: skip
    shown = desk.client(OPERATOR).get(f"/api/v1/tasks/support/versions/{desk.versions[0]}").json()
    assert shown["certificate"]["coverage"] == 0.8
    assert shown["report"] is None
