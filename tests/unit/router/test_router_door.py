"""The door through real HTTP: uvicorn on loopback, the real router, a real small surrogate."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import pytest
from doubles import HashEncoder
from jsonschema import Draft202012Validator
from prometheus_client import REGISTRY
from pydantic import ValidationError
from surrogates import LABELS, text_of

from services.router import door as door_module
from services.router.config import RouterSettings
from services.router.door_service import DoorService
from services.router.handlers import Router, Topics
from services.router.serving import Serving
from services.router.surrogate import load_version
from shared.bus.base import Message, Record
from shared.bus.errors import Fatal, InvalidMessage, Retryable
from shared.clock import SystemClock
from shared.contracts.codec import decode
from shared.contracts.events import Decision, Deferral, Outcome, Reason
from shared.contracts.tasks import Task
from shared.contracts.topics import schemas_folder
from shared.registry.base import Artifact, State

TOKEN = "a-token-of-twenty-six-chars"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSURE = f"{text_of('billing')} {text_of('delivery')}"


class Recorder:
    """Takes what is published; each publish waits for `go` and may fail."""

    def __init__(self) -> None:
        self.batches: list[list[Record]] = []
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.failure: Exception | None = None
        self.closed = False

    @property
    def records(self) -> list[Record]:
        return [record for batch in self.batches for record in batch]

    def publish(self, records: Sequence[Record]) -> None:
        self.entered.set()
        assert self.go.wait(10)
        if self.failure is not None:
            raise self.failure
        self.batches.append(list(records))

    def close(self) -> None:
        self.closed = True


class Bench:
    """A router of the task `support` (and `audited`, all of it audited), its door, a client."""

    def __init__(self, artifact: Artifact, encoder: HashEncoder) -> None:
        version = load_version("v1", artifact, encoder, threads=1)
        self.serving = {name: Serving(version) for name in ("support", "audited")}
        self.publisher = Recorder()
        self.stop = threading.Event()
        self.router = Router(
            tasks={
                "support": Task(name="support", audit_share=0.0),
                "audited": Task(name="audited", audit_share=1.0),
                "other": Task(name="other"),
            },
            serving=lambda: self.serving,
            encoder=encoder,
            clock=SystemClock(),
            topics=Topics(decisions="decisions", deferred="deferred"),
            dead_letter=_never,
        )

    @contextmanager
    def open(self, **settings: object) -> Iterator[httpx.Client]:
        wanted = RouterSettings(**({"door_port": 0} | settings))  # type: ignore[arg-type]
        self.door = DoorService(wanted, self.router, self.publisher, SystemClock())
        self.door.start(self.stop)
        self.url = f"http://127.0.0.1:{self.door.port}"
        try:
            with httpx.Client(base_url=self.url, timeout=20) as client:
                yield client
        finally:
            self.publisher.go.set()
            self.door.close()


def _never(message: Message, error: InvalidMessage) -> Record:
    raise AssertionError(f"the door let through what the router refuses: {error}")


@pytest.fixture
def bench(artifact: Artifact, encoder: HashEncoder) -> Bench:
    return Bench(artifact, encoder)


def ask(text: object, task: str = "support", **more: object) -> dict[str, object]:
    return {"task": task, "input": text, **more}


def classify(client: httpx.Client, body: object, **headers: str) -> httpx.Response:
    return client.post("/v1/classify", json=body, headers=headers)


# --- decisions


def test_a_sure_answer_is_the_decision_that_is_on_the_topic(bench: Bench) -> None:
    body = ask(
        text_of("billing"), id="r1", metadata={"n": [1, 2.5, None]},
        occurred_at="2026-01-05T09:30:00Z",
    )  # fmt: skip
    with bench.open() as client:
        answer = classify(client, body)
    assert answer.status_code == 200
    (record,) = bench.publisher.records
    assert (record.topic, record.key) == ("decisions", b"r1")
    assert answer.content == record.value
    decision = decode(record.value, Decision)
    assert (decision.outcome, decision.label) == (Outcome.HANDLED, "billing")
    assert (decision.version, decision.metadata) == ("v1", body["metadata"])
    assert decision.occurred_at == datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
    assert decision.timings["queued_ms"] < 5_000


def test_an_unsure_one_is_told_so_and_waits_for_the_teacher(bench: Bench) -> None:
    with bench.open() as client:
        answer = classify(client, ask(UNSURE, id="r2", metadata={"k": "v"}))
    assert answer.status_code == 200
    decision = decode(answer.content, Decision)
    assert (decision.request_id, decision.outcome) == ("r2", Outcome.DEFERRED)
    assert (decision.reason, decision.label) == (Reason.BELOW_THRESHOLD, None)
    assert (decision.version, decision.metadata) == ("v1", {"k": "v"})
    (record,) = bench.publisher.records
    assert (record.topic, record.key) == ("deferred", b"r2")
    deferral = decode(record.value, Deferral)
    assert deferral.request.input == UNSURE
    assert (decision.accept_score, decision.threshold) == (
        deferral.accept_score, deferral.threshold,
    )  # fmt: skip
    assert decision.decided_at == deferral.deferred_at


def test_an_audited_one_is_answered_and_goes_to_the_teacher_too(bench: Bench) -> None:
    with bench.open() as client:
        answer = classify(client, ask(text_of("account"), task="audited"))
    decision = decode(answer.content, Decision)
    assert (decision.outcome, decision.label) == (Outcome.AUDITED, "account")
    assert [record.topic for record in bench.publisher.records] == ["decisions", "deferred"]
    deferral = decode(bench.publisher.records[1].value, Deferral)
    assert deferral.request.id == decision.request_id
    assert re.fullmatch("[0-9a-f]{32}", decision.request_id)  # it was made


def test_a_batch_is_answered_in_its_order_with_what_is_wrong_in_place(bench: Bench) -> None:
    asked = [
        ask(text_of("delivery"), id="a"), ask("", id="b"), ask(UNSURE, id="c"),
        ask("x", task="unheard-of"), ask("who knows", task="other", id="e"), 7,
        ask(text_of("account"), id="f"),
    ]  # fmt: skip
    with bench.open() as client:
        answer = classify(client, {"requests": asked})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [r.get("request_id") for r in results] == ["a", None, "c", None, "e", None, "f"]
    assert [r.get("label") for r in results if "error" not in r] == [
        "delivery", None, None, "account",
    ]  # fmt: skip
    assert results[4]["reason"] == "no_active_version"
    errors = [results[i]["error"] for i in (1, 3, 5)]
    assert [error.get("field") for error in errors] == ["input", "task", None]
    assert "known: audited, other, support" in errors[1]["message"]
    assert all(error["fix"].startswith("send") for error in errors)
    assert [record.key for record in bench.publisher.records] == [b"a", b"c", b"e", b"f"]


def test_a_request_sent_again_is_decided_in_the_same_way(bench: Bench) -> None:
    bench.router = Router(
        **{**vars(bench.router), "tasks": {"support": Task(name="support", audit_share=0.5)}}
    )
    asked = {"requests": [ask(text_of(LABELS[i % 3]), id=f"r{i}") for i in range(60)]}
    with bench.open() as client:
        first, second = (classify(client, asked).json()["results"] for _ in range(2))
    assert [r["outcome"] for r in first] == [r["outcome"] for r in second]
    assert {r["outcome"] for r in first} == {"handled", "audited"}


def test_the_trace_context_goes_into_the_records(bench: Bench) -> None:
    with bench.open() as client:
        classify(client, ask(UNSURE), traceparent=TRACEPARENT, tracestate="a=1")
        classify(client, ask(UNSURE), traceparent="00-nonsense", tracestate="a=1")
    first, second = bench.publisher.records
    assert first.headers == (("traceparent", TRACEPARENT.encode()), ("tracestate", b"a=1"))
    assert second.headers == ()


def test_a_paused_task_is_deferred_with_that_reason(bench: Bench) -> None:
    bench.serving = {"support": Serving(bench.serving["support"].version, State.PAUSED)}
    with bench.open() as client:
        answer = classify(client, ask(text_of("billing")))
    assert answer.json()["reason"] == "paused"
    assert "label" not in answer.json()


def clumsy(text: str) -> str:
    if "clumsy" in text:
        raise IndexError(text)
    return text


def test_a_text_on_which_a_redactor_fails_is_its_callers_problem_and_nobody_elses(
    bench: Bench,
) -> None:
    tasks = {"support": Task(name="support", redact=f"{__name__}:clumsy", audit_share=0.0)}
    bench.router = Router(**{**vars(bench.router), "tasks": tasks})
    bad = ask("a clumsy secret", id="bad")
    with bench.open() as client, ThreadPoolExecutor(3) as pool:
        bench.publisher.go.clear()
        first = pool.submit(classify, client, ask(text_of("billing"), id="first"))
        assert bench.publisher.entered.wait(10)
        alone = pool.submit(classify, client, bad)
        several = pool.submit(
            classify, client, {"requests": [ask(UNSURE, id="a"), bad, ask("", id="b")]}
        )
        until(lambda: bench.door._batcher._queued == 3)
        bench.publisher.go.set()  # the two are one batch
        assert [first.result(20).status_code, several.result(20).status_code] == [200, 200]
        assert alone.result(20).status_code == 422
    error = alone.result().json()["error"]
    assert error["field"] == "input"
    assert error["message"].startswith("the redactor")
    assert "secret" not in error["message"]
    results = several.result().json()["results"]
    assert [each.get("request_id") for each in results] == ["a", None, None]
    assert results[1] == {"error": error}
    assert [record.key for record in bench.publisher.records] == [b"first", b"a"]


# --- together


def test_concurrent_calls_are_worked_together(bench: Bench) -> None:
    with bench.open() as client, ThreadPoolExecutor(24) as pool:
        bench.publisher.go.clear()
        first = pool.submit(classify, client, ask(text_of("billing"), id="first"))
        assert bench.publisher.entered.wait(10)
        calls = [
            pool.submit(classify, client, ask(text_of(LABELS[i % 3]), id=f"r{i}"))
            for i in range(20)
        ]
        until(lambda: bench.door._batcher._queued == 20)
        bench.publisher.go.set()
        answers = [call.result(20) for call in [first, *calls]]
    assert {answer.status_code for answer in answers} == {200}
    assert [answer.json()["request_id"] for answer in answers[1:]] == [f"r{i}" for i in range(20)]
    assert [answer.json()["label"] for answer in answers[1:]] == [
        LABELS[i % 3] for i in range(20)
    ]  # fmt: skip
    assert [len(batch) for batch in bench.publisher.batches] == [1, 20]


def test_an_answer_does_not_wait_for_acknowledgements(bench: Bench) -> None:
    """With Nagle's algorithm every one of them takes 40 ms more."""
    took = []
    with bench.open() as client:
        for _ in range(60):
            started = time.perf_counter()
            classify(client, ask(text_of("billing")))
            took.append(time.perf_counter() - started)
    assert min(took[30:]) < 0.03  # the first ones are acknowledged at once


