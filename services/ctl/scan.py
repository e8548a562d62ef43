"""The core offline on one file: fit, certify, evaluate. No Kafka, no Redis, no network."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from services.ctl.encoded import encoded
from services.ctl.files import FIT_SPLITS, TEST_SPLIT, InvalidFile, Row
from shared.contracts.events import Label
from shared.contracts.report import Report
from shared.core.fit import Fit, Settings, fit
from shared.core.gate import Certified, Refused
from shared.core.training import TrainingSet
from shared.core.types import Mask
from shared.encoder.base import Encoder
from shared.encoder.wrapped import WrappedEncoder
from shared.fitting.artifact import candidates, families, make_artifact
from shared.fitting.challenger import Tried
from shared.fitting.graphs import serve_as_onnx
from shared.fitting.horizon import (
    Horizon,
    feature_kind,
    training_set,
)
from shared.fitting.report.build import Subject, make_report
from shared.onnx.cascade import Answers, CascadeSession
from shared.registry.base import Artifact

CHUNK = 256
SPLITS = "rows without a split and of train, dev and validation are fitted on"


@dataclass(frozen=True)
class Scan:
    """What `tracerctl scan` prints; coverage and agreement are those of the held-out rows. tried:
    the fit, for a report."""

    result: dict[str, Any]
    artifact: Artifact | None
    tried: Tried


class ProgressEncoder(WrappedEncoder):
    """Encodes in chunks and moves a progress bar."""

    def __init__(self, encoder: Encoder, bar: Progress) -> None:
        super().__init__(encoder)
        self._bar = bar

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        parts = [np.empty((0, self.dim), dtype=np.float32)]
        task = self._bar.add_task("encoding", total=len(texts))
        for start in range(0, len(texts), CHUNK):
            parts.append(self._encoder.encode(texts[start : start + CHUNK]))
            self._bar.advance(task, len(parts[-1]))
        return np.concatenate(parts)


def scan(rows: Sequence[Row], *, name: str, settings: Settings, encoder: Encoder) -> Scan:
    """Fit on the rows that are not `split: test`, evaluate on those that are.

    Rows of other splits (`oos_test`, …) are left out and counted; what share of them would be
    answered is said too. Raises InvalidFile, InvalidData and ParityError.
    """
    known = [row for row in rows if row.split in FIT_SPLITS]
    held_out = [row for row in rows if row.split == TEST_SPLIT]
    if not rows:
        raise InvalidFile(f"{name}: no rows, the file is empty")
    if not known:
        splits = ", ".join(sorted({f"`split: {row.split}`" for row in rows}))
        raise InvalidFile(f"{name}: no rows to fit on, all are of {splits}; {SPLITS}")
    horizon = Horizon(
        inputs=[row.texts for row in known],
        teacher=[row.teacher for row in known],
        evidence=np.ones(len(known), dtype=np.bool_),
    )
    _check_labels(known, name)
    training = training_set(horizon, encoder)
    started = time.perf_counter()
    fitted = fit(training, settings, serve_as_onnx)
    result = _verdict(fitted, settings, len(known))
    result["fit_seconds"] = round(time.perf_counter() - started, 2)
    others = [row for row in rows if row.split not in FIT_SPLITS | {TEST_SPLIT}]
    artifact = None
    if not result["refused"]:
        artifact = _export(fitted, training, horizon, encoder)
        result.update(_evaluate(artifact, held_out, others, encoder))
    result.update(
        n_test=len(held_out),
        left_out=dict(Counter(row.split for row in others)),
        encoder=encoder.digest,
        labels=len(training.labels),
    )
    return Scan(result, artifact, Tried(horizon, training, fitted))


def _check_labels(rows: Sequence[Row], name: str) -> None:
    """A version has no labels that events may not have: said before the fit, not after it."""
    for row in rows:
        try:
            msgspec.convert(row.teacher, Label)
        except msgspec.ValidationError as error:
            raise InvalidFile(f"{name}: row {row.id}: field `teacher`: {error}") from error


def report_of(scanned: Scan, *, name: str, settings: Settings) -> Report:
    """Of the fit of a scan, as the trainer would make it of a window's."""
    artifact, reason = scanned.artifact, scanned.result["reason"]
    subject = Subject(
        task="scan",
        window=name,
        version=artifact.version if artifact else None,
        refused=artifact is None,
        reason=reason or "certified offline; nothing was published",
        alpha=settings.alpha,
        delta=settings.delta,
    )
    notes = [f"{n} rows of split {split} were left out"
             for split, n in scanned.result["left_out"].items()]  # fmt: skip
    return make_report(subject, scanned.tried, notes=notes, seed=settings.seed, jobs=settings.jobs)


