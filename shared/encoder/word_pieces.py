"""An encoder's tokenizer alone: all that the lexical stage needs of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer

from shared.encoder.artifact import read_tokenizer
from shared.encoder.plain_words import PlainWords, is_plain

# The tokenizer cuts a whole text before it keeps the beginning, and holds up to 130 bytes for a
# character meanwhile: of so many texts together, or of one that is longer.
_CHARS_AT_ONCE = 1 << 18


class WordPieces:
    """Cuts texts as the encoder it belongs to does. Safe to share between threads."""

    def __init__(self, tokenizer: bytes, *, max_tokens: int, digest: str) -> None:
        """tokenizer: the bytes of `tokenizer.json`; digest: of the encoder.

        `vocabulary`: all ids of word pieces are below it."""
        self.digest = digest
        self._tokenizer = Tokenizer.from_buffer(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._plain: PlainWords | None = None
        if is_plain(self._tokenizer, tokenizer):
            alone = partial(self._cut, add_special_tokens=False)
            first, last = self._tokenizer.encode("").ids
            self._plain = PlainWords(alone, (first, last), max_tokens)
        # Once: the tokenizer copies its vocabulary into Python, 15 ms in which no thread runs.
        self.vocabulary = 1 + max(self._tokenizer.get_vocab().values())

    @classmethod
    def read(cls, folder: Path) -> WordPieces:
        """Of an artifact whose `model.onnx` may be missing. Raises BrokenEncoder."""
        info, tokenizer = read_tokenizer(folder)
        return cls(tokenizer, max_tokens=info.max_tokens, digest=info.digest)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text's word pieces, special ones included, cut at the encoder's length."""
        if self._plain is None:
            return self._cut(texts)
        found = self._plain.tokenize(texts)
        others = [text for text, ids in zip(texts, found, strict=True) if ids is None]
        rest = iter(self._cut(others))
        return [next(rest) if ids is None else ids for ids in found]

    def _cut(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        # Lone surrogates, which JSON can carry, have no UTF-8; they become question marks.
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        return [
            encoding.ids
            for some in _parts(clean)
            for encoding in self._tokenizer.encode_batch_fast(
                some, add_special_tokens=add_special_tokens
            )
        ]


def _parts(texts: list[str]) -> Iterator[list[str]]:
    """In their order, of about _CHARS_AT_ONCE characters each."""
    if sum(map(len, texts)) <= _CHARS_AT_ONCE:  # as a rule
        yield texts
        return
    start = chars = 0
    for end, text in enumerate(texts):
        if chars + len(text) > _CHARS_AT_ONCE and end > start:
            yield texts[start:end]
            start, chars = end, 0
        chars += len(text)
    yield texts[start:]
