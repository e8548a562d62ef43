"""Load: `make test-load DURATION=3600 OVERLOAD=300`.

The capacity of this machine, with all services and brokers on it, is measured; then come `DURATION`
seconds of mixed traffic at 70% of it, `OVERLOAD` seconds at three times it, and the time until
everything is worked off. Writes benchmarks/results/load.json and docs/reliability.md; exits 1 when
something falls short.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.kafka.local_kafka import KafkaUnavailable
from services.ctl.paths import cache_folder
from shared.encoder.default import ensure_default_encoder
from tests.faults import report
from tests.faults.meter import Meter
from tests.faults.playing import playing
from tests.faults.system import System
from tests.faults.traffic import Mix, Traffic
from tests.faults.verdict import steady

SHARE, TIMES = 0.7, 3.0
_TICK = 0.1
_TRACES_A_SECOND = 5
_SATURATED = 60.0
_AHEAD = 8_000
_AUDITS = 0.02  # the default of tasks
_MARKERS = 16  # offsets of transactions' own records, which no reader ever commits
# Windows that close, and are refitted, in the steady phase: one in so many seconds, and at least so
# many. In an hour the horizon of six days is full before anything is compared.
_DAY_SECONDS, _DAYS = 150.0, 6
_PATIENCE = 3_600.0
# Ingest remembers a million ids before it forgets any: here few enough to be full when measured.
# Longer than any backlog here, and short enough that an hour's records find room on this disk.
_RETENTION = "20m"
_ENVIRONMENT = {"TRACER_INGEST_MEMORY_KEYS": "2000", "TRACER_TEACHER_CONCURRENCY": "16"}


class Load:
    """Phases of traffic on one system."""

    def __init__(self, system: System, meter: Meter, traffic: Traffic) -> None:
        self.system, self.meter, self.traffic = system, meter, traffic
        self._chance = random.Random("load")
        self._number = 0
        self.day = 2

    def capacity(self) -> float:
        """Requests a second that the whole system keeps up with, the sender beside it.

        For `_SATURATED` seconds it is given as much as it works off: more whenever few requests
        are undecided and few deferrals and audits unanswered: the slowest service sets the pace.
        What was sent in the last three quarters counts.
        """
        began = time.monotonic()
        begin, counted = began + _SATURATED / 4, 0
        while time.monotonic() < began + _SATURATED:
            if self.meter.undecided < _AHEAD and max(self.meter.lag().values()) < _AHEAD:
                self._requests(_AHEAD // 4)
                counted += _AHEAD // 4 if time.monotonic() >= begin else 0
            self.traffic.poll()
            self.system.supervise()
            time.sleep(0.005)
        self.traffic.flush()
        self.drain(_PATIENCE)
        return counted / (0.75 * _SATURATED)

    def _worked_off(self) -> bool:
        if self.meter.undecided:
            return False
        return all(0 <= lag <= _MARKERS for lag in self.meter.lag().values())

    def run(self, rate: float, seconds: float, *, days: int = 0) -> float:
        """Mixed traffic; `days` windows close meanwhile. Returns the requests a second that were
        sent: less than `rate` where this process does not keep up."""
        began, first, sent = time.monotonic(), self.day, 0
        while (gone := time.monotonic() - began) < seconds:
            self.day = first + int(days * gone / seconds)
            due = int(rate * gone) - sent
            self._requests(due)
            sent += due
            if self._chance.random() < _TICK * _TRACES_A_SECOND:
                self._number += 1
                name = f"trace-{self._number}"
                self.traffic.traces(self._chance, self.day, 1, Mix(0, 0, 0, 0), name)
            self.system.supervise()
            self.meter.sample()
            time.sleep(_TICK)
        self.meter.sample(now=True)
        return sent / (time.monotonic() - began)

    def drain(self, patience: float) -> float:
        """Until all is worked off, or `patience` is over; the seconds it took."""
        began = time.monotonic()
        while not self._worked_off() and time.monotonic() - began < patience:
            self.traffic.poll()
            self.system.supervise()
            self.meter.sample()
            time.sleep(0.05)
        return time.monotonic() - began

    def _requests(self, count: int) -> None:
        self._number += 1
        name = f"load-{self._number}"
        for number in range(count):
            self.meter.sending(f"{name}-{number}")
        self.traffic.requests(
            self._chance, self.day, count, Mix(0, 0, 0, 0), name, muddled=0.02, untrained=0.02
        )


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is ended
    folder = Path(tempfile.mkdtemp(prefix="tracer-load-"))
    try:
        figures = run(options, folder)
    except KafkaUnavailable as error:
        print(f"no Apache Kafka here: {error}", file=sys.stderr)
        return 2
    print(json.dumps(figures, indent=2))
    if options.report:
        report.write_load(figures)
    if not figures["met"]:
        print(f"it falls short; the logs are in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Raises KafkaUnavailable."""
    encoder = ensure_default_encoder(cache_folder() / "encoder")
    with (
        System(
            folder,
            encoder,
            heap="512m",
            direct=True,
            environment=_ENVIRONMENT,
            audit_share=_AUDITS,
            retention=_RETENTION,
        ) as system,
        playing(system) as player,
    ):
        player.first_version("load")
        pids = {name: child.pid for name, child in system.services.items()}
        pids["redis"] = system.redis.primary.child.pid
        meter = Meter(system.brokers.bootstrap(), pids)
        try:
            return _phases(Load(system, meter, player.traffic), options)
        finally:
            meter.close()


def _phases(load: Load, options: argparse.Namespace) -> dict[str, Any]:
    capacity = load.capacity()
    begin = len(load.meter.samples)
    days = max(_DAYS, round(options.duration / _DAY_SECONDS))
    load.run(SHARE * capacity, options.duration, days=days)
    calm = steady(load.meter.samples[begin:], SHARE * capacity)
    load.drain(60.0)
    begin = len(load.meter.samples)
    sent_a_second = load.run(TIMES * capacity, options.overload)
    load.traffic.flush()
    backlog = load.meter.undecided
    seconds = load.drain(_PATIENCE)
    rush = load.meter.samples[begin:]
    begin = len(load.meter.samples)
    load.run(SHARE * capacity, min(60.0, options.duration))
    load.drain(60.0)
    after = steady(load.meter.samples[begin:], SHARE * capacity)
    overload = {
        "rate": round(sent_a_second, 1),
        "seconds": options.overload,
        "backlog": backlog,
        "recovery_seconds": round(seconds, 1),
        "peak_mb": {
            name: round(max(sample.memory[name] for sample in rush) / 2**20, 1)
            for name in rush[-1].memory
        },
        "latency_ms_after": after["latency_ms"],
    }
    exits = dict(load.system.ended)
    counts = {"sent": load.meter.sent, "decided": load.meter.decided,
              "undecided": load.meter.undecided, "decided_twice": load.meter.doubled}  # fmt: skip
    met = (
        calm["memory_flat"] and calm["lag_flat"] and calm["latency_stable"]
        and not exits and not counts["undecided"] and not counts["decided_twice"]
    )  # fmt: skip
    return {
        "capacity": round(capacity, 1), "steady": calm, "overload": overload,
        "requests": counts, "exits": exits, "met": met,
    }  # fmt: skip


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--duration", type=float, default=3600.0, help="seconds at 70%%")
    parser.add_argument("--overload", type=float, default=300.0, help="seconds at three times")
    parser.add_argument("--report", action="store_true", help="write docs/reliability.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
