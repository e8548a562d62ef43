"""`make bench-router`: issue 5's targets in one run, against the peer and against the bounds.

Fits our version and the peer's on the published training rows of Banking77, then measures each in
processes of its own, one at a time: the peer with its embedder attached (its own, then ours) and
ours in process, in rounds, then the router process on Apache Kafka. Writes
benchmarks/results/router.json and docs/benchmarks.md. With `--precision int8` ours, the peer's
second embedder and the bounds have the other encoder, and it writes router-int8.json and the
section after it.

`--quick` measures little, keeps the fits of an earlier quick run and writes neither document: for
working on the router, not for figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import sizing
from benchmarks.peer_env import peer_embedder_python
from benchmarks.routing.rounds import medians
from benchmarks.routing.streaming import QUICK, Amounts, Streaming
from benchmarks.routing.subject import Subject, prepare
from benchmarks.routing.targets import table, targets
from benchmarks.tables import replace_section
from deploy.kafka.local_kafka import LocalKafka
from services.ctl.embedded.redis_server import EmbeddedRedis
from services.ctl.paths import cache_folder
from shared.encoder.artifact import load_encoder_info
from shared.encoder.default import default_model_folder

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--precision", choices=("float32", "int8"), default="float32")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-router-") as made:
        work = cache_folder() / "bench-router" if chosen.quick else Path(made)
        say(begun, "the peer's environment, with its embedder (torch, once: minutes and 12 GB)")
        python = peer_embedder_python(cache_folder())
        say(begun, "fitting")
        subject = prepare(
            chosen.data_dir / "banking77.jsonl", work.resolve(), keep=chosen.quick,
            precision=chosen.precision,
        )  # fmt: skip
        result = measure(subject, python, Path(made), begun, quick=chosen.quick)
    result["seconds"] = round(time.monotonic() - begun)
    text = table(result)
    print(text)
    if not chosen.quick:
        name = "router" if chosen.precision == "float32" else "router-int8"
        (HERE / "results" / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        replace_section(Path("docs/benchmarks.md"), name, text)
        sizing.write()
    return 0 if all(entry["met"] is not False for entry in result["targets"]) else 1


def measure(
    subject: Subject, peer_python: Path, folder: Path, begun: float, *, quick: bool
) -> dict[str, Any]:
    amounts = QUICK if quick else Amounts()
    rounds = []
    for number in range(1, amounts.rounds + 1):
        say(begun, f"round {number} of {amounts.rounds}, in process: the peer, then ours")
        peer = measure_peer(subject, peer_python, keep=quick or number > 1, quick=quick)
        rounds.append((measure_ours(subject, quick=quick), peer))
    say(begun, "ours, on Apache Kafka")
    with LocalKafka(lasting=True) as kafka, EmbeddedRedis(folder / "redis") as redis:
        stream = Streaming(
            kafka.bootstrap, redis.url, subject.encoder, folder, subject.artifact, subject.texts,
            amounts,
        ).measure()  # fmt: skip
    return {
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "simd": simd(),
            "python": platform.python_version(),
            "encoder": describe(subject.encoder),
        },
        "targets": targets(rounds, stream),
        "ours": medians([ours for ours, _ in rounds]),
        "peer": medians([peer for _, peer in rounds]),
        "rounds": [{"ours": ours, "peer": peer} for ours, peer in rounds],
        "kafka": stream,
    }


def measure_peer(subject: Subject, python: Path, *, keep: bool, quick: bool) -> dict[str, Any]:
    worker = HERE / "routing" / "peer_worker.py"
    model = ["--model", str(default_model_folder())]
    more = [*(["--keep"] if keep else []), *(["--quick"] if quick else [])]
    encoder = ["--encoder", str(subject.encoder)]
    return run([str(python), str(worker), str(subject.job), *encoder, *model, *more])


def measure_ours(subject: Subject, *, quick: bool) -> dict[str, Any]:
    return run(
        [sys.executable, "-m", "benchmarks.routing.ours_worker", str(subject.job),
         "--encoder", str(subject.encoder), "--copies", str(subject.copies),
         *(["--quick"] if quick else [])]
    )  # fmt: skip


def run(command: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def describe(encoder: Path) -> str:
    info = load_encoder_info(encoder)
    return f"{info.name}, {info.precision}"


def simd(file: Path = Path("/proc/cpuinfo")) -> list[str]:
    """What decides the encoder's speed, int8's above all: which of these this CPU has."""
    try:
        flags = next(line for line in file.read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return []
    return sorted({"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"} & set(flags.split()))


def say(begun: float, what: str) -> None:
    print(f"{time.monotonic() - begun:4.0f} s  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
