"""Swaps of a router process under traffic: which version was active when, and what that cost.

    python -m benchmarks.routing.swaps          # make swap-test

100 swaps in 60 s of traffic, and as long without; then as many again without traffic, for the
memory. Writes benchmarks/results/swaps.json and docs/router.md, unless asked for other amounts.
Exits 1 when a request was lost or doubled, or answered by a version that was not active at some
moment of its batch, when the p99 grew by more than half, or memory by more than 5%.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.routing.load import Load, Taken
from benchmarks.routing.place import Place, memory_mb, publish
from benchmarks.routing.subject import prepare
from benchmarks.routing.versions import of_task
from benchmarks.tables import replace_section
from deploy.kafka.local_kafka import LocalKafka
from services.ctl.embedded.processes import Child
from services.ctl.embedded.redis_server import EmbeddedRedis
from services.ctl.paths import cache_folder
from shared.contracts.events import Decision
from shared.registry.base import Artifact
from shared.registry.redis import connect

SWAPS, SECONDS, PER_SECOND = 100, 60.0, 500.0
P99_RATIO, MEMORY_RATIO = 1.5, 1.05
RESULT = Path(__file__).parents[1] / "results" / "swaps.json"
# Times in logs and decisions are cut to the millisecond; the log line follows the swap.
ROUNDING = timedelta(milliseconds=25)


@dataclass(frozen=True)
class Swapped:
    """`calm` and `swapping`: the load without and with swaps. `active`: when the router began to
    serve each version, by its log. `memory`: MB held after each swap."""

    calm: Taken
    swapping: Taken
    active: Mapping[str, datetime]
    memory: Sequence[float]

    @property
    def strangers(self) -> list[Decision]:
        """Decisions by a version that was not active at any moment of their batch."""
        order = sorted(self.active.items(), key=lambda item: item[1])
        ends = {name: until for (name, _), (_, until) in pairwise(order)}
        return [d for d in self.swapping.decisions if not _in_time(d, self.active, ends)]

    def figures(self) -> dict[str, Any]:
        calm, swapping = self.calm.figures(), self.swapping.figures()
        tenth = max(1, len(self.memory) // 10)
        early = sum(self.memory[tenth : 2 * tenth]) / tenth
        late = sum(self.memory[-tenth:]) / tenth
        return {
            "swaps": len(self.memory),
            "calm": calm,
            "swapping": swapping,
            "versions_answering": len({d.version for d in self.swapping.decisions}),
            "by_a_version_not_active": len(self.strangers),
            "p99_ratio": swapping["p99_ms"] / calm["p99_ms"],
            "memory_early_mb": early,
            "memory_late_mb": late,
            "memory_ratio": late / early,
        }


def swap_under_load(
    place: Place, router: Child, artifact: Artifact, texts: Sequence[str],
    *, swaps: int, seconds: float, per_second: float, calm: float | None = None,
    idle_swaps: int = 0,
) -> Swapped:  # fmt: skip
    """`swaps` in `seconds` of traffic, after `calm` seconds (or as many) without, then
    `idle_swaps`."""
    load, memory = Load(place, texts), list[float]()
    before = load.run(per_second, calm or seconds)
    with _Publisher(place, artifact) as publisher:

        def swap_on() -> None:
            time.sleep(1.5)  # the reader of answers takes about as long
            begun = time.monotonic()
            for number in range(swaps):
                publisher.publish(number)
                due = begun + (number + 1) * seconds / swaps
                time.sleep(max(0.0, due - time.monotonic()))
                memory.append(memory_mb(router, "VmRSS"))

        swapper = threading.Thread(target=swap_on, daemon=True)
        swapper.start()
        swapping = load.run(per_second, seconds + 1.0)
        swapper.join(2 * seconds + 60)
        if len(memory) < swaps:
            raise RuntimeError(f"only {len(memory)} of {swaps} versions could be published")
        for number in range(swaps, swaps + idle_swaps):
            publisher.publish(number)
            time.sleep(0.2)
            memory.append(memory_mb(router, "VmRSS"))
    return Swapped(before, swapping, served_since(router.log), memory)


class _Publisher:
    """Publishes from a process of its own, as a trainer does: megabytes that are signed, hashed and
    sent would hold up the clocks of this one. Use it as a context manager."""

    def __init__(self, place: Place, artifact: Artifact) -> None:
        context = multiprocessing.get_context("spawn")
        self._numbers, theirs = context.Pipe()
        self._process = context.Process(
            target=_publish, args=(place.redis_url, place.task, artifact, theirs), daemon=True
        )

    def __enter__(self) -> _Publisher:
        self._process.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.terminate()
        self._process.join(10)

    def publish(self, number: int) -> None:
        """Raises RuntimeError when the version is not there within a minute."""
        self._numbers.send(number)
        if not self._numbers.poll(60):
            raise RuntimeError(f"version {number} could not be published")
        self._numbers.recv()


def _publish(redis_url: str, task: str, artifact: Artifact, numbers: Connection) -> None:
    registry = connect(redis_url)
    while True:
        number = numbers.recv()
        publish(registry, of_task(artifact, task, window=f"swap-{number}"))
        numbers.send(number)


def served_since(log: Path) -> dict[str, datetime]:
    """When the router began to serve each version."""
    since = {}
    for line in log.read_text().splitlines():
        said = json.loads(line) if line.startswith("{") else {}
        if said.get("message") == "serving":
            since.setdefault(said["version"], datetime.fromisoformat(said["at"]))
    return since


def _in_time(d: Decision, since: Mapping[str, datetime], until: Mapping[str, datetime]) -> bool:
    begun = d.decided_at - timedelta(milliseconds=d.timings["batch_ms"])
    if d.version is None or d.version not in since:
        return False
    over = d.version in until and until[d.version] + ROUNDING < begun
    return since[d.version] - ROUNDING <= d.decided_at and not over


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--swaps", type=int, default=SWAPS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--per-second", type=float, default=PER_SECOND)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="swap-test-") as made:
        folder = Path(made)
        kept = (cache_folder() / "bench-router").resolve()
        subject = prepare(chosen.data_dir / "banking77.jsonl", kept, keep=True)
        with (
            LocalKafka() as kafka,
            # It would write every version to a file, and rewrite that, on the cores measured here:
            # three times what its answers take, and nothing of the router's.
            EmbeddedRedis(folder / "redis", settings={"appendonly": "no"}) as redis,
            Place(kafka.bootstrap, redis.url, subject.encoder, folder) as place,
        ):
            place.publish(of_task(subject.artifact, place.task))
            found = swap_under_load(
                place, place.router(), subject.artifact, subject.texts, swaps=chosen.swaps,
                seconds=chosen.seconds, per_second=chosen.per_second, idle_swaps=chosen.swaps,
            ).figures()  # fmt: skip
    print(table(found))
    if (chosen.swaps, chosen.seconds, chosen.per_second) == (SWAPS, SECONDS, PER_SECOND):
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
        replace_section(Path("docs/router.md"), "swaps", table(found))
    return 0 if passed(found) else 1


def passed(found: Mapping[str, Any]) -> bool:
    wrong = sum(found[load][what] for load in ("calm", "swapping") for what in ("lost", "doubled"))
    wrong += found["by_a_version_not_active"]
    calm = found["p99_ratio"] <= P99_RATIO and found["memory_ratio"] <= MEMORY_RATIO
    return not wrong and bool(calm)


def table(found: Mapping[str, Any]) -> str:
    calm, swapping = found["calm"], found["swapping"]
    lines = [
        f"{found['swaps']} swaps, {found['versions_answering']} versions answered; "
        f"by one that was not active: {found['by_a_version_not_active']} decisions.",
        "",
        "| | without swaps | during swaps | ratio | wanted |",
        "|---|---|---|---|---|",
    ]
    for name, key in (("requests", "requests"), ("lost", "lost"), ("doubled", "doubled")):
        wanted = "" if key == "requests" else "0"
        lines.append(f"| {name} | {calm[key]:,} | {swapping[key]:,} | | {wanted} |")
    lines += [
        f"| p50, ms | {calm['p50_ms']:.0f} | {swapping['p50_ms']:.0f} | | |",
        f"| p99, ms | {calm['p99_ms']:.0f} | {swapping['p99_ms']:.0f} "
        f"| {found['p99_ratio']:.2f} | ≤ {P99_RATIO} |",
        f"| memory over the second and the last tenth of all swaps, MB "
        f"| {found['memory_early_mb']:.0f} | {found['memory_late_mb']:.0f} "
        f"| {found['memory_ratio']:.3f} | ≤ {MEMORY_RATIO} |",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
