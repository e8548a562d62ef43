"""Fit a task's surrogate and put it before the gate.

`prepare` does what does not depend on α: scorers, heads, out-of-fold outputs. `decide` chooses the
family, walks the gate and says Certified or Refused. `fit` is both.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from shared.core.cascade import Cascade, Outputs, Serve, in_numpy
from shared.core.causes import with_causes
from shared.core.families import Family, base_families, choose, coverage
from shared.core.gate import NEXT_SAMPLE, Certified, Refused, Rule, frontier
from shared.core.grouping import group_folds
from shared.core.label_floor import drop_labels, failing_labels
from shared.core.policies import Evidence, answers, evidence_of
from shared.core.stages import (
    FOLDS,
    SELECTION_FOLDS,
    StageFits,
    Tried,
    fit_stages,
    with_residual,
)
from shared.core.training import TrainingSet
from shared.core.types import Ints, Kind, Mask

HOLDOUT_SLOTS = 20
HOLDOUT_STRIDE = 7
FRONTIER_ALPHAS = (0.80, 0.85, 0.90, 0.92, 0.95, 0.97, 0.98, 0.99)
# With fewer rows a fold's scorer says nothing of the one fitted on all.
MINIMUM_ROWS = 30


@dataclass(frozen=True)
class Settings:
    """What a fit depends on besides the data. Same settings, same data: same surrogate.

    next_sample: a new sample this many times the evidence shows the agreement too, with the same
    probability; 0 certifies the traffic alone. label_floor: no label with enough evidence is
    answered below this agreement; None for no floor.
    """

    alpha: float = 0.95
    delta: float = 0.1
    kind: Kind = "crossfit"
    next_sample: float = NEXT_SAMPLE
    holdout_share: float = 0.3
    label_floor: float | None = None
    seed: int = 0
    jobs: int = 1

    @property
    def rule(self) -> Rule:
        return Rule(self.alpha, self.delta, self.next_sample)


@dataclass(frozen=True)
class Fit:
    """What a fit came to: a verdict always; a cascade unless there was nothing to fit.

    thresholds: of each stage, for a certified fit. dropped: labels that are deferred whole. judged:
    the rows behind the verdict, for reports.
    """

    verdict: Certified | Refused
    cascade: Cascade | None = None
    thresholds: tuple[float, ...] = ()
    dropped: tuple[int, ...] = ()
    family: Family | None = None
    families: tuple[Family, ...] = ()
    tried: tuple[Tried, ...] = ()
    frontier: tuple[Certified | Refused, ...] = ()
    judged: Judged | None = field(default=None, repr=False, compare=False)

    @property
    def method(self) -> str | None:
        """`global`: answers everything; else the family: `l2d`, `lexical` or `rsb`."""
        if isinstance(self.verdict, Refused) or self.family is None:
            return None
        return "global" if self.verdict.threshold <= 0.0 else self.family.name


@dataclass(frozen=True)
class Judged:
    """What a verdict was made from.

    at: int64[m], the rows of the training set that the certificate is of. outputs: of the family's
    stages on them, labels that are deferred whole included. fitted_at: int64[n], the rows that
    `fits` is of.
    """

    at: Ints
    outputs: Outputs
    evidence: Evidence
    fits: StageFits
    fitted_at: Ints


@dataclass(frozen=True)
class Prepared:
    """All of a fit that does not depend on α.

    outputs: out of fold, of fits.rows. held_out: the rows used for nothing but the certificate,
    None for cross-fitted evidence. all_rows: fitted on or held out; fitted_at and held_out_at:
    which of them.
    """

    all_rows: TrainingSet
    fits: StageFits
    outputs: Outputs
    held_out: TrainingSet | None
    serve: Serve
    fitted_at: Ints
    held_out_at: Ints

    @property
    def evidence_rows(self) -> Mask:
        """bool[n]: the fitted rows that represent all traffic; families are compared on them."""
        return self.fits.rows.evidence

    @property
    def selection_folds(self) -> Mask:
        """bool[n]: the evidence in the selection folds."""
        return np.isin(self.fits.folds, SELECTION_FOLDS) & self.evidence_rows


def fit(training: TrainingSet, settings: Settings, serve: Serve = in_numpy) -> Fit:
    """Choose, fit, score out of fold, certify or refuse. Deterministic.

    `serve` runs a cascade as it will be served; the certificate is of what it says.
    """
    prepared = prepare(training, settings, serve)
    if isinstance(prepared, Refused):
        return Fit(prepared)
    return decide(prepared, settings)


def prepare(
    training: TrainingSet, settings: Settings, serve: Serve = in_numpy
) -> Prepared | Refused:
    """Refused where there is too little to fit on."""
    held_out = held_out_rows(training, settings)
    rows = training.take(~held_out)
    too_little = _too_little(rows, settings.seed)
    if too_little:
        return _refuse(settings, too_little, int(training.evidence.sum()))
    folds = group_folds(rows.groups, rows.y, FOLDS, settings.seed)
    fits = fit_stages(rows, folds, seed=settings.seed, jobs=settings.jobs)
    return Prepared(
        all_rows=training,
        fits=fits,
        outputs=fits.out_of_fold(serve),
        held_out=training.take(held_out & training.evidence) if held_out.any() else None,
        serve=serve,
        fitted_at=np.flatnonzero(~held_out),
        held_out_at=np.flatnonzero(held_out & training.evidence),
    )


def decide(prepared: Prepared, settings: Settings) -> Fit:
    """The family, the walk and the verdict at the settings' α."""
    prepared, family, families = _choose_family(prepared, settings)
    cascade = prepared.fits.served
    dropped = _below_floor(prepared, family, settings)
    outputs, rows, at = _certificate_rows(prepared, cascade, without_selection=bool(dropped))
    outputs = outputs.stages(len(family.floors))
    cascade = replace(cascade, stages=cascade.stages[: len(family.floors)])
    evidence = evidence_of(drop_labels(outputs, dropped), rows, settings.kind, family.floors)
    alphas = (settings.alpha, *FRONTIER_ALPHAS)
    verdict, *points = frontier(evidence, alphas, settings.delta, settings.next_sample)
    if isinstance(verdict, Refused):
        verdict = with_causes(verdict, prepared.all_rows, evidence)
        thresholds: tuple[float, ...] = ()
    else:
        thresholds = tuple(max(verdict.threshold, floor) for floor in family.floors)
    return Fit(
        verdict=verdict,
        cascade=cascade,
        thresholds=thresholds,
        dropped=dropped,
        family=family,
        families=families,
        tried=prepared.fits.tried,
        frontier=tuple(points),
        judged=Judged(at, outputs, evidence, prepared.fits, prepared.fitted_at),
    )


