"""What the router's benchmark measures on: Banking77, its certified version, the peer's job."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.ctl.files import Row, read_rows
from services.ctl.paths import cache_folder
from shared.contracts.tasks import Task
from shared.core.fit import Settings, fit
from shared.encoder.artifact import Precision
from shared.encoder.cache import CachedEncoder
from shared.encoder.default import ensure_default_encoder
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.encoder.quantise import quantise
from shared.fitting.artifact import make_artifact
from shared.fitting.challenger import fit_challenger
from shared.fitting.graphs import serve_as_onnx
from shared.fitting.horizon import Horizon
from shared.registry.base import Active, Artifact
from shared.registry.disk import DiskCopy

TASK = "banking77"
EMBEDDINGS = "banking77-embeddings"  # fitted without the lexical stage: embeddings in, as the peer
ALPHA = 0.95


@dataclass(frozen=True)
class Subject:
    """The published split: fitted on the training rows, measured on the test texts."""

    encoder: Path
    artifact: Artifact
    copies: Path  # DiskCopy of the artifact, and of a version on embeddings alone
    texts: list[str]
    teacher: list[str]
    job: Path  # for the peer: job.json and data.npz, as peer_worker reads them


def prepare(data: Path, folder: Path, *, keep: bool, precision: Precision = "float32") -> Subject:
    """Fit our version and write the peer's job into `folder`.

    `keep`: take what an earlier call left there for the same data and encoder.
    """
    rows = [row for row in read_rows(data) if not (row.split or "").startswith("oos")]
    train = [row for row in rows if row.split != "test"]
    test = [row for row in rows if row.split == "test"]
    encoder = ensure_default_encoder(cache_folder() / "encoder")
    if precision == "int8":
        encoder = _int8_of(encoder, folder / "encoder-int8", keep=keep)
    with CachedEncoder(OnnxEncoder(encoder), cache_folder() / "embeddings.sqlite") as cached:
        mark = hashlib.sha256(data.read_bytes() + cached.digest.encode()).hexdigest()
        folder = folder / mark[:16]
        job = folder / "job"
        job.mkdir(parents=True, exist_ok=True)
        if not (keep and (job / "data.npz").exists()):
            _write_job(job, train, test, cached)
        artifact = _fitted(train, cached, folder / "ours", keep=keep)
    teacher = [row.teacher for row in test]
    return Subject(encoder, artifact, folder / "ours", _texts(test), teacher, job)


def _int8_of(encoder: Path, folder: Path, *, keep: bool) -> Path:
    if not (keep and folder.exists()):
        quantise(encoder, folder)
    return folder


def _fitted(train: list[Row], encoder: CachedEncoder, folder: Path, *, keep: bool) -> Artifact:
    """As the trainer fits it; and once more without word pieces."""
    copies = DiskCopy(folder)
    kept = copies.load(TASK) if keep and copies.load(EMBEDDINGS) else None
    if kept is not None:
        return kept[1]
    horizon = Horizon(
        [row.texts for row in train], [row.teacher for row in train], np.ones(len(train), np.bool_)
    )
    jobs = os.cpu_count() or 1
    made = fit_challenger(
        Task(name=TASK, alpha=ALPHA), date(2026, 1, 5), horizon, encoder, jobs=jobs
    )
    if made.artifact is None or made.tried is None:
        raise SystemExit(f"refused: {made.reason}")
    training = replace(made.tried.training, tokens=None)
    alone, _ = make_artifact(
        fit(training, Settings(alpha=ALPHA, jobs=jobs), serve_as_onnx),
        training,
        task=EMBEDDINGS,
        window="2026-01-05",
        encoder_digest=encoder.digest,
        kind="embedding",
        traces_sha256=horizon.digest(),
    )
    for task, artifact in ((TASK, made.artifact), (EMBEDDINGS, alone)):
        copies.save(task, Active(version=artifact.version, epoch=1), artifact)
    return made.artifact


def _write_job(job: Path, train: list[Row], test: list[Row], encoder: CachedEncoder) -> None:
    arrays: dict[str, NDArray[np.generic]] = {}
    for part, rows in (("train", train), ("test", test)):
        arrays[f"{part}_texts"] = np.asarray(_texts(rows))
        arrays[f"{part}_labels"] = np.asarray([row.teacher for row in rows])
        arrays[f"{part}_embeddings"] = encoder.encode(_texts(rows))
    np.savez(job / "data.npz", **arrays)  # type: ignore[arg-type]
    (job / "job.json").write_text(json.dumps({"alphas": [ALPHA], "seed": 0, "speed": False}))


def _texts(rows: list[Row]) -> list[str]:
    return [row.texts[0] for row in rows]
