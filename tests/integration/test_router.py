"""The router on a real Kafka and Redis: swaps under traffic, starts without Redis, its door."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from doubles import HashEncoder
from msgspec import convert
from surrogates import LABELS, make_surrogate, text_of

from services.ctl.embedded.ports import free_port
from services.ctl.embedded.redis_server import EmbeddedRedis
from services.router.app import RouterService
from services.router.config import RouterSettings
from services.router.door_service import DoorService
from services.router.handlers import Router, Topics
from services.router.loading import Loading
from services.router.models import Models
from services.router.serving import Serving
from shared.bus.admin import ensure_topics
from shared.bus.base import Message, Record
from shared.bus.dead_letters import dead_letter
from shared.bus.errors import InvalidMessage
from shared.bus.kafka import KafkaPublisher, KafkaSource, open_pipe
from shared.clock import SystemClock
from shared.contracts.codec import decode, encode
from shared.contracts.events import Decision, Deferral, Outcome, Reason, Request
from shared.contracts.tasks import Task
from shared.contracts.topics import Topic, load_topics
from shared.registry.base import Artifact
from shared.registry.disk import DiskCopy
from shared.registry.redis import RedisRegistry, connect
from shared.telemetry.health import Health
from tests.kafka_fixtures import start_kafka

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(120)]

AT = datetime(2026, 1, 5, tzinfo=UTC)


class Bench:
    """Topics, task and disk copies of one test."""

    def __init__(self, kafka: str, folder: Path) -> None:
        self.kafka, self.folder = kafka, folder
        self.name = uuid4().hex[:8]
        self.prefix = f"{self.name}."
        self.task = f"t-{self.name}"
        self.encoder = HashEncoder()
        self.order: dict[int, list[str]] = defaultdict(list)  # decided ids by output partition
        ensure_topics(kafka, load_topics().values(), prefix=self.prefix, replication=1)
        self.publisher = KafkaPublisher(bootstrap=kafka)

    def service(
        self, registry: RedisRegistry, number: int = 1, *, door: bool = False
    ) -> RouterService:
        clock = SystemClock()
        models = Models(
            [self.task], registry, DiskCopy(self.folder), Loading(self.encoder, threads=1)
        )

        def rejected(message: Message, error: InvalidMessage) -> Record:
            return dead_letter(
                message, service="router", error=error, at=clock.now(),
                topic=f"{self.prefix}{Topic.DEAD_LETTERS}",
            )  # fmt: skip

        router = Router(
            tasks={self.task: Task(name=self.task, audit_share=0.0)},
            serving=models.snapshot,
            encoder=self.encoder,
            clock=clock,
            topics=Topics(f"{self.prefix}{Topic.DECISIONS}", f"{self.prefix}{Topic.DEFERRED}"),
            dead_letter=rejected,
        )
        pipe = open_pipe(
            bootstrap=self.kafka,
            group=f"{self.prefix}router",
            topics=[f"{self.prefix}{Topic.REQUESTS}"],
            delivery="exactly_once",
            transactional_id=f"{self.prefix}router-{number}",
        )
        settings = RouterSettings(max_batch=16, max_wait=0.02, poll=0.2, door_port=0)
        opened = None
        if door:
            publisher = KafkaPublisher(bootstrap=self.kafka)
            opened = DoorService(settings, router, publisher, clock)
        return RouterService(pipe, router, models, Health(clock), clock, settings, opened)

    def ask(self, number: int) -> Record:
        request = Request(id=f"r{number:05d}", task=self.task, input=text_of(LABELS[number % 3]))
        # One key: one partition, so that order can be checked.
        return Record(f"{self.prefix}{Topic.REQUESTS}", b"one-key", encode(request))

    def answers(self, wanted: int, timeout: float = 60.0) -> list[Decision | Deferral]:
        """What a read_committed reader sees of `decisions` and `deferred`, and no more after."""
        topics = [f"{self.prefix}{t}" for t in (Topic.DECISIONS, Topic.DEFERRED)]
        source = KafkaSource(bootstrap=self.kafka, group=uuid4().hex, topics=topics)
        found: list[Decision | Deferral] = []
        end = time.monotonic() + timeout
        quiet_until = None
        while time.monotonic() < end and (quiet_until is None or time.monotonic() < quiet_until):
            for message in source.poll(500, 0.2):
                kind = Decision if message.topic.endswith(Topic.DECISIONS) else Deferral
                found.append(decode(message.value, kind))
                if kind is Decision:
                    self.order[message.partition].append(request_id(found[-1]))
            if quiet_until is None and len(found) >= wanted:
                quiet_until = time.monotonic() + 1.0
        source.close()
        return found


@contextmanager
def running(service: RouterService) -> Iterator[RouterService]:
    stop = threading.Event()
    thread = threading.Thread(target=service.run, args=(stop,))
    thread.start()
    try:
        yield service
    finally:
        stop.set()
        thread.join(30)
        service.close()
    assert not thread.is_alive()


@pytest.fixture
def bench(kafka: str, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(kafka, tmp_path)
    yield made
    made.publisher.close()


def publish(registry: RedisRegistry, task: str, artifact: Artifact) -> str:
    fence = registry.acquire(task)
    registry.publish(artifact, fence=fence, at=AT, reason="test")
    return artifact.version


def request_id(answer: Decision | Deferral) -> str:
    return answer.request_id if isinstance(answer, Decision) else answer.request.id


def version_of(serving: Serving) -> str | None:
    return serving.version.version if serving.version else None


def test_swaps_under_traffic_lose_double_and_reorder_nothing(bench: Bench, redis_url: str) -> None:
    registry = connect(redis_url)
    artifacts = [
        make_surrogate(bench.encoder, task=bench.task, window=f"2026-01-{day:02d}")
        for day in range(1, 4)
    ]
    service, swaps = bench.service(connect(redis_url)), 12
    done = threading.Event()
    sent = 0

    def send() -> None:
        nonlocal sent
        while not done.is_set():
            bench.publisher.publish([bench.ask(sent + i) for i in range(20)])
            sent += 20
            time.sleep(0.01)

    published = [publish(registry, bench.task, artifacts[0])]
    with running(service):
        sender = threading.Thread(target=send)
        sender.start()
        assert bench.answers(20)  # it is reading
        for part in range(1, swaps):
            version = publish(registry, bench.task, artifacts[part % 3])
            published.append(version)
            end = time.monotonic() + 5
            while version_of(service.models.snapshot()[bench.task]) != version:
                assert time.monotonic() < end, f"{version} was not swapped in"
                time.sleep(0.01)
            time.sleep(0.1)
        done.set()
        sender.join()
        bench.order.clear()
        answers = bench.answers(sent)
    registry.close()
    ids = [request_id(a) for a in answers]
    assert len(ids) == len(set(ids)) == sent
    decisions = [a for a in answers if isinstance(a, Decision)]
    assert len(bench.order) > 1
    assert all(ids == sorted(ids) for ids in bench.order.values())
    decisions.sort(key=lambda d: d.request_id)
    assert {d.label for d in decisions} == set(LABELS)
    versions = [d.version for d in decisions]
    assert set(versions) <= {a.version for a in artifacts}
    # One key, one order: the versions change as they were swapped in, never back and forth. One
    # that was active for a moment only may have answered nothing.
    served = [version for version, _ in groupby(versions)]
    rest = iter(published)
    assert all(version in rest for version in served)
    assert len(served) > swaps // 2


def test_two_routers_share_the_work_and_answer_once(bench: Bench, redis_url: str) -> None:
    registry = connect(redis_url)
    publish(registry, bench.task, make_surrogate(bench.encoder, task=bench.task))
    registry.close()
    one, two = (bench.service(connect(redis_url), number) for number in (1, 2))
    records = [
        Record(r.topic, f"k{i}".encode(), r.value) for i, r in enumerate(map(bench.ask, range(600)))
    ]
    with running(one), running(two):
        bench.publisher.publish(records[:300])
        time.sleep(2.0)
        bench.publisher.publish(records[300:])
        answers = bench.answers(600)
    ids = [request_id(a) for a in answers]
    assert len(ids) == len(set(ids)) == 600


def test_calls_of_the_door_are_on_the_topics_once_each_beside_those_of_the_pipe(
    bench: Bench, redis_url: str
) -> None:
    registry = connect(redis_url)
    publish(registry, bench.task, make_surrogate(bench.encoder, task=bench.task))
    registry.close()
    service = bench.service(connect(redis_url), door=True)
    unsure = f"{text_of('billing')} {text_of('delivery')}"
    told: list[Decision] = []

    def call(client: httpx.Client, worker: int) -> None:
        for i in range(0, 40, 2):
            asked = [
                {"id": f"d{worker}-{i}", "task": bench.task, "input": text_of(LABELS[i % 3])},
                {"id": f"d{worker}-{i + 1}", "task": bench.task, "input": unsure},
            ]
            answer = client.post("/v1/classify", json={"requests": asked})
            assert answer.status_code == 200, answer.text
            told.extend(convert(result, Decision) for result in answer.json()["results"])

    with running(service):
        assert service.door is not None
        url = f"http://127.0.0.1:{service.door.port}"
        until(lambda: service.health.readiness()[0])
        with httpx.Client(base_url=url, timeout=30) as client, ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(call, client, worker) for worker in range(8)]
            bench.publisher.publish([bench.ask(i) for i in range(300)])
            for each in calls:
                each.result(60)
        found = bench.answers(620)
    answers = {request_id(answer): answer for answer in found}
    assert len(found) == len(answers) == 620
    assert len(told) == 320
    for decision in told:
        seen = answers[decision.request_id]
        if isinstance(seen, Decision):
            assert seen == decision  # to the last digit
        else:
            assert (decision.outcome, decision.label) == (Outcome.DEFERRED, None)
            assert (seen.reason, seen.accept_score) == (decision.reason, decision.accept_score)
            assert seen.request.input == unsure
    assert sum(decision.label is not None for decision in told) == 160


@pytest.mark.slow
def test_with_the_broker_away_the_door_says_so_and_the_router_stays_alive(tmp_path: Path) -> None:
    broker = start_kafka()
    try:
        bench = Bench(broker.bootstrap, tmp_path)
        with EmbeddedRedis(tmp_path / "redis") as redis:
            registry = connect(redis.url)
            publish(registry, bench.task, make_surrogate(bench.encoder, task=bench.task))
            registry.close()
            with running(bench.service(connect(redis.url), door=True)) as service:
                assert service.door is not None
                asked = {"id": "d1", "task": bench.task, "input": text_of("billing")}
                url = f"http://127.0.0.1:{service.door.port}/v1/classify"
                assert httpx.post(url, json=asked, timeout=30).status_code == 200
                broker.kill()
                refused = httpx.post(url, json=asked | {"id": "d2"}, timeout=30)
                assert refused.status_code == 503, refused.text
                assert refused.json()["request_ids"] == ["d2"]
                assert service.health.liveness() == (True, "alive")
                broker.start()
                until(lambda: httpx.post(url, json=asked | {"id": "d2"}, timeout=30).is_success, 60)
                assert service.door.failure is None
                counts = Counter(request_id(answer) for answer in bench.answers(2))
        assert counts.keys() == {"d1", "d2"}
        assert counts["d1"] == 1
        bench.publisher.close()
    finally:
        broker.stop()


def until(done: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_without_redis_it_defers_everything_until_redis_is_there(
    bench: Bench, tmp_path: Path
) -> None:
    server = EmbeddedRedis(tmp_path / "redis", free_port())
    url = f"redis://127.0.0.1:{server.port}/0"
    with running(bench.service(connect(url))):
        bench.publisher.publish([bench.ask(i) for i in range(5)])
        early = bench.answers(5)
        assert [a.reason for a in early] == [Reason.NO_ACTIVE_VERSION] * 5
        server.start()
        registry = connect(url)
        version = publish(registry, bench.task, make_surrogate(bench.encoder, task=bench.task))
        registry.close()
        for attempt in range(100):
            bench.publisher.publish([bench.ask(100 + attempt)])
            late = [a for a in bench.answers(6 + attempt, 5.0) if isinstance(a, Decision)]
            if late:
                break
        assert late[0].version == version
        server.stop()
        bench.publisher.publish([bench.ask(999)])  # Redis is gone again: it goes on
        answers = {request_id(a): a for a in bench.answers(7 + attempt + 1, 10.0)}
        assert isinstance(answers["r00999"], Decision)


def test_garbage_becomes_dead_letters_and_the_rest_is_answered(
    bench: Bench, redis_url: str
) -> None:
    topic = f"{bench.prefix}{Topic.REQUESTS}"
    garbage = [b"", b"{", b"\xff\xfe", b'{"id":"x"}', b"[]", b'{"id":"x","task":"no","input":"y"}']
    mixed = [Record(topic, b"k", value) for value in garbage]
    with running(bench.service(connect(redis_url))):
        bench.publisher.publish([bench.ask(0), *mixed, bench.ask(1)])
        assert {request_id(a) for a in bench.answers(2)} == {"r00000", "r00001"}
        source = KafkaSource(
            bootstrap=bench.kafka, group=uuid4().hex,
            topics=[f"{bench.prefix}{Topic.DEAD_LETTERS}"],
        )  # fmt: skip
        letters: list[Message] = []
        end = time.monotonic() + 20
        while len(letters) < len(garbage) and time.monotonic() < end:
            letters += source.poll(100, 0.5)
        source.close()
    assert sorted(m.value for m in letters) == sorted(garbage)
    headers = dict(letters[0].headers)
    assert headers["__connect.errors.topic"] == topic.encode()
