"""What every source's records become before a task's mapping reads them.

An adapter is a pure function from the bytes of one record to its calls. A call's `view` is the
same for every format, so that a mapping can be moved from one to another:

    $.input       the text to classify: the last user message, or a row's input
    $.messages    [{role, content}] as text, the system's first, without the answer
    $.output      the answer as text; a lone tool call's arguments where there is no text
    $.model       the model that answered
    $.attributes  what the source calls attributes, metadata or tags
    $.record      the record as the source wrote it, JSON in strings parsed
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.contracts.events import Tokens

MAX_CALLS = 10_000

# The record reduced to one call, in the same format, for a dead letter that can be redriven. Run
# only for calls that are somebody's: each repeats what it shared with others, such as a resource.
Fragment = Callable[[], bytes]


class Unusable(ValueError):
    """A record or a call that cannot become a trace; `field` is what is at fault."""

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


# When a call took place; None where it does not say, or why what it says cannot be read.
Moment = datetime | Unusable | None


class NoAnswer(Unusable):
    """The model gave no whole answer: it failed, stopped short, withheld or refused it. The record
    was read well; an outage of a model has many of them in a row."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a model.

    `fault` says why no mapping can use it, such as that the call failed; `silence`
    why its own fields are empty, which a mapping that looks elsewhere need not mind.
    """

    id: str
    view: dict[str, Any]
    fragment: Fragment
    occurred_at: Moment = None
    tokens: Tokens | None = None
    cost: float | None = None
    fault: Unusable | None = None
    silence: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """A part of a record that is not even a call."""

    error: Unusable
    fragment: Fragment


@dataclass(frozen=True, slots=True)
class Skipped:
    """A part that is no call of a language model, such as a span of a web server."""

    why: str


Item = Call | Refused | Skipped
# Bytes of a record, and a name for its place that stays the same when it is read again.
Adapter = Callable[[bytes, str], list[Item]]
