"""`tracerctl fleet`: the routers that run, and whether each serves what is active."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from services.ctl.output import console, fail, print_json, print_table
from services.ctl.registry_access import Json, open_registry
from shared.clock import SystemClock
from shared.registry.base import Registry, RegistryError
from shared.registry.fleet import RouterBeat, connect_fleet


def fleet(json: Json = False) -> None:
    """Every router that runs: version per task, lag, throughput, since when."""
    now = SystemClock().now()
    with open_registry() as (registry, settings):
        routers = connect_fleet(settings.redis_url.get_secret_value())
        try:
            beats = routers.routers()
        except RegistryError as error:
            fail(f"{error}; is TRACER_REDIS_URL right?")
        finally:
            routers.close()
        active = _active(registry, beats)
    rows = [_row(beat, active, now) for beat in beats]
    if json:
        print_json(rows)
        return
    if not rows:
        console.print("No router has said anything for 20 seconds.")
        return
    print_table(
        "routers",
        ["instance", "host", "delivery", "lag", "requests/s", "tasks", "behind", "up", "heard"],
        [
            (r["instance"], r["host"], r["mode"], r["lag"], r["per_second"], r["tasks"],
             ", ".join(r["behind"]) or "none", _span(r["up_seconds"]),
             f"{_span(r['heard_seconds'])} ago")
            for r in rows
        ],
    )  # fmt: skip


def _active(registry: Registry, beats: list[RouterBeat]) -> dict[str, str | None]:
    tasks = {task for beat in beats for task in beat.versions}
    return {task: registry.active(task).version for task in sorted(tasks)}


def _row(beat: RouterBeat, active: dict[str, str | None], now: datetime) -> dict[str, Any]:
    """`behind`: the tasks of which it serves another version than the active one."""
    behind = [task for task, version in beat.versions.items() if version != active[task]]
    return {
        **msgspec.to_builtins(beat),
        "behind": sorted(behind),
        "up_seconds": round((now - beat.started).total_seconds()),
        "heard_seconds": max(0, round((now - beat.at).total_seconds())),
    }


def _span(seconds: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
