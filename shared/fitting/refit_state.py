"""What an incremental refit takes over from the last full one, as one file.

Its first line is the SHA-256 of the rest. No pickle: numbers, names and ONNX graphs. It is bounded:
five folds' cascades, each below twice STAGE_BYTES, and 33 bytes a row of a task's `max_rows`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.contracts.fit_settings import FitSettings
from shared.contracts.manifest import Source, Stage, Teacher, sha256
from shared.core.carried import HELD_OUT, UNKNOWN
from shared.core.grouping import skeleton
from shared.core.head import Head, Linear
from shared.core.stages import FOLDS, Tried
from shared.core.types import Ints
from shared.fitting.horizon import FeatureKind, Horizon

DIGEST_BYTES = 16
_SHA = 64


class InvalidState(ValueError):
    """The file is no state that can be used; the message says why."""


class HeadState(msgspec.Struct, frozen=True, kw_only=True):
    """A `Head`, its arrays as lists; of the acceptor and the novelty the intercept comes last."""

    mixture: list[float]
    reliability: list[float]
    acceptor: list[float]
    novelty: list[float]

    @classmethod
    def of(cls, head: Head) -> HeadState:
        return cls(
            mixture=head.mixture.tolist(),
            reliability=head.reliability.tolist(),
            acceptor=[*head.acceptor.coefficients.tolist(), head.acceptor.intercept],
            novelty=[*head.novelty.coefficients.tolist(), head.novelty.intercept],
        )

    def head(self) -> Head:
        return Head(
            mixture=np.asarray(self.mixture),
            reliability=np.asarray(self.reliability),
            acceptor=Linear(np.asarray(self.acceptor[:-1]), self.acceptor[-1]),
            novelty=Linear(np.asarray(self.novelty[:-1]), self.novelty[-1]),
        )


class StageState(msgspec.Struct, frozen=True, kw_only=True):
    """candidate: the chosen scorer's name. head: for all rows."""

    name: str
    candidate: str
    head: HeadState


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of the full fit, in order: digests of their ids and of what their near-duplicates
    have in common, DIGEST_BYTES each, and the fold of each as int8, HELD_OUT for none."""

    ids: bytes
    texts: bytes
    folds: bytes

    @classmethod
    def of(cls, horizon: Horizon, folds: Ints) -> Rows:
        return cls(
            ids=b"".join(_digests(horizon.ids)),
            texts=b"".join(_digests([skeleton(text) for text in horizon.texts])),
            folds=folds.astype(np.int8).tobytes(),
        )

    def __len__(self) -> int:
        return len(self.folds)

    def known(self, horizon: Horizon) -> NDArray[np.bool_]:
        """bool[n]: the traces that were rows of the full fit."""
        ids = set(_parts(self.ids))
        return np.asarray([one in ids for one in _digests(horizon.ids)], dtype=np.bool_)

    def folds_for(self, horizon: Horizon) -> Ints:
        """int64[n]: a known trace keeps its fold, a near-duplicate of one goes where that is.

        A text that was a large part of the traffic had rows in several folds, each one observation
        of its own: a new row of it is UNKNOWN, like one of a new text.
        """
        folds = np.frombuffer(self.folds, dtype=np.int8).tolist()
        by_id = dict(zip(_parts(self.ids), folds, strict=True))
        by_text: dict[bytes, int] = {}
        for text, fold in zip(_parts(self.texts), folds, strict=True):
            by_text[text] = fold if by_text.get(text, fold) == fold else UNKNOWN
        texts = _digests([skeleton(text) for text in horizon.texts])
        return np.asarray(
            [
                by_id.get(one, by_text.get(text, UNKNOWN))
                for one, text in zip(_digests(horizon.ids), texts, strict=True)
            ],
            dtype=np.int64,
        )


class State(msgspec.Struct, frozen=True, kw_only=True, tag="tracer-refit-state-1"):
    """since: the version of the full fit. window, source: as in its manifest. folds: by fold, the
    stages fitted without it, whose graphs are in `blobs` by SHA-256."""

    task: str
    since: str
    window: str
    source: Source
    settings: FitSettings
    encoder: str
    teacher: Teacher
    labels: tuple[str, ...]
    kind: FeatureKind
    libraries: dict[str, str]
    stages: tuple[StageState, ...]
    tried: tuple[Tried, ...]
    folds: tuple[tuple[Stage, ...], ...]
    blobs: dict[str, bytes]
    rows: Rows

    def encode(self) -> bytes:
        """The file. The same fit gives the same bytes."""
        data = msgspec.msgpack.encode(self, order="deterministic")
        return sha256(data).encode() + b"\n" + data

    @property
    def digest(self) -> str:
        """SHA-256 of what is stored, as the first line has it."""
        return sha256(msgspec.msgpack.encode(self, order="deterministic"))


def decode_state(data: bytes) -> State:
    """Raises InvalidState."""
    said, _, content = data.partition(b"\n")
    if len(said) != _SHA or sha256(content).encode() != said:
        raise InvalidState("it is damaged: its SHA-256 is another")
    try:
        state = msgspec.msgpack.decode(content, type=State)
    except msgspec.DecodeError as error:
        raise InvalidState(f"it was written by another release: {error}") from None
    n = len(state.rows)
    folds = np.frombuffer(state.rows.folds, dtype=np.int8)
    whole = len(state.rows.ids) == len(state.rows.texts) == n * DIGEST_BYTES
    if not whole or len(state.folds) != FOLDS or ((folds < HELD_OUT) | (folds >= FOLDS)).any():
        raise InvalidState("its rows or folds do not belong together")
    if any(stage.blob not in state.blobs for stages in state.folds for stage in stages):
        raise InvalidState("a fold's graph is missing")
    return state


def _digests(values: Sequence[str]) -> list[bytes]:
    return [
        hashlib.blake2b(
            value.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES
        ).digest()
        for value in values
    ]  # fmt: skip


def _parts(data: bytes) -> list[bytes]:
    return [data[i : i + DIGEST_BYTES] for i in range(0, len(data), DIGEST_BYTES)]
