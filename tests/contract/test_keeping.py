"""A real Redis that loses everything gets it back from what the trainer kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from artifacts import make_artifact

from services.ctl.key_commands import KEYRING, make_key
from services.router.pointer_watch import PointerWatch
from shared.clock import FakeClock
from shared.contracts.events import AnnouncementKind, ModelAnnouncement
from shared.keeping import AUDITS_SECONDS, Keeper
from shared.registry.base import Active, StaleEpoch, State, TrippedVersion, UnknownVersion
from shared.registry.redis import RedisRegistry, connect
from shared.registry.scripts import MAX_HISTORY
from shared.registry.trust import Trust
from shared.store.saved import SavedFiles
from tests.contract.registry_laws import AT

pytestmark = pytest.mark.redis


class Place:
    """One task in a registry, and its keeper."""

    def __init__(self, url: str, folder: Path, trust: Trust | None = None) -> None:
        self.url, self.folder, self.task = url, folder, f"t-{uuid4().hex[:8]}"
        self.registry: RedisRegistry = connect(url, trust=trust)
        self.clock = FakeClock()
        self.announced: list[ModelAnnouncement] = []
        self.files = SavedFiles(str(folder))
        self.keeper = self.new_keeper()

    def new_keeper(self) -> Keeper:
        """As after a restart of the trainer."""
        return Keeper(
            tasks=(self.task,), files=self.files, registry=self.registry.saver(),
            load=self.registry.load, announce=self.announced.append, clock=self.clock,
        )  # fmt: skip

    def publish(self, window: str, fence: int | None = None) -> str:
        artifact = make_artifact(self.task, window)
        fence = self.registry.acquire(self.task) if fence is None else fence
        self.registry.publish(artifact, fence=fence, at=AT, reason="a fit")
        return artifact.version

    def lose(self) -> None:
        """Every key of the task, as an empty Redis has none; other tests share the server."""
        with redis.Redis.from_url(self.url) as client:
            names = list(client.scan_iter(f"tracer:{{{self.task}}}:*"))
            assert names
            client.delete(*names)
        assert self.registry.active(self.task) == Active(None, 0)


def make_trust(folder: Path) -> Trust:
    """Of a new key, which it signs with and alone believes."""
    keys = folder / uuid4().hex
    keys.mkdir()
    return Trust(keys / KEYRING, make_key(keys))


@pytest.fixture
def place(redis_url: str, tmp_path: Path) -> Iterator[Place]:
    made = Place(redis_url, tmp_path)
    yield made
    made.registry.close()


def test_all_of_a_task_comes_back_and_numbers_go_on_growing(place: Place) -> None:
    registry, task = place.registry, place.task
    versions = [place.publish(f"2026-01-0{day}") for day in (1, 2, 3)]
    registry.set_alpha(task, 0.8, at=AT, reason="asked", actor="ann")
    registry.record_audits(task, versions[-1], 4, [(7, True), (9, False)])
    trial = make_artifact(task, "2026-01-04")
    fence = registry.acquire(task)
    registry.start_trial(trial, mode="canary", share=0.25, fence=fence, at=AT, reason="try")
    registry.set_state(task, State.PAUSED, version=versions[-1], at=AT, reason="by hand")
    assert place.keeper.look(task) is None
    before, history = registry.active(task), registry.history(task)
    place.lose()
    restored = place.new_keeper().look(task)
    after = registry.active(task)
    assert restored == after
    assert (after.version, after.state, after.trial, after.alpha) == (
        before.version, State.PAUSED, before.trial, 0.8,
    )  # fmt: skip
    assert after.epoch > before.epoch
    assert PointerWatch(before.epoch).doubt(after) is None
    assert registry.acquire(task) > fence
    assert registry.versions(task) == [*versions, trial.version]
    for version in registry.versions(task):
        registry.load(task, version)
    assert registry.audits(task, versions[-1]) == (True, False)
    assert registry.record_audits(task, versions[-1], 4, [(9, False), (10, True)]) == 3
    assert registry.history(task)[1:] == history
    assert registry.history(task)[0].epoch == after.epoch
    assert registry.rollback(task, to=None, at=AT, reason="back").version == versions[1]


def test_a_trainer_from_before_the_loss_publishes_nothing(place: Place) -> None:
    place.publish("2026-01-01")
    old = place.registry.acquire(place.task)
    place.keeper.look(place.task)
    place.lose()
    with pytest.raises(StaleEpoch):
        place.publish("2026-01-02", old)
    place.keeper.look(place.task)
    with pytest.raises(StaleEpoch):
        place.publish("2026-01-02", old)
    assert place.registry.active(place.task).version == make_artifact(place.task).version


def test_a_tripped_version_stays_tripped(place: Place) -> None:
    registry, task = place.registry, place.task
    good, bad = place.publish("2026-01-01"), place.publish("2026-01-02")
    registry.set_state(task, State.TRIPPED, version=bad, at=AT, reason="audits")
    place.keeper.look(task)
    place.lose()
    place.publish("2026-01-02")  # by somebody who did not wait
    assert registry.active(task).state is State.SERVING
    place.new_keeper().look(task)
    assert registry.active(task).version == bad
    assert registry.active(task).state is State.TRIPPED
    with pytest.raises(TrippedVersion):
        registry.rollback(task, to=bad, at=AT, reason="")
    assert registry.rollback(task, to=None, at=AT, reason="").version == good


@pytest.mark.parametrize("since", [State.PAUSED, State.TRIPPED])
def test_what_silenced_a_version_since_the_loss_is_not_undone(place: Place, since: State) -> None:
    """A replica that lacked the newest change took over, and the trainer came back late."""
    version = place.publish("2026-01-01")
    with redis.Redis.from_url(place.url) as client:
        names = list(client.scan_iter(f"tracer:{{{place.task}}}:*"))
        dumps = {name: client.dump(name) for name in names}
        place.registry.set_alpha(place.task, 0.8, at=AT, reason="asked", actor="ann")
        place.keeper.look(place.task)
        place.lose()
        for name, dump in dumps.items():
            client.restore(name, 0, dump)  # type: ignore[arg-type]
    place.registry.set_state(place.task, since, version=version, at=AT, reason="since")
    active = place.new_keeper().look(place.task)
    assert active is not None
    assert (active.version, active.state, active.alpha) == (version, since, 0.8)
    assert place.registry.history(place.task, 1)[0].kind == since.value


def test_a_newer_window_published_meanwhile_stays(place: Place) -> None:
    old = place.publish("2026-01-01")
    place.keeper.look(place.task)
    place.lose()
    new = place.publish("2026-01-02")
    active = place.new_keeper().look(place.task)
    assert active is not None
    assert active.version == new
    assert active.epoch > 1000
    assert place.registry.versions(place.task) == [old, new]
    assert place.registry.rollback(place.task, to=None, at=AT, reason="").version == old


def test_an_older_copy_of_redis_is_brought_up_to_date(place: Place) -> None:
    old = place.publish("2026-01-01")
    with redis.Redis.from_url(place.url) as client:
        names = list(client.scan_iter(f"tracer:{{{place.task}}}:*"))
        dumps = {name: client.dump(name) for name in names}
        new = place.publish("2026-01-02")
        place.keeper.look(place.task)
        place.lose()
        for name, dump in dumps.items():
            client.restore(name, 0, dump)  # type: ignore[arg-type]
    assert place.registry.active(place.task).version == old
    place.keeper.look(place.task)
    assert place.registry.active(place.task).version == new
    assert place.registry.versions(place.task) == [old, new]


def test_a_loss_is_noticed_with_a_full_history_too(place: Place) -> None:
    """And a registry in which as many changes have followed as it keeps has lost nothing."""
    place.publish("2026-01-01")
    place.keeper.look(place.task)
    early = place.keeper.saved(place.task)
    assert early is not None
    for number in range(MAX_HISTORY):
        place.registry.set_alpha(place.task, 0.9 + number % 2 / 100, at=AT, reason="")
    assert place.new_keeper().look(place.task) is None
    assert place.keeper.restore(early) is None
    with redis.Redis.from_url(place.url) as client:
        names = list(client.scan_iter(f"tracer:{{{place.task}}}:*"))
        dumps = {name: client.dump(name) for name in names}
        new = place.publish("2026-01-02")
        place.keeper.look(place.task)
        place.lose()
        for name, dump in dumps.items():  # an hour-old copy, say
            client.restore(name, 0, dump)  # type: ignore[arg-type]
    restored = place.keeper.look(place.task)
    assert restored is not None
    assert restored.version == new == place.registry.active(place.task).version


def test_a_registry_that_has_lost_nothing_is_left_alone(place: Place) -> None:
    place.publish("2026-01-01")
    place.keeper.look(place.task)
    place.publish("2026-01-02")
    before = place.registry.active(place.task)
    assert place.new_keeper().look(place.task) is None
    assert place.registry.active(place.task) == before
    saved = place.keeper.saved(place.task)
    assert saved is not None
    assert place.keeper.restore(saved) is None
    assert place.registry.active(place.task) == before
    assert not place.announced


def test_damage_on_the_disk_is_not_served(place: Place) -> None:
    good, bad = place.publish("2026-01-01"), place.publish("2026-01-02")
    place.keeper.look(place.task)
    data = place.files.get(place.task, f"{bad}.artifact") or b""
    place.files.put(place.task, f"{bad}.artifact", data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    place.lose()
    active = place.keeper.look(place.task)
    assert active is not None
    assert active.version is None  # a fit makes it again; nobody serves what was superseded
    assert place.registry.versions(place.task) == [good]
    with pytest.raises(UnknownVersion):
        place.registry.load(place.task, bad)


def test_signatures_are_kept_and_new_ones_too(redis_url: str, tmp_path: Path) -> None:
    place = Place(redis_url, tmp_path, make_trust(tmp_path))
    version = place.publish("2026-01-01")
    place.keeper.look(place.task)
    first = place.registry.load(place.task, version).signature
    newer = connect(redis_url, trust=make_trust(tmp_path))
    newer.resign(place.task, version, unsigned=True)
    newer.close()
    place.clock.sleep(AUDITS_SECONDS)
    place.registry.close()
    place.registry = connect(redis_url, trust=Trust())
    place.keeper.look(place.task)
    place.lose()
    place.new_keeper().look(place.task)
    signature = place.registry.load(place.task, version).signature
    assert signature not in (b"", first)
    place.registry.close()


def test_what_nobody_trusted_signed_is_not_restored(place: Place, tmp_path: Path) -> None:
    place.publish("2026-01-01")
    place.keeper.look(place.task)
    place.lose()
    place.registry.close()
    place.registry = connect(place.url, trust=make_trust(tmp_path))
    active = place.new_keeper().look(place.task)
    assert active is not None
    assert active.version is None
    assert place.registry.versions(place.task) == []


def test_audits_are_saved_now_and_then_and_changes_at_once(place: Place) -> None:
    version = place.publish("2026-01-01")
    place.keeper.look(place.task)
    place.registry.record_audits(place.task, version, 0, [(1, True)])
    place.keeper.look(place.task)
    saved = place.keeper.saved(place.task)
    assert saved is not None
    assert not saved.audits
    place.clock.sleep(AUDITS_SECONDS)
    place.keeper.look(place.task)
    saved = place.keeper.saved(place.task)
    assert saved is not None
    assert saved.audits[version].outcomes == "1"


def test_what_the_registry_deleted_is_deleted_here(place: Place) -> None:
    place.registry.close()
    place.registry = connect(place.url, keep_versions=2)
    keeper = place.new_keeper()
    for day in (1, 2, 3):
        place.publish(f"2026-01-0{day}")
        keeper.look(place.task)
    kept = {f"{version}.artifact" for version in place.registry.versions(place.task)}
    assert len(kept) == 2
    assert set(place.files.names(place.task)) == {"state.json", *kept}


def test_what_was_restored_is_announced(place: Place) -> None:
    version = place.publish("2026-01-01")
    place.keeper.look(place.task)
    place.lose()
    stop = threading.Event()
    thread = threading.Thread(target=place.keeper.follow, args=(stop, 0.05))
    thread.start()
    for _ in range(200):
        if place.announced:
            break
        stop.wait(0.05)
    stop.set()
    thread.join()
    (said,) = place.announced
    assert (said.kind, said.version) == (AnnouncementKind.PUBLISHED, version)
    assert said.epoch == place.registry.active(place.task).epoch
