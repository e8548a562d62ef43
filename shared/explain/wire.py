"""How a service that carries no model asks the process that does: a line of JSON each way."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from shared.explain.explanation import Explanation


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One question. version: None for the active one."""

    task: str
    texts: tuple[str, ...]
    version: str | None = None


class Fault(StrEnum):
    """Why there is no answer: the question, a version that is not stored, or what is missing."""

    QUESTION = "question"
    VERSION = "version"
    PLACE = "place"


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """`found`, or else `fault` with a `message` that says what to do."""

    found: Explanation | None = None
    fault: Fault | None = None
    message: str = ""


def failed(fault: Fault, message: str) -> Answered:
    return Answered(fault=fault, message=message)
