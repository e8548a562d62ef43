from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from shared.core.gate import (
    GRID,
    Certified,
    Refused,
    Rule,
    agreement_lower,
    certify,
    frontier,
    p_values,
)
from shared.core.grouping import copies
from shared.core.policies import NEVER, START_COVERAGE, Evidence, answers, policies
from shared.core.weighted_counts import Counts


def evidence(agrees: np.ndarray, scores: np.ndarray | None = None) -> Evidence:
    n = len(agrees)
    return Evidence(
        scores=np.linspace(1, 0, n) if scores is None else scores,
        agrees=agrees,
        groups=np.arange(n),
        weights=np.ones(n),
        kind="holdout",
    )


@pytest.mark.parametrize(("errors", "size"), [(0, 50), (3, 100), (40, 1000), (99, 100)])
def test_bounds_are_the_exact_binomial_ones(errors: int, size: int) -> None:
    counts = Counts(np.asarray([errors]), np.asarray([size]))
    exact = binomtest(size - errors, size, alternative="greater").proportion_ci(0.9, "exact").low
    assert agreement_lower(counts, 0.1) == pytest.approx(exact, abs=1e-9)
    assert p_values(counts, 0.9) == pytest.approx(binom.cdf(errors, size, 0.1), abs=1e-9)


def test_perfect_agreement_is_handled_whole() -> None:
    verdict = certify(evidence(np.ones(500, bool)), alpha=0.95, delta=0.1)
    assert isinstance(verdict, Certified)
    assert (verdict.threshold, verdict.coverage, verdict.agreement) == (0.0, 1.0, 1.0)
    assert verdict.agreement_lower == pytest.approx(0.1 ** (1 / 500))


def test_threshold_separates_what_was_certified() -> None:
    rng = np.random.default_rng(1)
    scores = rng.uniform(size=4_000)
    agrees = rng.uniform(size=4_000) < 0.6 + 0.4 * scores
    verdict = certify(evidence(agrees, scores), alpha=0.9, delta=0.1)
    assert isinstance(verdict, Certified)
    handled = scores >= verdict.threshold
    assert handled.mean() == pytest.approx(verdict.coverage)
    assert agrees[handled].mean() == pytest.approx(verdict.agreement)
    assert verdict.agreement_lower >= 0.9


def test_coverage_never_grows_with_alpha() -> None:
    rng = np.random.default_rng(2)
    scores = rng.uniform(size=3_000)
    agrees = rng.uniform(size=3_000) < 0.7 + 0.3 * scores
    points = frontier(evidence(agrees, scores), np.linspace(0.5, 0.999, 60), 0.1)
    coverages = [p.coverage if isinstance(p, Certified) else 0.0 for p in points]
    assert coverages == sorted(coverages, reverse=True)
    assert coverages[0] == 1.0
    assert coverages[-1] == 0.0


def test_equal_scores_are_handled_together() -> None:
    scores = np.repeat([0.9, 0.5], 300)
    agrees = np.concatenate([np.ones(300, bool), np.zeros(300, bool)])
    verdict = certify(evidence(agrees, scores), alpha=0.9, delta=0.1)
    assert isinstance(verdict, Certified)
    assert (verdict.threshold, verdict.coverage) == (0.9, 0.5)


def test_refusals_say_what_to_do() -> None:
    too_few = certify(evidence(np.ones(20, bool)), alpha=0.9, delta=0.1)
    assert isinstance(too_few, Refused)
    assert "needs about 30 more" in too_few.reason
    not_yet = certify(evidence(np.ones(150, bool)), alpha=0.99, delta=0.1)
    assert isinstance(not_yet, Refused)
    assert "needs about" in not_yet.reason
    hopeless = certify(evidence(np.arange(400) % 2 == 0), alpha=0.9, delta=0.1)
    assert isinstance(hopeless, Refused)
    assert "only 0.5" in hopeless.reason


def test_the_number_of_traces_it_asks_for_is_about_right() -> None:
    verdict = certify(evidence(np.ones(150, bool)), alpha=0.99, delta=0.1)
    assert isinstance(verdict, Refused)
    more = int(verdict.reason.split("needs about ")[1].split()[0])
    assert isinstance(
        certify(evidence(np.ones(150 + more, bool)), alpha=0.99, delta=0.1), Certified
    )


def test_a_refusal_by_the_walk_at_a_lower_alpha_says_so() -> None:
    """60 rows are too few for a walk at 0.95 to begin with, so it begins with all 300, which pass.
    At 0.91 they are enough, and fail."""
    agrees = np.ones(300, bool)
    agrees[:6] = False
    scores = np.repeat([0.9, 0.5], [60, 240])
    verdict = certify(evidence(agrees, scores), alpha=0.95, delta=0.1, next_sample=0.0)
    assert isinstance(verdict, Refused)
    assert "On the surest 100% it is 0.980, credibly above α = 0.95" in verdict.reason
    assert "the surest 20% of the traffic is only 0.900, below α = 0.91" in verdict.reason
    assert "needs about 1 more" not in verdict.reason


