"""What a task's last full refit left for incremental ones, kept beside the windows.

<store>/saved/<task>/refit.state     of the last full refit that was certified
<store>/saved/<task>/refit.refused   the first window since whose fit was refused

Which kind of refit a window gets depends on what was written for *earlier* windows alone, so that
one that is fitted again, after a crash or for another α, is fitted in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from shared.contracts.tasks import Task
from shared.encoder.base import Encoder
from shared.fitting.horizon import Horizon
from shared.fitting.incremental import why_full
from shared.fitting.refit_state import InvalidState, State, decode_state

log = logging.getLogger(__name__)

_STATE, _REFUSED = "refit.state", "refit.refused"


class Files(Protocol):
    """Small files by task and name; each is there whole or not at all."""

    def put(self, task: str, name: str, content: bytes) -> None: ...

    def get(self, task: str, name: str) -> bytes | None: ...

    def names(self, task: str) -> list[str]: ...


@dataclass(frozen=True)
class RefitStates:
    """Raises OSError."""

    files: Files

    def usable(
        self, task: Task, day: date, horizon: Horizon, encoder: Encoder, stored: Sequence[date]
    ) -> State | None:
        """The state for an incremental refit of the window, None where it is to be fitted in full,
        which is logged with the reason. stored: the days of all closed windows."""
        state, why = self._read(task.name)
        if state is not None:
            window = date.fromisoformat(state.window)
            since = [one for one in stored if window < one <= day]
            why = why_full(state, task, horizon, encoder, windows=len(since))
            refused = self._refused(task.name)
            if why is None and state.window <= refused < day.isoformat():
                why = f"the fit of window {refused} was refused"
        if why is not None:
            log.info("refit in full: %s", why, extra={"task": task.name, "window": str(day)})
            return None
        return state

    def keep(self, state: State) -> None:
        self.files.put(state.task, _STATE, state.encode())

    def note_refused(self, task: str, day: date) -> None:
        """Unless an earlier window since the state's was refused before: a later one that is
        fitted again must still find that. Without a state the next refit is a full one anyway."""
        state, _ = self._read(task)
        if state is None or day.isoformat() < state.window:
            return
        if not state.window <= self._refused(task) <= day.isoformat():
            self.files.put(task, _REFUSED, day.isoformat().encode())

    def _read(self, task: str) -> tuple[State | None, str | None]:
        """Or why there is none that can be used."""
        data = self.files.get(task, _STATE)
        if data is None:
            return None, "no full one has left anything to go on from"
        try:
            return decode_state(data), None
        except InvalidState as error:
            return None, f"what the last full one left cannot be used: {error}"

    def _refused(self, task: str) -> str:
        """The refused window, which sorts as its day does; nothing without one."""
        return (self.files.get(task, _REFUSED) or b"").decode(errors="replace")
