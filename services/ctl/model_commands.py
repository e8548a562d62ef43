"""`tracerctl status`, `models` and `rollback`: what is served, what was, and going back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any

import typer

from services.ctl.environment import environment
from services.ctl.output import console, fail, print_json, print_table
from shared.bus.base import Record
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka import KafkaPublisher
from shared.clock import SystemClock
from shared.contracts.codec import encode
from shared.contracts.events import AnnouncementKind, ModelAnnouncement
from shared.contracts.tasks import InvalidTasks, load_tasks
from shared.contracts.topics import Topic
from shared.registry.base import HistoryEntry, Registry, RegistryError, UnknownVersion
from shared.registry.redis import connect
from shared.settings import ServiceSettings

app = typer.Typer(help="Versions of a task: list, show, retire.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
TaskArgument = Annotated[str, typer.Argument(help="The task's name.")]


def status(json: Json = False) -> None:
    """Every task, its active version and what that is certified for."""
    with _registry() as (registry, settings):
        try:
            tasks = load_tasks(settings.tasks)
        except InvalidTasks as error:
            fail(str(error))
        rows = [_status(registry, name, task.alpha) for name, task in tasks.items()]
    if json:
        print_json(rows)
        return
    print_table(
        "tasks",
        ["task", "α", "active version", "certified coverage", "agreement ≥", "versions"],
        [
            (r["task"], r["alpha"], r["active"] or "none",
             _percent(r["coverage"]), r["agreement_lower"] or "", r["versions"])
            for r in rows
        ],
    )  # fmt: skip
    if any(row["active"] is None for row in rows):
        console.print("Without an active version everything is deferred to the teacher.")


@app.command("list")
def list_versions(task: TaskArgument, json: Json = False) -> None:
    """The stored versions of a task, oldest first, and what happened to them."""
    with _registry() as (registry, _):
        active = registry.active(task)
        versions = [_version(registry, task, v, active.version) for v in registry.versions(task)]
        history = [_entry(entry) for entry in registry.history(task)]
    if json:
        print_json({"task": task, "active": active.version, "versions": versions,
                    "history": history})  # fmt: skip
        return
    print_table(
        f"versions of {task}",
        ["version", "active", "traces", "α", "coverage", "agreement ≥"],
        [
            (v["version"], "●" if v["active"] else "", v["n_traces"], v["alpha"],
             _percent(v["coverage"]), round(v["agreement_lower"], 4))
            for v in versions
        ],
    )  # fmt: skip
    print_table(
        "history, newest first",
        ["at", "what", "version", "before", "reason"],
        [(h["at"], h["kind"], h["version"] or "none", h["previous"] or "", h["reason"])
         for h in history],
    )  # fmt: skip


@app.command()
def show(task: TaskArgument, version: str) -> None:
    """The manifest of a version, as JSON. Its SHA-256s are checked."""
    with _registry() as (registry, _):
        manifest = registry.load(task, version).manifest_bytes
    typer.echo(manifest.decode())


@app.command()
def retire(task: TaskArgument, reason: str = "by hand", json: Json = False) -> None:
    """Leave the task without an active version: everything is deferred to the teacher."""
    with _registry() as (registry, settings):
        entry = registry.retire(task, at=SystemClock().now(), reason=reason)
        _announce(settings, task, entry)
    _tell(entry, task, json)


def rollback(
    task: TaskArgument,
    to: Annotated[str | None, typer.Option(help="The version; default: the one before.")] = None,
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "by hand",
    json: Json = False,
) -> None:
    """Make an earlier version active again; routers swap within a second."""
    with _registry() as (registry, settings):
        entry = registry.rollback(task, to=to, at=SystemClock().now(), reason=reason)
        _announce(settings, task, entry)
    _tell(entry, task, json)


@contextmanager
def _registry() -> Iterator[tuple[Registry, ServiceSettings]]:
    """The registry the environment names; its errors end the command with what to do."""
    settings = environment()
    try:
        registry = connect(settings.redis_url.get_secret_value())
    except ValueError as error:
        fail(f"TRACER_REDIS_URL: {error}")
    try:
        yield registry, settings
    except UnknownVersion as error:
        fail(f"{error}; see `tracerctl models list TASK`")
    except RegistryError as error:
        fail(f"{error}; is TRACER_REDIS_URL right?")
    except ValueError as error:  # a task name that is none
        fail(str(error), code=2)
    finally:
        registry.close()


def _announce(settings: ServiceSettings, task: str, entry: HistoryEntry) -> None:
    """The registry has changed already; a broker that is away is said, not hidden."""
    announcement = ModelAnnouncement(
        kind=AnnouncementKind(entry.kind),
        task=task,
        announced_at=entry.at,
        reason=entry.reason,
        version=entry.version,
        previous_version=entry.previous,
        epoch=entry.epoch,
    )
    record = Record(settings.topic(Topic.MODELS), task.encode(), encode(announcement))
    try:
        publisher = KafkaPublisher(
            bootstrap=settings.bootstrap_servers, client_config=settings.kafka
        )
        publisher.publish([record])
        publisher.close()
    except (Retryable, Fatal) as error:
        fail(f"done in the registry, but not announced on `models`: {error}")


def _tell(entry: HistoryEntry, task: str, json: bool) -> None:
    if json:
        print_json({"task": task, **_entry(entry)})
        return
    console.print(
        f"{task}: {entry.previous or 'nothing'} → {entry.version or 'nothing'} is active."
    )


def _status(registry: Registry, task: str, alpha: float) -> dict[str, Any]:
    active = registry.active(task)
    row: dict[str, Any] = {
        "task": task,
        "alpha": alpha,
        "active": active.version,
        "epoch": active.epoch,
        "coverage": None,
        "agreement_lower": None,
        "versions": len(registry.versions(task)),
    }
    if active.version:
        certificate = registry.load(task, active.version).manifest.certificate
        row |= {
            "coverage": round(certificate.coverage, 4),
            "agreement_lower": round(certificate.agreement_lower, 4),
        }
    return row


def _version(registry: Registry, task: str, version: str, active: str | None) -> dict[str, Any]:
    manifest = registry.load(task, version).manifest
    return {
        "version": version,
        "active": version == active,
        "window": manifest.window,
        "n_traces": manifest.n_traces,
        "alpha": manifest.certificate.alpha,
        "coverage": round(manifest.certificate.coverage, 4),
        "agreement_lower": manifest.certificate.agreement_lower,
    }


def _entry(entry: HistoryEntry) -> dict[str, Any]:
    return {**asdict(entry), "kind": entry.kind.value, "at": entry.at.isoformat(timespec="seconds")}


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
