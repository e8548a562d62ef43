"""Why this one? The page and its JSON: who may ask, what is shown, what is said where it fails."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest
from console_desk import OPERATOR, READER, TENANT, Desk
from starlette.testclient import TestClient

from services.console.actions import Refused
from services.console.explaining import NotExplained, TooManyQuestions
from services.console.recent import RecentRequests, Seen
from services.console.why import MAX_TEXT_CHARS
from shared.contracts.events import Decision, Outcome, Reason, Request
from shared.explain.explanation import Explanation, Neighbour, StageSaid, Word
from shared.registry.base import UnknownVersion

HOSTILE = "<script>alert(1)</script>"
PATH = "/tasks/support/explain"
NOW = datetime(2026, 1, 5, tzinfo=UTC)

FOUND = Explanation(
    task="support", version="2026-01-05-aaaaaaaaaaaa", texts=(f"refund {HOSTILE}",), handled=False,
    answered_by=None, label="refund", summary="Deferred to the teacher: not sure enough.",
    stages=[StageSaid("lexical", "refund", "card", 0.4, 0.8, 0.1, 0.9, False, "not sure enough")],
    words=[Word("refund", 1.2), Word(HOSTILE, -0.4)], words_for="refund", words_against="card",
    nearest_handled=[
        Neighbour(("refund please",), "refund", "refund", 0.97, 0.81, "sure enough: 0.970")
    ],
    nearest_deferred=[Neighbour((), "card", "refund", 0.99, 0.7, "unlike its training traffic")],
    would_be_handled=["A score of 0.800 instead of 0.400."], notes=["Something lacks."],
)  # fmt: skip


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.explaining.answer = FOUND
    return desk


def sign_in(desk: Desk, token: str = OPERATOR) -> TestClient:
    client = desk.client()
    form = {"token": token, "then": "/", "csrf": csrf_of(client.get("/sign-in").text)}
    assert client.post("/sign-in", data=form).status_code == 303
    return client


def csrf_of(page: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found
    return found[1]


def ask(client: TestClient, **fields: str):  # type: ignore[no-untyped-def]
    fields = {"text": "where is my refund", "csrf": csrf_of(client.get(PATH).text)} | fields
    return client.post(PATH, data=fields)


def until(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come true")


def decided(n: int, task: str = "support") -> Decision:
    return Decision(
        request_id=f"r{n}", task=task, outcome=Outcome.DEFERRED, reason=Reason.BELOW_THRESHOLD,
        decided_at=NOW, label="card", version="2026-01-04-bbbbbbbbbbbb", accept_score=0.41,
        threshold=0.8,
    )  # fmt: skip


# --- a text


def test_a_text_is_explained_with_all_there_is(desk: Desk) -> None:
    answer = ask(sign_in(desk), version="2026-01-05-aaaaaaaaaaaa")
    assert answer.status_code == 200
    asked = desk.explaining.asked[-1]
    assert (asked.task, asked.texts) == ("support", ("where is my refund",))
    assert asked.version == "2026-01-05-aaaaaaaaaaaa"
    for said in (
        FOUND.summary, "0.400", "0.800", "refund please", "81%", "not shown", "Something lacks.",
        "A score of 0.800 instead of 0.400.", "+1.20", "-0.40",
    ):  # fmt: skip
        assert said in answer.text, said
    assert "where is my refund</textarea>" in answer.text  # it can be changed and asked again
    assert 'class="word for s4"' in answer.text
    assert 'class="word against s1"' in answer.text


def test_a_neighbour_above_the_threshold_says_why_it_is_deferred(desk: Desk) -> None:
    page = ask(sign_in(desk)).text
    assert "unlike its training traffic" in page
    assert "Deferred because" in page


def test_a_placeholder_is_marked_and_an_overruled_answer_is_none(desk: Desk) -> None:
    desk.explaining.answer = replace(
        FOUND, handled=True, words=[Word("[EMAIL]", 1.0, placeholder=True)],
        overruled="the version is paused",
    )  # fmt: skip
    page = ask(sign_in(desk)).text
    assert "Deferred at present" in page
    assert "the version is paused" in page
    assert 'class="word for s4 placeholder"' in page
    assert "placeholder of personal data" in page


def test_texts_do_nothing_on_the_page(desk: Desk) -> None:
    answer = ask(sign_in(desk), text=f"</textarea>{HOSTILE}")
    assert HOSTILE not in answer.text
    assert "&lt;script&gt;" in answer.text


def test_who_may_only_look_may_ask_but_not_by_another_sessions_form(desk: Desk) -> None:
    reader = sign_in(desk, READER)
    assert ask(reader).status_code == 200
    before = len(desk.explaining.asked)
    for csrf in ("", "guessed", csrf_of(sign_in(desk).get(PATH).text)):
        assert ask(reader, csrf=csrf).status_code == 403
    bare = reader.post("/api/v1/tasks/support/explain", json={"texts": ["a"]})
    assert bare.status_code == 403
    assert len(desk.explaining.asked) == before


@pytest.mark.parametrize("task", ["intents", "unheard-of"])
def test_another_tenants_task_cannot_be_asked(desk: Desk, task: str) -> None:
    client = sign_in(desk, TENANT)
    csrf = csrf_of(client.get(PATH).text)
    desk.context.feed.recent.decision(decided(1, "intents"))
    assert client.get(f"/tasks/{task}/explain").status_code == 404
    assert client.get(f"/tasks/{task}/explain?id=r1").status_code == 404
    assert (
        client.post(f"/tasks/{task}/explain", data={"text": "a", "csrf": csrf}).status_code == 404
    )
    program = desk.client(TENANT).post(f"/api/v1/tasks/{task}/explain", json={"texts": ["a"]})
    assert program.status_code == 404
    assert desk.explaining.asked == []


def test_a_program_gets_what_the_command_prints(desk: Desk) -> None:
    answer = desk.client(OPERATOR).post(
        "/api/v1/tasks/support/explain", json={"texts": ["where is my refund"]}
    )
    assert answer.status_code == 200
    found = answer.json()
    assert found["summary"] == FOUND.summary
    assert found["stages"][0]["threshold"] == 0.8
    assert found["words"][1] == {
        "text": HOSTILE, "contribution": -0.4, "placeholder": False,
    }  # fmt: skip


@pytest.mark.parametrize("texts", [[], [""], ["a", "b", "c"], ["a" * (MAX_TEXT_CHARS + 1)]])
def test_a_program_is_told_what_is_no_question(desk: Desk, texts: list[str]) -> None:
    answer = desk.client(OPERATOR).post("/api/v1/tasks/support/explain", json={"texts": texts})
    assert answer.status_code == 422
    assert "texts" in answer.json()["error"]["message"]
    assert desk.explaining.asked == []


@pytest.mark.parametrize(("text", "said"), [(" ", "no text"), ("a" * 8_001, "more than 8,000")])
def test_what_is_no_text_is_said_beside_the_form(desk: Desk, text: str, said: str) -> None:
    answer = ask(sign_in(desk), text=text)
    assert answer.status_code == 422
    assert said in answer.text
    assert "<textarea" in answer.text
    assert desk.explaining.asked == []


def test_a_form_larger_than_any_is_refused(desk: Desk) -> None:
    assert ask(sign_in(desk), text="a" * 70_000).status_code == 413
    assert desk.explaining.asked == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Refused("this version takes two texts"), 422),
        (UnknownVersion("support has no version x"), 404),
        (NotExplained("data/encoder is missing"), 503),
        (TooManyQuestions("ask again in a moment"), 503),
    ],
)
def test_what_keeps_it_from_being_explained_is_said(
    desk: Desk, error: Exception, status: int
) -> None:
    desk.explaining.answer = error
    answer = ask(sign_in(desk))
    assert answer.status_code == status
    assert str(error)[1:] in answer.text
    assert "where is my refund</textarea>" in answer.text
    program = desk.client(OPERATOR).post("/api/v1/tasks/support/explain", json={"texts": ["a"]})
    assert (
        (program.status_code == 409)
        if isinstance(error, Refused)
        else program.status_code == status
    )
    assert str(error) in program.json()["error"]["message"]


def test_a_part_of_the_stages_is_not_called_an_answer(desk: Desk) -> None:
    desk.explaining.answer = replace(FOUND, handled=None)
    answer = ask(sign_in(desk))
    assert "Cannot be told whole" in answer.text
    assert ">Deferred<" not in answer.text


# --- a request that was watched


def test_a_watched_request_is_asked_of_the_version_that_decided(desk: Desk) -> None:
    recent = desk.context.feed.recent
    recent.request(Request(id="r1", task="support", input="about ann@example.org"))
    recent.decision(decided(1))
    answer = sign_in(desk).get(f"{PATH}?id=r1")
    assert answer.status_code == 200
    asked = desk.explaining.asked[-1]
    assert (asked.texts, asked.version) == (("about ann@example.org",), "2026-01-04-bbbbbbbbbbbb")
    assert "Not sure enough" in answer.text
    assert "0.410" in answer.text
    # The text as it was explained, which may be redacted, never the one of the topic.
    assert "ann@example.org" not in answer.text
    desk.explaining.answer = NotExplained("no encoder")
    failed = sign_in(desk).get(f"{PATH}?id=r1")
    assert failed.status_code == 503
    assert "ann@example.org" not in failed.text


def test_without_its_text_what_was_decided_is_still_said(desk: Desk) -> None:
    recent = desk.context.feed.recent
    recent.request(Request(id="r2", task="intents", input="secret"))  # previews are off
    recent.decision(decided(2, "intents"))
    answer = sign_in(desk).get("/tasks/intents/explain?id=r2")
    assert answer.status_code == 200
    assert "previews are off" in answer.text
    assert "0.410" in answer.text
    assert recent.of("intents", "r2").texts is None
    unknown = sign_in(desk).get(f"{PATH}?id=never-seen")
    assert "never-seen is not at hand" in unknown.text
    assert desk.explaining.asked == []


def test_the_live_reader_remembers_requests_and_shows_decisions_alone(desk: Desk) -> None:
    feed = desk.context.feed
    thread = threading.Thread(target=feed.run, args=(desk.context.stop,))
    thread.start()
    try:
        with feed.watch("support", "anna") as watcher:
            desk.requests.add(Request(id="r3", task="support", input="a text"))
            desk.decisions.add(decided(3))
            until(lambda: feed.recent.of("support", "r3") == Seen(("a text",), decided(3)))
            assert watcher.take() == ([decided(3)], 0)
            # A broker that lets it read decisions alone costs the texts, not the decisions.
            desk.requests.forbidden = True
            until(lambda: desk.requests.closed == 1)
            desk.decisions.add(decided(4))
            until(lambda: watcher.take()[0] == [decided(4)])
            assert feed.trouble is None
    finally:
        desk.context.stop.set()
        thread.join(5)


def test_what_is_remembered_is_bounded() -> None:
    recent = RecentRequests(["support"], most=3, most_chars=100)
    for n in range(5):
        recent.decision(decided(n))
    assert [recent.of("support", f"r{n}").decision is None for n in range(5)] == [
        True, True, False, False, False,
    ]  # fmt: skip
    recent.request(Request(id="r4", task="support", input=["a" * 40, "b" * 40]))
    recent.request(Request(id="r4", task="support", input="c" * 90))  # counted once
    assert recent.of("support", "r4") == Seen(("c" * 90,), decided(4))
    recent.request(Request(id="r5", task="support", input="d" * 20))
    assert recent.of("support", "r4") == Seen()
    assert recent.of("support", "r5").texts == ("d" * 20,)
    recent.decision(msgspec.structs.replace(decided(6), metadata={"large": "m" * 10_000}))
    assert recent.of("support", "r6").decision == decided(6)
