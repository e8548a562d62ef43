"""`tracerctl explain`: why this one?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from services.ctl.output import console, fail, print_json, print_table
from services.ctl.paths import cache_folder
from services.ctl.registry_access import Json, open_registry
from services.ctl.tasks_file import task_in
from shared.encoder.base import Encoder, Tokenizing
from shared.encoder.cache import CachedEncoder
from shared.encoder.default import ensure_default_encoder
from shared.encoder.errors import EncoderError
from shared.explain.asking import TRACES, Explainer, Question, Unanswerable, open_encoder
from shared.explain.explanation import Explanation, Neighbour


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
    ] = TRACES,
    json: Json = False,
) -> None:
    """Why a text is answered or deferred: stages, words, nearest traces, what it would take."""
    with open_registry() as (registry, settings):
        known = task_in(settings.tasks, task)
        try:
            pieces, whole, lacking = _encoder(encoder)
            texts = (text, second) if second else (text,)
            found = Explainer(registry, pieces, whole, store, lacking).answer(
                Question(known, texts, version, traces)
            )
        except (Unanswerable, EncoderError) as error:
            fail(str(error))
    if json:
        print_json(asdict(found))
    else:
        _tell(found)


def _encoder(folder: Path | None) -> tuple[Tokenizing, Encoder | None, str | None]:
    cache = cache_folder()
    folder = folder or ensure_default_encoder(cache / "encoder")
    return open_encoder(folder, lambda made: CachedEncoder(made, cache / "embeddings.sqlite"))


def _tell(found: Explanation) -> None:
    console.print(found.summary)
    if found.overruled:
        console.print(f"Yet routers defer it at present: {found.overruled}.")
    print_table(
        f"stages of {found.version}",
        ["stage", "label", "next", "score", "from", "novelty", "cut", "answers"],
        [
            (s.stage, s.label, s.runner_up, s.accept, s.threshold, s.novelty,
             s.novelty_cut, "yes" if s.answers else "no")
            for s in found.stages
        ],
    )  # fmt: skip
    if found.words:
        ranked = sorted(found.words, key=lambda word: -abs(word.contribution))[:10]
        told = ", ".join(
            f"{word.text}{' (placeholder)' if word.placeholder else ''} {word.contribution:+.2f}"
            for word in ranked
        )
        console.print(
            f"Words that carried the lexical stage, for {found.words_for or ''} (+) or "
            f"{found.words_against or ''} (-): {told}"
        )
    _near("nearest handled", found.nearest_handled)
    _near("nearest deferred", found.nearest_deferred)
    if found.would_be_handled:
        console.print("What would have made it handled:")
        for sentence in found.would_be_handled:
            console.print(f"  {sentence}")
    for note in found.notes:
        console.print(note)


def _near(title: str, found: list[Neighbour]) -> None:
    if found:
        print_table(
            title,
            ["similarity", "text", "teacher", "surrogate", "why"],
            [
                (n.similarity, " / ".join(n.texts), n.teacher, n.said,
                 n.why)
                for n in found
            ],
        )  # fmt: skip
