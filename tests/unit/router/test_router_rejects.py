"""Whatever is wrong with a version: announced, counted, and the one in use stays in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import onnx
import pytest
from doubles import HashEncoder
from surrogates import make_surrogate, text_of

from services.router import surrogate
from services.router.announcing import Announcer
from services.router.loading import Loading
from services.router.models import Models
from shared.bus.base import Record
from shared.bus.errors import Fatal, Retryable
from shared.clock import FakeClock
from shared.contracts.codec import decode
from shared.contracts.events import AnnouncementKind, ModelAnnouncement, Reason
from shared.contracts.manifest import sha256
from shared.registry.base import Artifact
from shared.registry.disk import DiskCopy
from shared.registry.memory import MemoryRegistry
from shared.telemetry import metrics

AT = datetime(2026, 1, 5, tzinfo=UTC)


class Heard:
    """A publisher that keeps what it is given, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.records: list[Record] = []
        self.closed = 0
        self._error = error

    def publish(self, records: Sequence[Record]) -> None:
        if self._error is not None:
            raise self._error
        self.records += records

    def close(self) -> None:
        self.closed += 1

    @property
    def announced(self) -> list[ModelAnnouncement]:
        return [decode(record.value, ModelAnnouncement) for record in self.records]


@pytest.fixture(scope="module")
def good(encoder: HashEncoder) -> Artifact:
    return make_surrogate(encoder)


def with_stage(artifact: Artifact, blob: bytes | None = None, **changed: object) -> Artifact:
    """The artifact with its last stage changed, consistent in itself."""
    manifest = artifact.manifest
    last = manifest.stages[-1]
    blobs = dict(artifact.blobs)
    if blob is not None:
        del blobs[last.blob]
        changed |= {"blob": sha256(blob), "bytes": len(blob)}
        blobs[sha256(blob)] = blob
    stages = (*manifest.stages[:-1], msgspec.structs.replace(last, **changed))
    manifest = msgspec.structs.replace(manifest, stages=stages, window="2026-01-06")
    return Artifact(manifest.encode(), blobs)


def wrong_encoder(good: Artifact) -> Artifact:
    return make_surrogate(HashEncoder(digest="f" * 64), window="2026-01-06")


def wrong_shape(good: Artifact) -> Artifact:
    return with_stage(good, dim=good.manifest.stages[-1].dim + 1)


def wrong_labels(good: Artifact) -> Artifact:
    manifest = msgspec.structs.replace(
        good.manifest, labels=(*good.manifest.labels, "more"), window="2026-01-06"
    )
    return replace(good, manifest_bytes=manifest.encode())


def unknown_operator(good: Artifact) -> Artifact:
    model = onnx.load_model_from_string(good.blobs[good.manifest.stages[-1].blob])
    model.graph.node[0].op_type = "NoSuchOperator"
    return with_stage(good, model.SerializeToString())


def no_graph(good: Artifact) -> Artifact:
    return with_stage(good, b"junk")


def router(encoder: HashEncoder, registry: MemoryRegistry, folder: Path, heard: Heard) -> Models:
    announcer = Announcer(lambda: heard, topic="models", instance="r1", clock=FakeClock(AT))
    return Models(
        tasks=["support"], registry=registry, copies=DiskCopy(folder),
        loading=Loading(encoder, threads=1), rejected=announcer.rejected,
    )  # fmt: skip


def publish(registry: MemoryRegistry, artifact: Artifact) -> str:
    fence = registry.acquire("support")
    registry.publish(artifact, fence=fence, at=AT, reason="test")
    return artifact.version


def rejected() -> float:
    count: float = metrics.REJECTED_ARTIFACTS.labels("support")._value.get()
    return count


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (wrong_encoder, "made for encoder ffffffffffff"),
        (wrong_shape, "features, not"),
        (wrong_labels, "labels, not 4"),
        (unknown_operator, "NoSuchOperator"),
        (no_graph, "semantic"),
    ],
)
def test_a_bad_version_is_announced_once_and_the_old_one_serves(
    encoder: HashEncoder, good: Artifact, tmp_path: Path,
    spoil: Callable[[Artifact], Artifact], says: str,
) -> None:  # fmt: skip
    registry, heard = MemoryRegistry(), Heard()
    models = router(encoder, registry, tmp_path, heard)
    first = publish(registry, good)
    models.refresh()
    before = rejected()
    bad = publish(registry, spoil(good))
    models.refresh()
    models.refresh()
    assert rejected() == before + 1
    (told,) = heard.announced
    assert (told.kind, told.version, told.task) == (AnnouncementKind.REJECTED, bad, "support")
    assert told.reason.startswith("router r1: ")
    assert says in told.reason
    assert heard.closed == 1
    version = models.snapshot()["support"].version
    assert version is not None
    assert version.version == first
    assert version.answer([(text_of("billing"),)], encoder)[0].reason is Reason.CERTIFIED
    # And a good one after it is swapped in.
    later = publish(registry, make_surrogate(encoder, window="2026-01-07"))
    models.refresh()
    version = models.snapshot()["support"].version
    assert version is not None
    assert version.version == later


def test_too_large_is_refused_before_it_is_loaded(
    encoder: HashEncoder, good: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, heard = MemoryRegistry(), Heard()
    models = router(encoder, registry, tmp_path, heard)
    monkeypatch.setattr(surrogate, "MAX_STAGE_BYTES", 10)
    publish(registry, good)
    models.refresh()
    assert models.snapshot() == {}
    assert "bytes, too many" in heard.announced[0].reason


def test_a_flipped_byte_is_announced(encoder: HashEncoder, good: Artifact, tmp_path: Path) -> None:
    registry, heard = MemoryRegistry(), Heard()
    models = router(encoder, registry, tmp_path, heard)
    version = publish(registry, good)
    name = good.manifest.stages[-1].blob
    flipped = bytes([good.blobs[name][0] ^ 1]) + good.blobs[name][1:]
    spoiled = replace(good, blobs={**good.blobs, name: flipped})

    def load(task: str, asked: str) -> Artifact:
        spoiled.verify(asked)
        return spoiled

    registry.load = load  # type: ignore[method-assign]
    models.refresh()
    assert models.snapshot() == {}
    assert heard.announced[0].version == version
    assert "not the one published" in heard.announced[0].reason


@pytest.mark.parametrize("error", [Retryable("broker away"), Fatal("not allowed")])
def test_serving_goes_on_when_it_cannot_be_announced(
    encoder: HashEncoder, good: Artifact, tmp_path: Path, error: Exception
) -> None:
    registry, heard = MemoryRegistry(), Heard(error)
    models = router(encoder, registry, tmp_path, heard)
    first = publish(registry, good)
    models.refresh()
    publish(registry, wrong_encoder(good))
    models.refresh()
    version = models.snapshot()["support"].version
    assert version is not None
    assert version.version == first
    assert (heard.records, heard.closed) == ([], 1)
