"""The cascade: stages in a row, each answering what it is sure enough of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from shared.core.candidates import Scorer
from shared.core.head import Head
from shared.core.training import TrainingSet
from shared.core.types import Floats, Ints, Mask, Scores


@dataclass(frozen=True)
class StageModel:
    """A scorer and the head that reads its scores and those of all stages before it.

    novelty_cut: the stage does not answer inputs of this novelty or more.
    """

    name: str
    scorer: Scorer
    head: Head
    novelty_cut: float


@dataclass(frozen=True)
class Outputs:
    """What every stage says of every row.

    label: int64[n, s]; accept: float64[n, s] in [0, 1]; novel: bool[n, s].
    """

    label: Ints
    accept: Floats
    novel: Mask

    def __len__(self) -> int:
        return len(self.label)

    @classmethod
    def concatenate(cls, parts: Sequence[Outputs]) -> Outputs:
        """Of the rows of all parts, in a row."""
        return cls(
            label=np.concatenate([part.label for part in parts]),
            accept=np.concatenate([part.accept for part in parts]),
            novel=np.concatenate([part.novel for part in parts]),
        )

    @property
    def eligible(self) -> Floats:
        """float64[n, s]: accept scores, below any threshold where the input is novel."""
        return np.where(self.novel, -1.0, self.accept)

    def take(self, rows: Ints | Mask) -> Outputs:
        return Outputs(self.label[rows], self.accept[rows], self.novel[rows])

    def stages(self, n: int) -> Outputs:
        """The first n stages only."""
        return Outputs(self.label[:, :n], self.accept[:, :n], self.novel[:, :n])


@dataclass(frozen=True)
class Cascade:
    stages: tuple[StageModel, ...]
    n_labels: int

    def outputs(self, rows: TrainingSet) -> Outputs:
        """Every stage on every row, in float64."""
        scores: list[Scores] = []
        said = []
        for stage in self.stages:
            scores.append(stage.scorer.scores(rows))
            said.append(stage.head(scores))
        return Outputs(
            label=np.stack([s.label for s in said], axis=1),
            accept=np.stack([s.accept for s in said], axis=1),
            novel=np.stack(
                [s.novelty >= t.novelty_cut for s, t in zip(said, self.stages, strict=True)], axis=1
            ),
        )


# Runs a cascade as it will be served. `shared.fitting` gives one that exports every stage to ONNX
# and runs that, so that what is certified is what the routers' graphs say.
Serve = Callable[[Cascade, TrainingSet], Outputs]


def in_numpy(cascade: Cascade, rows: TrainingSet) -> Outputs:
    """The reference, without any graph."""
    return cascade.outputs(rows)
