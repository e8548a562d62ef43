"""A question answered as command and console put it, and the process that does it."""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pytest

from shared.contracts.events import Trace as StoredTrace
from shared.contracts.tasks import Task
from shared.encoder.default import ensure_default_encoder
from shared.encoder.errors import BrokenEncoder
from shared.encoder.word_pieces import WordPieces
from shared.explain.asking import Explainer, Question, Unanswerable, open_encoder
from shared.explain.explain import explain, explain_lexically
from shared.explain.wire import Answered, Asked, Fault, failed
from shared.explain.worker import ExplainSettings, answering, serve
from shared.registry.base import State, UnknownVersion
from shared.registry.memory import MemoryRegistry
from shared.store.parquet import WindowStore
from tests.doubles import HashEncoder
from tests.surrogates import LABELS, make_surrogate, text_of

AT = datetime(2026, 1, 5, tzinfo=UTC)
SECRET = "ann@example.org"
SURE, MUDDLE = "invoice charged payment", "invoice parcel"


@pytest.fixture(scope="module")
def registry() -> MemoryRegistry:
    """`support` is served; `plain` has no lexical stage; `none` has no version."""
    made = MemoryRegistry()
    for task, lexical in (("support", True), ("plain", False)):
        artifact = make_surrogate(HashEncoder(), threshold=0.9, task=task, lexical=lexical)
        made.publish(artifact, fence=made.acquire(task), at=AT, reason="")
    return made


@pytest.fixture
def store(tmp_path: Path) -> str:
    folder = str(tmp_path / "windows")
    WindowStore(folder).write("support", date(2026, 1, 5), [
        StoredTrace(id=f"t{i}", task="support", input=f"{text_of(LABELS[i % 3])} {SECRET}",
                    teacher=LABELS[i % 3], occurred_at=AT) for i in range(9)
    ])  # fmt: skip
    return folder


def explainer(registry: MemoryRegistry, store: str, *, whole: bool = True) -> Explainer:
    encoder = HashEncoder()
    if whole:
        return Explainer(registry, encoder, encoder, store)
    return Explainer(registry, encoder, None, store, "model.onnx is missing")


def test_texts_are_redacted_before_and_after(registry: MemoryRegistry, store: str) -> None:
    task = Task(name="support", redact="builtin")
    found = explainer(registry, store).answer(Question(task, (f"invoice for {SECRET}",)))
    assert found.texts == ("invoice for [EMAIL]",)
    near = found.nearest_handled + found.nearest_deferred
    assert near
    assert SECRET not in json.dumps(msgspec.to_builtins(found))
    assert any("Personal data" in note for note in found.notes)


def test_a_placeholder_is_told_from_a_word(registry: MemoryRegistry, store: str) -> None:
    task = Task(name="support", redact="builtin")
    for whole in (True, False):
        asking = explainer(registry, store, whole=whole)
        found = asking.answer(Question(task, (f"invoice for {SECRET}",)))
        assert [word.text for word in found.words or () if word.placeholder] == ["[EMAIL]"]
        assert any(note.startswith("[EMAIL]: no word") for note in found.notes)
        # Without a redactor it is what somebody wrote.
        plain = asking.answer(Question(Task(name="support"), ("invoice for [EMAIL]",)))
        assert not any(word.placeholder for word in plain.words or ())
        assert not any("no word" in note for note in plain.notes)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (State.PAUSED, "until it is resumed"),
        (State.PROBATION, "until it is cleared"),
        (State.TRIPPED, "answers no more"),
    ],
)
def test_what_keeps_a_version_from_answering_is_said(state: State, said: str, store: str) -> None:
    """Routers would defer what the version would handle: an explanation that says only half of
    that would be wrong."""
    made = MemoryRegistry()
    artifact = make_surrogate(HashEncoder(), threshold=0.9)
    made.publish(artifact, fence=made.acquire("support"), at=AT, reason="")
    question = Question(Task(name="support"), (SURE,))
    assert explainer(made, store).answer(question).overruled is None
    made.set_state("support", state, version=artifact.version, at=AT, reason="")
    found = explainer(made, store).answer(question)
    assert found.handled
    assert said in (found.overruled or "")
    # What it defers anyway is overruled by nothing.
    assert explainer(made, store).answer(replace(question, texts=(MUDDLE,))).overruled is None