def test_the_door_and_the_pipe_may_ask_the_router_at_the_same_time(
    bench: Bench, artifact: Artifact, encoder: HashEncoder
) -> None:
    """Each answer is as it is alone, with the version swapped meanwhile."""
    asked = [text_of(LABELS[i % 3]) if i % 4 else f"{UNSURE} {i}" for i in range(60)]
    messages = [
        Message("requests", 0, i, b"k", json.dumps(ask(text, id=f"p{i}")).encode())
        for i, text in enumerate(asked)
    ]
    versions = [load_version(name, artifact, encoder, threads=1) for name in ("v1", "v2")]

    def told(value: bytes) -> tuple[object, ...]:
        event = json.loads(value)
        return event["reason"], event.get("label"), event["accept_score"], event["threshold"]

    alone = [told(record.value) for record in bench.router(messages)]
    done = threading.Event()
    piped: list[list[tuple[object, ...]]] = []

    def pipe() -> None:
        while not done.is_set():
            piped.append([told(record.value) for record in bench.router(messages)])
            bench.serving = {"support": Serving(versions[len(piped) % 2])}

    thread = threading.Thread(target=pipe)
    with bench.open() as client:
        thread.start()
        body = {"requests": [ask(text, id=f"p{i}") for i, text in enumerate(asked)]}
        for _ in range(20):
            results = classify(client, body).json()["results"]
            told_here = [told(json.dumps(result).encode()) for result in results]
            assert told_here == alone
            assert len({result["version"] for result in results}) == 1
        done.set()
        thread.join(10)
    assert len(piped) > 5
    assert all(answers == alone for answers in piped)


