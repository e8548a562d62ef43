"""A real console for tests: broker, Redis and console as processes, five days of some tasks."""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import msgspec

from services.ctl.embedded.broker import EmbeddedBroker
from services.ctl.embedded.ports import free_port
from services.ctl.embedded.processes import Child, run_module
from services.ctl.embedded.redis_server import EmbeddedRedis
from shared.bus.admin import ensure_topics
from shared.bus.base import Message, Record
from shared.bus.dead_letters import dead_letter
from shared.bus.errors import InvalidMessage
from shared.bus.kafka import KafkaPublisher
from shared.contracts.codec import encode
from shared.contracts.events import (
    AnnouncementKind,
    CertificateSummary,
    Decision,
    Event,
    ModelAnnouncement,
    Opinion,
    Outcome,
    Reason,
    Request,
    Source,
    Trace,
)
from shared.contracts.manifest import FrontierPoint, Manifest, Teacher, decode_manifest
from shared.contracts.report import decode_report
from shared.contracts.topics import Topic, load_topics
from shared.encoder.base import Encoder
from shared.operating import announcement_of
from shared.registry.base import Artifact, State
from shared.registry.fleet import RouterBeat, connect_fleet
from shared.registry.redis import RedisRegistry, connect
from shared.store.parquet import WindowStore
from tests.artifacts import make_artifact
from tests.surrogates import LABELS as MODEL_LABELS
from tests.surrogates import make_surrogate, text_of

ROOT = Path(__file__).resolve().parents[1]
FIRST_DAY = date(2026, 1, 5)
COVERAGES = (0.42, 0.61, 0.7, 0.74, 0.793)  # the last as in the example of a report
TASKS = ("intents", "moderation", "routing", "support", "tickets")
LABELS = (
    "activate_card", "cancel_order", "change_address", "card_not_working", "charge_disputed",
    "delivery_date", "lost_parcel", "refund_status",
)  # fmt: skip
OPERATOR, READER, TENANT = "operator-token-0123456789", "reader-token-0123456789", "t" * 24


