"""`tracerctl restore`: give a registry that was lost what the trainer had saved of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated

import typer

from services.ctl.output import console, fail, print_json
from services.ctl.registry_access import Json, announcer, open_registry
from shared.bus.errors import Fatal, Retryable
from shared.clock import SystemClock
from shared.keeping import STATE_FILE, Keeper
from shared.registry.checks import checked_task
from shared.registry.redis import RedisRegistry
from shared.registry.replies import entries_of
from shared.registry.saving import SavedTask
from shared.store.saved import SavedFiles


class Done(StrEnum):
    """What was done with a task, or, with --dry-run, would be."""

    RESTORED = "restored"
    KEPT = "kept"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Row:
    """One task. `version`: what is active then, with its `state`. `now`: what is active before.
    `missing`: saved versions whose bytes did not come back."""

    task: str
    done: Done
    why: str
    version: str | None = None
    state: str | None = None
    now: str | None = None
    versions: int = 0
    missing: tuple[str, ...] = ()
    seconds: float = 0.0


def restore(
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Their names; default: every saved one.")
    ] = None,
    store: Annotated[
        str, typer.Option(envvar="TRACER_STORE", help="The trainer's: a folder or s3:// URL.")
    ] = "data/windows",
    dry_run: Annotated[bool, typer.Option(help="Only say what would be done.")] = False,
    overwrite: Annotated[
        bool, typer.Option(help="Also where the registry was changed after the last save.")
    ] = False,
    json: Json = False,
) -> None:
    """Give a lost registry its versions, active pointers, states and audits back.

    A running trainer does so by itself; this is for when none runs, and to look first. What the
    registry still has is left as it is. Exit code 1: a task was refused or did not come back whole.
    """
    with open_registry() as (registry, settings):
        files = SavedFiles(store)
        keeper = Keeper(
            tasks=(),
            files=files,
            registry=registry.saver(),
            load=registry.load,
            announce=announcer(settings),
            clock=SystemClock(),
        )
        try:
            names = [checked_task(task) for task in tasks or files.tasks()]
            if not names:
                fail(f"nothing is saved in {store}; is TRACER_STORE the trainer's?")
            rows = [
                _row(task, keeper, files, registry, overwrite=overwrite, dry_run=dry_run)
                for task in names
            ]
        except OSError as error:
            fail(f"{store} cannot be read: {error}; is TRACER_STORE the trainer's?")
        _show(rows, json, dry_run=dry_run)
        try:
            keeper.tell()
        except (Retryable, Fatal) as error:
            fail(f"done in the registry, but not announced on `models`: {error}")
    if any(row.missing or row.done in (Done.REFUSED, Done.FAILED) for row in rows):
        raise typer.Exit(1)


def _row(
    task: str, keeper: Keeper, files: SavedFiles, registry: RedisRegistry,
    *, overwrite: bool, dry_run: bool,
) -> Row:  # fmt: skip
    """Judge one task and, unless `dry_run`, restore it."""
    saved, found = keeper.saved(task), keeper.registry.read(task)
    now = found.pointer.version
    if saved is None:
        there = STATE_FILE in files.names(task)
        why = "what is saved cannot be read" if there else "nothing is saved of it"
        return Row(task, Done.FAILED, why, now=now)
    if not saved.lost_from(found):
        return Row(task, Done.KEPT, "the registry has all that is saved", now, now=now)
    if _changed_since(saved, found) and not overwrite:
        return Row(
            task, Done.REFUSED,
            "the registry was changed after the last save; --overwrite puts the saved one back",
            now=now,
        )  # fmt: skip
    if dry_run:
        pointer = saved.pointer
        why = f"saved at epoch {pointer.epoch}"
        return Row(task, Done.RESTORED, why, pointer.version, pointer.state.value, now,
                   len(saved.order))  # fmt: skip
    started = SystemClock().monotonic()
    active = keeper.restore(saved)
    if active is None:  # a trainer was faster
        return Row(task, Done.KEPT, "the registry has all that is saved", now=now)
    versions = registry.versions(task)
    return Row(
        task, Done.RESTORED, f"epoch {active.epoch}", active.version, active.state.value, now,
        len(versions), tuple(version for version in saved.order if version not in versions),
        round(SystemClock().monotonic() - started, 3),
    )  # fmt: skip


def _changed_since(saved: SavedTask, found: SavedTask) -> bool:
    """Whether somebody has acted on what was left of the registry: that was a decision, too."""
    now, then = entries_of(found.history), entries_of(saved.history)
    return bool(now and then) and now[0].at > then[0].at


def _show(rows: Sequence[Row], json: bool, *, dry_run: bool) -> None:
    if json:
        print_json([asdict(row) | {"dry_run": dry_run} for row in rows])
        return
    for row in rows:
        console.print(f"{row.task}: {_sentence(row, dry_run=dry_run)}", soft_wrap=True)
        if row.missing:
            lost = ", ".join(row.missing)
            console.print(f"{row.task}: did not come back, not saved or damaged: {lost}")


def _sentence(row: Row, *, dry_run: bool) -> str:
    if row.done is not Done.RESTORED:
        return f"{row.done}: {row.why}; {row.now or 'nothing'} is active."
    verb = "would be restored" if dry_run else "restored"
    state = f" ({row.state})" if row.version else ""
    took = "" if dry_run else f", {row.seconds} s"
    return (
        f"{verb}: {row.now or 'nothing'} → {row.version or 'nothing'}{state} is active; "
        f"{row.versions} versions, {row.why}{took}."
    )
