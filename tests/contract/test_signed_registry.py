"""Signed artifacts: what was not signed by a trusted key is believed by nobody."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from artifacts import make_artifact
from doubles import HashEncoder
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from surrogates import make_surrogate

from services.ctl.key_commands import KEYRING, SIGNING_KEY, make_key
from services.router.config import RouterSettings
from services.router.loading import Loading
from services.router.models import Models
from services.trainer.config import TrainerSettings
from shared.registry.base import Active, Artifact, CorruptArtifact, Registry, State
from shared.registry.disk import DiskCopy
from shared.registry.keyring import TrustedKey, read_keyring, write_keyring
from shared.registry.memory import MemoryRegistry
from shared.registry.redis import connect
from shared.registry.scripts import Keys
from shared.registry.signatures import Signer, is_signed_by, read_signature
from shared.registry.trust import Trust, UntrustedArtifact, trust_of

pytestmark = pytest.mark.redis

AT = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture
def task() -> str:
    return f"task-{uuid4().hex[:12]}"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def trust(keys: Path) -> Trust:
    return Trust(keys / KEYRING, make_key(keys))


Open = Callable[[Trust | None], Registry]


@pytest.fixture(params=["memory", "redis"])
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Registries over one store, by what each of them believes."""
    made: list[Registry] = []
    store = MemoryRegistry()

    def make(trust: Trust | None) -> Registry:
        if request.param == "redis":
            made.append(connect(request.getfixturevalue("redis_url"), trust=trust))
        else:
            other = MemoryRegistry(trust=trust)
            other._tasks = store._tasks
            made.append(other)
        return made[-1]

    yield make
    for registry in made:
        registry.close()


def publish(registry: Registry, artifact: Artifact) -> str:
    name = artifact.manifest.task
    registry.publish(artifact, fence=registry.acquire(name), at=AT, reason="test")
    return artifact.version


def test_what_was_signed_loads_and_nothing_else(opened: Open, trust: Trust, task: str) -> None:
    signing, blind = opened(trust), opened(None)
    reading = opened(Trust(trust.keyring))
    version = publish(signing, make_artifact(task))
    assert reading.load(task, version).signature
    publish(blind, make_artifact(task, text="unsigned"))
    with pytest.raises(UntrustedArtifact, match="is not signed; see `tracerctl keys sign`"):
        reading.load(task, make_artifact(task, text="unsigned").version)
    # The same version put back without its signature is not believed, either.
    publish(blind, make_artifact(task))
    with pytest.raises(UntrustedArtifact, match="not signed"):
        reading.load(task, version)


def test_a_strangers_signature_counts_for_nothing(opened: Open, trust: Trust, task: str) -> None:
    version = publish(opened(Trust(None, Signer.make())), make_artifact(task))
    with pytest.raises(UntrustedArtifact, match="which is unknown"):
        opened(trust).load(task, version)


def test_keys_rotate_without_a_gap_and_revoked_ones_are_refused(
    opened: Open, trust: Trust, keys: Path, task: str
) -> None:
    reading = opened(Trust(trust.keyring))
    old = publish(opened(trust), make_artifact(task, text="old"))
    assert reading.load(task, old)
    rotated = Trust(trust.keyring, make_key(keys))
    new = publish(opened(rotated), make_artifact(task, text="new"))
    assert reading.load(task, old)  # no restart: the keyring is read again
    assert reading.load(task, new)
    opened(rotated).resign(task, old)
    first = next(iter(read_keyring(keys / KEYRING)))
    revoke(keys / KEYRING, first)
    assert reading.load(task, old)
    third = publish(opened(Trust(None, trust.signer)), make_artifact(task, text="stolen key"))
    with pytest.raises(UntrustedArtifact, match="which is revoked"):
        reading.load(task, third)
    with pytest.raises(UntrustedArtifact, match="revoked"):
        opened(rotated).resign(task, third)


def test_an_old_registry_is_signed_by_the_operators_word_only(
    opened: Open, trust: Trust, task: str
) -> None:
    version = publish(opened(None), make_artifact(task))
    with pytest.raises(UntrustedArtifact):
        opened(trust).resign(task, version)
    with pytest.raises(ValueError, match="TRACER_SIGNING_KEY_FILE"):
        opened(Trust(trust.keyring)).resign(task, version)
    opened(trust).resign(task, version, unsigned=True)
    assert opened(Trust(trust.keyring)).load(task, version).version == version


def test_a_keyring_that_cannot_be_read_trusts_nobody(
    opened: Open, trust: Trust, keys: Path, task: str
) -> None:
    version = publish(opened(trust), make_artifact(task))
    reading = opened(Trust(trust.keyring))
    (keys / KEYRING).write_text("{}")
    with pytest.raises(UntrustedArtifact, match="keyring"):
        reading.load(task, version)
    (keys / KEYRING).unlink()
    with pytest.raises(UntrustedArtifact, match="cannot be read"):
        reading.load(task, version)


