"""A glance says what the registry says, whichever way it is got."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from shared.contracts.manifest import Manifest
from shared.registry.base import CorruptArtifact, Registry, RegistryUnavailable, State
from shared.registry.glances import Audits, Glances, RegistryGlances, connect_glances
from shared.registry.keyring import TrustedKey, write_keyring
from shared.registry.memory import MemoryRegistry
from shared.registry.redis import connect
from shared.registry.scripts import Keys
from shared.registry.signatures import Signer
from shared.registry.trust import Trust
from tests.artifacts import make_artifact

AT = datetime(2026, 1, 5, tzinfo=UTC)


def publish(registry: Registry, task: str, text: str) -> str:
    artifact = make_artifact(task, text=text)
    registry.publish(artifact, fence=registry.acquire(task), at=AT, reason="certified")
    return artifact.version


class GlanceLaws:
    def test_a_task_nobody_published_to(self, pair: tuple[Registry, Glances], task: str) -> None:
        (glance,) = pair[1].glance([task])
        assert (glance.task, glance.active.version, glance.versions) == (task, None, ())
        assert (glance.newest, glance.manifest, glance.damage) == (None, None, None)

    def test_it_says_what_the_registry_says(
        self, pair: tuple[Registry, Glances], task: str
    ) -> None:
        registry, glances = pair
        other = f"{task}-other"
        versions = [publish(registry, task, text) for text in ("a", "b")]
        registry.set_state(task, State.PAUSED, version=versions[1], at=AT, reason="by hand")
        publish(registry, other, "c")
        glance, second = glances.glance([task, other])
        assert glance.active == registry.active(task)
        assert list(glance.versions) == versions == registry.versions(task)
        assert glance.newest == registry.history(task)[0]
        assert glance.manifest == registry.load(task, versions[1]).manifest
        assert second.active == registry.active(other)

    def test_manifests_of_some_versions(self, pair: tuple[Registry, Glances], task: str) -> None:
        registry, glances = pair
        first, second = (publish(registry, task, text) for text in ("a", "b"))
        found = glances.manifests(task, [second, "2020-01-01-000000000000", first])
        assert set(found) == {first, second}
        assert found[first] == registry.load(task, first).manifest

    def test_audits_are_counted(self, pair: tuple[Registry, Glances], task: str) -> None:
        registry, glances = pair
        version = publish(registry, task, "a")
        registry.record_audits(task, version, 0, [(1, True), (2, False), (3, True)])
        found = glances.audits([(task, version), (task, "unheard-of")])
        assert found == {(task, version): Audits(2, 3), (task, "unheard-of"): Audits(0, 0)}
        assert glances.audits([]) == {}


@pytest.fixture
def task() -> str:
    return f"t-{uuid4().hex[:12]}"


class TestOverAnyRegistry(GlanceLaws):
    @pytest.fixture
    def pair(self) -> tuple[Registry, Glances]:
        registry = MemoryRegistry()
        return registry, RegistryGlances(registry)


@pytest.mark.redis
class TestInRedis(GlanceLaws):
    @pytest.fixture
    def pair(self, redis_url: str) -> tuple[Registry, Glances]:
        return connect(redis_url), connect_glances(redis_url)

    def test_damage_is_said_and_spoils_no_other_task(self, redis_url: str, task: str) -> None:
        registry, glances = connect(redis_url), connect_glances(redis_url)
        bad, good = f"{task}-bad", f"{task}-good"
        version = publish(registry, bad, "a")
        publish(registry, good, "a")
        registry._client.hset(Keys.of(bad).manifests, version, b"{}")
        damaged, whole = glances.glance([bad, good])
        assert damaged.manifest is None
        assert damaged.damage is not None
        assert version in damaged.damage
        assert isinstance(glances.manifests(bad, [version])[version], CorruptArtifact)
        assert isinstance(whole.manifest, Manifest)

    def test_what_nobody_trusted_has_signed_is_not_believed(
        self, redis_url: str, task: str, tmp_path: Path
    ) -> None:
        signer = Signer.make()
        keyring = tmp_path / "trusted.json"
        key = TrustedKey(public=base64.b64encode(signer.public).decode(), added=AT, note="")
        write_keyring(keyring, {signer.key_id: key})
        signed, unsigned = f"{task}-signed", f"{task}-unsigned"
        publish(connect(redis_url, trust=Trust(keyring, signer)), signed, "a")
        publish(connect(redis_url), unsigned, "a")
        good, bad = connect_glances(redis_url, trust=Trust(keyring)).glance([signed, unsigned])
        assert isinstance(good.manifest, Manifest)
        assert bad.manifest is None
        assert bad.damage is not None
        assert "is not signed" in bad.damage

    def test_with_the_store_away_it_says_so(self) -> None:
        with pytest.raises(RegistryUnavailable):
            connect_glances("redis://127.0.0.1:1/0", socket_timeout=0.2).glance(["a"])
        with pytest.raises(ValueError, match="not a Redis URL"):
            connect_glances("http://secret@host")
