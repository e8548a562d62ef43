"""Word pieces are what the tokenizer alone gives, whichever way a text takes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from shared.encoder import plain_words
from shared.encoder.sentences import SENTENCES
from shared.encoder.word_pieces import WordPieces

MAX_TOKENS = 32
ASCII = st.text(st.characters(max_codepoint=127), max_size=80)
WORDS = st.lists(st.sampled_from(["card", "Card's", "a1b2", "[SEP]", "£5", "naïve", "\x00", "!?"]))
TEXTS = st.one_of(ASCII, st.text(max_size=40), WORDS.map(" ".join))
ODD = ["", " ", "\x7f", "a\x0bb", "[CLS]", "##ing", "İstanbul", "x" * 101, "x" * 65, "a " * 500]


def changed(tokenizer: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(tokenizer)
    change(document)
    return json.dumps(document).encode()


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], bool]] = {
    "as it is": (lambda document: None, True),
    "with case": (lambda document: document["normalizer"].update(lowercase=False), False),
    "no normalizer": (lambda document: document.update(normalizer=None), False),
    "other words": (lambda document: document.update(pre_tokenizer={"type": "Whitespace"}), False),
    "no ends": (lambda document: document.update(post_processor=None), False),
    "a word added": (
        lambda document: document["added_tokens"].append(
            document["added_tokens"][0] | {"id": 2_000_000, "content": "card"}
        ),
        False,
    ),
}


@pytest.fixture(scope="module")
def tokenizer(encoder_folder: Path) -> bytes:
    return (encoder_folder / "tokenizer.json").read_bytes()


@pytest.fixture(scope="module", params=CHANGES)
def both(tokenizer: bytes, request: pytest.FixtureRequest) -> tuple[WordPieces, Tokenizer]:
    change, plain = CHANGES[request.param]
    data = changed(tokenizer, change)
    alone = Tokenizer.from_buffer(data)
    assert plain_words.is_plain(alone, data) is plain
    alone.enable_truncation(MAX_TOKENS)
    return WordPieces(data, max_tokens=MAX_TOKENS, digest="d"), alone


def alone_says(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    return [one.ids for one in tokenizer.encode_batch(clean)]


@settings(deadline=None)
@given(texts=st.lists(TEXTS, max_size=6))
@example(texts=ODD)
@example(texts=SENTENCES[:50])
def test_same_as_the_tokenizer_alone(both: tuple[WordPieces, Tokenizer], texts: list[str]):
    pieces, alone = both
    assert pieces.tokenize(texts) == alone_says(alone, texts)


def test_every_ascii_character_between_words(both: tuple[WordPieces, Tokenizer]):
    pieces, alone = both
    texts = [f"my{chr(code)}card {chr(code)}" for code in range(128)]
    assert pieces.tokenize(texts) == alone_says(alone, texts)


def test_remembers_no_more_than_it_may(tokenizer: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plain_words, "_MOST_WORDS", 20)
    pieces = WordPieces(tokenizer, max_tokens=MAX_TOKENS, digest="d")
    alone = Tokenizer.from_buffer(tokenizer)
    for start in range(0, 300, 10):
        texts = [f"order{number} came" for number in range(start, start + 10)]
        assert pieces.tokenize(texts) == alone_says(alone, texts)
        assert pieces._plain is not None
        assert len(pieces._plain._known) <= 20
    pieces.tokenize(["y" * 1000])
    assert "y" * 1000 not in pieces._plain._known


def test_threads_share_the_memory(tokenizer: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plain_words, "_MOST_WORDS", 50)
    pieces = WordPieces(tokenizer, max_tokens=MAX_TOKENS, digest="d")
    alone = Tokenizer.from_buffer(tokenizer)
    wrong: list[str] = []

    def run(thread: int) -> None:
        for number in range(200):
            texts = [f"t{thread} n{number}", f"m{number % 7}", "where is my card"]
            if pieces.tokenize(texts) != alone_says(alone, texts):
                wrong.append(texts[0])

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong
