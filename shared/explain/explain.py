"""Why a version answers a text, or does not: stage by stage, word by word, beside its nearest
traces, and what would have made it handled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shared.encoder.base import Encoder, Tokenizing
from shared.explain.explanation import Explanation, Neighbour, StageSaid, Word
from shared.explain.lexical_words import linear_of, words_of
from shared.explain.neighbours import Trace, neighbours
from shared.explain.reasons import stage_says
from shared.explain.units import units_of
from shared.fitting.horizon import encode_inputs, input_tokens
from shared.onnx.cascade import CascadeSession
from shared.onnx.session import Scored
from shared.registry.base import Artifact

MOST_WORDS = 60  # so many of a text are left out one by one
MOST_ENOUGH = 3


def explain(
    texts: tuple[str, ...], artifact: Artifact, encoder: Encoder, traces: Sequence[Trace],
    *, redacted: bool = False,
) -> Explanation:  # fmt: skip
    """texts: as the version would be asked, one or two. traces: stored ones to look among.
    redacted: the task has a redactor, whose placeholders are no words. Raises InvalidStage, and
    ValueError for another number of texts than the version is of."""
    session = _session(texts, artifact)
    features = encode_inputs([texts], encoder)
    said = session.every_stage(input_tokens([texts], encoder).rows(), features)
    stages = [_stage(artifact, i, one) for i, one in enumerate(said)]
    answering = next((stage for stage in stages if stage.answers), None)
    near = neighbours(features[0], traces, encoder, session)
    words = _words(texts, artifact, encoder, said, redacted)
    would = [] if answering else _would(texts, stages[-1], near[0], session, encoder, redacted)
    return Explanation(
        task=artifact.manifest.task,
        version=artifact.version,
        texts=texts,
        handled=answering is not None,
        answered_by=answering.stage if answering else None,
        label=(answering or stages[-1]).label,
        summary=_summary(answering, stages[-1]),
        stages=stages,
        words=words[0],
        words_for=words[1],
        words_against=words[2],
        nearest_handled=near[0],
        nearest_deferred=near[1],
        would_be_handled=would,
    )


def explain_lexically(
    texts: tuple[str, ...], artifact: Artifact, pieces: Tokenizing, *, redacted: bool = False
) -> Explanation | None:
    """What can be told with an encoder's tokenizer alone: the stages before the first that needs
    an embedding, and their words. None where there is no such stage. Raises as `explain`."""
    session = _session(texts, artifact)
    said = session.every_stage(input_tokens([texts], pieces).rows(), None)
    if not said:
        return None
    stages = [_stage(artifact, i, one) for i, one in enumerate(said)]
    answering = next((stage for stage in stages if stage.answers), None)
    unasked = [stage.name for stage in artifact.manifest.stages[len(said) :]]
    words = _words(texts, artifact, pieces, said, redacted)
    return Explanation(
        task=artifact.manifest.task,
        version=artifact.version,
        texts=texts,
        handled=True if answering else None if unasked else False,
        answered_by=answering.stage if answering else None,
        label=(answering or stages[-1]).label,
        summary=(
            _summary(answering, stages[-1])
            if answering or not unasked
            else f"The {stages[-1].stage} stage leaves it to {' and '.join(unasked)}, which cannot "
            f"be asked here; it would say {stages[-1].label} (next {stages[-1].runner_up}), "
            f"{stages[-1].why}."
        ),
        stages=stages,
        words=words[0],
        words_for=words[1],
        words_against=words[2],
        nearest_handled=[],
        nearest_deferred=[],
        would_be_handled=[],
    )


def _session(texts: tuple[str, ...], artifact: Artifact) -> CascadeSession:
    n_texts = artifact.manifest.n_texts
    if len(texts) != n_texts:
        raise ValueError(f"this version takes {'one text' if n_texts == 1 else 'two texts'}")
    return CascadeSession(artifact.manifest, artifact.blobs)


def _stage(artifact: Artifact, number: int, said: Scored) -> StageSaid:
    manifest = artifact.manifest
    stage, label = manifest.stages[number], manifest.labels[said.label[0]]
    accept, novelty = float(said.accept[0]), float(said.novelty[0])
    others = said.scores[0].astype(np.float64)
    others[said.label[0]] = -np.inf
    novel = None
    if novelty >= stage.novelty_cut:
        novel = f": novelty {novelty:.3f}, cut at {stage.novelty_cut:.3f}"
    answers, why = stage_says(
        label, accept, stage.threshold, novel=novel, dropped=label in manifest.deferred_labels
    )
    return StageSaid(
        stage=stage.name,
        label=label,
        runner_up=manifest.labels[int(others.argmax())],
        accept=round(accept, 4),
        threshold=round(stage.threshold, 4),
        novelty=round(novelty, 4),
        novelty_cut=stage.novelty_cut,
        answers=answers,
        why=why,
    )


def _summary(answering: StageSaid | None, last: StageSaid) -> str:
    if answering is not None:
        return f"Handled: the {answering.stage} stage answers {answering.label}, {answering.why}."
    return (
        f"Deferred to the teacher: the last stage, {last.stage}, would say {last.label} (next "
        f"{last.runner_up}); {last.why}."
    )


def _words(
    texts: tuple[str, ...], artifact: Artifact, pieces: Tokenizing, said: Sequence[Scored],
    redacted: bool,
) -> tuple[list[Word] | None, str | None, str | None]:  # fmt: skip
    """With the label they speak for and the one they speak against."""
    manifest = artifact.manifest
    for stage, one in zip(manifest.stages, said, strict=False):
        if stage.features == "token_ids":
            linear = linear_of(artifact.blobs[stage.blob], stage, len(manifest.labels))
            first, second = np.argsort(-one.scores[0], kind="stable")[:2].tolist()
            words = words_of(texts, pieces, linear, first, second, redacted=redacted)
            return words, manifest.labels[first], manifest.labels[second]
    return None, None, None


def _would(
    texts: tuple[str, ...],
    last: StageSaid,
    handled: Sequence[Neighbour],
    session: CascadeSession,
    encoder: Encoder,
    redacted: bool,
) -> list[str]:
    """The score that was missing; single words whose absence is enough; the nearest that is
    handled."""
    sentences = []
    if last.novelty >= last.novelty_cut:
        sentences.append(
            "Traces like it, labelled by the teacher: the surrogate has seen none, and a refit on "
            "some would change that."
        )
    elif last.label in session.manifest.deferred_labels:
        sentences.append(
            f"More agreement on {last.label}: with more traces it may reach the task's floor "
            "(`label_floor`); or a lower floor."
        )
    else:
        digits = 3 if f"{last.accept:.3f}" != f"{last.threshold:.3f}" else 4
        sentences.append(
            f"A score of {last.threshold:.{digits}f} instead of {last.accept:.{digits}f} at the "
            "last stage: more "
            f"traces that tell {last.label} from {last.runner_up}, or a lower α."
        )
    without = _enough_without(texts, session, encoder, redacted)
    if without:
        sentences.append(
            "Without "
            + " or without ".join(f"“{word}” (then {label})" for word, label in without)
            + "."
        )
    if handled:
        near = handled[0]
        sentences.append(f"The nearest trace that is handled gets {near.said}.")
    return sentences


def _enough_without(
    texts: tuple[str, ...], session: CascadeSession, encoder: Encoder, redacted: bool
) -> list[tuple[str, str]]:
    """Words of either text without any one of which it would be handled, and as what."""
    changed = []
    for at, text in enumerate(texts):
        words = [unit for unit in units_of(text, redacted=redacted) if not unit.is_mark]
        for word in words[:MOST_WORDS]:
            rest = (text[: word.start] + text[word.end :]).strip()
            if rest:
                changed.append((word.text, (*texts[:at], rest, *texts[at + 1 :])))
    if not changed:
        return []
    inputs = [rest for _, rest in changed]
    features = encode_inputs(inputs, encoder)
    said = session.answer(
        len(inputs), input_tokens(inputs, encoder).rows(), lambda rows: features[rows]
    )
    found = {
        word: session.manifest.labels[said.label[i]]
        for i, (word, _) in enumerate(changed)
        if said.stage[i] >= 0
    }
    return list(found.items())[:MOST_ENOUGH]
