"""Our fit and cascade measured on the same job as the peer's: one JSON object on stdout.

    python benchmarks/our_worker.py JOB [--without-tokens]

JOB is the folder that `peer_worker.py` reads. One thread throughout. Embeddings are given to both;
word pieces are counted as part of routing, since the lexical stage needs the text.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from benchmarks.peer_worker import BATCH_ROWS, BATCHES, DEFAULT_ALPHA, SINGLE_ROWS, Clock, load
from benchmarks.peer_worker import peak_rss_mb as peak_rss_mb
from services.ctl.bench_gate import evaluate
from services.ctl.paths import cache_folder
from shared.core.fit import Fit, Settings, decide, prepare
from shared.core.gate import Refused
from shared.core.grouping import independent_groups, near_duplicate_groups
from shared.core.tokens import Tokens
from shared.core.training import TrainingSet
from shared.fitting.graphs import export_cascade, serve_as_onnx, unpublished
from shared.onnx.cascade import CascadeSession


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", type=Path)
    parser.add_argument(
        "--tokenizer", type=Path, default=cache_folder() / "encoder" / "tokenizer.json"
    )
    parser.add_argument("--without-tokens", action="store_true", help="no lexical scorer")
    chosen = parser.parse_args()
    job = json.loads((chosen.job / "job.json").read_text())
    tokenizer = None if chosen.without_tokens else Tokenizer.from_file(str(chosen.tokenizer))
    training, unseen = (training_set(chosen.job, part, tokenizer) for part in ("train", "test"))
    settings = Settings(alpha=DEFAULT_ALPHA, seed=job["seed"])
    started = Clock.now()
    prepared = prepare(training, settings, serve_as_onnx)
    if isinstance(prepared, Refused):
        raise SystemExit(prepared.reason)
    fitted = decide(prepared, settings)
    blobs = export(fitted, training)[1]
    spent = started.since()
    figures: dict[str, Any] = {
        "fit_cpu_seconds": spent.cpu,
        "fit_wall_seconds": spent.wall,
        "peak_rss_mb": peak_rss_mb(),
        "artifact_bytes": sum(map(len, blobs.values())),
    }
    outcomes = evaluate(training, unseen, "embedding", job["alphas"], settings)
    figures["alphas"] = [vars(outcome) for outcome in outcomes]
    if job["speed"]:
        figures |= speed(fitted, training, chosen.job, tokenizer, job["seed"])
    print(json.dumps(figures))
    return 0


def training_set(job: Path, part: str, tokenizer: Tokenizer | None) -> TrainingSet:
    """`train` or `test` rows of a job; labels are those of its training rows."""
    labels = tuple(sorted(set(load(job, "train_labels").tolist())))
    index = {label: i for i, label in enumerate(labels)}
    texts = load(job, f"{part}_texts").tolist()
    return TrainingSet(
        features=load(job, f"{part}_embeddings"),
        y=np.asarray([index[label] for label in load(job, f"{part}_labels").tolist()]),
        labels=labels,
        groups=independent_groups(near_duplicate_groups(texts)),
        evidence=np.ones(len(texts), dtype=np.bool_),
        tokens=None if tokenizer is None else Tokens.of(pieces(tokenizer, texts), 30_522),
    )


def pieces(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]


def export(fitted: Fit, training: TrainingSet):  # type: ignore[no-untyped-def]
    if fitted.cascade is None:
        raise SystemExit("refused")
    return export_cascade(fitted.cascade, training, "embedding", fitted.thresholds)


def speed(
    fitted: Fit, training: TrainingSet, job: Path, tokenizer: Tokenizer | None, seed: int
) -> dict[str, Any]:
    """The served cascade on embeddings, one row at a time and in batches."""
    stages, blobs = export(fitted, training)
    started = time.perf_counter()
    session = CascadeSession(unpublished(stages, training.labels), blobs)
    loaded = time.perf_counter() - started
    texts, embeddings = load(job, "test_texts"), load(job, "test_embeddings")

    def route(rows: np.ndarray) -> None:
        tokens = None if tokenizer is None else pieces(tokenizer, texts[rows].tolist())
        session.answer(len(rows), tokens, lambda left: embeddings[rows[left]])

    random = np.random.default_rng(seed)
    singles = random.integers(len(texts), size=(SINGLE_ROWS + 20, 1))
    batch = random.integers(len(texts), size=BATCH_ROWS)
    one = [1e3 * seconds(route, row) for row in singles][20:]
    many = [seconds(route, batch) for _ in range(BATCHES + 1)][1:]
    return {
        "load_seconds": loaded,
        "route_one_ms_p50": statistics.median(one),
        "route_one_ms_p99": float(np.percentile(one, 99)),
        "route_batch_rows_per_s": BATCH_ROWS / statistics.median(many),
    }


def seconds(route: Any, rows: np.ndarray) -> float:
    started = time.perf_counter()
    route(rows)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
