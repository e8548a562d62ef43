from __future__ import annotations

import numpy as np

from shared.core.carried import HELD_OUT, UNKNOWN
from shared.core.head import Head, Linear
from shared.fitting.horizon import Horizon
from shared.fitting.refit_state import HeadState, Rows


def horizon(**texts: str) -> Horizon:
    return Horizon(
        inputs=[(text,) for text in texts.values()],
        teacher=["label"] * len(texts),
        evidence=np.ones(len(texts), np.bool_),
        ids=list(texts),
    )


def test_a_known_trace_keeps_its_fold_and_a_near_duplicate_follows_it() -> None:
    rows = Rows.of(horizon(a="Where is it?", b="Card 17 lost", c="Hello"), np.array([2, 4, 0]))
    now = horizon(x="something new", c="Hello", y="where is IT", z="card 23 lost!")
    assert rows.folds_for(now).tolist() == [UNKNOWN, 0, 2, 4]
    assert rows.known(now).tolist() == [False, True, False, False]


def test_what_was_held_out_stays_so_with_its_near_duplicates() -> None:
    rows = Rows.of(horizon(a="Where is it?"), np.array([HELD_OUT]))
    assert rows.folds_for(horizon(b="where is it", a="Where is it?")).tolist() == [HELD_OUT] * 2


def test_a_text_of_several_folds_decides_nothing_for_new_rows() -> None:
    """It was so large a part of the traffic that each of its rows was one of its own."""
    rows = Rows.of(horizon(a="hi", b="Hi!", c="hi..."), np.array([1, 3, 1]))
    assert rows.folds_for(horizon(c="hi...", d="hi", b="Hi!")).tolist() == [1, UNKNOWN, 3]


def test_a_head_comes_back_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    head = Head(
        mixture=rng.normal(size=2),
        reliability=rng.normal(size=5),
        acceptor=Linear(rng.normal(size=4), 1 / 3),
        novelty=Linear(rng.normal(size=8), -0.1),
    )
    again = HeadState.of(head).head()
    assert (again.mixture == head.mixture).all()
    assert (again.reliability == head.reliability).all()
    for one, two in ((again.acceptor, head.acceptor), (again.novelty, head.novelty)):
        assert (one.coefficients == two.coefficients).all()
        assert one.intercept == two.intercept
