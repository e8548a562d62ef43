"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.ctl.embedded.redis_server import EmbeddedRedis

pytest.register_assert_rewrite("tests.contract.registry_laws")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real redis-server, one per test process: use names of your own, never FLUSHALL."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url
