"""What a closed window comes to: the challenger fitted, the incumbent put to fresh evidence.

All that a refit computes and nothing that it changes, so that it can happen in another process.
Light to import: the process that polls Kafka needs none of the libraries that fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Protocol

from shared.contracts.manifest import Teacher
from shared.contracts.tasks import Task
from shared.registry.base import Artifact

if TYPE_CHECKING:
    from services.trainer.reporting import Outcome
    from shared.contracts.report import Report
    from shared.core.fresh import Fresh
    from shared.fitting.challenger import Challenger


@dataclass(frozen=True)
class Examination:
    """n_traces, n_evidence: of the horizon fitted on. n_stored: how many traces it was drawn from,
    where it is a reservoir. answered_by: the teacher of the evidence. fresh: the incumbent's, None
    where there was none to judge. tripped: the versions since whose trip the evidence is."""

    n_traces: int
    n_evidence: int
    n_stored: int | None
    answered_by: Teacher
    challenger: Challenger
    fresh: Fresh | None
    tripped: frozenset[str] = frozenset()


class Examine(Protocol):
    """Raises OSError or Retryable where the same call may succeed later, FitFailed where not."""

    def __call__(self, task: Task, day: date, incumbent: Artifact | None) -> Examination: ...

    def report(self, task: Task, day: date, outcome: Outcome) -> Report:
        """Of the examination just made, and what came of it."""
        ...


class FitFailed(Exception):
    """The fit came to nothing: it failed, took too long, or its process died."""
