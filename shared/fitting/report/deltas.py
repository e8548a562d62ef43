"""A report beside that of the version before."""

from __future__ import annotations

from shared.contracts.report import Certificate, Deltas, LabelRow, Report, SliceChange
from shared.core.report.changes import Shares, credible_changes
from shared.fitting.report.parts import RISK
from shared.fitting.report.sentences import exactly, listed


def deltas_part(
    previous: Report,
    *,
    certificate: Certificate | None,
    labels: tuple[LabelRow, ...],
    n_traces: int,
    all_labels: set[str],
    all_before: set[str],
) -> Deltas:
    """all_labels, all_before: names of the labels of both."""
    before = previous.certificate
    changes = _changes(previous.labels, labels)
    added, removed = sorted(all_labels - all_before), sorted(all_before - all_labels)
    return Deltas(
        previous=previous.key,
        coverage_before=before.coverage if before else None,
        coverage_now=certificate.coverage if certificate else None,
        agreement_before=before.agreement if before else None,
        agreement_now=certificate.agreement if certificate else None,
        n_traces_before=previous.n_traces,
        n_traces_now=n_traces,
        labels_added=tuple(added),
        labels_removed=tuple(removed),
        changes=changes,
        sentence=_sentence(previous.key, before, certificate, added, removed, changes),
    )


def _changes(before: tuple[LabelRow, ...], now: tuple[LabelRow, ...]) -> tuple[SliceChange, ...]:
    earlier = {row.label: row for row in before}
    both = [(earlier[row.label], row) for row in now if row.label in earlier]
    shares = [
        *(Shares(a.n_handled, a.n, b.n_handled, b.n) for a, b in both),
        *(Shares(_agreed(a), a.n_handled, _agreed(b), b.n_handled) for a, b in both),
    ]
    found = []
    for i, p_value in credible_changes(shares, risk=RISK):
        a, b = both[i % len(both)]
        coverage = i < len(both)
        found.append(
            SliceChange(
                label=b.label,
                measure="coverage" if coverage else "agreement",
                before=a.coverage if coverage else a.agreement or 0.0,
                now=b.coverage if coverage else b.agreement or 0.0,
                p_value=float(f"{p_value:.3g}"),
            )
        )
    return tuple(found)


def _agreed(row: LabelRow) -> int:
    return round((row.agreement or 0.0) * row.n_handled)


def _sentence(
    key: str,
    before: Certificate | None,
    now: Certificate | None,
    added: list[str],
    removed: list[str],
    changes: tuple[SliceChange, ...],
) -> str:
    parts = []
    if before and now:
        word = "rose" if now.coverage > before.coverage else "fell"
        if round(now.coverage, 3) == round(before.coverage, 3):
            parts.append(f"coverage stayed at {exactly(now.coverage)}")
        else:
            parts.append(
                f"coverage {word} from {exactly(before.coverage)} to {exactly(now.coverage)}"
            )
    elif before:
        parts.append(f"nothing is certified any more, after {exactly(before.coverage)}")
    if added:
        parts.append(f"new: {listed(added)}")
    if removed:
        parts.append(f"gone: {listed(removed)}")
    changed = sorted({change.label for change in changes})
    parts.append(f"credibly changed: {listed(changed)}" if changed else "no label changed credibly")
    return f"Since {key} {'; '.join(parts)}."
