"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from services.ctl.embedded.redis_server import EmbeddedRedis

# Services started by tests believe unsigned versions, unless a test gives them keys.
os.environ.setdefault("TRACER_UNSIGNED", "allow")

pytest_plugins = ["tests.kafka_fixtures"]

# A busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

for laws in ("registry_laws", "bus_laws"):
    pytest.register_assert_rewrite(f"tests.contract.{laws}")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real redis-server, one per test process: use names of your own, never FLUSHALL."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url
