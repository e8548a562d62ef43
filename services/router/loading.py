"""How the bytes of a version become one that can answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

from services.router.remembering import Remembered, Remembering
from services.router.serving import Version
from services.router.surrogate import UnusableArtifact, load_version
from shared.clock import Clock, SystemClock
from shared.contracts.manifest import window_of
from shared.encoder.base import Encoder
from shared.registry.base import Artifact
from shared.telemetry import metrics


@dataclass
class Loading:
    """`threads`: of a version's stages. `remembered`: where its answers are kept, shared by all.
    `max_age_days`: no version whose window is longer ago is loaded; what is loaded goes on. None:
    however old."""

    encoder: Encoder
    threads: int
    remembered: Remembered = field(default_factory=lambda: Remembered(0))
    max_age_days: int | None = None
    clock: Clock = field(default_factory=SystemClock)

    def load(self, version: str, artifact: Artifact) -> Version:
        """Verified and warmed up. Raises UnusableArtifact."""
        if self.max_age_days is not None:
            old = too_old(version, self.clock.now().date(), self.max_age_days)
            if old is not None:
                raise UnusableArtifact(old)
        with metrics.LOAD_SECONDS.time():
            loaded = load_version(version, artifact, self.encoder, threads=self.threads)
        return Remembering(loaded, self.remembered) if self.remembered.room else loaded


def too_old(version: str, today: date, most_days: int) -> str | None:
    """Why a version must not be loaded any more, None when it may be. Its name begins with its
    window's day, which its signature covers: an old version that somebody kept stays old."""
    try:
        days = (today - date.fromisoformat(window_of(version))).days
    except ValueError:
        return f"{version} is not named after a day, so nobody knows how old it is"
    if days <= most_days:
        return None
    return (
        f"the window of {version} was {days} days ago, and TRACER_MAX_VERSION_AGE_DAYS allows "
        f"{most_days}"
    )
