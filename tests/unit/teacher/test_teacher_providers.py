"""Laws every provider's client keeps, over real HTTP; and which task asks whom."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_teacher_client import KEY, Scripted

from services.ctl.recorded_llm import RecordedLLM
from services.teacher.answers import (
    Answer,
    CannotAnswer,
    EndpointRefuses,
    PassingFault,
    Teaches,
    Used,
)
from services.teacher.anthropic_client import AnthropicTeacher
from services.teacher.client import OpenAITeacher
from services.teacher.config import TeacherSettings
from services.teacher.providers import teachers
from shared.bus.errors import Fatal
from shared.clock import Clock, FakeClock, SystemClock
from shared.contracts.events import Tokens
from shared.contracts.prompting import prompt_digest, system_prompt
from shared.contracts.tasks import InvalidTasks, Task, load_tasks
from shared.contracts.teaching import Provider, TeacherEndpoint

LABELS = ("Refund", "other")
WORDS = Task(name="support", labels=LABELS)
STRUCTURED = Task(name="support", labels=LABELS, teacher=TeacherEndpoint(model="m"))
PROVIDERS = list(Provider)


def client(provider: Provider, origin: str, key: str = KEY, clock: Clock | None = None) -> Teaches:
    """`origin`: the server's address without a path."""
    clock = clock or SystemClock()
    match provider:
        case Provider.OPENAI:
            return OpenAITeacher(base_url=f"{origin}/v1", api_key=key, model="m", clock=clock)
        case Provider.AZURE:
            return OpenAITeacher(
                base_url=origin, api_key=key, model="m", clock=clock, azure_version="2024-10-21"
            )
        case Provider.ANTHROPIC:
            return AnthropicTeacher(base_url=origin, api_key=key, model="m", clock=clock)


def origin_of(llm: RecordedLLM) -> str:
    return llm.base_url.removesuffix("/v1")


