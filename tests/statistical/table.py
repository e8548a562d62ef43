"""`make bench-validity`: how often certificates are wrong, in the worlds the tests simulate.

Writes the table in docs/gate.md. TRACER_REPEATS: seeds a cell.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from simulation import ALPHA, DELTA, REPEATS, wrong_certificates
from test_gate_validity import SINGLE
from test_weights_validity import days
from worlds import (
    CASCADES,
    WEIGHTED,
    World,
    heavy_errors,
    light_errors,
    true_agreement,
    two_kinds,
    world,
)

from benchmarks.tables import replace_section
from shared.core import gate
from shared.core.evidence_weights import scale_by_period
from shared.core.policies import Evidence

SIZES = (200, 600, 2_000, 6_000)
# Evidence of n rows from a seed, and the true agreement at a threshold.
Case = tuple[Callable[[int, int], Evidence], Callable[[float], float]]

WEIGHTS: dict[str, World] = WEIGHTED | {
    "a fifth is seen at 10% and makes all errors": heavy_errors(0.2, 0.1),
    "half is seen at 5% and makes all errors": heavy_errors(0.5, 0.05),
    "15% is seen at 2% and makes all errors; the gate knows": heavy_errors(
        0.15, 0.02, heaviest=50.0
    ),
    "half is seen at 5% and never errs": light_errors(0.5, 0.05),
    "80% is seen at 20% and never errs": light_errors(0.8, 0.2),
    "80% is seen at 5% and errs at 6%": two_kinds(0.8, 0.05, 0.06),
}


def cases() -> dict[str, dict[str, Case]]:
    single: dict[str, Case] = {
        name: (
            partial(world, agreement_at=at),
            partial(true_agreement, agreement_at=at),
        )
        for name, at in SINGLE.items()
    }
    wrong = SINGLE["every policy is wrong"]
    for times in (2, 5):
        single[f"every policy is wrong, each row {times} times"] = (
            partial(world, agreement_at=wrong, duplicates=times),
            partial(true_agreement, agreement_at=wrong),
        )
    of_days: dict[str, Case] = {}
    for rate in (0.03, 0.1, 0.18):
        audited = two_kinds(0.5, 0.05, rate)
        of_days[f"n rows seen whole, four days of 525; the half handled errs at {rate:.0%}"] = (
            partial(_four_days, audited),
            audited.agreement,
        )
    return {
        "one stage": single,
        "cascades": {name: (w.evidence, w.agreement) for name, w in CASCADES.items()},
        "weights": {name: (w.evidence, w.agreement) for name, w in WEIGHTS.items()},
        "days with audits, scaled": of_days,
    }


def _four_days(audited: World, n: int, seed: int) -> Evidence:
    return days(audited, n, 4, scale_by_period, seed)


def main() -> None:
    gate.GRID = (ALPHA,)  # walks at lower α only make it stricter
    error = (DELTA * (1 - DELTA) / REPEATS) ** 0.5
    lines = [
        f"Share of wrong certificates, of {REPEATS} seeds each, at α = {ALPHA} and δ = {DELTA}, "
        "of the traffic alone (`next_sample: 0`).",
        "A world where every policy is wrong has an agreement just below α whatever the threshold: "
        "each certificate is wrong.",
        f"The standard error of a share of {DELTA} is {error:.3f}: some cells of so many lie above "
        "by chance.",
        "",
        "| world | " + " | ".join(f"n = {n:,}" for n in SIZES) + " |",
        "|---" * (len(SIZES) + 1) + "|",
    ]
    for kind, worlds in cases().items():
        for name, (evidence, agreement) in worlds.items():
            cells = []
            for n in SIZES:
                bad = wrong_certificates(partial(evidence, n), agreement)
                cells.append(f"{bad / REPEATS:.3f}")
            lines.append(f"| {kind}: {name} | " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    replace_section(Path("docs/gate.md"), "simulations", "\n".join(lines))


if __name__ == "__main__":
    main()
