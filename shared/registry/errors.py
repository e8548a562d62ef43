"""What a registry raises."""

from __future__ import annotations


class RegistryError(Exception):
    """Base of what a registry raises."""


class RegistryUnavailable(RegistryError):
    """The registry cannot be reached now; try again later."""


class StaleEpoch(RegistryError):
    """Another trainer has taken this task over since; what this one made must not be published."""


class UnknownVersion(RegistryError):
    """There is no such version of the task."""


class TrippedVersion(RegistryError):
    """The version's live agreement was credibly below alpha: it answers no more, ever."""


class StateChanged(RegistryError):
    """The active version is no longer in the state the caller takes it to be in."""


class CorruptArtifact(RegistryError):
    """What was read is not what was published."""


class ArtifactTooLarge(RegistryError):
    """More bytes than a registry takes; nothing was sent."""


class CorruptReport(RegistryError):
    """A stored report cannot be read: damaged, or of a newer release."""


class ReportTooLarge(RegistryError):
    """More bytes than MAX_REPORT_BYTES; nothing was sent."""
