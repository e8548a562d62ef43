"""Fit surrogate and acceptor on a task's horizon and put them before the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from shared.core.acceptor import Acceptor, fit_acceptor
from shared.core.candidates import ZOO, Candidate, fit_classifier, out_of_fold, predict
from shared.core.gate import Certified, Evidence, Refused, frontier
from shared.core.grouping import contradiction_share, group_folds
from shared.core.types import Floats, Ints, Kind, Mask, Matrix, TrainingSet

FOLDS = 5
SELECTION_FOLDS = 2
HOLDOUT_SLOTS = 20
FRONTIER_ALPHAS = (0.80, 0.85, 0.90, 0.92, 0.95, 0.97, 0.98, 0.99)
# With fewer rows a fold's classifier says nothing of the one fitted on all.
MINIMUM_ROWS = 30
# Near-duplicates that are a smaller part of the traces than this explain no refusal.
CONTRADICTIONS_SHARE = 0.05

Method = Literal["global", "l2d"]


@dataclass(frozen=True)
class Settings:
    """What a fit depends on besides the data. Same settings, same data: same surrogate."""

    alpha: float = 0.95
    delta: float = 0.1
    kind: Kind = "crossfit"
    holdout_share: float = 0.3
    seed: int = 0
    jobs: int = 1
    zoo: Sequence[Candidate] = ZOO


@dataclass(frozen=True)
class Surrogate:
    """A classifier over label indices and the acceptor of its answers."""

    classifier: Any
    acceptor: Acceptor
    n_labels: int

    def predict(self, features: Matrix) -> tuple[Ints, Floats]:
        """int64[n] label indices and float64[n] accept scores of float32[n, d] features."""
        probabilities = predict(self.classifier, features, self.n_labels)
        return probabilities.argmax(axis=1), self.acceptor.score(probabilities)


@dataclass(frozen=True)
class Tried:
    """A candidate and its cross-validated agreement on the selection folds."""

    name: str
    agreement: float
    chosen: bool


@dataclass(frozen=True)
class Fit:
    """What a fit came to: a verdict always; a surrogate unless there was nothing to fit."""

    verdict: Certified | Refused
    surrogate: Surrogate | None = None
    tried: tuple[Tried, ...] = ()
    frontier: tuple[Certified | Refused, ...] = ()

    @property
    def method(self) -> Method | None:
        """`global`: answers everything; `l2d`: learns to defer by its acceptor."""
        if isinstance(self.verdict, Refused):
            return None
        return "global" if self.verdict.threshold <= 0.0 else "l2d"


def fit(training: TrainingSet, settings: Settings) -> Fit:
    """Choose, fit, score out of fold, certify or refuse. Deterministic."""
    held_out = _held_out(training, settings)
    too_little = _too_little(training.take(~held_out), settings.seed)
    if too_little:
        return Fit(_refuse(settings, too_little, int(training.evidence.sum())))
    if settings.kind == "holdout":
        fitted, evidence = _fit_with_holdout(training, held_out, settings)
    else:
        fitted, evidence = _fit_crossfit(training, settings)
    alphas = (settings.alpha, *FRONTIER_ALPHAS)
    verdict, *points = frontier(evidence, alphas, settings.delta)
    if isinstance(verdict, Refused):
        verdict = _with_causes(verdict, training)
    return Fit(verdict, fitted.surrogate, fitted.tried, tuple(points))


@dataclass(frozen=True)
class _Fitted:
    surrogate: Surrogate
    tried: tuple[Tried, ...]
    labels: Ints  # out of fold, int64[n]
    scores: Floats  # out of fold, float64[n]


def _fit_crossfit(training: TrainingSet, settings: Settings) -> tuple[_Fitted, Evidence]:
    fitted = _fit_all(training, settings)
    rows = training.evidence
    return fitted, _evidence(
        fitted.scores[rows], fitted.labels[rows] == training.y[rows], training.groups[rows],
        "crossfit",
    )  # fmt: skip


def _held_out(training: TrainingSet, settings: Settings) -> Mask:
    """bool[n]: the rows used for nothing but the certificate; none for cross-fitted evidence."""
    if settings.kind == "crossfit" or not len(training):
        return np.zeros(len(training), dtype=np.bool_)
    slots = group_folds(training.groups, training.y, HOLDOUT_SLOTS, settings.seed)
    return slots < max(1, round(settings.holdout_share * HOLDOUT_SLOTS))


def _fit_with_holdout(
    training: TrainingSet, held_out: Mask, settings: Settings
) -> tuple[_Fitted, Evidence]:
    fitted = _fit_all(training.take(~held_out), settings)
    rest = training.take(held_out & training.evidence)
    labels, scores = fitted.surrogate.predict(rest.features)
    return fitted, _evidence(scores, labels == rest.y, rest.groups, "holdout")


def _evidence(scores: Floats, agrees: Mask, groups: Ints, kind: Kind) -> Evidence:
    return Evidence(scores, agrees, groups, np.ones(len(scores)), kind)


def _fit_all(training: TrainingSet, settings: Settings) -> _Fitted:
    """Candidates, acceptor and out-of-fold scores, then the refit on every row."""
    folds = group_folds(training.groups, training.y, FOLDS, settings.seed)
    chosen, tried, probabilities = _choose(training, folds, settings)
    labels = probabilities.argmax(axis=1)
    agrees = labels == training.y
    scores = np.empty(len(training))
    for fold in range(FOLDS):
        held_out = folds == fold
        scores[held_out] = fit_acceptor(probabilities[~held_out], agrees[~held_out]).score(
            probabilities[held_out]
        )
    surrogate = Surrogate(
        classifier=fit_classifier(chosen, training.features, training.y, settings.seed),
        acceptor=fit_acceptor(probabilities, agrees),
        n_labels=len(training.labels),
    )
    return _Fitted(surrogate, tried, labels, scores)


def _choose(
    training: TrainingSet, folds: Ints, settings: Settings
) -> tuple[Candidate, tuple[Tried, ...], Floats]:
    """The candidate that agrees most on the selection folds, and its out-of-fold probabilities."""
    X, y, n_labels = training.features, training.y, len(training.labels)

    def scored(candidates: Sequence[Candidate], only: Sequence[int]) -> list[tuple[Mask, Floats]]:
        return out_of_fold(
            candidates, X, y, n_labels, folds,
            only_folds=only, seed=settings.seed, jobs=settings.jobs,
        )  # fmt: skip

    selection = scored(settings.zoo, range(SELECTION_FOLDS))
    agreements = [float((p.argmax(axis=1) == y[rows]).mean()) for rows, p in selection]
    best = int(np.argmax(agreements))
    ((rest, rest_probabilities),) = scored([settings.zoo[best]], range(SELECTION_FOLDS, FOLDS))
    probabilities = np.empty((len(y), n_labels))
    rows, selected = selection[best]
    probabilities[rows], probabilities[rest] = selected, rest_probabilities
    tried = tuple(
        Tried(candidate.name, agreement, i == best)
        for i, (candidate, agreement) in enumerate(zip(settings.zoo, agreements, strict=True))
    )
    return settings.zoo[best], tried, probabilities


def _too_little(training: TrainingSet, seed: int) -> str | None:
    """Why there is nothing to fit, or None."""
    n = len(training)
    if n < MINIMUM_ROWS:
        return f"{n} traces are too few to fit on: needs about {MINIMUM_ROWS - n} more"
    if len(np.unique(training.y)) < 2:
        return f"the teacher gave one label only ({training.labels[training.y[0]]!r})"
    folds = group_folds(training.groups, training.y, FOLDS, seed)
    if len(np.unique(folds)) < FOLDS:
        return f"fewer than {FOLDS} different inputs: everything is a near-duplicate"
    if any(len(np.unique(training.y[folds != fold])) < 2 for fold in range(FOLDS)):
        return "one label has nearly all the traces: needs more of the others"
    return None


def _refuse(settings: Settings, reason: str, n_evidence: int) -> Refused:
    return Refused(
        alpha=settings.alpha,
        delta=settings.delta,
        kind=settings.kind,
        reason=reason,
        best_agreement=0.0,
        n_evidence=n_evidence,
    )


def _with_causes(refused: Refused, training: TrainingSet) -> Refused:
    """Add what the data says about the cause."""
    contradicted, rows = contradiction_share(training.groups, training.y)
    if rows < max(MINIMUM_ROWS, CONTRADICTIONS_SHARE * len(training)) or (
        contradicted <= 1.0 - refused.alpha
    ):
        return refused
    return Refused(
        alpha=refused.alpha,
        delta=refused.delta,
        kind=refused.kind,
        reason=f"{refused.reason}; the teacher contradicts itself on {contradicted:.0%} of the "
        f"{rows} traces with near-duplicates",
        best_agreement=refused.best_agreement,
        n_evidence=refused.n_evidence,
    )
