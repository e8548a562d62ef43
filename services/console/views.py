"""What pages show and the JSON API answers: the same figures, by the same names.

Shares are 0 to 1, money is US dollars, times are UTC. None means: nothing to say it of.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Interval:
    """A share on `n` observations, with bounds."""

    value: float | None
    lower: float | None
    upper: float | None
    n: int


@dataclass(frozen=True, slots=True)
class DayView:
    """One day's requests, by the time of the request in the task's time zone. `agreement`: of its
    audits, Wilson's interval at 95%. `saved`: calls not made, at the day's mean price."""

    day: date
    requests: int
    handled: int
    audited: int
    deferred: int
    failed: int
    coverage: float | None
    agreement: Interval
    saved: float | None


@dataclass(frozen=True, slots=True)
class TotalsView:
    """The same over the newest `days` days; `price` is the mean price of a call."""

    days: int
    requests: int
    handled: int
    audited: int
    deferred: int
    coverage: float | None
    calls_saved: int
    saved: float | None
    price: float | None


@dataclass(frozen=True, slots=True)
class CertificateView:
    """What was certified, in a sentence, in full and in figures."""

    sentence: str
    in_full: tuple[str, ...]
    kind: str
    method: str
    alpha: float
    delta: float
    n_evidence: int
    coverage: float
    agreement: float
    agreement_lower: float


@dataclass(frozen=True, slots=True)
class LiveView:
    """Audits of a version: `lower` bounds its agreement at the task's δ, whenever one looks."""

    n: int
    agreement: float | None
    lower: float | None


@dataclass(frozen=True, slots=True)
class TrialView:
    version: str
    mode: str
    share: float
    live: LiveView


@dataclass(frozen=True, slots=True)
class EntryView:
    """One thing that happened. `announced`: False where only the registry knows of it. `alpha`: of
    the kind `alpha`, what is asked for from then on; None: what the tasks file says."""

    at: datetime
    kind: str
    title: str
    tone: str
    reason: str
    version: str | None
    previous: str | None
    actor: str | None
    epoch: int | None
    window: str | None
    n_traces: int | None
    coverage: float | None
    agreement_lower: float | None
    alpha: float | None
    figures: dict[str, float]
    announced: bool


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task at a glance. `state`: serving, probation, paused, tripped, refitting where more is
    asked for than the active version is certified for, or none without one. `alpha`: asked for
    now, `configured_alpha` by the tasks file. `trouble`: what of it cannot be read, and why."""

    task: str
    alpha: float
    configured_alpha: float
    delta: float
    state: str
    state_title: str
    state_says: str
    tone: str
    active: str | None
    epoch: int
    certified_coverage: float | None
    certified_lower: float | None
    live: LiveView | None
    trial: TrialView | None
    recent: TotalsView
    coverage_by_day: tuple[tuple[date, float | None], ...]
    n_versions: int
    newest: EntryView | None
    trouble: str | None


@dataclass(frozen=True, slots=True)
class Overview:
    tasks: tuple[TaskRow, ...]
    requests: int
    calls_saved: int
    saved: float | None
    coverage: float | None
    troubles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReasonView:
    """Why requests were deferred: `share` of those deferred."""

    reason: str
    title: str
    says: str
    n: int
    share: float


@dataclass(frozen=True, slots=True)
class VersionRow:
    """`standing`: active, trial or stored."""

    version: str
    standing: str
    window: str | None
    n_traces: int | None
    alpha: float | None
    coverage: float | None
    agreement: float | None
    agreement_lower: float | None
    live: LiveView
    trouble: str | None


@dataclass(frozen=True, slots=True)
class ActionView:
    """What may be done now. `versions`: to choose from; `expects` must still be active, or on
    trial, when it is done."""

    name: str
    title: str
    says: str
    danger: bool
    expects: str | None
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskView:
    row: TaskRow
    days: tuple[DayView, ...]
    reasons: tuple[ReasonView, ...]
    timeline: tuple[EntryView, ...]
    versions: tuple[VersionRow, ...]
    certificate: CertificateView | None
    actions: tuple[ActionView, ...]
    troubles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AlphaView:
    """What asking for `alpha` would do: `coverage` by the frontier of the active version, 0 where
    it would be refused, None where the frontier does not say."""

    alpha: float
    now: float
    certified_for: float | None
    coverage: float | None
    agreement_lower: float | None
    says: str


@dataclass(frozen=True, slots=True)
class FrontierView:
    """What the same fit certifies at another α; `coverage` 0: refused."""

    alpha: float
    coverage: float
    agreement: float
    agreement_lower: float


@dataclass(frozen=True, slots=True)
class StageView:
    name: str
    features: str
    threshold: float
    novelty_cut: float
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class VersionView:
    """One version in full. `report` as in schemas/reports, None where none was stored."""

    task: str
    row: VersionRow
    certificate: CertificateView
    frontier: tuple[FrontierView, ...]
    stages: tuple[StageView, ...]
    labels: tuple[str, ...]
    deferred_labels: tuple[str, ...]
    encoder: str
    traces_sha256: str
    teacher: str | None
    prompt: str | None
    candidates: tuple[dict[str, Any], ...]
    families: tuple[dict[str, Any], ...]
    libraries: dict[str, str]
    report: Any | None
    troubles: tuple[str, ...]
