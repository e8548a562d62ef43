"""`make bench-live`: the live certificate on simulated audits.

False trips, delays of trip and suspicion, probations, the bound, time per audit, and what other
priors would do. Writes benchmarks/results/live.json and a section of docs/gate.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import replace_section
from shared.core.live import PRIOR, LiveCertificate, Prior

Holds = Callable[[LiveCertificate], bool]
HERE = Path(__file__).parent
LIFE = 5_000
# Audits that agree with `before` come first, then those that agree with `after`.
CHANGES = (
    (0, 0.96, 0.92), (0, 0.96, 0.88),
    (300, 0.96, 0.92), (300, 0.96, 0.90), (300, 0.96, 0.85), (300, 0.96, 0.60),
    (2_000, 0.97, 0.92), (2_000, 0.97, 0.85),
)  # fmt: skip
PRIORS = {
    "ours": PRIOR,
    "from the start only": Prior(from_the_start=1.0),
    "half from the start": Prior(from_the_start=0.5),
    "half-life 2,000": Prior(half_life=2_000),
    "ours, even weights": Prior(weights=(1.0,) * len(PRIOR.odds)),
    "1.1 to 12 times, even": Prior(
        odds=(1.1, 1.3, 1.6, 2.0, 2.6, 3.5, 5.0, 8.0, 12.0), weights=(1.0,) * 9
    ),
    "even between α and no agreement": Prior(
        odds=tuple((0.05 + 0.95 * u) / (0.95 - 0.95 * u) * 19 for u in np.arange(0.5, 40) / 40),
        weights=(1.0,) * 40,
    ),
}


def outcomes(rng: np.random.Generator, *parts: tuple[int, float]) -> list[bool]:
    """Audits: so many that agree with this probability, then so many …"""
    return [agrees for n, p in parts for agrees in (rng.uniform(size=n) < p).tolist()]


def first(live: LiveCertificate, audits: list[bool], holds: Holds) -> int:
    """The number of audits after which it holds, one more than there are for never."""
    for number, agrees in enumerate(audits, start=1):
        live.observe(agrees)
        if holds(live):
            return number
    return len(audits) + 1


def _suspicious(live: LiveCertificate) -> bool:
    return live.suspicious


def _tripped(live: LiveCertificate) -> bool:
    return live.tripped


def false_trips(alpha: float, delta: float, repeats: int, prior: Prior = PRIOR) -> float:
    trips = 0
    for seed in range(repeats):
        live = LiveCertificate(alpha, delta, prior)
        live.observe_all(outcomes(np.random.default_rng(seed), (LIFE, alpha)))
        trips += live.tripped
    return trips / repeats


def delays(
    change: tuple[int, float, float], delta: float, repeats: int, prior: Prior = PRIOR
) -> dict[str, float]:
    """Median audits from a change to suspicion and to the trip, at α = 0.95.

    Of the runs in which it did not come before the change.
    """
    n, before, after = change
    tripped: list[int] = []
    suspicious: list[int] = []
    for seed in range(repeats):
        audits = outcomes(np.random.default_rng(seed), (n, before), (LIFE, after))
        for times, holds in ((suspicious, _suspicious), (tripped, _tripped)):
            number = first(LiveCertificate(0.95, delta, prior), audits, holds)
            times += [number - n] if number > n else []
    return {"suspicion": float(np.median(suspicious)), "trip": float(np.median(tripped))}


def false_alarms(alpha: float, agreement: float, repeats: int) -> dict[str, float]:
    """Audits until suspicion; 30,000 for later ones, so the mean is rather more."""
    times = []
    for seed in range(repeats):
        live = LiveCertificate(alpha, 1e-9)
        audits = outcomes(np.random.default_rng(seed), (30_000, agreement))
        times.append(first(live, audits, _suspicious))
    return {"mean": float(np.mean(times)), "median": float(np.median(times))}


def probations(alpha: float, agreement: float, repeats: int) -> dict[str, float]:
    """How probations end that begin with the first audit; at most LIFE audits long."""
    cleared, tripped, lengths = 0, 0, []
    for seed in range(repeats):
        live = LiveCertificate(alpha, 0.1)
        live.begin_probation()
        audits = outcomes(np.random.default_rng(seed), (LIFE, agreement))
        lengths.append(first(live, audits, lambda live: live.cleared or live.tripped))
        cleared, tripped = cleared + live.cleared, tripped + live.tripped
    return {
        "cleared": cleared / repeats,
        "tripped": tripped / repeats,
        "median_audits": float(np.median(lengths)),
    }


def bounds(agreement: float, repeats: int) -> dict[str, Any]:
    """How far the bound is below the truth, and how often it ever is above it."""
    at = (100, 300, 1_000, 5_000)
    below: dict[int, list[float]] = {n: [] for n in at}
    wrong = 0
    for seed in range(repeats):
        live = LiveCertificate(0.95, 0.1)
        above = False
        for n, agrees in enumerate(outcomes(np.random.default_rng(seed), (LIFE, agreement)), 1):
            live.observe(agrees)
            if n in below:
                below[n].append(agreement - live.lower)
            if n % 25 == 0:
                above |= live.lower > agreement
        wrong += above
    return {"ever_above": wrong / repeats} | {f"below_at_{n}": np.mean(below[n]) for n in at}


def microseconds(audits: int = 100_000) -> dict[str, float]:
    live = LiveCertificate(0.95, 0.1)
    stream = outcomes(np.random.default_rng(0), (audits, 0.96))
    begin = time.process_time()
    live.observe_all(stream)
    middle = time.process_time()
    for _ in range(200):
        _ = live.lower
    end = time.process_time()
    return {"observe": (middle - begin) / audits * 1e6, "lower": (end - middle) / 200 * 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=400)
    repeats = parser.parse_args().repeats
    results: dict[str, Any] = {"repeats": repeats, "life": LIFE}
    results["microseconds"] = microseconds()
    results["false_trips"] = {
        f"α {alpha}, δ {delta}": false_trips(alpha, delta, repeats)
        for alpha, delta in ((0.95, 0.05), (0.95, 0.1), (0.9, 0.1), (0.99, 0.1))
    }
    results["delays"] = {
        f"{before} to {after} after {n}, δ {delta}": delays((n, before, after), delta, repeats)
        for delta in (0.05, 0.1)
        for n, before, after in CHANGES
    }
    results["false_alarms"] = {
        f"α {alpha}, agreement {agreement}": false_alarms(alpha, agreement, repeats // 4)
        for alpha, agreement in ((0.95, 0.95), (0.95, 0.96), (0.9, 0.9), (0.9, 0.91), (0.99, 0.99))
    }
    results["probations"] = {
        f"α {alpha}, agreement {agreement}": probations(alpha, agreement, repeats)
        for alpha, agreement in (
            (0.95, 0.97), (0.95, 0.96), (0.95, 0.95), (0.95, 0.94), (0.95, 0.92), (0.95, 0.85),
            (0.9, 0.91), (0.9, 0.87), (0.99, 0.995), (0.99, 0.96),
        )
    }  # fmt: skip
    results["bounds"] = {f"agreement {p}": bounds(p, repeats // 4) for p in (0.85, 0.96, 0.99)}
    results["priors"] = {
        name: {
            "false_trips": false_trips(0.95, 0.05, repeats, prior),
            **{
                f"{before} to {after} after {n}": delays((n, before, after), 0.05, repeats, prior)
                for n, before, after in CHANGES[:5]
            },
        }
        for name, prior in PRIORS.items()
    }
    text = json.dumps(results, indent=1, ensure_ascii=False)
    print(text)
    (HERE / "results" / "live.json").write_text(text + "\n")
    replace_section(Path("docs/gate.md"), "live", table(results))


def table(results: dict[str, Any]) -> str:
    trips = "; ".join(f"{share:.1%} at {at}" for at, share in results["false_trips"].items())
    alarms = "; ".join(f"{t['mean']:,.0f} at {at}" for at, t in results["false_alarms"].items())
    lines = [
        f"{results['repeats']} simulated lives. False trips in {results['life']:,} audits at "
        f"agreement exactly α: {trips}. Mean number of audits to a false suspicion: {alarms}. "
        f"{results['microseconds']['observe']:.1f} µs an audit.",
        "",
        "| agreement, at α = 0.95 | audits to suspicion (median) | to the trip |",
        "|---|---|---|",
    ]
    lines += [
        f"| {change} | {found['suspicion']:.0f} | {found['trip']:.0f} |"
        for change, found in results["delays"].items()
    ]
    lines += ["", "| probation at | cleared | tripped | audits (median) |", "|---|---|---|---|"]
    lines += [
        f"| {at} | {p['cleared']:.1%} | {p['tripped']:.1%} | {p['median_audits']:.0f} |"
        for at, p in results["probations"].items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
