"""The environments the peer (PyPI `tracer-llm`) runs in: apart from ours, pinned, made once.

One has the peer alone; the other its own embedder too, sentence-transformers on torch. That one is
5.6 GB, as the only torch that package registries have for Linux comes with CUDA, and is made for
`make bench-router` alone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

UV = Path(sys.prefix) / "bin" / "uv"
FOLDER = "peer-0.3.3"
EMBEDDER_GB = 12  # the environment, and as much again in uv's cache


class PeerUnavailable(RuntimeError):
    """The peer cannot be installed here; the message says what went wrong."""


def peer_python(cache: Path) -> Path:
    """The Python that has the peer, in a virtual environment below `cache`.

    Made on the first call, and again whenever the pinned requirements change.
    Raises PeerUnavailable.
    """
    return _python(cache.resolve() / FOLDER, "peer-requirements.txt")


def peer_embedder_python(cache: Path) -> Path:
    """The same with the peer's own embedder: minutes, on the first call. Raises PeerUnavailable."""
    folder = cache.resolve() / f"{FOLDER}-embedder"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache).free / 1e9
        if free < EMBEDDER_GB:
            raise PeerUnavailable(
                f"the peer's embedder needs torch, {EMBEDDER_GB} GB; {cache} has {free:.0f}"
            )
    return _python(folder, "peer-embedder-requirements.txt")


def _python(folder: Path, requirements: str) -> Path:
    path = Path(__file__).with_name(requirements)
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    wanted = path.read_text()
    if python.exists() and installed.is_file() and installed.read_text() == wanted:
        return python
    folder.parent.mkdir(parents=True, exist_ok=True)
    _uv("venv", "--quiet", "--clear", "--no-project", "--python", sys.executable, str(folder))
    # Wheels only: numpy from source takes minutes and a compiler, and would be another peer.
    _uv(
        "pip", "install", "--quiet", "--python", str(python), "--only-binary", ":all:",
        "--requirements", str(path),
    )  # fmt: skip
    installed.write_text(wanted)
    return python


def _uv(*arguments: str) -> None:
    if not UV.is_file():
        raise PeerUnavailable(f"{UV} is missing; `make setup` installs it")
    done = subprocess.run([UV, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerUnavailable(
            f"the peer's environment could not be made: `uv {' '.join(arguments)}` ended with "
            f"{done.returncode}:\n{done.stderr.strip()}"
        )
