"""Two versions on the same requests: for which would the answer, or who answers, change?"""

from __future__ import annotations

from typing import Any

import numpy as np

from services.ctl.judged_day import JudgedDay, Replayed
from shared.core.types import Mask


def compare(day: JudgedDay, before: Replayed, after: Replayed) -> dict[str, Any]:
    """Counts of the day's judged requests, and what share of the requests each stands for.

    A deferred request gets the teacher's answer, so that a request may change hands and keep its
    answer.
    """
    was = np.where(before.handled, before.label, day.teacher)
    will = np.where(after.handled, after.label, day.teacher)
    differs = np.asarray(was != will, dtype=np.bool_)
    changes: dict[str, Mask] = {
        "answer_changes": differs,
        "answer_becomes_the_teachers": differs & (will == day.teacher),
        "answer_was_the_teachers": differs & (was == day.teacher),
        "answerer_changes": before.handled != after.handled,
        "newly_handled": ~before.handled & after.handled,
        "newly_deferred": before.handled & ~after.handled,
    }
    total = day.weights.sum()
    return {
        name: {
            "n": int(rows.sum()),
            "share": round(float(day.weights @ rows / total), 4) if len(day) else None,
        }
        for name, rows in changes.items()
    }
