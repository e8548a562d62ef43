"""`tracerctl alpha`: ask a task for another α while it runs, after seeing what that would cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from services.ctl.output import console, fail, print_json, print_table
from services.ctl.registry_access import By, Json, Reason, announce, open_registry, plain, tell, who
from services.ctl.tasks_file import tasks_if_any
from shared.clock import SystemClock
from shared.contracts.manifest import FrontierPoint, Manifest, frontier_at
from shared.registry.base import Active, Registry
from shared.registry.glances import RegistryGlances
from shared.rounding import down
from shared.settings import ServiceSettings


@dataclass(frozen=True)
class Asked:
    """What holds for a task now. `configured`: by the tasks file, None where it cannot be seen.
    `manifest`: the active version's, None without one or where `damage` says why it is not
    believed."""

    active: Active
    configured: float | None
    manifest: Manifest | None
    damage: str | None

    @property
    def alpha(self) -> float | None:
        return self.active.alpha if self.active.alpha is not None else self.configured


def alpha(
    value: Annotated[
        float | None, typer.Argument(help="The agreement to ask for; left out: only show.")
    ] = None,
    *,
    task: Annotated[str, typer.Option(help="The task's name.")],
    show: Annotated[bool, typer.Option("--show", help="Change nothing.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Back to the tasks file's α.")] = False,
    reason: Reason = "by hand",
    by: By = None,
    json: Json = False,
) -> None:
    """Ask for another α from now on: what the active version's fit says of it, then the change.

    Raised above what the active version is certified for, all of the task is deferred until a
    refit, which begins at once, is certified. Lowered, the active version goes on serving.
    """
    if value is not None and not 0 < value < 1:
        fail(f"α lies between 0 and 1, not at {value}", code=2)
    if reset and value is not None:
        fail("--reset goes back to the tasks file: leave the value out", code=2)
    with open_registry() as (registry, settings):
        before = _asked(registry, settings, task)
        wanted = before.configured if reset else value
        if not json:
            _show(before, task, wanted)
        entry = None
        if (value is not None or reset) and not show:
            entry = registry.set_alpha(
                task, value, epoch=before.active.epoch, at=SystemClock().now(), reason=reason,
                actor=who(by),
            )  # fmt: skip
            if entry is not None:
                announce(settings, task, entry)
    if json:
        print_json(_document(before, task, wanted) | {"change": entry and plain(entry)})
    elif entry is not None:
        tell(entry, task, False, changed=True)
    elif (value is not None or reset) and not show:
        console.print(f"{task}: nothing to change.")


def _asked(registry: Registry, settings: ServiceSettings, task: str) -> Asked:
    (glance,) = RegistryGlances(registry).glance([task])
    known = tasks_if_any(settings.tasks)
    if known and task not in known:
        fail(f"--task {task}: not in {settings.tasks}; it has {', '.join(sorted(known))}", code=2)
    configured = known[task].alpha if known else None
    return Asked(glance.active, configured, glance.manifest, glance.damage)


def _show(asked: Asked, task: str, wanted: float | None) -> None:
    now = "unknown here" if asked.alpha is None else asked.alpha
    of = "asked for at run time" if asked.active.alpha is not None else "of the tasks file"
    console.print(f"{task}: α is {now} ({of}).")
    if asked.damage is not None:
        console.print(f"{asked.damage}, so nothing is known of other α.")
        return
    if asked.manifest is None:
        console.print("No version is active, so nothing is known of other α.")
        return
    certified = asked.manifest.certificate
    console.print(
        f"{asked.active.version} is certified for {certified.alpha}: it handles "
        f"{certified.coverage:.1%}."
    )
    print_table(
        "its frontier",
        ["α", "coverage", "agreement", "agreement ≥"],
        [
            (f"{p.alpha:g}", f"{p.coverage:.1%}" if p.coverage else "refused",
             f"{p.agreement:.4f}" if p.coverage else "",
             f"{down(p.agreement_lower, 4):.4f}" if p.coverage else "")
            for p in asked.manifest.frontier
        ],
    )  # fmt: skip
    if wanted is not None:
        console.print(_expectation(asked.manifest, wanted))


def _expectation(manifest: Manifest, wanted: float) -> str:
    point = frontier_at(manifest, wanted)
    if point is None:
        return f"The frontier does not reach α = {wanted}; only a refit will tell."
    if not point.coverage:
        return f"At α = {wanted} the same traces would certify nothing: all would be deferred."
    raised = wanted > manifest.certificate.alpha
    until = "; until a refit is certified all is deferred" if raised else ""
    return f"At α = {wanted} the same traces certify about {point.coverage:.1%}{until}."


def _document(asked: Asked, task: str, wanted: float | None) -> dict[str, Any]:
    manifest = asked.manifest
    point = frontier_at(manifest, wanted) if manifest and wanted is not None else None
    return {
        "task": task,
        "alpha": asked.alpha,
        "configured": asked.configured,
        "override": asked.active.alpha,
        "version": asked.active.version,
        "damage": asked.damage,
        "certified_for": manifest.certificate.alpha if manifest else None,
        "frontier": [_plain(p) for p in manifest.frontier] if manifest else [],
        "wanted": wanted,
        "answer": _plain(point) if point else None,
    }


def _plain(point: FrontierPoint) -> dict[str, float]:
    return {name: getattr(point, name) for name in point.__struct_fields__}