def revoke(keyring: Path, key: str) -> None:
    trusted = read_keyring(keyring)
    gone = TrustedKey(public=trusted[key].public, added=trusted[key].added, revoked=AT)
    write_keyring(keyring, {**trusted, key: gone})


# --- any byte in Redis


class Served:
    """A router that serves one version and is told of a second one, of which bytes can be changed
    in Redis."""

    def __init__(self, url: str, folder: Path) -> None:
        self.task = f"task-{uuid4().hex[:12]}"
        self.trust = Trust(folder / KEYRING, make_key(folder))
        self.client = redis.Redis.from_url(url)
        self.registry = connect(url, trust=self.trust)
        encoder = HashEncoder()
        self.old = publish(self.registry, make_surrogate(encoder, task=self.task))
        self.models = Models([self.task], self.registry, DiskCopy(folder / "m", self.trust),
                             Loading(encoder, threads=1))  # fmt: skip
        self.models.refresh()
        second = make_surrogate(encoder, task=self.task, window="2026-01-06")
        self.new = publish(self.registry, second)
        names = Keys.of(self.task)
        self.places = [(names.manifests, self.new), (names.signatures, self.new)]
        self.places += [(names.blobs, f"{self.new}/{each}") for each in second.blobs]

    def serving(self) -> str:
        version = self.models.snapshot()[self.task].version
        assert version is not None
        return version.version


@pytest.fixture(scope="module")
def served(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(redis_url, tmp_path_factory.mktemp("served"))
    yield served
    served.registry.close()
    served.client.close()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_changed_in_redis_is_noticed_and_the_old_version_stays(
    served: Served, data: Any
) -> None:
    key, field = data.draw(st.sampled_from(served.places))
    good: bytes = served.client.hget(key, field)
    at = data.draw(st.integers(0, len(good) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "drop"]))
    bad = {
        "flip": good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :],
        "cut": good[:at],
        "grow": good[:at] + b"0" + good[at:],
        "drop": good[:at] + good[at + 1 :],
    }[how]
    if key.endswith("signatures") and _means_the_same(good, bad):
        return
    try:
        served.client.hset(key, field, bad)
        served.models._following[served.task]._complained = None
        before = _rejected(served.task)
        served.models.refresh()
        assert served.serving() == served.old
        assert _rejected(served.task) == before + 1
    finally:
        served.client.hset(key, field, good)


def _means_the_same(good: bytes, bad: bytes) -> bool:
    """JSON has several spellings of one signature (a space, a changed unknown field's name)."""
    try:
        return read_signature(bad) == read_signature(good)
    except ValueError:
        return False


def _rejected(task: str) -> float:
    name = "tracer_router_rejected_artifacts_total"
    return REGISTRY.get_sample_value(name, {"task": task}) or 0.0


def test_put_back_it_is_served(redis_url: str, tmp_path: Path) -> None:
    served = Served(redis_url, tmp_path)
    key, field = served.places[0]
    good: bytes = served.client.hget(key, field)
    served.client.hset(key, field, good.replace(b'"alpha":0.9', b'"alpha":0.5', 1))
    served.models.refresh()
    assert served.serving() == served.old
    served.client.hset(key, field, good)
    served.models.refresh()
    assert served.serving() == served.new


def test_who_writes_redis_but_has_no_key_can_make_no_version(
    redis_url: str, tmp_path: Path
) -> None:
    """The hashes of a forged version are right: only the signature tells."""
    served = Served(redis_url, tmp_path)
    forged = make_surrogate(HashEncoder(), task=served.task, window="2026-01-07")
    attacker = connect(redis_url)
    publish(attacker, forged)
    served.models.refresh()
    assert served.serving() == served.old
    # With the signature of another version it is no better.
    names = Keys.of(served.task)
    stolen = served.client.hget(names.signatures, served.new)
    served.client.hset(names.signatures, forged.version, stolen)
    served.models._following[served.task]._complained = None
    served.models.refresh()
    assert served.serving() == served.old


# --- the pointer


def test_a_tripped_version_is_not_brought_back_by_whoever_writes_redis(
    redis_url: str, tmp_path: Path
) -> None:
    served = Served(redis_url, tmp_path)
    served.models.refresh()
    served.registry.set_state(
        served.task, State.TRIPPED, version=served.new, at=AT, reason="audits"
    )
    served.models.refresh()
    names = Keys.of(served.task)
    served.client.hset(names.active, mapping={"state": "serving", "epoch": "99"})
    before = _doubts(served.task)
    served.models.refresh()
    served.models.refresh()
    assert served.models.snapshot()[served.task].state is State.TRIPPED
    assert _doubts(served.task) == before + 1


def test_an_epoch_that_goes_back_is_noticed(redis_url: str, tmp_path: Path) -> None:
    served = Served(redis_url, tmp_path)
    served.models.refresh()
    before = _doubts(served.task)
    served.client.hset(Keys.of(served.task).active, mapping={"version": served.old, "epoch": "1"})
    served.models.refresh()
    assert _doubts(served.task) == before + 1


