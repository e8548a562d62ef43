"""The built ONNX gives what sentence-transformers gave for the same sentences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shared.encoder.onnx_encoder import OnnxEncoder

HERE = Path(__file__).parent
MIN_COSINE = 0.9999


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    loaded: list[str] = json.loads((HERE / "golden.json").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    with np.load(HERE / "golden.npz") as golden:
        return np.asarray(golden["embeddings"])


def test_matches_sentence_transformers(built_now, sentences, expected):
    found = OnnxEncoder(built_now, threads=1).encode(sentences)
    cosines = (found * expected).sum(axis=1)
    worst = sentences[int(cosines.argmin())][:60]
    assert cosines.min() >= MIN_COSINE, f"{worst!r}: {cosines.min()}"
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_golden_sentences_reach_the_hard_cases(sentences, built_now):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(built_now / "tokenizer.json"))
    lengths = [len(tokenizer.encode(text).ids) for text in sentences]
    assert {2, 256, 257} <= set(lengths)  # empty, and both sides of the limit
    assert max(lengths) > 5_000
    assert len(sentences) >= 40
    assert (HERE / "golden.npz").stat().st_size < 100_000


def test_the_limit_is_256_tokens_not_the_128_in_the_tokenizer_file(built_now):
    encoder = OnnxEncoder(built_now, threads=1)
    inside, beyond = "word " * 150, "word " * 254
    texts = [inside, inside + "banana", beyond, beyond + "banana"]
    a, a_more, b, b_more = encoder.encode(texts)
    assert a @ a_more < 0.9999  # token 153 is read
    assert b @ b_more > 0.999999  # token 257 is not
