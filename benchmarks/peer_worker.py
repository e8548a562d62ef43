"""The peer (PyPI `tracer-llm`) fitted and measured, run by its own Python: one JSON on stdout.

    <peer's python> -I benchmarks/peer_worker.py JOB

JOB is a folder with `job.json`, {"alphas": [0.95, …], "seed": 0, "speed": true}, and `data.npz`:
train_embeddings (float32, n × dim), train_labels, train_texts (strings), and the same for test_.
"trees": true in the job adds the tree models to its zoo.

Set OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1 for costs that mean something: with more threads
than free cores OpenBLAS spins while it waits, and one fit takes several times the CPU seconds.

α is part of the peer's fit: an artifact holds one threshold, and nothing public re-gates it. So
there is one fit per α, each with the zoo of its documentation and its command line (linear and
MLP; the trees are opt-in). What one fit costs is measured on the first, at α = 0.95 if that is
asked for, with everything at its default. The default sweeps its `frontier_targets` (0.85, 0.90,
0.95) besides the target, independently, and keeps only the target's router; the further fits
leave the sweep out, which yields the same router for a third of the time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # numpy is imported inside functions: its import is part of what `speed` times
    import numpy as np
    import numpy.typing as npt

# What `tracer fit` leaves out unless told --trees; FitConfig() alone would bring them in.
OPT_IN_MODELS = ("dt", "et", "gbt", "rf")
DEFAULT_ALPHA = 0.95  # whose fit the costs are measured on
SINGLE_ROWS = 300
BATCH_ROWS = 1024
BATCHES = 9
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Clock:
    """Seconds of this process and the children it waited for."""

    cpu: float
    wall: float

    @classmethod
    def now(cls) -> Clock:
        times = os.times()
        cpu = time.process_time() + times.children_user + times.children_system
        return cls(cpu=cpu, wall=time.perf_counter())

    def since(self) -> Clock:
        now = Clock.now()
        return Clock(cpu=now.cpu - self.cpu, wall=now.wall - self.wall)


@dataclass(frozen=True)
class Fit:
    """One fit of the peer. `peak_rss_mb` is the process's so far, in 10⁶ bytes."""

    alpha: float
    artifact: Path
    deployed: bool
    method: str | None
    claimed_coverage: float | None
    claimed_agreement: float | None
    targets: tuple[float, ...]
    cpu_seconds: float
    wall_seconds: float
    peak_rss_mb: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", type=Path, help="folder with job.json and data.npz")
    parser.add_argument("--serve", type=Path, metavar="ARTIFACT", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    job = json.loads((chosen.job / "job.json").read_text())
    with contextlib.redirect_stdout(sys.stderr):
        if chosen.serve:
            figures = serving(chosen.serve, chosen.job, job["seed"])
        else:
            figures = benchmark(chosen.job, job)
    print(json.dumps(figures))
    return 0


def benchmark(folder: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    """Every figure of a job."""
    with tempfile.TemporaryDirectory(prefix="artifacts-", dir=folder) as made:
        skip = () if job.get("trees", False) else OPT_IN_MODELS
        fits = fit_all(Path(made), folder, job["alphas"], job["seed"], skip)
        figures = about_peer() | {
            "skipped_models": skip,
            "threads": {name: os.environ.get(name) for name in THREADS},
            "alphas": [quality(fit, folder) for fit in sorted(fits, key=lambda fit: fit.alpha)],
        }
        figures |= cost(fits[0])
        if job["speed"]:
            figures |= speed(next((fit for fit in fits if fit.deployed), None), folder)
    return figures


def load(job: Path, name: str) -> npt.NDArray[Any]:
    """One array of the job's data."""
    import numpy as np

    with np.load(job / "data.npz", allow_pickle=False) as arrays:
        array: npt.NDArray[Any] = arrays[name]
    return array


def about_peer() -> dict[str, str]:
    return {
        "peer": f"tracer-llm {version('tracer-llm')}",
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "scikit_learn": version("scikit-learn"),
    }


# --- fitting -----------------------------------------------------------------------------------


def fit_all(
    made: Path, job: Path, alphas: list[float], seed: int, skip: tuple[str, ...]
) -> list[Fit]:
    """One fit per α below `made`; the first is the one with everything at its default."""
    import tracer

    traces = made / "traces.jsonl"
    write_traces(traces, job)
    embeddings = load(job, "train_embeddings")
    first = DEFAULT_ALPHA if DEFAULT_ALPHA in alphas else alphas[0]
    fits = []
    for alpha in sorted(set(alphas), key=lambda alpha: alpha != first):
        config = tracer.FitConfig(target_teacher_agreement=alpha, seed=seed, skip_candidates=skip)
        if alpha != first:
            config.frontier_targets = (alpha,)
        fits.append(fit_one(made / f"alpha-{alpha}", traces, embeddings, config))
    return fits


def write_traces(file: Path, job: Path) -> None:
    """The training rows in the peer's format. Let go of before fitting: they are no cost of its."""
    with file.open("w", encoding="utf-8") as lines:
        texts, labels = load(job, "train_texts"), load(job, "train_labels")
        for text, label in zip(texts, labels, strict=True):
            lines.write(json.dumps({"input": str(text), "teacher": str(label)}) + "\n")


def fit_one(artifact: Path, traces: Path, embeddings: npt.NDArray[np.float32], config: Any) -> Fit:
    """The peer fitted with one of its FitConfigs."""
    import tracer

    start = Clock.now()
    manifest = tracer.fit(traces, artifact, embeddings=embeddings, config=config).manifest
    spent = start.since()
    return Fit(
        alpha=config.target_teacher_agreement,
        artifact=artifact,
        deployed=manifest.selected_method is not None,
        method=manifest.selected_method,
        claimed_coverage=manifest.coverage_cal,
        claimed_agreement=manifest.teacher_agreement_cal,
        targets=tuple(sorted({*config.frontier_targets, config.target_teacher_agreement})),
        cpu_seconds=spent.cpu,
        wall_seconds=spent.wall,
        peak_rss_mb=peak_rss_mb(),
    )


def cost(fit: Fit) -> dict[str, Any]:
    """What one default fit takes, in time, memory and space."""
    files = {path.name: path.stat().st_size for path in fit.artifact.iterdir()}
    return {
        "fit_alpha": fit.alpha,
        "fit_cpu_seconds": fit.cpu_seconds,
        "fit_wall_seconds": fit.wall_seconds,
        "peak_rss_mb": fit.peak_rss_mb,
        "artifact_bytes": sum(files.values()),
        "artifact_file_bytes": files,
    }


def peak_rss_mb() -> float:
    """The most memory this process held, in 10⁶ bytes.

    Not getrusage's: a child inherits that from the process that started it.
    """
    status = Path("/proc/self/status").read_text().splitlines()
    kib = next(line.split()[1] for line in status if line.startswith("VmHWM:"))
    return int(kib) * 1024 / 1e6


# --- quality -----------------------------------------------------------------------------------


def quality(fit: Fit, job: Path) -> dict[str, Any]:
    """Coverage, and agreement on what is handled (None without any), on the test rows."""
    figures = asdict(fit)
    del figures["artifact"], figures["peak_rss_mb"]
    return figures | {"ood_gate": (fit.artifact / "ood.json").exists(), **routed(fit, job)}


def routed(fit: Fit, job: Path) -> dict[str, Any]:
    import tracer

    wanted = load(job, "test_labels").tolist()
    if not fit.deployed:  # its router refuses to load
        return {"test_rows": len(wanted), "handled_rows": 0, "coverage": 0.0, "agreement": None}
    answer = tracer.load_router(fit.artifact).predict_batch(load(job, "test_embeddings"))
    rows = zip(answer["handled"], answer["labels"], wanted, strict=True)
    agreed = [label == right for handled, label, right in rows if handled]
    return {
        "test_rows": len(wanted),
        "handled_rows": len(agreed),
        "coverage": len(agreed) / len(wanted),
        "agreement": statistics.fmean(agreed) if agreed else None,
    }


# --- speed -------------------------------------------------------------------------------------


def speed(fit: Fit | None, job: Path) -> dict[str, Any]:
    """Serving one artifact from fresh processes: with one thread, but `route_batch_rows_per_s`
    with as many as inherited. `_gate_off`: one thread and no OOD gate, by taking away `ood.json`.
    """
    if fit is None:
        return {"speed_alpha": None}
    gateless = fit.artifact.with_name("no-ood-gate")
    shutil.copytree(fit.artifact, gateless, ignore=shutil.ignore_patterns("ood.json"))
    one_thread = served(fit.artifact, job, threads=1)
    gate_off = served(gateless, job, threads=1)
    batch = "route_batch_rows_per_s"
    routing = [name for name in one_thread if name.startswith("route_")]
    return (
        one_thread
        | {
            "speed_alpha": fit.alpha,
            batch: served(fit.artifact, job)[batch],
            f"{batch}_one_thread": one_thread[batch],
        }
        | {f"{name}_gate_off": gate_off[name] for name in routing}
    )


def served(artifact: Path, job: Path, threads: int | None = None) -> dict[str, Any]:
    """`serving` in a process of its own, since thread counts are read at import."""
    limits = dict.fromkeys(THREADS, str(threads)) if threads else {}
    command = [sys.executable, "-I", __file__, str(job), "--serve", str(artifact)]
    environment = os.environ | limits
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def serving(artifact: Path, job: Path, seed: int) -> dict[str, Any]:
    """Load and route in this fresh process: single rows and batches of embeddings."""
    start = Clock.now()
    import tracer

    router = tracer.load_router(artifact)
    loaded = start.since()
    import numpy as np

    router.predict(np.full(router.manifest.embedding_dim, 0.05, dtype=np.float32))
    ready, memory = start.since(), peak_rss_mb()
    test = load(job, "test_embeddings")
    random = np.random.default_rng(seed)
    singles = test[random.integers(len(test), size=SINGLE_ROWS)]
    batch = test[random.integers(len(test), size=BATCH_ROWS)]
    one = [timed(router.predict, row) for row in (*singles[:20], *singles)][20:]
    many = [timed(router.predict_batch, batch) for _ in range(BATCHES + 1)][1:]
    wall_ms = [1e3 * spent.wall for spent in one]
    many_cpu = statistics.median(spent.cpu for spent in many)
    return {
        "import_load_seconds": loaded.wall,
        "import_load_first_prediction_seconds": ready.wall,
        "serving_peak_rss_mb": memory,
        "route_one_ms_p50": statistics.median(wall_ms),
        "route_one_ms_p99": float(np.percentile(wall_ms, 99)),
        "route_one_cpu_ms": 1e3 * statistics.median(spent.cpu for spent in one),
        "route_batch_rows_per_s": BATCH_ROWS / statistics.median(spent.wall for spent in many),
        "route_batch_cpu_us_per_row": 1e6 * many_cpu / BATCH_ROWS,
    }


def timed(route: Any, rows: npt.NDArray[np.float32]) -> Clock:
    """What one call takes."""
    start = Clock.now()
    route(rows)
    return start.since()


if __name__ == "__main__":
    sys.exit(main())
