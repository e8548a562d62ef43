"""`make bench-fanout`: what 1,000 routers over 10,000 tasks cost one Redis.

A real redis-server, the real registry, and a simulated fleet (benchmarks/fleet.py): its
connections and bytes are real, its routers are not. CPU is Redis' own count, not the machine's.
Full-size versions are stored for one task; what 10,000 tasks would hold is multiplied, and said to
be. Writes benchmarks/results/fanout.json, a section of docs/benchmarks.md and docs/sizing.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import redis
from msgspec.structs import replace

from benchmarks import footprint, sizing
from benchmarks.fleet import Fleet
from benchmarks.made_up import made_up
from benchmarks.sizing import size
from benchmarks.tables import replace_section
from services.ctl.embedded.ports import LOOPBACK
from services.ctl.embedded.redis_server import EmbeddedRedis
from services.ctl.files import read_rows
from services.ctl.paths import cache_folder
from services.ctl.sample.generator import generate
from services.router.config import RouterSettings
from services.router.models import POINTERS_PER_POLL
from shared.contracts.manifest import sha256
from shared.contracts.tasks import Task
from shared.encoder.cache import CachedEncoder
from shared.encoder.default import ensure_default_encoder
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.fitting.challenger import fit_challenger
from shared.fitting.horizon import Horizon
from shared.registry.base import Active, Artifact
from shared.registry.disk import DiskCopy
from shared.registry.redis import RedisRegistry, connect

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "benchmarks.md"
AT = datetime(2026, 2, 4, tzinfo=UTC)
FIRST_DAY = date(2026, 1, 5)
POLL_SECONDS = float(RouterSettings.model_fields["poll"].default)


@dataclass(frozen=True)
class Scale:
    """How much is simulated and how often it is repeated; `seconds`: of the fleet's polling."""

    routers: int = 1_000
    tasks: int = 10_000
    changes: int = 50
    versions: int = 20
    loads: int = 20
    polls: int = 200
    seconds: float = 20.0


QUICK = Scale(routers=20, tasks=450, changes=4, versions=3, loads=2, polls=4, seconds=1.5)


class Meter:
    """The server's own figures, as differences."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._own = self._cost_of_reading()

    def memory(self) -> int:
        """Without the clients' buffers, which Redis lets shrink two seconds after a large value."""
        found = self._client.info("memory")
        return int(found["used_memory"]) - int(found["mem_clients_normal"])

    @contextmanager
    def spent(self, times: int, found: dict[str, float]) -> Iterator[None]:
        """Into `found`, for each of `times`: CPU in µs, and bytes in and out of the server."""
        before = self._read()
        yield
        after = self._read()
        for name, own in self._own.items():
            found[name] = round((after[name] - before[name] - own) / times, 2)

    def _read(self) -> dict[str, float]:
        cpu, stats = self._client.info("cpu"), self._client.info("stats")
        return {
            "cpu_us": 1e6 * (float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])),
            "bytes_in": float(stats["total_net_input_bytes"]),
            "bytes_out": float(stats["total_net_output_bytes"]),
        }

    def _cost_of_reading(self) -> dict[str, float]:
        self._read()
        before, after = self._read(), self._read()
        return {name: after[name] - before[name] for name in before}


def measure(scale: Scale, artifact: Artifact, about: str) -> dict[str, Any]:
    """About two minutes at full scale; `about` says what the artifact is."""
    begun = time.monotonic()
    names = [f"task-{number:05}" for number in range(scale.tasks)]
    clients = {"maxclients": str(2 * scale.routers + 100)}
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedRedis(Path(folder), settings=clients) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        registry, meter = connect(server.url), Meter(client)
        try:
            found = {
                "machine": {"cores": len(os.sched_getaffinity(0))},
                "redis": client.info("server")["redis_version"],
                "scale": asdict(scale),
                "artifact": {
                    "of": about,
                    "manifest_bytes": len(artifact.manifest_bytes),
                    "blob_bytes": sum(map(len, artifact.blobs.values())),
                },
                "memory": _memory(registry, meter, names, scale, artifact),
                "load": _loads(registry, meter, scale),
                "poll": _polls(registry, meter, names, scale),
                "change": _changes(registry, meter, names, scale.changes),
            }
            with Fleet(LOOPBACK, server.port, names, scale.routers) as fleet:
                found["change_heard"] = _changes(registry, meter, names, scale.changes, fleet)
                found["fleet"] = _polling(meter, fleet, scale)
        finally:
            registry.close()
    found["computed"] = computed(found)
    found["seconds"] = round(time.monotonic() - begun, 1)
    return found


