"""What a report's charts show, as options of ECharts. Colours are the page's."""

from __future__ import annotations

from typing import Any

from shared.contracts.report import Curve, LabelRow, Report

MOST_LABELS = 30
NAME_CHARS = 28


def frontier_options(report: Report) -> dict[str, Any] | None:
    """Coverage at each α, with the bound on agreement there; None without a frontier."""
    points = sorted(report.frontier, key=lambda point: point.alpha)
    if not any(point.coverage > 0 for point in points):
        return None
    return {
        "kind": "frontier",
        "alpha": report.alpha,
        "points": [
            {"alpha": p.alpha, "coverage": p.coverage, "lower": p.agreement_lower} for p in points
        ],
    }


def label_options(report: Report) -> dict[str, Any] | None:
    """Coverage of the labels that defer most traces, with intervals."""
    rows = sorted(report.labels, key=lambda row: -_deferred(row))[:MOST_LABELS]
    if not rows:
        return None
    return {
        "kind": "labels",
        "all": report.certificate.coverage if report.certificate else None,
        "rows": [
            {
                "name": short(row.label),
                "label": row.label,
                "n": row.n,
                "coverage": row.coverage,
                "lower": row.coverage_lower,
                "upper": row.coverage_upper,
                "agreement": row.agreement,
            }
            for row in rows
        ],
    }


def curve_options(curve: Curve) -> dict[str, Any]:
    """Measured points and the forecast, with intervals and the target."""
    return {
        "kind": "curve",
        "name": curve.name,
        "target": curve.target,
        "measured": [[p.n, p.agreement, p.lower, p.upper] for p in curve.points],
        "forecast": [[p.n, p.agreement, p.lower, p.upper] for p in curve.forecast],
    }


def short(name: str) -> str:
    return name if len(name) <= NAME_CHARS else name[: NAME_CHARS - 1] + "…"


def _deferred(row: LabelRow) -> int:
    return row.n - row.n_handled
