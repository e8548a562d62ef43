"""One version, loaded and ready to serve: the cascade of its stages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.contracts.events import Reason
from shared.contracts.manifest import Manifest, Stage
from shared.core.representation import pair_features
from shared.encoder.base import Encoder
from shared.onnx.cascade import Answers, CascadeSession, Features
from shared.onnx.session import InvalidStage, StageFailed
from shared.registry.base import Artifact

log = logging.getLogger(__name__)

# An artifact larger than this is refused before it is loaded.
MAX_STAGE_BYTES = 64 * 1024 * 1024


class UnusableArtifact(Exception):
    """This router cannot serve the version; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the surrogate makes of one input. The label is an answer only where the reason is
    `certified`; None where there is none to give.

    The score and the threshold are those of the stage that answered, or else of the last one."""

    reason: Reason
    label: str | None = None
    accept_score: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class LoadedVersion:
    """Everything needed to answer for one task; immutable, so that a swap is one assignment."""

    version: str
    manifest: Manifest
    cascade: CascadeSession

    @property
    def alpha(self) -> float:
        return self.manifest.certificate.alpha

    def answer(self, inputs: Sequence[tuple[str, ...]], encoder: Encoder) -> list[Answer]:
        """One answer per input (one or two texts each), in order. Texts are cut into word pieces
        once; only what the lexical stage leaves over is embedded. Where a graph fails nothing is
        answered: the teacher can, and a router that ended of it would read the same texts again."""
        n_texts = self.manifest.n_texts
        rows = [i for i, texts in enumerate(inputs) if len(texts) == n_texts]
        answers = [Answer(Reason.INVALID_INPUT)] * len(inputs)
        if rows:
            tokens, features = _prepare([inputs[i] for i in rows], encoder)
            try:
                said = self.cascade.answer(len(rows), tokens, features)
            except StageFailed as error:
                log.error("a batch is deferred: %s", error, extra={"version": self.version})
                return answers
            for i, row in enumerate(rows):
                answers[row] = self._answer(said, i)
        return answers

    def _answer(self, said: Answers, i: int) -> Answer:
        accept, threshold = float(said.accept[i]), float(said.threshold[i])
        number, labels = int(said.label[i]), self.manifest.labels
        # A trial of two rows does not show what a graph says of others.
        if not (np.isfinite(accept) and 0 <= number < len(labels)):
            return Answer(Reason.INVALID_INPUT)
        return Answer(_reason(said, i), labels[number], accept, threshold)


def _reason(said: Answers, i: int) -> Reason:
    if said.stage[i] >= 0:
        return Reason.CERTIFIED
    if said.novel[i]:
        return Reason.OUT_OF_DISTRIBUTION
    return Reason.LABEL_FLOOR if said.dropped[i] else Reason.BELOW_THRESHOLD


def load_version(
    version: str, artifact: Artifact, encoder: Encoder, *, threads: int
) -> LoadedVersion:
    """Check the artifact, load its stages and warm them up. Raises UnusableArtifact."""
    manifest = artifact.manifest
    if manifest.encoder != encoder.digest:
        raise UnusableArtifact(
            f"made for encoder {manifest.encoder[:12]}, this router runs {encoder.digest[:12]}: "
            "give trainer and routers the same encoder artifact"
        )
    for stage in manifest.stages:
        _check(stage, encoder)
    try:
        cascade = CascadeSession(manifest, artifact.blobs, threads=threads)
    except InvalidStage as error:
        raise UnusableArtifact(str(error)) from error
    return LoadedVersion(version, manifest, cascade)


def _check(stage: Stage, encoder: Encoder) -> None:
    if stage.bytes > MAX_STAGE_BYTES:
        raise UnusableArtifact(f"stage {stage.name} has {stage.bytes} bytes, too many")
    dim = {
        "token_ids": encoder.vocabulary,
        "embedding": encoder.dim,
        "pair_embedding": 4 * encoder.dim,
    }[stage.features]
    if stage.dim != dim:
        what = "word pieces" if stage.features == "token_ids" else "features"
        raise UnusableArtifact(f"stage {stage.name} takes {stage.dim} {what}, not {dim}")


def _prepare(
    inputs: Sequence[tuple[str, ...]], encoder: Encoder
) -> tuple[list[list[int]], Features]:
    """Word pieces of all inputs, and what embeds those asked for."""
    first = encoder.tokenize([texts[0] for texts in inputs])
    if len(inputs[0]) == 1:
        return first, lambda rows: encoder.encode_tokens([first[i] for i in rows])
    second = encoder.tokenize([texts[1] for texts in inputs])

    def features(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return pair_features(
            encoder.encode_tokens([first[i] for i in rows]),
            encoder.encode_tokens([second[i] for i in rows]),
        )

    return [a + b for a, b in zip(first, second, strict=True)], features