# --- bounds


def test_when_too_much_waits_the_answer_is_503_and_later_200(bench: Bench) -> None:
    with bench.open(door_max_queued=256) as client, ThreadPoolExecutor(4) as pool:
        bench.publisher.go.clear()
        first = pool.submit(classify, client, ask(text_of("billing")))
        assert bench.publisher.entered.wait(10)
        many = {"requests": [ask(text_of("billing"))] * 256}
        second = pool.submit(classify, client, many)
        until(lambda: bench.door._batcher._queued == 256)
        refused = classify(client, ask(text_of("billing"), id="late"))
        bench.publisher.go.set()
        assert [first.result(20).status_code, second.result(20).status_code] == [200, 200]
        assert classify(client, ask(text_of("billing"), id="late")).status_code == 200
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "1"
    assert refused.json() == {
        "error": {
            "message": "too many requests are waiting",
            "fix": "send it again after the seconds in Retry-After, with the same ids",
        },
        "request_ids": ["late"],
    }
    assert [record.key for record in bench.publisher.records].count(b"late") == 1


def test_without_the_broker_it_is_503_with_the_ids_to_send_again(bench: Bench) -> None:
    bench.publisher.failure = Retryable("broker away")
    with bench.open() as client:
        answer = classify(client, ask(text_of("billing")))
        (made,) = answer.json()["request_ids"]
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert "broker away" in answer.json()["error"]["message"]
        assert bench.publisher.records == []
        bench.publisher.failure = None
        again = classify(client, ask(text_of("billing"), id=made))
    assert again.json()["request_id"] == made
    assert [record.key for record in bench.publisher.records] == [made.encode()]
    assert not bench.stop.is_set()


