"""What each part of the acceptor and of the scorers is worth: writes docs/ablation.md.

Certified coverage (cross-fitted, all training rows) with one thing left out or added, for the
semantic stage alone, so that stages do not hide each other.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from services.ctl.bench_commands import read_training_set
from shared.core.fit import Settings, prepare
from shared.core.gate import Certified, Evidence, certify
from shared.core.head import accept_features, fit_linear, fit_mixture, mix
from shared.core.stages import FOLDS, StageFits
from shared.core.types import Floats, Mask

ALPHAS = (0.90, 0.95, 0.97, 0.98, 0.99)
NEIGHBOURS = 20
NAMES = (
    "top-1", "top-2", "margin", "entropy", "log-odds", "reliability of the label",
    "highest lexical score", "highest semantic score",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("docs/ablation.md"))
    arguments = parser.parse_args()
    parts = [_PREFACE]
    for name in ("banking77", "banking77_qwen3_30b"):
        rows, _ = read_training_set(arguments.data_dir / f"{name}.jsonl", None)
        prepared = prepare(rows, Settings(jobs=2))
        parts.append(_section(name, prepared.fits))  # type: ignore[union-attr]
    arguments.out.write_text("\n".join(parts))


def _section(name: str, fits: StageFits) -> str:
    variants: dict[str, Callable[[Floats, Floats], Floats]] = {
        "all kept features": lambda kept, _: kept,
        **{
            f"without {feature}": lambda kept, _, i=i: np.delete(kept, i, axis=1)  # type: ignore[misc]
            for i, feature in enumerate(NAMES)
        },
        "only top-1, top-2, margin, entropy, log-odds": lambda kept, _: kept[:, :5],
        "with agreement of the stages": lambda kept, more: np.hstack([kept, more[:, :2]]),
        "with neighbour agreement": lambda kept, more: np.hstack([kept, more[:, 2:]]),
    }
    lines = [
        f"## {name}: {len(fits.rows)} traces",
        "",
        "| acceptor | " + " | ".join(f"α {alpha}" for alpha in ALPHAS) + " |",
        "|---" * (len(ALPHAS) + 1) + "|",
    ]
    kept, more, agrees = _features(fits, (0, 1))
    for variant, choose in variants.items():
        lines.append(_row(variant, _coverages(choose(kept, more), agrees, fits)))
    for variant, stages in (("lexical scorer alone", (0,)), ("semantic scorer alone", (1,))):
        alone, _, right = _features(fits, stages)
        lines.append(_row(f"label from the {variant}", _coverages(alone, right, fits)))
    return "\n".join([*lines, ""])


def _features(fits: StageFits, stages: tuple[int, ...]) -> tuple[Floats, Floats, Mask]:
    """Kept accept features, candidates that were left out, and whether the label agrees; all of
    out-of-fold scores."""
    scores = [fits.stages[i].models.scores for i in stages]
    mixed = mix(fit_mixture(scores, fits.rows.y), scores)
    label = mixed.argmax(axis=1)
    agrees = label == fits.rows.y
    record = np.empty(len(label))
    for fold in range(FOLDS):
        outside = fits.folds != fold
        right = np.bincount(label[outside], weights=agrees[outside], minlength=fits.rows.n_labels)
        all_of_it = np.bincount(label[outside], minlength=fits.rows.n_labels)
        share = (right + 10 * agrees.mean()) / (all_of_it + 10)
        record[~outside] = np.log(share / (1 - share))[label[~outside]]
    each = [mix(fit_mixture([s], fits.rows.y), [s])[np.arange(len(label)), label] for s in scores]
    neighbours = _neighbour_agreement(fits, label)
    return accept_features(mixed, scores, record), np.stack([*each, neighbours], axis=1), agrees


def _neighbour_agreement(fits: StageFits, label: np.ndarray) -> Floats:
    """Share of the nearest rows of other folds that the teacher gave the answered label."""
    share = np.empty(len(label))
    features, y = fits.rows.features, fits.rows.y
    for fold in range(FOLDS):
        inside = np.flatnonzero(fits.folds == fold)
        outside = np.flatnonzero(fits.folds != fold)
        nearest = np.argpartition(-(features[inside] @ features[outside].T), NEIGHBOURS, axis=1)[
            :, :NEIGHBOURS
        ]
        share[inside] = (y[outside][nearest] == label[inside][:, None]).mean(axis=1)
    return share


def _coverages(features: Floats, agrees: Mask, fits: StageFits) -> list[float]:
    scores = np.empty(len(agrees))
    for fold in range(FOLDS):
        inside = fits.folds == fold
        scores[inside] = fit_linear(features[~inside], agrees[~inside])(features[inside])
    evidence = Evidence(scores, agrees, fits.rows.groups, np.ones(len(agrees)), "crossfit")
    verdicts = [certify(evidence, alpha=alpha, delta=0.1) for alpha in ALPHAS]
    return [v.coverage if isinstance(v, Certified) else 0.0 for v in verdicts]


def _row(name: str, coverages: list[float]) -> str:
    return f"| {name} | " + " | ".join(f"{coverage:.3f}" for coverage in coverages) + " |"


_PREFACE = """# Ablation

Certified coverage (δ = 0.1, cross-fitted, every row of the file) of one stage whose label comes
from the lexical and the semantic scorer together, with one feature of the acceptor left out or
added. Written by `make ablation`. Differences below 0.003 are noise of the folds.
"""

if __name__ == "__main__":
    main()