def _choose_family(
    prepared: Prepared, settings: Settings
) -> tuple[Prepared, Family, tuple[Family, ...]]:
    """Compare the families; the prepared stages have one more where the residual one is chosen."""
    rows, representative = prepared.fits.rows, prepared.evidence_rows
    families = base_families(prepared.outputs, rows, representative, settings.rule)
    base = choose(families)
    boosted = _with_residual(prepared, base, settings)
    if boosted is None:
        return prepared, base, tuple(families)
    floors = (*base.floors, 0.0)
    said, seen = boosted.outputs.take(representative), rows.take(representative)
    found = coverage(said, seen, floors, settings.rule)
    families.append(Family("rsb", floors, found))
    chosen = choose(families)
    return (boosted if chosen.name == "rsb" else prepared), chosen, tuple(families)


def _with_residual(prepared: Prepared, base: Family, settings: Settings) -> Prepared | None:
    """The stages and one for what `base` defers out of fold; None where it defers too little."""
    rows = prepared.fits.rows
    evidence = evidence_of(prepared.outputs, rows, "crossfit", base.floors)
    (verdict,) = frontier(evidence, (settings.alpha,), settings.delta, settings.next_sample)
    if isinstance(verdict, Refused):
        return None
    deferred = answers(evidence, verdict.threshold) < 0
    fits = with_residual(prepared.fits, deferred, seed=settings.seed, jobs=settings.jobs)
    if fits is None:
        return None
    return replace(prepared, fits=fits, outputs=fits.out_of_fold(prepared.serve))


