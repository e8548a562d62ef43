from __future__ import annotations

import logging
import multiprocessing
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from shared.encoder.base import Matrix
from shared.encoder.cache import CachedEncoder, text_key
from shared.encoder.onnx_encoder import OnnxEncoder


class CountingEncoder:
    """Embeddings made of the text's hash; remembers what it was asked."""

    def __init__(self, digest: str = "a" * 64, dim: int = 384) -> None:
        self.digest = digest
        self.dim = dim
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> Matrix:
        self.calls.append(list(texts))
        seeds = [int.from_bytes(text_key(self.digest + text)[:4]) for text in texts]
        angles = np.outer(seeds, np.arange(1, self.dim + 1)) % 997 + 1
        return (angles / np.linalg.norm(angles, axis=1, keepdims=True)).astype(np.float32)

    @property
    def asked(self) -> list[str]:
        return [text for call in self.calls for text in call]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "embeddings.sqlite"


def test_a_text_is_encoded_once_across_restarts(path):
    texts = ["a", "b", "a", "", "\ud800", "b", "c\x00"]
    first, second = CountingEncoder(), CountingEncoder()
    with CachedEncoder(first, path) as cached:
        expected = first.encode(texts)
        first.calls.clear()
        np.testing.assert_array_equal(cached.encode(texts), expected)
        np.testing.assert_array_equal(cached.encode(texts[::-1]), expected[::-1])
    assert sorted(first.asked) == sorted(set(texts))
    with CachedEncoder(second, path) as cached:
        np.testing.assert_array_equal(cached.encode(texts), expected)
    assert second.asked == []


def test_no_texts(path):
    with CachedEncoder(CountingEncoder(), path) as cached:
        assert cached.encode([]).shape == (0, 384)


def test_another_encoder_has_its_own_rows(path):
    a, b = CountingEncoder(), CountingEncoder("b" * 64)
    with CachedEncoder(a, path) as cached_a, CachedEncoder(b, path) as cached_b:
        assert (cached_a.encode(["x"]) != cached_b.encode(["x"])).any()
        np.testing.assert_array_equal(cached_a.encode(["x"]), a.encode(["x"]))


def test_the_real_encoder_through_the_cache_gives_the_same_numbers(tiny_encoder, path):
    encoder = OnnxEncoder(tiny_encoder, threads=1)
    texts = ["one", "two two", "three three three"]
    for _ in range(2):
        with CachedEncoder(encoder, path) as cached:
            np.testing.assert_array_equal(cached.encode(texts), encoder.encode(texts))
            assert (cached.digest, cached.dim) == (encoder.digest, encoder.dim)


def test_ten_thousand_look_ups_within_a_second(path):
    texts = [f"text number {number}" for number in range(10_000)]
    encoder = CountingEncoder()
    with CachedEncoder(encoder, path) as cached:
        expected = cached.encode(texts)
        assert max(map(len, encoder.calls)) <= 2048  # memory, and work a crash would lose
        encoder.calls.clear()
        begun = time.process_time()  # other processes on this machine do not count
        found = cached.encode(texts)
        seconds = time.process_time() - begun
    np.testing.assert_array_equal(found, expected)
    assert encoder.asked == []
    assert seconds < 1


@pytest.mark.parametrize("damage", [b"not a database at all" * 100, b"", b"SQLite format 3\x00xx"])
def test_a_file_that_is_no_database(path, damage, caplog):
    path.write_bytes(damage)
    with caplog.at_level(logging.WARNING), CachedEncoder(CountingEncoder(), path) as cached:
        cached.encode(["a"])
    with CachedEncoder(again := CountingEncoder(), path) as cached:
        cached.encode(["a"])
    assert again.asked == []
    if damage:
        assert "is damaged" in caplog.text
        assert path.with_name(f"{path.name}.damaged-1").read_bytes() == damage


def test_damage_in_the_middle_is_found_in_use(path, caplog):
    texts = [f"text {number}" for number in range(3000)]
    with CachedEncoder(CountingEncoder(), path) as cached:
        expected = cached.encode(texts)
    data = bytearray(path.read_bytes())
    data[4096 * 4 : -4096 * 4] = b"\xaa" * (len(data) - 4096 * 8)
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING), CachedEncoder(CountingEncoder(), path) as cached:
        np.testing.assert_array_equal(cached.encode(texts), expected)
        np.testing.assert_array_equal(cached.encode(texts), expected)
    assert "is damaged" in caplog.text
    assert path.with_name(f"{path.name}.damaged-1").exists()


@pytest.mark.parametrize("blob", [b"", b"\x00" * 1536, b"\x7f" * 1536, b"\xff" * 1536])
def test_a_damaged_row_is_encoded_again(path, blob):
    with CachedEncoder(CountingEncoder(), path) as cached:
        expected = cached.encode(["a"])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE embeddings SET vector = ?", (blob,))
    connection.close()
    for asked in (["a"], []):  # and remembered rightly then
        with CachedEncoder(encoder := CountingEncoder(), path) as cached:
            np.testing.assert_array_equal(cached.encode(["a"]), expected)
        assert encoder.asked == asked


def test_a_full_disk_costs_memory_not_the_embedding(path, caplog):
    encoder = CountingEncoder()
    with CachedEncoder(encoder, path) as cached:
        cached._connection.execute("PRAGMA max_page_count = 1")
        texts = [f"text {number}" for number in range(200)]
        with caplog.at_level(logging.WARNING):
            np.testing.assert_array_equal(cached.encode(texts), encoder.encode(texts))
    assert "are not remembered" in caplog.text
    assert not list(path.parent.glob("*.damaged-*"))


def test_two_processes_share_the_file(path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_use, args=(path, seed, results)) for seed in range(2)]
    for worker in workers:
        worker.start()
    outcomes = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert outcomes == ["equal", "equal"]
    with CachedEncoder(encoder := CountingEncoder(), path) as cached:
        cached.encode([f"text {number}" for number in range(600)])
    assert encoder.asked == []


def _use(path: Path, seed: int, results: multiprocessing.Queue) -> None:
    encoder = CountingEncoder()
    order = np.random.default_rng(seed).permutation(600).tolist()
    with CachedEncoder(encoder, path) as cached:
        for start in range(0, 600, 20):
            texts = [f"text {number}" for number in order[start : start + 20]]
            if not np.array_equal(cached.encode(texts), encoder.encode(texts)):
                results.put("different")
                return
    results.put("equal")
