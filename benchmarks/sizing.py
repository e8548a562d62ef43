"""docs/sizing.md's figures, from benchmarks/results alone: `python -m benchmarks.sizing`.

Every benchmark that measures one of them renews the page; a figure nobody has measured yet says
which command measures it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.tables import replace_section

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DOCUMENT = HERE.parent / "docs" / "sizing.md"
VALUES = HERE.parent / "deploy" / "helm" / "tracer" / "values.yaml"
SECONDS_A_DAY = 86_400
Result = Mapping[str, Any]


def write(results: Path = RESULTS, document: Path = DOCUMENT) -> None:
    for name, text in sections(results).items():
        replace_section(document, name, text)


def sections(results: Path) -> dict[str, str]:
    """By the section's name in docs/sizing.md, what belongs there."""
    return {
        "sizing-router": _of(results, "router", router),
        "sizing-redis": _of(results, "fanout", redis),
        "sizing-fleet": _of(results, "fanout", fleet),
        "sizing-kafka": _of(results, "fanout", kafka),
        "sizing-trainer": _of(results, "scale", trainer),
        "sizing-pods": _of(results, "load", pods, "make test-load REPORT=1"),
    }


def _of(results: Path, name: str, text: Callable[[Result], str], command: str = "") -> str:
    file = results / f"{name}.json"
    if not file.exists():
        return f"Not measured yet: `{command or f'make bench-{name}'}`."
    return text(json.loads(file.read_text()))


def router(found: Result) -> str:
    cores = found["machine"]["cores"]
    exactly, least = found["kafka"]["exactly_once"], found["kafka"]["at_least_once"]
    one = found["kafka"]["scale_out"]
    lines = [
        "| | exactly once | at least once |",
        "|---|---|---|",
        _row("requests/s, the whole machine", exactly, least, "per_s", ",.0f"),
        _row("CPU seconds per 1,000 requests", exactly, least, "cpu_s_per_1000", ".3f"),
        "| requests/s of one router core, by its CPU seconds | "
        + " | ".join(f"{1_000 / mode['cpu_s_per_1000']:,.0f}" for mode in (exactly, least))
        + " |",
        _row("memory of a router with one task, MB", exactly, least, "memory_mb", ",.0f"),
        "",
        f"On {cores} cores, which broker and load generator share; the version answers "
        f"{found['ours']['lexical_share']:.0%} without the encoder. With one thread a router does "
        f"{one['1 routers, lexical stage on']:,.0f} requests/s, with the encoder for every text "
        f"{one['1 routers, lexical stage off']:,.0f}.",
    ]
    return "\n".join(lines)


def _row(name: str, one: Result, other: Result, key: str, style: str) -> str:
    return f"| {name} | {one[key]:{style}} | {other[key]:{style}} |"


def redis(found: Result) -> str:
    memory, artifact = found["memory"], found["artifact"]
    version, task = memory["version_bytes"], memory["task_bytes"]
    lines = [
        "| Redis holds | memory |",
        "|---|---|",
        f"| a task: pointer, history, manifest | {size(task)} |",
        f"| each version ({artifact['of']}: {size(artifact['blob_bytes'])} of graphs) "
        f"| {size(version)} |",
    ]
    for tasks, versions in ((10, 20), (100, 20), (1_000, 3), (10_000, 3)):
        whole = size(tasks * (task + versions * version))
        lines.append(f"| *{tasks:,} tasks with {versions} versions each (computed)* | {whole} |")
    return "\n".join(lines)


def fleet(found: Result) -> str:
    polling, heard, scale = found["fleet"], found["change_heard"], found["scale"]
    poll, load, more = found["poll"], found["load"], found["computed"]
    each = poll["cpu_us"] / 1e6
    lines = [
        f"| {scale['routers']:,} routers, {scale['tasks']:,} tasks | |",
        "|---|---|",
        f"| Redis' CPU for their polling | {polling['redis_core_share']:.0%} of a core |",
        f"| *for 10, 100 routers (computed)* | {10 * each:.1%}, {100 * each:.1%} |",
        f"| network a router | {size(polling['bytes_per_router_second'])}/s |",
        f"| a change is heard by all within | {heard['heard_last_ms']:,} ms |",
        f"| a lost hint is noticed within | {more['lost_hint_noticed_within_s']:,} s |",
        f"| a new version, fetched by one router | {size(load['bytes_out'])}, "
        f"{load['cpu_us'] / 1e3:,.1f} ms of Redis' CPU |",
        f"| *by all of them (computed)* | {size(more['publish_to_all_bytes'])}, "
        f"{more['publish_to_all_cpu_s']:,} s |",
        f"| *all look at all tasks, as after a failover (computed)* "
        f"| {more['sweep_of_all_by_all_cpu_s']:,} s of Redis' CPU |",
    ]
    return "\n".join(lines)


def kafka(found: Result) -> str:
    if "kafka" not in found:
        return "Not measured yet: `make bench-fanout` where Java is."
    lines = [
        "| topic | an event as JSON | in the broker's log (lz4), a million events |"
        " at 100 events/s, a day |",
        "|---|---|---|---|",
    ]
    for topic, weight in found["kafka"]["topics"].items():
        logged = weight["log_bytes"]
        lines.append(
            f"| `{topic}` | {weight['json_bytes']:,.0f} B | {size(1e6 * logged)} "
            f"| {size(100 * SECONDS_A_DAY * logged)} |"
        )
    return "\n".join(lines)


def trainer(found: Result) -> str:
    lines = [
        "| traces in the horizon | rows fitted on | first day, s | a day later, s | CPU s |"
        " peak memory, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for one in found["sizes"]:
        later = one["read_seconds"] + one["fit_seconds"]
        lines.append(
            f"| {one['stored']:,} | {one['rows']:,} | {later + one['embed_seconds']:,.0f} "
            f"| {later:,.0f} | {one['fit_cpu_seconds']:,} | {one['peak_mib']:,} |"
        )
    return "\n".join(lines)


def pods(found: Result) -> str:
    """What the services took under load, beside what their pods ask for in the chart's values."""
    calm, rush = found["steady"], found["overload"]["peak_mb"]
    asked = yaml.safe_load(VALUES.read_text())
    lines = [
        "| service | peak memory, MiB | at three times capacity | cores | its pod asks for |"
        " and gets at most |",
        "|---|---|---|---|---|---|",
    ]
    for service in ("router", "trainer", "ingest", "teacher"):
        every = [name for name in calm["memory"] if name.rstrip("-0123456789") == service]
        peak = max(calm["memory"][name]["peak_mb"] for name in every)
        most = max(rush[name] for name in every)
        used = [calm["cores"][name] for name in every if name in calm.get("cores", {})]
        cores = f"{max(used):.2f}" if used else "not measured"
        wanted, limit = (asked[service]["resources"][kind] for kind in ("requests", "limits"))
        lines.append(
            f"| {service} | {peak:,.0f} | {most:,.0f} | {cores} "
            f"| {wanted['cpu']} CPU, {wanted['memory']} | {limit['memory']} |"
        )
    return "\n".join(lines)


def size(number: float) -> str:
    for unit, of in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= of:
            return f"{number / of:,.1f} {unit}"
    return f"{number:,.0f} B"


if __name__ == "__main__":
    write()