def _doubts(task: str) -> float:
    return REGISTRY.get_sample_value("tracer_router_pointer_doubts_total", {"task": task}) or 0.0


def test_a_trial_tampered_with_does_not_hold_up_a_trip(redis_url: str, tmp_path: Path) -> None:
    served = Served(redis_url, tmp_path)
    served.models.refresh()
    registry, task = served.registry, served.task
    tried = make_surrogate(HashEncoder(), task=task, window="2026-01-08")
    registry.start_trial(
        tried, mode="shadow", share=0.0, fence=registry.acquire(task), at=AT, reason="test"
    )
    signatures = Keys.of(task).signatures
    good = served.client.hget(signatures, tried.version)
    served.client.hdel(signatures, tried.version)
    registry.set_state(task, State.TRIPPED, version=served.new, at=AT, reason="audits")
    served.models.refresh()
    assert served.models.snapshot()[task].state is State.TRIPPED
    assert served.models.snapshot()[task].trial is None
    served.client.hset(signatures, tried.version, good)
    served.models.refresh()
    trial = served.models.snapshot()[task].trial
    assert trial is not None
    assert trial.version.version == tried.version


# --- the disk copy


def test_the_disk_copy_is_believed_no_more_than_redis(tmp_path: Path, trust: Trust) -> None:
    artifact = make_artifact()
    active = Active(artifact.version, 3)
    DiskCopy(tmp_path / "m").save("intents", active, artifact)  # by a router without keys
    assert DiskCopy(tmp_path / "m", trust).load("intents") is None
    DiskCopy(tmp_path / "m", trust).save("intents", active, trust.signed(artifact))
    kept = DiskCopy(tmp_path / "m", trust).load("intents")
    assert kept is not None
    assert kept[1] == trust.signed(artifact)
    assert DiskCopy(tmp_path / "m").load("intents") is not None


# --- signatures and settings


@given(manifest=st.binary(max_size=200), other=st.binary(max_size=200))
@example(manifest=b"", other=b"\0")
def test_a_signature_is_of_one_manifest_by_one_key(manifest: bytes, other: bytes) -> None:
    signer, stranger = Signer.make(), Signer.make()
    signature = read_signature(signer.sign(manifest))
    assert signer.sign(manifest) == signer.sign(manifest)
    assert is_signed_by(signer.public, signature, manifest)
    assert not is_signed_by(stranger.public, signature, manifest)
    assert is_signed_by(signer.public, signature, other) == (manifest == other)


def test_a_private_key_is_its_owners_alone_and_never_shown(keys: Path) -> None:
    signer = make_key(keys)
    path = keys / SIGNING_KEY
    assert path.stat().st_mode & 0o077 == 0
    assert Signer.from_pem(path.read_text()).public == signer.public
    secret = base64.b64encode(signer._key.private_bytes_raw()).decode()
    assert secret not in repr(signer) + (keys / KEYRING).read_text()


def test_settings_that_believe_anybody_are_refused(
    monkeypatch: pytest.MonkeyPatch, keys: Path
) -> None:
    monkeypatch.delenv("TRACER_UNSIGNED")
    make_key(keys)
    for made in (RouterSettings, TrainerSettings):
        with pytest.raises(ValueError, match="TRACER_UNSIGNED=allow"):
            made()
        with pytest.raises(ValueError, match="void"):
            made(trusted_keys=keys / KEYRING, unsigned="allow",
                 **({"signing_key": "x"} if made is TrainerSettings else {}))  # fmt: skip
        assert made(unsigned="allow").trust().keyring is None
    assert RouterSettings(trusted_keys=keys / KEYRING).trust().keyring == keys / KEYRING
    with pytest.raises(ValueError, match="TRACER_SIGNING_KEY_FILE"):
        TrainerSettings(trusted_keys=keys / KEYRING)
    monkeypatch.setenv("TRACER_SIGNING_KEY_FILE", str(keys / SIGNING_KEY))
    trainer = TrainerSettings(trusted_keys=keys / KEYRING)
    assert trainer.trust().signer is not None
    assert "PRIVATE" not in f"{trainer!r} {trainer.describe()}"


@pytest.mark.parametrize(
    ("pem", "says"), [("nonsense", "not a private key"), ("stranger", "is not in TRACER_TRUSTED")]
)
def test_a_key_that_readers_refuse_does_not_sign(keys: Path, pem: str, says: str) -> None:
    make_key(keys)
    key = Signer.make().pem().decode() if pem == "stranger" else pem
    with pytest.raises(ValueError, match=says) as error:
        trust_of(keys / KEYRING, unsigned_allowed=False, signing_key=key)
    assert "PRIVATE" not in str(error.value)


def test_corruption_and_distrust_are_met_alike() -> None:
    assert issubclass(UntrustedArtifact, CorruptArtifact)
