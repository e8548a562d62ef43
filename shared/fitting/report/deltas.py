"""A report beside that of the version before."""

from __future__ import annotations

from shared.contracts.report import Certificate, Deltas, LabelRow, Report, SliceChange
from shared.core.report.changes import Shares, credible_changes
from shared.core.shares import Share, effective_size
from shared.fitting.report.parts import RISK
from shared.fitting.report.sentences import exactly, listed

# The bounds of a report are rounded to four decimals.
EPSILON = 0.01


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
    n_compared, changes = _changes(previous.labels, labels)
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
        coverage_before_lower=before.coverage_lower if before else None,
        coverage_before_upper=before.coverage_upper if before else None,
        coverage_now_lower=certificate.coverage_lower if certificate else None,
        coverage_now_upper=certificate.coverage_upper if certificate else None,
        agreement_lower_before=before.agreement_lower if before else None,
        agreement_lower_now=certificate.agreement_lower if certificate else None,
        n_compared=n_compared,
        risk=RISK,
    )


def _changes(
    before: tuple[LabelRow, ...], now: tuple[LabelRow, ...]
) -> tuple[int, tuple[SliceChange, ...]]:
    earlier = {row.label: row for row in before}
    both = [(earlier[row.label], row) for row in now if row.label in earlier]
    shares = [
        *(Shares(*_covered(a), *_covered(b)) for a, b in both),
        *(Shares(*_agreed(a), *_agreed(b)) for a, b in both),
    ]
    n_compared, found = credible_changes(shares, risk=RISK)
    return n_compared, tuple(
        _change(*both[i % len(both)], coverage=i < len(both), p_value=float(f"{p_value:.3g}"))
        for i, p_value in found
    )


def _change(before: LabelRow, now: LabelRow, *, coverage: bool, p_value: float) -> SliceChange:
    if coverage:
        return SliceChange(
            label=now.label, measure="coverage", p_value=p_value,
            before=before.coverage, now=now.coverage, n_before=before.n, n_now=now.n,
            before_lower=before.coverage_lower, before_upper=before.coverage_upper,
            now_lower=now.coverage_lower, now_upper=now.coverage_upper,
        )  # fmt: skip
    return SliceChange(
        label=now.label, measure="agreement", p_value=p_value,
        before=before.agreement or 0.0, now=now.agreement or 0.0,
        n_before=before.n_handled, n_now=now.n_handled,
        before_lower=before.agreement_lower, before_upper=before.agreement_upper,
        now_lower=now.agreement_lower, now_upper=now.agreement_upper,
    )  # fmt: skip


def _covered(row: LabelRow) -> tuple[int, int]:
    """How many rows of weight 1 it handles, and of how many."""
    return _counts(Share(row.n, row.coverage, row.coverage_lower, row.coverage_upper))


def _agreed(row: LabelRow) -> tuple[int, int]:
    """The same of those that agree."""
    if row.agreement is None or row.agreement_lower is None or row.agreement_upper is None:
        return 0, 0
    return _counts(Share(row.n_handled, row.agreement, row.agreement_lower, row.agreement_upper))


def _counts(share: Share) -> tuple[int, int]:
    size = int(effective_size(share, RISK / 2) + EPSILON)
    return round(share.share * size), size


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
