"""Traffic for tests of reports: texts of three topics, some of them hard, and what a fit made of
them."""

from __future__ import annotations

from functools import cache

import numpy as np

from shared.contracts.tasks import Task
from shared.core.fit import Fit, Settings, fit
from shared.core.report.boundary import Boundary
from shared.core.training import TrainingSet
from shared.core.types import Mask
from shared.fitting.horizon import Horizon, training_set
from tests.doubles import HashEncoder

WORDS = {
    "account": "password login email profile locked username reset forgot blocked access",
    "billing": "invoice charged payment receipt card refund twice amount fee statement",
    "delivery": "parcel courier late shipping address driver tracking delayed doorstep van",
}
COMMON = [
    "please", "help", "what", "about", "again", "today", "order", "customer", "need", "problem",
    "still", "my", "the",
]  # fmt: skip
LABELS = tuple(WORDS)
TASK = Task(name="support", alpha=0.9, delta=0.1, labels=(*LABELS, "other"))


@cache
def horizon(n: int = 900, *, muddled: float = 0.25, seed: int = 0) -> Horizon:
    """Texts of one label's words; a share is of two labels' and answered with either, a few are
    answered differently word for word, and three are of a label of their own."""
    rng = np.random.default_rng(seed)
    texts, given = [], []
    for _ in range(n):
        label = LABELS[int(rng.integers(3))]
        words = [*rng.choice(WORDS[label].split(), 3), *rng.choice(COMMON, 3)]
        if rng.uniform() < muddled:
            other = LABELS[int(rng.integers(3))]
            words = [*words[:2], *rng.choice(WORDS[other].split(), 2), *words[3:]]
            label = str(rng.choice([label, other]))
        rng.shuffle(words)
        texts.append(" ".join(words))
        given.append(label)
    for i in range(8):  # the teacher contradicts itself
        texts += [f"where is number {i}?", f"Where is number {i + 100}"]
        given += ["billing", "delivery"]
    texts += ["bonjour tout le monde", "guten tag zusammen", "buenos dias amigos"]
    given += ["other"] * 3
    return Horizon([(text,) for text in texts], given, np.ones(len(texts), np.bool_))


@cache
def trained(n: int = 900, *, muddled: float = 0.25, evidence: str = "crossfit",
            alpha: float = 0.9) -> tuple[Horizon, TrainingSet, Fit]:  # fmt: skip
    rows = horizon(n, muddled=muddled)
    training = training_set(rows, HashEncoder())
    kind = "holdout" if evidence == "holdout" else "crossfit"
    return rows, training, fit(training, Settings(alpha=alpha, kind=kind))


def boundary(handled: Mask, agrees: Mask, y: np.ndarray | None = None) -> Boundary:
    """Of n rows; what is not given is plain."""
    n = len(handled)
    y = np.zeros(n, np.int64) if y is None else y
    return Boundary(
        at=np.arange(n),
        y=y,
        said=np.where(agrees, y, y + 1),
        second=np.where(agrees, y + 1, y),
        odds=np.full(n, 10.0),
        accept=np.where(handled, 0.9, 0.5),
        handled=handled,
        novel=np.zeros(n, np.bool_),
        dropped=np.zeros(n, np.bool_),
        weights=np.ones(n),
        groups=np.arange(n),
    )
