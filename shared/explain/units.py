"""A text cut into what a person takes for its words; a redactor's placeholders stay whole."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORDS = re.compile(r"\w+|[^\w\s]")
# `[EMAIL]` of the built-in redactor, `<PERSON>` of Presidio.
_PLACEHOLDER = r"\[[A-Z][A-Z0-9_]*\]|<[A-Z][A-Z0-9_]*>"
_WITH_PLACEHOLDERS = re.compile(rf"(?P<placeholder>{_PLACEHOLDER})|{_WORDS.pattern}")


@dataclass(frozen=True)
class Unit:
    """A word, a mark, or the placeholder of what was replaced; `start` and `end` in the text."""

    text: str
    start: int
    end: int
    placeholder: bool = False

    @property
    def is_mark(self) -> bool:
        return not any(character.isalnum() for character in self.text)


def units_of(text: str, *, redacted: bool) -> list[Unit]:
    """In order, without the space between them. redacted: whether the task has a redactor; without
    one brackets and capitals are what somebody wrote."""
    if not redacted:
        return [Unit(found[0], *found.span()) for found in _WORDS.finditer(text)]
    return [
        Unit(found[0], *found.span(), placeholder=found["placeholder"] is not None)
        for found in _WITH_PLACEHOLDERS.finditer(text)
    ]
