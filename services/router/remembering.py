"""Answers to texts that come again: a version says the same of the same text."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from services.router.serving import Version
from services.router.surrogate import Answer
from shared.encoder.base import Encoder
from shared.telemetry import metrics

# What an answer costs with its key and its place in the table, on 64-bit CPython; measured by
# tests/unit/router/test_router_remembering.py. Texts are not kept, only their hashes.
ENTRY_BYTES = 512


class Remembered:
    """The latest answers used, in at most `limit` bytes, for any number of versions and threads."""

    def __init__(self, limit: int) -> None:
        self.room = limit // ENTRY_BYTES
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._answers)

    def find(self, keys: Sequence[bytes]) -> list[Answer | None]:
        """In the order of the keys; None for what is not remembered."""
        with self._lock:
            found = [self._answers.get(key) for key in keys]
            for key, answer in zip(keys, found, strict=True):
                if answer is not None:
                    self._answers.move_to_end(key)
        hits = sum(answer is not None for answer in found)
        metrics.REMEMBERED.labels("hit").inc(hits)
        metrics.REMEMBERED.labels("miss").inc(len(found) - hits)
        return found

    def keep(self, keys: Sequence[bytes], answers: Sequence[Answer]) -> None:
        """The oldest are forgotten for them."""
        with self._lock:
            self._answers.update(zip(keys, answers, strict=True))
            while len(self._answers) > self.room:
                self._answers.popitem(last=False)


@dataclass(frozen=True)
class Remembering:
    """A version that is asked only for what it has not answered lately."""

    asked: Version
    remembered: Remembered

    @property
    def version(self) -> str:
        return self.asked.version

    @property
    def alpha(self) -> float:
        return self.asked.alpha

    def answer(self, inputs: Sequence[tuple[str, ...]], encoder: Encoder) -> list[Answer]:
        """As the version itself: one answer per input, in order."""
        keys = [_key(self.asked.version, texts) for texts in inputs]
        found = self.remembered.find(keys)
        # A text that is twice among them is asked once.
        unknown = {
            key: texts
            for key, texts, answer in zip(keys, inputs, found, strict=True)
            if answer is None
        }
        if not unknown:
            return [answer for answer in found if answer is not None]
        told = dict(zip(unknown, self.asked.answer(list(unknown.values()), encoder), strict=True))
        self.remembered.keep(list(told), list(told.values()))
        return [
            told[key] if answer is None else answer for key, answer in zip(keys, found, strict=True)
        ]


def _key(version: str, texts: Sequence[str]) -> bytes:
    """16 bytes of BLAKE2 over the version and each text with its length, so that a pair is not
    taken for another cut elsewhere, nor for one text."""
    digest = hashlib.blake2b(version.encode(), digest_size=16)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()
