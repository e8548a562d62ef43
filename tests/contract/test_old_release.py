"""The last release and this one on one registry, each in a process of its own: what one writes the
other serves, number for number. Under traffic: tests/faults/test_rolling_upgrade.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from surrogates import LABELS, make_surrogate, text_of

from services.ctl.key_commands import KEYRING, make_key
from services.ctl.paths import cache_folder
from services.router.surrogate import load_version
from shared.contracts.fit_settings import FitSettings
from shared.contracts.tasks import Task
from shared.encoder.default import ensure_default_encoder
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.registry.base import Artifact, State
from shared.registry.redis import RedisRegistry, connect
from shared.registry.trust import Trust, UntrustedArtifact
from tests.contract.registry_laws import AT
from tests.faults.upgrade import NoHistory, release

pytestmark = [pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(300)]

OLD = "2421d2e38419d18cd00cb9bdf764f2a2f8a8b3d0"
TEXTS = [*map(text_of, LABELS), "card password", "no such words at all"]

# What a router of that release does with a pointer; then an operator, and a trainer.
_SERVES = """
import json, sys
from pathlib import Path
from services.router.surrogate import load_version
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.registry.redis import connect
url, task, encoder, texts = sys.argv[1], sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4])
registry = connect(url)
active = registry.active(task)
encoder = OnnxEncoder(encoder, threads=1)
version = load_version(active.version, registry.load(task, active.version), encoder, threads=1)
answers = version.answer([(text,) for text in texts], encoder)
print(json.dumps({"version": active.version, "state": active.state.value, "epoch": active.epoch,
                  "answers": [[a.reason.value, a.label, a.accept_score] for a in answers]}))
"""
_PAUSES = """
import sys
from datetime import UTC, datetime
from shared.registry.base import State
from shared.registry.redis import connect
registry, task = connect(sys.argv[1]), sys.argv[2]
registry.set_state(task, State.PAUSED, version=registry.active(task).version,
                   at=datetime(2026, 1, 7, tzinfo=UTC), reason="by the old tracerctl")
"""
_PUBLISHES = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from surrogates import make_surrogate
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.registry.redis import connect
registry, task = connect(sys.argv[1]), sys.argv[2]
artifact = make_surrogate(OnnxEncoder(Path(sys.argv[3]), threads=1), task=task)
registry.publish(artifact, fence=registry.acquire(task), at=datetime(2026, 1, 6, tzinfo=UTC),
                 reason="a fit")
"""


class Old:
    """The last release, on this test's registry and task."""

    def __init__(self, folder: Path, url: str, task: str, encoder: Path) -> None:
        self._folder, self._arguments = folder, [url, task, str(encoder), json.dumps(TEXTS)]

    def run(self, script: str) -> Any:
        """What the script prints, as JSON; None where it prints nothing."""
        path = os.pathsep.join([str(self._folder), str(self._folder / "tests")])
        done = subprocess.run(
            [sys.executable, "-c", script, *self._arguments], cwd=self._folder,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True, text=True, check=False, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2_000:]
        return json.loads(done.stdout) if done.stdout else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return release(OLD, tmp_path_factory.mktemp("old"))
    except NoHistory as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def encoder() -> OnnxEncoder:
    return OnnxEncoder(ensure_default_encoder(cache_folder() / "encoder"), threads=1)


@pytest.fixture
def task() -> str:
    return f"t-{uuid4().hex[:8]}"


@pytest.fixture
def old(folder: Path, redis_url: str, task: str) -> Old:
    return Old(folder, redis_url, task, cache_folder() / "encoder")


@pytest.fixture
def registry(redis_url: str, tmp_path: Path) -> Iterator[RedisRegistry]:
    """This release's, which signs and believes its own key alone."""
    made = connect(redis_url, trust=Trust(tmp_path / KEYRING, make_key(tmp_path)))
    yield made
    made.close()


def answers(artifact: Artifact, version: str, encoder: OnnxEncoder) -> list[list[Any]]:
    """As this release's router gives them."""
    loaded = load_version(version, artifact, encoder, threads=1)
    found = loaded.answer([(text,) for text in TEXTS], encoder)
    return [[each.reason.value, each.label, each.accept_score] for each in found]


def alike(these: list[list[Any]], those: list[list[Any]]) -> None:
    assert [each[:2] for each in these] == [each[:2] for each in those]
    assert [each[2] for each in these] == pytest.approx([each[2] for each in those], abs=1e-6)
    assert {each[0] for each in these} >= {"certified"}


def test_the_last_release_serves_what_this_one_writes(
    old: Old, registry: RedisRegistry, task: str, encoder: OnnxEncoder
) -> None:
    made = make_surrogate(encoder, task=task)
    manifest = msgspec.structs.replace(
        made.manifest,
        settings=FitSettings.of(Task(name=task)),
        source={"2026-01-05": {"0": 600}},
    )
    artifact = Artifact(manifest.encode(), made.blobs)
    registry.publish(artifact, fence=registry.acquire(task), at=AT, reason="a fit")
    registry.set_alpha(task, 0.97, at=AT, reason="asked", actor="ann")
    stored = registry.load(task, artifact.version)
    assert stored.signature
    said = old.run(_SERVES)
    active = registry.active(task)
    assert (said["version"], said["epoch"]) == (active.version, active.epoch)
    alike(said["answers"], answers(stored, artifact.version, encoder))


def test_this_release_serves_what_the_last_one_writes(
    old: Old, registry: RedisRegistry, redis_url: str, task: str, encoder: OnnxEncoder
) -> None:
    old.run(_PUBLISHES)
    said = old.run(_SERVES)
    version = registry.active(task).version
    assert said["version"] == version
    with pytest.raises(UntrustedArtifact, match="not signed"):
        registry.load(task, version)
    unsigned = connect(redis_url)  # as with TRACER_UNSIGNED=allow
    alike(answers(unsigned.load(task, version), version, encoder), said["answers"])
    unsigned.close()
    registry.resign(task, version, unsigned=True)
    alike(answers(registry.load(task, version), version, encoder), said["answers"])


def test_what_the_last_release_changes_leaves_what_it_does_not_know(
    old: Old, registry: RedisRegistry, task: str, encoder: OnnxEncoder
) -> None:
    artifact = make_surrogate(encoder, task=task)
    registry.publish(artifact, fence=registry.acquire(task), at=AT, reason="a fit")
    registry.set_alpha(task, 0.97, at=AT, reason="asked")
    old.run(_PAUSES)
    active = registry.active(task)
    assert (active.version, active.state, active.alpha) == (artifact.version, State.PAUSED, 0.97)
    assert registry.history(task)[0].reason == "by the old tracerctl"
    registry.load(task, artifact.version)  # its signature is still there