def test_a_call_waits_no_longer_than_its_time(bench: Bench) -> None:
    with bench.open(door_timeout=0.5) as client, ThreadPoolExecutor(2) as pool:
        bench.publisher.go.clear()
        started = time.monotonic()
        first = pool.submit(classify, client, ask(text_of("billing"), id="in-work"))
        assert bench.publisher.entered.wait(10)
        queued = classify(client, ask(text_of("billing"), id="queued"))
        assert 0.4 < time.monotonic() - started < 5
        assert [queued.status_code, first.result(20).status_code] == [503, 503]
        assert bench.door._batcher._queued == 0
        bench.publisher.go.set()
        assert classify(client, ask(text_of("billing"), id="next")).status_code == 200
    # What was in work may still be published; what only waited is not.
    assert [record.key for record in bench.publisher.records] == [b"in-work", b"next"]


def test_a_publisher_that_can_never_publish_stops_the_router(bench: Bench) -> None:
    bench.publisher.failure = Fatal("not authorised")
    with bench.open() as client:
        assert classify(client, ask(text_of("billing"))).status_code == 503
        assert bench.stop.wait(5)
    assert bench.door.failure is bench.publisher.failure


def test_a_bug_is_500_for_its_batch_and_the_door_goes_on(bench: Bench) -> None:
    bench.publisher.failure = ZeroDivisionError("a bug")
    with bench.open() as client:
        answer = classify(client, ask(text_of("billing"), id="x"))
        assert (answer.status_code, answer.json()["request_ids"]) == (500, ["x"])
        assert "a bug" not in answer.text
        bench.publisher.failure = None
        assert classify(client, ask(text_of("billing"))).status_code == 200


