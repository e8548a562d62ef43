"""`make bench-forecast`: did the learning curves' forecasts come true?

A part of the traces is fitted and its curves look ahead to twice and four times the traces; then
those are fitted, and what the same scorers do out of fold there is the truth. Writes
benchmarks/results/forecast.json and the table in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.tables import replace_section
from services.ctl.bench_commands import read_training_set
from shared.core.grouping import group_folds
from shared.core.report.curves import NO_GAIN, RISK, curve
from shared.core.report.growth import Growth, growth
from shared.core.stages import FOLDS, fit_stages
from shared.core.training import TrainingSet
from shared.core.types import Ints, Mask

HERE = Path(__file__).parent
DATA = ("banking77", "clinc150")
STARTS = (1_000, 2_000, 4_000)
TIMES = (2, 4)
MINIMUM_TRUTH = 60  # rows of a slice, or its truth is not known well enough to judge a forecast


@dataclass(frozen=True)
class Forecast:
    """Of one slice: agreement at the start, the forecast with its interval, and what came."""

    data: str
    seed: int
    start: int
    times: int
    slice: str
    now: float
    told: float
    lower: float
    upper: float
    came: float
    n_truth: int
    verdict: str

    @property
    def hit(self) -> bool:
        return self.lower <= self.came <= self.upper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", nargs="*", default=list(DATA))
    parser.add_argument("--starts", nargs="*", type=int, default=list(STARTS))
    parser.add_argument("--dry", action="store_true", help="Print, and write nothing.")
    arguments = parser.parse_args()
    found: list[Forecast] = []
    for name in arguments.data:
        rows, _ = read_training_set(arguments.data_dir / f"{name}.jsonl", None)
        for seed in range(arguments.seeds):
            found += forecasts(name, rows, seed, arguments.starts)
    orders = "one random order" if arguments.seeds == 1 else f"{arguments.seeds} random orders"
    told = f"Over {orders} of the traces:\n\n{table(found)}\n\n{verdicts(found)}"
    print(told)
    if not arguments.dry:
        plain = [asdict(one) | {"hit": one.hit} for one in found]
        (HERE / "results" / "forecast.json").write_text(json.dumps(plain, indent=1) + "\n")
        replace_section(Path("docs/benchmarks.md"), "forecast", told)


def forecasts(name: str, rows: TrainingSet, seed: int, starts: list[int]) -> list[Forecast]:
    """Nested samples of whole groups, each fitted once and used as start and as truth."""
    order = np.random.default_rng(1_000 + seed).permutation(int(rows.groups.max()) + 1)[rows.groups]
    place = np.argsort(order, kind="stable")
    sizes = sorted({start * t for start in starts for t in (1, *TIMES) if start * t <= len(rows)})
    grown: dict[int, tuple[TrainingSet, Growth]] = {}
    for size in sizes:
        some = rows.take(np.sort(place[:size]))
        folds = group_folds(some.groups, some.y, FOLDS, seed)
        grown[size] = some, growth(fit_stages(some, folds, seed=seed, jobs=2), seed=seed, jobs=2)
    found = []
    for start in starts:
        for times in TIMES:
            if start in grown and start * times in grown:
                found += _compare(name, seed, start, times, grown[start], grown[start * times])
    return found


def _compare(
    name: str, seed: int, start: int, times: int,
    before: tuple[TrainingSet, Growth], after: tuple[TrainingSet, Growth],
) -> list[Forecast]:  # fmt: skip
    """All traffic and every label with rows enough for a curve and for a truth."""
    some, seen = before
    more, came = after
    y, later = some.y[seen.at], more.y[came.at]
    found = []
    for label in (-1, *range(some.n_labels)):
        inside, there = _rows(y, label), _rows(later, label)
        if there.sum() < MINIMUM_TRUTH:
            continue
        # Fitted on four fifths, as the truth is: the curve is asked about the same number.
        told = curve(
            seen, inside, np.ones(len(y)), some.groups[seen.at], n=round(seen.sizes[-1]),
            target=0.95, seed=seed,
        )  # fmt: skip
        if told is None:
            continue
        agreement = told.forecast[TIMES.index(times)][1]
        found.append(
            Forecast(
                name, seed, start, times, "all" if label < 0 else some.labels[label],
                told.points[-1].value, agreement.value, agreement.lower, agreement.upper,
                float(came.right[-1][there].mean()), int(there.sum()), told.verdict,
            )
        )  # fmt: skip
    return found


def _rows(y: Ints, label: int) -> Mask:
    return np.ones(len(y), dtype=np.bool_) if label < 0 else np.asarray(y == label)


def table(found: list[Forecast]) -> str:
    lines = [
        f"| data | traces | forecast for | of | forecasts | came true | within {1 - RISK:.0%} "
        "interval | width | mean error | error of “stays as it is” |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups = sorted({(f.data, f.start, f.times, f.slice != "all") for f in found})
    for data, start, times, labels in groups:
        some = [f for f in found if (f.data, f.start, f.times, f.slice != "all")
                == (data, start, times, labels)]  # fmt: skip
        hits = sum(f.hit for f in some)
        error = np.mean([abs(f.told - f.came) for f in some])
        naive = np.mean([abs(f.now - f.came) for f in some])
        width = np.mean([f.upper - f.lower for f in some])
        lines.append(
            f"| {data} | {start:,} | {start * times:,} | {'labels' if labels else 'all traffic'} | "
            f"{len(some)} | {hits} | {hits / len(some):.0%} | {width:.3f} | {error:.3f} | "
            f"{naive:.3f} |"
        )
    return "\n".join(lines)


def verdicts(found: list[Forecast]) -> str:
    """Whether what was said of twice the traces in a word is what happened."""
    twice = [one for one in found if one.times == 2]
    lines = [
        "| verdict on twice the traces | slices | agreement grew by | grew at all | "
        f"grew by less than {NO_GAIN:.0%} |",
        "|---|---|---|---|---|",
    ]
    for verdict in ("growing", "plateaued", "cannot_tell"):
        gains = np.asarray([one.came - one.now for one in twice if one.verdict == verdict])
        if not len(gains):
            lines.append(f"| {verdict.replace('_', ' ')} | 0 | – | – | – |")
            continue
        lines.append(
            f"| {verdict.replace('_', ' ')} | {len(gains)} | {gains.mean():.3f} on average | "
            f"{np.mean(gains > 0):.0%} | {np.mean(gains < NO_GAIN):.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
