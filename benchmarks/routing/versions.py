"""Variants of a version, to measure with: no answers of its lexical stage, another task or name."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from shared.registry.base import Artifact


def lexical_off(artifact: Artifact) -> Artifact:
    """The same graphs; the lexical stage answers nothing, so that every text is encoded."""
    manifest = artifact.manifest
    stages = tuple(
        msgspec.structs.replace(stage, threshold=2.0) if stage.features == "token_ids" else stage
        for stage in manifest.stages
    )
    return replace(
        artifact, manifest_bytes=msgspec.structs.replace(manifest, stages=stages).encode()
    )


def of_task(artifact: Artifact, task: str, *, window: str | None = None) -> Artifact:
    """The same answers for another task, and under another name where `window` is given."""
    manifest = artifact.manifest
    manifest = msgspec.structs.replace(manifest, task=task, window=window or manifest.window)
    return replace(artifact, manifest_bytes=manifest.encode())
