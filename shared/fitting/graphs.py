"""A fitted cascade as ONNX graphs, and what those graphs say of training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from shared.contracts.events import CertificateSummary
from shared.contracts.manifest import Manifest, Stage, sha256
from shared.core.candidates import FeatureScorer, LexicalStageScorer
from shared.core.cascade import Cascade, Outputs, StageModel
from shared.core.head import Head, Linear, mix
from shared.core.landmark_ridge import LandmarkRidge
from shared.core.training import TrainingSet
from shared.core.types import Scores
from shared.fitting.horizon import FeatureKind
from shared.onnx.cascade import CascadeSession
from shared.onnx.export import export_classifier, export_lexical
from shared.onnx.landmark import register_landmark_ridge
from shared.onnx.parity import Parity, check_parity
from shared.onnx.session import Scored
from shared.onnx.weights import HeadWeights, LexicalWeights, LinearWeights

PARITY_ROWS = 2_000
ROWS_AT_ONCE = 1_024  # bounds what the graphs hold at a time

register_landmark_ridge(LandmarkRidge)


def export_cascade(
    cascade: Cascade, training: TrainingSet, kind: FeatureKind, thresholds: Sequence[float]
) -> tuple[tuple[Stage, ...], dict[str, bytes]]:
    """Every stage as a graph: their entries in a manifest, and the blobs by SHA-256."""
    stages, blobs = [], {}
    for i, (model, threshold) in enumerate(zip(cascade.stages, thresholds, strict=True)):
        earlier = tuple(stage.name for stage in cascade.stages[:i])
        blob = _export(model, earlier, training, cascade.n_labels)
        lexical = isinstance(model.scorer, LexicalStageScorer)
        vocabulary = training.tokens.vocabulary if training.tokens is not None else 0
        stages.append(
            Stage(
                name=model.name,
                features="token_ids" if lexical else kind,
                blob=sha256(blob),
                bytes=len(blob),
                dim=vocabulary if lexical else training.features.shape[1],
                threshold=threshold,
                novelty_cut=model.novelty_cut,
                scores_of=earlier,
            )
        )
        blobs[stages[-1].blob] = blob
    return tuple(stages), blobs


def serve_as_onnx(cascade: Cascade, rows: TrainingSet) -> Outputs:
    """What the exported graphs say: `shared.core.fit` certifies this."""
    thresholds = [0.0] * len(cascade.stages)
    stages, blobs = export_cascade(cascade, rows, "embedding", thresholds)
    return outputs_of(stages, run_graphs(stages, blobs, rows))


def outputs_of(stages: Sequence[Stage], said: Sequence[Scored]) -> Outputs:
    """What the stages' graphs said, as the core takes it."""
    return Outputs(
        label=np.stack([s.label for s in said], axis=1),
        accept=np.stack([s.accept.astype(np.float64) for s in said], axis=1),
        novel=np.stack(
            [s.novelty >= stage.novelty_cut for s, stage in zip(said, stages, strict=True)], axis=1
        ),
    )


def run_graphs(
    stages: tuple[Stage, ...], blobs: Mapping[str, bytes], rows: TrainingSet
) -> list[Scored]:
    """All stages on all rows."""
    session = CascadeSession(unpublished(stages, rows.labels), blobs)
    parts = []
    for start in range(0, max(len(rows), 1), ROWS_AT_ONCE):
        some = rows.take(np.arange(start, min(start + ROWS_AT_ONCE, len(rows))))
        tokens = None if some.tokens is None else some.tokens.rows()
        parts.append(session.every_stage(tokens, some.features))
    return [
        Scored(*(np.concatenate(values) for values in zip(*of_stage, strict=True)))
        for of_stage in zip(*parts, strict=True)
    ]


def parity_of(
    cascade: Cascade, stages: tuple[Stage, ...], blobs: Mapping[str, bytes], training: TrainingSet
) -> tuple[Parity, ...]:
    """Of each stage, on training rows. Raises ParityError."""
    rows = training.take(
        np.linspace(0, len(training) - 1, min(len(training), PARITY_ROWS)).astype(np.int64)
    )
    found: list[Parity] = []
    scores: list[Scores] = []
    for model, said in zip(cascade.stages, run_graphs(stages, blobs, rows), strict=True):
        scores.append(model.scorer.scores(rows))
        expected = model.head(scores)
        best_two = np.sort(mix(model.head.mixture, scores), axis=1)[:, -2:]
        found.append(
            check_parity(
                said,
                labels=expected.label,
                lead=best_two[:, 1] - best_two[:, 0],
                scores=scores[-1].astype(np.float64),
                accept=expected.accept,
                novelty=expected.novelty,
            )
        )
    return tuple(found)


def _export(
    model: StageModel, earlier: tuple[str, ...], training: TrainingSet, n_labels: int
) -> bytes:
    head = _head_weights(model.head)
    scorer = model.scorer
    if isinstance(scorer, LexicalStageScorer):
        features = scorer.model.features
        return export_lexical(
            LexicalWeights(
                unigrams=features.unigrams,
                bigrams=features.bigrams,
                codes=features.codes,
                squares=features.weights**2,
                coefficients=scorer.model.coefficients,
                bias=scorer.model.bias,
            ),
            head,
        )
    if not isinstance(scorer, FeatureScorer):
        raise TypeError(f"no graph for a {type(scorer).__name__}")
    return export_classifier(
        scorer.estimator,
        head,
        dim=training.features.shape[1],
        n_labels=n_labels,
        unseen=scorer.unseen,
        earlier=earlier,
    )


def _head_weights(head: Head) -> HeadWeights:
    return HeadWeights(
        head.mixture, head.reliability, _linear(head.acceptor), _linear(head.novelty)
    )


def _linear(linear: Linear) -> LinearWeights:
    return LinearWeights(linear.coefficients, linear.intercept)


def unpublished(
    stages: tuple[Stage, ...], labels: Sequence[str], deferred_labels: Sequence[str] = ()
) -> Manifest:
    """A manifest to run stages with that are not published (yet)."""
    nothing = CertificateSummary(
        kind="crossfit", alpha=0.5, delta=0.5, method="", n_evidence=0,
        coverage=0.0, agreement=0.0, agreement_lower=0.0,
    )  # fmt: skip
    return Manifest(
        task="trial", window="", encoder="0" * 64, labels=tuple(labels), stages=stages,
        deferred_labels=tuple(deferred_labels), certificate=nothing, frontier=(),
        n_traces=0, traces_sha256="0" * 64,
    )  # fmt: skip
