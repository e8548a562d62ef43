"""What Redis says, as the registry's own types."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from shared.registry.base import Active, HistoryEntry, Mode, RegistryError, State, Trial

log = logging.getLogger(__name__)


def active_of(values: Sequence[Any]) -> Active:
    """`values` of scripts.ACTIVE_FIELDS, None where the hash has no such field.

    Raises RegistryError for what no script of ours, or only a newer one, has written.
    """
    version, epoch, state, trial, mode, share, alpha = (as_text(value or b"") for value in values)
    try:
        return Active(
            version or None,
            int(epoch or 0),
            State(state or State.SERVING),
            Trial(trial, msgspec.convert(mode, Mode), float(share)) if trial else None,
            float(alpha) if alpha else None,
        )
    except ValueError as error:
        raise RegistryError(f"the active pointer cannot be read: {error}") from error


def entry_of(data: Any) -> HistoryEntry:
    return msgspec.json.decode(data, type=HistoryEntry)


def entries_of(history: Iterable[Any]) -> list[HistoryEntry]:
    """Those that this release can read: a newer one has kinds of its own."""
    entries = []
    for data in history:
        try:
            entries.append(entry_of(data))
        except msgspec.DecodeError as error:
            log.debug("a change was passed over: %s", error)
    return entries


def as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else bytes(value, "utf-8")


def as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
