"""A trace as the trainer's store keeps it, and texts as both trainer and router see them."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from shared.bus.errors import InvalidMessage
from shared.contracts.amounts import check_amounts
from shared.contracts.events import Request, Trace
from shared.redaction.load import RedactionFailed, redact_input

# Beyond these a day has no next day in every time zone, or the clock that wrote it was broken.
EARLIEST, LATEST = 1971, 9000

E = TypeVar("E", Request, Trace)


def admitted(trace: Trace, redact: str | None) -> Trace:
    """With its texts as the redactor of that name leaves them. Raises InvalidMessage for one that
    is not kept, and InvalidRedactor."""
    if not EARLIEST <= trace.occurred_at.year <= LATEST:
        raise InvalidMessage(
            f"occurred_at must lie between the years {EARLIEST} and {LATEST}", field="occurred_at"
        )
    check_amounts(trace)  # ingest does, and did not always
    return redacted(trace, redact)


def redacted(event: E, redact: str | None) -> E:
    """With its texts as the redactor of that name leaves them: what is certified is what is asked.
    Raises InvalidMessage for texts it fails on, and InvalidRedactor."""
    if redact is None:
        return event
    try:
        return msgspec.structs.replace(event, input=redact_input(event.input, redact))
    except RedactionFailed as error:
        raise InvalidMessage(str(error), field="input") from error
