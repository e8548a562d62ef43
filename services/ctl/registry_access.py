"""The registry for a command, and what a change by hand says: on `models`, and to the person."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from services.ctl.environment import environment
from services.ctl.output import console, fail, print_json
from shared.bus.base import Record
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka import KafkaPublisher
from shared.contracts.codec import encode
from shared.contracts.events import AnnouncementKind, ModelAnnouncement
from shared.contracts.topics import Topic
from shared.operating import Announce, announcement_of
from shared.registry.base import (
    HistoryEntry,
    RegistryError,
    StateChanged,
    TrippedVersion,
    UnknownVersion,
)
from shared.registry.redis import RedisRegistry, connect
from shared.registry.signatures import Signer
from shared.registry.trust import Trust, UntrustedArtifact
from shared.settings import ServiceSettings

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
TaskArgument = Annotated[str, typer.Argument(help="The task's name.")]
Reason = Annotated[str, typer.Option(help="Kept in the history.")]
By = Annotated[str | None, typer.Option(help="Who asks, announced; default: your login name.")]


@contextmanager
def open_registry(
    keyring: Path | None = None, signer: Signer | None = None
) -> Iterator[tuple[RedisRegistry, ServiceSettings]]:
    """The registry the environment names; its errors end the command with what to do.

    `keyring`: whose signatures count, in place of the environment's.
    """
    settings = environment()
    try:
        trust = Trust(keyring or settings.trusted_keys, signer)
        registry = connect(settings.redis_url.get_secret_value(), trust=trust)
    except ValueError as error:
        fail(f"TRACER_REDIS_URL: {error}", code=2)
    try:
        yield registry, settings
    except UnknownVersion as error:
        fail(f"{error}; see `tracerctl models list TASK`")
    except (TrippedVersion, StateChanged) as error:
        fail(f"{error}; see `tracerctl status`")
    except UntrustedArtifact as error:
        fail(f"{error}; see `tracerctl keys list`")
    except RegistryError as error:
        fail(f"{error}; is TRACER_REDIS_URL right?")
    except ValueError as error:  # a task name that is none
        fail(str(error), code=2)
    finally:
        registry.close()


def announcer(settings: ServiceSettings) -> Announce:
    """Sends an announcement to `models`. What it returns raises Retryable or Fatal."""

    def send(announcement: ModelAnnouncement) -> None:
        publisher = KafkaPublisher(
            bootstrap=settings.bootstrap_servers, client_config=settings.kafka
        )
        key = announcement.task.encode()
        publisher.publish([Record(settings.topic(Topic.MODELS), key, encode(announcement))])
        publisher.close()

    return send


def announce(settings: ServiceSettings, task: str, entry: HistoryEntry) -> None:
    """The registry has changed already; a broker that is away is said, not hidden."""
    try:
        announcer(settings)(announcement_of(task, entry))
    except (Retryable, Fatal) as error:
        fail(f"done in the registry, but not announced on `models`: {error}")


def tell(entry: HistoryEntry, task: str, json: bool, *, changed: bool) -> None:
    """`changed`: False when the task was that way already, since `entry`."""
    if json:
        print_json({"task": task, "changed": changed, **plain(entry)})
    elif not changed:
        console.print(f"{task}: nothing to change; the newest change is {entry.kind.value}.")
    else:
        console.print(f"{task}: {_outcome(entry)}")


def plain(entry: HistoryEntry) -> dict[str, Any]:
    """An entry as JSON has it."""
    return {**asdict(entry), "kind": entry.kind.value, "at": entry.at.isoformat(timespec="seconds")}


def _outcome(entry: HistoryEntry) -> str:
    match entry.kind:
        case AnnouncementKind.PAUSED:
            return f"{entry.version} is paused; everything is deferred to the teacher."
        case AnnouncementKind.RESUMED:
            return f"{entry.version} answers again."
        case AnnouncementKind.WITHDRAWN:
            return f"{entry.version} is no longer on trial."
        case AnnouncementKind.ALPHA:
            asked = "what the tasks file says" if entry.alpha is None else entry.alpha
            return f"α is {asked} from now on; the trainer refits at once."
    return f"{entry.previous or 'nothing'} → {entry.version or 'nothing'} is active."


def who(by: str | None) -> str:
    """`by`, or the login name. Never nobody: a change that nobody asked for is a rule's."""
    if by:
        return by
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"