def test_a_body_too_large_is_refused_before_it_is_read(bench: Bench) -> None:
    with bench.open(), socket.create_connection(("127.0.0.1", bench.door.port), 10) as raw:
        raw.sendall(
            b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 4194305\r\n\r\n"
        )
        assert raw.recv(65536).startswith(b"HTTP/1.1 413 ")  # though nothing of it was sent


def test_a_body_without_a_length_is_bounded_too(bench: Bench) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(65):  # the last one is too many
            yield b" " * 65536

    with bench.open() as client:
        answer = client.post(
            "/v1/classify", content=chunks(), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 413
        assert bench.publisher.records == []
        assert classify(client, ask(text_of("billing"))).status_code == 200


def test_all_bodies_together_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "MAX_HELD_BYTES", 5_000)
    with bench.open() as client, ThreadPoolExecutor(2) as pool:
        bench.publisher.go.clear()
        first = pool.submit(classify, client, ask("x" * 3_000))
        assert bench.publisher.entered.wait(10)
        assert classify(client, ask("x" * 3_000)).status_code == 503
        bench.publisher.go.set()
        assert first.result(20).status_code == 200
        assert classify(client, ask("x" * 3_000)).status_code == 200


def test_a_body_that_does_not_come_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "BODY_SECONDS", 0.2)
    with bench.open(), socket.create_connection(("127.0.0.1", bench.door.port), 10) as raw:
        raw.sendall(
            b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Content-Length: 100\r\n\r\n{"task"'
        )
        assert raw.recv(65536).startswith(b"HTTP/1.1 408 ")


# --- what cannot be used


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None), (b"{", None), (b"\xff\xfe", None), (b"7", None), (b"[]", None),
        (b"[" * 5_000, None), (b'{"a":' * 5_000, None),
        (b"{}", "task"),
        (b'{"task":"support"}', "input"),
        (b'{"task":"support","input":7}', "input"),
        (b'{"task":"support","input":["one"]}', "input"),
        (b'{"task":"Support","input":"x"}', "task"),
        (b'{"task":"support","input":"x","id":""}', "id"),
        (b'{"task":"support","input":"x","v":2}', "v"),
        (b'{"task":"support","input":"x","occurred_at":"2026-01-05T09:30:00"}', "occurred_at"),
        (b'{"task":"support","input":"x","metadata":[1]}', "metadata"),
        (b'{"task":"support","input":"\\ud800"}', None),
        (b'{"task":"support","input":"' + b"x" * 32_769 + b'"}', "input"),
        (b'{"requests":[]}', "requests"), (b'{"requests":7}', "requests"),
        (b'{"requests":null}', "requests"),
        (json.dumps({"requests": [ask("x")] * 257}).encode(), "requests"),
        # 500 kB that take 1.9 MB when they are written again
        (b'{"task":"support","input":"x","metadata":{"n":[%s]}}' % b",".join([b"1e15"] * 100_000),
         None),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told_with_field_and_fix(
    bench: Bench, body: bytes, field: str | None
) -> None:
    with bench.open() as client:
        answer = client.post(
            "/v1/classify", content=body, headers={"Content-Type": "application/json"}
        )
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error.get("field") == field
    assert error["message"]
    assert error["fix"].startswith("send")
    assert bench.publisher.records == []


