"""The fleet and the dead letters: who sees them, and that each letter is put back once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta

import msgspec
import pytest
from console_desk import OPERATOR, READER, TENANT, Desk
from starlette.testclient import TestClient

from services.console import letters
from services.console.config import ConsoleSettings
from services.console.letters import letters_view
from services.console.post import KafkaPost
from shared.bus.base import Message, Record
from shared.bus.dead_letters import dead_letter
from shared.bus.errors import InvalidMessage, Retryable
from shared.contracts.tasks import Tasks
from shared.http.tokens import LOCAL, read_tokens
from shared.registry.fleet import RouterBeat

REDRIVE = "/api/v1/dead-letters/redrive"


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    for n, task in enumerate(("support", "intents", "support")):
        put(desk, n, f'{{"id": "r{n}", "task": "{task}"}}'.encode())
    put(desk, 3, b"not even JSON")
    return desk


def put(
    desk: Desk, n: int, value: bytes, topic: str = "requests", error: Exception | None = None
) -> None:
    """A letter at 0:n."""
    original = Message(topic, 1, 70 + n, b"key", value, (("h", b"1"),))
    error = error or InvalidMessage(f"field number {n} is wrong", field="input")
    record = dead_letter(
        original, service="router", error=error, at=desk.clock.now() + timedelta(seconds=n),
        topic="dead-letters",
    )  # fmt: skip
    message = Message("dead-letters", 0, n, record.key, record.value, record.headers)
    desk.dead_letters.take(message)


def ids(client: TestClient) -> list[str]:
    return [letter["id"] for letter in client.get("/api/v1/dead-letters").json()["letters"]]


def test_the_newest_come_first_and_a_tenant_sees_its_own(desk: Desk) -> None:
    assert ids(desk.client(OPERATOR)) == ["0:3", "0:2", "0:1", "0:0"]
    assert ids(desk.client(TENANT)) == ["0:2", "0:0"]
    page = desk.client(TENANT).get("/dead-letters").text
    assert "field number 2 is wrong" in page
    assert "field number 1" not in page
    assert "not even JSON" not in page


def test_a_tenant_reads_no_names_of_others_tasks_in_letters_of_an_unknown_task() -> None:
    """Of one that is not there yet, and of one that was added after the letter was made."""
    token = "tenant-of-two-0123456789"
    entry = f'[{{"name": "acme", "token": "{token}", "tasks": ["support", "to-come"]}}]'
    desk = Desk(tokens=read_tokens(entry, "T"))
    said = "unknown task 'x'; known tasks: intents, globex-layoffs"
    for n, task in enumerate(("support", "to-come")):
        put(desk, n, f'{{"task": "{task}"}}'.encode(), error=InvalidMessage(said, field="task"))
    client = desk.client(token)
    (letter,) = client.get("/api/v1/dead-letters").json()["letters"]
    assert (letter["id"], letter["message"]) == ("0:0", "the task was not known")
    assert "globex" not in client.get("/dead-letters").text
    answer = client.post(REDRIVE, json={"ids": ["0:0", "0:1"]}).json()
    assert answer == {"redriven": 1, "refused": ["0:1: there is no such letter"]}
    views = letters_view(desk.dead_letters, LOCAL, desk.context.sources.tasks).letters
    assert [view.message for view in views] == [said, said]


def test_each_is_put_back_once_with_its_bytes(desk: Desk) -> None:
    client = desk.client(OPERATOR)
    answer = client.post(REDRIVE, json={"ids": ["0:0", "0:3", "9:9"]})
    assert answer.json() == {"redriven": 2, "refused": ["9:9: there is no such letter"]}
    assert [(r.topic, r.key, r.value) for r in desk.post.sent] == [
        ("requests", b"key", b'{"id": "r0", "task": "support"}'),
        ("requests", b"key", b"not even JSON"),
    ]
    again = client.post(REDRIVE, json={"ids": ["0:0"]}).json()
    assert again["redriven"] == 0
    assert "put back by maria" in again["refused"][0]
    assert len(desk.post.sent) == 2
    shown = {each["id"]: each for each in client.get("/api/v1/dead-letters").json()["letters"]}
    assert (shown["0:0"]["redriven_by"], shown["0:1"]["redriven_by"]) == ("maria", None)


def test_at_least_once_loses_no_letter(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic may take nothing while that of the markers does."""
    publish = desk.post.publish

    def markers_only(records: Sequence[Record]) -> None:
        publish([record for record in records if record.topic == "dead-letters"])
        if any(record.topic == "requests" for record in records):
            raise Retryable("requests takes none")

    monkeypatch.setattr(desk.post, "transactions", False)
    client = desk.client(OPERATOR)
    with monkeypatch.context() as patch:
        patch.setattr(desk.post, "publish", markers_only)
        answer = client.post(REDRIVE, json={"ids": ["0:0"]})
        assert "try again: without transactions, up to 100" in answer.json()["error"]["message"]
    assert client.post(REDRIVE, json={"ids": ["0:0"]}).json()["redriven"] == 1
    assert [record.value for record in desk.post.sent] == [b'{"id": "r0", "task": "support"}']


