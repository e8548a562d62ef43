"""The routers that run, and whether each serves what is active."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.clock import Clock
from shared.registry.fleet import Fleet, RouterBeat
from shared.registry.glances import Glances


@dataclass(frozen=True, slots=True)
class RouterView:
    """One router, as it said of itself `heard_seconds` ago. `lag`: messages not yet committed.
    `behind`: tasks of which it serves another version than the active one."""

    instance: str
    host: str
    mode: str
    started: datetime
    up_seconds: int
    heard_seconds: int
    lag: int
    per_second: float
    tasks: int
    behind: tuple[str, ...]
    versions: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class FleetView:
    routers: tuple[RouterView, ...]
    lag: int
    per_second: float


def fleet_view(fleet: Fleet, glances: Glances, names: Sequence[str], clock: Clock) -> FleetView:
    """Raises RegistryError."""
    beats = fleet.routers()
    active = {glance.task: glance.active.version for glance in glances.glance(names)}
    now = clock.now()
    return FleetView(
        routers=tuple(_router(beat, active, now) for beat in beats),
        lag=sum(beat.lag for beat in beats),
        per_second=sum(beat.per_second for beat in beats),
    )


def _router(beat: RouterBeat, active: dict[str, str | None], now: datetime) -> RouterView:
    behind = [t for t, version in beat.versions.items() if t in active and version != active[t]]
    return RouterView(
        instance=beat.instance,
        host=beat.host,
        mode=beat.mode,
        started=beat.started,
        up_seconds=round((now - beat.started).total_seconds()),
        heard_seconds=max(0, round((now - beat.at).total_seconds())),
        lag=beat.lag,
        per_second=beat.per_second,
        tasks=beat.tasks,
        behind=tuple(sorted(behind)),
        versions=beat.versions,
    )
