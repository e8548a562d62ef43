"""The figures of a run, written into docs/reliability.md and benchmarks/results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