def test_a_tenant_puts_back_its_own_only_and_a_reader_none(desk: Desk) -> None:
    answer = desk.client(TENANT).post(REDRIVE, json={"ids": ["0:1"]}).json()
    assert answer == {"redriven": 0, "refused": ["0:1: there is no such letter"]}
    assert desk.client(READER).post(REDRIVE, json={"ids": ["0:1"]}).status_code == 403
    assert desk.post.sent == []


def test_topics_of_the_tasks_sources_take_messages_back() -> None:
    sources = [{"format": "litellm", "topic": "litellm.logs"}]
    tasks = msgspec.convert({"tasks": [{"name": "support", "sources": sources}]}, Tasks).tasks
    post = KafkaPost(ConsoleSettings(topic_prefix="p-"), tasks)
    assert {"p-traces.raw", "litellm.logs"} <= set(post.topics)
    assert post.transactions
    assert not KafkaPost(ConsoleSettings(delivery="at_least_once"), tasks).transactions


def test_on_pages_it_is_asked_once_more(desk: Desk) -> None:
    client = desk.client()
    csrf = csrf_of(client.get("/sign-in").text)
    client.post("/sign-in", data={"token": OPERATOR, "csrf": csrf})
    csrf = csrf_of(client.get("/dead-letters").text)
    asked = client.post("/dead-letters/confirm", data={"ids": ["0:2"], "csrf": csrf})
    assert "Put 1 letter back?" in asked.text
    assert desk.post.sent == []
    form = {"ids": ["0:2"], "csrf": csrf_of(asked.text)}
    assert client.post("/dead-letters/redrive", data=form).status_code == 303
    assert len(desk.post.sent) == 1
    assert "1 put back." in client.get("/dead-letters").text
    assert client.post("/dead-letters/redrive", data={"ids": ["0:1"]}).status_code == 403
    none = client.post("/dead-letters/confirm", data={"csrf": csrf})
    assert none.status_code == 303


def csrf_of(page: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found
    return found[1]


def test_a_broker_that_is_away_is_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise Retryable("no broker")

    monkeypatch.setattr(desk.post, "publisher", away)
    answer = desk.client(OPERATOR).post(REDRIVE, json={"ids": ["0:0"]})
    assert answer.status_code == 409
    assert "no broker; try again" in answer.json()["error"]["message"]


def test_memory_is_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "MAX_BYTES", 10_000)
    put(desk, 4, b"x" * 6_000)
    put(desk, 5, b"y" * 6_000)
    assert ids(desk.client(OPERATOR)) == ["0:5"]
    headers = (("h", b"h" * 9_000),)
    original = Message("requests", 1, 77, b"key", b"headers alone", headers)
    error = InvalidMessage("odd", field="input")
    record = dead_letter(
        original, service="router", error=error, at=desk.clock.now(), topic="dead-letters"
    )
    desk.dead_letters.take(Message("dead-letters", 0, 7, record.key, record.value, record.headers))
    assert ids(desk.client(OPERATOR)) == ["0:7"]
    monkeypatch.setattr(letters, "MAX_BYTES", 100_000)
    monkeypatch.setattr(letters, "MAX_LETTERS", 2)
    for n in range(8, 11):
        put(desk, n, b"z")
    assert ids(desk.client(OPERATOR)) == ["0:10", "0:9"]


def test_the_fleet_says_who_is_behind(desk: Desk) -> None:
    now = desk.clock.now()
    desk.clock.sleep(3)
    common = {"host": "h", "mode": "exactly_once", "started": now, "at": now, "tasks": 1}
    for name, version in (("router-1", desk.versions[1]), ("router-2", desk.versions[0])):
        desk.fleet.beat(RouterBeat(
            instance=name, lag=7, per_second=12.5, versions={"support": version}, **common,  # type: ignore[arg-type]
        ))  # fmt: skip
    view = desk.client(OPERATOR).get("/api/v1/fleet").json()
    assert (view["lag"], view["per_second"]) == (14, 25.0)
    assert [router["behind"] for router in view["routers"]] == [[], ["support"]]
    assert view["routers"][0]["heard_seconds"] == 3
    page = desk.client(OPERATOR).get("/fleet").text
    assert "Behind" in page
    assert "Up to date" in page
    assert desk.client(TENANT).get("/fleet").status_code == 403
    assert 'href="/fleet"' not in desk.client(TENANT).get("/").text


def test_without_routers_it_says_what_to_do() -> None:
    assert "No router runs" in Desk().client(OPERATOR).get("/fleet").text