def test_other_paths_methods_and_types(bench: Bench) -> None:
    with bench.open() as client:
        answers = [
            client.get("/v1/classify"),
            client.post("/v1/other", json={}),
            client.post("/v1/classify", content=b"{}", headers={"Content-Type": "text/plain"}),
        ]
    assert [answer.status_code for answer in answers] == [405, 404, 415]
    for answer in answers:
        assert answer.json()["error"]["fix"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "server" not in answer.headers


# --- who may call


def test_with_a_token_only_who_shows_it_is_answered(bench: Bench) -> None:
    body = ask(text_of("billing"))
    with bench.open(door_token=TOKEN) as client:
        for shown in ("", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", "Bearer ü", "Bearer"):
            answer = client.post(
                "/v1/classify", json=body, headers={"Authorization": shown.encode()}
            )
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert client.get("/openapi.json").status_code == 401
        assert bench.publisher.records == []
        authorised = {"Authorization": f"Bearer {TOKEN}", "Host": "router.example"}
        assert classify(client, body, **authorised).status_code == 200


def test_a_tenants_token_is_good_for_its_tasks_and_others_do_not_exist_for_it(bench: Bench) -> None:
    tokens = json.dumps([{"name": "acme", "token": TOKEN, "tasks": ["audited"]}])
    with bench.open(door_tokens=tokens) as client:
        shown = {"Authorization": f"Bearer {TOKEN}"}
        asked = [ask("x", task=task) for task in ("support", "unheard-of", "audited")]
        results = classify(client, {"requests": asked}, **shown).json()["results"]
        alone = classify(client, asked[0], **shown)
    messages = [each["error"]["message"] for each in results[:2]]
    assert messages == [f"unknown task {t!r}; known: audited" for t in ("support", "unheard-of")]
    assert "error" not in results[2]
    assert alone.status_code == 422
    assert "support" not in alone.json()["error"]["message"].partition("known:")[2]
    assert {record.topic for record in bench.publisher.records} <= {"deferred", "decisions"}
    assert b"support" not in b"".join(record.value for record in bench.publisher.records)


def test_a_token_for_a_task_that_is_not_there_learns_nothing_of_others(bench: Bench) -> None:
    tokens = json.dumps([{"name": "acme", "token": TOKEN, "tasks": ["to-come"]}])
    with bench.open(door_tokens=tokens) as client:
        answer = classify(client, ask("x", task="to-come"), Authorization=f"Bearer {TOKEN}")
    assert answer.status_code == 422
    assert answer.json()["error"]["message"] == "unknown task 'to-come'; known: to-come"


def test_calls_beyond_a_tokens_rate_are_told_to_wait(bench: Bench) -> None:
    with bench.open(door_token=TOKEN, door_rate=0.001) as client:
        shown = {"Authorization": f"Bearer {TOKEN}"}
        assert classify(client, ask(text_of("billing")), **shown).status_code == 200
        answer = classify(client, ask(text_of("billing")), **shown)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 1


def test_without_a_token_a_page_that_leads_a_name_of_its_own_here_is_refused(bench: Bench) -> None:
    with bench.open() as client:
        answer = classify(client, ask(text_of("billing")), Host="evil.example:8010")
        assert answer.status_code == 403
        for name in ("localhost:8010", "LOCALHOST", "127.0.0.1:1", "[::1]:8010", "[::1]"):
            assert classify(client, ask(text_of("billing")), Host=name).status_code == 200


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"door_host": "0.0.0.0"}, "TRACER_DOOR_TOKEN"),
        ({"door_host": "::"}, "TRACER_DOOR_TOKEN"),
        ({"door_host": "router-1", "door_token": ""}, "TRACER_DOOR_TOKEN"),
        ({"door_token": "short"}, "less than 16 characters"),
        ({"door_max_queued": 255}, "256"),
    ],
)
def test_settings_that_would_let_anybody_in_are_refused(
    settings: dict[str, object], says: str
) -> None:
    with pytest.raises(ValidationError, match=says) as refused:
        RouterSettings(**settings, redis_url="redis://:hunter2@redis")  # type: ignore[arg-type]
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"door_host": "0.0.0.0", "door_token": TOKEN},
        {"door_host": "0.0.0.0", "door_port": 0},
        {"door_host": "0.0.0.0", "door_port": None},
        {"door_host": "::1"},
        {"door_host": "localhost"},
        {},
    ],
)
def test_settings_that_are_safe(settings: dict[str, object]) -> None:
    made = RouterSettings(**settings)  # type: ignore[arg-type]
    assert TOKEN not in str(made.describe())


