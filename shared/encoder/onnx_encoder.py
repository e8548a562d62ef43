"""The encoder that trainer and router share: tokenizers in front of ONNX Runtime, nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from shared.batching import Rows, batches, filled, shares
from shared.encoder.artifact import PACKED, EncoderFiles, EncoderInfo, read_encoder
from shared.encoder.base import Matrix
from shared.encoder.errors import BrokenEncoder
from shared.encoder.threads import usable_threads
from shared.encoder.word_pieces import WordPieces

_INPUTS = ["input_ids", "attention_mask"]
_OUTPUT = "embedding"
# From 256 to 1024 float32 is equally fast, int8 with AVX2 a twentieth slower at 512 and more, which
# its caches do not hold; the more, the more memory attention takes.
MAX_BATCH_TOKENS = 384
_MIN_BATCH_TOKENS = 64  # less does not pay for waking a thread
_MOST_FILLED = 2  # times the word pieces of a batch, with its padding
# Rows are filled up to a multiple of this: a tenth faster than 8, in large calls and in small.
# Another value gives other last digits: count ENCODING up, so that no cache mixes them.
_WIDTH = 4
ENCODING = 3
_TOKENIZE_AT_ONCE = 4096  # bounds the memory that encodings take


class OnnxEncoder:
    """Embeddings of an encoder artifact on the CPU.

    A text's embedding does not depend, to the last bit, on the other texts of a call, on their
    order or on `threads`. A model whose rows are packed sees to that itself (`bert_onnx`). For
    others a row is filled up to a length that follows from its own, and batches are of one length.
    (Filled up to the longest of a batch, components differed by up to 4e-8, and so did the bytes
    of a refit.)
    `encode` may be called from several threads.
    """

    def __init__(
        self, folder: Path, *, threads: int | None = None, batch_tokens: int = MAX_BATCH_TOKENS
    ) -> None:
        """Raises BrokenEncoder unless the files are whole.

        `threads`: batches at a time; None takes what affinity and quota allow. `batch_tokens`:
        word pieces of one batch, of twice as many with its padding.
        """
        files = read_encoder(Path(folder))
        self._info = files.info
        self._batch_tokens = batch_tokens
        self._threads = max(1, threads if threads is not None else usable_threads())
        # Whole batches in parallel: two threads inside each product are a third slower.
        self._pool = ThreadPoolExecutor(self._threads, "encoder") if self._threads > 1 else None
        self._session = _session(files)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._packed = PACKED.items() <= metadata.items()
        self._pieces = WordPieces(
            files.tokenizer, max_tokens=files.info.max_tokens, digest=files.info.digest
        )

    @property
    def info(self) -> EncoderInfo:
        return self._info

    @property
    def digest(self) -> str:
        return self._info.digest

    @property
    def dim(self) -> int:
        return self._info.dim

    @property
    def vocabulary(self) -> int:
        return self._pieces.vocabulary

    def encode(self, texts: Sequence[str]) -> Matrix:
        """Unit-length embeddings, float32[len(texts), dim], in the order of `texts`.

        Texts beyond `max_tokens` tokens are cut there. Every text has an embedding, the empty
        one too.
        """
        embeddings = np.empty((len(texts), self.dim), np.float32)
        for start in range(0, len(texts), _TOKENIZE_AT_ONCE):
            some = texts[start : start + _TOKENIZE_AT_ONCE]
            embeddings[start : start + len(some)] = self.encode_tokens(self.tokenize(some))
        return embeddings

    def encode_tokens(self, rows: Sequence[Sequence[int]]) -> Matrix:
        """The same from what `tokenize` gave."""
        embeddings = np.empty((len(rows), self.dim), np.float32)
        plan = self._plan([len(row) for row in rows])
        inputs = [[rows[position] for position in batch] for batch in plan]
        found = self._pool.map(self._run, inputs) if self._pool else map(self._run, inputs)
        for batch, vectors in zip(plan, found, strict=True):
            embeddings[batch] = vectors
        return embeddings

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text's word pieces, special ones included, cut at `max_tokens`."""
        return self._pieces.tokenize(texts)

    def _plan(self, lengths: list[int]) -> list[list[int]]:
        """Batches that keep every thread busy for as long; the widest first, to end together."""
        widths = [self._width(length) for length in lengths]
        rounds = -(-sum(widths) // (self._batch_tokens * self._threads))
        parts = max(1, min(rounds * self._threads, -(-sum(widths) // _MIN_BATCH_TOKENS)))
        plan = [batch for part in shares(widths, parts) for batch in self._bounded(part, widths)]
        if not self._packed:
            grouped = (groupby(batch, key=widths.__getitem__) for batch in plan)
            plan = [list(batch) for groups in grouped for _, batch in groups]
        return plan[::-1]

    def _bounded(self, part: list[int], widths: list[int]) -> Iterator[list[int]]:
        """A few long rows among short ones would fill up far more than there is."""
        for batch in batches([widths[row] for row in part], _MOST_FILLED * self._batch_tokens):
            yield [part[position] for position in batch]

    def _width(self, length: int) -> int:
        """What a row of `length` word pieces is filled up to."""
        wide = max(_WIDTH, -(-length // _WIDTH) * _WIDTH)
        return wide if self._packed else max(length, min(wide, self._info.max_tokens))

    def _run(self, rows: Sequence[Sequence[int]]) -> Matrix:
        ids, mask = padded(rows, self._info.pad_id, self._width(max(map(len, rows))))
        inputs = dict(zip(_INPUTS, (ids, mask), strict=True))
        embeddings: Matrix = self._session.run([_OUTPUT], inputs)[0]
        return embeddings


def padded(rows: Rows, pad_id: int, width: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and attention mask, int64[len(rows), longest row, at least `width`]."""
    ids = filled(rows, pad_id, width)
    lengths = np.asarray([len(row) for row in rows])
    return ids, (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)


def _session(files: EncoderFiles) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the calling thread; batches run side by side
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # From bytes, because those were verified, and external data is refused then.
    session = onnxruntime.InferenceSession(files.model, options, providers=["CPUExecutionProvider"])
    inputs = sorted(value.name for value in session.get_inputs())
    outputs = {value.name: value.shape for value in session.get_outputs()}
    if inputs != sorted(_INPUTS) or outputs.get(_OUTPUT, [None])[-1] != files.info.dim:
        raise BrokenEncoder(f"model.onnx has inputs {inputs} and outputs {outputs}")
    return session
