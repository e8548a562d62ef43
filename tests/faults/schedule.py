"""Schedules of faults, dealt by a seed: the same seed and number give the same schedule."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from tests.faults.llm import MOODS
from tests.faults.system import SERVICES, WITH_REDIS

Kind = Literal[
    "kill", "freeze", "broker", "cut", "hole", "slow", "half_open", "redis_restart", "redis_lost",
    "redis_failover", "disk_full", "clock", "teacher", "duplicates", "reorder",
]  # fmt: skip
BROKERS = 3
SECONDS = 8.0  # of traffic
LONGEST_FREEZE = 10.0  # may outlast the traffic
_LINKS = ("cut", "hole", "slow", "half_open")
# How often each is dealt; what every deployment sees most is dealt most.
_WEIGHTS: dict[Kind, int] = {
    "kill": 6, "freeze": 2, "broker": 2, "cut": 2, "hole": 2, "slow": 2, "half_open": 2,
    "redis_restart": 1, "redis_lost": 1, "redis_failover": 1, "disk_full": 1, "clock": 1,
    "teacher": 4, "duplicates": 1, "reorder": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """`kind` from `begin` to `end`, in seconds from the start of the traffic.

    `target`: a service, a service and `kafka` or `redis` with a slash between, the number of a
    broker, or the mood of the teacher's endpoint. `amount`: seconds of delay or by which a clock
    is off.
    """

    kind: Kind
    begin: float
    end: float
    target: str = ""
    amount: float = 0.0

    @property
    def touches(self) -> str:
        """What no other fault of the same schedule touches."""
        if self.kind.startswith("redis_"):
            return "redis"
        return {"broker": "broker", "teacher": "teacher", "duplicates": "twice"}.get(
            self.kind, f"{self.kind}-{self.target}" if self.kind == "clock" else self.target
        )

    def __str__(self) -> str:
        amount = f" {self.amount:+g}s" if self.amount else ""
        return f"{self.kind} {self.target}{amount} {self.begin:.1f}-{self.end:.1f}"


@dataclass(frozen=True, slots=True)
class Schedule:
    seed: str
    faults: tuple[Fault, ...]

    @property
    def chance(self) -> random.Random:
        """For the traffic, apart from what dealt the faults."""
        return random.Random(f"traffic {self.seed}")


def deal(seed: int | str, number: int, *, without: frozenset[Kind] = frozenset()) -> Schedule:
    """Schedule `number` of a seed: two to four faults, none `without`, no two touching the same.

    A schedule of another `without` is another one.
    """
    name = f"{seed}-{number}"
    chance = random.Random(f"faults {name}")
    kinds = [kind for kind in _WEIGHTS if kind not in without]
    wanted = chance.choice((2, 2, 3, 3, 4))
    faults: dict[str, Fault] = {}
    while len(faults) < wanted:
        kind = chance.choices(kinds, [_WEIGHTS[kind] for kind in kinds])[0]
        fault = _fault(kind, chance)
        faults.setdefault(fault.touches, fault)
    return Schedule(name, tuple(sorted(faults.values(), key=lambda fault: fault.begin)))


def _fault(kind: Kind, chance: random.Random) -> Fault:
    begin = round(chance.uniform(0.3, SECONDS - 3.0), 1)
    end = round(begin + chance.uniform(0.5, min(6.0, SECONDS - begin)), 1)
    target, amount = "", 0.0
    if kind in ("kill", "freeze"):
        target = chance.choice(SERVICES)
        if kind == "freeze":
            # About as often beyond the six seconds after which its group gives it up as not.
            end = round(begin + chance.uniform(2.0, LONGEST_FREEZE), 1)
    elif kind == "broker":
        target = str(chance.randrange(BROKERS))
    elif kind in _LINKS:
        service = chance.choice(SERVICES)
        to = chance.choice(("kafka", "redis")) if service in WITH_REDIS else "kafka"
        target = f"{service}/{to}"
        amount = round(chance.uniform(0.05, 0.5), 2) if kind == "slow" else 0.0
    elif kind == "teacher":
        target = chance.choice(MOODS)
    elif kind == "clock":
        target = chance.choice(SERVICES)
        amount = float(chance.choice((-7200, -60, -5, 5, 60, 7200)))
    return Fault(kind, begin, end, target, amount)