class Place:
    """Start it, look at `url`. `settings` are further ones of the console."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.broker = EmbeddedBroker(folder)
        self.redis = EmbeddedRedis(folder / "redis")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.console: Child | None = None
        self.versions: dict[str, list[str]] = {task: [] for task in TASKS}
        self._settings = settings

    def __enter__(self) -> Self:
        try:
            self.broker.start()
            self.redis.start()
            ensure_topics(self.broker.bootstrap_servers, load_topics().values())
            self._write_tasks()
            self.registry: RedisRegistry = connect(self.redis.url)
            self.publisher = KafkaPublisher(bootstrap=self.broker.bootstrap_servers)
            self.seed()
            self.console = self.start_console("console", self.port, **self._settings)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self.console is not None:
            self.console.terminate(5.0)
        self.redis.stop()
        self.broker.stop()

    def start_console(self, name: str, port: int, **settings: str) -> Child:
        child = Child(
            name,
            run_module("services.console.main"),
            log=self.folder / f"{name}.log",
            environment={
                "TRACER_BOOTSTRAP_SERVERS": self.broker.bootstrap_servers,
                "TRACER_REDIS_URL": self.redis.url,
                "TRACER_TASKS": str(self.folder / "tasks.yaml"),
                "TRACER_CONSOLE_PORT": str(port),
                "TRACER_DELIVERY": "at_least_once",  # the embedded broker's
                "TRACER_ENCODER": str(ROOT / ".cache" / "encoder"),
                "TRACER_STORE": str(self.folder / "windows"),
                **settings,
            },
            health_port=free_port(),
        )
        child.start()
        try:
            child.wait_ready(90.0)
        except BaseException:
            child.kill()
            raise
        return child

    # --- what there is to see

    def seed(self) -> None:
        self._certified_every_day("support", refused_first=True, until=5)
        self._certified_every_day("intents", refused_first=False, until=4)
        self._certified_every_day("moderation", refused_first=False, until=2)
        self._trial("intents")
        moderated = self.versions["moderation"][-1]
        entry = self.registry.set_state(
            "moderation", State.PAUSED, version=moderated, at=at(2, 9.5),
            reason="the moderation prompt is being rewritten", actor="maria",
        )  # fmt: skip
        self.send(Topic.MODELS, announcement_of("moderation", entry))
        self._report("support", self.versions["support"][-1])
        self._letters()
        self.beat()

    def send(self, topic: Topic, *events: Event) -> None:
        key = "task" if topic is Topic.MODELS else "id"
        self.publisher.publish(
            [
                Record(str(topic), str(getattr(e, key, getattr(e, "task", ""))).encode(), encode(e))
                for e in events
            ]
        )

    def decide(self, name: str, task: str = "support") -> None:
        """One more request is decided, now."""
        decision = drawn(
            random.Random(name), task, name, at(5, 12), self.versions[task][-1], COVERAGES[-1]
        )
        self.send(Topic.DECISIONS, msgspec.structs.replace(decision, decided_at=datetime.now(UTC)))

    def seed_a_model(self, encoder: Encoder) -> None:
        """`tickets` gets a version that really answers, and the traces it was made of. The console
        finds the encoder by TRACER_ENCODER."""
        artifact = make_surrogate(encoder, task="tickets", threshold=0.9)
        self.registry.publish(
            artifact, fence=self.registry.acquire("tickets"), at=at(5, 0.4), reason="certified"
        )
        self.versions["tickets"].append(artifact.version)
        rng = random.Random(5)
        texts = [" ".join(rng.sample(text_of(label).split(), 3)) for label in MODEL_LABELS * 40]
        muddles = [" ".join(rng.sample(" ".join(texts[i : i + 2]).split(), 5)) for i in range(60)]
        WindowStore(str(self.folder / "windows")).write(
            "tickets", FIRST_DAY,
            [
                Trace(
                    id=f"stored-{n}", task="tickets", input=f"{text} of ann@example.org",
                    teacher=MODEL_LABELS[n % 3], occurred_at=at(0, 10),
                )
                for n, text in enumerate([*texts, *muddles])
            ],
        )  # fmt: skip

    def ask(self, name: str, text: str, task: str = "tickets") -> None:
        """A request comes, and is deferred."""
        self.send(Topic.REQUESTS, Request(id=name, task=task, input=text))
        now = datetime.now(UTC)
        self.send(Topic.DECISIONS, Decision(
            request_id=name, task=task, outcome=Outcome.DEFERRED, reason=Reason.BELOW_THRESHOLD,
            decided_at=now, occurred_at=now, label="delivery", version=self.versions[task][-1],
            accept_score=0.41, threshold=0.9, timings={"router": 1.2},
        ))  # fmt: skip

    def _certified_every_day(self, task: str, *, refused_first: bool, until: int) -> None:
        rng = random.Random(task)
        for number in range(until):
            day = FIRST_DAY + timedelta(days=number)
            version = None
            if number or not refused_first:
                version = self._publish(task, number, day)
            else:
                self.send(Topic.MODELS, ModelAnnouncement(
                    kind=AnnouncementKind.REFUSED, task=task, announced_at=at(number + 1, 0.2),
                    reason="agreement 0.902 on the evidence is below α = 0.95 at any coverage of "
                    "10% or more: about 1,900 more traces are needed",
                    window=day.isoformat(), n_traces=812,
                ))  # fmt: skip
            self._traffic(rng, task, number + 1, version, COVERAGES[number] if version else 0.0)

    def _publish(self, task: str, number: int, day: date) -> str:
        artifact = certified(task, day, COVERAGES[number], 1_800 * (number + 1) + 3)
        active = self.registry.publish(
            artifact, fence=self.registry.acquire(task), at=at(number + 1, 0.2), reason="certified"
        )
        self.versions[task].append(artifact.version)
        manifest = artifact.manifest
        self.send(Topic.MODELS, ModelAnnouncement(
            kind=AnnouncementKind.PUBLISHED, task=task, announced_at=at(number + 1, 0.2),
            reason=f"certified: handles {COVERAGES[number]:.1%} of the traffic at agreement >= "
            f"{manifest.certificate.agreement_lower:.3f}",
            version=artifact.version, epoch=active.epoch, window=day.isoformat(),
            n_traces=manifest.n_traces, certificate=manifest.certificate,
        ))  # fmt: skip
        return artifact.version

    def _traffic(
        self, rng: random.Random, task: str, day: int, version: str | None, coverage: float
    ) -> None:
        n = 800
        decisions, traces, audits = [], [], []
        for i in range(n):
            decision = drawn(
                rng, task, f"{task}-{day}-{i}", at(day, 8 + 8 * i / n), version, coverage
            )
            decisions.append(decision)
            if decision.outcome is Outcome.HANDLED:
                continue
            trace = traced(rng, decision)
            traces.append(trace)
            if trace.drawn and version:
                audits.append((day * 1_000 + i, trace.opinions[0].label == trace.teacher))
        self.send(Topic.DECISIONS, *decisions)
        self.send(Topic.TRACES, *traces)
        if version:
            self.registry.record_audits(task, version, 0, audits)

    def _trial(self, task: str) -> None:
        artifact = certified(task, FIRST_DAY + timedelta(days=4), 0.82, 5_000)
        fence = self.registry.acquire(task)
        active = self.registry.start_trial(
            artifact, mode="canary", share=0.1, fence=fence, at=at(5, 0.3), reason="on trial"
        )
        self.versions[task].append(artifact.version)
        self.registry.record_audits(
            task, artifact.version, 0, [(i, i % 40 != 7) for i in range(130)]
        )
        self.send(Topic.MODELS, ModelAnnouncement(
            kind=AnnouncementKind.CANARY, task=task, announced_at=at(5, 0.3), epoch=active.epoch,
            reason="certified with more coverage: answers 10% of the requests until 200 audits",
            version=artifact.version, window="2026-01-09", n_traces=5_000,
            certificate=artifact.manifest.certificate,
        ))  # fmt: skip

    def _letters(self) -> None:
        for n, (task, text) in enumerate((("support", "x" * 50), ("intents", ""), ("support", ""))):
            value = json.dumps({"id": f"r{n}", "task": task, "input": text}).encode()
            original = Message("requests", 0, 40 + n, f"r{n}".encode(), value)
            error = InvalidMessage("Expected `str` of length >= 1 - at `$.input`", field="input")
            letter = dead_letter(
                original, service="router", error=error, field="input", at=at(5, 9 + n / 4),
                topic=str(Topic.DEAD_LETTERS),
            )  # fmt: skip
            self.publisher.publish([letter])

    def beat(self) -> None:
        """Two routers say that they run; for 20 seconds, as routers do every few."""
        fleet, now = connect_fleet(self.redis.url), datetime.now(UTC)
        active = {task: self.registry.active(task).version for task in TASKS}
        stale = active | {"support": self.versions["support"][-2]}
        for number, (versions, rate) in enumerate(((active, 412.3), (stale, 388.9)), 1):
            fleet.beat(
                RouterBeat(
                    instance=f"router-{number}", host="node-a", mode="exactly_once",
                    started=now - timedelta(hours=30), at=now, lag=17 * number, per_second=rate,
                    tasks=len(TASKS), versions=versions,
                )
            )  # fmt: skip
        fleet.close()

    def _report(self, task: str, version: str) -> None:
        data = (ROOT / "schemas/reports/examples/typical.json").read_bytes()
        report = decode_report(data)
        self.registry.put_report(
            msgspec.structs.replace(report, task=task, version=version, window=version[:10])
        )
        refused = decode_report((ROOT / "schemas/reports/examples/edge-refused.json").read_bytes())
        self.registry.put_report(
            msgspec.structs.replace(refused, task=task, window=FIRST_DAY.isoformat())
        )

    def _write_tasks(self) -> None:
        tasks: list[dict[str, Any]] = [
            {"name": name, "alpha": 0.95, "labels": list(LABELS)} for name in TASKS
        ]
        tasks[-1] |= {"labels": list(MODEL_LABELS), "redact": "builtin"}
        # JSON is YAML.
        (self.folder / "tasks.yaml").write_text(json.dumps({"tasks": tasks}))


def tokens() -> str:
    """For TRACER_CONSOLE_TOKENS: who may do all, who may only look, and who has one task."""
    return json.dumps(
        [
            {"name": "maria", "token": OPERATOR},
            {"name": "rosa", "token": READER, "read_only": True},
            {"name": "acme", "token": TENANT, "tasks": ["support"]},
        ]
    )


def at(day: int, hour: float) -> datetime:
    start = datetime.combine(FIRST_DAY, datetime.min.time(), UTC)
    return start + timedelta(days=day, hours=hour)


def certified(task: str, day: date, coverage: float, n_traces: int) -> Artifact:
    """An artifact whose manifest has all that a page shows; its blobs are no model."""
    plain = make_artifact(task, window=day.isoformat(), text=f"{day}{coverage}")
    lower = 0.9528 + 0.004 * coverage
    alphas = (0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99)
    shrink = (1.16, 1.1, 1.06, 1.0, 0.82, 0.6, 0.0)
    frontier = tuple(
        FrontierPoint(
            alpha=alpha,
            coverage=round(min(0.97, coverage * s), 4),
            agreement=round(alpha + 0.4 * (1 - alpha), 4) if s else 0.0,
            agreement_lower=round(alpha + 0.08 * (1 - alpha), 4) if s else 0.0,
        )
        for alpha, s in zip(alphas, shrink, strict=True)
    )
    changes: dict[str, Any] = {
        "labels": LABELS,
        "certificate": CertificateSummary(
            kind="crossfit", alpha=0.95, delta=0.1, method="lexical+semantic",
            n_evidence=n_traces, coverage=coverage, agreement=round(lower + 0.0052, 4),
            agreement_lower=round(lower, 4), next_sample=0.25,
        ),
        "frontier": frontier,
        "n_traces": n_traces,
        "teacher": Teacher(model="recorded-llm"),
        "libraries": {"numpy": "2.3.1", "scikit-learn": "1.9.1"},
        "candidates": ({"stage": "lexical", "scorer": "logistic", "agreement": 0.934},),
        "families": ({"family": "global", "coverage": round(coverage - 0.04, 4)},),
    }  # fmt: skip
    manifest: Manifest = msgspec.structs.replace(decode_manifest(plain.manifest_bytes), **changes)
    return Artifact(manifest.encode(), plain.blobs)


def drawn(
    rng: random.Random, task: str, name: str, when: datetime, version: str | None, coverage: float
) -> Decision:
    """One request's decision: handled with probability `coverage`, audited now and then."""
    handled = version is not None and rng.random() < coverage
    audited = handled and rng.random() < 0.2
    outcome = Outcome.DEFERRED
    if handled:
        outcome = Outcome.AUDITED if audited else Outcome.HANDLED
    reason = Reason.CERTIFIED
    if version is None:
        reason = Reason.NO_ACTIVE_VERSION
    elif not handled:
        reason = rng.choices(
            (Reason.BELOW_THRESHOLD, Reason.OUT_OF_DISTRIBUTION, Reason.LABEL_FLOOR), (80, 15, 5)
        )[0]
    return Decision(
        request_id=name, task=task, outcome=outcome, reason=reason, decided_at=when,
        occurred_at=when, label=rng.choice(LABELS), version=version,
        accept_score=round(rng.uniform(0.8, 0.99) if handled else rng.uniform(0.1, 0.8), 4),
        threshold=0.8 if version else None, timings={"router": round(rng.uniform(0.3, 3.0), 3)},
    )  # fmt: skip


def traced(rng: random.Random, decision: Decision) -> Trace:
    """What the teacher made of a request it was asked about."""
    audited = decision.outcome is Outcome.AUDITED
    label = decision.label or LABELS[0]
    said = label if rng.random() < 0.97 else LABELS[-1]
    opinions = []
    if decision.version:
        opinions = [Opinion(version=decision.version, label=said, handled=audited)]
    return Trace(
        id=decision.request_id, task=decision.task, input="a text nobody sees here", teacher=label,
        occurred_at=decision.decided_at, source=Source.AUDITED if audited else Source.DEFERRED,
        drawn=audited, deferral_reason=None if audited else decision.reason, opinions=opinions,
        version=decision.version, cost=0.00042,
    )  # fmt: skip
