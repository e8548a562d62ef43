"""A full disk refuses to write, and takes again once it is emptied."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.faults.disk import SmallDisk


def test_full_and_empty_again(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path / "disk", megabytes=2)
    disk.start()
    try:
        if disk.unavailable is not None:
            pytest.skip(disk.unavailable)
        file = disk.folder / "file"
        disk.fill()
        with pytest.raises(OSError, match="No space") as refused:
            file.write_bytes(b"x" * 10_000)
        assert refused.value.errno == errno.ENOSPC
        disk.empty()
        assert file.write_bytes(b"x" * 10_000) == 10_000
    finally:
        disk.stop()


def test_without_the_right_to_mount_it_says_so(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path / "disk", megabytes=-1)
    disk.start()
    assert disk.unavailable is not None
    assert disk.folder.is_dir()
    with pytest.raises(RuntimeError, match="no disk of a fixed size"):
        disk.fill()
    disk.stop()
