"""What a router loads before it is ready, which is most of the time that takes."""

from __future__ import annotations

import subprocess
import sys

import pytest

WEB = ["uvicorn", "starlette", "click", "h11"]
CLIENTS = ["redis", "confluent_kafka"]
SIGNING = "cryptography.hazmat.primitives.serialization"


@pytest.mark.parametrize(
    ("module", "without"),
    [
        # The encoder is loaded beside the import of the rest: what comes before is waited for.
        ("services.router.main", [*CLIENTS, *WEB, SIGNING, "services.router.app"]),
        # The door's web server is for routers with a door, writing keys for who signs.
        ("services.router.app", [*WEB, SIGNING, "services.router.door_service"]),
    ],
)
def test_nothing_is_loaded_before_it_is_needed(module: str, without: list[str]) -> None:
    said = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    loaded = set(said.stdout.split())
    assert module in loaded
    assert loaded.isdisjoint(without)
