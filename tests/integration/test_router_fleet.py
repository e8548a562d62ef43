"""Router processes on Apache Kafka under load: added, killed with -9, fenced, swapped.

`Load` is the checker: it reads decisions and deferrals with read_committed and counts what is
lost, and what is twice on one topic.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from surrogates import LABELS, make_surrogate, text_of

from benchmarks.routing.load import Load, Taken
from benchmarks.routing.place import Place
from benchmarks.routing.swaps import swap_under_load
from benchmarks.routing.versions import of_task
from services.ctl.embedded.processes import Child
from shared.encoder.default import ensure_default_encoder
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.registry.base import Artifact

ROOT = Path(__file__).resolve().parents[2]
# A dead member is missed soon, as it should be in a test.
SOON = json.dumps({"session.timeout.ms": "3000", "heartbeat.interval.ms": "500"})

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def encoder() -> Path:
    return ensure_default_encoder(ROOT / ".cache" / "encoder")


@pytest.fixture(scope="module")
def artifact(encoder: Path) -> Artifact:
    return make_surrogate(OnnxEncoder(encoder, threads=1))


@pytest.fixture
def place(
    kafka: str, redis_url: str, encoder: Path, artifact: Artifact, tmp_path: Path
) -> Iterator[Place]:
    with Place(kafka, redis_url, encoder, tmp_path) as made:
        made.publish(of_task(artifact, made.task))
        yield made


def start(place: Place, number: int, **more: object) -> Child:
    return place.router(number, threads=1, kafka=SOON, **more)


class Traffic:
    """Requests in the background while the test does something to the routers."""

    def __init__(self, place: Place, per_second: float, seconds: float) -> None:
        texts = [text_of(label) for label in LABELS] + ["something else altogether"]
        self._load, self._taken = Load(place, texts), list[Taken]()
        self._thread = threading.Thread(
            target=lambda: self._taken.append(self._load.run(per_second, seconds, patience=60))
        )
        self._thread.start()

    def end(self) -> Taken:
        self._thread.join(150)
        return self._taken[0]


def killed(place: Place, router: Child) -> None:
    """As a crash: SIGKILL, and the fleet no longer watches it."""
    place.fleet.children.remove(router)
    router.kill()


def test_routers_come_and_are_killed_under_load_and_every_request_is_answered_once(
    place: Place,
) -> None:
    first = start(place, 1, group_instance="one")
    traffic = Traffic(place, per_second=100, seconds=12)
    time.sleep(3)
    start(place, 2)  # cooperative: the first keeps most of its partitions and goes on
    time.sleep(3)
    killed(place, first)
    start(place, 1, group_instance="one")  # its successor aborts what was open
    third = start(place, 3)
    time.sleep(2)
    killed(place, third)
    start(place, 3)
    taken = traffic.end()
    assert taken.sent == 1200
    assert (taken.lost, taken.doubled) == (0, 0)
    assert len({d.request_id for d in taken.decisions}) == len(taken.decisions) > 600


def test_a_router_that_was_suspended_is_fenced_by_its_successor(place: Place) -> None:
    """Two processes with one transactional id: the older ends, with nothing said twice."""
    zombie = start(place, 1)
    traffic = Traffic(place, per_second=100, seconds=9)
    time.sleep(3)
    os.kill(zombie.pid, signal.SIGSTOP)
    place.fleet.children.remove(zombie)
    try:
        start(place, 1)
        time.sleep(4)
        os.kill(zombie.pid, signal.SIGCONT)
        # It joins the group again, and learns at its next commit that it was replaced: without
        # requests it would wait for that.
        later = Traffic(place, per_second=100, seconds=9)
        deadline = time.monotonic() + 60
        while zombie.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert zombie.exit_code == 1, zombie.tail()
        # Suspended inside a call for longer than any may take, it ends for that.
        ends = ("fenced", "only a new process can go on")
        assert any(why in zombie.tail(40).lower() for why in ends)
        first, second = traffic.end(), later.end()
    finally:
        zombie.kill()
    assert (first.lost, first.doubled) == (0, 0)
    assert (second.lost, second.doubled) == (0, 0)


def test_twenty_swaps_in_ten_seconds_of_traffic(place: Place, artifact: Artifact) -> None:
    """The short form of `make swap-test`; its time and memory limits need a quiet machine."""
    router = start(place, 1)
    texts = [text_of(label) for label in LABELS]
    found = swap_under_load(
        place, router, artifact, texts, swaps=20, seconds=10.0, per_second=100.0, calm=2.0
    )
    assert (found.calm.lost, found.calm.doubled) == (0, 0)
    assert (found.swapping.lost, found.swapping.doubled) == (0, 0)
    versions = {decision.version for decision in found.swapping.decisions}
    assert len(versions) >= 15
    assert found.strangers == []