def _certificate_rows(
    prepared: Prepared, cascade: Cascade, *, without_selection: bool
) -> tuple[Outputs, TrainingSet, Ints]:
    """What the certificate is made from, and which rows of all: held-out ones, or all evidence out
    of fold, if need be without the selection folds."""
    if prepared.held_out is not None:
        said = prepared.serve(cascade, prepared.held_out)
        return said, prepared.held_out, prepared.held_out_at
    rows = prepared.fits.rows
    chosen = prepared.evidence_rows & ~(prepared.selection_folds & without_selection)
    return prepared.outputs.take(chosen), rows.take(chosen), prepared.fitted_at[chosen]


def _below_floor(prepared: Prepared, family: Family, settings: Settings) -> tuple[int, ...]:
    """Labels that fall short of the floor where the walk ends, dropped until none is left.

    Found on rows that do not certify: what chose the labels would flatter what is left.
    """
    if settings.label_floor is None:
        return ()
    rows = prepared.fits.rows
    chosen = prepared.evidence_rows if prepared.held_out is not None else prepared.selection_folds
    rows, outputs = rows.take(chosen), prepared.outputs.take(chosen).stages(len(family.floors))
    dropped: set[int] = set()
    while True:
        evidence = evidence_of(drop_labels(outputs, dropped), rows, settings.kind, family.floors)
        (verdict,) = frontier(evidence, (settings.alpha,), settings.delta, settings.next_sample)
        if isinstance(verdict, Refused):
            return tuple(sorted(dropped))
        stage = answers(evidence, verdict.threshold)
        failing = failing_labels(outputs, evidence, stage, settings.label_floor)
        if not failing:
            return tuple(sorted(dropped))
        dropped |= set(failing)


def held_out_rows(training: TrainingSet, settings: Settings) -> Mask:
    """bool[n]: the rows used for nothing but the certificate; none for cross-fitted evidence."""
    if settings.kind == "crossfit" or not len(training):
        return np.zeros(len(training), dtype=np.bool_)
    slots = group_folds(training.groups, training.y, HOLDOUT_SLOTS, settings.seed)
    # Slots are dealt in order of the label: those held out must not follow each other.
    spread = slots * HOLDOUT_STRIDE % HOLDOUT_SLOTS
    wanted = round(settings.holdout_share * HOLDOUT_SLOTS)
    return np.asarray(spread < min(max(1, wanted), HOLDOUT_SLOTS - 1))


def _too_little(training: TrainingSet, seed: int) -> str | None:
    """Why there is nothing to fit, or None."""
    learnable, y = training.learnable, training.y
    n = int(learnable.sum())
    if n < MINIMUM_ROWS:
        return f"{n} traces are too few to fit on: needs about {MINIMUM_ROWS - n} more"
    if len(np.unique(y[learnable])) < 2:
        return f"the teacher gave one label only ({training.labels[y[learnable][0]]!r})"
    folds = group_folds(training.groups, y, FOLDS, seed)
    if len(np.unique(folds)) < FOLDS:
        return f"fewer than {FOLDS} different inputs: everything is a near-duplicate"
    if any(len(np.unique(y[learnable & (folds != fold)])) < 2 for fold in range(FOLDS)):
        return "one label has nearly all the traces: needs more of the others"
    return None


def _refuse(settings: Settings, reason: str, n_evidence: int) -> Refused:
    return Refused(
        alpha=settings.alpha,
        delta=settings.delta,
        kind=settings.kind,
        reason=reason,
        n_evidence=n_evidence,
    )
