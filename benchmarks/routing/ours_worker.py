"""Our router in one process, and the bounds no design passes: one JSON on stdout.

    python -m benchmarks.routing.ours_worker JOB --encoder FOLDER --copies FOLDER

Every pass over the texts meets a router that has seen none of them: each test text once, nothing
remembered. Figures are medians over the passes. `handler` is what the router does with messages,
JSON in and JSON out; `answer` is the version alone, texts in and answers out, as the peer's calls.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer_worker import load, peak_rss_mb
from benchmarks.routing.subject import EMBEDDINGS, TASK
from benchmarks.routing.versions import lexical_off
from services.router.handlers import Router, Topics
from services.router.serving import Serving
from services.router.surrogate import LoadedVersion, load_version
from shared.bus.base import Message
from shared.clock import SystemClock
from shared.contracts.codec import encode
from shared.contracts.events import Reason, Request
from shared.contracts.tasks import Task
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.encoder.threads import usable_threads
from shared.onnx.cascade import CascadeSession
from shared.registry.base import Artifact
from shared.registry.disk import DiskCopy
from shared.rejecting import rejecting

SINGLES = 600
PASSES = 5
BATCH = 256
BUDGETS = (256, 512, 1024, 2048)


@dataclass(frozen=True)
class Bench:
    texts: list[str]
    labels: list[str]
    passes: int

    def per_second(self, run: Callable[[], object], n: int | None = None) -> float:
        """Rows a second, the median pass; one pass before it does not count."""
        seconds = [_seconds(run) for _ in range(self.passes + 1)][1:]
        return (n or len(self.texts)) / statistics.median(seconds)

    def cpu_per_1000(self, run: Callable[[], object]) -> float:
        started = time.process_time()
        for _ in range(self.passes):
            run()
        return 1000 * (time.process_time() - started) / (self.passes * len(self.texts))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("job", type=Path)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--copies", type=Path, required=True, help="DiskCopy of the version")
    parser.add_argument("--quick", action="store_true", help="fewer texts and passes")
    chosen = parser.parse_args()
    texts, labels = (load(chosen.job, f"test_{name}").tolist() for name in ("texts", "labels"))
    bench = Bench(texts, labels, PASSES)
    if chosen.quick:
        bench = Bench(texts[:600], labels[:600], 2)
    kept, alone = (DiskCopy(chosen.copies).load(task) for task in (TASK, EMBEDDINGS))
    if kept is None or alone is None:
        raise SystemExit(f"{chosen.copies} has no version of {TASK} or of {EMBEDDINGS}")
    threads = usable_threads()
    encoder = OnnxEncoder(chosen.encoder, threads=threads)
    version = load_version("ours", kept[1], encoder, threads=threads)
    without = load_version("without", lexical_off(kept[1]), encoder, threads=threads)
    found = {"threads": threads} | text_in(bench, version, without, encoder)
    found |= handler(bench, version, encoder) | {"memory_mb": peak_rss_mb()}
    found |= bounds(bench, chosen.encoder, threads)  # many encoders: after the memory was read
    found |= embeddings_in(bench, alone[1], chosen.job)
    print(json.dumps(found))
    return 0


def bounds(bench: Bench, folder: Path, threads: int) -> dict[str, Any]:
    """The tokenizer alone; the encoder alone at its best of batch sizes and threads."""
    grid = {}
    for n in sorted({1, threads}):
        for budget in BUDGETS:
            encoder = OnnxEncoder(folder, threads=n, batch_tokens=budget)
            tokens = encoder.tokenize(bench.texts)
            short = Bench(bench.texts, bench.labels, max(1, bench.passes // 2))
            rate = short.per_second(lambda e=encoder, t=tokens: e.encode_tokens(t))  # type: ignore[misc]
            grid[f"{n} threads, {budget} tokens a batch"] = rate
    return {
        "tokenizer_per_s": bench.per_second(lambda: encoder.tokenize(bench.texts)),
        "encoder_grid": grid,
        "encoder_per_s": max(grid.values()),
    }


def text_in(
    bench: Bench, version: LoadedVersion, without: LoadedVersion, encoder: OnnxEncoder
) -> dict[str, Any]:
    inputs = [(text,) for text in bench.texts]
    rows = np.random.default_rng(0).permutation(len(inputs))[: SINGLES + 20]
    ones = [_seconds(lambda i=i: version.answer([inputs[i]], encoder)) for i in rows][20:]  # type: ignore[misc]
    said = version.answer(inputs, encoder)
    handled = np.asarray([answer.reason is Reason.CERTIFIED for answer in said])
    agreed = np.asarray([a.label == b for a, b in zip(said, bench.labels, strict=True)])
    stages = version.cascade.answer(
        len(inputs), encoder.tokenize(bench.texts),
        lambda left: encoder.encode_tokens(encoder.tokenize([bench.texts[i] for i in left])),
    ).stage  # fmt: skip
    return {
        "text_batch_per_s": bench.per_second(lambda: version.answer(inputs, encoder)),
        "text_batch_cpu_s_per_1000": bench.cpu_per_1000(lambda: version.answer(inputs, encoder)),
        "text_batch_lexical_off_per_s": bench.per_second(lambda: without.answer(inputs, encoder)),
        "text_batch_lexical_off_cpu_s_per_1000": bench.cpu_per_1000(
            lambda: without.answer(inputs, encoder)
        ),
        "text_one_ms_p50": 1000 * statistics.median(ones),
        "text_one_ms_p99": 1000 * float(np.percentile(ones, 99)),
        "lexical_share": float((stages == 0).mean()),
        "coverage": float(handled.mean()),
        "agreement": float(agreed[handled].mean()),
        "certified_coverage": version.manifest.certificate.coverage,
    }


def handler(bench: Bench, version: LoadedVersion, encoder: OnnxEncoder) -> dict[str, Any]:
    """Messages to records, in the batches the pipe would hand over."""
    clock = SystemClock()
    router = Router(
        tasks={TASK: Task(name=TASK)},
        serving=lambda: {TASK: Serving(version)},
        encoder=encoder,
        clock=clock,
        topics=Topics("decisions", "deferred"),
        dead_letter=rejecting("router", "dead-letters", clock),
    )
    messages = [
        Message(
            "requests", 0, i, str(i).encode(), encode(Request(id=str(i), task=TASK, input=text))
        )
        for i, text in enumerate(bench.texts)
    ]

    def run() -> None:
        for start in range(0, len(messages), BATCH):
            router(messages[start : start + BATCH])

    return {
        "handler_per_s": bench.per_second(run),
        "handler_cpu_s_per_1000": bench.cpu_per_1000(run),
    }


def embeddings_in(bench: Bench, alone: Artifact, job: Path) -> dict[str, Any]:
    """A version without a lexical stage, given embeddings, as the peer is."""
    manifest = alone.manifest
    session = CascadeSession(manifest, alone.blobs, threads=usable_threads())
    embeddings = load(job, "test_embeddings")[: len(bench.texts)]

    def route(rows: np.ndarray) -> object:
        return session.answer(len(rows), None, rows.__getitem__)

    order = np.random.default_rng(0).permutation(len(embeddings))[: SINGLES + 20]
    singles = [embeddings[[i]] for i in order]  # in the caller's hand, as the peer's are
    ones = [_seconds(lambda row=row: route(row)) for row in singles][20:]  # type: ignore[misc]
    found = session.answer(len(embeddings), None, lambda left: embeddings[left])
    handled = found.stage >= 0
    labels = np.asarray(manifest.labels)[found.label]
    return {
        "embedding_one_ms_p50": 1000 * statistics.median(ones),
        "embedding_one_ms_p99": 1000 * float(np.percentile(ones, 99)),
        "embedding_batch_per_s": bench.per_second(lambda: route(embeddings)),
        "embedding_coverage": float(handled.mean()),
        "embedding_agreement": float((labels == np.asarray(bench.labels))[handled].mean()),
    }


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
