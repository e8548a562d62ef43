"""Where tracerctl keeps what it makes once: the encoder artifact and the embedding cache."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$TRACER_CACHE, else the user's cache folder."""
    named = os.environ.get("TRACER_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tracer"
