from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from shared.core.slices import (
    MINIMUM_ROWS,
    BadSlice,
    Slice,
    benjamini_hochberg,
    slices_of,
    worse_than_average,
)

WORDS = [
    "parcel", "invoice", "login", "refund", "courier",
    "card", "password", "email", "late", "address",
]  # fmt: skip


def traffic(n: int, seed: int) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    labels = [f"label-{i % 12}" for i in range(n)]
    return labels, [" ".join(rng.choice(WORDS, rng.integers(2, 9))) for _ in range(n)]


def worst(labels: list[str], texts: list[str], agrees: np.ndarray) -> list[BadSlice]:
    n = len(labels)
    return worse_than_average(slices_of(labels, texts), agrees, np.ones(n), np.arange(n), risk=0.05)


@pytest.mark.parametrize("kind", ["label", "length", "word"])
def test_a_planted_bad_slice_is_found(kind: str) -> None:
    labels, texts = traffic(1_500, seed=1)
    if kind == "word":
        texts = [f"{text} damaged" if i % 19 == 0 else text for i, text in enumerate(texts)]
    bad = {
        "label": np.asarray([label == "label-7" for label in labels]),
        "length": np.asarray([len(text) for text in texts])
        > np.quantile(list(map(len, texts)), 2 / 3),
        "word": np.asarray(["damaged" in text for text in texts]),
    }[kind]
    wrong = np.random.default_rng(2).uniform(size=1_500) < np.where(bad, 0.25, 0.02)
    found = worst(labels, texts, ~wrong)
    first = found[0]
    assert first.kind == kind
    assert first.p_value < 0.001
    assert first.lower < first.agreement < first.upper < 0.95
    if kind != "length":
        assert first.name == {"label": "label-7", "word": "damaged"}[kind]
        assert first.n == bad.sum()
        assert first.agreement == pytest.approx((~wrong)[bad].mean())


def test_noise_is_not_found() -> None:
    """In 200 worlds without any bad slice at most one in twenty lists one."""
    labels, texts = traffic(800, seed=3)
    listed = sum(
        bool(worst(labels, texts, np.random.default_rng(seed).uniform(size=800) > 0.05))
        for seed in range(200)
    )
    assert listed <= 16  # 10 and two standard errors


def test_one_wrong_text_many_times_over_is_no_slice() -> None:
    labels, _texts = traffic(400, seed=4)
    agrees = np.random.default_rng(5).uniform(size=400) > 0.03
    groups = np.arange(400)
    copied = np.asarray([label == "label-3" for label in labels])
    groups[copied] = -1
    agrees = agrees & ~copied
    slices = [Slice("label", "label-3", copied)]
    ones = np.ones(400)
    assert worse_than_average(slices, agrees, ones, np.arange(400), risk=0.05)
    assert worse_than_average(slices, agrees, ones, groups, risk=0.05) == []


def test_slices_are_of_enough_rows_and_no_word_of_most_texts() -> None:
    labels, texts = traffic(300, seed=6)
    labels[0] = "rare"
    texts = [f"please {text}" for text in texts]
    found = slices_of(labels, texts)
    assert all(one.rows.sum() >= MINIMUM_ROWS for one in found)
    assert "rare" not in {one.name for one in found}
    assert "please" not in {one.name for one in found}
    names = {one.name for one in found if one.kind == "word"}
    assert {name for name in names if " " not in name} <= set(WORDS)
    assert all(any(name in text for text in texts) for name in names)
    lengths = [one.rows for one in found if one.kind == "length"]
    assert np.sum(lengths, axis=0).tolist() == [1] * 300


def test_nothing_handled_has_no_slices() -> None:
    assert slices_of([], []) == []
    empty = np.empty(0)
    assert worse_than_average([], empty.astype(bool), empty, empty.astype(int), risk=0.05) == []


def test_p_values_are_corrected_for_their_number() -> None:
    """Against scipy's, on ties and all."""
    for seed in range(20):
        p_values = np.random.default_rng(seed).uniform(size=30).round(1)
        expected = false_discovery_control(p_values, method="bh")
        assert benjamini_hochberg(p_values) == pytest.approx(expected)
