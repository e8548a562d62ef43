"""A question as people put it, answered: the same for `tracerctl explain` and the console."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shared.contracts.report import PREVIEW_CHARS
from shared.contracts.tasks import Task
from shared.core.types import InvalidData
from shared.encoder.base import Encoder, Tokenizing
from shared.encoder.errors import BrokenEncoder, EncoderError
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.encoder.word_pieces import WordPieces
from shared.explain.explain import explain, explain_lexically
from shared.explain.explanation import Explanation
from shared.explain.neighbours import Trace
from shared.onnx.session import InvalidStage
from shared.redaction.load import InvalidRedactor, Redactor, load_redactor
from shared.registry.base import Active, Artifact, Registry, State
from shared.store.parquet import WindowStore

TRACES = 2_000  # of the newest so many are looked among

_SILENT = {
    State.PAUSED: "the version is paused, and the teacher answers everything until it is resumed",
    State.PROBATION: "the version is on probation, and the teacher answers until it is cleared",
    State.TRIPPED: "the version has tripped, and answers no more",
}


class Unanswerable(Exception):
    """The question cannot be answered here, or not as it is put; the message says what to do."""


@dataclass(frozen=True)
class Question:
    """texts: one, or two for a task of pairs. version: None for the active one. traces: of the
    newest stored ones so many are looked among."""

    task: Task
    texts: tuple[str, ...]
    version: str | None = None
    traces: int = TRACES


@dataclass(frozen=True)
class Explainer:
    """encoder: None where there is only the tokenizer, `pieces`; `lacking` then says why. store: of
    the trainer's windows, a folder or an address."""

    registry: Registry
    pieces: Tokenizing
    encoder: Encoder | None
    store: str
    lacking: str | None = None

    def answer(self, question: Question) -> Explanation:
        """Texts are redacted before anything looks at them, as the router does it; those of traces
        are shown as the task wants. Raises Unanswerable, or what the registry raises."""
        task = question.task
        active = self.registry.active(task.name)
        artifact = _artifact(self.registry, task.name, question.version or active.version)
        if artifact.manifest.encoder != self.pieces.digest:
            raise Unanswerable(
                f"{artifact.version} was made with encoder {artifact.manifest.encoder[:12]}, not "
                f"{self.pieces.digest[:12]}: name that one (--encoder, or TRACER_ENCODER)"
            )
        try:
            redact = load_redactor(task.redact)
            texts = tuple(redact(t) if redact else t for t in question.texts)
            found = self._found(texts, artifact, question)
        except (InvalidData, InvalidStage, InvalidRedactor, EncoderError, ValueError,
                OSError) as error:  # fmt: skip
            raise Unanswerable(str(error)) from error
        notes = list(found.notes)
        if texts != question.texts:
            notes.append("Personal data in the text was replaced before anything looked at it.")
        hidden = list(dict.fromkeys(word.text for word in found.words or () if word.placeholder))
        if hidden:
            notes.append(
                f"{' and '.join(hidden)}: no word of the text, but what stands for personal data. "
                "The surrogate learned it like a word, and has never seen what it stands for."
            )
        if not task.previews and (found.nearest_handled or found.nearest_deferred):
            notes.append("Texts of stored traces are not shown: the task's previews are off.")
        overruled = _overruled(active, artifact, task, found.label) if found.handled else None
        found = replace(found, notes=notes, overruled=overruled)
        return found.shown(lambda given: _shown(given, redact) if task.previews else ())

    def _found(self, texts: tuple[str, ...], artifact: Artifact, question: Question) -> Explanation:
        redacted = question.task.redact is not None
        if self.encoder is None:
            told = explain_lexically(texts, artifact, self.pieces, redacted=redacted)
            if told is None:
                raise Unanswerable(f"every stage of {artifact.version} needs it: {self.lacking}")
            note = f"Only the lexical stage is told, without nearest traces: {self.lacking}"
            return replace(told, notes=[note])
        traces = newest_traces(self.store, question.task, question.traces)
        told = explain(texts, artifact, self.encoder, traces, redacted=redacted)
        if traces or not question.traces:
            return told
        note = (
            f"There are no nearest traces: {self.store} holds none of {question.task.name}. It "
            "should be the trainer's store (--store, or TRACER_STORE)."
        )
        return replace(told, notes=[note])


def open_encoder(
    folder: Path, remembering: Callable[[Encoder], Encoder] = lambda encoder: encoder
) -> tuple[Tokenizing, Encoder | None, str | None]:
    """An artifact's tokenizer, its encoder, and None; or where the model is missing or damaged,
    the tokenizer, None, and why. Raises BrokenEncoder where not even that is there."""
    try:
        encoder = remembering(OnnxEncoder(folder, threads=None))
    except BrokenEncoder as error:
        return WordPieces.read(folder), None, str(error)
    return encoder, encoder, None


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


def _artifact(registry: Registry, task: str, version: str | None) -> Artifact:
    if version is None:
        raise Unanswerable(
            f"{task} has no active version: the teacher answers everything; name a version"
        )
    return registry.load(task, version)


def _shown(texts: Sequence[str], redact: Redactor | None) -> tuple[str, ...]:
    """What was stored before the task had a redactor is redacted now."""
    return tuple((redact(text) if redact else text)[:PREVIEW_CHARS] for text in texts)


def _overruled(active: Active, artifact: Artifact, task: Task, label: str) -> str | None:
    """What routers look at beside the version itself, in their order."""
    if artifact.version != active.version:
        return "this version is not the active one" + (
            ", but on trial" if active.trial and active.trial.version == artifact.version else ""
        )
    if active.state in _SILENT:
        return _SILENT[active.state]
    certified, asked = artifact.manifest.certificate.alpha, active.asked(task.alpha)
    if certified < asked:
        return f"α = {asked:g} is asked for, and the version is certified for {certified:g}"
    if task.labels and label not in task.labels:
        return f"{label} is no longer one of the task's labels"
    return None
