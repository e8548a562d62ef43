"""tracerctl keys, on a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest
from artifacts import make_artifact
from typer.testing import CliRunner

from services.ctl.main import app
from shared.clock import SystemClock
from shared.registry.redis import connect
from shared.registry.trust import Trust, UntrustedArtifact

run = CliRunner().invoke


def listed(folder: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(
        run(app, ["keys", "list", "--json", "--folder", str(folder)]).stdout
    )
    return found


def keys(folder: Path, *arguments: str) -> str:
    result = run(app, ["keys", *arguments, "--folder", str(folder)])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_life_of_a_key(tmp_path: Path) -> None:
    assert "TRACER_SIGNING_KEY_FILE=" in keys(tmp_path, "new", "--note", "first").replace("\n", "")
    (first,) = listed(tmp_path)
    assert (first["note"], first["revoked"]) == ("first", None)
    assert run(app, ["keys", "new", "--folder", str(tmp_path)]).exit_code == 1
    before = (tmp_path / "signing.pem").read_bytes()
    keys(tmp_path, "new", "--if-absent")
    assert (tmp_path / "signing.pem").read_bytes() == before
    keys(tmp_path, "rotate")
    assert (tmp_path / "signing.pem").read_bytes() != before
    assert listed(tmp_path)[0]["id"] == first["id"]
    keys(tmp_path, "revoke", first["id"])
    keys(tmp_path, "revoke", first["id"])
    assert [bool(key["revoked"]) for key in listed(tmp_path)] == [True, False]
    again = run(app, ["keys", "trust", first["public"], "--folder", str(tmp_path)])
    assert again.exit_code == 1
    assert run(app, ["keys", "revoke", "nobody", "--folder", str(tmp_path)]).exit_code == 1


def test_another_trainers_key_is_trusted_by_its_public_half(tmp_path: Path) -> None:
    keys(tmp_path / "there", "new")
    public = listed(tmp_path / "there")[0]["public"]
    keys(tmp_path / "here", "trust", public, "--note", "the other region")
    assert listed(tmp_path / "here")[0]["public"] == public
    wrong = run(app, ["keys", "trust", "c2hvcnQ=", "--folder", str(tmp_path / "here")])
    assert wrong.exit_code == 2


@pytest.mark.redis
def test_an_old_registry_is_signed(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACER_REDIS_URL", redis_url)
    task = f"task-{uuid4().hex[:12]}"
    registry, artifact = connect(redis_url), make_artifact(task)
    registry.publish(
        artifact, fence=registry.acquire(task), at=SystemClock().now(), reason="before keys"
    )
    keys(tmp_path, "new")
    reader = connect(redis_url, trust=Trust(tmp_path / "trusted.json"))
    refused = run(app, ["keys", "sign", task, "--folder", str(tmp_path)])
    assert refused.exit_code == 1
    with pytest.raises(UntrustedArtifact):
        reader.load(task, artifact.version)
    assert "1 versions signed" in keys(tmp_path, "sign", task, "--unsigned")
    assert reader.load(task, artifact.version).manifest.task == task
    monkeypatch.setenv("TRACER_TRUSTED_KEYS", str(tmp_path / "trusted.json"))
    assert run(app, ["models", "show", task, artifact.version]).exit_code == 0
