"""A task's traces as the core wants them: texts become embeddings, labels become indices."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from shared.contracts.manifest import Teacher
from shared.core.grouping import independent_groups, near_duplicate_groups
from shared.core.representation import pair_features
from shared.core.tokens import Tokens
from shared.core.training import TrainingSet
from shared.core.types import Floats, InvalidData, Mask, Matrix
from shared.encoder.base import Encoder, Tokenizing

FeatureKind = Literal["embedding", "pair_embedding"]

TOKENIZE_AT_ONCE = 4_096  # bounds the lists of word pieces that are held


@dataclass(frozen=True)
class Horizon:
    """The traces of one refit: one or two texts each and the teacher's label.

    evidence: bool[n], which traces may certify. weights: float64[n], how much traffic each stands
    for; all 1 if left out. heaviest: the largest weight there could have been. recent: bool[n],
    since a version was last tripped; None if none was. tripped: the versions these were deferred
    for, being tripped. answered_by: the teacher the evidence is of.
    stored: how many stored traces these were drawn from, where they are a reservoir; else None.
    ids: of the traces, where an incremental refit may follow. taxonomy: the labels that may be
    given; every label the teacher gave where it is empty.
    """

    inputs: Sequence[tuple[str, ...]]
    teacher: Sequence[str]
    evidence: Mask
    weights: Floats | None = None
    heaviest: float = 0.0
    recent: Mask | None = None
    tripped: frozenset[str] = frozenset()
    answered_by: Teacher = field(default_factory=Teacher)
    stored: int | None = None
    ids: Sequence[str] = ()
    taxonomy: frozenset[str] = frozenset()

    @property
    def labels(self) -> tuple[str, ...]:
        """What a surrogate of these traces may answer."""
        given = set(self.teacher)
        return tuple(sorted(given & self.taxonomy if self.taxonomy else given))

    @property
    def texts(self) -> list[str]:
        """Each input as one text, a pair's two in two lines: near-duplicates are found by it."""
        return ["\n".join(texts) for texts in self.inputs]

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: Sequence[int]) -> Horizon:
        """These traces only."""
        return replace(
            self,
            inputs=[self.inputs[i] for i in rows],
            teacher=[self.teacher[i] for i in rows],
            evidence=self.evidence[rows],
            weights=None if self.weights is None else self.weights[rows],
            recent=None if self.recent is None else self.recent[rows],
            ids=[self.ids[i] for i in rows] if self.ids else (),
        )

    def digest(self) -> str:
        """SHA-256 of the traces a surrogate was made of, in order."""
        sha = hashlib.sha256()
        for texts, teacher, evidence in zip(self.inputs, self.teacher, self.evidence, strict=True):
            for part in (*texts, teacher, str(bool(evidence))):
                data = part.encode(errors="surrogatepass")
                sha.update(len(data).to_bytes(8, "big"))
                sha.update(data)
        if self.weights is not None:
            sha.update(self.weights.astype("<f8").tobytes())
        return sha.hexdigest()


def of_one_kind(horizon: Horizon) -> tuple[Horizon, int]:
    """The horizon without the traces that have another number of texts than most have, and how
    many those were: a single stray pair must not keep a task of single texts from training."""
    if not len(horizon):
        return horizon, 0
    sizes = np.asarray([len(texts) for texts in horizon.inputs])
    usual = np.bincount(sizes).argmax()
    rows = np.flatnonzero(sizes == usual).tolist()
    if len(rows) == len(horizon):
        return horizon, 0
    kept = horizon.take(rows)
    return kept, len(horizon) - len(rows)


def feature_kind(inputs: Sequence[tuple[str, ...]]) -> FeatureKind:
    """Raises InvalidData when single texts and pairs are mixed."""
    sizes = {len(texts) for texts in inputs}
    if sizes <= {1}:
        return "embedding"
    if sizes == {2}:
        return "pair_embedding"
    raise InvalidData("input: the task mixes single texts and pairs; make it two tasks")


def encode_inputs(inputs: Sequence[tuple[str, ...]], encoder: Encoder) -> Matrix:
    """float32[n, d] for texts, float32[n, 4d] for pairs."""
    kind = feature_kind(inputs)
    if kind == "embedding":
        return encoder.encode([texts[0] for texts in inputs])
    return pair_features(
        encoder.encode([texts[0] for texts in inputs]),
        encoder.encode([texts[1] for texts in inputs]),
    )


def tokenize_inputs(inputs: Sequence[tuple[str, ...]], encoder: Tokenizing) -> list[list[int]]:
    """Each input's word pieces; a pair's are the first text's, then the second's."""
    rows = encoder.tokenize([texts[0] for texts in inputs])
    if feature_kind(inputs) == "pair_embedding":
        seconds = encoder.tokenize([texts[1] for texts in inputs])
        rows = [first + second for first, second in zip(rows, seconds, strict=True)]
    return rows


def input_tokens(inputs: Sequence[tuple[str, ...]], encoder: Tokenizing) -> Tokens:
    """The same as arrays, made a few thousand inputs at a time."""
    vocabulary = encoder.vocabulary
    feature_kind(inputs)  # of all: a part may be of one kind where the whole is not
    parts = (
        Tokens.of(tokenize_inputs(inputs[start : start + TOKENIZE_AT_ONCE], encoder), vocabulary)
        for start in range(0, len(inputs), TOKENIZE_AT_ONCE)
    )
    return Tokens.concatenate(parts, vocabulary)


def training_set(horizon: Horizon, encoder: Encoder) -> TrainingSet:
    """Raises InvalidData."""
    labels = horizon.labels
    index = {label: i for i, label in enumerate(labels)}
    return TrainingSet(
        features=encode_inputs(horizon.inputs, encoder),
        y=np.asarray([index.get(label, len(labels)) for label in horizon.teacher], dtype=np.int64),
        labels=labels,
        groups=independent_groups(near_duplicate_groups(horizon.texts)),
        evidence=horizon.evidence,
        weights=horizon.weights,
        heaviest=horizon.heaviest,
        tokens=input_tokens(horizon.inputs, encoder),
    )
