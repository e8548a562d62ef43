from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from shared.encoder.artifact import EncoderFacts, read_encoder, write_encoder
from shared.encoder.base import Encoder
from shared.encoder.onnx_encoder import OnnxEncoder, padded
from shared.encoder.sentences import SENTENCES

ODD = [
    *("", " ", "\t\n", "\x00", "a\x00b", "😀", "👩‍👩‍👧‍👦", "e\u0301", "\u200b", "[PAD]", "[MASK]"),
    *("\ud800 lone surrogate", "x" * 32_768, "word " * 6_000, "\u202e reversed"),
]


@pytest.fixture(scope="module")
def encoder(encoder_folder: Path) -> OnnxEncoder:
    return OnnxEncoder(encoder_folder, threads=1)


def test_is_an_encoder(encoder: OnnxEncoder):
    port: Encoder = encoder
    assert (port.dim, len(port.digest)) == (384, 64)


def test_no_texts(encoder):
    found = encoder.encode([])
    assert (found.shape, found.dtype) == ((0, 384), np.float32)


@pytest.mark.parametrize("text", ODD, ids=lambda text: repr(text[:12]))
def test_every_text_has_a_unit_embedding(encoder, text):
    found = encoder.encode([text])
    assert np.isfinite(found).all()
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


def test_order_is_the_input_order(encoder):
    texts = ["a longer text about cards and their delivery times", "ok", "where is my card"]
    found = encoder.encode(texts)
    for row, text in zip(found, texts, strict=True):
        np.testing.assert_array_equal(row, encoder.encode([text])[0])


def test_an_embedding_does_not_depend_on_the_batch(encoder):
    texts = [*SENTENCES, *ODD]
    together = encoder.encode(texts)
    alone = np.vstack([encoder.encode([text]) for text in texts])
    rng = np.random.default_rng(0)
    shuffled = np.empty_like(together)
    order = rng.permutation(len(texts))
    for part in np.array_split(order, 7):
        shuffled[part] = encoder.encode([texts[row] for row in part])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, shuffled)


def test_threads_give_the_same_numbers(encoder, encoder_folder):
    two = OnnxEncoder(encoder_folder, threads=2).encode(SENTENCES)
    np.testing.assert_array_equal(two, encoder.encode(SENTENCES))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 2, 20])
def test_a_small_call_is_shared_by_all_threads(tiny_encoder, threads, n):
    encoder = OnnxEncoder(tiny_encoder, threads=threads)
    lengths = [15] * n
    plan = encoder._plan(lengths)
    assert sorted(row for batch in plan for row in batch) == list(range(n))
    assert len(plan) == (threads if n == 20 else 1)
    assert encoder.encode(["some words"] * n).shape == (n, encoder.dim)


