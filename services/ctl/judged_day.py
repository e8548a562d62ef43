"""The requests of a past day that can be judged, and what a version would have made of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.ctl.encoded import Encoded, encoded
from shared.contracts.events import Reason
from shared.contracts.manifest import Manifest, Teacher
from shared.contracts.tasks import Task
from shared.core.grouping import independent_groups, near_duplicate_groups
from shared.core.types import Floats, Ints, Mask
from shared.encoder.base import Encoder
from shared.fitting.prices import Calls, calls
from shared.fitting.report.build import wrong_at_most
from shared.fitting.stored import horizon_of, may_count
from shared.onnx.cascade import Answers, CascadeSession
from shared.rounding import down

Labels = NDArray[np.object_]

_NARROW = [
    "id", "occurred_at", "observation_probability", "cost", "input_tokens", "output_tokens",
]  # fmt: skip


@dataclass(frozen=True)
class JudgedDay:
    """n requests: the evidence among the day's traces, all that may certify.

    texts: a pair's two in one. teacher: str[n], its answers. groups: int64[n], equal for
    near-duplicates. usual: int64[m], the requests of as many texts as the version is fitted for;
    all others would be deferred. encoded: of those m. n_traces: of the whole day, evidence or of
    labels that may still be given; n_removed: all others.
    """

    texts: list[str]
    teacher: Labels
    groups: Ints
    calls: Calls
    usual: Ints
    encoded: Encoded
    n_traces: int
    n_removed: int
    answered_by: Teacher

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def weights(self) -> Floats:
        """float64[n]: how many of the day's requests each stands for."""
        return self.calls.weights


@dataclass(frozen=True)
class Replayed:
    """What a version would have made of n requests. label: str[n], its answer where `handled`;
    reason: why, in the router's words."""

    handled: Mask
    label: Labels
    reason: list[Reason]


def judged_day(
    table: pa.Table, task: Task, encoder: Encoder, *, n_texts: int, per_call: float | None
) -> JudgedDay:
    """Columns of the table as in `shared.store.parquet.SCHEMA`; n_texts: 1, or 2 for pairs."""
    # Texts as lists: Arrow orders no more than 2 GiB of them.
    day = table.select(_NARROW).sort_by([("occurred_at", "ascending"), ("id", "ascending")])
    horizon = horizon_of(table, zone=ZoneInfo(task.timezone))  # of these rows, in this order
    kept = np.flatnonzero(may_count(horizon.teacher, horizon.evidence, task.labels))
    counted = np.flatnonzero(horizon.evidence)
    requests = 1.0 / day["observation_probability"].to_numpy()
    seen, day = horizon.take(counted.tolist()), day.take(pa.array(counted))
    usual = np.asarray([i for i, pair in enumerate(seen.inputs) if len(pair) == n_texts], np.int64)
    return JudgedDay(
        texts=seen.texts,
        teacher=np.asarray(seen.teacher, dtype=object),
        groups=independent_groups(near_duplicate_groups(seen.texts)),
        calls=calls(
            _standing_for(requests[counted], requests[kept]),
            day["cost"].to_pylist(),
            day["input_tokens"].to_pylist(),
            day["output_tokens"].to_pylist(),
            price=task.price,
            per_call=per_call,
        ),
        usual=usual,
        encoded=encoded([seen.inputs[i] for i in usual.tolist()], encoder),
        n_traces=len(kept),
        n_removed=len(table) - len(kept),
        answered_by=horizon.answered_by,
    )


def replay_day(
    day: JudgedDay, manifest: Manifest, blobs: Mapping[str, bytes], taxonomy: Collection[str]
) -> Replayed:
    """Raises InvalidStage. Without a `taxonomy` every label may be given."""
    said = day.encoded.answers(CascadeSession(manifest, blobs))
    reasons = [Reason.INVALID_INPUT] * len(day)
    labels = np.full(len(day), "", dtype=object)
    for at, row in enumerate(day.usual.tolist()):
        label = manifest.labels[said.label[at]]
        labels[row] = label
        reasons[row] = _reason(said, at, gone=bool(taxonomy) and label not in taxonomy)
    handled = np.asarray([reason is Reason.CERTIFIED for reason in reasons], dtype=np.bool_)
    return Replayed(handled, labels, reasons)


def nothing_handled(day: JudgedDay) -> Replayed:
    """What becomes of the day without a version."""
    n = len(day)
    return Replayed(
        np.zeros(n, np.bool_), np.full(n, "", dtype=object), [Reason.NO_ACTIVE_VERSION] * n
    )


def _reason(said: Answers, i: int, *, gone: bool) -> Reason:
    """As the router gives it; gone: nobody may answer with the label any more."""
    if not np.isfinite(said.accept[i]):
        return Reason.INVALID_INPUT
    if said.stage[i] >= 0:
        return Reason.LABEL_REMOVED if gone else Reason.CERTIFIED
    if said.novel[i]:
        return Reason.OUT_OF_DISTRIBUTION
    return Reason.LABEL_FLOOR if said.dropped[i] else Reason.BELOW_THRESHOLD


def _standing_for(requests: Floats, whole: Floats) -> Floats:
    """How many requests each stands for, where those that count stand for the `whole` day. Not as
    evidence weighs, which is less where each stands for many."""
    return requests * (whole.sum() / requests.sum()) if len(requests) else requests


def summary_of(manifest: Manifest) -> dict[str, Any]:
    """A certificate for people: what it promises of 1,000 requests."""
    certificate = manifest.certificate
    return {
        "kind": certificate.kind,
        "method": certificate.method,
        "delta": certificate.delta,
        "n_evidence": certificate.n_evidence,
        "coverage": round(certificate.coverage, 4),
        "agreement_lower": down(certificate.agreement_lower, 4),
        "wrong_per_1000_at_most": wrong_at_most(certificate.coverage, certificate.agreement_lower),
    }