def _verdict(fitted: Fit, settings: Settings, n_traces: int) -> dict[str, Any]:
    verdict = fitted.verdict
    certified = isinstance(verdict, Certified)
    return {
        "refused": not certified,
        "reason": verdict.reason if isinstance(verdict, Refused) else None,
        "method": fitted.method,
        "evidence": verdict.kind,
        "alpha": settings.alpha,
        "delta": settings.delta,
        "n_traces": n_traces,
        "n_evidence": verdict.n_evidence,
        "coverage": None,
        "agreement": None,
        "certified_coverage": verdict.coverage if isinstance(verdict, Certified) else None,
        "certified_agreement_lower": (
            verdict.agreement_lower if isinstance(verdict, Certified) else None
        ),
        "candidates": list(candidates(fitted)),
        "families": list(families(fitted)),
        "frontier": [
            {
                "alpha": p.alpha,
                "coverage": p.coverage if isinstance(p, Certified) else 0.0,
                "agreement_lower": p.agreement_lower if isinstance(p, Certified) else None,
            }
            for p in fitted.frontier
        ],
    }


def _export(fitted: Fit, training: TrainingSet, horizon: Horizon, encoder: Encoder) -> Artifact:
    artifact, _ = make_artifact(
        fitted,
        training,
        task="scan",
        window="scan",  # a file's name may be none
        encoder_digest=encoder.digest,
        kind=feature_kind(horizon.inputs),
        traces_sha256=horizon.digest(),
    )
    return artifact


def _evaluate(
    artifact: Artifact, held_out: Sequence[Row], others: Sequence[Row], encoder: Encoder
) -> dict[str, Any]:
    """Coverage and agreement of the exported graphs, as a router would serve them."""
    session = CascadeSession(artifact.manifest, artifact.blobs)
    result: dict[str, Any] = {"answered_elsewhere": {}}
    for split in sorted({row.split or "" for row in others}):
        some = [row for row in others if row.split == split]
        _, said = _asked(some, session, encoder)
        result["answered_elsewhere"][split] = _share(said.stage >= 0, some)
    if not held_out:
        return result
    asked, said = _asked(held_out, session, encoder)
    handled = said.stage >= 0
    labels = artifact.manifest.labels
    agrees = np.asarray(
        [labels[i] == row.teacher for i, row in zip(said.label, asked, strict=True)]
    )
    names = np.asarray([*(stage.name for stage in artifact.manifest.stages), "nobody"])
    return result | {
        "coverage": _share(handled, held_out),
        "agreement": round(float(agrees[handled].mean()), 4) if handled.any() else None,
        "lexical_share": _share(names[said.stage] == "lexical", held_out),
        "novel_share": _share(said.novel & ~handled, held_out),
        "invalid_share": round(1.0 - len(asked) / len(held_out), 4),
    }


def _asked(
    rows: Sequence[Row], session: CascadeSession, encoder: Encoder
) -> tuple[list[Row], Answers]:
    """What the version answers to the rows of as many texts as it takes, which are these. A router
    defers the others."""
    asked = [row for row in rows if len(row.texts) == session.manifest.n_texts]
    return asked, encoded([row.texts for row in asked], encoder).answers(session)


def _share(these: Mask, rows: Sequence[Row]) -> float:
    return round(float(these.sum()) / len(rows), 4)
