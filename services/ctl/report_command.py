"""`tracerctl report`: a version's report, as one HTML file or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from services.ctl.output import console, fail, write_json
from services.ctl.registry_access import open_registry
from shared.contracts.manifest import window_of
from shared.contracts.report import Report, unpublished_key
from shared.contracts.tasks import InvalidTasks, load_tasks
from shared.registry.base import Registry
from shared.reporting.hiding import as_shown
from shared.reporting.page import render
from shared.settings import ServiceSettings


def report(
    task: Annotated[str, typer.Option(help="The task.")],
    version: Annotated[
        str | None,
        typer.Option(help="Or unpublished-<window>; default: the active one, else the newest."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write this HTML file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """What a version handles, where it plateaus and why it defers."""
    if out is None and not json:
        fail("say what to make of the report: --out FILE.html or --json", code=2)
    with open_registry() as (registry, settings):
        found = find_report(registry, task, version)
    found = _as_the_task_wants_it(found, settings)
    if json:
        write_json(found.encode())
    if out is not None:
        write_page(found, out)
        if not json:
            console.print(f"{out}: the report of {found.key}.")


def find_report(registry: Registry, task: str, version: str | None) -> Report:
    """Ends the command where there is none."""
    keys = registry.reports(task)
    if version is None:
        active = registry.active(task).version
        version = active if active in keys else newest_of(keys)
    found = None if version is None else registry.report(task, version)
    if found is None and version is not None:
        found = registry.report(task, unpublished_key(version))  # a window alone will do
    if found is None:
        wanted = f" for {version}" if version else ""
        there = f"there are {', '.join(keys)}" if keys else "the trainer makes one with each fit"
        fail(f"{task} has no report{wanted}; {there}")
    return found


def newest_of(keys: Sequence[str]) -> str | None:
    """By window; of one window's a version rather than what was not published."""
    return max(reversed(keys), key=_window, default=None)


def _window(key: str) -> str:
    """Of a report's key, which is a version or an unpublished window."""
    unpublished = unpublished_key("")
    return key.removeprefix(unpublished) if key.startswith(unpublished) else window_of(key)


def _as_the_task_wants_it(report: Report, settings: ServiceSettings) -> Report:
    """Where there is a tasks file that knows the task; a report can be read without one."""
    try:
        task = load_tasks(settings.tasks).get(report.task)
    except InvalidTasks:
        task = None
    return report if task is None else as_shown(report, task)


def write_page(report: Report, path: Path, option: str = "--out") -> None:
    """Ends the command, with the option that named the file, where it cannot be written."""
    try:
        path.write_text(render(report), encoding="utf-8")
    except OSError as error:
        fail(f"{option} {path}: cannot be written: {error.strerror}")