def test_a_port_in_use_is_fatal_and_says_what_to_do(bench: Bench) -> None:
    with bench.open():
        taken = RouterSettings(door_port=bench.door.port)
        with pytest.raises(Fatal, match="TRACER_DOOR_PORT"):
            DoorService(taken, bench.router, Recorder(), SystemClock())


# --- its life


def test_closing_finishes_the_call_in_work(bench: Bench) -> None:
    with bench.open() as client, ThreadPoolExecutor(2) as pool:
        bench.publisher.go.clear()
        call = pool.submit(classify, client, ask(text_of("billing"), id="last"))
        assert bench.publisher.entered.wait(10)
        closing = pool.submit(bench.door.close)
        time.sleep(0.3)
        bench.publisher.go.set()
        assert call.result(20).json()["request_id"] == "last"
        closing.result(20)
        assert bench.publisher.closed
        with pytest.raises(httpx.TransportError):
            classify(client, ask(text_of("billing")))


def test_a_door_stuck_at_a_batch_is_not_alive(bench: Bench) -> None:
    with bench.open(stall_seconds=0.2, door_timeout=0.5) as client:
        assert bench.door.stuck() is None
        bench.publisher.go.clear()
        assert classify(client, ask(text_of("billing"))).status_code == 503
        assert "one batch" in str(bench.door.stuck())
        bench.publisher.go.set()
        until(lambda: bench.door.stuck() is None)


def test_calls_are_counted_by_status(bench: Bench) -> None:
    def counted(status: str) -> float:
        return REGISTRY.get_sample_value("tracer_door_calls_total", {"status": status}) or 0.0

    before = {status: counted(status) for status in ("200", "422")}
    timed = REGISTRY.get_sample_value("tracer_door_call_seconds_count") or 0.0
    with bench.open() as client:
        classify(client, ask(text_of("billing")))
        classify(client, {})
        classify(client, ask(text_of("billing")))
    assert {status: counted(status) - n for status, n in before.items()} == {"200": 2, "422": 1}
    assert (REGISTRY.get_sample_value("tracer_door_call_seconds_count") or 0.0) - timed == 3


# --- its description


def test_the_openapi_document_describes_what_is_answered(bench: Bench) -> None:
    with bench.open() as client:
        document = client.get("/openapi.json").json()
        sure = classify(client, ask(text_of("billing"), id="a")).json()
        unsure = classify(client, ask(UNSURE)).json()
        batch = classify(client, {"requests": [ask("x"), ask("")]}).json()
        wrong = classify(client, {}).json()
    assert document["openapi"] == "3.1.0"

    def valid(name: str, instance: object) -> bool:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        return Draft202012Validator(schema).is_valid(instance)

    assert valid("Decision", sure)
    assert valid("Decision", unsure)
    assert valid("Results", batch)
    assert not valid("Decision", batch)
    assert valid("Refused", wrong)
    assert not valid("Refused", sure)
    assert valid("Request", ask("x"))
    assert not valid("Request", {"task": "support"})
    assert valid("Batch", {"requests": [ask("x")]})
    text = json.dumps(document)
    for name in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert name in document["components"]["schemas"]
    assert "$defs" not in text
    # The events' own schemas are as they were.
    folder = schemas_folder() / "events"
    assert "id" in json.loads((folder / "request.v1.schema.json").read_text())["required"]


def until(done: object) -> None:
    end = time.monotonic() + 10
    while not done():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)
