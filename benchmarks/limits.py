"""`make bench-limits`: what keeps certified coverage from being higher; writes docs/gate.md.

The semantic stage alone, out of fold on the published training rows, with one thing after the other
taken away: the walk, the claim about samples, the bound, the acceptor's mistakes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.ablation import certified_coverages, out_of_fold
from benchmarks.tables import replace_section
from services.ctl.bench_commands import read_training_set
from services.ctl.files import read_rows
from shared.core.fit import Settings
from shared.core.gate import Rule
from shared.core.grouping import group_folds
from shared.core.head import acceptor_rows, fit_mixture
from shared.core.policies import Evidence
from shared.core.stages import FOLDS, fit_stages
from shared.core.training import TrainingSet
from shared.core.types import Floats, Ints, Mask, Scores
from shared.core.weighted_counts import Counts

FILES = ("banking77", "banking77_qwen3_30b")
ALPHAS = (0.90, 0.95, 0.97, 0.98, 0.99)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    lines = [
        "| | " + " | ".join(f"α {alpha}" for alpha in ALPHAS) + " |",
        "|---" * (len(ALPHAS) + 1) + "|",
    ]
    for name in FILES:
        agreement, found = measure(arguments.data_dir / f"{name}.jsonl")
        lines.append(f"| *{name}, agreement if all is answered {agreement:.4f}* |" + " |" * 5)
        lines += [
            f"| {what} | " + " | ".join(f"{coverage:.3f}" for coverage in coverages) + " |"
            for what, coverages in found.items()
        ]
    replace_section(Path("docs/gate.md"), "limits", "\n".join(lines))


def measure(file: Path) -> tuple[float, dict[str, list[float]]]:
    """`conditions` on the published training rows of a file."""
    rows, _ = read_training_set(file, None)
    splits = [row.split for row in read_rows(file) if not (row.split or "").startswith("oos")]
    rows = rows.take(np.asarray([split != "test" for split in splits]))
    folds = group_folds(rows.groups, rows.y, FOLDS, 0)
    fits = fit_stages(rows, folds, seed=0, jobs=1)
    return conditions([stage.models.scores for stage in fits.stages], rows, folds)


def conditions(
    scores: Sequence[Scores], rows: TrainingSet, folds: Ints
) -> tuple[float, dict[str, list[float]]]:
    """Agreement of all answers, and the coverage at every α under each condition."""
    _, features, agrees = acceptor_rows(scores, rows.y, folds, fit_mixture(scores, rows.y))
    accept = out_of_fold(features, agrees, folds)
    evidence = Evidence(accept, agrees, rows.groups, np.ones(len(rows)), "crossfit")
    delta = Settings().delta
    rules = [Rule(alpha, delta, Settings().next_sample) for alpha in ALPHAS]
    of_traffic = [Rule(alpha, delta, 0.0) for alpha in ALPHAS]
    oracle = agrees.astype(np.float64)
    return float(agrees.mean()), {
        "certified of samples": certified_coverages(evidence, ALPHAS),
        "of samples, tested anywhere": [widest(accept, agrees, rule.lasts) for rule in rules],
        "certified of the traffic alone": certified_coverages(evidence, ALPHAS, 0.0),
        "of the traffic alone, tested anywhere": [
            widest(accept, agrees, rule.certifies) for rule in of_traffic
        ],
        "no bound: agreement as it was seen": [
            widest(accept, agrees, _seen(alpha)) for alpha in ALPHAS
        ],
        "certified, with an acceptor that knows every error": [
            widest(oracle, agrees, rule.lasts) for rule in rules
        ],
    }


def widest(scores: Floats, agrees: Mask, passes: Callable[[Counts], Mask]) -> float:
    """The largest coverage at which the surest rows pass."""
    errors = np.cumsum(~agrees[np.argsort(-scores, kind="stable")])
    size = np.arange(1, len(agrees) + 1)
    passing = size[passes(Counts(errors.astype(np.float64), size.astype(np.float64)))]
    return float(passing[-1] / len(agrees)) if len(passing) else 0.0


def _seen(alpha: float) -> Callable[[Counts], Mask]:
    return lambda counts: np.asarray(counts.errors <= (1.0 - alpha) * counts.size)


if __name__ == "__main__":
    main()
