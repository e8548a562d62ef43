"""What a person may do to a task now, and doing it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from services.console.views import ActionView
from shared.clock import Clock
from shared.operating import CHANGES, Act, Announce, Done, ask_alpha, operate
from shared.registry.base import Registry, State, StateChanged
from shared.registry.glances import Glance

log = logging.getLogger(__name__)

MAX_REASON_CHARS = 500
ALPHA = "alpha"
ACTIONS = (*CHANGES, ALPHA)


class Refused(Exception):
    """The action cannot be done as asked; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Order:
    """Who wants what. `expects`: the version that the person saw active, or on trial; another one
    meanwhile stops the action. `to`: the version to roll back to, None for the one before.
    `alpha`: to ask for, None for the tasks file's."""

    task: str
    action: str
    actor: str
    reason: str
    expects: str | None = None
    to: str | None = None
    alpha: float | None = None


def actions_of(glance: Glance) -> tuple[ActionView, ...]:
    active, trial = glance.active, glance.active.trial
    found: list[ActionView] = []
    if trial:
        found += [
            ActionView(
                "promote", "Promote", f"{trial.version} becomes the active version and answers "
                "what it is certified for. Rolling back undoes it.", False, trial.version,
            ),
            ActionView(
                "withdraw", "Withdraw", f"The trial of {trial.version} ends; the active version "
                "stays.", False, trial.version,
            ),
        ]  # fmt: skip
    if active.version and active.state in (State.SERVING, State.PROBATION):
        found.append(
            ActionView(
                "pause", "Pause", "The teacher answers everything until you resume.", False,
                active.version,
            )
        )  # fmt: skip
    if active.version and active.state is State.PAUSED:
        found.append(
            ActionView(
                "resume", "Resume", f"{active.version} answers again what it is certified for.",
                False, active.version,
            )
        )  # fmt: skip
    others = tuple(version for version in glance.versions[::-1] if version != active.version)
    if others:
        found.append(
            ActionView(
                "rollback", "Roll back", "An earlier version becomes active; routers swap within "
                "a second.", True, active.version, others,
            )
        )  # fmt: skip
    found.append(
        ActionView(
            ALPHA, "Change α", "Asks for another agreement from now on, and refits at once.",
            False, active.version,
        )
    )  # fmt: skip
    if active.version:
        found.append(
            ActionView(
                "retire", "Retire", "No version is active any more: the teacher answers "
                "everything until the next one is certified.", True, active.version,
            )
        )  # fmt: skip
    return tuple(found)


def carry_out(order: Order, registry: Registry, announce: Announce, clock: Clock) -> Done:
    """Do it, log it, announce it. Raises Refused, NotAnnounced, or what the registry raises."""
    if order.action not in ACTIONS:
        raise Refused(f"there is no action {order.action!r}; there are {', '.join(ACTIONS)}")
    reason = " ".join(order.reason.split())
    if not reason:
        raise Refused("say why: a reason is kept in the history")
    if len(reason) > MAX_REASON_CHARS:
        raise Refused(f"the reason has more than {MAX_REASON_CHARS} characters")
    _check_nothing_moved(order, registry)
    act = _act(order, reason, registry)
    done = operate(registry, announce, clock, order.task, act)
    log.info(
        "%s by hand", order.action,
        extra={
            "task": order.task, "actor": order.actor, "reason": reason, "changed": done.changed,
            "version": done.entry.version if done.entry else None,
        },
    )  # fmt: skip
    return done


def _act(order: Order, reason: str, registry: Registry) -> Act:
    if order.action == ALPHA:
        if order.alpha is not None and not 0.0 < order.alpha < 1.0:
            raise Refused(f"α lies between 0 and 1, not at {order.alpha}")
        epoch = registry.active(order.task).epoch
        return ask_alpha(order.task, order.alpha, epoch, reason, order.actor)
    version = order.to if order.action == "rollback" else order.expects
    return CHANGES[order.action](order.task, version, reason, order.actor)


def _check_nothing_moved(order: Order, registry: Registry) -> None:
    if order.expects is None:
        return
    active = registry.active(order.task)
    on_trial = order.action in ("promote", "withdraw")
    now = (active.trial.version if active.trial else None) if on_trial else active.version
    if now != order.expects:
        what = "on trial" if on_trial else "active"
        raise StateChanged(
            f"{order.expects} is no longer {what}, {now or 'nothing'} is: look again, then decide"
        )
