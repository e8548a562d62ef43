"""Plays schedules on a running system: traffic and faults, then quiet, then the laws."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.faults.checker import Findings, Violation, check
from tests.faults.doors import Callers
from tests.faults.evidence import Unreadable, Witness
from tests.faults.inject import begin, end
from tests.faults.schedule import SECONDS, Fault, Schedule
from tests.faults.system import ALPHAS, TASK, System
from tests.faults.traffic import Mix, Traffic

SETTLES = "everything is worked off"
# A service may end with a message when it cannot go on; a supervisor starts it again.
CRASHES = "no process crashes"
_TICK = 0.2
_REQUESTS_A_TICK, _TRACES_A_TICK = 5, 3
_SCHEDULES_A_DAY = 2
_FIRST_TRACES = 400
_FIRST_VERSION_SECONDS = 120.0
_SETTLE_SECONDS, _SAY_SECONDS = 120.0, 20.0
_WINDOWS_SECONDS = 90.0


@dataclass
class Played:
    """What came of one schedule; `exits`: services that ended of their own accord, with why."""

    seed: str
    faults: list[str]
    kinds: list[str]
    requests: int
    traces: int
    calls: int = 0
    settle_seconds: float = 0.0
    events: int = 0
    exits: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def line(self) -> dict[str, Any]:
        return asdict(self)


class Player:
    """Plays one schedule after the other on one system; evidence adds up, and every schedule is
    judged on all of it."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.traffic = Traffic(system.brokers.bootstrap())
        self.witness = Witness(system.brokers.bootstrap(), system.disk.folder, ALPHAS)
        self._known: set[str] = set()
        self._number = 0

    def first_version(self, seed: int | str) -> None:
        """A day of traces, and the beginning of the next, until a version is active. Raises
        RuntimeError."""
        chance = random.Random(f"first day {seed}")
        clean = Mix(0, 0, 0, 0)
        self.traffic.traces(chance, 0, _FIRST_TRACES, clean, f"{seed}-first")
        self.traffic.flush()
        time.sleep(2.0)
        self.traffic.traces(chance, 1, 40, clean, f"{seed}-next")
        self.traffic.flush()
        deadline = time.monotonic() + _FIRST_VERSION_SECONDS
        while time.monotonic() < deadline:
            with self.system.redis.client() as client:
                if client.hget(f"tracer:{{{TASK}}}:active", "version"):
                    return
            self.system.supervise()
            time.sleep(0.5)
        raise RuntimeError(f"no version: {self.system.services['trainer'].tail(5)}")

    def play(self, schedule: Schedule) -> Played:
        """Never raises for what the system does; violations are in the result."""
        before = self.system.ended.copy()
        sent = self.traffic.sent.requests, self.traffic.sent.traces
        day = 1 + self._number // _SCHEDULES_A_DAY
        self._number += 1
        called = len(self.witness.evidence.called)
        callers = Callers(list(self.system.doors.values()), schedule.seed, day)
        callers.calls = self.witness.evidence.called
        callers.start()
        try:
            self._drive(schedule, day)
        finally:
            callers.finish()
        began = time.monotonic()
        played = Played(
            schedule.seed,
            [str(fault) for fault in schedule.faults],
            [fault.kind for fault in schedule.faults],
            self.traffic.sent.requests - sent[0],
            self.traffic.sent.traces - sent[1],
            len(self.witness.evidence.called) - called,
        )
        violations = self._settle()
        played.settle_seconds = round(time.monotonic() - began, 1)
        findings = self._judge()
        violations += self._new(findings)
        played.events = findings.checked
        played.violations = [str(violation) for violation in violations]
        played.exits = dict(self.system.ended - before)
        played.violations += [f"{CRASHES}: {why}" for why in played.exits if " (-" in why]
        return played

    def close_windows(self) -> Findings:
        """With all traffic over, every window closes; the verdict of a witness who reads all
        topics from the beginning."""
        deadline = time.monotonic() + _WINDOWS_SECONDS
        while self._judge().queued["trainer"] and time.monotonic() < deadline:
            self.system.supervise()
            time.sleep(1.0)
        fresh = Witness(self.system.brokers.bootstrap(), self.system.disk.folder, ALPHAS)
        fresh.evidence.acknowledged = self.traffic.sent.acknowledged
        fresh.evidence.called = self.witness.evidence.called
        fresh.evidence.certified |= self.witness.evidence.certified
        with self.system.redis.client() as client:
            findings = check(fresh.look(client, seconds=60.0))
        fresh.close()
        if findings.queued["trainer"]:
            late = Violation(SETTLES, "trainer", f"{findings.queued['trainer']} traces still held")
            findings.violations.append(late)
        return findings

    def close(self) -> None:
        self.witness.close()

    def _drive(self, schedule: Schedule, day: int) -> None:
        """The traffic and, at their times, the faults."""
        chance, mix = schedule.chance, Mix()
        due = sorted(_actions(schedule, self.system, mix), key=lambda action: action[0])
        began = time.monotonic()
        ticks = int(SECONDS / _TICK)
        for tick in range(ticks):
            while due and due[0][0] <= tick * _TICK:
                due.pop(0)[1]()
            name = f"{schedule.seed}-{tick}"
            self.traffic.requests(chance, day, _REQUESTS_A_TICK, mix, f"r{name}")
            self.traffic.traces(chance, day, _TRACES_A_TICK, mix, f"t{name}")
            self.system.supervise()
            time.sleep(max(0.0, began + (tick + 1) * _TICK - time.monotonic()))
        for at, action in due:
            while time.monotonic() < began + at:
                self.system.supervise()
                time.sleep(_TICK / 2)
            action()

    def _settle(self) -> list[Violation]:
        """Until every service has worked off what waits for it. One that does not in time is a
        violation, and is restarted, so that the next schedule begins on a system that works."""
        for node in self.system.brokers.nodes:
            node.wait_started()
        unsent = self.traffic.flush()
        began = said = time.monotonic()
        deadline = began + _SETTLE_SECONDS
        while True:
            self.system.supervise()
            behind: Counter[str] = Counter()
            try:
                self.witness.look(None)
                behind = self.witness.behind()
            except Unreadable as error:
                behind[str(error)] = 1
            if not behind or time.monotonic() > deadline:
                break
            if time.monotonic() - said > _SAY_SECONDS:
                said = time.monotonic()
                print(f"{said - began:.0f} s of quiet; waits: {dict(behind)}", file=sys.stderr)
            time.sleep(0.3)
        for service in self.system.services:
            if behind[service.partition("-")[0]]:
                self.system.ask_where(service)
                self.system.kill(service)
                self.system.revive(service)
        stuck = [Violation(SETTLES, who, f"{count} wait") for who, count in behind.items()]
        if unsent:
            stuck.append(Violation(SETTLES, "producer", f"{unsent} not acknowledged"))
        return stuck

    def _judge(self) -> Findings:
        self.witness.evidence.acknowledged = self.traffic.sent.acknowledged
        with self.system.redis.client() as client:
            return check(self.witness.look(client))

    def _new(self, findings: Findings) -> list[Violation]:
        fresh = [v for v in findings.violations if str(v) not in self._known]
        self._known |= {str(violation) for violation in fresh}
        return fresh


def _actions(
    schedule: Schedule, system: System, mix: Mix
) -> Iterator[tuple[float, Callable[[], None]]]:
    def starting(fault: Fault) -> Callable[[], None]:
        return lambda: begin(fault, system, mix)

    def ending(fault: Fault) -> Callable[[], None]:
        return lambda: end(fault, system, mix)

    for fault in schedule.faults:
        yield fault.begin, starting(fault)
        yield fault.end, ending(fault)


@contextmanager
def playing(system: System) -> Iterator[Player]:
    player = Player(system)
    try:
        yield player
    finally:
        player.close()
