"""Why a fit was refused, as far as the data says: what a person can do about it."""

from __future__ import annotations

import numpy as np

from shared.core.gate import Refused, with_reason
from shared.core.grouping import contradiction_share
from shared.core.policies import MINIMUM_EVIDENCE, Evidence, Policies, policies
from shared.core.training import TrainingSet

# Near-duplicates that are a smaller part of the traces than this explain no refusal.
CONTRADICTIONS_SHARE = 0.05
CONTRADICTIONS_ROWS = 30
# Errors that grow by less than this from the surest traffic to the half of it do not come from
# what the surrogate is unsure of.
FLAT = 0.25
# A teacher that is noisier than this cannot be told from an embedding that says nothing.
MOST_NOISE = 0.25
HALF = 0.5


def with_causes(refused: Refused, training: TrainingSet, evidence: Evidence) -> Refused:
    """Add what the data says about the cause."""
    causes = [*_contradictions(refused, training), *_errors(refused, policies(evidence), evidence)]
    return with_reason(refused, "; ".join([refused.reason, *causes])) if causes else refused


def _contradictions(refused: Refused, training: TrainingSet) -> list[str]:
    contradicted, rows = contradiction_share(training.groups, training.y)
    enough = rows >= max(CONTRADICTIONS_ROWS, CONTRADICTIONS_SHARE * len(training))
    if not enough or contradicted <= 1.0 - refused.alpha:
        return []
    return [
        f"the teacher contradicts itself on {contradicted:.0%} of the {rows} traces with "
        "near-duplicates"
    ]


def _errors(refused: Refused, walked: Policies, evidence: Evidence) -> list[str]:
    """Noise of the teacher, or an embedding that does not separate the labels."""
    if len(evidence) < MINIMUM_EVIDENCE:
        return []
    if not len(walked):  # where scores say nothing, no trace looks like one of a known label
        agreement = float(evidence.agrees[:, -1].mean())
        return [_not_separated(agreement)] if agreement <= refused.alpha else []
    if walked.agreement[0] > refused.alpha:
        return []
    middle = min(int(np.searchsorted(walked.coverage, HALF)), len(walked) - 1)
    surest, half = 1.0 - walked.agreement[0], 1.0 - walked.agreement[middle]
    if half - surest <= FLAT * surest and surest <= MOST_NOISE:
        return [
            f"the errors do not depend on how sure the surrogate is: about {half:.0%} of the "
            "teacher's answers look like noise; lower α or make the teacher's prompt steadier"
        ]
    return [_not_separated(float(walked.agreement[-1]))]


def _not_separated(agreement: float) -> str:
    return (
        f"the embedding does not separate the labels (agreement on everything {agreement:.2f}): "
        "try another encoder or coarser labels"
    )
