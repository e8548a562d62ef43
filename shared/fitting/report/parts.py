"""Where the surrogate does what: slices, labels, deferrals, pairs and confusions of a report."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from shared.contracts.report import (
    BoundaryPair,
    Confusion,
    Deferral,
    Deferrals,
    Example,
    LabelPair,
    LabelRow,
    Slice,
    Slices,
)
from shared.core.report.boundary import Boundary
from shared.core.report.clusters import clusters_of
from shared.core.report.confusions import confusions
from shared.core.report.differences import differences
from shared.core.report.pairs import boundary_pairs
from shared.core.report.reasons import FEW_TRACES, REASONS, ReasonName, reasons_of, torn_between
from shared.core.shares import share_of
from shared.core.slices import slices_of
from shared.core.training import TrainingSet
from shared.core.types import Ints
from shared.fitting.report.sentences import deferral_sentence, slice_sentence
from shared.fitting.report.texts import Texts, examples

RISK = 0.05
MOST_LABELS = 300
MOST_SLICES = 40
MOST_ROWS = 50_000
MOST_PAIRS_NAMED = 8
MOST_EXAMPLES = 5
SIDE_EXAMPLES = 3


@dataclass(frozen=True)
class Material:
    """What the parts are of. labels: names of the training set's `y`. reasons: int64[m], of the
    boundary's rows, indices into REASONS or -1."""

    boundary: Boundary
    training: TrainingSet
    texts: Texts
    reasons: Ints

    @property
    def labels(self) -> tuple[str, ...]:
        return self.training.names

    def reason(self, row: int) -> ReasonName:
        return REASONS[int(self.reasons[row])]


def material_of(
    boundary: Boundary, training: TrainingSet, texts: Texts, *, refused: bool
) -> Material:
    return Material(boundary, training, texts, reasons_of(boundary, training, refused=refused))


def slices_part(material: Material, *, seed: int) -> Slices:
    """Of MOST_ROWS rows at most: words are looked for in every text."""
    boundary = material.boundary
    if len(boundary) > MOST_ROWS:
        boundary = boundary.take(np.linspace(0, len(boundary) - 1, MOST_ROWS).astype(np.int64))
    given = [material.labels[i] for i in boundary.y.tolist()]
    texts = material.texts.joined(boundary.at)
    tried = [
        *slices_of(given, texts),
        *clusters_of(texts, material.training.features[boundary.at], seed=seed),
    ]
    if not material.texts.previews:  # their names are words of texts
        tried = [one for one in tried if one.kind in ("label", "length")]
    found = differences(boundary, tried, risk=RISK)
    return Slices(
        risk=RISK,
        n_tested=found.n_tested,
        found=tuple(
            Slice(
                kind=one.slice.kind,  # type: ignore[arg-type]  # those that slices_of makes
                name=one.slice.name,
                measure=one.measure,
                n=one.share.n,
                value=_rounded(one.share.share),
                lower=_rounded(one.share.lower),
                upper=_rounded(one.share.upper),
                average=_rounded(one.average),
                p_value=float(f"{one.p_value:.3g}"),
                sentence=slice_sentence(
                    one.slice.kind, one.slice.name, one.measure, one.share.share,
                    one.share.lower, one.share.upper, one.average,
                ),
            )
            for one in found.found[:MOST_SLICES]
        ),
    )  # fmt: skip


def labels_part(material: Material) -> tuple[LabelRow, ...]:
    """Those with most traces first."""
    boundary = material.boundary
    sizes = np.bincount(boundary.y, minlength=len(material.labels))
    order = np.argsort(-sizes, kind="stable")[:MOST_LABELS]
    return tuple(_label_row(material, int(label)) for label in order if sizes[label])


def deferrals_part(material: Material) -> Deferrals:
    """Most frequent first."""
    boundary = material.boundary
    found = [
        _deferral(material, name, np.flatnonzero(material.reasons == i))
        for i, name in enumerate(REASONS)
        if (material.reasons == i).any()
    ]
    return Deferrals(
        n=int((~boundary.handled).sum()),
        n_evidence=len(boundary),
        reasons=tuple(sorted(found, key=lambda one: -one.n)),
    )


def coverage_bounds(material: Material) -> tuple[float, float]:
    """Of the share of all evidence that is handled."""
    boundary = material.boundary
    share = share_of(boundary.handled, boundary.weights, boundary.groups, RISK / 2)
    assert share is not None  # a boundary has rows
    return _rounded(share.lower), _rounded(share.upper)


