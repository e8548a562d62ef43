"""SIGTERM under load, each service as a process on Apache Kafka: it ends with exit code 0 within
the chart's grace period, and its successor finds nothing lost and nothing done twice."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import redis
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from surrogates import LABELS, make_surrogate, text_of
from test_ingest import World, ids, raw
from test_teacher import TASKS as TEACHER_TASKS
from test_teacher import read
from test_trainer import DAY1
from test_trainer import Bench as TrainerBench

from benchmarks.routing.load import Load, Taken
from benchmarks.routing.place import Place
from benchmarks.routing.versions import of_task
from services.console.tally_store import RedisTallies
from services.ctl.embedded.ports import free_port
from services.ctl.embedded.processes import Child, run_module
from services.ctl.recorded_llm import Behaviour, RecordedLLM
from services.ctl.sample.generator import generate
from shared.bus.admin import ensure_topics
from shared.bus.base import Record
from shared.bus.kafka import KafkaPublisher
from shared.contracts.codec import decode, encode
from shared.contracts.events import Decision, Deferral, Outcome, RawTrace, Reason, Request
from shared.contracts.topics import Topic, load_topics
from shared.encoder.default import ensure_default_encoder
from shared.encoder.onnx_encoder import OnnxEncoder

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]


def grace(service: str) -> float:
    """Seconds that the chart gives its pods."""
    text = (ROOT / f"deploy/helm/tracer/templates/{service}.yaml").read_text()
    return 60.0 if '"grace" 60' in text else 30.0


def stopped(child: Child, within: float) -> None:
    begun = time.monotonic()
    code = child.terminate(within)
    assert code == 0, f"exit code {code} after {time.monotonic() - begun:.1f} s\n{child.tail()}"
    assert "Traceback" not in child.log.read_text()


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[threading.Event]:
    """Again and again in a thread, until the event is set or the block is left."""
    enough, failures = threading.Event(), list[Exception]()

    def work() -> None:
        try:
            while not enough.is_set():
                act()
        except Exception as error:  # noqa: BLE001 - raised where the block is left
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield enough
    finally:
        enough.set()
        thread.join(30)
    assert not failures, failures


def until(true: Callable[[], bool], child: Child, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        child.check()
        assert time.monotonic() < deadline, child.tail()
        time.sleep(0.1)


def new_topics(kafka: str, prefix: str, topics: Sequence[str]) -> None:
    admin = AdminClient({"bootstrap.servers": kafka})
    made = admin.create_topics([NewTopic(f"{prefix}{topic}", 3, 1) for topic in topics])
    for created in made.values():
        created.result(10)


def test_ingest(kafka: str, redis_url: str, tmp_path: Path) -> None:
    world = World(kafka, redis_url, tmp_path)
    new_topics(kafka, world.prefix, ("traces.raw", "traces", "dead-letters"))
    slow = {"TRACER_INGEST_BATCH_SIZE": "50", "TRACER_INGEST_BUFFER_RECORDS": "200"}
    n = 6_000
    world.produce([raw(number) for number in range(n)])
    first = world.start_ingest(**slow)
    try:
        world.wait_for("traces", lambda records: len(records) > 200)
        stopped(first, grace("ingest"))
        assert len(world.read("traces")) < n, "stopped too late to prove anything"
        world.start_ingest()
        traces = world.wait_for("traces", lambda records: len(ids(records)) >= n)
        assert ids(traces) == Counter(f"t{number}" for number in range(n))
    finally:
        for child in world.children:
            child.kill()


def test_router(kafka: str, redis_url: str, tmp_path: Path) -> None:
    encoder = ensure_default_encoder(ROOT / ".cache" / "encoder")
    artifact = make_surrogate(OnnxEncoder(encoder, threads=1))
    with Place(kafka, redis_url, encoder, tmp_path) as place:
        place.publish(of_task(artifact, place.task))
        first = place.router(1, threads=1)
        taken: list[Taken] = []
        texts = [text_of(label) for label in LABELS]
        load = threading.Thread(
            target=lambda: taken.append(Load(place, texts).run(150, 8, patience=60))
        )
        load.start()
        time.sleep(2.5)
        place.fleet.children.remove(first)
        stopped(first, grace("router"))
        place.router(1, threads=1)
        load.join(120)
        assert taken
        assert (taken[0].sent, taken[0].lost, taken[0].doubled) == (1_200, 0, 0)


def test_teacher(kafka: str, tmp_path: Path) -> None:
    n, prefix = 300, f"t{uuid4().hex[:8]}-"
    new_topics(kafka, prefix, ("deferred", "decisions", "traces.raw", "dead-letters"))
    llm = RecordedLLM(
        {f"text {number}": "Refund" for number in range(n)},
        behaviour=Behaviour(latency_seconds=0.1),
    )
    publisher = KafkaPublisher(bootstrap=kafka)
    publisher.publish([_deferral(prefix, number) for number in range(n)])
    publisher.close()
    (tmp_path / "tasks.yaml").write_text(TEACHER_TASKS)
    child = Child(
        "teacher", run_module("services.teacher.main"), log=tmp_path / "teacher.log",
        environment={
            "TRACER_BOOTSTRAP_SERVERS": kafka,
            "TRACER_TOPIC_PREFIX": prefix,
            "TRACER_GROUP_SUFFIX": f"-{prefix}",
            "TRACER_INSTANCE": "one",
            "TRACER_TASKS": str(tmp_path / "tasks.yaml"),
            "TRACER_TEACHER_BASE_URL": llm.base_url,
            "TRACER_TEACHER_API_KEY": "sk-of-the-test",
            "TRACER_TEACHER_MAX_BATCH": "20",
        },
        health_port=free_port(),
    )  # fmt: skip

    def decided() -> list[Decision]:
        return [decode(value, Decision) for value in read(kafka, f"{prefix}decisions")]

    try:
        child.start()
        until(lambda: len(decided()) >= 40, child)
        stopped(child, grace("teacher"))
        assert len(decided()) < n, "stopped too late to prove anything"
        child.start()
        until(lambda: len(decided()) >= n, child)
        stopped(child, grace("teacher"))
    finally:
        child.kill()
        llm.close()
    each = Counter(f"r{number}" for number in range(n))
    assert Counter(decision.request_id for decision in decided()) == each
    traces = [decode(value, RawTrace).id for value in read(kafka, f"{prefix}traces.raw")]
    assert Counter(traces) == each


def _deferral(prefix: str, number: int) -> Record:
    request = Request(id=f"r{number}", task="support", input=f"text {number}")
    event = Deferral(
        request=request, reason=Reason.NO_ACTIVE_VERSION, deferred_at=datetime.now(UTC)
    )
    return Record(f"{prefix}deferred", request.id.encode(), encode(event))


def test_trainer(kafka: str, redis_url: str, tmp_path: Path) -> None:
    """Twice: with its window open, and amid the fit."""
    bench = TrainerBench(kafka, redis_url, tmp_path)
    rows = list(generate(500, seed=3))
    try:
        bench.trainer.start()
        bench.trainer.wait_ready(60)
        bench.send(rows[:250], DAY1)
        time.sleep(1.0)  # some are read, none can be stored: the window is open
        stopped(bench.trainer, grace("trainer"))
        bench.send(rows[250:], DAY1)
        bench.trainer.start()
        until(lambda: bool(bench.store.days(bench.task)), bench.trainer)  # closed: the fit begins
        stopped(bench.trainer, grace("trainer"))
        bench.trainer.start()
        (announced, *more) = bench.announcements(1)
        assert not more
        assert announced.n_traces == len(rows)
        assert Counter(bench.ids(DAY1)) == Counter(str(row["id"]) for row in rows)
        assert bench.registry.versions(bench.task) == [announced.version]
    finally:
        bench.trainer.kill()
        bench.publisher.close()
        bench.registry.close()


def test_console(kafka: str, redis_url: str, tmp_path: Path) -> None:
    """Pages asked for, a live stream open, decisions being counted."""
    prefix, task = f"{uuid4().hex[:8]}.", f"t-{uuid4().hex[:8]}"
    ensure_topics(kafka, load_topics().values(), prefix=prefix, replication=1)
    (tmp_path / "tasks.yaml").write_text(f"tasks: [{{name: {task}}}]\n")
    port = free_port()
    child = Child(
        "console", run_module("services.console.main"), log=tmp_path / "console.log",
        environment={
            "TRACER_BOOTSTRAP_SERVERS": kafka,
            "TRACER_REDIS_URL": redis_url,
            "TRACER_TASKS": str(tmp_path / "tasks.yaml"),
            "TRACER_TOPIC_PREFIX": prefix,
            "TRACER_GROUP_SUFFIX": f"-{prefix}",
            "TRACER_CONSOLE_PORT": str(port),
            "TRACER_UNSIGNED": "allow",
        },
        health_port=free_port(),
    )  # fmt: skip
    url, answers, sent = f"http://127.0.0.1:{port}", list[int](), 0
    publisher = KafkaPublisher(bootstrap=kafka)
    streamed, ended = threading.Event(), threading.Event()

    def decide() -> None:
        nonlocal sent
        some = [_decision(prefix, task, number) for number in range(sent, sent + 25)]
        publisher.publish(some)
        sent += len(some)
        time.sleep(0.05)

    def look() -> None:
        try:
            answers.append(httpx.get(f"{url}/api/v1/tasks", timeout=20).status_code)
        except httpx.TransportError as error:  # it is gone, or has not begun with this one
            if "complete" in str(error):  # an answer was cut short
                raise
            time.sleep(0.05)

    def listen() -> None:
        with httpx.stream("GET", f"{url}/api/v1/tasks/{task}/live", timeout=60) as stream:
            for _ in stream.iter_lines():
                streamed.set()
        ended.set()  # properly: a stream cut short raises

    def counted() -> int:
        with redis.Redis.from_url(redis_url) as client:
            days = RedisTallies(client).days([task], 400)[task]
        return sum(
            count
            for fields in days.values()
            for name, count in fields.items()
            if name.startswith("decided|")
        )

    listener = threading.Thread(target=listen)
    try:
        child.start()
        child.wait_ready(60)
        listener.start()
        with meanwhile(decide), meanwhile(look):
            assert streamed.wait(20)
            until(lambda: counted() > 100, child)
            stopped(child, grace("console"))
            assert ended.wait(10)
            child.start()
            child.wait_ready(60)
            time.sleep(1.0)
        until(lambda: counted() >= sent, child)
        stopped(child, grace("console"))
        assert counted() == sent
        assert set(answers) == {200}
    finally:
        child.kill()
        publisher.close()


def _decision(prefix: str, task: str, number: int) -> Record:
    event = Decision(
        request_id=f"r{number}", task=task, outcome=Outcome.HANDLED, reason=Reason.CERTIFIED,
        decided_at=datetime.now(UTC), label="refund", accept_score=0.9, threshold=0.8, version="v",
    )  # fmt: skip
    return Record(f"{prefix}{Topic.DECISIONS}", event.request_id.encode(), encode(event))
