"""tracerctl keys, on a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from artifacts import make_artifact
from typer.testing import CliRunner

from services.ctl.key_commands import KEYRING, make_key
from services.ctl.main import app
from services.ctl.output import console
from shared.clock import SystemClock
from shared.registry.redis import connect
from shared.registry.scripts import Keys
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


@pytest.fixture
def signed(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Two tasks with two versions each, signed; the second one is active. Versions by task."""
    folder = tmp_path / "keys"
    registry = connect(redis_url, trust=Trust(folder / KEYRING, make_key(folder)))
    versions: dict[str, list[str]] = {}
    for task in (f"a-{uuid4().hex[:8]}", f"b-{uuid4().hex[:8]}"):
        for text in ("first", "second"):
            artifact = make_artifact(task, text=text)
            fence = registry.acquire(task)
            registry.publish(artifact, fence=fence, at=SystemClock().now(), reason="certified")
            versions.setdefault(task, []).append(artifact.version)
    registry.close()
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text("tasks:\n" + "".join(f"- name: {task}\n" for task in versions))
    monkeypatch.setenv("TRACER_REDIS_URL", redis_url)
    monkeypatch.setenv("TRACER_TASKS", str(tasks))
    monkeypatch.setenv("TRACER_TRUSTED_KEYS", str(folder / KEYRING))
    return versions


def forge(redis_url: str, task: str, version: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.hset(Keys.of(task).signatures, version, b"forged")


@pytest.mark.redis
def test_a_version_that_is_not_believed_hides_no_other(
    signed: dict[str, list[str]], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "width", 250)
    good, bad = signed
    assert run(app, ["status"]).exit_code == run(app, ["models", "list", bad]).exit_code == 0
    forge(redis_url, bad, signed[bad][1])
    result = run(app, ["status", "--json"])
    assert result.exit_code == 1
    assert f"{bad}: the signature of {signed[bad][1]} cannot be read" in result.stderr
    rows = {row["task"]: row for row in json.loads(result.stdout)}
    assert (rows[good]["coverage"], rows[good]["damage"]) == (0.8, None)
    assert (rows[bad]["active"], rows[bad]["coverage"]) == (signed[bad][1], None)
    assert signed[bad][1] in rows[bad]["damage"]
    shown = run(app, ["status"])
    assert shown.exit_code == 1
    assert shown.stdout.count("not believed") == 1
    assert run(app, ["models", "list", good]).exit_code == 0


@pytest.mark.redis
@pytest.mark.parametrize("which", [0, 1])
def test_models_list_shows_all_versions_beside_one_that_is_not_believed(
    signed: dict[str, list[str]], redis_url: str, which: int
) -> None:
    _, task = signed
    forged, whole = signed[task][which], signed[task][1 - which]
    forge(redis_url, task, forged)
    result = run(app, ["models", "list", task, "--json"])
    assert result.exit_code == 1
    assert result.stderr.count(forged) == 1
    found = json.loads(result.stdout)
    versions = {version["version"]: version for version in found["versions"]}
    assert (versions[whole]["coverage"], versions[whole]["damage"]) == (0.8, None)
    assert versions[forged]["coverage"] is None
    assert forged in versions[forged]["damage"]
    assert found["history"]
    shown = run(app, ["models", "list", task])
    assert shown.exit_code == 1
    assert "not believed" in " ".join(shown.stdout.split())


@pytest.mark.redis
def test_models_list_shows_a_version_without_a_manifest(
    signed: dict[str, list[str]], redis_url: str
) -> None:
    task, _ = signed
    with redis.Redis.from_url(redis_url) as client:
        client.hdel(Keys.of(task).manifests, signed[task][0])
    result = run(app, ["models", "list", task, "--json"])
    assert result.exit_code == 1
    assert f"{signed[task][0]} has no manifest" in result.stderr
    versions = json.loads(result.stdout)["versions"]
    assert [version["version"] for version in versions] == signed[task]


@pytest.mark.redis
def test_alpha_knows_nothing_of_others_by_a_version_that_is_not_believed(
    signed: dict[str, list[str]], redis_url: str
) -> None:
    task, _ = signed
    forge(redis_url, task, signed[task][1])
    result = run(app, ["alpha", "0.9", "--task", task, "--show", "--json"])
    assert result.exit_code == 0
    said = json.loads(result.stdout)
    assert (said["version"], said["certified_for"], said["frontier"]) == (signed[task][1], None, [])
    assert signed[task][1] in said["damage"]
    shown = run(app, ["alpha", "0.9", "--task", task, "--show"])
    assert "so nothing is known of other α" in " ".join(shown.stdout.split())


@pytest.mark.redis
def test_after_a_stolen_key_what_is_known_is_signed_again(
    signed: dict[str, list[str]], tmp_path: Path
) -> None:
    """As docs/security.md says it is done."""
    folder = tmp_path / "keys"
    task, other = signed
    (stolen,) = listed(folder)
    keys(folder, "revoke", stolen["id"])
    keys(folder, "rotate")
    result = run(app, ["models", "list", task, "--json"])
    assert [v["coverage"] for v in json.loads(result.stdout)["versions"]] == [None, None]
    refused = run(app, ["keys", "sign", task, signed[task][1], "--folder", str(folder)])
    assert refused.exit_code == 1
    keys(folder, "sign", task, signed[task][1], "--unsigned")
    rows = {row["task"]: row for row in json.loads(run(app, ["status", "--json"]).stdout)}
    assert (rows[task]["damage"], rows[task]["coverage"]) == (None, 0.8)
    assert "revoked" in rows[other]["damage"]
