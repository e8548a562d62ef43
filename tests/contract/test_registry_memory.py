from __future__ import annotations

import threading

import pytest

from shared.registry.base import Artifact, Hint, Registry, RegistryUnavailable
from shared.registry.memory import MemoryRegistry
from tests.artifacts import make_artifact
from tests.contract.registry_laws import RegistryLaws, publish, settle
from tests.contract.registry_report_laws import ReportLaws
from tests.contract.registry_state_laws import StateLaws


class TestMemoryRegistry(RegistryLaws, StateLaws, ReportLaws):
    def make(self, keep_versions: int = 20) -> MemoryRegistry:
        return MemoryRegistry(keep_versions=keep_versions)

    def corrupt(self, registry: Registry, task: str, version: str) -> None:
        assert isinstance(registry, MemoryRegistry)
        stored = registry._tasks[task].artifacts
        blobs = {
            digest: bytes([blob[0] ^ 1]) + blob[1:]
            for digest, blob in stored[version].blobs.items()
        }
        stored[version] = Artifact(stored[version].manifest_bytes, blobs)

    def corrupt_report(self, registry: Registry, task: str, key: str) -> None:
        assert isinstance(registry, MemoryRegistry)
        stored = registry._tasks[task].unpublished
        stored[key] = stored[key][:-1]


def test_switched_off_it_is_unavailable() -> None:
    registry = MemoryRegistry()
    publish(registry, make_artifact())
    registry.available = False
    with pytest.raises(RegistryUnavailable):
        registry.active("intents")
    with pytest.raises(RegistryUnavailable):
        registry.wait_for_change(0)
    registry.available = True
    assert registry.active("intents").version == make_artifact().version


def test_every_waiting_thread_gets_the_hint() -> None:
    registry = MemoryRegistry()
    heard: list[Hint] = []
    ready = threading.Barrier(3)

    def wait() -> None:
        settle(registry)
        ready.wait()
        heard.append(registry.wait_for_change(5.0))

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    ready.wait()
    publish(registry, make_artifact())
    for thread in threads:
        thread.join()
    assert heard == [Hint(frozenset({"intents"}))] * 2
