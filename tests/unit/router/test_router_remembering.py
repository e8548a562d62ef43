from __future__ import annotations

import random
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from doubles import HashEncoder
from hypothesis import given
from hypothesis import strategies as st
from surrogates import LABELS, text_of

from services.router.remembering import ENTRY_BYTES, Remembered, Remembering
from services.router.surrogate import Answer, load_version
from shared.contracts.events import Reason
from shared.encoder.base import Encoder
from shared.registry.base import Artifact
from shared.telemetry import metrics

PLENTY = 10_000_000
WORDS = " ".join(text_of(label) for label in LABELS).split()


class Counting:
    """A version that says how often it was asked what, with an answer of its own to each."""

    alpha = 0.9

    def __init__(self, version: str = "v1") -> None:
        self.version = version
        self.asked: list[tuple[str, ...]] = []

    def answer(self, inputs: Sequence[tuple[str, ...]], encoder: Encoder) -> list[Answer]:
        self.asked += inputs
        return [Answer(Reason.CERTIFIED, f"{self.version}:{'|'.join(i)}", 0.9, 0.5) for i in inputs]


@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)),
    room=st.integers(0, 6),
    cut=st.integers(1, 5),
)
def test_decisions_are_the_same_with_and_without(
    encoder: HashEncoder, artifact: Artifact, texts: list[str], room: int, cut: int
) -> None:
    """Repeats, evictions and batches of any size change nothing."""
    plain = load_version("v1", artifact, encoder, threads=1)
    remembering = Remembering(plain, Remembered(room * ENTRY_BYTES))
    inputs = [(text,) for text in texts]
    for start in range(0, len(inputs), cut):
        some = inputs[start : start + cut]
        expected = plain.answer(some, encoder)
        for found, wanted in zip(remembering.answer(some, encoder), expected, strict=True):
            assert (found.reason, found.label) == (wanted.reason, wanted.label)
            assert found.accept_score == pytest.approx(wanted.accept_score, abs=1e-6)
            assert found.threshold == wanted.threshold


def test_a_text_is_asked_once_also_within_a_batch(encoder: HashEncoder) -> None:
    version = Counting()
    remembering = Remembering(version, Remembered(PLENTY))
    answers = remembering.answer([("a",), ("b",), ("a",)], encoder)
    assert [answer.label for answer in answers] == ["v1:a", "v1:b", "v1:a"]
    assert remembering.answer([("b",), ("c",)], encoder)[1].label == "v1:c"
    assert version.asked == [("a",), ("b",), ("c",)]


def test_versions_and_cuts_are_told_apart(encoder: HashEncoder) -> None:
    remembered = Remembered(PLENTY)
    one, two = Counting("v1"), Counting("v2")
    inputs: list[tuple[str, ...]] = [("ab",), ("a", "b"), ("b", "a"), ("", "ab"), ("\ud800",)]
    for version in (one, two):
        answers = Remembering(version, remembered).answer(inputs, encoder)
        assert [a.label for a in answers] == [f"{version.version}:{'|'.join(i)}" for i in inputs]
    assert one.asked == two.asked == inputs


def test_the_least_recently_used_is_forgotten(encoder: HashEncoder) -> None:
    version = Counting()
    remembering = Remembering(version, Remembered(2 * ENTRY_BYTES))
    for text in ("a", "b", "a", "c", "a", "b"):
        remembering.answer([(text,)], encoder)
    assert version.asked == [("a",), ("b",), ("c",), ("b",)]
    assert len(remembering.remembered) == 2


def test_it_stays_within_its_bytes(encoder: HashEncoder) -> None:
    limit = 2_000_000
    remembering = Remembering(_Plain(), Remembered(limit))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for start in range(0, 10_000, 100):
        remembering.answer([(f"{i} {'x' * 1_000}",) for i in range(start, start + 100)], encoder)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(remembering.remembered) == limit // ENTRY_BYTES
    assert limit / 3 < used <= limit


def test_lookups_are_counted(encoder: HashEncoder) -> None:
    before = {result: _count(result) for result in ("hit", "miss")}
    remembering = Remembering(Counting(), Remembered(PLENTY))
    remembering.answer([("a",), ("b",)], encoder)
    remembering.answer([("a",), ("c",)], encoder)
    assert _count("hit") - before["hit"] == 1
    assert _count("miss") - before["miss"] == 3


def test_many_threads_get_their_own_answers(encoder: HashEncoder) -> None:
    remembering = Remembering(Counting(), Remembered(20 * ENTRY_BYTES))

    def ask(seed: int) -> bool:
        texts = [str(random.Random(seed).randrange(40)) for _ in range(300)]
        return all(
            remembering.answer([(text,)], encoder)[0].label == f"v1:{text}" for text in texts
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(8)))


class _Plain:
    """Answers with numbers of their own; their label is shared, as a manifest's are."""

    version, alpha = "v1", 0.9

    def answer(self, inputs: Sequence[tuple[str, ...]], encoder: Encoder) -> list[Answer]:
        return [Answer(Reason.CERTIFIED, "label", random.random(), random.random()) for _ in inputs]


def _count(result: str) -> float:
    return metrics.REMEMBERED.labels(result)._value.get()
