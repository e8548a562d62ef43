"""The peer's router with its embedder attached, run by the peer's Python: one JSON on stdout.

    <peer's python> benchmarks/routing/peer_worker.py JOB --encoder FOLDER --model FOLDER [--keep]

JOB is a folder that `benchmarks.routing.subject` wrote. Texts are embedded in two ways: by the
peer's own embedder (`own_`: sentence-transformers on torch, from the files of the folder `--model`)
and by our ONNX encoder (`--encoder`), the fastest one at hand, which leaves the ratio to routing
alone. Both have every core this process may use. The peer's out-of-distribution gate is on. Texts
are the published test texts, each once a pass.

The process fits (unless --keep finds a fit), then serves from fresh processes. BLAS has one thread
in single calls, where they are fastest, and all in batches; torch has all in both.
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
# Nothing is fetched and no accelerator used, whatever the machine has.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
# What a process measures: with whose embedder, one call after the other or all rows in one.
OURS_ONE, OURS_BATCH, OWN_ONE, OWN_BATCH = SERVED = ("one", "batch", "own-one", "own-batch")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("job", type=Path)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--keep", action="store_true", help="use the fit of an earlier run")
    parser.add_argument("--quick", action="store_true", help="fewer texts")
    parser.add_argument("--serve", choices=SERVED, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    artifact = chosen.job / "peer"
    with contextlib.redirect_stdout(sys.stderr):
        if chosen.serve:
            found = serve(chosen.serve, artifact, chosen)
        else:
            if not (chosen.keep and (artifact / "manifest.json").exists()):
                fit(artifact, chosen.job)
            found = {"ood_gate": (artifact / "ood.json").exists()}
            for what in SERVED:
                found |= in_fresh_process(what)
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


def in_fresh_process(what: str) -> dict[str, Any]:
    """BLAS and torch read their number of threads once, when they are imported."""
    command = [sys.executable, __file__, *sys.argv[1:], "--serve", what]
    cores = str(len(os.sched_getaffinity(0)))
    threads = dict.fromkeys(THREADS, "1" if what == OURS_ONE else cores)
    if what == OWN_ONE:
        threads["OPENBLAS_NUM_THREADS"] = "1"
    environment = os.environ | OFFLINE | threads
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def serve(what: str, artifact: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Figures of one process."""
    import tracer

    texts = load(chosen.job, "test_texts").tolist()
    embeddings = load(chosen.job, "test_embeddings")
    wanted = load(chosen.job, "test_labels").tolist()
    if what in (OWN_ONE, OWN_BATCH):
        embedder = tracer.Embedder.from_sentence_transformers(str(chosen.model), device="cpu")
        if chosen.quick:
            texts = texts[:200]
        router = tracer.load_router(artifact, embedder=embedder)
        router.predict_batch(texts[:64])
        if what == OWN_ONE:
            return named("own_text_one", one_by_one(router, texts))
        found = all_at_once(router, texts) | said(router.predict_batch(texts), wanted[: len(texts)])
        return {f"own_{name}": value for name, value in found.items()}

    from shared.encoder.onnx_encoder import OnnxEncoder

    embedder = tracer.Embedder.from_callable(OnnxEncoder(chosen.encoder).encode)
    if chosen.quick:
        texts, embeddings = texts[:600], embeddings[:600]
    router = tracer.load_router(artifact, embedder=embedder)
    router.predict_batch(texts[:64])
    if what == OURS_ONE:
        return named("text_one", one_by_one(router, texts)) | named(
            "embedding_one", one_by_one(router, embeddings)
        )
    found = all_at_once(router, texts)
    embedding_ms = [milliseconds(router.predict_batch, embeddings) for _ in range(PASSES)]
    found["embedding_batch_per_s"] = 1000 * len(texts) / statistics.median(embedding_ms)
    return found | said(router.predict_batch(embeddings), wanted[: len(texts)])


def one_by_one(router: Any, inputs: Any) -> list[float]:
    """Milliseconds of each call."""
    import numpy as np

    rows = np.random.default_rng(0).permutation(len(inputs))[: SINGLES + 20]
    return [milliseconds(router.predict, inputs[i]) for i in rows][20:]


def named(name: str, ms: list[float]) -> dict[str, float]:
    import numpy as np

    return {f"{name}_ms_p50": statistics.median(ms), f"{name}_ms_p99": float(np.percentile(ms, 99))}


def all_at_once(router: Any, texts: list[str]) -> dict[str, float]:
    cpu = time.process_time()
    ms = [milliseconds(router.predict_batch, texts) for _ in range(PASSES)]
    cpu = (time.process_time() - cpu) / PASSES
    return {
        "text_batch_per_s": 1000 * len(texts) / statistics.median(ms),
        "text_batch_cpu_s_per_1000": 1000 * cpu / len(texts),
        "memory_mb": peak_rss_mb(),
    }


def said(answers: Any, wanted: list[str]) -> dict[str, float]:
    """How much of it is answered, and how often as the teacher did."""
    import numpy as np

    handled = np.asarray(answers["handled"])
    agreed = np.asarray([a == b for a, b in zip(answers["labels"], wanted, strict=True)])
    return {"coverage": float(handled.mean()), "agreement": float(agreed[handled].mean())}


def milliseconds(call: Any, argument: Any) -> float:
    started = time.perf_counter()
    call(argument)
    return 1000 * (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
