from __future__ import annotations

import importlib
import os
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.tasks import InvalidTasks, Task, load_tasks
from shared.redaction.load import InvalidRedactor, check_redactors, load_redactor
from shared.redaction.patterns import redact_patterns


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("write to ann.b+c@mail.example.org, please", "write to [EMAIL], please"),
        ("call +44 (0)20 7946 0958 now", "call [PHONE] now"),
        ("call 555-123-4567.", "call [PHONE]."),
        ("card 4111 1111 1111 1111 was charged", "card [CARD] was charged"),
        ("from DE89 3704 0044 0532 0130 00", "from [IBAN]"),
        ("I am at 192.168.0.17", "I am at [IP]"),
        ("see https://shop.example/a?token=1, or", "see [URL] or"),
        ("my key is sk-abcdef0123456789abcd", "my key is [SECRET]"),
        ("order 123456 of 2026", "order 123456 of 2026"),
        ("where is my card?", "where is my card?"),
    ],
)
def test_what_has_a_form_is_replaced(text: str, redacted: str) -> None:
    assert redact_patterns(text) == redacted


@given(st.text())
def test_any_text_is_redacted_once_and_for_all(text: str) -> None:
    once = redact_patterns(text)
    assert redact_patterns(once) == once


@pytest.mark.parametrize("piece", ["1 ", "a@a.", "a.", "(1", "AA11 ", "+", "a-@"])
def test_no_text_takes_for_ever(piece: str) -> None:
    started = time.perf_counter()
    redact_patterns(piece * (30_000 // len(piece)))
    assert time.perf_counter() - started < 20  # a quadratic pattern would take minutes


def shout(text: str) -> str:
    return text.upper()


def swallow(text: str) -> str:
    return ""


def test_a_function_of_ones_own_can_be_named() -> None:
    named = load_redactor(f"{__name__}:shout")
    assert named is not None
    assert named("quiet") == "QUIET"
    assert load_redactor(None) is None


def test_what_is_all_secret_is_still_a_text() -> None:
    named = load_redactor(f"{__name__}:swallow")
    assert named is not None
    assert named("secret") == "[REDACTED]"


@pytest.mark.parametrize("name", ["no.such.module:f", "shared.redaction.load:nothing", "os:sep"])
def test_what_cannot_be_used_says_so(name: str) -> None:
    with pytest.raises(InvalidRedactor, match="redact: "):
        load_redactor(name)


def test_a_tasks_file_with_a_name_that_is_none_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "tasks.yaml"
    path.write_text("tasks:\n  - name: a\n    redact: 'all of it'\n")
    with pytest.raises(InvalidTasks, match="redact"):
        load_tasks(path)
    path.write_text("tasks:\n  - name: a\n    redact: builtin\n    previews: false\n")
    task = load_tasks(path)["a"]
    assert (task.redact, task.previews) == ("builtin", False)


def stumble(text: str) -> str:
    raise OSError("the model is missing")


def test_one_that_fails_is_found_when_a_service_starts() -> None:
    check_redactors([Task(name="a"), Task(name="b", redact="builtin")])
    with pytest.raises(InvalidRedactor, match=r"task c: .* fails: OSError: the model is missing"):
        check_redactors([Task(name="c", redact=f"{__name__}:stumble")])


PRESIDIO = "shared.redaction.presidio:redact"


def test_without_its_extra_presidio_keeps_a_service_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rather than failing at the first text of the day."""
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    monkeypatch.delitem(sys.modules, "shared.redaction.presidio", raising=False)
    load_redactor.cache_clear()
    with pytest.raises(InvalidRedactor, match=r"task a: .*presidio_analyzer"):
        check_redactors([Task(name="a", redact=PRESIDIO)])


@pytest.mark.skipif("NLP_CONF_FILE" not in os.environ, reason="needs a spaCy model, named there")
def test_presidio_itself() -> None:
    pytest.importorskip("presidio_analyzer")
    load_redactor.cache_clear()
    redact = load_redactor(PRESIDIO)
    assert redact is not None
    once = redact("My name is Maria Schmidt, call me at +44 20 7946 0958 or ann@example.org")
    assert once == "My name is <PERSON>, call me at <PHONE_NUMBER> or <EMAIL_ADDRESS>"
    assert redact(once) == once
    assert redact("where is my card?") == "where is my card?"


def test_of_presidio_a_model_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("presidio_analyzer")
    monkeypatch.delenv("NLP_CONF_FILE", raising=False)
    importlib.import_module("shared.redaction.presidio")._engines.cache_clear()
    load_redactor.cache_clear()
    if importlib.util.find_spec("en_core_web_lg"):
        pytest.skip("it is there")
    with pytest.raises(InvalidRedactor, match="en_core_web_lg is not installed"):
        check_redactors([Task(name="a", redact=PRESIDIO)])
