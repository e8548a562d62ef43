"""The manifest of a version: everything a router needs to serve it, and an auditor to check it.

Nothing in it depends on when the fit ran, on the order of traces or on what a cache held, so that
a replay gives the same bytes (docs/replay.md).
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from shared.contracts.events import CertificateSummary, Count, Label, TaskName
from shared.contracts.fit_settings import FitSettings

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


# A version is named after its window, and becomes a part of file names.
WindowName = Annotated[str, Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z_-]{0,63}\Z")]

# Day (YYYY-MM-DD) -> partition -> the next offset after the last trace that was used.
Source = dict[str, dict[str, int]]


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of the cascade: an ONNX graph from its input to (label index, accept score,
    novelty, scores).

    A request is handled by the first stage whose accept score reaches its `threshold`, whose
    novelty stays below `novelty_cut` and whose label is not deferred whole.
    `features` names the graph's input: `token_ids` (int64[n, length], the encoder's word pieces
    filled up with -1; `dim` is the size of its vocabulary), `embedding` (float32[n, dim]) or
    `pair_embedding` (float32[n, 4 * dim of the encoder]: u, v, |u - v|, u * v). Pairs' word pieces
    are those of the first text followed by those of the second. The graph also takes the `scores`
    of the earlier stages in `scores_of`, each as `<name>_scores`.
    """

    name: str
    features: Literal["token_ids", "embedding", "pair_embedding"]
    blob: Sha256
    bytes: Count
    dim: Annotated[int, Meta(ge=1)]
    threshold: float
    novelty_cut: float = 1.0
    scores_of: tuple[str, ...] = ()

    @property
    def input(self) -> str:
        """What the graph calls its input."""
        return "token_ids" if self.features == "token_ids" else "features"


class FrontierPoint(msgspec.Struct, frozen=True, kw_only=True):
    """What this fit certifies at one α; coverage 0 means refused."""

    alpha: float
    coverage: float
    agreement: float
    agreement_lower: float


class Teacher(msgspec.Struct, frozen=True, kw_only=True):
    """Who gave the labels: the model's name, and the digest of the prompt it was asked with."""

    model: str | None = None
    prompt: str | None = None


class Incremental(msgspec.Struct, frozen=True, kw_only=True):
    """What an incremental refit took over: the state that the full fit of the version `since` left,
    by its SHA-256. source: of that fit, so that the state can be made again."""

    since: str
    state: Sha256
    source: Source


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One published surrogate.

    `deferred_labels` fell short of the task's floor per label: no stage answers with them.
    `candidates` are the scorers tried for each stage with their cross-validated agreement,
    `families` the compositions tried with their cross-validated coverage at the task's α.
    `teacher` is the one whose agreement is certified; None where the traces do not say.
    What the fit depended on, so that it can be made again: `settings` of the task, `libraries` by
    version, and `source`: of each day's traces, by partition of the topic, the offset before which
    all were used (empty where the fit was not made from a topic). `incremental`: None for a full
    fit.
    """

    v: Literal[1] = 1
    task: TaskName
    window: WindowName
    encoder: Sha256
    labels: tuple[Label, ...]
    stages: Annotated[tuple[Stage, ...], Meta(min_length=1)]
    deferred_labels: tuple[Label, ...] = ()
    certificate: CertificateSummary
    frontier: tuple[FrontierPoint, ...]
    n_traces: Count
    traces_sha256: Sha256
    candidates: tuple[dict[str, Any], ...] = ()
    families: tuple[dict[str, Any], ...] = ()
    libraries: dict[str, str] = {}
    teacher: Teacher | None = None
    settings: FitSettings | None = None
    source: Source = {}
    incremental: Incremental | None = None

    @property
    def n_texts(self) -> int:
        """Of a request that may be answered: 1, or 2 for a task of pairs."""
        return 2 if any(stage.features == "pair_embedding" for stage in self.stages) else 1

    def encode(self) -> bytes:
        return msgspec.json.encode(self, order="deterministic")


def decode_manifest(data: bytes) -> Manifest:
    """Raises msgspec.DecodeError when `data` is not a manifest."""
    return msgspec.json.decode(data, type=Manifest)


def frontier_at(manifest: Manifest, alpha: float) -> FrontierPoint | None:
    """What the fit behind a version certifies at `alpha`: the nearest point that asks for no less,
    of the frontier or the certificate itself; None beyond their end."""
    own = manifest.certificate
    certified = FrontierPoint(
        alpha=own.alpha,
        coverage=own.coverage,
        agreement=own.agreement,
        agreement_lower=own.agreement_lower,
    )
    points = [point for point in (certified, *manifest.frontier) if point.alpha >= alpha - 1e-9]
    return min(points, key=lambda point: point.alpha, default=None)


def version_of(manifest: bytes, window: str) -> str:
    """A version's name: its window and the beginning of its manifest's SHA-256."""
    return f"{window}-{sha256(manifest)[:12]}"


def window_of(version: str) -> str:
    """The window a version was named after."""
    return version.rpartition("-")[0]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
