from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.core.report.words import differing_words


def test_the_words_that_differ_are_marked() -> None:
    first, second = differing_words("Where is my refund?", "where is my new  card?")
    assert [text for text, differs in first if differs] == ["refund"]
    assert "new" in "".join(text for text, differs in second if differs)
    assert "card" in "".join(text for text, differs in second if differs)
    assert "where" not in "".join(text.lower() for text, differs in second if differs)


@given(st.text(), st.text())
def test_the_pieces_are_the_texts_again(first: str, second: str) -> None:
    a, b = differing_words(first, second)
    assert ("".join(t for t, _ in a), "".join(t for t, _ in b)) == (first, second)


@given(st.text())
def test_equal_texts_do_not_differ(text: str) -> None:
    a, b = differing_words(text, text)
    assert not any(differs for _, differs in a + b)
