"""What each part of the acceptor and of the scorers is worth: writes docs/ablation.md.

Certified coverage (cross-fitted) with one feature left out or added, on random 80% of a file's
rows, several times; the same rows and folds for every variant, so that differences are paired.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from services.ctl.bench_commands import read_training_set
from shared.core.fit import Settings
from shared.core.gate import NEXT_SAMPLE, Certified, frontier
from shared.core.grouping import group_folds
from shared.core.head import acceptor_rows, fit_linear, fit_mixture, mix
from shared.core.policies import Evidence
from shared.core.stages import FOLDS, StageFits, fit_stages
from shared.core.types import Floats, Ints, Mask

FILES = ("banking77", "banking77_qwen3_30b")
SPLITS = 5
SHARE = 0.8
ALPHAS = (0.85, 0.90, 0.95, 0.97, 0.98)
NEIGHBOURS = 20
KEPT = ("top-1", "log-odds", "highest own score", "reliability of the label")
ADDED = (
    "top-2", "margin", "entropy", "highest lexical score", "agreement of the stages",
    "neighbour agreement",
)  # fmt: skip
# Of the stages on which a label is decided, each table's name.
TABLES = {(0,): "lexical stage", (0, 1): "semantic stage", (1,): "semantic scorer alone"}

Coverages = dict[str, list[list[float]]]
Variant = Callable[[Floats, Floats], Floats]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("docs/ablation.md"))
    arguments = parser.parse_args()
    parts = [_PREFACE]
    for name in FILES:
        rows, _ = read_training_set(arguments.data_dir / f"{name}.jsonl", None)
        found: dict[tuple[int, ...], Coverages] = {stages: {} for stages in TABLES}
        for seed in range(SPLITS):
            order = np.random.default_rng(seed).permutation(len(rows))
            some = rows.take(np.sort(order[: round(SHARE * len(rows))]))
            folds = group_folds(some.groups, some.y, FOLDS, seed)
            fits = fit_stages(some, folds, seed=seed, jobs=1)
            for stages, coverages in found.items():
                _measure(fits, stages, coverages)
            print(name, seed, flush=True)
        parts += [
            _table(f"{name}, {TABLES[stages]}", coverages) for stages, coverages in found.items()
        ]
    arguments.out.write_text("\n".join(parts))


def _variants() -> dict[str, Variant]:
    """From the kept features and those tried: what the acceptor sees."""
    return {
        "all kept features": lambda kept, _: kept,
        **{
            f"without {name}": lambda kept, _, i=i: np.delete(kept, i, axis=1)  # type: ignore[misc]
            for i, name in enumerate(KEPT)
        },
        **{
            f"with {name}": lambda kept, more, i=i: np.column_stack([kept, more[:, i]])  # type: ignore[misc]
            for i, name in enumerate(ADDED)
        },
        "only top-1, top-2, margin, entropy": lambda kept, more: np.column_stack(
            [kept[:, 0], more[:, :3]]
        ),
    }


def _measure(fits: StageFits, stages: tuple[int, ...], coverages: Coverages) -> None:
    """Append every variant's certified coverages, one an α."""
    scores = [fits.stages[i].models.scores for i in stages]
    mixture = fit_mixture(scores, fits.rows.y)
    label, kept, agrees = acceptor_rows(scores, fits.rows.y, fits.folds, mixture)
    more = _tried(fits, label, mix(mixture, scores))
    for name, choose in _variants().items():
        found = certified_coverages(_evidence(choose(kept, more), agrees, fits), ALPHAS)
        coverages.setdefault(name, []).append(found)


def _tried(fits: StageFits, label: np.ndarray, mixed: Floats) -> Floats:
    """float64[n, 6]: features that were tried and left out."""
    top = np.exp(np.sort(mixed, axis=1)[:, :-3:-1])
    scores = [stage.models.scores for stage in fits.stages]
    votes = np.mean([s.argmax(axis=1) == label for s in scores], axis=0)
    return np.column_stack([
        top[:, 1], top[:, 0] - top[:, 1], -(np.exp(mixed) * mixed).sum(axis=1),
        scores[0].max(axis=1), votes, _neighbour_agreement(fits, label),
    ])  # fmt: skip


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


def _evidence(features: Floats, agrees: Mask, fits: StageFits) -> Evidence:
    """Accept scores by acceptors that did not see a row's fold."""
    scores = out_of_fold(features, agrees, fits.folds)
    return Evidence(scores, agrees, fits.rows.groups, np.ones(len(agrees)), "crossfit")


def certified_coverages(
    evidence: Evidence, alphas: Sequence[float], next_sample: float = NEXT_SAMPLE
) -> list[float]:
    """At each α; 0 where it is refused."""
    verdicts = frontier(evidence, alphas, Settings().delta, next_sample)
    return [v.coverage if isinstance(v, Certified) else 0.0 for v in verdicts]


def out_of_fold(features: Floats, agrees: Mask, folds: Ints) -> Floats:
    """float64[n]: accept scores."""
    scores = np.empty(len(agrees))
    for fold in range(FOLDS):
        inside = folds == fold
        scores[inside] = fit_linear(features[~inside], agrees[~inside])(features[inside])
    return scores


def _table(title: str, coverages: Coverages) -> str:
    kept = np.asarray(coverages["all kept features"])
    lines = [
        f"## {title}",
        "",
        "| acceptor | " + " | ".join(f"α {alpha}" for alpha in ALPHAS) + " |",
        "|---" * (len(ALPHAS) + 1) + "|",
        _row("all kept features", [f"{coverage:.3f}" for coverage in kept.mean(axis=0)]),
    ]
    for name, found in list(coverages.items())[1:]:
        change = 100.0 * (np.asarray(found) - kept)
        lines.append(
            _row(
                name,
                [
                    f"{mean:+.2f} ± {spread:.2f}"
                    for mean, spread in zip(
                        change.mean(axis=0), change.std(axis=0, ddof=1), strict=True
                    )
                ],
            )
        )
    return "\n".join([*lines, ""])


def _row(name: str, figures: list[str]) -> str:
    return f"| {name} | " + " | ".join(figures) + " |"


_PREFACE = f"""# Ablation

What each feature of the acceptor is worth in certified coverage (δ = 0.1, cross-fitted). Each table
is of {SPLITS} random {SHARE:.0%} of a file's rows: in its first row the mean coverage, below it the
change with one feature left out or added, in points of coverage: mean ± standard deviation over the
same {SPLITS} draws. The lexical stage cannot have the agreement of stages and of neighbours, which
need the embedding: there they say what the semantic stage adds. Written by `make ablation`; read in
[decisions](decisions.md).
"""

if __name__ == "__main__":
    main()
