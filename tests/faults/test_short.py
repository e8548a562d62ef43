"""The short form of `make test-faults`: the same cluster, the same faults, three schedules."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from deploy.kafka.local_kafka import KafkaUnavailable
from services.ctl.paths import cache_folder
from shared.encoder.default import ensure_default_encoder
from tests.faults.playing import Player, playing
from tests.faults.schedule import Fault, Schedule
from tests.faults.system import System
from tests.kafka_fixtures import REQUIRE

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]


@pytest.fixture(scope="module")
def player(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Player]:
    encoder = ensure_default_encoder(cache_folder() / "encoder")
    try:
        system = System(tmp_path_factory.mktemp("faults"), encoder)
        system.__enter__()
    except KafkaUnavailable as reason:
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{REQUIRE}=1, but {reason}")
        pytest.skip(str(reason))
    try:
        with playing(system) as started:
            started.first_version("short")
            yield started
    finally:
        system.stop()


# Together: every service is killed once, Redis fails over, and the endpoint answers garbage; a
# router is parted from Kafka, and from Redis without notice, and a broker is lost.
SCHEDULES = (
    Schedule(
        "short-services",
        (
            Fault("kill", 0.6, 2.0, "router-1"),
            Fault("kill", 1.4, 2.2, "ingest"),
            Fault("kill", 2.6, 4.0, "teacher"),
            Fault("kill", 3.2, 4.4, "trainer"),
            Fault("duplicates", 0.5, 6.0),
        ),
    ),
    Schedule(
        "short-surroundings",
        (
            Fault("broker", 0.6, 3.0, "1"),
            Fault("redis_failover", 2.0, 4.0),
            Fault("teacher", 4.0, 6.0, "garbage"),
            Fault("cut", 3.5, 5.0, "router-2/kafka"),
            Fault("half_open", 1.0, 6.0, "router-1/redis"),
        ),
    ),
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.seed)
def test_nothing_is_lost_and_nothing_is_doubled(player: Player, schedule: Schedule) -> None:
    played = player.play(schedule)
    assert played.violations == []
    assert played.requests >= 190
    assert played.calls >= 20


@pytest.mark.timeout(180)
def test_in_the_end_every_trace_is_in_a_window(player: Player) -> None:
    findings = player.close_windows()
    assert findings.violations == []
    assert findings.settled
    assert findings.queued["trainer"] == 0
    stored = len(player.witness.evidence.stored)
    assert stored >= 400  # the first day's alone
    assert findings.checked > 2_000
    called = player.witness.evidence.called.values()
    assert sum(call.answers > 0 for call in called) > 0.9 * len(called)
    assert any(call.attempts > call.answers for call in called)  # some had to be repeated
