"""Faults as they are done to the system, and undone."""

from __future__ import annotations

from tests.faults.llm import Mood
from tests.faults.schedule import Fault, Kind
from tests.faults.system import System
from tests.faults.traffic import Mix

_TWICE, _SHUFFLED = 0.3, 0.8


def unavailable(system: System) -> dict[Kind, str]:
    """The kinds that cannot be had on this machine, with the reason."""
    without: dict[Kind, str] = {}
    if system.disk.unavailable is not None:
        without["disk_full"] = system.disk.unavailable
    return without


def begin(fault: Fault, system: System, mix: Mix) -> None:
    """`end` ends it."""
    match fault.kind:
        case "kill":
            system.kill(fault.target)
        case "freeze":
            system.freeze(fault.target)
        case "broker":
            system.brokers.nodes[int(fault.target)].kill()
        case "cut" | "hole" | "slow":
            for link in system.way(*fault.target.split("/")):
                link.set(fault.kind, delay=fault.amount)
        case "half_open":
            for link in system.way(*fault.target.split("/")):
                link.abandon()
        case "redis_restart":
            system.redis.kill()
        case "redis_lost":
            system.redis.lose_everything()
        case "redis_failover":
            system.redis.fail_over()
        case "disk_full":
            system.disk.fill()
        case "clock":
            system.clocks[fault.target].set(fault.amount)
        case "teacher":
            system.llm.be(_mood(fault.target))
        case "duplicates":
            mix.twice = _TWICE
        case "reorder":
            mix.shuffled = _SHUFFLED


def end(fault: Fault, system: System, mix: Mix) -> None:
    match fault.kind:
        case "kill":
            system.revive(fault.target)
        case "freeze":
            system.thaw(fault.target)
        case "broker":
            system.brokers.nodes[int(fault.target)].launch()
        case "cut" | "hole" | "slow":
            for link in system.way(*fault.target.split("/")):
                link.set("open")
        case "half_open":
            system.links.hang_up()
        case "redis_restart":
            system.redis.revive()
        case "redis_failover":
            system.redis.rejoin()
        case "disk_full":
            system.disk.empty()
        case "clock":
            system.clocks[fault.target].set(0.0)
        case "teacher":
            system.llm.be("well")
        case "duplicates":
            mix.twice = Mix.twice
        case "reorder":
            mix.shuffled = Mix.shuffled


def _mood(name: str) -> Mood:
    for mood in ("hang", "busy", "broken", "garbage", "slow", "well"):
        if mood == name:
            return mood
    raise ValueError(f"{name!r} is no mood of the teacher's endpoint")
