from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from shared.core.cascade import in_numpy
from shared.core.fit import Settings, fit
from shared.core.gate import Certified, Refused
from shared.core.policies import answers
from shared.core.report.boundary import boundary_of
from shared.core.report.confusions import confusions
from shared.core.report.pairs import boundary_pairs
from shared.core.report.reasons import (
    AMBIGUOUS_ODDS,
    FEW_TRACES,
    REASONS,
    contradicted,
    reasons_of,
    torn_between,
)
from tests.reports import boundary, trained


@pytest.mark.parametrize("evidence", ["crossfit", "holdout"])
def test_the_boundary_is_the_certificates(evidence: str) -> None:
    _, training, fitted = trained(evidence=evidence)
    found = boundary_of(fitted, training)
    assert found is not None
    assert fitted.judged is not None
    assert isinstance(fitted.verdict, Certified)
    assert len(found) == fitted.verdict.n_evidence
    assert found.handled.mean() == pytest.approx(fitted.verdict.coverage)
    assert found.agrees[found.handled].mean() == pytest.approx(fitted.verdict.agreement)
    assert (found.second != found.said).all()
    assert (found.odds >= 1).all()
    if evidence == "holdout":  # nothing fitted has seen these rows
        assert not set(found.at) & set(fitted.judged.fitted_at)
        assert fitted.cascade is not None
        said = in_numpy(fitted.cascade, training.take(found.at))
        stage = answers(fitted.judged.evidence, fitted.verdict.threshold)
        assert np.array_equal(found.said, said.label[np.arange(len(found)), stage])


def test_a_refusal_defers_every_row() -> None:
    _, training, fitted = trained(alpha=0.999)
    assert isinstance(fitted.verdict, Refused)
    found = boundary_of(fitted, training)
    assert found is not None
    assert not found.handled.any()
    reasons = reasons_of(found, training, refused=True)
    assert (reasons >= 0).all()
    names = {REASONS[i] for i in reasons.tolist()}
    assert "refused" in names
    assert "certificate" not in names


def test_too_little_to_fit_has_no_boundary() -> None:
    _, training, _ = trained()
    few = training.take(np.arange(10))
    assert boundary_of(fit(few, Settings()), few) is None


def test_without_evidence_there_is_no_boundary() -> None:
    _, training, _ = trained()
    blind = replace(training, evidence=np.zeros(len(training), np.bool_))
    assert boundary_of(fit(blind, Settings()), blind) is None


def test_every_deferred_row_has_one_reason_and_no_handled_one() -> None:
    _, training, fitted = trained()
    found = boundary_of(fitted, training)
    assert found is not None
    reasons = reasons_of(found, training, refused=False)
    assert ((reasons >= 0) == ~found.handled).all()
    names = Counter(REASONS[i] for i in reasons[reasons >= 0].tolist())
    assert names["ambiguous"] > 10  # the muddles
    ambiguous = reasons == REASONS.index("ambiguous")
    assert (found.odds[ambiguous] < AMBIGUOUS_ODDS).all()
    few = reasons == REASONS.index("few_traces")
    label = training.labels.index("other")
    assert (
        few[found.y == label].sum() + found.novel[found.y == label].sum()
        == (~found.handled[found.y == label]).sum()
    )


def test_the_teacher_contradicts_itself_on_copies_only() -> None:
    horizon, training, _ = trained()
    found = contradicted(training)
    assert {horizon.inputs[i][0][:8].lower() for i in np.flatnonzero(found)} == {"where is"}
    assert found.sum() == 16


def test_the_first_reason_that_applies_is_given() -> None:
    _, training, _ = trained()
    n = 200
    base = boundary(np.zeros(n, bool), np.ones(n, bool), training.y[:n])
    base = replace(base, said=training.y[:n].copy(), odds=np.full(n, 100.0))
    rows = {name: i for i, name in enumerate(REASONS[:-1])}
    novel, dropped, odds = base.novel.copy(), base.dropped.copy(), base.odds.copy()
    odds[: len(rows)] = 1.5  # all are ambiguous as well
    odds[rows["certificate"]] = 100.0
    novel[rows["novel"]] = True
    novel[rows["label_floor"]] = dropped[rows["label_floor"]] = True
    said = base.said.copy()
    said[rows["few_traces"]] = training.labels.index("other")
    assert (training.y == training.labels.index("other")).sum() < FEW_TRACES
    at = base.at.copy()
    at[rows["contradicted"]] = np.flatnonzero(contradicted(training))[0]
    some = replace(base, novel=novel, dropped=dropped, odds=odds, said=said, at=at)
    reasons = reasons_of(some, training, refused=False)
    assert [REASONS[reasons[rows[name]]] for name in rows] == list(rows)
    assert {REASONS[i] for i in reasons[len(rows) :].tolist()} == {"certificate"}


def test_pairs_of_labels_count_both_orders() -> None:
    some = boundary(np.zeros(5, bool), np.ones(5, bool), np.asarray([0, 0, 1, 2, 2]))
    some = replace(some, said=np.asarray([0, 1, 1, 2, 3]), second=np.asarray([1, 0, 0, 3, 2]))
    assert torn_between(some, np.arange(5), 5) == [(1, 0, 3), (2, 3, 2)]
    assert torn_between(some, np.arange(5), 1) == [(1, 0, 3)]


def test_boundary_pairs_are_each_others_nearest_of_one_label() -> None:
    _, training, fitted = trained()
    found = boundary_of(fitted, training)
    assert found is not None
    features = training.features[found.at]
    pairs = boundary_pairs(found, training.features)
    assert len(pairs) >= 3
    similarity = features @ features.T
    for pair in pairs:
        assert found.handled[pair.handled]
        assert not found.handled[pair.deferred]
        assert found.y[pair.handled] == found.y[pair.deferred]
        assert found.groups[pair.handled] != found.groups[pair.deferred]
        same = found.y == found.y[pair.handled]
        rivals = same & found.handled & found.agrees
        rivals &= found.groups != found.groups[pair.deferred]
        assert pair.similarity == pytest.approx(similarity[pair.deferred, rivals].max(), abs=1e-5)
        others = same & ~found.handled & (found.groups != found.groups[pair.handled])
        assert pair.similarity == pytest.approx(similarity[pair.handled, others].max(), abs=1e-5)
    assert [p.similarity for p in pairs] == sorted((p.similarity for p in pairs), reverse=True)


def test_a_label_all_on_one_side_has_no_pair() -> None:
    features = np.eye(4, dtype=np.float32)
    assert boundary_pairs(boundary(np.ones(4, bool), np.ones(4, bool)), features) == []
    assert boundary_pairs(boundary(np.zeros(4, bool), np.ones(4, bool)), features) == []


def test_confusions_have_rows_of_both_sides() -> None:
    n = 12
    y = np.asarray([0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2, 2])
    said = np.asarray([1, 1, 0, 0, 1, 2, 2, 2, 2, 2, 2, 0])
    accept = np.linspace(0.1, 0.9, n)
    some = replace(boundary(np.zeros(n, bool), y == said, y), said=said, accept=accept)
    (found,) = confusions(some)  # 2 as 0 happened once
    assert (found.a, found.b) == (0, 1)
    assert found.a_as_b.tolist() == [1, 0]
    assert found.b_as_a.tolist() == [3]
