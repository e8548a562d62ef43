"""The same traces give the same bytes: in another order, from another cache, with other batches
and threads."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from services.ctl.sample.generator import generate
from shared.contracts.events import Trace
from shared.contracts.tasks import Task
from shared.encoder.cache import CachedEncoder
from shared.encoder.default import ensure_default_encoder
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.fitting.challenger import fit_challenger
from shared.fitting.stored import horizon_of
from shared.registry.base import Artifact
from shared.store.parquet import table_of

ROOT = Path(__file__).resolve().parents[3]
DAY = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def traces() -> list[Trace]:
    return [
        Trace(
            id=str(row["id"]),
            task="support",
            input=str(row["input"]),
            teacher=str(row["teacher"]),
            occurred_at=DAY + timedelta(seconds=i // 2),  # some at the same moment
        )
        for i, row in enumerate(generate(400, seed=3))
    ]


def fitted(traces: list[Trace], encoder: OnnxEncoder | CachedEncoder, blas: int) -> Artifact:
    with threadpool_limits(blas):
        made = fit_challenger(
            Task(name="support", alpha=0.7),
            date(2026, 1, 5),
            horizon_of(table_of(traces)),
            encoder,
            jobs=1,
        )
    assert made.artifact is not None, made.reason
    return made.artifact


def test_nothing_but_the_traces_decides_the_bytes(traces: list[Trace], tmp_path: Path) -> None:
    folder = ensure_default_encoder(ROOT / ".cache" / "encoder")
    plain = fitted(traces, OnnxEncoder(folder, threads=1), blas=1)
    shuffled = random.Random(1).sample(traces, len(traces))
    with CachedEncoder(OnnxEncoder(folder, threads=2), tmp_path / "embeddings.sqlite") as cached:
        for start in range(0, 150, 7):  # half a cache, filled in odd batches
            cached.encode([str(trace.input) for trace in shuffled[start : start + 7]])
        again = fitted(shuffled, cached, blas=2)
    assert again.manifest_bytes == plain.manifest_bytes
    assert again.blobs == plain.blobs
