"""`tracerctl explain`: why this one?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from services.ctl.files import InvalidFile
from services.ctl.output import console, fail, print_json, print_table
from services.ctl.paths import cache_folder
from services.ctl.registry_access import Json, open_registry
from shared.contracts.report import PREVIEW_CHARS
from shared.contracts.tasks import InvalidTasks, Task, load_tasks
from shared.core.types import InvalidData
from shared.encoder.base import Encoder
from shared.encoder.cache import CachedEncoder
from shared.encoder.default import ensure_default_encoder
from shared.encoder.errors import EncoderError
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.explain.explain import Explanation
from shared.explain.explain import explain as run_explain
from shared.explain.neighbours import Neighbour, Trace
from shared.fitting.report.texts import Texts
from shared.onnx.session import InvalidStage
from shared.redaction.load import InvalidRedactor, load_redactor
from shared.registry.base import Artifact, Registry
from shared.settings import ServiceSettings
from shared.store.parquet import WindowStore


def explain(
    text: Annotated[str, typer.Argument(help="The request's text.")],
    task: Annotated[str, typer.Option(help="The task it is of.")],
    second: Annotated[
        str | None, typer.Option(help="The second text, for a task of pairs.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="Default: the active one.")] = None,
    store: Annotated[
        str, typer.Option(envvar="TRACER_STORE", help="The trainer's store.")
    ] = "data/windows",
    encoder: Annotated[
        Path | None,
        typer.Option(envvar="TRACER_ENCODER", help="Encoder artifact; default: MiniLM."),
    ] = None,
    traces: Annotated[
        int, typer.Option(help="So many of the newest traces are looked among.", min=0)
    ] = 2_000,
    json: Json = False,
) -> None:
    """Why a text is answered or deferred: stages, words, nearest traces, what it would take."""
    with open_registry() as (registry, settings):
        known = _task(settings, task)
        artifact = _artifact(registry, task, version)
    try:
        redact = load_redactor(known.redact)
        given = tuple(redact(t) if redact else t for t in ([text, second] if second else [text]))
        cached = _encoder(encoder)
        if artifact.manifest.encoder != cached.digest:
            fail(
                f"{artifact.version} was made with encoder {artifact.manifest.encoder[:12]}, not "
                f"{cached.digest[:12]}; name it with --encoder"
            )
        found = run_explain(given, artifact, cached, newest_traces(store, known, traces))
    except (InvalidData, InvalidStage, InvalidRedactor, InvalidFile, EncoderError, ValueError,
            OSError) as error:  # fmt: skip
        fail(str(error))
    shown = Texts((), known.previews, redact)
    found = found.shown(
        lambda texts: tuple(shown.shown(t)[:PREVIEW_CHARS] for t in texts) if known.previews else ()
    )
    if json:
        print_json(asdict(found))
    else:
        _tell(found)


def newest_traces(store: str, task: Task, most: int) -> list[Trace]:
    """Of the store's newest days within the horizon, the newest traces first; none where there is
    no store."""
    if most == 0 or ("://" not in store and not Path(store).is_dir()):
        return []
    windows = WindowStore(store)
    found: list[Trace] = []
    for day in windows.days(task.name)[::-1][: task.horizon_days]:
        table = windows.read(task.name, [day])
        rows = zip(table["input"].to_pylist(), table["teacher"].to_pylist(), strict=True)
        found += [Trace(tuple(texts), teacher) for texts, teacher in rows][::-1]
        if len(found) >= most:
            break
    return found[:most]


def _task(settings: ServiceSettings, name: str) -> Task:
    try:
        known = load_tasks(settings.tasks)
    except InvalidTasks as error:
        fail(str(error))
    if name not in known:
        fail(f"--task {name}: not in {settings.tasks}; it has {', '.join(sorted(known))}", code=2)
    return known[name]


def _artifact(registry: Registry, task: str, version: str | None) -> Artifact:
    version = version or registry.active(task).version
    if version is None:
        fail(f"{task} has no active version: the teacher answers everything; name one: --version")
    return registry.load(task, version)


def _encoder(folder: Path | None) -> Encoder:
    cache = cache_folder()
    folder = folder or ensure_default_encoder(cache / "encoder")
    return CachedEncoder(OnnxEncoder(folder, threads=None), cache / "embeddings.sqlite")


def _tell(found: Explanation) -> None:
    console.print(escape(found.summary))
    print_table(
        f"stages of {found.version}",
        ["stage", "label", "next", "score", "certified from", "novelty", "cut", "answers"],
        [
            (s.stage, escape(s.label), escape(s.runner_up), s.accept, s.threshold, s.novelty,
             s.novelty_cut, "yes" if s.answers else "no")
            for s in found.stages
        ],
    )  # fmt: skip
    if found.words:
        ranked = sorted(found.words, key=lambda word: -abs(word.contribution))[:10]
        told = ", ".join(f"{escape(word.text)} {word.contribution:+.2f}" for word in ranked)
        console.print(
            f"Words that carried the lexical stage, for its label (+) or the next: {told}"
        )
    _near("nearest handled", found.nearest_handled)
    _near("nearest deferred", found.nearest_deferred)
    if found.would_be_handled:
        console.print("What would have made it handled:")
        for sentence in found.would_be_handled:
            console.print(f"  {escape(sentence)}")


def _near(title: str, found: list[Neighbour]) -> None:
    if found:
        print_table(
            title,
            ["similarity", "text", "teacher", "surrogate", "score"],
            [
                (n.similarity, escape(" / ".join(n.texts)), escape(n.teacher), escape(n.said),
                 n.accept)
                for n in found
            ],
        )  # fmt: skip
