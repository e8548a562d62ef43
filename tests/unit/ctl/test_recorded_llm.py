"""The recorded LLM speaks enough of the OpenAI API for real clients."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openai import APITimeoutError, AuthenticationError, InternalServerError, OpenAI, RateLimitError

from services.ctl.embedded.processes import Child
from services.ctl.recorded_llm import Behaviour, RecordedLLM, load_answers
from shared.contracts.prompting import system_prompt, user_message
from shared.contracts.tasks import Task

ROWS = [
    {"input": "where is my parcel", "teacher": "delivery_status", "label": "ignored"},
    {"input": ["a premise", "a hypothesis"], "teacher": "neutral"},
    {"premise": "it rains", "hypothesis": "it is wet", "label": "entailment"},
    {"input": "where is my parcel", "teacher": "the first answer counts"},
]
Serve = Callable[..., tuple[RecordedLLM, OpenAI]]


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    return path


@pytest.fixture
def serve(answers: Path) -> Iterator[Serve]:
    """serve(**behaviour) gives the server and a client of it without retries."""
    started: list[RecordedLLM] = []

    def make(**behaviour: Any) -> tuple[RecordedLLM, OpenAI]:
        llm = RecordedLLM(load_answers(answers), behaviour=Behaviour(**behaviour))
        started.append(llm)
        return llm, OpenAI(base_url=llm.base_url, api_key="k", max_retries=0, timeout=5)

    yield make
    for llm in started:
        llm.close()


def ask(client: OpenAI, text: str | list[str], **options: Any) -> Any:
    task = Task(name="support", labels=("delivery_status", "other"))
    return client.chat.completions.create(
        model="any",
        messages=[
            {"role": "system", "content": system_prompt(task)},
            {"role": "user", "content": user_message(text)},
        ],
        **options,
    )


def test_answers_by_the_last_user_message(serve: Serve) -> None:
    _, client = serve()
    assert ask(client, "where is my parcel").choices[0].message.content == "delivery_status"
    assert ask(client, ["a premise", "a hypothesis"]).choices[0].message.content == "neutral"
    assert ask(client, ["it rains", "it is wet"]).choices[0].message.content == "entailment"
    assert ask(client, "never recorded").choices[0].message.content == "unknown"


def test_a_completion_is_complete(serve: Serve) -> None:
    _, client = serve()
    completion = ask(client, "where is my parcel")
    assert completion.object == "chat.completion"
    assert completion.model == "any"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.prompt_tokens > 10
    assert completion.usage.completion_tokens >= 1
    usage = completion.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_models_and_the_key(serve: Serve) -> None:
    _, client = serve(api_key="k")
    assert [model.id for model in client.models.list()] == ["recorded"]
    with pytest.raises(AuthenticationError):
        client.with_options(api_key="wrong").models.list()


def test_faults_on_demand(serve: Serve) -> None:
    llm, client = serve(fail_every=2, fail_status=429)
    ask(client, "x")
    with pytest.raises(RateLimitError) as raised:
        ask(client, "x")
    assert raised.value.response.headers["retry-after"] == "1"
    assert llm.calls == 2
    _, client = serve(fail_every=1)
    with pytest.raises(InternalServerError):
        ask(client, "x")
    _, client = serve(hang_every=1)
    with pytest.raises(APITimeoutError):
        ask(client, "x", timeout=0.3)


def test_errors_are_worded_as_the_api_does(serve: Serve) -> None:
    llm, _ = serve()
    connection = http.client.HTTPConnection("127.0.0.1", llm.port, timeout=5)
    for method, path, body, status in [
        ("POST", "/v1/chat/completions", "no JSON", 400),
        ("POST", "/v1/chat/completions", "{}", 400),
        ("POST", "/v1/chat/completions", '{"messages": []}', 400),
        ("POST", "/v1/chat/completions", '{"messages": [{"role": "user", "content": "x"}], '
         '"stream": true}', 400),
        ("POST", "/v1/nothing", "{}", 404),
        ("GET", "/", None, 404),
    ]:  # fmt: skip
        connection.request(method, path, body)  # one connection: it is kept alive
        answer = connection.getresponse()
        error = json.loads(answer.read())["error"]
        assert answer.status == status, path
        assert set(error) == {"message", "type", "param", "code"}
    connection.close()


def test_many_clients_at_once(serve: Serve) -> None:
    llm, client = serve(latency_seconds=0.05)
    with ThreadPoolExecutor(40) as threads:
        asked = ["where is my parcel"] * 80
        found = list(threads.map(lambda text: ask(client, text).choices[0].message.content, asked))
    assert found == ["delivery_status"] * 80
    assert llm.calls == 80


@pytest.mark.parametrize(
    "line", ["no JSON", "{}", '{"input": "x"}', '{"input": ["x"], "label": "y"}']
)
def test_a_bad_recording_is_refused_naming_the_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"input": "x", "label": "y"}\n' + line)
    with pytest.raises(ValueError, match=r"bad\.jsonl:2: "):
        load_answers(path)


def test_as_a_process_with_a_port_file(answers: Path, tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    child = Child(
        "llm",
        [
            sys.executable, "-m", "services.ctl.recorded_llm", "--answers", str(answers),
            "--port", "0", "--port-file", str(port_file), "--latency-ms", "1",
        ],
        log=tmp_path / "llm.log",
    )  # fmt: skip
    child.start()
    try:
        child.wait_until(port_file.exists, 20)
        base_url = f"http://127.0.0.1:{port_file.read_text()}/v1"
        client = OpenAI(base_url=base_url, api_key="k", max_retries=0)
        assert ask(client, "where is my parcel").choices[0].message.content == "delivery_status"
        assert "3 recorded answers" in child.tail()
    finally:
        child.terminate()
