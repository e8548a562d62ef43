"""What Redis says, as the registry's own types."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from shared.registry.base import Active, HistoryEntry, Mode, RegistryError, State, Trial
from shared.registry.checks import check_alpha, check_trial

log = logging.getLogger(__name__)

# Redis counts to there. A number beyond fits into no metric and no disk copy of a router's.
_MOST_EPOCH = (1 << 63) - 1
_MOST_NAME = 256  # characters of a version's name


def active_of(values: Sequence[Any]) -> Active:
    """`values` of scripts.ACTIVE_FIELDS, None where the hash has no such field.

    Raises RegistryError, and nothing else, for what no script of ours, or only a newer one, has
    written.
    """
    try:
        version, epoch, state, trial, mode, share, alpha = (as_text(v or b"") for v in values)
        return Active(
            _name(version) or None,
            _epoch(epoch or "0"),
            State(state or State.SERVING),
            _trial(_name(trial), mode, share) if trial else None,
            check_alpha(float(alpha)) if alpha else None,
        )
    except ValueError as error:
        raise RegistryError(f"the active pointer cannot be read: {str(error)[:300]}") from error


def _name(version: str) -> str:
    if len(version) > _MOST_NAME:
        raise ValueError(f"a version's name has {len(version)} characters")
    return version


def _epoch(text: str) -> int:
    epoch = int(text)
    if not 0 <= epoch <= _MOST_EPOCH:
        raise ValueError(f"an epoch is 0 to {_MOST_EPOCH}")
    return epoch


def _trial(version: str, mode: str, share: str) -> Trial:
    trial = Trial(version, msgspec.convert(mode, Mode), float(share))
    check_trial(trial.mode, trial.share)
    return trial


def entry_of(data: Any) -> HistoryEntry:
    """Raises RegistryError."""
    try:
        return msgspec.json.decode(data, type=HistoryEntry)
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"a history entry cannot be read: {error}") from error


def entries_of(history: Iterable[Any]) -> list[HistoryEntry]:
    """Those that this release can read: a newer one has kinds of its own, and who writes to Redis
    can write anything."""
    entries = []
    for data in history:
        try:
            entries.append(entry_of(data))
        except RegistryError as error:
            log.debug("a change was passed over: %s", error)
    return entries


def as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else bytes(value, "utf-8")


def as_text(value: Any) -> str:
    """What is no UTF-8, which nobody of ours writes, becomes a name that nothing has."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
