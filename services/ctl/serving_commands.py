"""`tracerctl rollback`, `pause`, `resume`, `promote` and `withdraw`: who answers, by hand.

Each changes the registry in one step, which routers follow within a second, and is announced on
`models`; what is that way already is neither changed nor announced.
"""

from __future__ import annotations

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
from shared import operating
from shared.clock import SystemClock
from shared.operating import Act

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
    change(task, json, operating.rollback(task, to, reason, who(by)))


def retire(
    task: TaskArgument, reason: Reason = "by hand", by: By = None, json: Json = False
) -> None:
    """Leave the task without an active version: everything is deferred to the teacher."""
    change(task, json, operating.retire(task, None, reason, who(by)))


def pause(
    task: TaskArgument, reason: Reason = "by hand", by: By = None, json: Json = False
) -> None:
    """Stop the active version's answers: everything is deferred until `resume`."""
    change(task, json, operating.pause(task, None, reason, who(by)))


def resume(
    task: TaskArgument, reason: Reason = "by hand", by: By = None, json: Json = False
) -> None:
    """Let a paused version answer again."""
    change(task, json, operating.resume(task, None, reason, who(by)))


def promote(
    task: TaskArgument,
    version: Trial = None,
    reason: Reason = "by hand",
    by: By = None,
    json: Json = False,
) -> None:
    """Make the version on trial the active one; `rollback` undoes it."""
    change(task, json, operating.promote(task, version, reason, who(by)))


def withdraw(
    task: TaskArgument,
    version: Trial = None,
    reason: Reason = "by hand",
    by: By = None,
    json: Json = False,
) -> None:
    """End the trial; the version stays stored and the active one stays active."""
    change(task, json, operating.withdraw(task, version, reason, who(by)))


def change(task: str, json: bool, act: Act) -> None:
    """Do it, announce it and say it."""
    with open_registry() as (registry, settings):
        done = act(registry, SystemClock().now())
        if done.changed and done.entry:
            announce(settings, task, done.entry)
    if done.entry:
        tell(done.entry, task, json, changed=done.changed)