def test_more_agreement_asked_for_and_labels_removed_are_said(store: str) -> None:
    made = MemoryRegistry()
    first = make_surrogate(HashEncoder(), threshold=0.9)
    second = make_surrogate(HashEncoder(), threshold=0.9, window="2026-01-06")
    for artifact in (first, second):
        made.publish(artifact, fence=made.acquire("support"), at=AT, reason="")
    asking = explainer(made, store)

    def overruled(task: Task, version: str | None = None) -> str:
        return asking.answer(Question(task, (SURE,), version)).overruled or ""

    assert overruled(Task(name="support")) == ""
    assert "not the active one" in overruled(Task(name="support"), first.version)
    assert "0.99 is asked for" in overruled(Task(name="support", alpha=0.99))
    assert "no longer one of" in overruled(Task(name="support", labels=("account", "delivery")))


def test_without_previews_no_stored_text_is_shown(registry: MemoryRegistry, store: str) -> None:
    task = Task(name="support", previews=False)
    found = explainer(registry, store).answer(Question(task, ("invoice",)))
    near = found.nearest_handled + found.nearest_deferred
    assert near
    assert all(n.texts == () for n in near)
    assert any("previews are off" in note for note in found.notes)


def test_a_store_that_holds_nothing_is_said(registry: MemoryRegistry, tmp_path: Path) -> None:
    question = Question(Task(name="support"), ("invoice",))
    found = explainer(registry, str(tmp_path / "nowhere")).answer(question)
    assert any("TRACER_STORE" in note for note in found.notes)
    assert not (tmp_path / "nowhere").exists()  # looking makes no folder


@pytest.mark.parametrize("text", [SURE, MUDDLE, "unheard of things"])
def test_without_the_model_the_lexical_part_is_told(
    registry: MemoryRegistry, store: str, text: str
) -> None:
    question = Question(Task(name="support"), (text,))
    part = explainer(registry, store, whole=False).answer(question)
    whole = explainer(registry, store).answer(question)
    assert part.stages == whole.stages[:1]
    assert (part.words, part.words_for) == (whole.words, whole.words_for)
    assert any("model.onnx is missing" in note for note in part.notes)
    if whole.stages[0].answers:
        assert (part.handled, part.label, part.summary) == (True, whole.label, whole.summary)
    else:
        assert part.handled is None
        assert "semantic, which cannot be asked here" in part.summary


def test_one_of_both_kinds_was_asked(registry: MemoryRegistry, store: str) -> None:
    """Or the test above would say less than it seems to."""
    task = Task(name="support")
    said = {
        explainer(registry, store, whole=False).answer(Question(task, (text,))).handled
        for text in (SURE, "unheard of things")
    }
    assert said == {True, None}


def test_words_are_for_the_label_of_their_stage(registry: MemoryRegistry, store: str) -> None:
    found = explainer(registry, store).answer(Question(Task(name="support"), (SURE,)))
    assert found.words_for == found.stages[0].label == "billing"
    assert found.words_against == found.stages[0].runner_up


@pytest.mark.parametrize(
    ("task", "texts", "whole", "said"),
    [
        ("none", ("a",), True, "no active version"),
        ("support", ("a", "b"), True, "takes one text"),
        ("support", ("a", "b"), False, "takes one text"),
        ("plain", ("a",), False, "every stage of .* needs it: model.onnx is missing"),
    ],
)
def test_what_cannot_be_answered_is_said(
    registry: MemoryRegistry, store: str, task: str, texts: tuple[str, ...], whole: bool, said: str
) -> None:
    asking = explainer(registry, store, whole=whole)
    with pytest.raises(Unanswerable, match=said):
        asking.answer(Question(Task(name=task), texts))


