"""What is published of a version: a manifest and its blobs, checked against one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.contracts.manifest import Manifest, decode_manifest, sha256, version_of
from shared.registry.errors import ArtifactTooLarge, CorruptArtifact

MAX_ARTIFACT_BYTES = 64 * 1024 * 1024
# JSON takes many times its size once it is read; ours have some ten KiB.
MAX_MANIFEST_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Artifact:
    """A manifest and the blobs it names, both as bytes. `signature`: see signatures.py; empty
    where nobody signed."""

    manifest_bytes: bytes
    blobs: Mapping[str, bytes]  # by SHA-256; never altered
    signature: bytes = b""
    # What it was found to be: the same bytes are not hashed again for every step of a swap.
    _verified: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def manifest(self) -> Manifest:
        return decode_manifest(self.manifest_bytes)

    @property
    def version(self) -> str:
        return version_of(self.manifest_bytes, self.manifest.window)

    @property
    def size(self) -> int:
        """Bytes of manifest and blobs together."""
        return len(self.manifest_bytes) + sum(map(len, self.blobs.values()))

    def verify(self, version: str) -> None:
        """Raises CorruptArtifact unless manifest and blobs are those `version` was made of."""
        if version in self._verified:
            return
        for stage in verified_manifest(self.manifest_bytes, version).stages:
            blob = self.blobs.get(stage.blob)
            if blob is None:
                raise CorruptArtifact(f"stage {stage.name} of {version} is missing")
            if len(blob) != stage.bytes or sha256(blob) != stage.blob:
                raise CorruptArtifact(f"stage {stage.name} of {version} is not the one published")
        self._verified.append(version)


def verified_manifest(data: bytes, version: str) -> Manifest:
    """The manifest, if it is the one `version` was made of. Raises CorruptArtifact."""
    try:
        manifest = decode_manifest(data)
    except (ValueError, RecursionError) as error:
        raise CorruptArtifact(f"manifest of {version} cannot be read: {error}") from error
    if version_of(data, manifest.window) != version:
        raise CorruptArtifact(f"manifest of {version} is not the one published")
    return manifest


def publishable(artifact: Artifact) -> tuple[str, Artifact]:
    """The artifact's version, and the artifact with exactly the blobs its manifest names.

    Raises ArtifactTooLarge, or CorruptArtifact when manifest and blobs do not belong together.
    """
    if artifact.size > MAX_ARTIFACT_BYTES:
        raise ArtifactTooLarge(
            f"artifact of {artifact.size:,} bytes exceeds the limit of {MAX_ARTIFACT_BYTES:,}"
        )
    if len(artifact.manifest_bytes) > MAX_MANIFEST_BYTES:
        raise ArtifactTooLarge(
            f"manifest of {len(artifact.manifest_bytes):,} bytes exceeds the limit of "
            f"{MAX_MANIFEST_BYTES:,}"
        )
    try:
        manifest = artifact.manifest
    except (ValueError, RecursionError) as error:
        raise CorruptArtifact(f"manifest cannot be read: {error}") from error
    version = version_of(artifact.manifest_bytes, manifest.window)
    artifact.verify(version)
    named = {stage.blob: bytes(artifact.blobs[stage.blob]) for stage in manifest.stages}
    return version, Artifact(artifact.manifest_bytes, named, artifact.signature)
