from __future__ import annotations

import logging
from pathlib import Path

import pytest

from shared.registry.base import Active, Artifact, CorruptArtifact, State, Trial
from shared.registry.disk import DiskCopy
from tests.artifacts import make_artifact


@pytest.fixture
def kept(tmp_path: Path) -> DiskCopy:
    """One that keeps version "a" of task "intents" at epoch 3."""
    copy = DiskCopy(tmp_path / "deeper" / "folder")
    artifact = make_artifact()
    copy.save("intents", Active(artifact.version, 3), artifact)
    return copy


def file_of(copy: DiskCopy) -> Path:
    (path,) = copy._folder.iterdir()
    return path


def test_what_was_saved_is_loaded(kept: DiskCopy) -> None:
    loaded = kept.load("intents")
    assert loaded is not None
    active, artifact = loaded
    assert active == Active(make_artifact().version, 3)
    assert artifact.manifest_bytes == make_artifact().manifest_bytes
    assert dict(artifact.blobs) == dict(make_artifact().blobs)


def test_the_newest_save_replaces_the_one_before(kept: DiskCopy) -> None:
    artifact = make_artifact(text="b")
    kept.save("intents", Active(artifact.version, 4), artifact)
    loaded = kept.load("intents")
    assert loaded is not None
    assert loaded[0] == Active(artifact.version, 4)
    assert len(list(kept._folder.iterdir())) == 1


def test_what_is_asked_for_is_kept(kept: DiskCopy) -> None:
    artifact = make_artifact()
    kept.save("intents", Active(artifact.version, 4, alpha=0.97), artifact)
    loaded = kept.load("intents")
    assert loaded is not None
    assert loaded[0] == Active(artifact.version, 4, alpha=0.97)


@pytest.mark.parametrize("state", list(State))
def test_the_state_is_kept_and_the_trial_is_not(kept: DiskCopy, state: State) -> None:
    artifact = make_artifact()
    kept.save("intents", Active(artifact.version, 4, state, Trial("v2", "canary", 0.1)), artifact)
    loaded = kept.load("intents")
    assert loaded is not None
    assert loaded[0] == Active(artifact.version, 4, state)


def test_an_unknown_task_gives_none_without_a_warning(
    kept: DiskCopy, caplog: pytest.LogCaptureFixture
) -> None:
    assert kept.load("other") is None
    assert caplog.records == []


def test_a_forgotten_task_gives_none(kept: DiskCopy) -> None:
    kept.forget("intents")
    kept.forget("intents")
    assert kept.load("intents") is None


def test_every_flipped_byte_is_noticed(kept: DiskCopy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    path = file_of(kept)
    whole = path.read_bytes()
    expected = make_artifact()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x20]) + whole[place + 1 :])
        loaded = kept.load("intents")
        if loaded is not None:  # only the epoch, a number, can change unnoticed
            assert loaded[0].version == expected.version
            assert loaded[0].state is State.SERVING
            assert loaded[1].manifest_bytes == expected.manifest_bytes
            assert dict(loaded[1].blobs) == dict(expected.blobs)
    assert len(caplog.records) > len(whole) / 7 * 0.95
    assert "is not used" in caplog.text


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_a_file_cut_short_gives_none_and_a_warning(
    kept: DiskCopy, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = file_of(kept)
    path.write_bytes(path.read_bytes()[:length])
    assert kept.load("intents") is None
    assert "is not used" in caplog.text


def test_a_file_of_absurd_size_is_not_read(
    kept: DiskCopy, caplog: pytest.LogCaptureFixture
) -> None:
    with file_of(kept).open("ab") as file:
        file.truncate(10 * 1024**3)  # sparse
    assert kept.load("intents") is None
    assert "larger than any artifact" in caplog.text


def test_a_copy_of_another_task_is_not_used(
    kept: DiskCopy, caplog: pytest.LogCaptureFixture
) -> None:
    file_of(kept).rename(kept._folder / "other.msgpack")
    assert kept.load("other") is None
    assert "made for task intents" in caplog.text


def test_what_does_not_belong_together_is_not_saved(kept: DiskCopy) -> None:
    other = make_artifact(text="b")
    with pytest.raises(ValueError, match="no active version"):
        kept.save("intents", Active(None, 5), other)
    with pytest.raises(CorruptArtifact):
        kept.save("intents", Active(make_artifact().version, 5), other)
    with pytest.raises(CorruptArtifact):
        kept.save("intents", Active(other.version, 5), Artifact(other.manifest_bytes, {}))
    with pytest.raises(ValueError, match="not of task"):
        kept.save("tickets", Active(other.version, 5), other)
    loaded = kept.load("intents")
    assert loaded is not None
    assert loaded[0].epoch == 3


def test_a_failed_save_leaves_the_one_before(
    kept: DiskCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    other = make_artifact(text="b")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        kept.save("intents", Active(other.version, 4), other)
    loaded = kept.load("intents")
    assert loaded is not None
    assert loaded[0].epoch == 3
    assert len(list(kept._folder.iterdir())) == 1


@pytest.mark.parametrize("task", ["../intents", "", "a/b", "."])
def test_a_name_that_is_no_task_reaches_no_file(kept: DiskCopy, task: str) -> None:
    with pytest.raises(ValueError, match="not a task name"):
        kept.load(task)
    with pytest.raises(ValueError, match="not a task name"):
        kept.forget(task)
