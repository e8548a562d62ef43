"""Variants of a version, for measuring: without its lexical stage's answers, under another name."""

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


def named(artifact: Artifact, window: str) -> Artifact:
    """The same version as of another window: another name, the same answers."""
    manifest = msgspec.structs.replace(artifact.manifest, window=window)
    return replace(artifact, manifest_bytes=manifest.encode())
