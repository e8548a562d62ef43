"""The environment the peer (PyPI `tracer-llm`) runs in: apart from ours, pinned, made once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("peer-requirements.txt")
UV = Path(sys.prefix) / "bin" / "uv"
FOLDER = "peer-0.3.3"


class PeerUnavailable(RuntimeError):
    """The peer cannot be installed here; the message says what went wrong."""


def peer_python(cache: Path) -> Path:
    """The Python that has the peer, in a virtual environment below `cache`.

    Made on the first call, and again whenever the pinned requirements change.
    Raises PeerUnavailable.
    """
    folder = cache.resolve() / FOLDER
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    wanted = REQUIREMENTS.read_text()
    if python.exists() and installed.is_file() and installed.read_text() == wanted:
        return python
    folder.parent.mkdir(parents=True, exist_ok=True)
    _uv("venv", "--quiet", "--clear", "--no-project", "--python", sys.executable, str(folder))
    # Wheels only: numpy from source takes minutes and a compiler, and would be another peer.
    _uv(
        "pip", "install", "--quiet", "--python", str(python), "--only-binary", ":all:",
        "--requirements", str(REQUIREMENTS),
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
