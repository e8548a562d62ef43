"""A closed window: everything its verdict is made from, and the figures that are told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from services.trainer.examination import Examination
from shared.contracts.tasks import Task
from shared.registry.base import Active


@dataclass(frozen=True)
class Case:
    """`fence`: of this trainer. `active`: the pointer when the window was taken up."""

    task: Task
    day: date
    fence: int
    active: Active
    found: Examination

    def figures(self) -> dict[str, float]:
        """What the verdict was made of, for the announcement."""
        figures: dict[str, float | None] = {
            "n_evidence": self.found.n_evidence,
            "n_stored": self.found.n_stored,
            "challenger_coverage": self.found.challenger.coverage,
        }
        if self.found.fresh is not None:
            fresh = self.found.fresh
            figures |= {
                "fresh_evidence": fresh.n,
                "incumbent_coverage": fresh.coverage,
                "incumbent_agreement": fresh.agreement,
                "incumbent_agreement_lower": fresh.lower,
                "incumbent_agreement_upper": fresh.upper,
            }
        return {name: round(float(v), 4) for name, v in figures.items() if v is not None}