def answered(provider: Provider, text: str, ended: str = "") -> dict[str, Any]:
    """An answer in words, as each provider frames it; `ended`: why, in the provider's word."""
    if provider is Provider.ANTHROPIC:
        blocks = [{"type": "text", "text": text}]
        usage = {"input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 2}
        return {"content": blocks, "stop_reason": ended or "end_turn", "usage": usage}
    message = {"content": text}
    return {"choices": [{"message": message, "finish_reason": ended or "stop"}]}


def asked(provider: Provider, status: int, body: bytes, **headers: str) -> Answer:
    with Scripted([(status, headers, body)]) as url:
        return client(provider, url.removesuffix("/v1"))(WORDS, "x", timeout=5)


@pytest.mark.parametrize("task", [WORDS, STRUCTURED], ids=["words", "structured"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_answer_with_its_tokens(
    recorded: Callable[..., RecordedLLM], provider: Provider, task: Task
) -> None:
    llm = recorded(api_key=KEY)
    ask = client(provider, origin_of(llm))
    ask.probe(timeout=5)
    answer = ask(task, "money back", timeout=5)
    assert (answer.label, answer.model) == ("Refund", "m")
    assert answer.tokens is not None
    assert answer.tokens.input > len(system_prompt(task)) // 5
    ask.close()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_endpoint_without_schemas_is_asked_in_words_from_then_on(
    recorded: Callable[..., RecordedLLM], provider: Provider
) -> None:
    llm = recorded(structured=False)
    ask = client(provider, origin_of(llm))
    assert ask(STRUCTURED, "money back", timeout=5).label == "Refund"
    assert llm.calls == 2
    assert ask(STRUCTURED, "money back", timeout=5).label == "Refund"
    assert llm.calls == 3


def refused(parameter: str | None) -> tuple[int, dict[str, str], bytes]:
    said = {"message": "Unsupported value", "param": parameter, "code": "unsupported_value"}
    return 400, {}, json.dumps({"error": said}).encode()


@pytest.mark.parametrize("task", [WORDS, STRUCTURED], ids=["words", "structured"])
def test_what_a_reasoning_model_refuses_is_left_out_from_then_on(task: Task) -> None:
    good = (200, {}, json.dumps(answered(Provider.OPENAI, "Refund")).encode())
    server = Scripted([refused("temperature"), refused("max_tokens"), good, good])
    with server as url:
        ask = OpenAITeacher(
            base_url=url, api_key=KEY, model="gpt-5-mini", clock=SystemClock(), max_tokens=9
        )
        assert [ask(task, "x", timeout=5).label for _ in range(2)] == ["Refund", "Refund"]
    sent = [json.loads(request["body"]) for request in server.requests]
    names = ("temperature", "max_tokens", "max_completion_tokens")
    assert [{name: body[name] for name in names if name in body} for body in sent] == [
        {"temperature": 0.0, "max_tokens": 9},
        {"max_tokens": 9},
        {"max_completion_tokens": 9},
        {"max_completion_tokens": 9},
    ]
    asked_by_schema = ["response_format" in body for body in sent]
    assert asked_by_schema == [task is STRUCTURED] * 4, "and nothing else is given up for it"


@pytest.mark.parametrize("parameter", ["messages", "top_p", None])
def test_a_refused_parameter_that_is_not_ours_is_said(parameter: str | None) -> None:
    with (
        Scripted([refused(parameter)]) as url,
        pytest.raises(CannotAnswer, match="Unsupported value"),
    ):
        client(Provider.OPENAI, url.removesuffix("/v1"))(WORDS, "x", timeout=5)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_http_call_of_a_question_is_counted(provider: Provider) -> None:
    bad = (400, {}, b'{"error": {"message": "no"}}')
    good = (200, {}, json.dumps(answered(provider, "Refund")).encode())
    with Scripted([bad, good]) as url:
        ask = client(provider, url.removesuffix("/v1"))
        assert [ask(STRUCTURED, "x", timeout=5).calls for _ in range(2)] == [2, 1]
    for last, fault, used in [
        (bad, CannotAnswer, Used(calls=2)),
        ((503, {}, b"{}"), PassingFault, Used(calls=1)),
        ((504, {}, b"{}"), PassingFault, Used(calls=2, charged=True)),
        ((200, {}, b"<html>"), PassingFault, Used(calls=2, charged=True)),
    ]:
        with Scripted([bad, last]) as url, pytest.raises(fault) as caught:
            client(provider, url.removesuffix("/v1"))(STRUCTURED, "x", timeout=5)
        assert getattr(caught.value, "used") == used  # noqa: B009


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_question_refused_for_how_it_was_asked_has_the_time_of_one_call(
    provider: Provider,
) -> None:
    clock = FakeClock()
    with (
        Scripted([(400, {}, b"{}")], on_request=lambda: clock.sleep(6)) as url,
        pytest.raises(PassingFault, match="no time left") as caught,
    ):
        client(provider, url.removesuffix("/v1"), clock=clock)(STRUCTURED, "x", timeout=5)
    assert caught.value.used == Used(calls=1)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_tokens_are_known_of_an_answer_that_is_none(provider: Provider) -> None:
    filtered = "refusal" if provider is Provider.ANTHROPIC else "content_filter"
    usage = {"prompt_tokens": 12, "completion_tokens": 2}
    for text, ended in [(" ", ""), ("x", filtered)]:
        body = {"usage": usage} | answered(provider, text, ended)
        with pytest.raises(CannotAnswer) as caught:
            asked(provider, 200, json.dumps(body).encode())
        assert caught.value.used == Used(1, True, Tokens(input=12, output=2))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_structured_request_names_every_label(provider: Provider) -> None:
    server = Scripted([(200, {}, json.dumps(answered(provider, "Refund")).encode())])
    with server as url:
        answer = client(provider, url.removesuffix("/v1"))(STRUCTURED, "x", timeout=5)
    assert answer.label == "Refund", "words are read where they come all the same"
    sent = json.loads(server.requests[0]["body"])
    if provider is Provider.ANTHROPIC:
        schema = sent["tools"][0]["input_schema"]
        assert sent["tool_choice"] == {"type": "tool", "name": "answer"}
    else:
        schema = sent["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["label"]["enum"] == list(LABELS)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_what_passes_is_a_passing_fault(provider: Provider, status: int) -> None:
    with pytest.raises(PassingFault, match=str(status)) as caught:
        asked(provider, status, b"{}", **{"Retry-After": "7"})
    assert caught.value.retry_after == 7.0


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_said_without_the_key(provider: Provider, status: int) -> None:
    with pytest.raises(EndpointRefuses) as caught:
        asked(provider, status, json.dumps({"error": {"message": f"bad {KEY}"}}).encode())
    assert KEY not in str(caught.value)
    assert str(status) in str(caught.value)


@pytest.mark.parametrize("task", [WORDS, STRUCTURED], ids=["words", "structured"])
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("status", "words"),
    [(402, "Insufficient credits"), (400, "Your credit balance is too low to access the API.")],
)
def test_without_credit_everything_is_held(
    provider: Provider, status: int, words: str, task: Task
) -> None:
    body = json.dumps({"error": {"type": "t", "message": f"{words} {KEY}"}}).encode()
    server = Scripted([(status, {}, body)])
    with server as url:
        ask = client(provider, url.removesuffix("/v1"))
        with pytest.raises(EndpointRefuses, match=rf"gives no more credit \({status}\)") as caught:
            ask(task, "x", timeout=5)
        assert KEY not in str(caught.value)
        assert len(server.requests) == 1, "asking in words would not bring money"
        with pytest.raises(EndpointRefuses):
            ask.probe(timeout=5)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_refused_request_will_never_be_answered(provider: Provider) -> None:
    body = json.dumps({"error": {"type": "invalid_request_error", "message": f"no {KEY}"}})
    with pytest.raises(CannotAnswer, match="400") as caught:
        asked(provider, 400, body.encode())
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("body", [b"<html>", b"[]", b"\xff", b'{"choices": 3, "content": 3}'])
def test_garbage_with_status_200_may_pass(provider: Provider, body: bytes) -> None:
    with pytest.raises(PassingFault, match="not a"):
        asked(provider, 200, body)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_refusal_and_an_empty_answer_are_final(provider: Provider) -> None:
    filtered = "refusal" if provider is Provider.ANTHROPIC else "content_filter"
    with pytest.raises(CannotAnswer, match="refused"):
        asked(provider, 200, json.dumps(answered(provider, "I", filtered)).encode())
    with pytest.raises(CannotAnswer, match="empty"):
        asked(provider, 200, json.dumps(answered(provider, " ")).encode())


@pytest.mark.parametrize("task", [WORDS, STRUCTURED], ids=["words", "structured"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_answer_that_was_cut_short_is_no_label(provider: Provider, task: Task) -> None:
    ended = "max_tokens" if provider is Provider.ANTHROPIC else "length"
    for text in ("Refund", '{"label": "Ref', ""):
        body = json.dumps(answered(provider, text, ended)).encode()
        with (
            Scripted([(200, {}, body)]) as url,
            pytest.raises(CannotAnswer, match=rf"cut short .*{ended}"),
        ):
            client(provider, url.removesuffix("/v1"))(task, "x", timeout=5)


@pytest.mark.parametrize("text", ['{"label":    ', ' {"label": "Ref', "{}", '{"label": 3}', "{"])
def test_half_a_document_is_no_label(text: str) -> None:
    body = json.dumps(answered(Provider.OPENAI, text)).encode()
    with Scripted([(200, {}, body)]) as url, pytest.raises(CannotAnswer, match="empty"):
        client(Provider.OPENAI, url.removesuffix("/v1"))(STRUCTURED, "x", timeout=5)


def test_a_tool_s_label_goes_before_words_beside_it() -> None:
    blocks = [
        {"type": "text", "text": "Refund"},
        {"type": "tool_use", "input": {"label": "other"}},
    ]
    answer = asked(Provider.ANTHROPIC, 200, json.dumps({"content": blocks}).encode())
    assert (answer.label, answer.words) == ("other", "")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_hanging_and_an_absent_endpoint_are_passing_faults(
    recorded: Callable[..., RecordedLLM], provider: Provider
) -> None:
    with pytest.raises(PassingFault, match=r"no answer within 0\.2 s"):
        client(provider, origin_of(recorded(hang_every=1)))(WORDS, "x", timeout=0.2)
    with pytest.raises(PassingFault, match="no connection to http://127"):
        client(provider, "http://127.0.0.1:9")(WORDS, "x", timeout=2)
    with pytest.raises(PassingFault, match="no connection to http://127"):
        client(provider, "http://127.0.0.1:9").probe(timeout=2)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_blank_lines_while_we_wait_are_no_answer(provider: Provider) -> None:
    body = json.dumps(answered(provider, "Refund")).encode()
    with Scripted([(200, {}, body)], blank_lines=20) as url:
        ask = client(provider, url.removesuffix("/v1"))
        began = time.monotonic()
        with pytest.raises(PassingFault, match=r"no answer within 0\.3 s") as caught:
            ask(WORDS, "x", timeout=0.3)
        with pytest.raises(PassingFault, match=r"no answer within 0\.3 s"):
            ask.probe(timeout=0.3)
        assert time.monotonic() - began < 1.5
        assert caught.value.used == Used(calls=1, charged=True)
        assert ask(WORDS, "x", timeout=10).label == "Refund"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_connection_that_is_not_made_in_time_is_no_call(provider: Provider) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as waiting:
        for _ in range(4):  # nobody accepts: the queue is full, further ones wait
            each = waiting.enter_context(socket.socket())
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        origin = f"http://127.0.0.1:{full.getsockname()[1]}"
        with pytest.raises(PassingFault, match="no answer within") as caught:
            client(provider, origin)(WORDS, "x", timeout=0.2)
    assert caught.value.used == Used()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_compressed_answer_is_read(provider: Provider) -> None:
    body = gzip.compress(json.dumps(answered(provider, "Refund")).encode())
    assert asked(provider, 200, body, **{"Content-Encoding": "gzip"}).label == "Refund"


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "usage",
    [
        None, 3, "many", [], {}, {"prompt_tokens": 12, "input_tokens": 12},
        {"prompt_tokens": "x", "completion_tokens": 1, "input_tokens": 1, "output_tokens": {}},
        {"prompt_tokens": None, "completion_tokens": None, "output_tokens": -3},
    ],
)  # fmt: skip
def test_usage_that_cannot_be_read_spoils_no_answer(provider: Provider, usage: Any) -> None:
    body = answered(provider, "Refund") | {"usage": usage}
    answer = asked(provider, 200, json.dumps(body).encode())
    assert (answer.label, answer.tokens) == ("Refund", None)


def test_anthropic_s_cached_tokens_are_input_tokens_too() -> None:
    body = json.dumps(answered(Provider.ANTHROPIC, "Refund")).encode()
    answer = asked(Provider.ANTHROPIC, 200, body)
    assert answer.tokens is not None
    assert (answer.tokens.input, answer.tokens.output) == (12, 2)


class TestTemperature:
    @pytest.mark.parametrize("given", [{}, {"temperature": 0.5}, {"temperature": None}])
    @pytest.mark.parametrize("provider", [Provider.OPENAI, Provider.ANTHROPIC])
    def test_what_is_sent(self, provider: Provider, given: dict[str, Any]) -> None:
        server = Scripted([(200, {}, json.dumps(answered(provider, "other")).encode())])
        with server as url:
            origin = url.removesuffix("/v1") if provider is Provider.ANTHROPIC else url
            document = {"provider": provider.value, "model": "m", "base_url": origin, **given}
            task = Task(name="a", teacher=msgspec.convert(document, TeacherEndpoint))
            ask = teachers(TeacherSettings(), {"a": task}, clock=SystemClock())
            ask(task, "x", timeout=5)
        sent = json.loads(server.requests[0]["body"]).get("temperature", "none")
        usual = 0.0 if provider is Provider.OPENAI else None
        wanted = given.get("temperature", usual)
        assert sent == ("none" if wanted is None else wanted)


class TestChoice:
    def test_each_task_asks_its_own_endpoint(self, recorded: Callable[..., RecordedLLM]) -> None:
        one, two = recorded(api_key="key-one"), recorded(api_key="key-two")
        first = TeacherEndpoint(
            provider=Provider.ANTHROPIC, model="c", base_url=origin_of(one), api_key_env="KEY_ONE"
        )
        second = TeacherEndpoint(model="g", base_url=two.base_url, api_key_env="KEY_TWO")
        tasks = {
            "a": Task(name="a", teacher=first, labels=LABELS),
            "b": Task(name="b", teacher=second),
            "c": Task(name="c", teacher=second),
        }
        environment = {"KEY_ONE": "key-one", "KEY_TWO": "key-two"}
        ask = teachers(TeacherSettings(), tasks, clock=SystemClock(), environment=environment)
        ask.probe(timeout=5)
        assert ask(tasks["a"], "money back", timeout=5).model == "c"
        assert {ask(tasks[name], "money back", timeout=5).model for name in "bc"} == {"g"}
        assert (one.calls, two.calls) == (1, 2)
        ask.close()

    def test_a_key_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        endpoint = TeacherEndpoint(model="g", api_key_env="MY_KEY")
        tasks = {"a": Task(name="a", teacher=endpoint)}
        for environment, says in [
            ({}, "task 'a': teacher.api_key_env names MY_KEY, which is not set"),
            ({"MY_KEY_FILE": str(tmp_path / "absent")}, "cannot be read"),
        ]:
            with pytest.raises(Fatal, match=says):
                teachers(TeacherSettings(), tasks, clock=SystemClock(), environment=environment)
        (tmp_path / "key").write_text("k\n")
        given = {"MY_KEY_FILE": str(tmp_path / "key")}
        teachers(TeacherSettings(), tasks, clock=SystemClock(), environment=given).close()

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("teacher: {provider: azure, model: m}", "needs base_url"),
            ("teacher: {model: m, api_version: '1'}", "is for provider azure"),
            ("teacher: {model: m, base_url: localhost}", "matching regex .*base_url"),
            ("budget: {when_used_up: wait}", "usd_per_day or calls_per_day"),
            ("message: 'Classify.'", r"message needs \{\{ text \}\}"),
        ],
    )
    def test_mistakes_in_the_tasks_file_are_named(
        self, tmp_path: Path, text: str, says: str
    ) -> None:
        file = tmp_path / "tasks.yaml"
        file.write_text(f"tasks:\n  - name: a\n    {text}\n")
        with pytest.raises(InvalidTasks, match=says):
            load_tasks(file)


class TestPrompt:
    def test_labels_and_text_go_where_the_templates_say(self) -> None:
        task = Task(
            name="a",
            labels=("x", "y"),
            prompt="One of:\n{{ labels }}\nNothing else.",
            message="<message>{{ text }}</message>",
        )
        assert system_prompt(task).startswith("One of:\n- x\n- y\nNothing else.")
        assert system_prompt(task).count("- x") == 1
        body = json.dumps(answered(Provider.OPENAI, "x")).encode()
        server = Scripted([(200, {}, body)])
        with server as url:
            client(Provider.OPENAI, url.removesuffix("/v1"))(task, "{{ text }} hi", timeout=5)
        sent = json.loads(server.requests[0]["body"])["messages"][1]["content"]
        assert sent == "<message>{{ text }} hi</message>", "filled in once"

    def test_the_digest_changes_with_all_that_is_asked(self) -> None:
        endpoint = TeacherEndpoint(model="m")
        words = TeacherEndpoint(model="m", structured=False)
        changes: list[dict[str, Any]] = [
            {}, {"prompt": "x"}, {"labels": ("a",)}, {"message": "say {{ text }}"},
            {"labels": ("a",), "teacher": endpoint},
        ]  # fmt: skip
        digests = {prompt_digest(Task(name="a", **change)) for change in changes}
        assert len(digests) == len(changes)
        same = Task(name="a", labels=("a",), teacher=words)
        assert prompt_digest(same) == prompt_digest(Task(name="a", labels=("a",)))
