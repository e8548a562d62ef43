"""Small files kept beside the windows, by task and name, on a folder or an object store.

<root>/saved/<task>/<name>
"""

from __future__ import annotations

import os

import pyarrow.fs as pafs


class SavedFiles:
    """Raises OSError when the store cannot be read or written."""

    def __init__(self, url: str) -> None:
        """`url`: as of the windows."""
        if "://" in url:
            self._fs, root = pafs.FileSystem.from_uri(url)
        else:
            self._fs, root = pafs.LocalFileSystem(), url
        self._root = f"{root}/saved"

    def put(self, task: str, name: str, content: bytes) -> None:
        """There whole or not at all, and on disk once this returns."""
        path = self._path(task, name)
        self._fs.create_dir(f"{self._root}/{task}", recursive=True)
        if not isinstance(self._fs, pafs.LocalFileSystem):
            with self._fs.open_output_stream(path) as out:  # an object appears when it is closed
                out.write(content)
            return
        with open(f"{path}.tmp", "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.replace(f"{path}.tmp", path)

    def get(self, task: str, name: str) -> bytes | None:
        """None where there is none."""
        path = self._path(task, name)
        if self._fs.get_file_info(path).type != pafs.FileType.File:
            return None
        with self._fs.open_input_stream(path) as source:
            return bytes(source.read())

    def names(self, task: str) -> list[str]:
        found = self._fs.get_file_info(
            pafs.FileSelector(f"{self._root}/{task}", allow_not_found=True)
        )
        return sorted(info.base_name for info in found if not info.base_name.endswith(".tmp"))

    def tasks(self) -> list[str]:
        """Those of which anything is saved."""
        found = self._fs.get_file_info(pafs.FileSelector(self._root, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)

    def delete(self, task: str, name: str) -> None:
        self._fs.delete_file(self._path(task, name))

    def _path(self, task: str, name: str) -> str:
        """Names of versions come from Redis: none may lead elsewhere."""
        if any(part in ("", ".", "..") or "/" in part or "\0" in part for part in (task, name)):
            raise OSError(f"no file of {task!r} is called {name!r}")
        return f"{self._root}/{task}/{name}"
