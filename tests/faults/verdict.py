"""What a load run came to: flat memory, no growing lag, stable latency, full recovery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.faults.meter import Sample, percentile

MOST_GROWTH = 0.05  # of memory
MOST_SLOWER = 1.5  # the last third's 95th percentile to the middle third's
_NOISE_MS = 50.0
_MEGABYTE = 1 << 20


def thirds(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """The middle and the last third; the first is for warming up."""
    third = len(samples) // 3
    return samples[third : 2 * third], samples[2 * third :]


def steady(samples: Sequence[Sample], rate: float) -> dict[str, Any]:
    """Figures and verdicts of a phase at `rate` requests a second. Peaks of memory are compared,
    because the trainer's rises until its window closes."""
    middle, last = thirds(samples)
    memory = {
        name: {
            "peak_mb": round(_peak(last, name) / _MEGABYTE, 1),
            "growth": round(_peak(last, name) / max(1, _peak(middle, name)) - 1, 4),
        }
        for name in samples[-1].memory
    }
    seconds = samples[-1].at - samples[0].at
    cores = {
        name: round(max(0.0, used - samples[0].cpu[name]) / seconds, 3)
        for name, used in samples[-1].cpu.items()
    }
    lag = {
        name: [_mean(middle, lambda s, n=name: s.lag[n]), _mean(last, lambda s, n=name: s.lag[n])]
        for name in samples[-1].lag
    }
    latency = {who: _latencies(middle, last, who) for who in ("surrogate", "teacher")}
    return {
        "rate": round(rate, 1),
        "seconds": round(seconds, 1),
        "decided": samples[-1].decided - samples[0].decided,
        "cores": cores,
        "memory": memory,
        "memory_flat": all(of["growth"] <= MOST_GROWTH for of in memory.values()),
        "lag": lag,
        "lag_flat": all(late <= early + 2 * rate for early, late in lag.values()),
        "latency_ms": latency,
        "latency_stable": all(_stable(of) for of in latency.values()),
    }


def _peak(samples: Sequence[Sample], name: str) -> int:
    return max(sample.memory[name] for sample in samples)


def _mean(samples: Sequence[Sample], of: Callable[[Sample], float]) -> float:
    return round(sum(of(sample) for sample in samples) / max(1, len(samples)), 1)


def _latencies(
    middle: Sequence[Sample], last: Sequence[Sample], who: str
) -> dict[str, list[float | None]]:
    """Percentiles of the middle third and of the last one."""
    values = [
        sorted(value for sample in part for value in sample.latency.get(who, ()))
        for part in (middle, last)
    ]
    return {
        f"p{round(100 * share)}": [percentile(part, share) for part in values]
        for share in (0.5, 0.95, 0.99)
    }


def _stable(latency: dict[str, list[float | None]]) -> bool:
    early, late = latency["p95"]
    return early is None or late is None or late <= MOST_SLOWER * early + _NOISE_MS
