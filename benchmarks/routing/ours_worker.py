"""Our router in one process, and the bounds no design passes: one JSON on stdout.

    python -m benchmarks.routing.ours_worker JOB --encoder FOLDER --copies FOLDER

Every pass over the texts meets a router that has seen none of them: each test text once, nothing
remembered. Figures are medians of rounds (`benchmarks.routing.rounds`). `handler` is what the
router does with messages, JSON in and JSON out; `answer` is the version alone, texts in and answers
out, as the peer's calls.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer_worker import load, peak_rss_mb
from benchmarks.routing.rounds import Pass, Run, in_rounds, timed
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
from shared.onnx.cascade import Answers, CascadeSession
from shared.registry.base import Artifact
from shared.registry.disk import DiskCopy
from shared.rejecting import rejecting

SINGLES = 600
ROUNDS = 3
BATCH = 256
BUDGETS = (256, 512, 1024, 2048)
CONTENDERS = 3  # of the bare encoder's settings, the fastest of one pass
REPEATS = 10  # embeddings in are through in 40 ms


@dataclass(frozen=True)
class Bench:
    texts: list[str]
    labels: list[str]
    rounds: int

    @property
    def inputs(self) -> list[tuple[str]]:
        return [(text,) for text in self.texts]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("job", type=Path)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--copies", type=Path, required=True, help="DiskCopy of the version")
    parser.add_argument("--quick", action="store_true", help="fewer texts and passes")
    chosen = parser.parse_args()
    texts, labels = (load(chosen.job, f"test_{name}").tolist() for name in ("texts", "labels"))
    bench = Bench(texts, labels, ROUNDS)
    if chosen.quick:
        bench = Bench(texts[:600], labels[:600], 2)
    kept, alone = (DiskCopy(chosen.copies).load(task) for task in (TASK, EMBEDDINGS))
    if kept is None or alone is None:
        raise SystemExit(f"{chosen.copies} has no version of {TASK} or of {EMBEDDINGS}")
    threads = usable_threads()
    encoder = OnnxEncoder(chosen.encoder, threads=threads)
    version = load_version("ours", kept[1], encoder, threads=threads)
    handle = handler(bench, version, encoder)
    found = {"threads": threads} | text_in(bench, version, encoder)
    handle.call()
    found["memory_mb"] = peak_rss_mb()  # before what only the comparison needs
    without = load_version("without", lexical_off(kept[1]), encoder, threads=threads)
    embedded = load(chosen.job, "test_embeddings")[: len(bench.texts)]
    alone_found, route = embeddings_in(bench, alone[1], embedded)
    inputs, n = bench.inputs, len(bench.texts)
    runs = {
        "text_batch": Run(lambda: version.answer(inputs, encoder), n),
        "text_batch_lexical_off": Run(lambda: without.answer(inputs, encoder), n),
        "handler": handle,
        "embedding_batch": route,
        "tokenizer": Run(lambda: encoder.tokenize(bench.texts), n),
    }
    settings = bare_encoders(bench, chosen.encoder, threads)
    found |= alone_found | figures(in_rounds(runs | settings, bench.rounds), settings)
    print(json.dumps(found))
    return 0


def figures(passes: Mapping[str, Sequence[Pass]], settings: Collection[str]) -> dict[str, Any]:
    """Medians of the rounds. The bare encoder is the one of `settings` with the best median."""
    rates = {name: statistics.median(one.per_s for one in some) for name, some in passes.items()}
    best = max(settings, key=rates.__getitem__)
    found: dict[str, Any] = {
        "encoder_setting": best,  # a word, as rounds may differ in it
        "encoder_per_s": rates[best],
        "text_batch_of_encoder": statistics.median(
            ours.per_s / bare.per_s
            for ours, bare in zip(passes["text_batch"], passes[best], strict=True)
        ),
    }
    for name in passes.keys() - settings:
        found[f"{name}_per_s"] = rates[name]
        cpu = statistics.median(one.cpu_s_per_1000 for one in passes[name])
        found[f"{name}_cpu_s_per_1000"] = cpu
    return found


def bare_encoders(bench: Bench, folder: Path, threads: int) -> dict[str, Run]:
    """The encoder alone, of word pieces: the fastest of its batch sizes and threads, by name."""
    grid = {}
    for n in sorted({1, threads}):
        for budget in BUDGETS:
            encoder = OnnxEncoder(folder, threads=n, batch_tokens=budget)
            encode = partial(encoder.encode_tokens, encoder.tokenize(bench.texts))
            grid[f"{n} threads, {budget} tokens a batch"] = Run(encode, len(bench.texts))
    fastest = sorted(grid, key=lambda name: -timed(grid[name]).per_s)[:CONTENDERS]
    return {name: grid[name] for name in fastest}


def text_in(bench: Bench, version: LoadedVersion, encoder: OnnxEncoder) -> dict[str, Any]:
    inputs = bench.inputs
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
        "text_one_ms_p50": 1000 * statistics.median(ones),
        "text_one_ms_p99": 1000 * float(np.percentile(ones, 99)),
        "lexical_share": float((stages == 0).mean()),
        "coverage": float(handled.mean()),
        "agreement": float(agreed[handled].mean()),
        "certified_coverage": version.manifest.certificate.coverage,
    }


def handler(bench: Bench, version: LoadedVersion, encoder: OnnxEncoder) -> Run:
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

    return Run(run, len(messages))


def embeddings_in(
    bench: Bench, alone: Artifact, embeddings: np.ndarray
) -> tuple[dict[str, Any], Run]:
    """A version without a lexical stage, given embeddings, as the peer is: what it says and how
    long one takes, and all of them at once."""
    manifest = alone.manifest
    session = CascadeSession(manifest, alone.blobs, threads=usable_threads())

    def route(rows: np.ndarray) -> Answers:
        return session.answer(len(rows), None, rows.__getitem__)

    def repeated() -> None:
        for _ in range(REPEATS):
            route(embeddings)

    order = np.random.default_rng(0).permutation(len(embeddings))[: SINGLES + 20]
    singles = [embeddings[[i]] for i in order]  # in the caller's hand, as the peer's are
    ones = [_seconds(lambda row=row: route(row)) for row in singles][20:]  # type: ignore[misc]
    found = route(embeddings)
    handled = found.stage >= 0
    labels = np.asarray(manifest.labels)[found.label]
    return {
        "embedding_one_ms_p50": 1000 * statistics.median(ones),
        "embedding_one_ms_p99": 1000 * float(np.percentile(ones, 99)),
        "embedding_coverage": float(handled.mean()),
        "embedding_agreement": float((labels == np.asarray(bench.labels))[handled].mean()),
    }, Run(repeated, REPEATS * len(embeddings))


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
