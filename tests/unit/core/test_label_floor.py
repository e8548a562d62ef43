from __future__ import annotations

import numpy as np

from shared.core.cascade import Outputs
from shared.core.label_floor import MINIMUM_ANSWERS, failing_labels
from shared.core.policies import Evidence

N = 100


def failing(
    agrees: np.ndarray, *, groups: np.ndarray | None = None, weights: np.ndarray | None = None
) -> tuple[int, ...]:
    """Of rows that are all answered with label 3."""
    n = len(agrees)
    outputs = Outputs(np.full((n, 1), 3), np.ones((n, 1)), np.zeros((n, 1), bool))
    evidence = Evidence(
        np.ones(n),
        agrees,
        np.arange(n) if groups is None else groups,
        np.ones(n) if weights is None else weights,
        "crossfit",
    )
    return failing_labels(outputs, evidence, np.zeros(n, int), 0.9)


def test_a_label_that_agrees_too_little_fails() -> None:
    assert failing(np.arange(N) >= 11) == (3,)
    assert failing(np.arange(N) >= 10) == ()


def test_few_answers_are_no_evidence() -> None:
    assert failing(np.zeros(MINIMUM_ANSWERS, bool)) == (3,)
    assert failing(np.zeros(MINIMUM_ANSWERS - 1, bool)) == ()


def test_near_duplicates_count_once() -> None:
    """One text that is wrong sixty times condemns no label, one that is right saves none."""
    groups = np.minimum(np.arange(N), 40)
    assert failing(np.arange(N) < 40, groups=groups) == ()
    assert failing(np.arange(N) >= 40) == (3,)
    right = (np.arange(N) >= 40) | (np.arange(N) % 2 == 0)
    assert right.mean() >= 0.8
    assert failing(right, groups=groups) == (3,)
    assert failing(np.zeros(N, bool), groups=np.arange(N) % (MINIMUM_ANSWERS - 1)) == ()


def test_rows_that_stand_for_others_weigh_more() -> None:
    agrees = np.arange(N) >= 5
    assert failing(agrees) == ()
    assert failing(agrees, weights=np.where(agrees, 1.0, 4.0)) == (3,)
    heavy = np.where(np.arange(N) < 2, 1_000.0, 1.0)  # in truth two rows
    assert failing(agrees, weights=heavy) == ()


def test_rows_that_nobody_answers_do_not_count() -> None:
    outputs = Outputs(np.zeros((N, 1), int), np.ones((N, 1)), np.zeros((N, 1), bool))
    evidence = Evidence(np.ones(N), np.zeros(N, bool), np.arange(N), np.ones(N), "crossfit")
    stage = np.where(np.arange(N) < MINIMUM_ANSWERS - 1, 0, -1)
    assert failing_labels(outputs, evidence, stage, 0.9) == ()
    stage[-1] = 0
    assert failing_labels(outputs, evidence, stage, 0.9) == (0,)
