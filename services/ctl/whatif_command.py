"""`tracerctl whatif`: what a candidate would have done on a past day, before it is deployed."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from services.ctl.environment import environment
from services.ctl.files import InvalidFile
from services.ctl.output import fail, print_json, progress
from services.ctl.past_day import NoSuchDay, Past, day_of_file, stored_day
from services.ctl.paths import cache_folder
from services.ctl.registry_access import open_registry
from services.ctl.scan import ProgressEncoder
from services.ctl.tasks_file import task_in
from services.ctl.whatif import what_if
from services.ctl.whatif_text import tell
from shared.contracts.events import MOST_DOLLARS
from shared.contracts.tasks import Task
from shared.core.types import InvalidData
from shared.encoder.base import Encoder
from shared.encoder.cache import CachedEncoder
from shared.encoder.default import ensure_default_encoder
from shared.encoder.errors import EncoderError
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.encoder.threads import usable_threads
from shared.onnx.parity import ParityError
from shared.onnx.session import InvalidStage
from shared.redaction.load import InvalidRedactor, check_redactors
from shared.registry.base import Artifact, RegistryError
from shared.registry.redis import connect
from shared.registry.trust import Trust


def whatif(
    task: Annotated[
        str | None, typer.Option(help="The task; with --data one of its own if left out.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Agreement to certify; default: the task's.", min=0.01,
                                   max=0.999),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(help="US dollars a call; default: what traces, else the task, say.", min=0,
                     max=MOST_DOLLARS),
    ] = None,
    day: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The day to replay; default: the newest."),
    ] = None,
    store: Annotated[
        str, typer.Option(envvar="TRACER_STORE", help="The trainer's store.")
    ] = "data/windows",
    data: Annotated[
        Path | None, typer.Option(help="Instead of the store: traces, one JSON object a line.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="A version to compare with; default: the active one, where there is."),
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(envvar="TRACER_ENCODER", help="Encoder artifact; default: MiniLM."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random part of a file.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:  # fmt: skip
    """Replay a past day against a candidate fitted on the days before. Nothing is published."""
    asked = _task(task, alpha, of_a_file=data is not None)
    try:
        past = _past(asked, day.date() if day else None, store, data, seed)
        cached = _encoder(encoder)
        other = _against(task, against, cached.digest)
        with progress() as bar:
            result = what_if(
                past, asked, ProgressEncoder(cached, bar),
                per_call=price, against=other, jobs=usable_threads(),
            )  # fmt: skip
    except (InvalidFile, InvalidData, InvalidStage, ParityError, EncoderError, NoSuchDay,
            OSError) as error:  # fmt: skip
        fail(str(error))
    result["task"] = task
    if json:
        print_json(result)
    else:
        tell(result)


def _task(name: str | None, alpha: float | None, *, of_a_file: bool) -> Task:
    """The task as it is configured, at the α asked for; a file needs none."""
    if name is None:
        if not of_a_file:
            fail("--task is missing: whose windows? Or try a file with --data", code=2)
        task = Task(name="whatif")
    else:
        tasks = environment().tasks
        task = task_in(tasks, name)
        try:
            check_redactors([task] if of_a_file else [])  # what is stored has been redacted
        except InvalidRedactor as error:
            fail(f"{tasks}: {error}", code=2)
    return task if alpha is None else msgspec.structs.replace(task, alpha=alpha)


def _encoder(folder: Path | None) -> Encoder:
    cache = cache_folder()
    folder = folder or ensure_default_encoder(cache / "encoder")
    return CachedEncoder(OnnxEncoder(folder, threads=None), cache / "embeddings.sqlite")


def _past(task: Task, day: date | None, store: str, data: Path | None, seed: int) -> Past:
    if data is not None:
        return day_of_file(data, task, day, seed=seed)
    return stored_day(store, task, day)


def _against(task: str | None, version: str | None, encoder: str) -> Artifact | None:
    """The version to compare with. One that is not asked for is left out where it cannot be had."""
    if task is None:
        if version is not None:
            fail("--against needs --task: whose version?", code=2)
        return None
    if version is None:
        return _active(task, encoder)
    with open_registry() as (registry, _):
        artifact = registry.load(task, version)
    if artifact.manifest.encoder != encoder:
        fail(f"--against {version}: made for another encoder; name it with --encoder")
    return artifact


def _active(task: str, encoder: str) -> Artifact | None:
    try:
        settings = environment()
        trust = Trust(settings.trusted_keys)
        registry = connect(settings.redis_url.get_secret_value(), trust=trust)
    except ValueError:
        return None
    try:
        active = registry.active(task).version
        artifact = None if active is None else registry.load(task, active)
    except (RegistryError, ValueError):
        return None
    finally:
        registry.close()
    return artifact if artifact and artifact.manifest.encoder == encoder else None
