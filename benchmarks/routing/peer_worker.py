"""The peer's router with its embedder attached, run by the peer's Python: one JSON on stdout.

    <peer's python> benchmarks/routing/peer_worker.py JOB --encoder FOLDER [--keep]

JOB is a folder that `benchmarks.routing.subject` wrote. The embedder is our own ONNX encoder with
every thread this process may use: the fastest one at hand, so that what is compared is routing.
The peer's out-of-distribution gate is on. Texts are the published test texts, each once a pass.

The process fits (unless --keep finds a fit), then serves from fresh processes: single calls with
one BLAS thread, where they are fastest, batches with all.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.peer_worker import (  # noqa: E402
    OPT_IN_MODELS,
    THREADS,
    fit_one,
    load,
    peak_rss_mb,
    write_traces,
)

SINGLES = 300
PASSES = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("job", type=Path)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--keep", action="store_true", help="use the fit of an earlier run")
    parser.add_argument("--quick", action="store_true", help="fewer texts")
    parser.add_argument("--serve", choices=["one", "batch"], help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    artifact = chosen.job / "peer"
    with contextlib.redirect_stdout(sys.stderr):
        if chosen.serve:
            found = serve(chosen.serve, artifact, chosen.job, chosen.encoder, quick=chosen.quick)
        else:
            if not (chosen.keep and (artifact / "manifest.json").exists()):
                fit(artifact, chosen.job)
            found = {"ood_gate": (artifact / "ood.json").exists()}
            for what, threads in (("one", 1), ("batch", len(os.sched_getaffinity(0)))):
                found |= in_fresh_process(what, threads)
    print(json.dumps(found))
    return 0


def fit(artifact: Path, job: Path) -> None:
    """At the job's α, with the zoo of its command line; the sweep over other targets left out."""
    import tracer

    described = json.loads((job / "job.json").read_text())
    alpha = described["alphas"][0]
    config = tracer.FitConfig(
        target_teacher_agreement=alpha, seed=described["seed"], skip_candidates=OPT_IN_MODELS
    )
    config.frontier_targets = (alpha,)
    traces = job / "traces.jsonl"
    write_traces(traces, job)
    made = fit_one(artifact, traces, load(job, "train_embeddings"), config)
    if not made.deployed:
        raise SystemExit(f"the peer deploys nothing at {alpha}")


def in_fresh_process(what: str, threads: int) -> dict[str, Any]:
    """BLAS reads its number of threads once, when it is imported."""
    command = [sys.executable, __file__, *sys.argv[1:], "--serve", what]
    environment = os.environ | dict.fromkeys(THREADS, str(threads))
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def serve(what: str, artifact: Path, job: Path, encoder: Path, *, quick: bool) -> dict[str, Any]:
    """Figures of one process; `one`: call by call, `batch`: everything at once."""
    import numpy as np
    import tracer

    from shared.encoder.onnx_encoder import OnnxEncoder

    embedder = tracer.Embedder.from_callable(OnnxEncoder(encoder).encode)
    router = tracer.load_router(artifact, embedder=embedder)
    texts, embeddings = load(job, "test_texts").tolist(), load(job, "test_embeddings")
    if quick:
        texts, embeddings = texts[:600], embeddings[:600]
    router.predict_batch(texts[:64])
    if what == "one":
        rows = np.random.default_rng(0).permutation(len(texts))[: SINGLES + 20]
        with_text = [milliseconds(router.predict, texts[i]) for i in rows][20:]
        with_embedding = [milliseconds(router.predict, embeddings[i]) for i in rows][20:]
        return {
            "text_one_ms_p50": statistics.median(with_text),
            "text_one_ms_p99": float(np.percentile(with_text, 99)),
            "embedding_one_ms_p50": statistics.median(with_embedding),
            "embedding_one_ms_p99": float(np.percentile(with_embedding, 99)),
        }
    cpu = time.process_time()
    text_ms = [milliseconds(router.predict_batch, texts) for _ in range(PASSES)]
    cpu = (time.process_time() - cpu) / PASSES
    embedding_ms = [milliseconds(router.predict_batch, embeddings) for _ in range(PASSES)]
    answers = router.predict_batch(embeddings)
    wanted = load(job, "test_labels").tolist()[: len(texts)]
    handled = np.asarray(answers["handled"])
    agreed = np.asarray([a == b for a, b in zip(answers["labels"], wanted, strict=True)])
    return {
        "text_batch_per_s": 1000 * len(texts) / statistics.median(text_ms),
        "text_batch_cpu_s_per_1000": 1000 * cpu / len(texts),
        "embedding_batch_per_s": 1000 * len(texts) / statistics.median(embedding_ms),
        "coverage": float(handled.mean()),
        "agreement": float(agreed[handled].mean()),
        "memory_mb": peak_rss_mb(),
    }


def milliseconds(call: Any, argument: Any) -> float:
    started = time.perf_counter()
    call(argument)
    return 1000 * (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
