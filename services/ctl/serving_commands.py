"""`tracerctl rollback`, `pause`, `resume`, `promote` and `withdraw`: who answers, by hand.

Each changes the registry in one step, which routers follow within a second, and is announced on
`models`; what is that way already is neither changed nor announced.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import typer

from services.ctl.registry_access import (
    By,
    Json,
    Reason,
    TaskArgument,
    announce,
    open_registry,
    tell,
    who,
)
from shared.clock import SystemClock
from shared.registry.base import HistoryEntry, Registry, State, UnknownVersion

Trial = Annotated[
    str | None, typer.Option("--version", help="Only if this is the version on trial.")
]


def rollback(
    task: TaskArgument,
    to: Annotated[str | None, typer.Option(help="The version; default: the one before.")] = None,
    reason: Reason = "by hand",
    by: By = None,
    json: Json = False,
) -> None:
    """Make an earlier version active again; routers swap within a second."""
    change(task, json, lambda r, at: r.rollback(task, to=to, at=at, reason=reason, actor=who(by)))


def retire(
    task: TaskArgument, reason: Reason = "by hand", by: By = None, json: Json = False
) -> None:
    """Leave the task without an active version: everything is deferred to the teacher."""
    change(task, json, lambda r, at: r.retire(task, at=at, reason=reason, actor=who(by)))


def pause(
    task: TaskArgument, reason: Reason = "by hand", by: By = None, json: Json = False
) -> None:
    """Stop the active version's answers: everything is deferred until `resume`."""
    change(task, json, lambda r, at: _move(r, task, State.PAUSED, None, at, reason, by))


def resume(
    task: TaskArgument, reason: Reason = "by hand", by: By = None, json: Json = False
) -> None:
    """Let a paused version answer again."""
    change(task, json, lambda r, at: _move(r, task, State.SERVING, State.PAUSED, at, reason, by))


def promote(
    task: TaskArgument,
    version: Trial = None,
    reason: Reason = "by hand",
    by: By = None,
    json: Json = False,
) -> None:
    """Make the version on trial the active one; `rollback` undoes it."""
    change(
        task,
        json,
        lambda r, at: r.promote(task, version=version, at=at, reason=reason, actor=who(by)),
    )


def withdraw(
    task: TaskArgument,
    version: Trial = None,
    reason: Reason = "by hand",
    by: By = None,
    json: Json = False,
) -> None:
    """End the trial; the version stays stored and the active one stays active."""
    change(
        task,
        json,
        lambda r, at: r.withdraw(task, version=version, at=at, reason=reason, actor=who(by)),
    )


def change(task: str, json: bool, act: Callable[[Registry, datetime], HistoryEntry]) -> None:
    """Do it, announce it and say it."""
    at = SystemClock().now()
    with open_registry() as (registry, settings):
        entry = act(registry, at)
        changed = entry.at == at  # an older entry means that nothing had to change
        if changed:
            announce(settings, task, entry)
    tell(entry, task, json, changed=changed)


def _move(
    registry: Registry, task: str, state: State, was: State | None, at: datetime, reason: str,
    by: str | None,
) -> HistoryEntry:  # fmt: skip
    version = registry.active(task).version
    if version is None:
        raise UnknownVersion(f"{task} has no active version")
    return registry.set_state(
        task, state, version=version, was=was, at=at, reason=reason, actor=who(by)
    )
