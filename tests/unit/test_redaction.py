from __future__ import annotations

import importlib
import os
import sys
import time

import pytest
from hypothesis import example, given, settings
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
        # As they are pasted: blanks and dashes of other kinds, marks of direction, nothing between.
        ("card 4111\u00a01111\u00a01111\u00a01111 was", "card [CARD] was"),
        ("4111\t1111\t1111\t1111", "[CARD]"),
        ("card 4111\u20131111\u20131111\u20131111", "card [CARD]"),
        ("Card No.4111111111111111 was charged", "Card No.[CARD] was charged"),
        ("pan4111111111111111", "pan[CARD]"),
        ("call \u202a+1\u00a0(555)\u00a0123\u20114567\u202c", "call \u202a[PHONE]\u202c"),
        ("appelez le 06\u00a012\u00a034\u00a056\u00a078", "appelez le [PHONE]"),
        ("call 555 - 123 - 4567", "call [PHONE]"),
        ("call 030 - 123456", "call [PHONE]"),
        ("Tel.015112345678", "Tel.[PHONE]"),
        ("电话13812345678是", "电话[PHONE]是"),
        ("call 555-1234 2nd floor", "call [PHONE] 2nd floor"),
        ("from de89370400440532013000", "from [IBAN]"),
        ("from gb29 nwbk 6016 1331 9268 19 to me", "from [IBAN] to me"),
        ("from DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000", "from [IBAN]"),
        ("mt84malt011000012345mtlcast001s", "[IBAN]"),
        ("at 2001:db8:85a3::8a2e:370:7334: down", "at [IP]: down"),
        ("ping ::1, fe80::1", "ping [IP], [IP]"),
        ("see www.shop.example/reset?token=abc", "see [URL]"),
        ("AIzaSyD-1234567890abcdefghijklmnopqrstu", "[SECRET]"),
        ("hf_abcdefghijklmnopqrstuvwxyz012345", "[SECRET]"),
        ("github_pat_11ABCDEFG0abcdefghijklmnopqrst", "[SECRET]"),
        ("Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghij.", "Bearer [SECRET]."),
        ("where is my card?", "where is my card?"),
    ],
)
def test_what_has_a_form_is_replaced(text: str, redacted: str) -> None:
    assert redact_patterns(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "order 123456 of 2026", "ORD1234567 is late", "for 1000 - 2000 EUR", "$12,345.67, 1.234,56",
        "2025\u20132026", "3 - 5 business days", "in 2019, 2020, 2021", "it took 10:00 - 12:30",
        "on 2026-02-01", "on 01/02/2026 10:00", "on 1.2.2026", "2026-02-01T10:00:00.123456Z",
        "2026-02-01 10:00:00", "20260201T101010Z", "at 10:00:00.123456", "v10.0.19045.3693",
        "version 2.31.1", "std::byte and a::b", "00:1a:2b:3c:4d:5e", "no15 from this week came",
        "ASIA-PACIFIC-REGION", "hf_tokenizer_config", "skateboarding-lessons are fun",
    ],
)  # fmt: skip
def test_ordinary_numbers_and_words_are_left(text: str) -> None:
    assert redact_patterns(text) == text


_PIECES = """
sk- eyJ www. https:// 2026-02-01 10:00 DE89 de89 3704 1.2.3.4 v1. :: AIza hf_ 555 12345678
111111111 @b.c xxxxxxxxxxxxx . - : _ [ ( +
"""


@settings(max_examples=500)
@given(st.text() | st.lists(st.sampled_from(_PIECES.split()) | st.characters()).map("".join))
@example("5554::111111111")
@example("::10:0012345678f")
@example("0::::0000000")
@example("15 3745((1+11 - 62852")
@example("111111111https://a")
@example("de89xxxxxxxxxxxxx12345678vDE89111111111")
def test_any_text_is_redacted_once_and_for_all(text: str) -> None:
    once = redact_patterns(text)
    assert redact_patterns(once) == once


@pytest.mark.parametrize("piece", [
    "1 ", "a@a.", "a.", "(1", "AA11 ", "+", "a-@", "1", "1   ", " - 1", "1eyJ", "eyJa.", "sk-",
    "a:", ":", "12:34", "aa11a", "aa11 a111 ", "v1.", "www.", "1.1.2000", "1000 - 2000",
    "1234567 x",
])  # fmt: skip
def test_no_text_takes_for_ever(piece: str) -> None:
    started = time.perf_counter()
    redact_patterns(piece * (32_000 // len(piece)) + "x")
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