def _memory(
    registry: RedisRegistry, meter: Meter, names: Sequence[str], scale: Scale, artifact: Artifact
) -> dict[str, float]:
    """Bytes in Redis: of a task with one version whose blob is 1 kB, of each full-size version."""
    before = meter.memory()
    for name in names:
        small = renamed(artifact, name, FIRST_DAY, blobs=False)
        registry.publish(small, fence=registry.acquire(name), at=AT, reason="certified")
    tasks = meter.memory()
    for number in range(scale.versions):
        made = renamed(artifact, "full-size", FIRST_DAY + timedelta(days=number), blobs=True)
        registry.publish(made, fence=registry.acquire("full-size"), at=AT, reason="certified")
    return {
        "task_bytes": round((tasks - before) / len(names)),
        "version_bytes": round((meter.memory() - tasks) / scale.versions),
    }


def _loads(registry: RedisRegistry, meter: Meter, scale: Scale) -> dict[str, float]:
    """Of one version, by one router; each of a fleet fetches it once."""
    version = registry.active("full-size").version
    assert version is not None
    found: dict[str, float] = {}
    with meter.spent(scale.loads, found):
        for _ in range(scale.loads):
            registry.load("full-size", version)
    return found


def _polls(
    registry: RedisRegistry, meter: Meter, names: Sequence[str], scale: Scale
) -> dict[str, float]:
    """Of one router's poll."""
    some = names[:POINTERS_PER_POLL]
    found: dict[str, float] = {}
    with meter.spent(scale.polls, found):
        for _ in range(scale.polls):
            registry.pointers(some)
    return {"pointers": len(some), **found}


def _changes(
    registry: RedisRegistry,
    meter: Meter,
    names: Sequence[str],
    times: int,
    fleet: Fleet | None = None,
) -> dict[str, float]:
    """Of one change, which brings no bytes of models; with a fleet, until all have heard of it."""
    rng = random.Random(0)
    alpha = 0.9 if fleet is None else 0.8  # the same again would change nothing
    found: dict[str, float] = {}
    last, median = [], []
    with meter.spent(times, found):
        for number in range(times):
            begun = time.monotonic()
            if fleet is not None:
                fleet.forget()
            registry.set_alpha(
                rng.choice(names), alpha + 0.001 * (number + 1), at=AT, reason="measured"
            )
            if fleet is not None:
                fleet.hear(30.0)
                heard = sorted(when - begun for when in fleet.hints_heard.values())
                median.append(statistics.median(heard))
                last.append(heard[-1])
    if last:
        found["heard_median_ms"] = round(1e3 * statistics.median(median), 2)
        found["heard_last_ms"] = round(1e3 * statistics.median(last), 2)
        found["heard_worst_ms"] = round(1e3 * max(last), 2)
    return found


