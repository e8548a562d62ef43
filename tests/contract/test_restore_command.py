"""`tracerctl restore` on a real Redis that has lost its data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from artifacts import make_artifact
from typer.testing import CliRunner

from services.ctl import restore_command
from services.ctl.main import app
from shared.bus.errors import Retryable
from shared.contracts.events import AnnouncementKind, ModelAnnouncement
from shared.registry.base import State
from tests.contract.registry_laws import AT
from tests.contract.test_keeping import Place

pytestmark = pytest.mark.redis

runner = CliRunner()
Announced = list[ModelAnnouncement]


@pytest.fixture
def place(redis_url: str, tmp_path: Path) -> Iterator[Place]:
    made = Place(redis_url, tmp_path / "windows")
    yield made
    made.registry.close()


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> Announced:
    """What would be on `models`."""
    heard: Announced = []
    monkeypatch.setattr(restore_command, "announcer", lambda _: heard.append)
    return heard


def restore(place: Place, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    result = run(place, *arguments, "--json")
    assert result.exit_code == code, result.output
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


def run(place: Place, *arguments: str) -> Any:
    environment = {"TRACER_REDIS_URL": place.url, "TRACER_STORE": str(place.folder)}
    return runner.invoke(app, ["restore", *arguments], env=environment)


def test_first_looked_at_then_restored_then_nothing_to_do(
    place: Place, announced: Announced
) -> None:
    versions = [place.publish(f"2026-01-0{day}") for day in (1, 2)]
    place.registry.set_state(
        place.task, State.PAUSED, version=versions[-1], at=AT, reason="by hand"
    )
    place.keeper.look(place.task)
    place.lose()
    (row,) = restore(place, "--dry-run")
    assert row["dry_run"]
    assert (row["done"], row["version"], row["state"], row["now"], row["versions"]) == (
        "restored", versions[-1], "paused", None, 2,
    )  # fmt: skip
    assert place.registry.active(place.task).version is None
    assert announced == []
    (row,) = restore(place, place.task)
    assert (row["done"], row["version"], row["missing"]) == ("restored", versions[-1], [])
    active = place.registry.active(place.task)
    assert (active.version, active.state) == (versions[-1], State.PAUSED)
    assert [(a.kind, a.version, a.epoch) for a in announced] == [
        (AnnouncementKind.PAUSED, versions[-1], active.epoch)
    ]
    (row,) = restore(place)
    assert (row["done"], row["version"]) == ("kept", versions[-1])
    assert place.registry.active(place.task) == active
    assert len(announced) == 1


def test_what_was_decided_since_is_overwritten_only_when_told(
    place: Place, announced: Announced
) -> None:
    version = place.publish("2026-01-02")
    place.keeper.look(place.task)
    place.lose()
    fence = place.registry.acquire(place.task)
    since = make_artifact(place.task, "2026-01-01")
    later = AT + timedelta(hours=1)
    place.registry.publish(since, fence=fence, at=later, reason="by whoever did not wait")
    for arguments in ((), ("--dry-run",)):
        (row,) = restore(place, *arguments, code=1)
        assert (row["done"], row["now"]) == ("refused", since.version)
        assert "--overwrite" in row["why"]
    assert place.registry.active(place.task).version == since.version
    (row,) = restore(place, "--overwrite")
    assert (row["done"], row["version"], row["now"]) == ("restored", version, since.version)
    assert place.registry.active(place.task).version == version


def test_a_damaged_version_is_named_and_the_rest_comes_back(
    place: Place, announced: Announced
) -> None:
    good, bad = place.publish("2026-01-01"), place.publish("2026-01-02")
    place.keeper.look(place.task)
    place.lose()
    place.files.put(place.task, f"{bad}.artifact", b"\x00 not what was saved")
    (row,) = restore(place, code=1)
    assert (row["done"], row["missing"], row["version"]) == ("restored", [bad], None)
    assert place.registry.versions(place.task) == [good]


def test_what_cannot_be_restored_is_said(place: Place, announced: Announced) -> None:
    result = run(place)
    assert result.exit_code == 1
    assert "TRACER_STORE" in result.output
    (row,) = restore(place, place.task, code=1)
    assert (row["done"], row["why"]) == ("failed", "nothing is saved of it")
    place.files.put(place.task, "state.json", b"{")
    (row,) = restore(place, code=1)
    assert (row["done"], row["why"]) == ("failed", "what is saved cannot be read")
    assert run(place, "../elsewhere").exit_code == 2


def test_a_broker_that_is_away_is_said_after_the_deed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: ModelAnnouncement) -> None:
        raise Retryable("no broker")

    monkeypatch.setattr(restore_command, "announcer", lambda _: away)
    version = place.publish("2026-01-01")
    place.keeper.look(place.task)
    place.lose()
    result = run(place)
    assert result.exit_code == 1
    assert "not announced" in result.output
    assert version in result.output
    assert place.registry.active(place.task).version == version
