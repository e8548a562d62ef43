"""The figures of a run, written into docs/reliability.md and benchmarks/results."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from benchmarks import sizing
from benchmarks.tables import replace_section

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "benchmarks" / "results"


def write(summary: dict[str, Any]) -> None:
    save("faults", summary)
    replace_section(DOCUMENT, "faults", text(summary))


def save(name: str, figures: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")


def text(summary: dict[str, Any]) -> str:
    """The section as Markdown."""
    faults = summary["faults"]
    lines = [
        f"`make test-faults SCHEDULES={summary['schedules']} SEED={summary['seed']}`, "
        f"{summary['seconds'] / 60:.0f} minutes:",
        "",
        "| | |",
        "|---|---:|",
        f"| schedules | {summary['schedules']} |",
        f"| faults | {sum(faults.values())} |",
        f"| requests | {summary['requests']:,} |",
        f"| calls at the routers' doors | {summary['calls']:,} |",
        f"| logged traces | {summary['traces']:,} |",
        f"| events checked | {summary['events_checked']:,} |",
        f"| services that ended of their own accord | {sum(summary['exits'].values())} |",
        f"| time to work everything off, median | {summary['settle_seconds_median']:.0f} s |",
        f"| time to work everything off, longest | {summary['settle_seconds_longest']:.0f} s |",
        f"| **violations** | **{summary['violations']}** |",
        "",
        "| fault | times |",
        "|---|---:|",
        *(f"| {kind} | {count} |" for kind, count in faults.items()),
    ]
    lines += [
        f"| {kind} | not available: {why} |" for kind, why in summary["not_available"].items()
    ]
    return "\n".join(lines)


def write_load(figures: dict[str, Any]) -> None:
    save("load", figures)
    replace_section(DOCUMENT, "load", load_text(figures))
    sizing.write()


def load_text(figures: dict[str, Any]) -> str:
    """The section as Markdown."""
    calm, rush, counts = figures["steady"], figures["overload"], figures["requests"]
    lines = [
        f"`make test-load DURATION={calm['seconds']:.0f} OVERLOAD={rush['seconds']:.0f}`, capacity "
        f"{figures['capacity']:,.0f} requests a second on {os.cpu_count()} cores that ran brokers, "
        "Redis, the endpoint and the load as well:",
        "",
        "| at 70% of capacity | middle third | last third |",
        "|---|---:|---:|",
    ]
    for who, latency in calm["latency_ms"].items():
        for name, (early, late) in latency.items():
            lines.append(f"| {name} of the {who}'s decisions, ms | {early} | {late} |")
    for service, (early, late) in calm["lag"].items():
        lines.append(f"| lag of {service}, records | {early:,.0f} | {late:,.0f} |")
    lines += [
        "",
        "| process | peak memory, MB | growth | peak under overload, MB |",
        "|---|---:|---:|---:|",
    ]
    for process, memory in calm["memory"].items():
        peak = rush["peak_mb"][process]
        lines.append(f"| {process} | {memory['peak_mb']} | {memory['growth']:+.1%} | {peak} |")
    lines += [
        "",
        f"{rush['rate'] / figures['capacity']:.1f} times capacity left "
        f"{rush['backlog']:,} requests waiting in Kafka, worked off in "
        f"{rush['recovery_seconds']:,.0f} s. Of {counts['sent']:,} requests {counts['undecided']} "
        f"were left undecided, {counts['decided_twice']} decided twice; "
        f"{sum(figures['exits'].values())} processes ended.",
    ]
    return "\n".join(lines)
