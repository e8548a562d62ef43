"""An older release is upgraded service by service under traffic, on three brokers: no request is
lost or answered twice, and neither release rejects what the other wrote."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.kafka.local_kafka import KafkaUnavailable
from services.ctl.key_commands import KEYRING, SIGNING_KEY
from services.ctl.paths import cache_folder
from shared.clock import SystemClock
from shared.encoder.default import ensure_default_encoder
from shared.registry.redis import RedisRegistry, connect
from shared.registry.signatures import Signer
from shared.registry.trust import Trust
from tests.faults.playing import Player, playing
from tests.faults.system import TASK
from tests.faults.upgrade import MixedReleases, NoHistory, Pump, pumping, release, until
from tests.kafka_fixtures import REQUIRE

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(900)]

# Before signatures, reports, and every field that has come since: docs/upgrading.md.
OLD = "2421d2e38419d18cd00cb9bdf764f2a2f8a8b3d0"
ROUTERS = ("router-1", "router-2")
_DAY_SECONDS = 6.0
# A quiet machine needs fifteen; a busy one starts the process of a fit for minutes.
_FIT_SECONDS = 400.0
_ANSWER_SECONDS = 120.0


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[MixedReleases]:
    encoder = ensure_default_encoder(cache_folder() / "encoder")
    try:
        system = MixedReleases(tmp_path / "system", encoder, release(OLD, tmp_path / "old"))
    except NoHistory as reason:
        pytest.skip(str(reason))
    try:
        with system:
            yield system
    except KafkaUnavailable as reason:
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{REQUIRE}=1, but {reason}")
        pytest.skip(str(reason))


@pytest.fixture
def player(mixed: MixedReleases) -> Iterator[Player]:
    with playing(mixed) as started:
        started.first_version("upgrade")
        yield started


@pytest.fixture
def registry(mixed: MixedReleases) -> Iterator[RedisRegistry]:
    """As an operator of this release has it, with the keys."""
    keys = mixed.folder / "keys"
    signer = Signer.from_pem((keys / SIGNING_KEY).read_text())
    made = connect(mixed.redis.url(None), trust=Trust(keys / KEYRING, signer))
    yield made
    made.close()


def both_answer(mixed: MixedReleases) -> None:
    """Each router follows the pointer as it is now, and answers requests by it."""
    epoch = mixed.active()[1]
    until(
        lambda: all(mixed.epoch(router) == epoch for router in ROUTERS), _ANSWER_SECONDS,
        lambda: {router: mixed.services[router].tail(5) for router in ROUTERS},
    )  # fmt: skip
    before = {router: mixed.handled(router) for router in ROUTERS}
    until(
        lambda: all(mixed.handled(router) > before[router] + 5 for router in ROUTERS),
        _ANSWER_SECONDS,
        lambda: {router: mixed.handled(router) - before[router] for router in ROUTERS},
    )  # fmt: skip


def next_version(mixed: MixedReleases, pump: Pump) -> str:
    """The traffic goes on through a day and into the next, so that the trainer closes the first and
    refits; the version it makes."""
    before, epoch = mixed.active()
    pump.day += 1
    time.sleep(_DAY_SECONDS)
    pump.day += 1
    until(
        lambda: mixed.active()[1] > epoch, _FIT_SECONDS, lambda: mixed.services["trainer"].tail(5)
    )
    version = mixed.active()[0]
    assert version not in (None, before)
    return version or ""


def test_nothing_is_lost_or_doubled_while_releases_are_mixed(
    mixed: MixedReleases, player: Player, registry: RedisRegistry
) -> None:
    first, _ = mixed.active()
    with pumping(player.traffic, "upgrade") as pump:
        # Old versions, old events: read by this release.
        mixed.replace("router-1")
        mixed.replace("ingest")
        both_answer(mixed)
        # New versions, new events: read by the old one.
        mixed.replace("trainer")
        second = next_version(mixed, pump)
        both_answer(mixed)
        mixed.replace("teacher")
        both_answer(mixed)
        # And back: whoever regrets an upgrade can.
        mixed.replace("router-1", old=True)
        both_answer(mixed)
        for router in ROUTERS:
            mixed.replace(router)
        both_answer(mixed)
        # Nobody signed the oldest version; an operator's word makes it trusted.
        registry.resign(TASK, first or "", unsigned=True)
        for router in ROUTERS:
            mixed.replace(router, keys=True)
        at = SystemClock().now()
        registry.rollback(TASK, to=first, at=at, reason="the test", actor="operator")
        both_answer(mixed)
    assert mixed.old == set()
    assert mixed.ended.total() == 0, mixed.ended
    settled = player._settle()
    findings = player.close_windows()
    assert [*map(str, settled), *map(str, findings.violations)] == []
    assert findings.settled
    # Both versions have answered, and no record was rejected: all of them were good.
    decided = {seen.body.get("version") for seen in player.witness.evidence.records["decisions"]}
    assert {first, second} <= decided
    assert player.witness.evidence.records["dead-letters"] == []
    assert player.traffic.sent.requests > 500