@pytest.mark.parametrize(("n", "alpha"), [(100, 0.95), (200, 0.95), (500, 0.99), (1_000, 0.99)])
def test_perfect_agreement_on_few_rows_is_not_refused(n: int, alpha: float) -> None:
    """The first test of the walk is one that can pass."""
    assert isinstance(certify(evidence(np.ones(n, bool)), alpha=alpha, delta=0.1), Certified)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n", [60, 120, 300])
def test_coverage_never_grows_with_alpha_on_few_rows_either(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.uniform(size=n)
    agrees = rng.uniform(size=n) < 0.8 + 0.2 * scores
    points = frontier(evidence(agrees, scores), np.linspace(0.4, 0.999, 300), 0.1)
    coverages = [p.coverage if isinstance(p, Certified) else 0.0 for p in points]
    assert coverages == sorted(coverages, reverse=True)


@pytest.mark.parametrize("next_sample", [0.0, 0.25])
@pytest.mark.parametrize("seed", range(12))
def test_the_answer_is_the_strictest_of_the_walks_at_all_lower_alpha(
    seed: int, next_sample: float
) -> None:
    """Walked in full, one by one; in ties and near-duplicates, where walks do not begin alike."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice([100, 300, 800]))
    scores = np.round(rng.uniform(size=n), int(rng.choice([1, 2, 9])))
    rows = Evidence(
        scores,
        rng.uniform(size=n) < rng.choice([0.7, 0.9, 0.97]) + 0.03 * scores,
        rng.integers(0, n // int(rng.choice([1, 4])), n),
        np.ones(n),
        "holdout",
    )
    walked = policies(rows)
    ends = {}
    for alpha in GRID:
        rule = Rule(alpha, 0.1, next_sample)
        room = np.flatnonzero(rule.certifies(walked.handled.with_errors(2).counts(alpha)))
        first = int(room[0]) if len(room) else len(walked) - 1
        failures = np.flatnonzero(~rule.certifies(walked.handled.counts(alpha))[first:])
        ends[alpha] = (first + int(failures[0]) if len(failures) else len(walked)) - 1
        lasts = rule.lasts(walked.handled.counts(alpha))
        expected = max(
            (
                i
                for i in range(first, min(ends.values()) + 1)
                if lasts[: i + 1][walked.coverage[: i + 1] >= 0.8 * walked.coverage[i]].all()
            ),
            default=first - 1,
        )
        (verdict,) = frontier(rows, (alpha,), 0.1, next_sample)
        if isinstance(verdict, Certified):
            assert verdict.threshold == walked.threshold[expected]
        else:
            assert expected < first


def composite(n: int, seed: int, floor: float, weights: np.ndarray | None = None) -> Evidence:
    """Two stages; the second knows better, both may be wrong on the same row."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(size=(n, 2))
    agrees = rng.uniform(size=(n, 2)) < np.stack(
        [0.4 + 0.6 * scores[:, 0], 0.7 + 0.3 * scores[:, 1]], axis=1
    )
    weights = np.ones(n) if weights is None else weights
    return Evidence(scores, agrees, np.arange(n), weights, "holdout", (floor, 0.0))


@pytest.mark.parametrize("floor", [0.0, 0.5, 0.9, NEVER])
def test_a_policy_of_the_composite_counts_whoever_answers(floor: float) -> None:
    """Coverage and agreement of every step are those of actually serving its threshold."""
    evidence = composite(400, 3, floor)
    walked = policies(evidence)
    assert len(walked) > 100
    for i in range(0, len(walked), 7):
        stage = answers(evidence, walked.threshold[i])
        handled = np.flatnonzero(stage >= 0)
        assert walked.coverage[i] == pytest.approx(len(handled) / 400)
        counts = walked.handled[i : i + 1].counts(0.9)
        assert counts.size[0] == pytest.approx(len(handled))
        assert counts.errors[0] == pytest.approx((~evidence.agrees[handled, stage[handled]]).sum())
        agreed = evidence.agrees[handled, stage[handled]].mean()
        assert walked.agreement[i] == pytest.approx(agreed)


@pytest.mark.parametrize("floor", [0.0, 0.5])
def test_so_it_does_with_weights(floor: float) -> None:
    weights = np.random.default_rng(4).choice([0.5, 1.0, 20.0], size=400)
    evidence = composite(400, 3, floor, weights)
    walked = policies(evidence)
    assert walked.coverage[0] >= START_COVERAGE
    assert walked.coverage[0] < START_COVERAGE + 20 / weights.sum()  # one row more was too much
    for i in range(0, len(walked), 7):
        stage = answers(evidence, walked.threshold[i])
        handled = np.flatnonzero(stage >= 0)
        wrong = handled[~evidence.agrees[handled, stage[handled]]]
        sums = walked.handled[i : i + 1]
        assert walked.coverage[i] == pytest.approx(weights[handled].sum() / weights.sum())
        assert sums.weight[0] == pytest.approx(weights[handled].sum())
        assert sums.squares[0] == pytest.approx((weights[handled] ** 2).sum())
        assert sums.errors[0] == pytest.approx(weights[wrong].sum())
        assert sums.error_squares[0] == pytest.approx((weights[wrong] ** 2).sum())
        assert sums.heaviest[0] == 20.0


@pytest.mark.parametrize("floor", [0.0, 0.5])
def test_copies_that_err_weigh_what_their_groups_do(floor: float) -> None:
    """Where they have more copies than the rows have on average."""
    rng = np.random.default_rng(6)
    groups = rng.integers(0, 90, size=400) ** 2 // 90
    weights = rng.choice([0.5, 1.0, 20.0], size=400)
    evidence = composite(400, 3, floor, weights)
    agrees = evidence.agrees & (groups > 0)[:, None]  # the largest group
    evidence = replace(evidence, groups=groups, agrees=agrees)
    walked = policies(evidence)
    more = 0
    for i in range(0, len(walked), 7):
        stage = answers(evidence, walked.threshold[i])
        handled = np.flatnonzero(stage >= 0)
        wrong = handled[~evidence.agrees[handled, stage[handled]]]
        by_group = (np.bincount(groups[wrong], weights[wrong]) ** 2).sum()
        average = copies(groups[handled], weights[handled])[-1] * (weights[wrong] ** 2).sum()
        sums = walked.handled[i : i + 1]
        assert (sums.copies * sums.error_squares)[0] == pytest.approx(max(by_group, average))
        more += by_group > average
    assert more > 0


def test_the_first_stage_that_is_sure_enough_answers() -> None:
    scores = np.asarray([[0.9, 0.95], [0.5, 0.95], [0.5, 0.4], [-1.0, 0.99], [0.85, -1.0]])
    evidence = Evidence(
        scores, np.ones_like(scores, bool), np.arange(5), np.ones(5), "holdout", (0.8, 0.0)
    )
    assert answers(evidence, 0.6).tolist() == [0, 1, -1, 1, 0]
    assert answers(evidence, 0.0).tolist() == [0, 1, 1, 1, 0]
    assert answers(evidence, 0.92).tolist() == [1, 1, -1, 1, -1]


def test_novel_rows_are_never_covered() -> None:
    scores = np.linspace(1, 0, 500)
    scores[::10] = -1.0
    verdict = certify(evidence(np.ones(500, bool), scores), alpha=0.9, delta=0.1)
    assert isinstance(verdict, Certified)
    assert verdict.coverage == pytest.approx(0.9)


def test_nothing_but_novel_rows_is_refused() -> None:
    verdict = certify(evidence(np.ones(500, bool), np.full(500, -1.0)), alpha=0.9, delta=0.1)
    assert isinstance(verdict, Refused)
    assert "out of distribution" in verdict.reason


def test_a_new_sample_would_show_it_too() -> None:
    """Certified just so, a sample of a quarter the size agrees less than α in at most δ."""
    rng = np.random.default_rng(0)
    alpha, delta, n = 0.95, 0.1, 4_000
    broken = {next_sample: [0, 0] for next_sample in (0.0, 0.25)}
    for _ in range(1_500):
        truth = rng.uniform(0.945, 0.965)
        agrees = rng.uniform(size=n) < truth
        for next_sample, count in broken.items():
            counts = Counts(np.asarray([(~agrees).sum()]), np.asarray([n]))
            rule = Rule(alpha, delta, next_sample)
            if rule.certifies(counts) and rule.lasts(counts):
                count[0] += rng.binomial(n // 4, truth) < alpha * (n // 4)
                count[1] += 1
    without, with_it = (wrong / certified for wrong, certified in broken.values())
    assert with_it <= delta
    assert without > delta  # what it is for


def test_a_new_sample_costs_coverage_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    scores = rng.uniform(size=4_000)
    some = evidence(rng.uniform(size=4_000) < 0.6 + 0.4 * scores, scores)
    traffic = certify(some, alpha=0.9, delta=0.1, next_sample=0.0)
    sample = certify(some, alpha=0.9, delta=0.1)
    assert isinstance(traffic, Certified)
    assert isinstance(sample, Certified)
    assert sample.coverage < traffic.coverage
    assert sample.agreement_lower > traffic.agreement_lower >= 0.9
