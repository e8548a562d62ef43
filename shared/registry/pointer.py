"""Where a task stands: its active version, the one on trial, and what is told of each change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from shared.contracts.events import AnnouncementKind
from shared.registry.errors import RegistryError


class State(StrEnum):
    """Whether the active version answers: `SERVING` only. Under `PROBATION` it is checked, by a
    rule on its audits, until it is cleared or tripped; `PAUSED` is an operator's word; `TRIPPED`
    is for ever."""

    SERVING = "serving"
    PROBATION = "probation"
    TRIPPED = "tripped"
    PAUSED = "paused"


Mode = Literal["shadow", "canary"]


@dataclass(frozen=True, slots=True)
class Trial:
    """A certified version beside the active one. `shadow`: scored, answers nobody. `canary`:
    answers `share` (0 to 1) of the requests."""

    version: str
    mode: Mode
    share: float


@dataclass(frozen=True, slots=True)
class Active:
    """The active pointer; `epoch` grows with every change, so equal pointers mean no change.

    Without a version the state is SERVING. `alpha` is what an operator asks for instead of the
    tasks file's; None: the tasks file holds.
    """

    version: str | None
    epoch: int
    state: State = State.SERVING
    trial: Trial | None = None
    alpha: float | None = None

    def asked(self, configured: float) -> float:
        """The α asked for now, where the tasks file says `configured`."""
        return configured if self.alpha is None else self.alpha


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change. `previous` is the version that was active before it (None: no active one).

    `version` is the active one after it, None after a retirement; where only the state changed the
    same as `previous`. The kinds `shadow`, `canary` and `withdrawn` leave the active version alone:
    there `version` is the one on trial. `actor` is who asked for it, None where a service did.
    `alpha`: of the kind `alpha`, what is asked for from then on (None: what the tasks file says).
    """

    kind: AnnouncementKind
    version: str | None
    previous: str | None
    epoch: int
    at: datetime
    reason: str
    actor: str | None = None
    alpha: float | None = None


@dataclass(frozen=True, slots=True)
class Hint:
    """What may have changed since the last wait: `tasks`, or `everything` where hints may have
    been missed. False when nothing has."""

    tasks: frozenset[str] = frozenset()
    everything: bool = False

    def __bool__(self) -> bool:
        return self.everything or bool(self.tasks)

    def __or__(self, other: Hint) -> Hint:
        if self.everything or other.everything:
            return Hint(everything=True)
        return Hint(self.tasks | other.tasks)


# By task; the error where a pointer cannot be read: it holds up no other task.
Pointers = Mapping[str, Active | RegistryError]
