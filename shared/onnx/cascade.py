"""The cascade of a version as it is served: stage after stage, each on what is left over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.batching import Rows, batches, filled
from shared.contracts.manifest import Manifest
from shared.onnx.session import InvalidStage, Scored, StageSession

# Word pieces of one batch: bounds what the lexical graph holds at a time.
BATCH_TOKENS = 8_192
# Embeddings of one run: what the kernel makes of them (half a MB at 2,182 landmarks) stays in a
# core's cache. 64 to 128 are equally fast, 32 or 256 a tenth slower; and a batch of 256 is parts
# for every core.
BATCH_ROWS = 64
# Each has a session of its own, and the same blob may be named many times.
MAX_STAGES = 16
# Fills rows of word pieces to one length; no tokenizer gives it.
PADDING = -1

Features = Callable[[NDArray[np.int64]], NDArray[np.float32]]


class Answers(NamedTuple):
    """What the cascade makes of n rows.

    stage: int64[n], the stage that answered or -1. label: int64[n], its label, or the last
    stage's. accept, threshold: float64[n], of the stage that answered, or of the last. novel,
    dropped: bool[n], deferred because the last stage saw something unlike its traffic, or a label
    that is deferred whole.
    """

    stage: NDArray[np.int64]
    label: NDArray[np.int64]
    accept: NDArray[np.float64]
    threshold: NDArray[np.float64]
    novel: NDArray[np.bool_]
    dropped: NDArray[np.bool_]


_NOTHING = Answers(
    *(np.empty(0, kind) for kind in (np.int64, np.int64, float, float, np.bool_, np.bool_))
)


class CascadeSession:
    """A version's stages, loaded. Raises InvalidStage.

    `threads`: parts of a batch at a time, and threads of a part that is alone.
    """

    def __init__(self, manifest: Manifest, blobs: Mapping[str, bytes], *, threads: int = 1) -> None:
        self.manifest = manifest
        if len(manifest.stages) > MAX_STAGES:
            raise InvalidStage(f"{len(manifest.stages)} stages, more than {MAX_STAGES}")
        self._threads = threads
        self.sessions = tuple(
            StageSession(
                blobs[stage.blob], stage, n_labels=len(manifest.labels), threads=threads
            )
            for stage in manifest.stages
        )  # fmt: skip
        names = [stage.name for stage in manifest.stages]
        for number, stage in enumerate(manifest.stages):
            if not set(stage.scores_of) <= set(names[:number]):
                raise InvalidStage(f"stage {stage.name} needs scores of {stage.scores_of}")
        deferred = set(manifest.deferred_labels)
        self._dropped = np.asarray([label in deferred for label in manifest.labels])
        self._drops = bool(self._dropped.any())

    def answer(self, n: int, tokens: Rows | None, features: Features) -> Answers:
        """Of n rows. `features` gives float32[m, dim] of the rows asked for, which are those that
        the lexical stage leaves over; non-finite ones are never answered."""
        if not n:
            return _NOTHING
        answers: Answers | None = None
        left = np.arange(n)
        embedded: NDArray[np.float32] | None = None
        scores: dict[str, NDArray[np.float32]] = {}
        last = len(self.sessions) - 1
        for number, session in enumerate(self.sessions):
            if session.stage.features == "token_ids":
                said = _run_tokens(session, [(tokens or [])[i] for i in left.tolist()])
            else:
                if embedded is None:
                    embedded = features(left)
                said = self._run_features(session, embedded, scores)
            found = self._found(number, said)
            answers = found if answers is None else _overwritten(answers, left, found)
            if number == last:
                break
            over = found.stage < 0
            if not over.any():
                break
            scores[session.stage.name] = said.scores
            scores = {name: values[over] for name, values in scores.items()}
            embedded = None if embedded is None else embedded[over]
            left = left[over]
        assert answers is not None  # a manifest has at least one stage
        return answers

    def _found(self, number: int, said: Scored) -> Answers:
        """What a stage says of the rows it was given, as if it were the last."""
        stage = self.sessions[number].stage
        novel = said.novelty >= stage.novelty_cut
        known = ~novel
        able = (said.accept >= stage.threshold) & known & np.isfinite(said.accept)
        dropped = np.zeros(len(able), np.bool_)
        if self._drops:
            dropped = self._dropped[said.label] & known
            able &= ~dropped
        return Answers(
            stage=np.where(able, number, -1),
            label=said.label,
            accept=said.accept.astype(np.float64),
            threshold=np.full(len(able), stage.threshold),
            novel=novel,
            dropped=dropped,
        )

    def every_stage(
        self, tokens: Rows | None, features: NDArray[np.float32] | None
    ) -> list[Scored]:
        """All stages on all rows, whatever the ones before them say: what the gate looks at.
        Without `features` only those before the first stage that needs them."""
        scores: dict[str, NDArray[np.float32]] = {}
        said = []
        for session in self.sessions:
            if session.stage.features == "token_ids":
                said.append(_run_tokens(session, tokens or []))
            elif features is None:
                break
            else:
                said.append(self._run_features(session, features, scores))
            scores[session.stage.name] = said[-1].scores
        return said

    def _run_features(
        self,
        session: StageSession,
        rows: NDArray[np.float32],
        scores: Mapping[str, NDArray[np.float32]],
    ) -> Scored:
        """In parts of BATCH_ROWS, `threads` of them side by side."""
        if len(rows) <= BATCH_ROWS:
            return session.run(rows, scores)

        def run(start: int) -> Scored:
            part = slice(start, start + BATCH_ROWS)
            return session.run(rows[part], {name: values[part] for name, values in scores.items()})

        starts = range(0, len(rows), BATCH_ROWS)
        parts = map(run, starts) if self._threads < 2 else _pool(self._threads).map(run, starts)
        return Scored(*map(np.concatenate, zip(*parts, strict=True)))


def _overwritten(answers: Answers, rows: NDArray[np.int64], found: Answers) -> Answers:
    """`answers` with what a later stage found of `rows`."""
    for before, now in zip(answers, found, strict=True):
        before[rows] = now
    return answers


def _run_tokens(session: StageSession, rows: Rows) -> Scored:
    """In batches of similar length, so that little is filled up."""
    n = len(rows)
    n_labels = session.n_labels
    label, scores = np.empty(n, np.int64), np.empty((n, n_labels), np.float32)
    accept, novelty = np.empty(n, np.float32), np.empty(n, np.float32)
    for batch in batches([len(row) for row in rows], BATCH_TOKENS):
        found = session.run(filled([rows[i] for i in batch], PADDING))
        label[batch], accept[batch], novelty[batch], scores[batch] = found
    return Scored(label, accept, novelty, scores)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """One for all versions: threads that came and went with each would leave memory behind."""
    return ThreadPoolExecutor(threads, "stages")
