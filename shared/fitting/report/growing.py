"""The learning curves of a report."""

from __future__ import annotations

import numpy as np

from shared.contracts.report import Curve, CurvePoint, Curves
from shared.core.fit import Judged
from shared.core.report.curves import RISK, Interval, curve
from shared.core.report.growth import Growth, growth
from shared.core.slices import MINIMUM_ROWS, Slice, slices_of
from shared.core.training import TrainingSet
from shared.core.types import Ints
from shared.fitting.report.sentences import curve_sentence
from shared.fitting.report.texts import Texts

MOST_LABELS = 12


def curves_part(
    judged: Judged, training: TrainingSet, texts: Texts, *, target: float, seed: int, jobs: int
) -> Curves:
    """Of all traffic, of lengths, and of the labels with most errors. The one costly part: it fits
    the scorers anew on parts of the traces."""
    grown = growth(judged.fits, seed=seed, jobs=jobs)
    rows = judged.fits.rows.take(grown.at)
    at = judged.fitted_at[grown.at]
    found = [
        _curve(one, grown, rows, n=len(training), target=target, seed=seed)
        for one in _slices(grown, rows, at, texts)
    ]
    return Curves(risk=RISK, curves=tuple(each for each in found if each is not None))


def _slices(grown: Growth, rows: TrainingSet, at: Ints, texts: Texts) -> list[Slice]:
    named = slices_of([rows.names[i] for i in rows.y.tolist()], texts.joined(at))
    wrong = ~grown.right[-1]
    labels = sorted(
        (one for one in named if one.kind == "label"), key=lambda one: -int(wrong[one.rows].sum())
    )
    lengths = [one for one in named if one.kind == "length"]
    everything = Slice("all", "all traffic", np.ones(len(at), dtype=np.bool_))
    return [everything, *labels[:MOST_LABELS], *lengths]


def _curve(
    one: Slice, grown: Growth, rows: TrainingSet, *, n: int, target: float, seed: int
) -> Curve | None:
    if one.rows.sum() < MINIMUM_ROWS:
        return None
    found = curve(
        grown, one.rows, rows.observation_weights, rows.groups, n=n, target=target, seed=seed
    )
    if found is None:
        return None
    points = [_point(size, p) for size, p in zip(found.sizes.tolist(), found.points, strict=True)]
    ahead = [_point(size, p) for size, p in found.forecast]
    needs = found.needs
    what = {"all": "everything", "label": f"traces labelled {one.name}"}.get(
        one.kind, f"texts of {one.name}"
    )
    return Curve(
        kind=one.kind,  # type: ignore[arg-type]  # one of those above
        name=one.name,
        n_slice=found.n_rows,
        points=tuple(points),
        forecast=tuple(ahead),
        verdict=found.verdict,
        target=target,
        sentence=curve_sentence(what, found.verdict, points[-1].agreement, ahead[0], needs, target),
        needs=None if needs is None else needs.more,
        needs_lower=None if needs is None else needs.lower,
        needs_upper=None if needs is None else needs.upper,
    )


def _point(size: float, agreement: Interval) -> CurvePoint:
    value, lower, upper = (round(each, 4) for each in agreement)
    return CurvePoint(n=round(size), agreement=value, lower=lower, upper=upper)
