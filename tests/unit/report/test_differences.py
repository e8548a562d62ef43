from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shared.core.report.clusters import clusters_of
from shared.core.report.differences import differences
from shared.core.slices import Slice, slices_of
from tests.doubles import HashEncoder
from tests.reports import COMMON, LABELS, WORDS, boundary

RISK = 0.05
N = 1_000


def traffic(n: int = N, seed: int = 0) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    labels = [LABELS[i % 3] for i in range(n)]
    texts = [
        " ".join([*rng.choice(WORDS[label].split(), 2), *rng.choice(COMMON, int(rng.integers(7)))])
        for label in labels
    ]
    return labels, texts


def all_slices(labels: list[str], texts: list[str]) -> list[Slice]:
    return [*slices_of(labels, texts), *clusters_of(texts, HashEncoder().encode(texts), seed=0)]


def test_pure_noise_shows_nothing_at_the_stated_rate() -> None:
    """300 worlds where what is handled and what agrees depend on nothing: at most one in twenty
    shows a slice."""
    slices = all_slices(*traffic())
    assert {one.kind for one in slices} == {"label", "length", "word", "cluster"}
    assert len(slices) > 50
    shown = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        some = boundary(rng.uniform(size=N) < 0.75, rng.uniform(size=N) < 0.93)
        shown += bool(differences(some, slices, risk=RISK).found)
    assert shown <= 0.05 * 300 + 2 * np.sqrt(0.05 * 0.95 * 300)


def test_noise_does_show_without_the_correction() -> None:
    """The simulation above can fail: at this risk, uncorrected, nearly every world shows one."""
    slices = all_slices(*traffic())
    shown = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        some = boundary(rng.uniform(size=N) < 0.75, rng.uniform(size=N) < 0.93)
        shown += any(differences(some, [one], risk=2 * RISK).found for one in slices)
    assert shown > 25


@pytest.mark.parametrize("kind", ["label", "length", "word", "cluster"])
@pytest.mark.parametrize("measure", ["coverage", "agreement"])
def test_a_planted_difference_is_found_and_named(kind: str, measure: str) -> None:
    labels, texts = traffic()
    rng = np.random.default_rng(1)
    if kind == "word":
        texts = [f"damaged goods {t}" if i % 12 == 0 else t for i, t in enumerate(texts)]
    slices = all_slices(labels, texts)
    planted = next(one for one in slices if one.kind == kind)
    if kind == "word":
        planted = next(one for one in slices if one.name == "damaged goods")
    odd = planted.rows
    handled = rng.uniform(size=N) < (np.where(odd, 0.4, 0.85) if measure == "coverage" else 0.85)
    agrees = rng.uniform(size=N) < (np.where(odd, 0.7, 0.97) if measure == "agreement" else 0.97)
    found = differences(boundary(handled, agrees), slices, risk=RISK).found
    first = found[0]
    assert first.measure == measure
    assert (first.slice.rows & odd).sum() > 0.7 * (first.slice.rows | odd).sum()
    assert first.share.lower <= first.share.share <= first.share.upper < first.average
    assert first.p_value < 0.001


def test_a_slice_that_does_better_is_found_too() -> None:
    rng = np.random.default_rng(2)
    good = np.arange(N) < 250
    some = boundary(rng.uniform(size=N) < np.where(good, 0.98, 0.6), np.ones(N, bool))
    (found,) = differences(some, [Slice("label", "good", good)], risk=RISK).found
    assert found.share.lower > found.average


def test_of_slices_of_the_same_rows_one_is_shown() -> None:
    rng = np.random.default_rng(3)
    odd = np.arange(N) < 200
    twin = odd.copy()
    twin[:5] = False
    some = boundary(rng.uniform(size=N) < np.where(odd, 0.3, 0.9), np.ones(N, bool))
    slices = [Slice("word", "invoice", odd), Slice("word", "invoice number", twin)]
    assert len(differences(some, slices, risk=RISK).found) == 1


def test_near_duplicates_count_once() -> None:
    odd = np.arange(N) < 100
    handled = ~odd | (np.arange(N) % 4 == 0)
    some = boundary(handled, np.ones(N, bool))
    copied = replace(some, groups=np.where(odd & ~handled, -1, np.arange(N)))
    one = [Slice("label", "odd", odd)]
    assert differences(some, one, risk=RISK).found
    assert not differences(copied, one, risk=RISK).found


def test_agreement_is_of_what_is_handled() -> None:
    odd = np.arange(N) < 100
    deferred = boundary(~odd, ~odd)
    assert [d.measure for d in differences(deferred, [Slice("label", "odd", odd)], risk=RISK).found
            ] == ["coverage"]  # fmt: skip


def test_nothing_handled_shows_nothing() -> None:
    some = boundary(np.zeros(N, bool), np.ones(N, bool))
    found = differences(some, [Slice("label", "odd", np.arange(N) < 100)], risk=RISK)
    assert found.found == []
    assert differences(some, [], risk=RISK).n_tested == 0


def test_clusters_are_called_by_their_own_words() -> None:
    labels, texts = traffic()
    found = clusters_of(texts, HashEncoder().encode(texts), seed=0)
    assert len(found) >= 3
    given = np.asarray(labels)
    for one in found:
        inside, counts = np.unique(given[one.rows], return_counts=True)
        label = inside[counts.argmax()]
        if counts.max() > 0.9 * counts.sum():
            assert set(one.name.split(", ")) & set(WORDS[label].split())
    again = clusters_of(texts, HashEncoder().encode(texts), seed=0)
    assert [one.name for one in again] == [one.name for one in found]


def test_few_rows_have_no_clusters() -> None:
    assert clusters_of(["a", "b"], np.eye(2, dtype=np.float32), seed=0) == []
    assert clusters_of([], np.empty((0, 3), np.float32), seed=0) == []