def test_may_be_called_from_several_threads(encoder):
    expected = encoder.encode(SENTENCES[:20])
    found: list[np.ndarray] = []
    workers = [
        threading.Thread(target=lambda: found.append(encoder.encode(SENTENCES[:20])))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4
    for embeddings in found:
        np.testing.assert_array_equal(embeddings, expected)


def test_more_texts_than_are_tokenized_at_once(tiny_encoder, monkeypatch):
    monkeypatch.setattr("shared.encoder.onnx_encoder._TOKENIZE_AT_ONCE", 7)
    encoder = OnnxEncoder(tiny_encoder, threads=1)
    alone = np.vstack([encoder.encode([text]) for text in SENTENCES])
    np.testing.assert_array_equal(encoder.encode(SENTENCES), alone)


def test_long_texts_are_cut_into_word_pieces_a_few_at_a_time(tiny_encoder, monkeypatch):
    """Whole texts are cut before their beginning is kept: a thousand long ones took gigabytes."""
    pieces = OnnxEncoder(tiny_encoder, threads=1)._pieces
    texts = ["", "a " * 40, "b " * 500, "", "c " * 10, *SENTENCES]
    texts = [f"é{text}" for text in texts]  # which the tokenizer itself has to cut
    alone = [pieces.tokenize([text])[0] for text in texts]
    monkeypatch.setattr("shared.encoder.word_pieces._CHARS_AT_ONCE", 100)
    tokenizer, given = pieces._tokenizer, []

    class Watched:
        def encode_batch_fast(self, some, **how):
            given.append(some)
            return tokenizer.encode_batch_fast(some, **how)

    monkeypatch.setattr(pieces, "_tokenizer", Watched())
    assert pieces.tokenize(texts) == alone
    assert [text for some in given for text in some] == texts
    assert all(len(some) == 1 or sum(map(len, some)) <= 100 for some in given)
    assert len(given) > 3


def _unpacked(folder: Path, to: Path) -> Path:
    """The same model without the promise that filling makes no difference, as other exporters
    write it."""
    files = read_encoder(folder)
    model = onnx.load_model_from_string(files.model)
    del model.metadata_props[:]
    facts = {name: getattr(files.info, name) for name in EncoderFacts.__struct_fields__}
    model_bytes, facts = model.SerializeToString(), EncoderFacts(**facts)
    write_encoder(to, model=model_bytes, tokenizer=files.tokenizer, facts=facts)
    return to


@pytest.mark.parametrize("threads", [1, 3])
def test_packed_rows_are_batched_by_size_alone(tiny_encoder, threads):
    encoder = OnnxEncoder(tiny_encoder, threads=threads)
    lengths = np.random.default_rng(0).integers(2, 13, 500)
    plan = encoder._plan(lengths.tolist())
    assert sorted(row for batch in plan for row in batch) == list(range(500))
    assert len(plan) % threads == 0
    sizes = [sum(encoder._width(lengths[row]) for row in batch) for batch in plan]
    assert max(sizes) - min(sizes) <= 2 * 12
    assert len({encoder._width(lengths[row]) for batch in plan for row in batch}) == 3
    assert any(len({encoder._width(lengths[row]) for row in batch}) > 1 for batch in plan)


def test_a_few_long_rows_do_not_fill_up_many_short_ones(tiny_encoder):
    encoder = OnnxEncoder(tiny_encoder, threads=1, batch_tokens=1024)
    lengths = [3] * 90 + [600]
    for batch in encoder._plan(lengths):
        assert len(batch) * encoder._width(max(lengths[row] for row in batch)) <= 2 * 1024


@pytest.mark.parametrize("length", [2, 3, 5, 8, 21])
def test_what_a_packed_row_is_filled_up_to_makes_no_difference(encoder, length):
    """Wide rows of the same call, narrow ones and none: the same last bit."""
    row = encoder.tokenize(["word " * (length - 2)])[0]
    others = encoder.tokenize([*SENTENCES[:7], "word " * 90])
    alone = encoder._run([row])
    np.testing.assert_array_equal(encoder._run([row, *others])[:1], alone)
    np.testing.assert_array_equal(encoder._run([others[0], row])[1:], alone)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_has_rows_of_one_width_where_they_are_not_packed(tiny_encoder, tmp_path, threads):
    encoder = OnnxEncoder(_unpacked(tiny_encoder, tmp_path / "unpacked"), threads=threads)
    lengths = np.random.default_rng(0).integers(2, encoder.info.max_tokens + 1, 500).tolist()
    plan = encoder._plan(lengths)
    assert sorted(row for batch in plan for row in batch) == list(range(500))
    for batch in plan:
        assert len({encoder._width(lengths[row]) for row in batch}) == 1
    for length in lengths:
        assert length <= encoder._width(length) <= max(length, encoder.info.max_tokens)


def test_padding_is_masked():
    ids, mask = padded([[5, 6, 7], [8]], pad_id=9)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_needs_no_onnx_sklearn_or_torch(encoder_folder):
    """The router's image has none of them."""
    program = f"""
import sys
from pathlib import Path
blocked = {{"onnx", "sklearn", "scipy", "torch", "transformers", "sentence_transformers",
            "safetensors", "rich", "typer", "skl2onnx"}}
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"blocked: {{name}}")
sys.meta_path.insert(0, Block())
from shared.encoder.onnx_encoder import OnnxEncoder
import shared.encoder.cache
print(OnnxEncoder(Path({str(encoder_folder)!r}), threads=1).encode(["hello"]).shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert done.stdout.strip() == "(1, 384)", done.stderr
