from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.explain.units import units_of
from shared.redaction.patterns import redact_patterns


def test_placeholders_are_whole_and_known_as_such() -> None:
    text = "Write to [EMAIL], <PERSON_1>: [urgent] don't"
    found = units_of(text, redacted=True)
    assert [unit.text for unit in found] == [
        "Write", "to", "[EMAIL]", ",", "<PERSON_1>", ":", "[", "urgent", "]", "don", "'", "t",
    ]  # fmt: skip
    assert [unit.text for unit in found if unit.placeholder] == ["[EMAIL]", "<PERSON_1>"]
    assert [unit.text for unit in found if unit.is_mark] == [",", ":", "[", "]", "'"]


def test_without_a_redactor_nothing_is_a_placeholder() -> None:
    found = units_of("[URGENT] <B>", redacted=False)
    assert [unit.text for unit in found] == ["[", "URGENT", "]", "<", "B", ">"]
    assert not any(unit.placeholder for unit in found)


def test_what_the_builtin_redactor_writes_is_known() -> None:
    text = redact_patterns(
        "ann@example.org https://a.example 10.0.0.1 +49 170 1234567 4111 1111 1111 1111 "
        "DE89 3704 0044 0532 0130 00 sk-abcdef0123456789abcd"
    )
    found = units_of(text, redacted=True)
    assert " ".join(unit.text for unit in found) == text
    assert all(unit.placeholder for unit in found)
    assert len(found) == 7


@given(st.text(), st.booleans())
def test_units_are_pieces_of_the_text_with_only_space_between(text: str, redacted: bool) -> None:
    place = 0
    for unit in units_of(text, redacted=redacted):
        assert text[unit.start : unit.end] == unit.text
        assert not text[place : unit.start].strip()
        place = unit.end
    assert not text[place:].strip()
