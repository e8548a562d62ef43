"""The cascade of a version as it is served: stage after stage, each on what is left over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from shared.batching import Rows, batches, filled
from shared.contracts.manifest import Manifest
from shared.onnx.session import UNASKED, InvalidStage, Scored, StageSession

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
Part = TypeVar("Part")


class Answers(NamedTuple):
    """What the cascade makes of n rows.

    stage: int64[n], the stage that answered or -1. label: int64[n], its label, or the last
    stage's. accept, threshold: float32[n] and float64[n], of the stage that answered, or of the
    last. novel, dropped: bool[n], deferred because the last stage saw something unlike its traffic,
    or a label that is deferred whole.
    """

    stage: NDArray[np.int64]
    label: NDArray[np.int64]
    accept: NDArray[np.float32]
    threshold: NDArray[np.float64]
    novel: NDArray[np.bool_]
    dropped: NDArray[np.bool_]


_NOTHING = Answers(
    *(np.empty(0, kind) for kind in (np.int64, np.int64, np.float32, float, np.bool_, np.bool_))
)


class _Found(NamedTuple):
    """As in `Answers`."""

    stage: NDArray[np.int64]
    label: NDArray[np.int64]
    accept: NDArray[np.float32]
    novel: NDArray[np.bool_]
    dropped: NDArray[np.bool_]


class CascadeSession:
    """A version's stages, loaded. Raises InvalidStage.

    `threads`: parts of a batch at a time.
    """

    def __init__(self, manifest: Manifest, blobs: Mapping[str, bytes], *, threads: int = 1) -> None:
        self.manifest = manifest
        if len(manifest.stages) > MAX_STAGES:
            raise InvalidStage(f"{len(manifest.stages)} stages, more than {MAX_STAGES}")
        self._threads = threads
        self.sessions = tuple(
            StageSession(blobs[stage.blob], stage, n_labels=len(manifest.labels))
            for stage in manifest.stages
        )
        names = [stage.name for stage in manifest.stages]
        for number, stage in enumerate(manifest.stages):
            if not set(stage.scores_of) <= set(names[:number]):
                raise InvalidStage(f"stage {stage.name} needs scores of {stage.scores_of}")
        deferred = set(manifest.deferred_labels)
        self._dropped = np.asarray([label in deferred for label in manifest.labels])
        self._drops = bool(self._dropped.any())
        self._thresholds = np.asarray([stage.threshold for stage in manifest.stages])
        # As the graphs' outputs are, so that every comparison is the cheapest.
        self._limits = [
            (np.float32(stage.threshold), np.float32(stage.novelty_cut))
            for stage in manifest.stages
        ]
        self._asked = {name for stage in manifest.stages for name in stage.scores_of}

    def answer(self, n: int, tokens: Rows | None, features: Features) -> Answers:
        """Of n rows. `features` gives float32[m, dim] of the rows asked for, which are those that
        the lexical stage leaves over; non-finite ones are never answered. Raises StageFailed."""
        if not n:
            return _NOTHING
        found: _Found | None = None
        left = np.arange(n)
        embedded: NDArray[np.float32] | None = None
        scores: dict[str, NDArray[np.float32]] = {}
        last = len(self.sessions) - 1
        for number, session in enumerate(self.sessions):
            name = session.stage.name
            asked = name in self._asked
            if session.stage.features == "token_ids":
                said = self._run_tokens(session, [(tokens or [])[i] for i in left.tolist()], asked)
            else:
                if embedded is None:
                    embedded = features(left)
                said = self._run_features(session, embedded, scores, asked)
            these = self._found(number, said)
            found = these if found is None else _overwritten(found, left, these)
            if number == last:
                break
            over = these.stage < 0
            if not over.any():
                break
            if asked:
                scores[name] = said.scores
            scores = {name: values[over] for name, values in scores.items()}
            embedded = None if embedded is None else embedded[over]
            left = left[over]
        assert found is not None  # a manifest has at least one stage
        # Stage -1 is nobody, and the last one's threshold.
        threshold = self._thresholds[found.stage]
        return Answers(
            found.stage, found.label, found.accept, threshold, found.novel, found.dropped
        )

    def _found(self, number: int, said: Scored) -> _Found:
        """What a stage says of the rows it was given, as if it were the last.

        For one row each call of NumPy's is a few µs, as ONNX Runtime has emptied the caches for
        its weights: few calls are made here. NaN is never at least a threshold."""
        threshold, cut = self._limits[number]
        able = said.accept >= threshold
        able &= said.novelty < cut
        dropped = np.zeros(len(able), np.bool_)
        if self._drops:
            dropped = self._dropped.take(said.label, mode="clip") & (said.novelty < cut)
            able &= ~dropped
        stage = np.where(able, number, -1)
        return _Found(stage, said.label, said.accept, said.novelty >= cut, dropped)

    def every_stage(
        self, tokens: Rows | None, features: NDArray[np.float32] | None
    ) -> list[Scored]:
        """All stages on all rows, whatever the ones before them say: what the gate looks at.
        Without `features` only those before the first stage that needs them."""
        scores: dict[str, NDArray[np.float32]] = {}
        said = []
        for session in self.sessions:
            if session.stage.features == "token_ids":
                said.append(self._run_tokens(session, tokens or [], True))
            elif features is None:
                break
            else:
                said.append(self._run_features(session, features, scores, True))
            scores[session.stage.name] = said[-1].scores
        return said

    def _run_features(
        self,
        session: StageSession,
        rows: NDArray[np.float32],
        scores: Mapping[str, NDArray[np.float32]],
        asked: bool,
    ) -> Scored:
        """In parts of BATCH_ROWS. `asked`: for its scores."""
        if len(rows) <= BATCH_ROWS:
            return session.run(rows, scores, asked=asked)

        def run(start: int) -> Scored:
            part = slice(start, start + BATCH_ROWS)
            earlier = {name: values[part] for name, values in scores.items()}
            return session.run(rows[part], earlier, asked=asked)

        parts = self._side_by_side(run, range(0, len(rows), BATCH_ROWS))
        return Scored(*map(np.concatenate, zip(*parts, strict=True)))

    def _run_tokens(self, session: StageSession, rows: Rows, asked: bool) -> Scored:
        """In batches of similar length, so that little is filled up. `asked`: for its scores."""
        n = len(rows)
        label, accept = np.empty(n, np.int64), np.empty(n, np.float32)
        novelty = np.empty(n, np.float32)
        scores = np.empty((n, session.n_labels), np.float32) if asked else UNASKED

        def run(batch: list[int]) -> Scored:
            return session.run(filled([rows[i] for i in batch], PADDING), asked=asked)

        plan = list(batches([len(row) for row in rows], BATCH_TOKENS))
        for batch, found in zip(plan, self._side_by_side(run, plan), strict=True):
            label[batch], accept[batch], novelty[batch] = found.label, found.accept, found.novelty
            if asked:
                scores[batch] = found.scores
        return Scored(label, accept, novelty, scores)

    def _side_by_side(
        self, run: Callable[[Part], Scored], parts: Sequence[Part]
    ) -> Iterable[Scored]:
        """In the order of `parts`, `threads` of them at a time."""
        if self._threads < 2 or len(parts) < 2:
            return map(run, parts)
        return _pool(self._threads).map(run, parts)


def _overwritten(earlier: _Found, rows: NDArray[np.int64], found: _Found) -> _Found:
    """`earlier` with what a later stage found of `rows`."""
    earlier.stage[rows], earlier.label[rows], earlier.accept[rows] = found[:3]
    earlier.novel[rows], earlier.dropped[rows] = found[3:]
    return earlier


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """One for all versions: threads that came and went with each would leave memory behind."""
    return ThreadPoolExecutor(threads, "stages")
