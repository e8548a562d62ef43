"""Every spelling of a label becomes the task's own."""

from __future__ import annotations

import pytest

from shared.contracts.tasks import Task, UnknownLabels
from shared.contracts.taxonomy import Taxonomy, UnknownLabel

LABELS = ("card_arrival", "Card Lost", "other", "naïve café", "ＡＢＣ")


def taxonomy(unknown: UnknownLabels = UnknownLabels.KEEP, *labels: str) -> Taxonomy:
    return Taxonomy(Task(name="bank", labels=labels or LABELS, unknown_labels=unknown))


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ("card_arrival", "card_arrival"),
        ("CARD_ARRIVAL", "card_arrival"),
        (" card_arrival\n", "card_arrival"),
        ("card arrival", "card_arrival"),
        ("Card-Arrival", "card_arrival"),
        ("card \u2013 arrival", "card_arrival"),
        ("card   lost", "Card Lost"),
        ("card_lost", "Card Lost"),
        ("NAI\u0308VE CAFE\u0301", "naïve café"),
        ("abc", "ＡＢＣ"),
        ("Other", "other"),
    ],
)
def test_spellings_of_a_known_label(given: str, known: str) -> None:
    assert taxonomy(UnknownLabels.DEAD_LETTER).normalise(given) == known


def test_an_exact_label_wins_over_a_folded_one() -> None:
    labels = taxonomy(UnknownLabels.KEEP, "refund", "Refund")
    assert labels.normalise("Refund") == "Refund"
    assert labels.normalise("refund") == "refund"
    assert labels.find("REFUND") is None, "which of the two is meant cannot be known"


def test_separators_are_alike_only_where_that_is_unambiguous() -> None:
    labels = taxonomy(UnknownLabels.KEEP, "re_order", "re-order", "pre order")
    assert labels.find("re order") is None
    assert labels.find("RE-ORDER") == "re-order", "folding alone still tells them apart"
    assert labels.find("pre-order") == "pre order"


def test_unknown_labels_by_policy() -> None:
    assert taxonomy(UnknownLabels.KEEP).normalise("Brand New") == "Brand New"
    assert taxonomy(UnknownLabels.OTHER).normalise("Brand New") == "other"
    with pytest.raises(UnknownLabel) as raised:
        taxonomy(UnknownLabels.DEAD_LETTER).normalise("card_arival")
    assert raised.value.nearest == "card_arrival"
    assert "'card_arival'" in str(raised.value)
    assert "'card_arrival'" in str(raised.value)
    assert "'bank'" in str(raised.value)


def test_an_unknown_label_near_nothing_has_no_hint_and_is_cut() -> None:
    with pytest.raises(UnknownLabel) as raised:
        taxonomy(UnknownLabels.DEAD_LETTER).normalise("zq" * 500)
    assert raised.value.nearest is None
    assert len(str(raised.value)) < 200


def test_without_labels_every_label_is_taken_as_it_is() -> None:
    free = Taxonomy(Task(name="free"))
    assert free.normalise(" As It Is ") == " As It Is "


@pytest.mark.parametrize("empty", ["", "  ", "_-_"])
def test_nothing_is_not_a_label(empty: str) -> None:
    assert taxonomy().find(empty) is None