def pairs_part(material: Material) -> tuple[BoundaryPair, ...]:
    boundary = material.boundary
    parts = []
    for pair in boundary_pairs(boundary, material.training.features):
        h, d = pair.handled, pair.deferred
        handled, deferred = material.texts.marked(int(boundary.at[h]), int(boundary.at[d]))
        parts.append(
            BoundaryPair(
                label=material.labels[boundary.y[d]],
                similarity=_rounded(pair.similarity),
                handled=handled,
                deferred=deferred,
                handled_accept=_rounded(boundary.accept[h]),
                deferred_accept=_rounded(boundary.accept[d]),
                reason=material.reason(d),
            )
        )
    return tuple(parts)


def confusions_part(material: Material) -> tuple[Confusion, ...]:
    boundary, labels = material.boundary, material.labels

    def some(rows: Ints) -> tuple[Example, ...]:
        return examples(material.texts, boundary, labels, rows, SIDE_EXAMPLES)

    return tuple(
        Confusion(
            a=labels[one.a],
            b=labels[one.b],
            n=len(one.rows),
            n_handled=int(boundary.handled[one.rows].sum()),
            a_as_b=some(one.a_as_b),
            b_as_a=some(one.b_as_a),
            n_a_as_b=len(one.a_as_b),
            n_b_as_a=len(one.b_as_a),
        )
        for one in confusions(boundary)
    )


def _label_row(material: Material, label: int) -> LabelRow:
    boundary = material.boundary
    rows = boundary.y == label
    handled = rows & boundary.handled
    coverage = share_of(boundary.handled[rows], boundary.weights[rows], boundary.groups[rows],
                        RISK / 2)  # fmt: skip
    agreement = share_of(boundary.agrees[handled], boundary.weights[handled],
                         boundary.groups[handled], RISK / 2)  # fmt: skip
    assert coverage is not None  # the label has rows
    known = {} if agreement is None else asdict(agreement)
    return LabelRow(
        label=material.labels[label],
        n=int(rows.sum()),
        n_handled=int(handled.sum()),
        coverage=_rounded(coverage.share),
        coverage_lower=_rounded(coverage.lower),
        coverage_upper=_rounded(coverage.upper),
        agreement=_rounded(known["share"]) if known else None,
        agreement_lower=_rounded(known["lower"]) if known else None,
        agreement_upper=_rounded(known["upper"]) if known else None,
    )


def _deferral(material: Material, name: ReasonName, rows: Ints) -> Deferral:
    boundary, labels = material.boundary, material.labels
    pairs: tuple[LabelPair, ...] = ()
    named: list[str] = []
    if name == "ambiguous":
        pairs = tuple(
            LabelPair(a=labels[a], b=labels[b], n=n)
            for a, b, n in torn_between(boundary, rows, MOST_PAIRS_NAMED)
        )
    elif name in ("few_traces", "label_floor"):
        named = _labels_of(material, name, rows)
    n = len(rows)
    of_it = np.zeros(len(boundary), dtype=np.bool_)
    of_it[rows] = True
    share = share_of(of_it, boundary.weights, boundary.groups, RISK / 2)
    assert share is not None  # a boundary has rows
    return Deferral(
        reason=name,
        n=n,
        share=_rounded(share.share),
        lower=_rounded(share.lower),
        upper=_rounded(share.upper),
        sentence=deferral_sentence(name, n, pairs, named, few=FEW_TRACES),
        pairs=pairs,
        labels=tuple(named),
        examples=examples(material.texts, boundary, labels, rows, MOST_EXAMPLES),
    )


def _labels_of(material: Material, name: str, rows: Ints) -> list[str]:
    """The labels that are the reason, those of most rows first."""
    boundary, training = material.boundary, material.training
    sizes = np.bincount(training.y, minlength=training.n_labels)
    label = boundary.said[rows]
    if name == "few_traces":
        label = np.where(sizes[boundary.y[rows]] < FEW_TRACES, boundary.y[rows], label)
    found, counts = np.unique(label, return_counts=True)
    return [material.labels[i] for i in found[np.argsort(-counts, kind="stable")].tolist()]


def _rounded(value: float) -> float:
    return round(float(value), 4)