def test_another_encoder_tells_nothing(registry: MemoryRegistry, store: str) -> None:
    other = HashEncoder(digest="f" * 64)
    asking = Explainer(registry, other, other, store)
    with pytest.raises(Unanswerable, match="TRACER_ENCODER"):
        asking.answer(Question(Task(name="support"), ("a",)))
    with pytest.raises(UnknownVersion):
        asking.answer(Question(Task(name="support"), ("a",), version="2020-01-01-000000000000"))


def test_a_cascade_of_lexical_stages_alone_is_whole_without_an_encoder() -> None:
    artifact = make_surrogate(HashEncoder(), threshold=0.9)
    first = msgspec.structs.replace(artifact.manifest, stages=artifact.manifest.stages[:1])
    alone = type(artifact)(first.encode(), artifact.blobs)
    for text in (SURE, "unheard of things"):
        part = explain_lexically((text,), alone, HashEncoder())
        whole = explain((text,), alone, HashEncoder(), [])
        assert part is not None
        assert (part.handled, part.summary) == (whole.handled, whole.summary)


# --- the encoder's files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return ensure_default_encoder(tmp_path / "encoder")


def test_of_an_encoder_without_its_model_the_tokenizer_is_used(folder: Path) -> None:
    whole, encoder, lacking = open_encoder(folder)
    assert encoder is whole
    assert lacking is None
    (folder / "model.onnx").unlink()
    pieces, missing, lacking = open_encoder(folder)
    assert missing is None
    assert "model.onnx is missing" in (lacking or "")
    texts = ["Where is my parcel?", "", "\ud800 lone", "a" * 5_000]
    assert pieces.tokenize(texts) == whole.tokenize(texts)
    assert (pieces.digest, pieces.vocabulary) == (whole.digest, whole.vocabulary)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BrokenEncoder, match=r"tokenizer\.json"):
        WordPieces.read(folder)


# --- the process


def settings(tmp_path: Path, **more: object) -> ExplainSettings:
    (tmp_path / "tasks.yaml").write_text("tasks:\n  - name: support\n")
    known = {"tasks": tmp_path / "tasks.yaml", "store": str(tmp_path / "windows")} | more
    return ExplainSettings(**known)  # type: ignore[arg-type]


def test_a_process_without_an_encoder_says_what_to_set(tmp_path: Path) -> None:
    answer = answering(settings(tmp_path, encoder=tmp_path / "none"), tmp_path)
    found = answer(Asked(task="support", texts=("a",)))
    assert found.fault is Fault.PLACE
    assert "encoder.json is missing" in found.message
    assert "TRACER_ENCODER" in found.message


def test_without_the_libraries_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shared.explain.asking", None)
    found = answering(settings(tmp_path), tmp_path)(Asked(task="support", texts=("a",)))
    assert found.fault is Fault.PLACE
    assert "tracer-kafka[explain]" in found.message


def test_questions_are_answered_line_by_line_until_they_end() -> None:
    questions, ask = os.pipe()
    told, answers = os.pipe()

    def answer(asked: Asked) -> Answered:
        return failed(Fault.QUESTION, f"{asked.task}: {' / '.join(asked.texts)}")

    thread = threading.Thread(target=serve, args=(answer, questions, answers), kwargs={"idle": 20})
    thread.start()
    with os.fdopen(ask, "wb") as asking, os.fdopen(told, "rb") as hearing:
        for texts in (("one\ntwo",), ("a", "b")):
            asking.write(msgspec.json.encode(Asked(task="t", texts=texts)) + b"\n")
            asking.flush()
            found = msgspec.json.decode(hearing.readline(), type=Answered)
            assert found.message == f"t: {' / '.join(texts)}"
    thread.join(5)
    assert not thread.is_alive()


def test_a_process_nobody_asks_ends() -> None:
    questions, ask = os.pipe()
    told, answers = os.pipe()
    serve(lambda _: Answered(), questions, answers, idle=0.05)
    os.close(ask)
    os.close(told)
