"""Five days in a few minutes: traces replayed day by day, live requests in between."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from services.ctl.demo.cluster import Cluster
from services.ctl.demo.plan import HEAD, Day, Plan, moment, raw_trace, request
from services.ctl.demo.traffic import Traffic
from services.ctl.files import Row
from shared.contracts.events import AnnouncementKind, Decision, ModelAnnouncement, Outcome
from shared.contracts.topics import Topic

VERDICT_SECONDS = 600.0
DECISIONS_SECONDS = 300.0
SWAP_SECONDS = 30.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class LiveResult:
    """Live requests of one day. `agreement` is None where nothing was handled. `audited`: of the
    handled ones, those the LLM was asked about as well."""

    requests: int
    handled: int
    audited: int
    coverage: float
    agreement: float | None
    seconds: float


@dataclass(frozen=True)
class DayResult:
    day: str
    traces: int
    verdict: str
    reason: str
    version: str | None
    certified_coverage: float | None
    certified_agreement_lower: float | None
    fit_seconds: float
    live: LiveResult


@dataclass
class Demo:
    """Plays a plan on a cluster and counts what comes of it."""

    cluster: Cluster
    traffic: Traffic
    plan: Plan
    say: Say
    kill_router_on: int | None = None
    _expected: dict[str, str] = field(default_factory=dict)
    _decided_at_kill: str | None = None

    def play(self) -> dict[str, Any]:
        """The summary, as written to summary.json."""
        started = time.monotonic()
        self._expected = {f"live-{row.id}": row.teacher for row in self.plan.live}
        before = self._live(self.plan.before, self.plan.days[0], offset=0)
        self.say(
            f"before     {before.requests} live requests: no version is active, "
            f"all {before.requests - before.handled} went to the LLM"
        )
        results = [self._day(number, day) for number, day in enumerate(self.plan.days)]
        # What a killed router had in work comes again only once its successor has joined.
        self.traffic.settle(20.0 if self.kill_router_on else 3.0)
        return self._summary(before, results, time.monotonic() - started)

    def _day(self, number: int, day: Day) -> DayResult:
        started = time.monotonic()
        first = number == 0
        fresh = day.traces if first else day.traces[HEAD:]
        sent = self._send_traces(fresh, day, start=0.1)
        following = self.plan.days[number + 1 :]
        head = following[0].traces[:HEAD] if following else self.plan.head
        next_day = Day(day.day + timedelta(days=1), head, ())
        self._send_traces(head, next_day, start=0.0, end=0.05)
        announced = self.traffic.wait_for_verdict(
            self.plan.task, day.day.isoformat(), VERDICT_SECONDS
        )
        fit_seconds = time.monotonic() - started
        self._say_verdict(number, day, sent if first else sent + HEAD, announced, fit_seconds)
        if announced.kind is AnnouncementKind.PUBLISHED:
            self._wait_for_swap(announced)
        kill = self.kill_router_on == number + 1
        live = self._live(day.live, next_day, offset=0.05, kill_router=kill)
        self.say(
            f"           {live.requests} live requests: {live.coverage:.1%} handled"
            + (f", agreement {live.agreement:.3f}" if live.agreement is not None else "")
            + f"; {live.requests - live.handled} went to the LLM, {live.audited} audited"
        )
        certificate = announced.certificate
        return DayResult(
            day=day.day.isoformat(),
            traces=announced.n_traces or 0,
            verdict=announced.kind.value,
            reason=announced.reason,
            version=announced.version,
            certified_coverage=certificate.coverage if certificate else None,
            certified_agreement_lower=certificate.agreement_lower if certificate else None,
            fit_seconds=round(fit_seconds, 2),
            live=live,
        )

    def _say_verdict(
        self, number: int, day: Day, sent: int, announced: ModelAnnouncement, seconds: float
    ) -> None:
        version = f" as {announced.version}" if announced.version else ""
        self.say(
            f"day {number + 1}      window {day.day}: {sent} traces logged; "
            f"{announced.kind.value}{version} after {seconds:.0f} s on {announced.n_traces} traces"
        )
        self.say(f"           {announced.reason}")

    def _send_traces(self, rows: Sequence[Row], day: Day, *, start: float, end: float = 1.0) -> int:
        step = (end - start) / max(len(rows), 1)
        return self.traffic.send(
            Topic.TRACES_RAW,
            (
                raw_trace(self.plan.task, row, day.day, start + i * step)
                for i, row in enumerate(rows)
            ),
        )

    def _wait_for_swap(self, announced: ModelAnnouncement) -> None:
        epoch = announced.epoch or 0
        self.traffic.wait_until(
            lambda: all(e >= epoch for e in self.cluster.active_epochs()),
            SWAP_SECONDS,
            f"version {announced.version} on every router",
        )

    def _live(
        self, rows: Sequence[Row], day: Day, *, offset: float, kill_router: bool = False
    ) -> LiveResult:
        started = time.monotonic()
        at = moment(day.day, offset)
        ids = [f"live-{row.id}" for row in rows]
        self.traffic.send(Topic.REQUESTS, (request(self.plan.task, row, at) for row in rows))
        if kill_router:
            self._kill_a_router(ids)
        decisions = self.traffic.wait_for_decisions(ids, DECISIONS_SECONDS)
        return self._result(decisions, time.monotonic() - started)

    def _kill_a_router(self, ids: Sequence[str]) -> None:
        """Kill -9 in the middle of the day's requests, and start it again."""
        self.traffic.wait_until(
            lambda: sum(i in self.traffic.decisions for i in ids) >= len(ids) // 5,
            DECISIONS_SECONDS,
            "the first decisions of the day",
        )
        router = self.cluster.routers[0]
        decided = sum(i in self.traffic.decisions for i in ids)
        router.kill()
        self._decided_at_kill = f"{decided} of {len(ids)}"
        self.say(f"           killed {router.name} with {self._decided_at_kill} decided")
        router.start()

    def _result(self, decisions: Sequence[Decision], seconds: float) -> LiveResult:
        handled = [d for d in decisions if d.outcome is not Outcome.DEFERRED]
        agreed = sum(d.label == self._expected[d.request_id] for d in handled)
        return LiveResult(
            requests=len(decisions),
            handled=len(handled),
            audited=sum(d.outcome is Outcome.AUDITED for d in handled),
            coverage=round(len(handled) / max(len(decisions), 1), 4),
            agreement=round(agreed / len(handled), 4) if handled else None,
            seconds=round(seconds, 2),
        )

    def _summary(
        self, before: LiveResult, days: Sequence[DayResult], seconds: float
    ) -> dict[str, Any]:
        finals = self.traffic.decisions
        asked = len(self._expected)
        everything = self._result([finals[i][0] for i in self._expected], 0.0)
        calls_saved = everything.handled - everything.audited
        last = days[-1].live
        saved_share = (last.handled - last.audited) / max(last.requests, 1)
        cost = self.traffic.mean_cost()
        return {
            "task": self.plan.task,
            "alpha": self.cluster.settings.alpha,
            "broker": "kafka" if self.cluster.settings.bootstrap else "embedded",
            "delivery": "exactly_once" if self.cluster.settings.bootstrap else "at_least_once",
            "routers": self.cluster.settings.routers,
            "coverage": days[-1].live.coverage,
            "agreement": days[-1].live.agreement,
            "overall_coverage": everything.coverage,
            "overall_agreement": everything.agreement,
            "requests": asked,
            "decided_once": sum(len(finals.get(i, ())) == 1 for i in self._expected),
            "decided_more_than_once": sum(len(finals.get(i, ())) > 1 for i in self._expected),
            "undecided": sum(i not in finals for i in self._expected),
            "decided_at_kill": self._decided_at_kill,
            "dead_letters": self.traffic.dead_letters,
            "audited": everything.audited,
            "calls_saved": calls_saved,
            "dollars_saved": round(calls_saved * cost, 4),
            "dollars_saved_per_million_requests": round(1e6 * saved_share * cost, 2),
            "seconds": round(seconds, 1),
            "before": asdict(before),
            "days": [asdict(day) for day in days],
        }


def write_summary(summary: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(summary, indent=2) + "\n")
