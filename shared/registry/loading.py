"""Reading one version out of Redis: no byte of it is believed, nor too many fetched."""

from __future__ import annotations

import redis

from shared.contracts.manifest import Manifest
from shared.registry.artifact import (
    MAX_ARTIFACT_BYTES,
    MAX_MANIFEST_BYTES,
    Artifact,
    verified_manifest,
)
from shared.registry.errors import CorruptArtifact, UnknownVersion
from shared.registry.refusals import reaching
from shared.registry.replies import as_bytes
from shared.registry.scripts import Keys
from shared.registry.signatures import MAX_SIGNATURE_BYTES
from shared.registry.trust import Trust


def load_artifact(client: redis.Redis, task: str, version: str, trust: Trust) -> Artifact:
    """Raises UnknownVersion, or CorruptArtifact for what is not the signed version of this task."""
    keys = Keys.of(task)
    manifest_bytes, signature = _fetch_manifest(client, keys, task, version)
    trust.check(manifest_bytes, signature, version)
    manifest = verified_manifest(manifest_bytes, version)
    if manifest.task != task:
        raise CorruptArtifact(f"{version} was made for task {manifest.task}, not {task}")
    _check_sizes(client, keys, version, manifest)
    with reaching(client):
        found = client.hmget(keys.blobs, _fields(version, manifest))
    blobs = {
        stage.blob: as_bytes(blob)
        for stage, blob in zip(manifest.stages, found, strict=True)
        if blob
    }
    artifact = Artifact(manifest_bytes, blobs, signature)
    artifact.verify(version)
    return artifact


def _fetch_manifest(
    client: redis.Redis, keys: Keys, task: str, version: str
) -> tuple[bytes, bytes]:
    """With its signature, which is empty where nobody signed."""
    with reaching(client):
        if int(client.hstrlen(keys.manifests, version)) > MAX_MANIFEST_BYTES:
            raise CorruptArtifact(f"manifest of {version} is larger than any published")
        if int(client.hstrlen(keys.signatures, version)) > MAX_SIGNATURE_BYTES:
            raise CorruptArtifact(f"the signature of {version} is larger than any")
        manifest = client.hget(keys.manifests, version)
        signature = client.hget(keys.signatures, version)
    if manifest is None:
        raise UnknownVersion(f"{task} has no version {version}")
    return as_bytes(manifest), as_bytes(signature or b"")


def _check_sizes(client: redis.Redis, keys: Keys, version: str, manifest: Manifest) -> None:
    """Before a byte of the blobs is fetched, as only this says how many there are."""
    with reaching(client):
        pipeline = client.pipeline(transaction=False)
        for field in _fields(version, manifest):
            pipeline.hstrlen(keys.blobs, field)
        sizes = pipeline.execute()
        # Pruned since its manifest was read: gone is not corrupt.
        if 0 in sizes and not client.hexists(keys.manifests, version):
            raise UnknownVersion(f"{manifest.task} has no version {version}")
    if sum(sizes) > MAX_ARTIFACT_BYTES:
        raise CorruptArtifact(f"{version} is larger than any published")
    for stage, size in zip(manifest.stages, sizes, strict=True):
        if size != stage.bytes:
            raise CorruptArtifact(
                f"stage {stage.name} of {version} has {size} bytes, published {stage.bytes}"
            )


def _fields(version: str, manifest: Manifest) -> list[str]:
    """Of the hash of blobs, in the order of the stages."""
    return [f"{version}/{stage.blob}" for stage in manifest.stages]
