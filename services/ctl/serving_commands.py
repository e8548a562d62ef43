"""`tracerctl rollback`, `pause`, `resume`, `promote` and `withdraw`: who answers, by hand.

Each changes the registry in one step, which routers follow within a second, and is announced on
`models`; what is that way already is neither changed nor announced.
"""

from __future__ import annotations

from typing import Annotated

import typer

from services.ctl.output import fail
from services.ctl.registry_access import (
    By,
    Json,
    Reason,
    TaskArgument,
    announcer,
    login,
    open_registry,
    tell,
)
from shared import operating
from shared.clock import SystemClock
from shared.operating import Act, NotAnnounced, operate

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
    change(task, by, json, operating.rollback(task, to, reason))


def retire(
    task: TaskArgument, reason: Reason = "by hand", by: By = None, json: Json = False
) -> None:
    """Leave the task without an active version: everything is deferred to the teacher."""
    change(task, by, json, operating.retire(task, None, reason))


def pause(
    task: TaskArgument, reason: Reason = "by hand", by: By = None, json: Json = False
) -> None:
    """Stop the active version's answers: everything is deferred until `resume`."""
    change(task, by, json, operating.pause(task, None, reason))


def resume(
    task: TaskArgument, reason: Reason = "by hand", by: By = None, json: Json = False
) -> None:
    """Let a paused version answer again."""
    change(task, by, json, operating.resume(task, None, reason))


def promote(
    task: TaskArgument,
    version: Trial = None,
    reason: Reason = "by hand",
    by: By = None,
    json: Json = False,
) -> None:
    """Make the version on trial the active one; `rollback` undoes it."""
    change(task, by, json, operating.promote(task, version, reason))


def withdraw(
    task: TaskArgument,
    version: Trial = None,
    reason: Reason = "by hand",
    by: By = None,
    json: Json = False,
) -> None:
    """End the trial; the version stays stored and the active one stays active."""
    change(task, by, json, operating.withdraw(task, version, reason))


def change(task: str, by: str | None, json: bool, act: Act) -> None:
    """Do it, announce it and say it."""
    with open_registry() as (registry, settings):
        try:
            done = operate(registry, announcer(settings), SystemClock(), task, by or login(), act)
        except NotAnnounced as error:
            fail(str(error))
    tell(done.entry, task, json, changed=done.changed)
