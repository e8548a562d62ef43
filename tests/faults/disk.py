"""A small disk of the trainer's own, which can be full."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

_MEGABYTE = 1 << 20


class SmallDisk:
    """A tmpfs mounted on `folder`, where this process may mount (root); else an ordinary folder
    that never is full: `unavailable` then says why."""

    def __init__(self, folder: Path, *, megabytes: int = 64) -> None:
        self.folder = folder
        self._filler = folder / "filler"
        self._megabytes = megabytes
        self._mounted = False
        self.unavailable: str | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._megabytes}m", "tmpfs"]
        done = subprocess.run(
            [*command, str(self.folder)], capture_output=True, text=True, check=False
        )
        self._mounted = done.returncode == 0
        if not self._mounted:
            self.unavailable = f"no disk of a fixed size: {done.stderr.strip()}"

    def fill(self) -> None:
        """Leave no byte free."""
        if self.unavailable is not None:
            raise RuntimeError(self.unavailable)
        with self._filler.open("wb", buffering=0) as out, suppress(OSError):
            for size in (_MEGABYTE, 4096, 1):
                with suppress(OSError):
                    while out.write(b"\0" * size) == size:
                        pass

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)

    def stop(self) -> None:
        if self._mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)
            self._mounted = False
