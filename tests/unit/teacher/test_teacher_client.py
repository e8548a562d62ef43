"""The client against real HTTP servers: answers, faults, hangs and garbage."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest

from services.ctl.recorded_llm import RecordedLLM
from services.teacher.answers import Answer, CannotAnswer, EndpointRefuses, PassingFault
from services.teacher.client import OpenAITeacher
from shared.clock import FakeClock, SystemClock
from shared.contracts.prompting import prompt_digest, read_answer, system_prompt, user_message
from shared.contracts.tasks import Task

TASK = Task(name="support", labels=("refund", "other"))
KEY = "sk-very-secret-key"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def teacher(base_url: str, key: str = KEY) -> OpenAITeacher:
    return OpenAITeacher(base_url=base_url, api_key=key, model="m", clock=SystemClock())


@dataclass
class Scripted:
    """A server whose answers are (status, headers, body), in turn; the last one for ever.

    `blank_lines`: sent before each body, a tenth of a second apart.
    """

    script: list[tuple[int, dict[str, str], bytes]]
    requests: list[dict[str, Any]] = field(default_factory=list)
    on_request: Callable[[], None] = lambda: None
    blank_lines: int = 0

    def __enter__(self) -> str:
        script, requests, on_request = self.script, self.requests, self.on_request
        blank_lines = self.blank_lines

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                requests.append({"body": body, "at": time.monotonic()})
                on_request()
                self._answer()

            def do_GET(self) -> None:
                self._answer()

            def _answer(self) -> None:
                status, headers, data = script.pop(0) if len(script) > 1 else script[0]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(blank_lines + len(data)))
                self.end_headers()
                with suppress(ConnectionError):  # who asked may not wait for the end
                    for _ in range(blank_lines):
                        self.wfile.write(b"\n")
                        time.sleep(0.1)
                    self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def completion(**message: Any) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()


def asked(status: int, body: bytes, **headers: str) -> Answer:
    with Scripted([(status, headers, body)]) as url:
        return teacher(url)(TASK, "x", timeout=5)


def test_an_answer_with_its_tokens(recorded: Callable[..., RecordedLLM]) -> None:
    ask = teacher(recorded().base_url)
    answer = ask(TASK, "money back", timeout=5)
    assert (answer.label, answer.model) == ("Refund", "m")
    assert answer.tokens is not None
    assert answer.tokens.input > 10
    assert ask(TASK, ["a", "b"], timeout=5).label == "other"
    assert ask(TASK, "never heard", timeout=5).label == "unknown"


def test_what_is_asked() -> None:
    script = Scripted([(200, {}, completion(content="refund"))])
    with script as url:
        teacher(url)(TASK, "hi", timeout=5)
    body = json.loads(script.requests[0]["body"])
    assert body["model"] == "m"
    assert body["temperature"] == 0
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["messages"][1]["content"] == "hi"
    system = body["messages"][0]["content"]
    assert system.startswith(TASK.prompt)
    assert "- refund\n- other" in system
    assert system.endswith("Answer with the label only.")


def test_a_minimal_endpoint_will_do() -> None:
    answer = asked(200, completion(content=" **refund**. "))
    assert answer == Answer("refund", "m", None, words=" **refund**. ")


@pytest.mark.parametrize(
    ("content", "label"),
    [
        ("refund", "refund"),
        (' "Refund." ', "Refund"),
        ("Label: refund\n", "refund"),
        ("<think>maybe other?</think>\n\nrefund", "refund"),
        ("`card_lost`", "card_lost"),
        (" \n", ""),
        ("“other”", "other"),
        ("<think>\nOkay, the user asks", ""),
        ("<think>a</think>b</think>", "b</think>"),
    ],
)
def test_answers_are_read_without_their_wrapping(content: str, label: str) -> None:
    assert read_answer(content) == label


def test_an_answer_in_parts_is_its_text() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "other?"}]}
    parts = [thought, {"type": "text", "text": "ref"}, {"type": "text", "text": "und"}, "x", {}]
    assert asked(200, completion(content=parts)).label == "refund"
    with pytest.raises(CannotAnswer, match="empty"):
        asked(200, completion(content=[thought]))


def test_prompts_without_a_taxonomy_list_nothing() -> None:
    assert "Labels" not in system_prompt(Task(name="free"))
    assert user_message(["one", "two"]) == "Text 1: one\nText 2: two"


@pytest.mark.parametrize(
    "body",
    [
        b"<html>bad gateway</html>", b"", b"{}", b"[]", b"null", b"\xff\xfe",
        b'{"choices": 1}', b'{"choices": [{}]}', b'{"choices": [{"message": {"content": 3}}]}',
    ],
)  # fmt: skip
def test_garbage_with_status_200_is_a_passing_fault(body: bytes) -> None:
    with pytest.raises(PassingFault, match="not a chat completion"):
        asked(200, body)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_passing_faults(status: int) -> None:
    with pytest.raises(PassingFault, match=str(status)):
        asked(status, b"{}")


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_permanent_failures_say_why_without_the_key(status: int) -> None:
    body = b'{"error": {"message": "no good: ' + KEY.encode() + b'", "type": "t"}}'
    with pytest.raises(CannotAnswer) as raised:
        asked(status, body)
    assert str(status) in str(raised.value)
    assert "no good" in str(raised.value)
    assert KEY not in str(raised.value)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"content": None, "refusal": "I will not"}, "I will not"),
        ({"content": ""}, "empty"),
        ({"content": None}, "empty"),
        ({"content": " \n "}, "empty"),
    ],
)
def test_refusals_and_empty_answers_are_permanent(message: dict[str, Any], why: str) -> None:
    with pytest.raises(CannotAnswer, match=why):
        asked(200, completion(**message))
    with pytest.raises(CannotAnswer, match="no choice"):
        asked(200, b'{"choices": []}')


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_nobodys_request(status: int) -> None:
    body = b'{"error": {"message": "Incorrect API key: sk-very***"}}'
    with pytest.raises(EndpointRefuses, match=str(status)) as raised:
        asked(status, body)
    assert "sk-very" not in str(raised.value)
    with Scripted([(status, {}, body)]) as url, pytest.raises(EndpointRefuses):
        teacher(url).probe(timeout=5)


def test_probing(recorded: Callable[..., RecordedLLM]) -> None:
    teacher(recorded().base_url).probe(timeout=5)
    with Scripted([(404, {}, b"{}")]) as url:
        teacher(url).probe(timeout=5)  # there, though it lists no models
    with pytest.raises(PassingFault, match="no connection to"):
        teacher("http://127.0.0.1:1/v1").probe(timeout=1)
    with Scripted([(503, {}, b"{}")]) as url, pytest.raises(PassingFault):
        teacher(url).probe(timeout=5)


def test_hanging_and_unreachable(recorded: Callable[..., RecordedLLM]) -> None:
    ask = teacher(recorded(hang_every=1).base_url)
    began = time.monotonic()
    with pytest.raises(PassingFault, match="no answer within"):
        ask(TASK, "x", timeout=0.3)
    assert time.monotonic() - began < 2
    with pytest.raises(PassingFault, match="no connection"):
        teacher("http://127.0.0.1:1/v1")(TASK, "x", timeout=1)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:20 GMT"}, 20.0),
        ({"retry-after": "Wed, 31 Dec 2025 00:00:00 GMT"}, 0.0),
        ({"retry-after": "when ready"}, None),
        ({"retry-after": "Mon, 01 Jan 2024 00:00:00 +99999999999999"}, None),
        ({"retry-after": "Mon, 01 Jan 2024 00:00:00 +9999"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    with Scripted([(429, headers, b"{}")]) as url:
        ask = OpenAITeacher(base_url=url, api_key=KEY, model="m", clock=FakeClock(NOW))
        with pytest.raises(PassingFault) as raised:
            ask(TASK, "x", timeout=5)
    assert raised.value.retry_after == seconds


def test_the_digest_names_the_prompt_and_the_taxonomy() -> None:
    digest = prompt_digest(TASK)
    assert re.fullmatch("[0-9a-f]{16}", digest)
    assert hashlib.sha256(system_prompt(TASK).encode()).hexdigest().startswith(digest)
    assert prompt_digest(msgspec.structs.replace(TASK, alpha=0.5)) == digest
    for change in ({"prompt": "Classify it."}, {"labels": ("refund", "other", "new")}):
        assert prompt_digest(msgspec.structs.replace(TASK, **change)) != digest
