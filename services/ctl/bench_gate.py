"""`tracerctl bench gate`: does the certificate hold on traffic it has not seen?

Many random splits of a file; each fit is certified on its part and the graphs that would be
served are evaluated on the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shared.core.fit import Prepared, Settings, decide, prepare
from shared.core.gate import Refused
from shared.core.training import TrainingSet
from shared.core.types import InvalidData
from shared.fitting.graphs import export_cascade, serve_as_onnx, unpublished
from shared.fitting.horizon import FeatureKind
from shared.onnx.cascade import CascadeSession

TEST_SHARE = 0.2


@dataclass(frozen=True)
class Outcome:
    """One fit at one α, on rows it has not seen. agreement: None where nothing was handled.
    too_little: why there was nothing to fit, at any α."""

    alpha: float
    certified_coverage: float
    coverage: float
    agreement: float | None
    lexical_share: float
    method: str | None
    too_little: str | None = None


def bench_gate(
    rows: TrainingSet,
    kind: FeatureKind,
    alphas: Sequence[float],
    settings: Settings,
    *,
    splits: int,
    copies: int,
    done: Callable[[], None],
) -> dict[str, Any]:
    """Fit on 80% of the rows, each there `copies` times, and evaluate on the rest, `splits`
    times. Raises InvalidData where none of the splits had enough to fit on."""
    outcomes: list[list[Outcome]] = []
    cpu = time.process_time()
    for split in range(splits):
        order = np.random.default_rng(settings.seed + split).permutation(len(rows))
        n_test = round(TEST_SHARE * len(rows))
        fitted_on = np.repeat(np.sort(order[n_test:]), copies)
        unseen = np.sort(order[:n_test])
        outcomes.append(evaluate(rows.take(fitted_on), rows.take(unseen), kind, alphas, settings))
        done()
    if all(outcome.too_little for by_alpha in outcomes for outcome in by_alpha):
        raise InvalidData(f"nothing was fitted on 80% of the rows: {outcomes[0][0].too_little}")
    return {
        "splits": splits,
        "rows": len(rows),
        "labels": rows.n_labels,
        "delta": settings.delta,
        "evidence": settings.kind,
        "next_sample": settings.next_sample,
        "cpu_seconds_per_split": round((time.process_time() - cpu) / splits, 1),
        "alphas": [summary([by_alpha[i] for by_alpha in outcomes]) for i in range(len(alphas))],
    }


def evaluate(
    training: TrainingSet,
    unseen: TrainingSet,
    kind: FeatureKind,
    alphas: Sequence[float],
    settings: Settings,
) -> list[Outcome]:
    """One fit, decided at every α."""
    prepared = prepare(training, settings, serve_as_onnx)
    if isinstance(prepared, Refused):
        return [Outcome(alpha, 0.0, 0.0, None, 0.0, None, prepared.reason) for alpha in alphas]
    return [
        evaluate_prepared(prepared, unseen, kind, replace(settings, alpha=alpha))
        for alpha in alphas
    ]


def evaluate_prepared(
    prepared: Prepared, unseen: TrainingSet, kind: FeatureKind, settings: Settings
) -> Outcome:
    """The settings' α decided, and the graphs that would be served run on unseen rows."""
    fitted = decide(prepared, settings)
    if isinstance(fitted.verdict, Refused) or fitted.cascade is None:
        return Outcome(settings.alpha, 0.0, 0.0, None, 0.0, None)
    labels = unseen.labels
    stages, blobs = export_cascade(fitted.cascade, unseen, kind, fitted.thresholds)
    manifest = unpublished(stages, labels, [labels[i] for i in fitted.dropped])
    said = CascadeSession(manifest, blobs).answer(
        len(unseen),
        None if unseen.tokens is None else unseen.tokens.rows(),
        lambda asked: unseen.features[asked],
    )
    handled = said.stage >= 0
    lexical = handled & (np.asarray([stage.name for stage in stages])[said.stage] == "lexical")
    return Outcome(
        alpha=settings.alpha,
        certified_coverage=fitted.verdict.coverage,
        coverage=float(handled.mean()),
        agreement=float((said.label == unseen.y)[handled].mean()) if handled.any() else None,
        lexical_share=float(lexical.mean()),
        method=fitted.method,
    )


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Of all splits at one α. A violation: agreement below α on the unseen rows."""
    agreements = [o.agreement for o in outcomes if o.agreement is not None]
    alpha = outcomes[0].alpha
    return {
        "alpha": alpha,
        "deployed": len(agreements),
        "certified_coverage": _mean([o.certified_coverage for o in outcomes]),
        "coverage": _mean([o.coverage for o in outcomes]),
        "lexical_share": _mean([o.lexical_share for o in outcomes]),
        "agreement": _mean(agreements) if agreements else None,
        "lowest_agreement": round(min(agreements), 4) if agreements else None,
        "violations": sum(agreement < alpha for agreement in agreements),
        "methods": sorted({o.method for o in outcomes if o.method}),
    }


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)
