"""A trace as the trainer's store keeps it: for the trainer, and for whoever makes a fit again."""

from __future__ import annotations

import msgspec

from shared.bus.errors import InvalidMessage
from shared.contracts.amounts import check_amounts
from shared.contracts.events import Trace
from shared.redaction.load import RedactionFailed, redact_input

# Beyond these a day has no next day in every time zone, or the clock that wrote it was broken.
EARLIEST, LATEST = 1971, 9000


def admitted(trace: Trace, redact: str | None) -> Trace:
    """With its texts as the redactor of that name leaves them. Raises InvalidMessage for one that
    is not kept, and InvalidRedactor."""
    if not EARLIEST <= trace.occurred_at.year <= LATEST:
        raise InvalidMessage(
            f"occurred_at must lie between the years {EARLIEST} and {LATEST}", field="occurred_at"
        )
    check_amounts(trace)  # ingest does, and did not always
    if redact is None:
        return trace
    try:
        return msgspec.structs.replace(trace, input=redact_input(trace.input, redact))
    except RedactionFailed as error:
        raise InvalidMessage(str(error), field="input") from error
