"""What a task's last refit came to, for people: a failed fit must not look like a quiet day."""

from __future__ import annotations

from datetime import datetime

import msgspec


class FitNote(msgspec.Struct, frozen=True, kw_only=True):
    """verdict: the kind of the announcement (`published`, `kept`, `refused`, …), or `failed`."""

    window: str
    verdict: str
    reason: str
    at: datetime

    def encode(self) -> bytes:
        return msgspec.json.encode(self)


def decode_note(data: bytes) -> FitNote:
    """Raises ValueError."""
    try:
        return msgspec.json.decode(data, type=FitNote)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