def _polling(meter: Meter, fleet: Fleet, scale: Scale) -> dict[str, float]:
    """All routers poll for `scale.seconds` at their default interval."""
    found: dict[str, float] = {}
    begun = time.monotonic()
    with meter.spent(1, found):
        rate = fleet.poll(scale.seconds, POLL_SECONDS, random.Random(0))
    took = time.monotonic() - begun
    waits = sorted(fleet.poll_seconds)
    return {
        "polls_per_second": round(rate, 1),
        "asked_per_second": round(scale.routers / POLL_SECONDS, 1),
        "redis_core_share": round(found["cpu_us"] / 1e6 / took, 3),
        "bytes_per_router_second": round(found["bytes_out"] / took / scale.routers),
        "poll_median_ms": round(1e3 * waits[len(waits) // 2], 2),
        "poll_p99_ms": round(1e3 * waits[int(0.99 * (len(waits) - 1))], 2),
    }


def computed(found: dict[str, Any]) -> dict[str, float]:
    """From what was measured, by multiplication alone."""
    scale, load, poll = found["scale"], found["load"], found["poll"]
    pointers = scale["routers"] * scale["tasks"]
    trips = -(-scale["tasks"] // POINTERS_PER_POLL)
    return {
        "lost_hint_noticed_within_s": round(trips * POLL_SECONDS * 1.2, 1),
        "sweep_of_all_by_all_cpu_s": round(pointers * poll["cpu_us"] / poll["pointers"] / 1e6, 1),
        "publish_to_all_bytes": round(scale["routers"] * load["bytes_out"]),
        "publish_to_all_cpu_s": round(scale["routers"] * load["cpu_us"] / 1e6, 2),
        "tasks_bytes_at_20_versions": scale["tasks"]
        * (found["memory"]["task_bytes"] + 20 * found["memory"]["version_bytes"]),
    }


def renamed(artifact: Artifact, task: str, day: date, *, blobs: bool) -> Artifact:
    """The artifact as another task's; without `blobs` 1 kB that is no model takes their place."""
    manifest = artifact.manifest
    kept = dict(artifact.blobs)
    stages = manifest.stages
    if blobs:  # other bytes each day, as other fits would be
        kept = {}
        changed = []
        for stage in stages:
            data = artifact.blobs[stage.blob][:-8] + day.isoformat()[-8:].encode()
            kept[sha256(data)] = data
            changed.append(replace(stage, blob=sha256(data), bytes=len(data)))
        stages = tuple(changed)
    else:
        data = random.Random(task).randbytes(1_000)
        kept = {sha256(data): data}
        stages = tuple(replace(stage, blob=sha256(data), bytes=len(data)) for stage in stages)
    made = replace(manifest, task=task, window=day.isoformat(), stages=stages)
    return Artifact(made.encode(), kept)


def fitted(data: Path) -> Artifact:
    """Banking77's, as the trainer fits it; kept from run to run."""
    copies = DiskCopy(cache_folder() / "bench-fanout")
    kept = copies.load("banking77")
    if kept is not None:
        return kept[1]
    rows = [row for row in read_rows(data) if row.split == "train"]
    encoder = ensure_default_encoder(cache_folder() / "encoder")
    with CachedEncoder(OnnxEncoder(encoder), cache_folder() / "embeddings.sqlite") as cached:
        horizon = Horizon(
            [row.texts for row in rows],
            [row.teacher for row in rows],
            np.ones(len(rows), np.bool_),
        )
        task = Task(name="banking77", alpha=0.95)
        made = fit_challenger(task, FIRST_DAY, horizon, cached, jobs=os.cpu_count() or 1).artifact
    if made is None:
        raise SystemExit("the fit was refused: no artifact to measure")
    copies.save("banking77", Active(made.version, 1), made)
    return made


def table(found: dict[str, Any]) -> str:
    scale, memory, load, poll = (found[name] for name in ("scale", "memory", "load", "poll"))
    alone, heard, fleet, more = (
        found[name] for name in ("change", "change_heard", "fleet", "computed")
    )
    routers = f"{scale['routers']:,}"
    lines = [
        f"Redis {found['redis']}, {routers} simulated routers, {scale['tasks']:,} tasks; a version "
        f"is {found['artifact']['of']}: {size(found['artifact']['blob_bytes'])} of graphs, "
        f"{size(found['artifact']['manifest_bytes'])} of manifest.",
        "",
        "| what | Redis' CPU | over the network | |",
        "|---|---|---|---|",
        f"| a change nobody hears of | {alone['cpu_us']:,.0f} µs | {size(alone['bytes_out'])} | |",
        f"| a change {routers} routers hear of | {heard['cpu_us']:,.0f} µs "
        f"| {size(heard['bytes_out'])} | heard by half within {heard['heard_median_ms']:,} ms, "
        f"by all within {heard['heard_last_ms']:,} ms, the slowest time "
        f"{heard['heard_worst_ms']:,} ms |",
        f"| one router's poll of {poll['pointers']:.0f} pointers | {poll['cpu_us']:,.0f} µs "
        f"| {size(poll['bytes_out'])} | |",
        f"| {routers} routers polling, a second | {1e3 * fleet['redis_core_share']:,.0f} ms "
        f"| {size(fleet['bytes_per_router_second'] * scale['routers'])} "
        f"| {fleet['polls_per_second']:,.0f} polls/s of {fleet['asked_per_second']:,.0f}; "
        f"p99 of a poll {fleet['poll_p99_ms']:,} ms |",
        f"| one router fetches a version | {load['cpu_us']:,.0f} µs "
        f"| {size(load['bytes_out'])} | |",
        f"| *{routers} routers fetch it* | {more['publish_to_all_cpu_s']:,} s "
        f"| {size(more['publish_to_all_bytes'])} | computed |",
        f"| *all look at all tasks, as after a failover* | {more['sweep_of_all_by_all_cpu_s']:,} s "
        "| | computed |",
        "",
        f"In memory: a task without its graphs {size(memory['task_bytes'])}, each version "
        f"{size(memory['version_bytes'])}; *{scale['tasks']:,} tasks with 20 versions each: "
        f"{size(more['tasks_bytes_at_20_versions'])} (computed)*. A hint that was lost is noticed "
        f"within {more['lost_hint_noticed_within_s']:,} s.",
    ]
    return "\n".join(lines)


def _texts(data: Path) -> list[str]:
    if not data.exists():
        return [row["input"] for row in generate(5_000, seed=0)]
    return [row.texts[0] for row in read_rows(data)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/banking77.jsonl"))
    parser.add_argument("--quick", action="store_true", help="small, and nothing is written")
    arguments = parser.parse_args()
    if arguments.data.exists() and not arguments.quick:
        artifact, about = fitted(arguments.data), "Banking77's, fitted"
    else:
        artifact, about = made_up("made-up", FIRST_DAY, coverage=0.9, seed=0), "made up"
    found = measure(QUICK if arguments.quick else Scale(), artifact, about)
    if not arguments.quick:
        found["kafka"] = footprint.kafka(_texts(arguments.data))
    print(table(found))
    if arguments.quick:
        return
    (HERE / "results" / "fanout.json").write_text(json.dumps(found, indent=1) + "\n")
    replace_section(DOCUMENT, "fanout", table(found))
    sizing.write()


if __name__ == "__main__":
    main()
