"""One version, loaded and ready to serve: the cascade of its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.contracts.events import Reason
from shared.contracts.manifest import Manifest, Stage
from shared.core.representation import pair_features
from shared.encoder.base import Encoder
from shared.onnx.session import InvalidStage, StageSession
from shared.registry.base import Active, Artifact

# An artifact larger than this is refused before it is loaded.
MAX_STAGE_BYTES = 64 * 1024 * 1024


class UnusableArtifact(Exception):
    """This router cannot serve the version; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the surrogate makes of one input. `label` is None unless the reason is `certified`."""

    reason: Reason
    label: str | None = None
    accept_score: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class LoadedVersion:
    """Everything needed to answer for one task; immutable, so that a swap is one assignment."""

    active: Active
    manifest: Manifest
    sessions: tuple[StageSession, ...]

    @property
    def version(self) -> str:
        return self.active.version or ""

    def answer(self, inputs: Sequence[tuple[str, ...]], encoder: Encoder) -> list[Answer]:
        """One answer per input (one or two texts each), in order."""
        texts_needed = 2 if self.sessions[0].stage.features == "pair_embedding" else 1
        answers = [Answer(Reason.INVALID_INPUT)] * len(inputs)
        rows = [i for i, texts in enumerate(inputs) if len(texts) == texts_needed]
        if not rows:
            return answers
        features = _features([inputs[i] for i in rows], encoder)
        finite = np.isfinite(features).all(axis=1)
        for row, answer in zip(
            np.asarray(rows)[finite], self._cascade(features[finite]), strict=True
        ):
            answers[row] = answer
        return answers

    def _cascade(self, features: NDArray[np.float32]) -> list[Answer]:
        """Each stage answers what reaches its threshold and leaves the rest to the next."""
        answers = [Answer(Reason.BELOW_THRESHOLD)] * len(features)
        left = np.arange(len(features))
        for session in self.sessions:
            if not len(left):
                break
            scored = session.run(features[left])
            threshold = session.stage.threshold
            handled = scored.accept >= threshold
            for row, label, score, ok in zip(
                left, scored.label, scored.accept.tolist(), handled, strict=True
            ):
                answers[row] = Answer(
                    reason=Reason.CERTIFIED if ok else Reason.BELOW_THRESHOLD,
                    label=self.manifest.labels[label] if ok else None,
                    accept_score=score,
                    threshold=threshold,
                )
            left = left[~handled]
        return answers


def load_version(
    active: Active, artifact: Artifact, encoder: Encoder, *, threads: int
) -> LoadedVersion:
    """Check the artifact, load its stages and warm them up. Raises UnusableArtifact."""
    manifest = artifact.manifest
    if manifest.encoder != encoder.digest:
        raise UnusableArtifact(
            f"made for encoder {manifest.encoder[:12]}, this router runs {encoder.digest[:12]}: "
            "give trainer and routers the same encoder artifact"
        )
    sessions = tuple(_session(artifact, stage, encoder, threads) for stage in manifest.stages)
    return LoadedVersion(active, manifest, sessions)


def _session(artifact: Artifact, stage: Stage, encoder: Encoder, threads: int) -> StageSession:
    if stage.bytes > MAX_STAGE_BYTES:
        raise UnusableArtifact(f"stage {stage.name} has {stage.bytes} bytes, too many")
    dim = encoder.dim * (4 if stage.features == "pair_embedding" else 1)
    if stage.dim != dim:
        raise UnusableArtifact(f"stage {stage.name} takes {stage.dim} features, not {dim}")
    try:
        return StageSession(
            artifact.blobs[stage.blob], stage, n_labels=len(artifact.manifest.labels),
            threads=threads,
        )  # fmt: skip
    except InvalidStage as error:
        raise UnusableArtifact(str(error)) from error


def _features(inputs: Sequence[tuple[str, ...]], encoder: Encoder) -> NDArray[np.float32]:
    first = encoder.encode([texts[0] for texts in inputs])
    if len(inputs[0]) == 1:
        return first
    return pair_features(first, encoder.encode([texts[1] for texts in inputs]))
