"""A closed window: everything its verdict is made from, and the figures that are told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from shared.contracts.manifest import Manifest
from shared.contracts.tasks import Task
from shared.core.fresh import Fresh
from shared.fitting.challenger import Challenger
from shared.fitting.horizon import Horizon
from shared.registry.base import Active


@dataclass(frozen=True)
class Incumbent:
    """The version that answers now, on evidence it was not fitted on."""

    manifest: Manifest
    fresh: Fresh


@dataclass(frozen=True)
class Case:
    """`fence`: of this trainer. `active`: the pointer when the window was taken up. `notes`: what a
    reader of the report should know of what was left out."""

    task: Task
    day: date
    fence: int
    horizon: Horizon
    active: Active
    challenger: Challenger
    incumbent: Incumbent | None
    notes: tuple[str, ...] = ()

    def figures(self) -> dict[str, float]:
        """What the verdict was made of, for the announcement."""
        figures: dict[str, float | None] = {
            "n_evidence": int(self.horizon.evidence.sum()),
            "challenger_coverage": self.challenger.coverage,
        }
        if self.incumbent is not None:
            found = self.incumbent.fresh
            figures |= {
                "fresh_evidence": found.n,
                "incumbent_coverage": found.coverage,
                "incumbent_agreement": found.agreement,
                "incumbent_agreement_lower": found.lower,
                "incumbent_agreement_upper": found.upper,
            }
        return {name: round(float(v), 4) for name, v in figures.items() if v is not None}
